//! Watches: committed changes as streams, from any node.
//!
//! ```text
//! tip      the newest frames, read and decoded once for all watchers of this node
//! stream   one watcher: from its position to the tip, and on as frames come
//! filter   what of a frame a watcher wants, as messages
//! ```
//!
//! Contract:
//! - What a watcher gets is what `calamus_engine::feed` gives: committed, applied and durable here, each transaction once and in
//!   order, whole.
//! - A watcher costs no thread. At the tip it takes decoded frames from memory; farther behind, a thread for blocking work
//!   reads about `READ_BYTES` of the journal when the client has taken what was read before. HTTP/2's flow control is the
//!   only pace. So at most that much waits for a client, or one transaction, and a message on its way.
//! - The journal is not kept for anybody. When it is recycled beneath a watcher, the stream ends and says so.
//! - Writers never wait for a watcher: the thread at the tip takes frames that are committed, and drops them when
//!   `TIP_BYTES` of newer ones are there.

mod filter;
mod stream;
mod tip;

pub use stream::{WatchStream, Watches};

/// About how much of the journal is read at a time for a watcher that is behind, in bytes.
const READ_BYTES: usize = 1 << 20;
/// About how much of the newest frames is kept decoded while somebody watches, in bytes.
const TIP_BYTES: usize = 4 << 20;
