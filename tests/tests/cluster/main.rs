//! Clusters of real processes on real disks: what a user does with them.

mod large_values;
mod plain;
mod reads;
mod splits;

use std::time::Duration;

use calamus_tests::cluster::Setup;

/// A load takes seconds; a machine that runs everything else at the same time may take minutes.
const LOAD_LIMIT: Duration = Duration::from_secs(300);

/// Three nodes of the binary that Cargo has built for these tests.
fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_calamus-fault"))
}
