//! The journal: one sequence of frames on disk, which is the Raft log.
//!
//! Order and durability promised here (the siblings keep it):
//! - frames stand in log order; a frame's chain value covers the whole history before it;
//! - `append` only queues: the frames can be read at once, from memory until they are written. A caller that would wait
//!   for them anyway may write what is queued itself, unless somebody is at it;
//! - what waits is written as one group, by one positioned write and one sync, and callbacks run in queue order, after
//!   the sync;
//! - a cut (`cut_after`) is durable before its callback runs, and no byte of what it cut ever comes back;
//! - segments below the purge point are recycled, never anything above it;
//! - a failed write or sync stops the journal: nothing is retried, everything that waits hears of it.
//!
//! What is not at the crate's root is for tools and tests, and not covered by [what is promised](crate#what-is-stable).
//!
//! # What stands on disk
//!
//! Segments of one size, `<number>.seg`, consecutive; each a header and groups ([`mod@format`], [`segment`]). A group is a
//! block of 64 bytes ([`group`]) and its frames ([`frame`]). Blocks and frames start at multiples of 64 bytes, so a
//! block lies within one sector and is there whole or not at all. (epoch, number) of blocks only ever grows. A block
//! *attests* a position: everything before it was durable when the block was written. An *attest* block is written
//! behind the last group when the journal is idle, without a sync, and once more in the segment's header; the next group
//! is written over it. A *cut* block
//! stands at the end of the last frame that stays, over whatever stood there, and raises the epoch.
//!
//! # Where a journal ends
//!
//! Opening walks from the first segment on. A group follows if its block stands where it says, has the current epoch,
//! the next number and the next index, and if the headers behind it lead, frame by frame, to the chain value that it
//! names for its last (or to a cut block on the way). A frame follows if its sums, index, term and chain value fit. A
//! cut block with a higher epoch and number, which names the chain value of the frame before, follows anywhere a frame
//! or a group could stand. A segment follows if its header has the
//! next segment number, the next group number, the current epoch and the very log id and chain value walked to. If the
//! next segment has not its length, or a header that is neither one nor zeros, the place before it is damage. Where
//! nothing follows, at position p, the walk looks at all later places for a block that stands where it says, with
//! epoch >= the current one, number > the current one, attesting more than p; and in the headers of these segments.
//! If there is one, p is **damage**: nothing is written, `append` is refused until somebody cuts. Else p is the
//! **end**: whatever follows is an unfinished group. If all its headers are there, the frames before the first bad
//! payload stay (nobody was told of them, but they are what the leader sent); else nothing of it does. Then everything that stands between the place which the last block walked over
//! attests and the end of the last frame is written again, and synced; and then a cut block is written at that end, and
//! synced, always.
//!
//! # Crash by crash
//!
//! - *While a group is written.* Any mixture of its sectors may be there. Its block attests only what was durable
//!   before, and the next group is written after its sync: no block attests more than its start. Frames of it are kept
//!   as above, or not; no callback of it has run.
//! - *The same, over frames that were cut away.* Frames are the same bytes on every node, so no frame says which write of
//!   this node's it is of; with the new block there and the new frames not, what stands behind it may be a frame that
//!   was cut, of the right index, length and past. Its chain value is not the one that the block names: chain values
//!   lead from one header to the next, so if the last is the one that was written, all before it are, and if not, none
//!   of them need be. (A block has room for half of the value: one chance in four billion, in a case that is rare.)
//! - *The same, in a fresh segment.* The spare got its name, durably, before; header and group are one write. Without
//!   the header the segment does not follow and is recycled; with it and a torn group the walk ends at its start. In
//!   both cases the end is in the segment before, the cut block is written there, and the header's epoch is too old
//!   from then on.
//! - *While an attest is written.* It is there or not. It is never needed to find the end, only to tell damage from an
//!   unfinished group; and the group that is later written over it begins with a block that attests as much.
//! - *While a cut block is written.* It is whole or absent. Absent: the cut has not happened, its callback has not
//!   run, everything is as before (the bytes it goes over are still there, in one sector with their neighbours). Whole:
//!   it has happened. Nothing is appended before it is durable.
//! - *After a cut, before the segments behind it are recycled.* Their headers and blocks have a lower epoch: they
//!   neither follow nor bear witness. Opening removes them. The same holds for stale bytes behind the cut in its own
//!   segment, for ever: every later block there has at least the cut's epoch.
//! - *The process ends, is started again, and the power goes later.* Opening reads from the page cache of the process
//!   before it, so it reads what is not on disk, and reports it as durable. What was still dirty any sync would cover.
//!   But after a sync that failed the kernel takes the pages for clean: they read as they were written, a sync of
//!   another handle succeeds, and nothing ever writes them. Only one group can be in that state: the sync of the one
//!   before it succeeded first, which is what its block attests. So that group is written again before the cut (with
//!   the header of its segment, if it is the first there), and synced before the cut, whose block attests it: were it
//!   one sync and that one failed, too, the next opening would read the cut block, and believe it.
//! - *While opening.* What it writes again is what can be read there: on disk that is a group being written, as above.
//!   Then it writes one block, the cut at the end: absent, and the next opening finds the same; whole, and the next
//!   finds the same frames and cuts in the same place again, over it, with a higher epoch. So a group that was left
//!   torn is never continued and its leftovers are never met again with a current epoch.
//! - *While a segment is purged.* Segments go one by one, oldest first, each durably, so the numbers never have a gap.
//!   A recycled file becomes a spare only when its new name is durable; its old blocks say other positions than where
//!   they stand now, so they are no blocks any more.
//! - *A power cut after a sync was reported.* Everything the callbacks promised stands before the attested position of
//!   any later block; if it cannot be read, that is damage and is told as such. Only the very last group, before its
//!   end is attested, cannot be told from an unfinished one; nor can a group of which a part was cut, if the cut's block
//!   is the one to go bad (within a group no later block is looked for: what is there may be a payload).
//!
//! A frame's payload could contain bytes that look like a block with this very position, epoch and number. The walk steps
//! over payloads of frames that stay; but a cut shifts what is written behind it, so that the stale payload of a frame
//! that was cut may stand where a block is looked for. Such bytes are not followed: an append must be followed by
//! headers that continue the chain, and a cut must name half of the chain value before it, which no client knows. Nor
//! can they take the epoch or the number to where they end: what is too far ahead is no block. They can bear false
//! witness, if they stand behind the end, or in a group that was torn so that its own block is missing.

mod cache;
mod cut;
mod dones;
mod follow;
pub mod format;
pub mod frame;
pub mod group;
mod index;
mod inspect;
#[allow(clippy::module_inception, reason = "the handle is the journal")]
mod journal;
mod look;
mod needed;
mod options;
mod reader;
mod rebuild;
mod repair;
mod run;
mod scan;
mod scrub;
pub mod segment;
mod spare;
mod state;
mod survey;
mod walk;
mod window;
mod writer;

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod format_test;
#[cfg(test)]
mod frame_test;
#[cfg(test)]
mod journal_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod rig_test;
#[cfg(test)]
mod room_test;
#[cfg(test)]
mod stop_test;
#[cfg(test)]
mod survey_test;
#[cfg(test)]
mod walk_test;

pub use dones::Done;
pub(crate) use follow::Waited;
pub use format::LogStart;
pub use frame::CHAIN_START;
pub use inspect::{FrameInfo, frame_hash, frames, inspect};
pub use journal::Journal;
pub(crate) use journal::Who;
pub use options::{JournalMode, JournalOptions};
pub use scan::Scan;
pub(crate) use scrub::BadPart;
pub use state::{InOrder, JournalStats};
pub use survey::{SegmentInfo, SpareInfo, Survey, survey};
pub use walk::Damage;
