//! The scenarios by name.

use futures::future::LocalBoxFuture;

use super::{Stage, changes, cuts, disks, kills, sizes};
use crate::trouble::Trouble;

/// One round of a scenario.
type Script = for<'s> fn(&'s mut Stage) -> LocalBoxFuture<'s, Result<(), Trouble>>;

/// What is done to a cluster.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What it is, in words.
    pub about: &'static str,
    /// Whether it belongs to the standard list.
    pub standard: bool,
    /// How many rounds there are if nothing else is said.
    pub rounds: u32,
    /// The cluster that it is done to.
    pub(crate) ground: Ground,
    pub(crate) script: Script,
}

/// How the cluster of a scenario begins.
#[derive(Clone, Copy)]
pub(crate) struct Ground {
    /// How many nodes there are.
    pub(crate) nodes: usize,
    /// Whether nodes reach each other by way of proxies. They cost a hop, so only where they are needed.
    pub(crate) proxied: bool,
    /// More flags for the nodes.
    pub(crate) flags: &'static [&'static str],
}

const DIRECT: Ground = Ground { nodes: 3, proxied: false, flags: &[] };
const PROXIED: Ground = Ground { proxied: true, ..DIRECT };
const ALONE: Ground = Ground { nodes: 1, ..DIRECT };
/// The journal is not kept for long, so that a node that lost everything has to be filled.
const SHORT_JOURNAL: Ground = Ground { flags: &["--checkpoint-mib", "8", "--retention-mib", "8"], ..DIRECT };

/// Makes the table readable: a line a scenario.
macro_rules! scenarios {
    ($($name:literal, $standard:literal, $rounds:literal, $ground:ident, $script:path, $about:literal;)*) => {
        &[$(Scenario {
            name: $name,
            about: $about,
            standard: $standard,
            rounds: $rounds,
            ground: $ground,
            script: |stage| Box::pin($script(stage)),
        }),*]
    };
}

/// All of them, in the order in which they are run.
pub fn all() -> &'static [Scenario] {
    scenarios! {
        "kill-leader", true, 3, DIRECT, kills::leader, "the leader is killed, and started again";
        "kill-follower", true, 2, DIRECT, kills::follower, "a follower is killed, and started again";
        "kill-all", true, 1, DIRECT, kills::all, "all nodes lose their power at once";
        "freeze-leader", true, 1, DIRECT, kills::freeze_leader, "the leader stands still for longer than an election takes, and goes on";
        "cut-leader", true, 1, PROXIED, cuts::leader, "the leader reaches no other node, and is reached by none; clients still reach it";
        "cut-follower", true, 1, PROXIED, cuts::follower, "a follower is cut off for longer than an election takes, and comes back";
        "cut-one-way", true, 1, PROXIED, cuts::one_way, "nothing that the leader sends arrives; what is sent to it does";
        "deaf-leader", true, 1, PROXIED, cuts::deaf, "nothing that is sent to the leader arrives; what it sends does";
        "flap", true, 1, PROXIED, cuts::flap, "the connection between the leader and one follower breaks again and again";
        "cuts", false, 10, PROXIED, cuts::random, "cuts drawn by chance: both ways or one, a minority, the leader alone, all from all";
        "slow-disk", true, 1, DIRECT, disks::slow, "every sync of the leader takes 80 ms longer";
        "hung-disk", true, 1, DIRECT, disks::hung, "a sync of the leader does not return, for longer than an election takes";
        "full-disk", true, 1, DIRECT, disks::full, "the leader's disk has no space left, and later has some again";
        "lost-directory", true, 1, DIRECT, changes::lost_directory, "a follower's directory is gone; it comes back under its name";
        "rolling-restart", true, 1, DIRECT, changes::rolling_restart, "each node in turn is ended in order, and started again";
        "transfer", true, 5, DIRECT, changes::transfer, "leadership is handed to another node";
        "replace", true, 1, DIRECT, changes::replace, "a node is killed for good, and another takes its place";
        "seed", true, 1, SHORT_JOURNAL, changes::seed, "a node that lost everything is filled while writes go on";
        "grow-and-shrink", false, 1, ALONE, sizes::script, "one node becomes three and five, two are replaced, three are left; with kills in between";
    }
}

/// Those that are run when none is named.
pub fn standard() -> Vec<Scenario> {
    all().iter().copied().filter(|scenario| scenario.standard).collect()
}

/// The one with this name.
///
/// # Errors
/// With the names that there are.
pub fn find(name: &str) -> Result<Scenario, String> {
    let names = || all().iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    let found = all().iter().find(|scenario| scenario.name == name);
    found.copied().ok_or_else(|| format!("there is no scenario `{name}`; there are {}", names()))
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_there_once_and_found() {
        for scenario in all() {
            assert_eq!(find(scenario.name).unwrap().about, scenario.about);
            assert_eq!(all().iter().filter(|other| other.name == scenario.name).count(), 1, "{scenario:?}");
            assert!(scenario.rounds > 0);
        }
        assert!(find("kill").unwrap_err().contains("kill-leader"));
        assert!(standard().len() < all().len());
    }
}
