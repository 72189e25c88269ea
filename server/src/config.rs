//! What a node is told when it starts: flags first, then the environment, then what its directory remembers.
//!
//! A directory remembers its identity: name, listen address and advertised address stand in `node.meta`. So only the
//! first start needs more than `--dir`; later flags move the addresses, and a name that differs is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use calamus_engine::SpaceOptions;
use calamus_proto::v1::Aim;
use calamus_replication::network::reach::Reach;
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::seeding::SeedWish;

/// What is logged by default: the consensus library speaks of every retry, and what matters of it is logged by us.
pub const DEFAULT_LOG: &str = "info,openraft=error";

/// What a node is to be in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JoinAs {
    /// A voter as soon as it has caught up.
    Voter,
    /// A learner until it is promoted.
    Learner,
    /// One that never votes.
    Observer,
}

impl From<JoinAs> for Aim {
    fn from(role: JoinAs) -> Aim {
        match role {
            JoinAs::Voter => Aim::Voter,
            JoinAs::Learner => Aim::Learner,
            JoinAs::Observer => Aim::Observer,
        }
    }
}

/// The flags of `calamus serve`, each with its environment variable.
#[derive(Clone, Debug, Args)]
pub struct NodeConfig {
    /// The directory of this node: its data, journal and identity.
    #[arg(long, env = "CALAMUS_DIR", value_name = "DIR")]
    pub dir: PathBuf,
    /// What to call this node. Needed at the first start only.
    #[arg(long, env = "CALAMUS_NAME", value_parser = node_name, value_name = "NAME")]
    pub name: Option<String>,
    /// Where to listen. Needed at the first start only; port 0 takes a free port and keeps it.
    #[arg(long, env = "CALAMUS_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<Endpoint>,
    /// Where the other nodes and the clients reach this node, if that is not where it listens.
    #[arg(long, env = "CALAMUS_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<Endpoint>,
    /// First start: make a new cluster with this node as its only voter.
    #[arg(long, env = "CALAMUS_BOOTSTRAP", conflicts_with = "join", value_parser = FalseyValueParser::new())]
    pub bootstrap: bool,
    /// First start: join the cluster of the node at this address. A node whose directory was lost comes back so,
    /// under its old name.
    #[arg(long, env = "CALAMUS_JOIN", value_name = "HOST:PORT")]
    pub join: Option<Endpoint>,
    /// First start with --join: what this node is to be. A voter is a learner until it has caught up; a learner stays one until
    /// `calamus cluster promote`; an observer never votes. By default what the node of the same name was that it replaces, or
    /// else a voter.
    #[arg(long = "as", env = "CALAMUS_AS", value_name = "ROLE")]
    pub join_as: Option<JoinAs>,
    /// What to fill this node from, if it is new or too far behind: `any` (the follower that lags least), `leader`,
    /// `node:NAME`, or `backup:TARGET` for the newest backups in a target of --config, or `backup:PLACE` for a directory or
    /// a bucket. Where that fails, another node is taken.
    #[arg(long, env = "CALAMUS_SEED_FROM", value_name = "WHAT")]
    pub seed_from: Option<SeedWish>,
    /// How much this node sends to nodes that are filled from it, all together, in MiB a second; 0 is no limit.
    #[arg(long, env = "CALAMUS_SEED_MIB_S", default_value_t = 0, value_name = "MIB")]
    pub seed_mib_s: u32,
    /// How much journal this node keeps for nodes that are filled, in MiB: as their source, and as the leader, which sends what
    /// was committed meanwhile. More than is written while a node is filled: else it is filled once more.
    #[arg(long, env = "CALAMUS_SEED_HOLD_MIB", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(64..), value_name = "MIB")]
    pub seed_hold_mib: u32,
    /// This directory was moved to another disk on purpose, and its original neither runs nor ran since. Needed once; a
    /// rename within a file system needs it not. A copy is refused otherwise, because two directories must never vote as
    /// one node. There is no variable for it: it would be said again at every start.
    #[arg(long)]
    pub directory_was_moved: bool,
    /// How long a first start looks for the node after --join, in seconds: both may be starting at once.
    #[arg(long, env = "CALAMUS_JOIN_WAIT_S", default_value_t = 15, value_name = "S")]
    pub join_wait_s: u32,
    /// For tests only: connect to the node called NAME there, in place of the address that it advertises. Several times for
    /// several nodes. A test puts a relay in between, to break or slow that one way.
    #[arg(long, hide = true, value_parser = way, value_name = "NAME=HOST:PORT")]
    pub reach: Vec<(String, Endpoint)>,
    /// Threads of the runtime that serves requests and consensus; 1 runs all of it on one thread. By default half of the
    /// processors: the journal, checkpoints and long work have threads of their own, and each wake-up between threads
    /// costs a lone client more than a second thread gives it.
    #[arg(long, env = "CALAMUS_WORKERS", default_value_t = default_workers(), value_parser = clap::value_parser!(u8).range(1..=64), value_name = "N")]
    pub workers: u8,
    /// Start a checkpoint when this much journal lies above the last one, in MiB.
    #[arg(long, env = "CALAMUS_CHECKPOINT_MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..), value_name = "MIB")]
    pub checkpoint_mib: u32,
    /// Keep at least this much journal below the checkpoint for nodes that are behind, in MiB.
    #[arg(long, env = "CALAMUS_RETENTION_MIB", default_value_t = 256, value_name = "MIB")]
    pub retention_mib: u32,
    /// Memory for page versions, in MiB: what is committed and not yet in the data file, and what old snapshots still see.
    #[arg(long, env = "CALAMUS_VERSIONS_MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(4..), value_name = "MIB")]
    pub versions_mib: u32,
    /// How much the scrub reads from the disk at most, in MiB a second; 0 turns it off.
    #[arg(long, env = "CALAMUS_SCRUB_MIB_S", default_value_t = 16, value_name = "MIB")]
    pub scrub_mib_s: u32,
    /// How long the scrub takes to read everything once, in seconds, unless that is more than --scrub-mib-s allows. Damage
    /// is found within so long.
    #[arg(long, env = "CALAMUS_SCRUB_PASS_S", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(1..), value_name = "S")]
    pub scrub_pass_s: u32,
    /// Space that is taken ahead of time in the directory, in MiB, so that this node can finish what it has accepted when the
    /// disk is full. Less than 192 is not enough for a segment of the journal and a large transaction.
    #[arg(long, env = "CALAMUS_RESERVE_MIB", default_value_t = 256, value_name = "MIB")]
    pub reserve_mib: u32,
    /// The low mark: take only deletes and drops when less than this is free on the disk beside the reserve, in MiB.
    #[arg(long, env = "CALAMUS_SPACE_LOW_MIB", default_value_t = 128, value_name = "MIB")]
    pub space_low_mib: u32,
    /// The high mark: take nothing that grows when less than this is free on the disk beside the reserve, in MiB. Not below
    /// the low mark.
    #[arg(long, env = "CALAMUS_SPACE_HIGH_MIB", default_value_t = 512, value_name = "MIB")]
    pub space_high_mib: u32,
    /// Shortest wait for a leader before an election, in milliseconds; the longest is twice that.
    #[arg(long, env = "CALAMUS_ELECTION_TIMEOUT_MS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(50..=60_000), value_name = "MS")]
    pub election_timeout_ms: u32,
    /// A file in TOML with what is too long for flags: the places that backups may go to. See docs/operations/backup.md.
    #[arg(long, env = "CALAMUS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to log to stderr: `info`, or `warn,calamus_replication=debug`, ...
    #[arg(long, env = "CALAMUS_LOG", default_value = DEFAULT_LOG, value_name = "FILTER")]
    pub log: String,
}

fn default_workers() -> u8 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u8::try_from((processors / 2).clamp(1, 64)).expect("at most 64")
}

impl NodeConfig {
    /// How much of the disk is kept, and when what is refused.
    ///
    /// # Errors
    /// When the marks are the wrong way round.
    pub fn space(&self) -> Result<SpaceOptions, Failure> {
        if self.space_high_mib < self.space_low_mib {
            return Err(Failure::new(
                "the marks of free space are the wrong way round",
                format!("the high mark is {} MiB, the low one {} MiB", self.space_high_mib, self.space_low_mib),
                "--space-high-mib is where growth is refused, and must not be below --space-low-mib, where all but deletes is",
            ));
        }
        let bytes = |mib: u32| u64::from(mib) << 20;
        let mut space = SpaceOptions::default();
        space.reserve_bytes = bytes(self.reserve_mib);
        space.low_bytes = bytes(self.space_low_mib);
        space.high_bytes = bytes(self.space_high_mib);
        Ok(space)
    }

    /// Other ways to nodes than where they say that they are.
    ///
    /// # Errors
    /// When there are two to one node.
    pub fn reach(&self) -> Result<Reach, Failure> {
        let mut ways = BTreeMap::new();
        for (name, address) in &self.reach {
            if ways.insert(name.clone(), address.to_string()).is_some() {
                let why = format!("there are two ways to {name}");
                return Err(Failure::new("cannot use --reach", why, "give each node once"));
            }
        }
        Ok(Reach::new(ways))
    }

    /// The range from which a wait for a leader is drawn.
    #[must_use]
    pub fn election_timeout(&self) -> std::ops::Range<Duration> {
        let least = Duration::from_millis(u64::from(self.election_timeout_ms));
        least..2 * least
    }

    /// The time between two heartbeats: a fifth of the shortest wait, so that four may be lost.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.election_timeout_ms / 5))
    }
}

/// NAME=HOST:PORT.
fn way(text: &str) -> Result<(String, Endpoint), String> {
    let (name, address) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=HOST:PORT: there is no `=`"))?;
    Ok((node_name(name)?, address.parse()?))
}

/// The most bytes of a node name.
pub const MAX_NODE_NAME_BYTES: usize = 64;

/// Checks a node name: it stands in `node.meta`, in tables and in paths.
pub fn node_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > MAX_NODE_NAME_BYTES {
        return Err(format!("a node name has 1 to {MAX_NODE_NAME_BYTES} characters, this one has {}", text.len()));
    }
    match text.chars().find(|c| !allowed(*c)) {
        None if text.starts_with('.') => Err("a node name does not start with a dot".to_owned()),
        None => Ok(text.to_owned()),
        Some(c) => {
            Err(format!("a node name is made of letters, digits, `-`, `_` and `.`; `{}` is not", c.escape_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_names_a_node_and_an_address() {
        let address: Endpoint = "127.0.0.1:1".parse().unwrap();
        assert_eq!(way("n2=127.0.0.1:1"), Ok(("n2".to_owned(), address)));
        for bad in ["n2", "=127.0.0.1:1", "n2=", "n2=nowhere", "a b=127.0.0.1:1"] {
            assert!(way(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names() {
        for good in ["n1", "db-3.eu_west", "A"] {
            assert_eq!(node_name(good).as_deref(), Ok(good));
        }
        for bad in ["", ".n", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(node_name(bad).is_err(), "{bad}");
        }
    }
}
