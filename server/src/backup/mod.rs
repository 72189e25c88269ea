//! Backups, as far as they are the server's: where they go, and what a node does about them.
//!
//! | file | what |
//! | --- | --- |
//! | `place` | a place as an operator writes it: a directory or a bucket |
//! | `object` | a bucket behind the engine's door to places |
//! | `targets` | the places that a node's configuration names |
//! | `runs` | one run at a time on a node, and what is known of it |
//! | `work` | what a run does |
//! | `schedule` | backups that nobody asks for: which node makes them |
//! | `describe` | what the engine says of backups, as messages |
//! | `error` | why a node did not do what it was asked |
//!
//! What a backup is, and why a restore ends in the state that was backed up: `calamus_engine::backup`.

pub mod describe;
pub mod error;
pub mod object;
pub mod place;
pub mod runs;
pub mod schedule;
pub mod targets;
pub mod work;
