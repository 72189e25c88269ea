//! What was committed, as changes: the journal read by txn id.
//!
//! ```text
//! changes   the operations of a frame, each with its value
//! place     where a reader stands: what it has seen, the next frame, and the state that this must build on
//! survey    finding a place in the part of the journal that nobody remembers
//! ```
//!
//! Contract:
//! - A reader that knows everything up to a txn id gets all transactions behind it, each once and in order, or is told that
//!   the journal does not hold them any more, and from where it does.
//! - Only what is committed, applied here and durable here is shown: frames come from [`Engine::tail`](crate::Engine::tail),
//!   or from [`Engine::committed_frames`](crate::Engine::committed_frames).
//! - A record that was void when it was applied yields nothing. Whether it was is decided here by the same rule as there:
//!   it changes the state that its txn id, digest and timeline name, or nothing. So a reader carries the state along, and
//!   must begin with the right one. That is what marks (`store/marks.rs`) are for.
//! - Nothing is kept for a reader. The journal is recycled beneath one that is slow, and then he is told.
//!
//! Crash by crash there is nothing to argue: nothing of this is on disk. A place is made anew from a txn id.

mod changes;
mod place;
mod survey;

#[cfg(test)]
mod changes_test;
#[cfg(test)]
mod place_test;

pub use changes::{Change, ChangeKind, ChangedValue, FrameChanges, KeyBounds};
pub use place::{FeedError, FeedPlace};
