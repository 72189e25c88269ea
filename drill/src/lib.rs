//! What tests and the `drill` command put a cluster through.
//!
//! ```text
//! documents   documents of 1 KB to 4 MB from a seed
//! proxy       the network between nodes, which can be cut, held, slowed down and reset
//! history     what clients asked for and were told, in real-time order; kept in a file
//! checker     whether a history can be what a correct database answered
//! ```

pub mod checker;
pub mod documents;
pub mod history;
pub mod proxy;
