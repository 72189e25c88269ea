//! `calamus cluster`: status and membership.
//!
//! The status is that of the first endpoint that answers. Changes go through the client crate, as transactions do: it
//! finds who leads by asking all endpoints at once, so that one that hangs holds nothing up, and it tells what changed
//! nothing (exit code 1) from what may have (3). What happens by itself once it is agreed on (a promotion) is waited for; if it
//! has not happened in time, that is the answer *no* (4).

mod recover;
mod status;
mod wait;

use std::time::{Duration, Instant};

use calamus_client::{Client, Options, Outcome, TxnError};
use calamus_proto::v1::{AddRequest, Aim, ChangeResponse, Member, NodeStatus, ReplaceRequest, SeedFromRequest};
use clap::{Args, Subcommand};
use serde_json::json;

use self::status::aim_word;
use super::common::print;
use super::table;
use super::{ClientArgs, Endpoint, Exit, Failure};
use crate::config::JoinAs;
use crate::peer;
use crate::seeding::SeedWish;

const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// A change waits for a quorum, not for the node that is added to be filled.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);
/// How often the cluster is asked whether something has happened.
const LOOK: Duration = Duration::from_millis(200);

/// Shows and changes who is in the cluster.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

/// How long a command waits for what happens by itself.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Patience {
    /// How long to wait, in seconds; 0 only asks.
    #[arg(long = "for", default_value_t = 60.0, value_parser = seconds, value_name = "SECONDS")]
    patience: f64,
}

impl Patience {
    fn limit(self) -> Duration {
        Duration::from_secs_f64(self.patience)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0 to 1000000".to_owned()),
    }
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
        /// It never votes: `--as observer`, in short.
        #[arg(long, conflicts_with = "join_as")]
        observer: bool,
        /// What it is to be; by default a voter, once it has caught up.
        #[arg(long = "as", value_name = "ROLE")]
        join_as: Option<JoinAs>,
        /// What to fill it from: `any` (the follower that lags least), `leader`, `node:NAME`, or `backup:TARGET` for a
        /// target of that node's configuration. Also while it is being filled: it goes on from there.
        #[arg(long, value_name = "WHAT")]
        seed_from: Option<SeedWish>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Makes a voter of a learner or an observer, once it has caught up.
    Promote {
        /// The node's name.
        name: String,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Makes an observer of a member: it goes on receiving everything, and does not vote.
    Observe {
        /// The node's name.
        name: String,
        /// As for `remove`.
        #[arg(long, value_name = "CLUSTER_ID", default_value = "")]
        force: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Puts the node that was started with `--join HOST:PORT --as learner` at ADDRESS in the place of OLD, once it has caught
    /// up. (A node that has the name of one that is gone takes its place by itself when it joins.)
    Replace {
        /// The name of the node that goes.
        old: String,
        /// HOST:PORT of the node that comes.
        address: Endpoint,
        /// OLD may answer: it is told that it was replaced, and takes part no more.
        #[arg(long)]
        old_may_be_alive: bool,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Waits until the cluster is as it should be: by default, until a leader is known and all members are ready.
    Wait {
        #[command(flatten)]
        until: wait::Until,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Takes a node out of the cluster. Its directory is left as it is, and can not come back.
    Remove {
        /// The node's name.
        name: String,
        /// Where too few of the others answer for a quorum, take out those that do not answer as well; must be the id of the
        /// cluster. Where there is no quorum now, nothing can be changed: see `cluster recover`.
        #[arg(long, value_name = "CLUSTER_ID", default_value = "")]
        force: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    Recover(recover::RecoverArgs),
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
            ClusterCommand::Status { client } => status::status(&client).await,
            ClusterCommand::Add { address, observer, join_as, seed_from, client } => {
                let aim = if observer { Some(JoinAs::Observer) } else { join_as };
                add(&client, &address, aim, seed_from.as_ref()).await
            }
            ClusterCommand::Promote { name, patience, client } => promote(&client, &name, &patience).await,
            ClusterCommand::Observe { name, force, client } => observe(&client, &name, &force).await,
            ClusterCommand::Replace { old, address, old_may_be_alive, patience, client } => {
                replace(&client, old, &address, old_may_be_alive, &patience).await
            }
            ClusterCommand::Wait { until, patience, client } => wait::wait(&client, &until, &patience).await,
            ClusterCommand::Remove { name, force, client } => remove(&client, name, force).await,
            ClusterCommand::Recover(args) => recover::run(&args),
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

async fn add(
    client: &ClientArgs,
    address: &Endpoint,
    join_as: Option<JoinAs>,
    seed_from: Option<&SeedWish>,
) -> Result<Exit, Failure> {
    let what = format!("cannot add the node at {address}");
    let node = newcomer(client, address, &what).await?;
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
        aim: join_as.map_or(Aim::Unspecified, Aim::from).into(),
        replace: false,
        cluster_id: node.cluster_id,
    };
    let cluster = connect(client, &what).await?.cluster();
    let answer = cluster.add(request).await.map_err(|error| not_made(client, &what, &error))?;
    show_members(client, &answer.members)
}

/// What a node says of itself that is to come.
async fn newcomer(client: &ClientArgs, address: &Endpoint, what: &str) -> Result<NodeStatus, Failure> {
    match peer::status(address.as_str(), false, STATUS_LIMIT).await {
        Ok(answer) => Ok(answer.node.unwrap_or_default()),
        Err(error) => {
            client.tell(&json!({ "outcome": "not_committed", "error": "unreachable", "message": error.message() }));
            let next = "start it first: calamus serve --dir DIR --name NAME --listen HOST:PORT --join HOST:PORT";
            Err(Failure::new(what, error.message(), next))
        }
    }
}

async fn promote(client: &ClientArgs, name: &str, patience: &Patience) -> Result<Exit, Failure> {
    let what = format!("cannot promote {name}");
    let cluster = connect(client, &what).await?.cluster();
    until_done(client, &what, name, patience, async || cluster.promote(name).await).await
}

async fn observe(client: &ClientArgs, name: &str, force: &str) -> Result<Exit, Failure> {
    let what = format!("cannot make an observer of {name}");
    let cluster = connect(client, &what).await?.cluster();
    let answer = cluster.observe(name, force).await.map_err(|error| not_made(client, &what, &error))?;
    show_members(client, &answer.members)
}

async fn replace(
    client: &ClientArgs,
    old: String,
    address: &Endpoint,
    old_may_be_alive: bool,
    patience: &Patience,
) -> Result<Exit, Failure> {
    let what = format!("cannot replace {old}");
    let node = newcomer(client, address, &what).await?;
    let name = node.name.clone();
    let new = AddRequest {
        name: node.name,
        raft_id: node.raft_id,
        // As it is known already, if it is: the endpoint may be another name of the same address.
        address: if node.address.is_empty() { address.to_string() } else { node.address },
        aim: Aim::Voter.into(),
        replace: false,
        cluster_id: node.cluster_id,
    };
    let request = ReplaceRequest { old, new: Some(new), old_may_be_alive };
    let cluster = connect(client, &what).await?.cluster();
    until_done(client, &what, &name, patience, async || cluster.replace(request.clone()).await).await
}

/// Asks for a change that happens by itself until it has happened, or the time is over.
async fn until_done(
    client: &ClientArgs,
    what: &str,
    name: &str,
    patience: &Patience,
    mut ask: impl AsyncFnMut() -> Result<ChangeResponse, TxnError>,
) -> Result<Exit, Failure> {
    let end = Instant::now() + patience.limit();
    loop {
        let answer = ask().await.map_err(|error| not_made(client, what, &error))?;
        if answer.done {
            return show_members(client, &answer.members);
        }
        if Instant::now() >= end {
            let message = format!("{name} does not vote yet; it lacks {} entries", answer.behind);
            client.tell(&json!({ "outcome": "under_way", "behind": answer.behind, "message": message }));
            let next = "it is agreed on and happens by itself; `calamus cluster wait --voter NAME` waits for it";
            return Err(Failure::new(what, message, next).with_exit(Exit::No));
        }
        tokio::time::sleep(LOOK).await;
    }
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
        let member = |member: &Member| json!({ "name": member.name, "raft_id": format!("{:016x}", member.raft_id), "address": member.address, "voter": member.voter, "aim": aim_word(member.aim()) });
        let all = json!({ "members": members.iter().map(member).collect::<Vec<_>>() });
        return done(&format!("{all}\n"));
    }
    let mut rows = table::new(&["node", "address", "votes"]);
    for member in members {
        let votes = match (member.voter, member.aim()) {
            (true, _) => "yes",
            (false, Aim::Observer) => "never",
            (false, Aim::Learner) => "not until it is promoted",
            (false, _) => "not yet",
        };
        rows.add_row([member.name.as_str(), &member.address, votes]);
    }
    done(&format!("{rows}\n"))
}

/// After a change: it is made, whether that can be told on stdout or not.
fn done(text: &str) -> Result<Exit, Failure> {
    print(text, Exit::Done).map_err(|failure| failure.with_exit(Exit::Unknown))
}
