//! `calamus cluster status`.

use calamus_proto::v1::{Aim, NodeStatus, Position, Quorum, Role, ScheduledBackup, StatusResponse};
use serde_json::{Value, json};
use tonic::Status;

use super::{STATUS_LIMIT, nobody_there};
use crate::cli::common::print;
use crate::cli::table::{self, position, role_word};
use crate::cli::{ClientArgs, Endpoint, Exit, Failure};
use crate::peer;

/// Asks the first endpoint that answers, and shows what it says.
pub(super) async fn status(client: &ClientArgs) -> Result<Exit, Failure> {
    match ask(client).await {
        Ok(found) => show(client, found),
        Err(error) => {
            client.tell(&json!({ "error": "unreachable", "message": error.message() }));
            Err(Failure::new("cannot get the status of the cluster", error.message(), nobody_there(client)))
        }
    }
}

/// What the first endpoint that answers says. Any node that answers at all is good enough, so a hung one is passed over too.
pub(super) async fn ask(client: &ClientArgs) -> Result<StatusResponse, Status> {
    let mut last = Status::unavailable("there are no endpoints");
    for address in client.endpoints.iter().map(Endpoint::as_str) {
        match peer::status(address, true, STATUS_LIMIT).await {
            Ok(found) => return Ok(found),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// How many entries a node lacks of what the leader has; `None` where one of them does not say.
pub(super) fn lag(node: &NodeStatus, members: &[NodeStatus]) -> Option<u64> {
    let leader = leader(members)?;
    (!node.unreachable).then(|| last_index(leader).saturating_sub(last_index(node)))
}

/// Who leads, if anybody who answers does: in the newest term.
pub(super) fn leader(members: &[NodeStatus]) -> Option<&NodeStatus> {
    members.iter().filter(|node| node.role() == Role::Leader).max_by_key(|node| node.term)
}

/// The index of the last entry that a node has; 0 for none.
pub(super) fn last_index(node: &NodeStatus) -> u64 {
    node.last_log.as_ref().map_or(0, |at| at.index)
}

/// What a member is, in words.
fn role(node: &NodeStatus) -> &'static str {
    match (node.role(), node.aim()) {
        (Role::Learner, Aim::Observer) => "observer",
        (Role::Learner, Aim::Learner) => "learner, held",
        (role, _) => role_word(role),
    }
}

/// What the cluster stands, in a line.
fn quorum_line(quorum: &Quorum) -> String {
    let voters = format!("{} of {} voters answer", quorum.answer, quorum.voters);
    match quorum.tolerates {
        0 => format!("{voters}: tolerates no more failure\n"),
        1 => format!("{voters}: tolerates 1 more failure\n"),
        more if more > 0 => format!("{voters}: tolerates {more} more failures\n"),
        missing => format!("{voters}: no quorum, {} are missing\n", missing.unsigned_abs()),
    }
}

fn show(client: &ClientArgs, found: StatusResponse) -> Result<Exit, Failure> {
    let asked = found.node.unwrap_or_default();
    let members = if found.members.is_empty() { vec![asked.clone()] } else { found.members };
    if client.json {
        let nodes: Vec<Value> = members.iter().map(|node| node_json(node, &members)).collect();
        let quorum = found
            .quorum
            .map(|quorum| json!({ "voters": quorum.voters, "answer": quorum.answer, "tolerates": quorum.tolerates }));
        let all = json!({ "cluster_id": asked.cluster_id, "database_id": asked.database_id, "leader": asked.leader,
            "asked": asked.name, "quorum": quorum, "nodes": nodes, "backups": found.backups.iter().map(backup_json).collect::<Vec<_>>() });
        let text = serde_json::to_string_pretty(&all).expect("a value is always JSON");
        return print(format!("{text}\n"), Exit::Done);
    }
    let mut rows = table::new(&[
        "node",
        "address",
        "role",
        "state",
        "lag",
        "term",
        "last log",
        "applied",
        "txn",
        "checkpoint",
        "data",
        "journal",
        "disk",
    ]);
    for node in &members {
        rows.add_row(row(node, &members));
    }
    let mut text = format!("cluster {}, database {}\n{rows}\n", asked.cluster_id, asked.database_id);
    text += &found.quorum.as_ref().map(quorum_line).unwrap_or_default();
    for node in members.iter().filter(|node| node.unreachable) {
        text += &format!("{} does not answer: {}\n", node.name, node.state);
    }
    for node in &members {
        for damage in &node.damage {
            text += &format!("{}: {damage}\n", node.name);
        }
    }
    for backup in &found.backups {
        text += &backup_line(backup);
    }
    print(&text, Exit::Done)
}

/// Scheduled backups of one target, in a line.
fn backup_line(backup: &ScheduledBackup) -> String {
    let mut line = match backup.age_seconds {
        Some(age) => format!("backups to {}: the newest {age} s ago, by {}", backup.target, backup.made_by),
        None => format!("backups to {}: none yet", backup.target),
    };
    if !backup.running_on.is_empty() {
        line += &format!("; {} makes one", backup.running_on);
    }
    if !backup.error.is_empty() {
        line += &format!("; the last attempt failed: {}", backup.error);
    }
    line + "\n"
}

fn backup_json(backup: &ScheduledBackup) -> Value {
    let word = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    json!({
        "target": backup.target, "running_on": word(&backup.running_on), "last_success_at": backup.last_success_at,
        "age_seconds": backup.age_seconds, "last_full_at": backup.last_full_at, "made_by": word(&backup.made_by),
        "error": word(&backup.error),
    })
}

fn row(node: &NodeStatus, members: &[NodeStatus]) -> Vec<String> {
    let name_and_address = [node.name.clone(), node.address.clone()];
    if node.unreachable {
        return name_and_address.into_iter().chain(["?".to_owned(), "no answer".to_owned()]).collect();
    }
    let state = if node.frozen { format!("{}, frozen", node.state) } else { node.state.clone() };
    let rest = [
        role(node).to_owned(),
        state,
        lag(node, members).map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
        node.term.to_string(),
        position(node.last_log.as_ref()),
        position(node.applied.as_ref()),
        node.applied_txn.to_string(),
        position(node.checkpointed.as_ref()),
        table::bytes(node.page_count.saturating_sub(node.free_pages) * 8192),
        table::bytes(node.journal_bytes),
        disk(node),
    ];
    name_and_address.into_iter().chain(rest).collect()
}

/// How short of space a node is, and what it has.
fn disk(node: &NodeStatus) -> String {
    let free = format!("{} free", table::bytes(node.free_disk_bytes));
    match node.space_level.as_str() {
        // A node of an earlier version says nothing.
        "normal" | "" => free,
        level => format!("{level}, {free}"),
    }
}

fn node_json(node: &NodeStatus, members: &[NodeStatus]) -> Value {
    let at = |position: &Option<Position>| position.as_ref().map(|at| json!({ "term": at.term, "index": at.index }));
    let mut all = json!({
        "name": node.name, "raft_id": format!("{:016x}", node.raft_id), "address": node.address, "role": role_word(node.role()),
        "voter": node.voter, "unreachable": node.unreachable, "state": node.state, "frozen": node.frozen,
        "term": node.term, "leader": node.leader, "leader_address": node.leader_address,
        "last_log": at(&node.last_log), "durable": at(&node.durable), "committed": at(&node.committed),
        "applied": at(&node.applied), "checkpointed": at(&node.checkpointed), "purged": at(&node.purged),
        "applied_txn": node.applied_txn, "digest": node.digest, "page_count": node.page_count,
        "free_pages": node.free_pages, "journal_bytes": node.journal_bytes, "version_bytes": node.version_bytes,
        "checkpoints": node.checkpoints, "tree_mutations": node.tree_mutations, "void_records": node.void_records,
        "generation": node.generation, "free_disk_bytes": node.free_disk_bytes, "space_level": node.space_level,
        "reserve_bytes": node.reserve_bytes, "needed_bytes": node.needed_bytes, "process_id": node.process_id,
        "damaged": node.damaged, "damage_found": node.damage_found, "damage_repaired": node.damage_repaired,
        "damage": node.damage, "scrub_passes": node.scrub_passes, "scrub_done_bytes": node.scrub_done_bytes,
        "scrub_total_bytes": node.scrub_total_bytes, "scrub_pass_seconds": node.scrub_pass_seconds,
        "scrub_finished_at": node.scrub_finished_at,
    });
    all["seeding"] = json!(node.seeding.as_ref().map(|seeding| {
        json!({ "from": seeding.from, "received_bytes": seeding.received_bytes, "total_bytes": seeding.total_bytes })
    }));
    all["seedings_begun"] = json!(node.seedings_begun);
    all["seedings_resumed"] = json!(node.seedings_resumed);
    all["seedings_served"] = json!(node.seedings_served);
    all["lag"] = json!(lag(node, members));
    all["aim"] = json!(aim_word(node.aim()));
    all
}

/// What a member is to be.
pub(super) fn aim_word(aim: Aim) -> Option<&'static str> {
    match aim {
        Aim::Unspecified => None,
        Aim::Voter => Some("voter"),
        Aim::Learner => Some("learner"),
        Aim::Observer => Some("observer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_may_fail_or_is_missing() {
        let line = |voters, answer, tolerates| quorum_line(&Quorum { voters, answer, tolerates });
        assert_eq!(line(5, 5, 2), "5 of 5 voters answer: tolerates 2 more failures\n");
        assert_eq!(line(3, 3, 1), "3 of 3 voters answer: tolerates 1 more failure\n");
        assert_eq!(line(3, 2, 0), "2 of 3 voters answer: tolerates no more failure\n");
        assert_eq!(line(5, 1, -2), "1 of 5 voters answer: no quorum, 2 are missing\n");
    }

    #[test]
    fn a_node_lags_behind_the_leader_of_the_newest_term() {
        let at = |index| Some(Position { term: 1, index });
        let node = |role: Role, term, index| NodeStatus {
            role: role.into(),
            term,
            last_log: at(index),
            ..NodeStatus::default()
        };
        let (old, leader) = (node(Role::Leader, 3, 90), node(Role::Leader, 4, 100));
        let follower = node(Role::Follower, 4, 93);
        let silent = NodeStatus { unreachable: true, ..NodeStatus::default() };
        let all = [old, leader, follower.clone(), silent.clone()];
        assert_eq!((lag(&follower, &all), lag(&silent, &all), lag(&follower, &[])), (Some(7), None, None));
        let held = NodeStatus { aim: Aim::Learner.into(), ..node(Role::Learner, 4, 1) };
        assert_eq!(role(&held), "learner, held");
    }
}
