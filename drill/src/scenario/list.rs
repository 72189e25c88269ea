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
    /// Whether nodes reach each other by way of proxies. They cost a hop, so only where they are needed.
    pub(crate) proxied: bool,
    /// How many nodes the cluster begins with.
    pub(crate) nodes: usize,
    pub(crate) script: Script,
}

/// Three, if nothing is said.
macro_rules! nodes {
    () => {
        3
    };
    ($nodes:literal) => {
        $nodes
    };
}

/// Makes the table readable: a line a scenario.
macro_rules! scenarios {
    ($($name:literal, $standard:literal, $rounds:literal, $proxied:literal, $script:path, $about:literal $(, $nodes:literal)?;)*) => {
        &[$(Scenario {
            name: $name,
            about: $about,
            standard: $standard,
            rounds: $rounds,
            proxied: $proxied,
            nodes: nodes!($($nodes)?),
            script: |stage| Box::pin($script(stage)),
        }),*]
    };
}

/// All of them, in the order in which they are run.
pub fn all() -> &'static [Scenario] {
    scenarios! {
        "kill-leader", true, 3, false, kills::leader, "the leader is killed, and started again";
        "kill-follower", true, 2, false, kills::follower, "a follower is killed, and started again";
        "kill-all", true, 1, false, kills::all, "all nodes lose their power at once";
        "freeze-leader", true, 1, false, kills::freeze_leader, "the leader stands still for longer than an election takes, and goes on";
        "cut-leader", true, 1, true, cuts::leader, "the leader reaches no other node, and is reached by none; clients still reach it";
        "cut-follower", true, 1, true, cuts::follower, "a follower is cut off for longer than an election takes, and comes back";
        "cut-one-way", true, 1, true, cuts::one_way, "nothing that the leader sends arrives; what is sent to it does";
        "flap", true, 1, true, cuts::flap, "the connection between the leader and one follower breaks again and again";
        "cuts", false, 10, true, cuts::random, "cuts drawn by chance: both ways or one, a minority, the leader alone, all from all";
        "slow-disk", true, 1, false, disks::slow, "every sync of the leader takes 80 ms longer";
        "hung-disk", true, 1, false, disks::hung, "a sync of the leader does not return, for longer than an election takes";
        "full-disk", true, 1, false, disks::full, "the leader's disk has no space left, and later has some again";
        "lost-directory", true, 1, false, changes::lost_directory, "a follower's directory is gone; it comes back under its name";
        "rolling-restart", true, 1, false, changes::rolling_restart, "each node in turn is ended in order, and started again";
        "transfer", true, 5, false, changes::transfer, "leadership is handed to another node";
        "replace", true, 1, false, changes::replace, "a node is killed for good, and another takes its place";
        "seed", true, 1, false, changes::seed, "a node that lost everything is filled while writes go on";
        "grow-and-shrink", false, 1, false, sizes::script, "one node becomes three and five, two are replaced, three are left; with kills in between", 1;
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
