//! `calamus cluster`: status and membership.
//!
//! The status is that of the first endpoint that answers. Changes go through the client crate, as transactions do: it
//! finds who leads by asking all endpoints at once, so that one that hangs holds nothing up, and it tells what changed
//! nothing (exit code 1) from what may have (3).

use std::time::Duration;

use calamus_client::{Client, Options, Outcome, TxnError};
use calamus_proto::v1::{AddRequest, Member, NodeStatus, Position, ScheduledBackup, SeedFromRequest, StatusResponse};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tonic::Status;

use super::common::print;
use super::table::{self, position, role_word};
use super::{ClientArgs, Endpoint, Exit, Failure};
use crate::peer;
use crate::seeding::SeedWish;

const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// A change waits for a quorum, not for the node that is added to be filled.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);

/// Shows and changes who is in the cluster.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Shows every node: role, positions in the log, size.
    Status {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Adds the node that was started with `--join` at ADDRESS (it asks for that itself; this makes it an observer, or
    /// helps where it could not).
    Add {
        /// HOST:PORT of the node.
        address: Endpoint,
        /// It never votes.
        #[arg(long)]
        observer: bool,
        /// What to fill it from: `any` (the follower that lags least), `leader`, `node:NAME`, or `backup:TARGET` for a
        /// target of that node's configuration. Also while it is being filled: it goes on from there.
        #[arg(long, value_name = "WHAT")]
        seed_from: Option<SeedWish>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Takes a node out of the cluster. Its directory is left as it is, and can not come back.
    Remove {
        /// The node's name.
        name: String,
        /// Go on even though the rest has no quorum of live nodes; must be the id of the cluster.
        #[arg(long, value_name = "CLUSTER_ID", default_value = "")]
        force: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Hands leadership over.
    Transfer {
        /// To this node; the most caught-up voter if none is named.
        #[arg(default_value = "")]
        to: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Runs one of them.
pub fn run(args: ClusterArgs) -> Result<Exit, Failure> {
    super::block_on(async {
        match args.command {
            ClusterCommand::Status { client } => status(&client).await,
            ClusterCommand::Add { address, observer, seed_from, client } => {
                add(&client, &address, observer, seed_from.as_ref()).await
            }
            ClusterCommand::Remove { name, force, client } => remove(&client, name, force).await,
            ClusterCommand::Transfer { to, client } => transfer(&client, to).await,
        }
    })
}

/// Finds the cluster, for a change of it.
async fn connect(client: &ClientArgs, what: &str) -> Result<Client, Failure> {
    let options = Options { deadline: CHANGE_LIMIT, ..Options::default() };
    Client::connect(client.endpoints.iter().map(Endpoint::as_str), options).await.map_err(|error| {
        client.tell(&json!({ "outcome": "not_committed", "error": "unreachable", "message": error.to_string() }));
        Failure::new(what, error, nobody_there(client))
    })
}

fn nobody_there(client: &ClientArgs) -> String {
    let endpoints: Vec<_> = client.endpoints.iter().map(Endpoint::as_str).collect();
    format!("is a node running at one of {}? name others with --endpoints or CALAMUS_ENDPOINTS", endpoints.join(", "))
}

/// A change that is not known to be made.
fn not_made(client: &ClientArgs, what: &str, error: &TxnError) -> Failure {
    let failure = error.failure();
    let (word, exit) = match error.outcome() {
        Outcome::Unknown => ("unknown", Exit::Unknown),
        _ => ("not_committed", Exit::Failed),
    };
    client.tell(&json!({ "outcome": word, "error": failure.reason, "message": failure.message }));
    let next = "`calamus cluster status` shows the members and their roles";
    let what = if exit == Exit::Unknown { format!("{what}: the outcome is unknown") } else { what.to_owned() };
    Failure::new(what, failure, next).with_exit(exit)
}

async fn status(client: &ClientArgs) -> Result<Exit, Failure> {
    let mut last = Status::unavailable("there are no endpoints");
    for address in client.endpoints.iter().map(Endpoint::as_str) {
        // Any node that answers at all is good enough, so a hung one is passed over too.
        match peer::status(address, true, STATUS_LIMIT).await {
            Ok(found) => return show(client, found),
            Err(error) => last = error,
        }
    }
    client.tell(&json!({ "error": "unreachable", "message": last.message() }));
    Err(Failure::new("cannot get the status of the cluster", last.message(), nobody_there(client)))
}

fn show(client: &ClientArgs, found: StatusResponse) -> Result<Exit, Failure> {
    let asked = found.node.unwrap_or_default();
    let members = if found.members.is_empty() { vec![asked.clone()] } else { found.members };
    if client.json {
        let nodes: Vec<Value> = members.iter().map(node_json).collect();
        let all = json!({ "cluster_id": asked.cluster_id, "database_id": asked.database_id, "leader": asked.leader,
            "asked": asked.name, "nodes": nodes, "backups": found.backups.iter().map(backup_json).collect::<Vec<_>>() });
        let text = serde_json::to_string_pretty(&all).expect("a value is always JSON");
        return print(format!("{text}\n"), Exit::Done);
    }
    let mut rows = table::new(&[
        "node",
        "address",
        "role",
        "state",
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
        rows.add_row(row(node));
    }
    let mut text = format!("cluster {}, database {}\n{rows}\n", asked.cluster_id, asked.database_id);
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

fn row(node: &NodeStatus) -> Vec<String> {
    let name_and_address = [node.name.clone(), node.address.clone()];
    if node.unreachable {
        return name_and_address.into_iter().chain(["?".to_owned(), "no answer".to_owned()]).collect();
    }
    let role = match (role_word(node.role()), node.voter) {
        ("learner", false) => "learner".to_owned(),
        (word, _) => word.to_owned(),
    };
    let state = if node.frozen { format!("{}, frozen", node.state) } else { node.state.clone() };
    let rest = [
        role,
        state,
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

fn node_json(node: &NodeStatus) -> Value {
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
    all
}

async fn add(
    client: &ClientArgs,
    address: &Endpoint,
    observer: bool,
    seed_from: Option<&SeedWish>,
) -> Result<Exit, Failure> {
    let what = format!("cannot add the node at {address}");
    let node = match peer::status(address.as_str(), false, STATUS_LIMIT).await {
        Ok(answer) => answer.node.unwrap_or_default(),
        Err(error) => {
            client.tell(&json!({ "outcome": "not_committed", "error": "unreachable", "message": error.message() }));
            let next = "start it first: calamus serve --dir DIR --name NAME --listen HOST:PORT --join HOST:PORT";
            return Err(Failure::new(what, error.message(), next));
        }
    };
    // Before it is added: it may be filled at once.
    if let Some(wish) = seed_from {
        let request = SeedFromRequest { from: wish.to_string() };
        if let Err(error) = peer::seed_from(address.as_str(), request, STATUS_LIMIT).await {
            client.tell(&json!({ "outcome": "not_committed", "error": "refused", "message": error.message() }));
            let next = "`calamus backup status` shows the targets of a node";
            return Err(Failure::new(what, error.message(), next));
        }
    }
    let request = AddRequest {
        name: node.name,
        raft_id: node.raft_id,
        address: address.to_string(),
        observer,
        replace: false,
        cluster_id: node.cluster_id,
    };
    let cluster = connect(client, &what).await?.cluster();
    let answer = cluster.add(request).await.map_err(|error| not_made(client, &what, &error))?;
    show_members(client, &answer.members)
}

async fn remove(client: &ClientArgs, name: String, force: String) -> Result<Exit, Failure> {
    let what = format!("cannot remove {name}");
    let cluster = connect(client, &what).await?.cluster();
    let left = cluster.remove(&name, &force).await.map_err(|error| not_made(client, &what, &error))?;
    show_members(client, &left)
}

async fn transfer(client: &ClientArgs, to: String) -> Result<Exit, Failure> {
    let what = "cannot hand leadership over";
    let cluster = connect(client, what).await?.cluster();
    let leader = cluster.transfer(&to).await.map_err(|error| not_made(client, what, &error))?;
    let text = if client.json { json!({ "leader": leader }).to_string() } else { format!("{leader} leads") };
    done(&format!("{text}\n"))
}

fn show_members(client: &ClientArgs, members: &[Member]) -> Result<Exit, Failure> {
    if client.json {
        let member = |member: &Member| json!({ "name": member.name, "raft_id": format!("{:016x}", member.raft_id), "address": member.address, "voter": member.voter });
        let all = json!({ "members": members.iter().map(member).collect::<Vec<_>>() });
        return done(&format!("{all}\n"));
    }
    let mut rows = table::new(&["node", "address", "votes"]);
    for member in members {
        rows.add_row([member.name.as_str(), &member.address, if member.voter { "yes" } else { "no" }]);
    }
    done(&format!("{rows}\n"))
}

/// After a change: it is made, whether that can be told on stdout or not.
fn done(text: &str) -> Result<Exit, Failure> {
    print(text, Exit::Done).map_err(|failure| failure.with_exit(Exit::Unknown))
}
