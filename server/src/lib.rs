//! The one binary `calamus` and what it is made of.
//!
//! ```text
//! cli/        the command line: one file a command; `cli/data/` are the commands that speak through the client crate
//! ```
//!
//! Direction: `cli` uses everything else; nothing uses `cli`.

pub mod cli;
