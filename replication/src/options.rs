//! Every option of openraft, each set here on purpose: a new default must not change what a node does.

use std::ops::Range;
use std::time::Duration;

use crate::merger::MergerOptions;
use crate::network::reach::Reach;
use openraft::{Config, ConfigError, SnapshotPolicy, StepDownPolicy};

/// How a node takes part in the consensus.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// A follower that has heard nothing of its leader for the upper end, plus a random part of the range, stands for
    /// election; the upper end is the leader's lease. 500 to 1000 ms: syncs of 400 ms with a lease of 300 ms made a
    /// leader refuse writes.
    pub election_timeout: Range<Duration>,
    /// How often a leader tells idle followers that it lives.
    pub heartbeat_interval: Duration,
    /// Frames sent to one follower and not yet acknowledged by it, in bytes. One frame may always be under way.
    pub unacknowledged_bytes: usize,
    /// How long a follower may take for its next answer on the append stream.
    pub answer_limit: Duration,
    /// How long connecting to a peer may take.
    pub connect_limit: Duration,
    /// How long a seeding may go without a sign of progress.
    pub seed_stall_limit: Duration,
    /// How long what was received in a seeding is kept when nobody goes on with it.
    pub seed_keep: Duration,
    /// How much journal a seeding may keep, in bytes: on its source, and on the leader, which goes on behind it.
    pub seed_hold_bytes: u64,
    /// How much this node sends to nodes that are being seeded from it, all together, in bytes a second; 0 is no limit.
    pub seed_bytes_per_second: u64,
    /// A learner at most this many entries behind is promoted.
    pub promotion_lag_entries: u64,
    /// After a voter lost its leader's connection, it asks whether the others did too and then elects at once.
    pub fast_failover: bool,
    /// How long a read waits for a quorum round and for what was committed to be applied.
    pub read_patience: Duration,
    /// Other ways to nodes than where they say that they are, for tests.
    pub reach: Reach,
    /// The merger's options.
    pub merger: MergerOptions,
    /// Planted faults, for tests that must find them.
    #[cfg(feature = "mutants")]
    pub mutants: Mutants,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            election_timeout: Duration::from_millis(500)..Duration::from_millis(1000),
            heartbeat_interval: Duration::from_millis(100),
            unacknowledged_bytes: 8 << 20,
            answer_limit: Duration::from_secs(3),
            connect_limit: Duration::from_millis(1000),
            seed_stall_limit: Duration::from_secs(30),
            seed_keep: Duration::from_secs(300),
            seed_hold_bytes: 8 << 30,
            seed_bytes_per_second: 0,
            promotion_lag_entries: 256,
            fast_failover: true,
            read_patience: Duration::from_secs(5),
            reach: Reach::default(),
            merger: MergerOptions::default(),
            #[cfg(feature = "mutants")]
            mutants: Mutants::from_environment(),
        }
    }
}

impl NodeConfig {
    /// Whether the planted fault *a restarted leader leads on* is on.
    fn restores_leader(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutants.enable_leader_restore;
        #[cfg(not(feature = "mutants"))]
        false
    }

    /// Whether the planted fault *acknowledge before the sync* is on.
    pub(crate) fn acknowledges_early(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutants.acknowledge_before_sync;
        #[cfg(not(feature = "mutants"))]
        false
    }
}

impl NodeConfig {
    /// Whether the planted fault *leadership goes to whoever is named* is on.
    pub(crate) fn transfers_blindly(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutants.transfer_blindly;
        #[cfg(not(feature = "mutants"))]
        false
    }

    /// Whether the planted fault *no pre-vote* is on.
    fn elects_without_asking(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutants.no_pre_vote;
        #[cfg(not(feature = "mutants"))]
        false
    }

    /// Whether the planted fault *a read index without a quorum* is on.
    pub(crate) fn reads_without_quorum(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutants.read_index_without_quorum;
        #[cfg(not(feature = "mutants"))]
        false
    }

    /// Whether the planted fault *a vote that is not synced* is on.
    pub(crate) fn votes_early(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutants.vote_not_synced;
        #[cfg(not(feature = "mutants"))]
        false
    }
}

/// Planted faults.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutants {
    /// A leader that restarts leads the same term again, with whatever of its log reached the disk.
    pub enable_leader_restore: bool,
    /// Frames are acknowledged when they are queued.
    pub acknowledge_before_sync: bool,
    /// Leadership is handed to a voter that lags or does not answer, too.
    pub transfer_blindly: bool,
    /// A vote is given, to another or to oneself, before it is durable.
    pub vote_not_synced: bool,
    /// Who hears of no leader stands for election without asking first whether others hear of none.
    pub no_pre_vote: bool,
    /// A leader takes itself for the leader, and asks nobody before it says up to where a read has to see.
    pub read_index_without_quorum: bool,
}

#[cfg(feature = "mutants")]
impl Mutants {
    /// The faults named in `CALAMUS_MUTANTS`, separated by commas: `enable_leader_restore`, `acknowledge_before_sync`,
    /// `transfer_blindly`, `vote_not_synced`, `no_pre_vote`, `read_index_without_quorum`.
    #[must_use]
    pub fn from_environment() -> Self {
        let named = std::env::var("CALAMUS_MUTANTS").unwrap_or_default();
        let named = |fault: &str| named.split(',').any(|name| name.trim() == fault);
        Self {
            enable_leader_restore: named("enable_leader_restore"),
            acknowledge_before_sync: named("acknowledge_before_sync"),
            transfer_blindly: named("transfer_blindly"),
            vote_not_synced: named("vote_not_synced"),
            no_pre_vote: named("no_pre_vote"),
            read_index_without_quorum: named("read_index_without_quorum"),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's configuration for a node.
///
/// # Errors
/// When the times contradict each other (heartbeats must be shorter than elections).
#[allow(deprecated)] // `send_snapshot_timeout` is a field all the same
pub fn openraft_config(config: &NodeConfig, cluster: &str) -> Result<Config, ConfigError> {
    Config {
        // Only names the cluster in traces.
        cluster_name: cluster.to_owned(),
        election_timeout_min: millis(config.election_timeout.start),
        election_timeout_max: millis(config.election_timeout.end),
        heartbeat_interval: millis(config.heartbeat_interval),
        // Heartbeats are never suppressed by other traffic: followers learn the commit index from them.
        heartbeat_min_interval: Some(0),
        // Not enforced by openraft: our own limits are in `network::client`.
        install_snapshot_timeout: millis(config.seed_stall_limit),
        send_snapshot_timeout: 0,
        // Counts entries, not bytes. Bytes are bounded by `log_reader` for each request and by the pump for the stream.
        max_payload_entries: 300,
        max_append_entries: Some(4096),
        // Only blocks `add_learner(blocking)`, which we do not use: promotion is in `membership`.
        replication_lag_threshold: 5000,
        // Checkpoints are the engine's. A snapshot only declares one that is finished (`trimming`).
        snapshot_policy: SnapshotPolicy::Never,
        // A snapshot is an instruction, it has no chunks.
        snapshot_max_chunk_size: 1 << 20,
        // openraft purges nothing by itself; `trimming` says how far.
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        // The merger bounds what is in flight far below these.
        api_channel_size: Some(65536),
        api_batch_capacity: 4096,
        // The merger has merged already; lingering would only add to every commit's time.
        api_batch_linger_ms: 0,
        notification_channel_size: Some(65536),
        state_machine_channel_size: Some(1024),
        log_stage_capacity: Some(1024),
        // Followers get a frame while the leader syncs it. Gains up to 10 % in the trial, costs nothing.
        broadcast_submitted_on_append: Some(true),
        enable_tick: true,
        enable_heartbeat: true,
        // Not before the node has said what its directory holds, and nobody knows better: see `network::introduce`.
        enable_elect: false,
        // A leader that was removed hands over once the change is committed.
        removed_leader_step_down: StepDownPolicy::After(150),
        // `silence` does more: appends and quorum rounds are heartbeats, too.
        quorum_loss_probe_interval: None,
        // A node that was cut off must not depose a live leader when it returns.
        enable_pre_vote: Some(!config.elects_without_asking()),
        // Between tries on an unreachable peer.
        backoff: "200ms".to_owned(),
        reset_backoff_on_transfer_leader: Some(true),
        // A follower that lost acknowledged entries must never be fed as if nothing had happened.
        allow_log_reversion: Some(false),
        // The default lets a restarted leader go on leading its term, with whatever part of its log reached the disk:
        // a second proposer of the same (term, index).
        enable_leader_restore: Some(config.restores_leader()),
    }
    .validate()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_keeps_the_rules_that_writes_depend_on() {
        let config = openraft_config(&NodeConfig::default(), "test").expect("valid");
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.allow_log_reversion, Some(false));
        assert_eq!(config.snapshot_policy, SnapshotPolicy::Never);
        assert_eq!(config.max_in_snapshot_log_to_keep, u64::MAX);
        assert_eq!(config.enable_pre_vote, Some(true));
    }

    #[test]
    fn heartbeats_longer_than_elections_are_refused() {
        let config = NodeConfig { heartbeat_interval: Duration::from_secs(2), ..NodeConfig::default() };
        assert!(openraft_config(&config, "test").is_err());
    }
}
