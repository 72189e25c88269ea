//! What operators do: restarts, hand-overs, nodes that come and go.

use std::time::Duration;

use rustix::process::Signal;

use super::Stage;
use crate::trouble::Trouble;

/// How much the node that is filled has to take, in bytes: more than two segments of the journal, which are recycled as a
/// whole.
const FILLING_BYTES: usize = 160 << 20;

/// A follower's directory is gone. It comes back under its name, as another node of the consensus.
pub(super) async fn lost_directory(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let node = stage.draw_other(leader);
    let since = stage.fault(format!("kill -9 {}, and its directory is removed", stage.cluster.name(node)));
    stage.cluster.wipe(node)?;
    stage.writes_go_on(since).await?;
    stage.repair(format!("{} joins with an empty directory", stage.cluster.name(node)));
    let host = stage.cluster.leader().await?;
    stage.cluster.rejoin(node, host)?;
    stage.whole(since).await
}

/// Each node in turn is ended in order and started again; a leader hands over first.
pub(super) async fn rolling_restart(stage: &mut Stage) -> Result<(), Trouble> {
    for node in 0..stage.cluster.nodes().len() {
        let since = stage.fault(format!("{} is ended (SIGTERM)", stage.cluster.name(node)));
        stage.cluster.terminate(node, Signal::TERM).await?;
        stage.repair(format!("{} is started again", stage.cluster.name(node)));
        stage.cluster.restart(node)?;
        stage.whole(since).await?;
    }
    Ok(())
}

/// Leadership is handed to the voter that holds most.
pub(super) async fn transfer(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let since = stage.fault(format!("{} hands leadership over", stage.cluster.name(leader)));
    let moved = stage.client.cluster().transfer("").await;
    let to = moved.map_err(|error| Trouble::during("leadership was not handed over", error))?;
    stage.note(format!("{to} leads"));
    stage.whole(since).await
}

/// A node is killed for good, and another takes its place.
pub(super) async fn replace(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let old = stage.draw_other(leader);
    let old_name = stage.cluster.name(old).to_owned();
    let since = stage.fault(format!("kill -9 {old_name}, for good"));
    stage.cluster.kill(old);
    stage.writes_go_on(since).await?;
    let host = stage.cluster.leader().await?;
    let new = stage.cluster.grow(host)?;
    stage.watch_nodes();
    stage.repair(format!("{} joins", stage.cluster.name(new)));
    stage.cluster.joined(new).await?;
    let removed = stage.client.cluster().remove(&old_name, "").await;
    removed.map_err(|error| Trouble::during(format!("{old_name} was not removed"), error))?;
    stage.cluster.forget(old)?;
    stage.watch_nodes();
    stage.note(format!("{old_name} is removed"));
    stage.whole(since).await
}

/// There is much to fill a node with, and it lost everything.
pub(super) async fn seed(stage: &mut Stage) -> Result<(), Trouble> {
    stage.note(format!("{} MiB are written", FILLING_BYTES >> 20));
    fill(stage, FILLING_BYTES).await?;
    let leader = stage.cluster.leader().await?;
    let node = stage.draw_other(leader);
    let since = stage.fault(format!("kill -9 {}, and its directory is removed", stage.cluster.name(node)));
    stage.cluster.wipe(node)?;
    stage.writes_go_on(since).await?;
    let host = stage.cluster.leader().await?;
    stage.repair(format!("{} is filled anew", stage.cluster.name(node)));
    stage.cluster.rejoin(node, host)?;
    stage.whole(since).await?;
    let status = stage.cluster.nodes()[node].status().await;
    match status.map(|status| status.seedings_begun) {
        Some(begun) if begun > 0 => stage.remark(format!("{begun} seeding filled {}", stage.cluster.name(node))),
        _ => stage
            .finding(format!("{} was not filled by a seeding: the scenario shows nothing", stage.cluster.name(node))),
    }
    Ok(())
}

/// Writes so many bytes of values, in transactions of 2 MiB.
pub(super) async fn fill(stage: &mut Stage, bytes: usize) -> Result<(), Trouble> {
    use rand::RngCore;
    const VALUE_BYTES: usize = 256 << 10;
    const PER_TXN: usize = 8;
    let mut value = vec![0; VALUE_BYTES];
    for batch in 0..bytes / (VALUE_BYTES * PER_TXN) {
        let mut txn = calamus_client::Txn::new().idempotent().deadline(Duration::from_secs(60));
        for number in 0..PER_TXN {
            stage.rng.fill_bytes(&mut value);
            txn = txn.put("drill-filling", format!("{batch}-{number}"), value.clone());
        }
        stage.client.txn(txn).await.map_err(|error| Trouble::during("the filling cannot be written", error))?;
    }
    Ok(())
}
