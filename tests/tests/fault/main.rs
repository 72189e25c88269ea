//! Clusters of real processes that are killed, frozen, wiped and filled while clients write.
//!
//! All of them run on disks that undo what was not synced when their process is killed (`Setup::losing`), except where
//! memory is measured or a file is damaged.

mod damage;
mod directories;
mod exactly_once;
mod freeze;
mod full_disk;
mod grow;
mod identity;
mod kill;
mod lost_majority;
mod planted;
mod planted_consensus;
mod reach;
mod rejoin;
mod rollback;
mod seeding;
mod sources;
mod stopped;
mod transfer;
mod watch;

use std::time::Duration;

use calamus_tests::cluster::Setup;

/// A load takes seconds; a machine that runs everything else at the same time may take minutes.
const LOAD_LIMIT: Duration = Duration::from_secs(300);

/// How many clients write.
const CLIENTS: usize = 8;

/// Three nodes whose disks lose what was not synced, with checkpoints all the time.
fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_calamus-fault")).losing().flag("--checkpoint-mib", 1)
}
