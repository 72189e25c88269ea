//! Recovery: from what stands on disk to a state that may be served.
//!
//! What was observed is turned into one named decision ([`mod@decide`]); every combination has its line in the table, and a
//! test enumerates them. Then `replay` does what was decided:
//! 1. from the finished checkpoint to the target *blindly*: the file may be any mixture of page versions up to the
//!    target, so nothing is verified before, and nothing may stop earlier;
//! 2. at the target, every page that was touched carries its checksum;
//! 3. from there to the highest commit index that a frame header names, as if applied, digests compared;
//! 4. never further: the consensus decides about the rest.

pub mod decide;
pub(crate) mod in_place;
pub(crate) mod replay;

#[cfg(test)]
mod decide_test;
#[cfg(test)]
mod in_place_test;
#[cfg(test)]
mod replay_test;

pub use decide::{Damage, Decision, Observed, decide};
