//! What an application depends on to use Calamus.
//!
//! ```text
//! client      the handle that an application holds: transactions, reads, and the retry loop around both
//! txn         builds a transaction
//! read        what a read may show: all, or what one node has
//! outcome     committed, not committed, unknown, as types
//! stream      a scan as it arrives
//! watch       committed changes as they come
//! cluster     status of the cluster and changes to it
//! discovery   which nodes there are, who leads, whom to ask next
//! topology    the last known nodes in a file
//! nodes       connections, one set a node
//! session     exactly once: transactions that run at most once, however often they are sent
//! retry       what an error status means, and how long to wait after it
//! ```
//!
//! Contract:
//! - One address that answers is enough to find the cluster; leader changes are followed.
//! - A transaction ends in one of three ways, and the types tell them apart: committed ([`Committed`]), not committed, and
//!   unknown ([`TxnError`]). Unknown is never turned into one of the others by a guess.
//! - A transaction whose outcome became unknown is sent again only if it changes nothing, or if the application said that
//!   running it twice does no harm ([`Txn::idempotent`]). In a [`Session`] it is sent again, and runs once.
//! - Everything ends within its deadline ([`Options::deadline`], [`Txn::deadline`]).
//!
//! ```no_run
//! use calamus_client::{Client, Options, Txn, TxnError};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(["127.0.0.1:7001"], Options::default()).await?;
//! let transfer = Txn::new()
//!     .guard_value("accounts", "anna", "100")
//!     .put("accounts", "anna", "60")
//!     .put("accounts", "ben", "40")
//!     .otherwise(|t| t.get("accounts", "anna"));
//! match client.txn(transfer).await {
//!     Ok(done) if done.guards_held => println!("committed as txn {}", done.txn_id),
//!     Ok(done) => println!("somebody was faster: {:?}", done.entry(0)),
//!     Err(TxnError::NotCommitted(why)) => println!("nothing was changed: {why}"),
//!     Err(TxnError::Unknown(why)) => println!("read before you try again: {why}"),
//! }
//! if let Some(entry) = client.get("accounts", "ben").await? {
//!     println!("{:?} since txn {}", entry.value, entry.version);
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod cluster;
mod discovery;
mod nodes;
mod outcome;
mod read;
mod retry;
mod session;
mod stream;
mod topology;
mod txn;
mod watch;

#[cfg(test)]
mod client_test;
#[cfg(test)]
mod scripted_test;
#[cfg(test)]
mod session_test;

pub use calamus_proto::v1 as proto;
pub use calamus_proto::v1::{Consistency, Entry, Range, ReadPoint, SeenTxn, TreeInfo};
pub use client::{Client, Options, ReadFrom};
pub use cluster::Cluster;
pub use discovery::ConnectError;
pub use outcome::{Committed, Failure, Outcome, ReadError, TxnError};
pub use read::ReadAs;
pub use retry::Backoff;
pub use session::{Pending, ResumeError, Session, SessionState};
pub use stream::{ScanOptions, ScanStream};
pub use topology::{KnownNode, Topology, TopologyError};
pub use txn::{Compare, Txn, range};
pub use watch::{Position, PositionError, Watch, WatchError, WatchEvent, WatchFrom, WatchOptions, WatchedTxn};
