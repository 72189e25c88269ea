//! The scrub: reads everything that a node has on disk, slowly and for ever, and compares it with what should be there.
//!
//! A read verifies a page when it is first touched; from then on it is read from the map. What rots behind that, or is
//! read by nobody, is found here: pages, frames and blocks of the journal, slots of `node.meta` and `vote`. And an *old*
//! page, which carries a checksum that fits, can only be found by comparing it with what the file must hold
//! ([`crate::store`] keeps that, page by page).
//!
//! # What is read
//!
//! The disk, not the page cache: what the cache holds says nothing of what the next start will read. Where the file
//! system has no reads past the cache, the scrub reads through it, and sees of pages that are cached only what the cache
//! holds: rot on the disk shows when they have left it.
//!
//! # Never a false alarm
//!
//! A checkpoint writes pages while the scrub reads them. For each piece of the file the scrub
//! 1. opens a reader, of snapshot `s`;
//! 2. looks which of the pages have no version up to `s`;
//! 3. reads the piece, and compares those pages;
//! 4. drops the reader.
//!
//! A page without a version up to `s` in step 2 stands in the file as of the last checkpoint that wrote it, and stays so
//! until step 4: a checkpoint that could write it goes to a target `t <= s`, as long as the reader is there, and writes
//! only versions up to `t`; there is none, and there will be none, since new ones are above the applied state, and so
//! above `s`. What it must hold is known, too: a checkpoint says what it has written before it drops the versions. In the
//! other order, step 3 before step 2, the file could be read before a checkpoint, and compared with what it must hold
//! after it. A reader that is expired for its age meanwhile holds checkpoints back all the same, until it is dropped.
//!
//! # Never in a checkpoint's way
//!
//! A checkpoint goes no further than the oldest reader lets it, and the scrub's is one. The next checkpoint of the
//! background makes up for that; whoever asks for one ([`Engine::checkpoint`](crate::Engine::checkpoint)) counts on what
//! it returns. So that one waits for the piece that is being read, and the scrub waits until it is done.
//!
//! # In how long
//!
//! A pass reads all there is, at [`EngineOptions::scrub_bytes_per_second`](crate::EngineOptions) at most, and at that if
//! it would otherwise take longer than [`EngineOptions::scrub_pass`](crate::EngineOptions). So each page is looked at once
//! in `max(scrub_pass, bytes / scrub_bytes_per_second)`, and what goes wrong is found within so long, if the node runs,
//! and a tenth more where the journal keeps it waiting. [`ScrubStatus::expected_pass`] says how long that is.
//!
//! An old content that was there *before* the node was started is another matter: what a page must hold is known only
//! from when it was written, or first read, in this process. So what a pass finds first is taken for right, and at its end
//! the sum over all pages must be the digest of the finished checkpoint. If it is not, some page is old, and which is not
//! known ([`DamagedPart::State`](crate::damage::DamagedPart)). That, too, takes one pass from the start on.
//!
//! # What cannot be told
//!
//! - The very last group of the journal, lost by a disk that said it had it, looks like a group that was never written
//!   once the node is started again. While the node runs, the scrub finds it: the frames are known.
//! - Both slots of `node.meta` (or of `vote`) that lost the same writes, found by the next start.
//! - What a reader took from the map between the moment when the kernel dropped a page and read it anew, rotten, and the
//!   scrub's next visit: reads from the map are not verified again.
//!
//! # What happens with damage
//!
//! It is noted ([`Engine::damaged`](crate::Engine::damaged)), logged, counted; a page is taken from the map and not
//! served. Slots are mended on the spot, from memory, and so are blocks and headers of the journal (`journal/rebuild.rs`). A
//! page that should be free is zeroed: nobody is needed for that.
//! For pages and frames see [`Engine::repair_page`](crate::Engine::repair_page) and
//! [`Engine::repair_frame`](crate::Engine::repair_frame).

mod background;
mod pace;
mod pass;
mod repair;

#[cfg(test)]
mod beside_test;
#[cfg(test)]
mod journal_test;
#[cfg(test)]
mod pace_test;
#[cfg(test)]
mod repair_test;
#[cfg(test)]
mod scrub_test;

pub(crate) use background::{Scrub, ScrubThread};
pub use background::{ScrubReport, ScrubStatus};
pub use repair::RepairError;
