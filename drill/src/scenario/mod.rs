//! Scenarios: what is done to a cluster under load, and what must be so afterwards.
//!
//! A scenario is a script of one round: a fault, what must go on meanwhile, its repair, and the wait until all copies are
//! there again. It may be run many times in a row on one cluster. The load runs all the time; [`run`] judges what it saw.
//!
//! ```text
//! list      the scenarios by name
//! stage     what a script works with
//! kills, cuts, disks, changes   the scripts, by what they break
//! sizes     a cluster that grows and shrinks
//! run       a scenario from the start of its cluster to its verdict
//! running   drills of a cluster that is in use
//! judge     what the clients were told against what is there
//! watch     who leads when, as the nodes say
//! ```

mod changes;
mod cuts;
mod disks;
mod judge;
mod kills;
mod list;
mod run;
mod running;
mod sizes;
mod stage;
mod watch;

pub use list::{Scenario, all, find, standard};
pub use run::{Settings, run};
pub use running::{RunningCluster, run_running};
pub use stage::Stage;
