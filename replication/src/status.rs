//! A node's status message.

use std::time::SystemTime;

use calamus_engine::damage::Damage;
use calamus_engine::ids::LogId;
use calamus_proto::v1::{Aim, NodeStatus, Position, Role, Seeding};
use openraft::ServerState;

use crate::core::Standing;
use crate::membership::{aim_to_wire, removal};
use crate::network::convert::to_log_id;
use crate::replica::Replica;
use crate::types::RaftLogId;

fn position(log_id: Option<LogId>) -> Option<Position> {
    log_id.map(|log_id| Position { term: log_id.term.0, index: log_id.index.0 })
}

fn raft_position(log_id: Option<&RaftLogId>) -> Option<Position> {
    position(log_id.map(to_log_id))
}

/// How a node is, by itself. `frozen` is the merger's.
pub(crate) fn of(replica: &Replica) -> NodeStatus {
    let (engine, core) = (replica.engine(), replica.core());
    let (identity, counters, log, applied) = (engine.identity(), engine.status(), engine.log_state(), engine.applied());
    let metrics = core.metrics();
    let membership = metrics.membership_config.membership();
    let id = identity.raft_id.0;
    let leader = replica.leader();
    let role = match (membership.get_node(&id), core.standing(), metrics.state) {
        (_, Standing::Elected { .. }, _) => Role::Leader,
        (None, _, _) => Role::Outside,
        _ if core.was_removed() => Role::Outside,
        (_, _, ServerState::Learner) => Role::Learner,
        (_, _, ServerState::Candidate) => Role::Candidate,
        _ => Role::Follower,
    };
    let damaged = engine.damaged();
    NodeStatus {
        name: identity.name,
        raft_id: id,
        address: identity.advertise,
        role: role.into(),
        term: metrics.current_term,
        leader: leader.as_ref().map_or_else(String::new, |leader| leader.name.clone()),
        leader_address: leader.map_or_else(String::new, |leader| leader.address),
        cluster_id: identity.cluster_id.to_string(),
        database_id: engine.database_id().to_string(),
        last_log: position(log.last),
        durable: position(log.durable),
        committed: raft_position(metrics.local_committed.as_ref()),
        applied: position(applied.log_id),
        checkpointed: position(engine.checkpointed().log_id),
        purged: position(log.last_purged),
        applied_txn: applied.txn_id.0,
        digest: applied.digest.to_string(),
        page_count: counters.page_count,
        free_pages: counters.free_pages.unwrap_or(0),
        journal_bytes: counters.journal_bytes,
        version_bytes: counters.version_bytes as u64,
        checkpoints: counters.checkpoints,
        tree_mutations: counters.tree_mutations,
        generation: counters.generation.0,
        voter: membership.voter_ids().any(|voter| voter == id) && !core.was_removed(),
        unreachable: false,
        state: words(replica, role, counters.failed, counters.starved, &damaged),
        void_records: counters.void_records,
        free_disk_bytes: counters.space.free_bytes.unwrap_or(0),
        space_level: counters.space.level.words().to_owned(),
        reserve_bytes: counters.space.reserve_bytes,
        needed_bytes: counters.space.needed_bytes,
        process_id: u64::from(std::process::id()),
        frozen: false,
        damaged: counters.damage.open,
        damage_found: counters.damage.found,
        damage_repaired: counters.damage.repaired,
        damage: damaged.iter().take(DAMAGE_LISTED).map(|damage| format!("{}: {}", damage.part, damage.what)).collect(),
        scrub_passes: counters.scrub.passes,
        scrub_done_bytes: counters.scrub.running.map_or(0, |(done, _)| done),
        scrub_total_bytes: counters.scrub.running.map_or(0, |(_, total)| total),
        scrub_pass_seconds: counters.scrub.expected_pass.map_or(0, |pass| pass.as_secs().max(1)),
        scrub_finished_at: counters.scrub.last.and_then(|last| seconds(last.finished_at?)),
        seeding: replica.seeding_progress().map(|(received_bytes, total_bytes)| Seeding {
            from: replica.seeding_source().unwrap_or_default(),
            received_bytes,
            total_bytes,
        }),
        seedings_begun: replica.seedings_begun(),
        seedings_resumed: replica.seedings_resumed(),
        seedings_served: replica.seedings_served(),
        aim: membership.get_node(&id).map_or(Aim::Unspecified, |node| aim_to_wire(node.aim)).into(),
    }
}

/// How much of the damage a status names.
const DAMAGE_LISTED: usize = 10;

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn words(replica: &Replica, role: Role, failed: Option<String>, starved: bool, damaged: &[Damage]) -> String {
    if let Some(why) = failed {
        return format!("stopped: {why}");
    }
    if let Standing::Stopped { why } = replica.core().standing() {
        return format!("stopped: {why}");
    }
    if replica.core().was_removed() {
        return removal::text(replica.engine().identity().raft_id);
    }
    if starved {
        return "waits for space on its disk".to_owned();
    }
    if let Some((received, total)) = replica.seeding_progress() {
        let from = replica.seeding_source().unwrap_or_else(|| "nobody yet".to_owned());
        let of = if total == 0 { String::new() } else { format!(" of about {}", total >> 20) };
        return format!("seeding from {from}, {}{of} MiB received", received >> 20);
    }
    match (role, replica.leader()) {
        (Role::Outside, _) => "waiting to be added".to_owned(),
        (_, None) => "no leader known".to_owned(),
        _ => match damaged {
            [] => "ready".to_owned(),
            [one] => format!("{} is damaged", one.part),
            [first, others @ ..] => format!("{} and {} more are damaged", first.part, others.len()),
        },
    }
}
