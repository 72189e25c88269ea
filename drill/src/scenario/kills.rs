//! Processes that are killed, or stand still.

use std::time::Duration;

use super::Stage;
use crate::trouble::Trouble;

/// Longer than the longest election timeout of the default settings: another node leads meanwhile.
const STANDSTILL: Duration = Duration::from_millis(2_500);

/// The leader is killed, and started again once another acknowledges writes.
pub(super) async fn leader(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    kill_one(stage, leader, "the leader").await
}

/// A follower is killed.
pub(super) async fn follower(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let follower = stage.draw_other(leader);
    kill_one(stage, follower, "a follower").await
}

async fn kill_one(stage: &mut Stage, node: usize, what: &str) -> Result<(), Trouble> {
    let since = stage.fault(format!("kill -9 {}, {what}", stage.cluster.name(node)));
    stage.cluster.kill(node);
    stage.writes_go_on(since).await?;
    stage.repair(format!("{} is started again", stage.cluster.name(node)));
    stage.cluster.restart(node)?;
    stage.whole(since).await
}

/// All nodes are killed, and started again.
pub(super) async fn all(stage: &mut Stage) -> Result<(), Trouble> {
    let since = stage.fault("kill -9 of all nodes");
    stage.cluster.kill_all().await?;
    stage.repair("all are started again");
    for node in 0..stage.cluster.nodes().len() {
        stage.cluster.restart(node)?;
    }
    stage.whole(since).await
}

/// The leader stands still, as under a debugger or on a machine that swaps, and goes on.
pub(super) async fn freeze_leader(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let since = stage.fault(format!("{}, the leader, stands still", stage.cluster.name(leader)));
    stage.cluster.nodes()[leader].freeze().await?;
    let others = async {
        stage.writes_go_on(since).await?;
        stage.for_a_while(STANDSTILL).await;
        Ok::<(), Trouble>(())
    };
    let went_on = others.await;
    stage.repair(format!("{} goes on", stage.cluster.name(leader)));
    stage.cluster.nodes()[leader].thaw()?;
    went_on?;
    stage.whole(since).await
}
