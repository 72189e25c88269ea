//! What tests and the `drill` command put a cluster through.
//!
//! ```text
//! documents   documents of 1 KB to 4 MB from a seed
//! ```

pub mod documents;
