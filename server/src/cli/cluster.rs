//! `calamus cluster`: status and membership.

use std::time::Duration;

use calamus_proto::v1::{AddRequest, Member, NodeStatus, Position, RemoveRequest, StatusResponse, TransferRequest};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::table::{self, position, role_word};
use super::{ClientArgs, Endpoint, Exit, Failure};
use crate::peer;

const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// A node that is added is seeded first, which takes as long as its data is large.
const CHANGE_LIMIT: Duration = Duration::from_secs(600);

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
            ClusterCommand::Add { address, observer, client } => add(&client, &address, observer).await,
            ClusterCommand::Remove { name, force, client } => remove(&client, name, force).await,
            ClusterCommand::Transfer { to, client } => transfer(&client, to).await,
        }
    })
}

/// The failure of a call that no endpoint took, or that one of them refused.
fn failed(what: &str, client: &ClientArgs, error: &Status) -> Failure {
    let endpoints: Vec<_> = client.endpoints.iter().map(Endpoint::as_str).collect();
    let next = if peer::may_pass(error) {
        format!(
            "is a node running at one of {}? name others with --endpoints or CALAMUS_ENDPOINTS",
            endpoints.join(", ")
        )
    } else {
        "`calamus cluster status` shows the members and their roles".to_owned()
    };
    let exit = if error.code() == Code::DeadlineExceeded { Exit::Unknown } else { Exit::Failed };
    Failure::new(what, error.message(), next).with_exit(exit)
}

/// Runs a call on the first endpoint that takes it. A call that may have been taken is not made again elsewhere.
macro_rules! on_any {
    ($client:expr, $what:expr, |$address:ident| $call:expr) => {{
        let mut last = Status::unavailable("there are no endpoints");
        let mut answer = None;
        for $address in $client.endpoints.iter().map(Endpoint::as_str) {
            match $call.await {
                Ok(found) => {
                    answer = Some(found);
                    break;
                }
                Err(error) => {
                    let pass = error.code() == Code::Unavailable;
                    last = error;
                    if !pass {
                        break;
                    }
                }
            }
        }
        answer.ok_or_else(|| failed($what, $client, &last))
    }};
}

async fn status(client: &ClientArgs) -> Result<Exit, Failure> {
    let what = "cannot get the status of the cluster";
    let mut last = Status::unavailable("there are no endpoints");
    for address in client.endpoints.iter().map(Endpoint::as_str) {
        // Any node that answers at all is good enough, so a hung one is passed over too.
        match peer::status(address, true, STATUS_LIMIT).await {
            Ok(found) => {
                show(client, found);
                return Ok(Exit::Done);
            }
            Err(error) => last = error,
        }
    }
    Err(failed(what, client, &last).with_exit(Exit::Failed))
}

fn show(client: &ClientArgs, found: StatusResponse) {
    let asked = found.node.unwrap_or_default();
    let members = if found.members.is_empty() { vec![asked.clone()] } else { found.members };
    if client.json {
        let nodes: Vec<Value> = members.iter().map(node_json).collect();
        let all = json!({ "cluster_id": asked.cluster_id, "database_id": asked.database_id, "leader": asked.leader,
            "asked": asked.name, "nodes": nodes });
        println!("{}", serde_json::to_string_pretty(&all).expect("a value is always JSON"));
        return;
    }
    println!("cluster {}, database {}", asked.cluster_id, asked.database_id);
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
    ]);
    for node in &members {
        rows.add_row(row(node));
    }
    println!("{rows}");
    for node in members.iter().filter(|node| node.unreachable) {
        println!("{} does not answer: {}", node.name, node.state);
    }
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
    ];
    name_and_address.into_iter().chain(rest).collect()
}

fn node_json(node: &NodeStatus) -> Value {
    let at = |position: &Option<Position>| position.as_ref().map(|at| json!({ "term": at.term, "index": at.index }));
    json!({
        "name": node.name, "raft_id": format!("{:016x}", node.raft_id), "address": node.address, "role": role_word(node.role()),
        "voter": node.voter, "unreachable": node.unreachable, "state": node.state, "frozen": node.frozen,
        "term": node.term, "leader": node.leader, "leader_address": node.leader_address,
        "last_log": at(&node.last_log), "durable": at(&node.durable), "committed": at(&node.committed),
        "applied": at(&node.applied), "checkpointed": at(&node.checkpointed), "purged": at(&node.purged),
        "applied_txn": node.applied_txn, "digest": node.digest, "page_count": node.page_count,
        "free_pages": node.free_pages, "journal_bytes": node.journal_bytes, "version_bytes": node.version_bytes,
        "checkpoints": node.checkpoints, "tree_mutations": node.tree_mutations, "void_records": node.void_records,
        "generation": node.generation, "free_disk_bytes": node.free_disk_bytes, "process_id": node.process_id,
    })
}

async fn add(client: &ClientArgs, address: &Endpoint, observer: bool) -> Result<Exit, Failure> {
    let what = format!("cannot add the node at {address}");
    let node = match peer::status(address.as_str(), false, STATUS_LIMIT).await {
        Ok(answer) => answer.node.unwrap_or_default(),
        Err(error) => {
            let next = "start it first: calamus serve --dir DIR --name NAME --listen HOST:PORT --join HOST:PORT";
            return Err(Failure::new(what, error.message(), next));
        }
    };
    let request = AddRequest {
        name: node.name,
        raft_id: node.raft_id,
        address: address.to_string(),
        observer,
        replace: false,
        cluster_id: node.cluster_id,
    };
    let answer = on_any!(client, what.as_str(), |at| peer::add(at, request.clone(), CHANGE_LIMIT))?;
    show_members(client, &answer.members);
    Ok(Exit::Done)
}

async fn remove(client: &ClientArgs, name: String, force: String) -> Result<Exit, Failure> {
    let what = format!("cannot remove {name}");
    let request = RemoveRequest { name, force_cluster_id: force };
    let answer = on_any!(client, what.as_str(), |at| peer::remove(at, request.clone(), CHANGE_LIMIT))?;
    show_members(client, &answer.members);
    Ok(Exit::Done)
}

async fn transfer(client: &ClientArgs, to: String) -> Result<Exit, Failure> {
    let request = TransferRequest { to };
    let what = "cannot hand leadership over";
    let answer = on_any!(client, what, |at| peer::transfer(at, request.clone(), STATUS_LIMIT))?;
    if client.json {
        println!("{}", json!({ "leader": answer.leader }));
    } else {
        println!("{} leads", answer.leader);
    }
    Ok(Exit::Done)
}

fn show_members(client: &ClientArgs, members: &[Member]) {
    if client.json {
        let member = |member: &Member| json!({ "name": member.name, "raft_id": format!("{:016x}", member.raft_id), "address": member.address, "voter": member.voter });
        println!("{}", json!({ "members": members.iter().map(member).collect::<Vec<_>>() }));
        return;
    }
    let mut rows = table::new(&["node", "address", "votes"]);
    for member in members {
        rows.add_row([member.name.as_str(), &member.address, if member.voter { "yes" } else { "no" }]);
    }
    println!("{rows}");
}
