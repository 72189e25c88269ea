//! What tests and the `drill` command put a cluster through, and how it is judged.
//!
//! ```text
//! documents   documents of 1 KB to 4 MB from a seed
//! process     child processes that never outlive whoever started them
//! ports       free ports that stay free
//! proxy       a TCP proxy whose network can be cut, held, slowed down and reset
//! scratch     a cluster of real processes, made to be broken
//! load        clients that note what they are told
//! timeline    what happened, and when
//! history     what clients asked for and were told, in real-time order; kept in a file
//! checker     whether a history can be what a correct database answered
//! scenario    what is done to a cluster
//! verdict     what is said of it
//! report      a page of HTML with a timeline of each scenario
//! rival       the same kills, done to etcd
//! ```
//!
//! Direction: `scenario` uses everything; `load` uses `history` and `timeline`, `checker` uses `history`, `report` and
//! `verdict` use `timeline`, `scratch` uses `process` and `proxy`; nothing else knows of each other.

pub mod checker;
pub mod documents;
pub mod history;
pub mod load;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod report;
pub mod rival;
pub mod scenario;
pub mod scratch;
pub mod timeline;
pub mod trouble;
pub mod verdict;
