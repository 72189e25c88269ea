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

pub mod meta;
mod run;

#[cfg(test)]
mod meta_test;

pub use meta::NodeMeta;
pub(crate) use run::write_pages;
