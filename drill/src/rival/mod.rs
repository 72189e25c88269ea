//! The same kills of a leader, done to etcd, for comparison.
//!
//! ```text
//! wire    the few messages of etcd's interface that are needed
//! etcd    three members, started with their defaults
//! kills   writers beside killed leaders
//! ```

mod etcd;
mod kills;
mod wire;

pub use kills::kill_leaders;
