//! Checkpoints: copying applied pages into the data file, in place, with no double write.
//!
//! The protocol, and why no crash in it loses anything:
//! 1. Choose the target `t`: the oldest reader's snapshot, or the applied state if there is no reader. It is durable in
//!    the journal of this node (`t <= durable here`), so whatever is copied can be replayed here.
//! 2. Make `t` durable in `node.meta`. *Crash before:* nothing was written; recovery replays from the old checkpoint
//!    and may stop wherever the log says.
//! 3. Write the newest version not above `t` of every page that has one, in page order; zero or punch the pages that are
//!    free. *Crash within:* the file is a mixture of page versions up to `t`, torn pages included. Recovery knows `t`
//!    from step 2 and replays every frame from the old checkpoint to `t` blindly: set-bytes diffs end in the same bytes
//!    from any mixture of versions up to `t`. Had step 2 not been durable, recovery might stop earlier, on a mixture.
//! 4. Give the file the length of `t`'s page count, and sync. The frees up to `t` are zeros now, so equal states are
//!    equal files.
//! 5. Make `t` the finished checkpoint in `node.meta`. *Crash before:* as in 3. *After:* the file alone is `t`.
//! 6. Drop the versions that the file holds. Only now may the journal up to `t` be purged.
//!
//! *No space within 3:* the file is the same mixture as after a crash there, and the checkpoint is given up. Nothing is
//! lost, and nobody sees the mixture: step 6 was not reached, so each page that was written, or half written, still has a
//! version in memory that every reader takes instead (the one that was written, or a newer applied one that made it
//! unneeded). When there is space again the next checkpoint goes to `t` or beyond, since no reader has opened below `t`
//! meanwhile, and writes each of these pages anew. *A failed sync* is not tried again, even one that names space: the
//! kernel may have dropped what it was to write, and would say later that all is well. Then nothing is written into the
//! file any more, writers are refused, and whoever drives the engine must stop the node.

pub mod meta;
mod pace;
mod run;

#[cfg(test)]
mod meta_test;
#[cfg(test)]
mod pace_test;

pub use meta::NodeMeta;
pub(crate) use pace::{Bounds, Pacer, Seen};
pub(crate) use run::{Progress, write_pages};
