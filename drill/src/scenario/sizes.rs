//! A cluster that grows from one node to three and to five, gets two of its nodes replaced, and shrinks to three.
//!
//! Between the steps nodes are killed and started again: the leader, a follower, and each node that joins, while it is a
//! learner that is being filled. One of the two that are replaced is dead, the other one leads.

use std::time::Duration;

use calamus_client::proto::{AddRequest, Aim, ReplaceRequest};

use super::{Stage, changes, kills};
use crate::trouble::Trouble;

/// What there is before the first node joins, in bytes, beside what the load writes.
const FILLING_BYTES: usize = 16 << 20;
/// Between two questions whether a replacement has happened.
const LOOK: Duration = Duration::from_millis(20);
/// What is agreed on happens by itself within this.
const LIMIT: Duration = Duration::from_secs(60);

/// All of it.
pub(super) async fn script(stage: &mut Stage) -> Result<(), Trouble> {
    stage.note(format!("{} MiB are written", FILLING_BYTES >> 20));
    changes::fill(stage, FILLING_BYTES).await?;
    for size in [3, 5] {
        while size_of(stage) < size {
            let since = stage.note(format!("a node joins {}", size_of(stage)));
            let new = killed_while_it_joins(stage).await?;
            let promoted = stage.client.cluster().promote(stage.cluster.name(new)).await;
            promoted.map_err(|error| Trouble::during("it was not promoted", error))?;
            votes(stage, new).await?;
            stage.whole(since).await?;
        }
        kills::leader(stage).await?;
        kills::follower(stage).await?;
    }
    let leader = stage.cluster.leader().await?;
    let dead = stage.draw_other(leader);
    stage.fault(format!("kill -9 {}, for good", stage.cluster.name(dead)));
    stage.cluster.kill(dead);
    replace(stage, dead, Old::IsDead).await?;
    kills::leader(stage).await?;
    let leader = stage.cluster.leader().await?;
    replace(stage, leader, Old::Lives).await?;
    while size_of(stage) > 3 {
        kills::leader(stage).await?;
        remove_one(stage).await?;
        kills::follower(stage).await?;
    }
    Ok(())
}

/// How many nodes belong to the cluster.
fn size_of(stage: &Stage) -> usize {
    stage.cluster.nodes().iter().filter(|node| node.belongs()).count()
}

/// Starts a node that joins as a learner, kills it once it is one, and starts it again. Returns its number.
async fn killed_while_it_joins(stage: &mut Stage) -> Result<usize, Trouble> {
    let host = stage.cluster.leader().await?;
    let new = stage.cluster.grow_learner(host)?;
    stage.watch_nodes();
    let status = stage.cluster.admitted(new).await?;
    stage.fault(format!("kill -9 {}, which joins", stage.cluster.name(new)));
    stage.cluster.kill(new);
    if status.voter {
        stage.finding(format!("{} votes, and nobody has said that it may", stage.cluster.name(new)));
    }
    stage.repair(format!("{} is started again", stage.cluster.name(new)));
    stage.cluster.restart(new)?;
    stage.cluster.admitted(new).await?;
    Ok(new)
}

/// What is known of a node that is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Old {
    IsDead,
    Lives,
}

/// Puts a new node in the place of `old`, which does not belong to the cluster then.
async fn replace(stage: &mut Stage, old: usize, state: Old) -> Result<(), Trouble> {
    let old_name = stage.cluster.name(old).to_owned();
    let new = killed_while_it_joins(stage).await?;
    let status = stage.cluster.admitted(new).await?;
    let since = stage.note(format!("{} takes the place of {old_name}", stage.cluster.name(new)));
    let request = ReplaceRequest {
        old: old_name.clone(),
        new: Some(AddRequest {
            name: status.name,
            raft_id: status.raft_id,
            address: status.address,
            aim: Aim::Voter.into(),
            replace: false,
            cluster_id: status.cluster_id,
        }),
        old_may_be_alive: state == Old::Lives,
    };
    let done = async {
        while !stage.client.cluster().replace(request.clone()).await?.done {
            tokio::time::sleep(LOOK).await;
        }
        Ok::<(), calamus_client::TxnError>(())
    };
    let done = tokio::time::timeout(LIMIT, done).await;
    let done = done.map_err(|_| Trouble::new(format!("{old_name} was not replaced in {} s", LIMIT.as_secs())))?;
    done.map_err(|error| Trouble::during(format!("{old_name} was not replaced"), error))?;
    votes(stage, new).await?;
    retire(stage, old, since).await
}

/// Waits until a node that joined votes, and says how it came by what it has.
async fn votes(stage: &mut Stage, new: usize) -> Result<(), Trouble> {
    stage.cluster.joined(new).await?;
    let status = stage.cluster.admitted(new).await?;
    let name = stage.cluster.name(new).to_owned();
    stage.remark(match status.generation {
        0 | 1 => format!("{name} was filled by the log"),
        _ => format!("{name} was filled by a seeding"),
    });
    Ok(())
}

/// Takes a follower out.
async fn remove_one(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let node = stage.draw_other(leader);
    let name = stage.cluster.name(node).to_owned();
    let since = stage.note(format!("{name} is removed"));
    let removed = stage.client.cluster().remove(&name, "").await;
    let members = removed.map_err(|error| Trouble::during(format!("{name} was not removed"), error))?;
    if members.iter().any(|member| member.name == name) {
        stage.finding(format!("{name} was removed and is a member all the same"));
    }
    retire(stage, node, since).await
}

/// A node that belongs to the cluster no more ends, and is not compared.
async fn retire(stage: &mut Stage, node: usize, since: u64) -> Result<(), Trouble> {
    stage.cluster.forget(node)?;
    stage.watch_nodes();
    stage.whole(since).await
}
