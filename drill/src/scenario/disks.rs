//! Disks that are slow, hang, or are full.

use std::time::Duration;

use super::Stage;
use crate::scratch::DiskTrouble;
use crate::trouble::Trouble;

/// How much longer a sync of the slow disk takes, in milliseconds.
const SLOW_MS: u64 = 80;
/// How long the disk is slow.
const SLOW: Duration = Duration::from_secs(2);
/// How long a sync hangs after another node leads: the node that hangs must not be given up yet.
const HANGS: Duration = Duration::from_millis(1_500);
/// How long the full disk stays full.
const FULL: Duration = Duration::from_secs(2);

/// The leader's disk is slow for a while. Writes go on, by whoever leads.
pub(super) async fn slow(stage: &mut Stage) -> Result<(), Trouble> {
    let trouble = DiskTrouble { sync_delay_ms: SLOW_MS, ..DiskTrouble::default() };
    let (node, since) = break_leader(stage, trouble, format!("every sync takes {SLOW_MS} ms longer")).await?;
    stage.for_a_while(SLOW).await;
    stage.holds_and_writes_go_on().await?;
    mend(stage, node, since).await
}

/// A sync of the leader hangs: leadership moves.
pub(super) async fn hung(stage: &mut Stage) -> Result<(), Trouble> {
    let trouble = DiskTrouble { hang_syncs: true, ..DiskTrouble::default() };
    let (node, since) = break_leader(stage, trouble, "syncs do not return".to_owned()).await?;
    stage.another_leads(node).await?;
    stage.holds_and_writes_go_on().await?;
    stage.for_a_while(HANGS).await;
    mend(stage, node, since).await
}

/// The leader's disk is full: a quorum without it goes on.
pub(super) async fn full(stage: &mut Stage) -> Result<(), Trouble> {
    let trouble = DiskTrouble { space_limit: Some(0), ..DiskTrouble::default() };
    let (node, since) = break_leader(stage, trouble, "there is no space".to_owned()).await?;
    stage.for_a_while(FULL).await;
    stage.holds_and_writes_go_on().await?;
    mend(stage, node, since).await
}

async fn break_leader(stage: &mut Stage, trouble: DiskTrouble, what: String) -> Result<(usize, u64), Trouble> {
    let leader = stage.cluster.leader().await?;
    let since = stage.fault(format!("on the disk of {}, the leader, {what}", stage.cluster.name(leader)));
    stage.cluster.nodes()[leader].set_disk(trouble)?;
    Ok((leader, since))
}

async fn mend(stage: &mut Stage, node: usize, since: u64) -> Result<(), Trouble> {
    stage.repair(format!("the disk of {} is well again", stage.cluster.name(node)));
    stage.cluster.nodes()[node].set_disk(DiskTrouble::default())?;
    stage.whole(since).await
}
