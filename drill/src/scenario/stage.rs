//! What a script works with: the cluster, the clock, and words for what is done and waited for.

use std::sync::Arc;
use std::time::Duration;

use calamus_client::Client;
use rand::rngs::SmallRng;

use super::watch::Watched;
use crate::scratch::Scratch;
use crate::timeline::{MarkKind, Timeline};
use crate::trouble::Trouble;

/// For so long nothing is done between two rounds, so that a plot shows where one ends.
const STEADY: Duration = Duration::from_millis(400);
/// After a fault that a quorum outlives, a write is acknowledged within this, or it is a finding.
const WRITES: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(2);

/// A cluster under load, and what is noted of it.
pub struct Stage {
    /// The cluster.
    pub cluster: Scratch,
    /// What happens.
    pub timeline: Arc<Timeline>,
    /// For what is drawn by chance.
    pub rng: SmallRng,
    /// A client of the cluster for changes of it.
    pub client: Client,
    pub(super) watched: Watched,
    pub(super) redundancy_us: Vec<u64>,
    pub(super) findings: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Stage {
    /// Notes a fault, just before it is made. Returns when.
    pub fn fault(&self, what: impl Into<String>) -> u64 {
        self.timeline.mark(MarkKind::Fault, what)
    }

    /// Notes that something is put right.
    pub fn repair(&self, what: impl Into<String>) -> u64 {
        self.timeline.mark(MarkKind::Repair, what)
    }

    /// Notes what is no fault and no repair.
    pub fn note(&self, what: impl Into<String>) -> u64 {
        self.timeline.mark(MarkKind::Note, what)
    }

    /// Something that should not be.
    pub fn finding(&mut self, what: impl Into<String>) {
        self.findings.push(what.into());
    }

    /// Something worth saying.
    pub fn remark(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
    }

    /// Waits until a write that began after `since_us` is acknowledged.
    ///
    /// # Errors
    /// When none is for long.
    pub async fn writes_go_on(&mut self, since_us: u64) -> Result<(), Trouble> {
        let waited = async {
            while !self.timeline.wrote_since(since_us) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(WRITES, waited).await.map_err(|_| {
            Trouble::new(format!(
                "no write was acknowledged within {} s of a fault that a quorum outlives",
                WRITES.as_secs()
            ))
        })
    }

    /// The fault holds now: waits until a write that began after this moment is acknowledged. A mark is made before its fault,
    /// and writes of between the two say nothing.
    ///
    /// # Errors
    /// When none is for long.
    pub async fn holds_and_writes_go_on(&mut self) -> Result<(), Trouble> {
        self.writes_go_on(self.timeline.now_us()).await
    }

    /// Waits until every node is there, votes and has caught up; the time since `since_us` is what full redundancy took.
    ///
    /// # Errors
    /// When that is not so for long.
    pub async fn whole(&mut self, since_us: u64) -> Result<(), Trouble> {
        self.cluster.redundant().await?;
        // Also when nothing can be written for a while after the nodes are there.
        let there = self.timeline.now_us();
        self.writes_go_on(there).await?;
        let at = self.timeline.mark(MarkKind::Whole, "all nodes vote and have caught up");
        self.redundancy_us.push(at - since_us);
        Ok(())
    }

    /// Lets the load run.
    pub async fn steady(&self) {
        tokio::time::sleep(STEADY).await;
    }

    /// Lets the load run for so long.
    pub async fn for_a_while(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits until another node than `node` leads.
    ///
    /// # Errors
    /// When none does for long.
    pub async fn another_leads(&mut self, node: usize) -> Result<usize, Trouble> {
        let waited = async {
            loop {
                if let Some(leader) = self.cluster.leader_now().await
                    && leader != node
                {
                    return leader;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let name = self.cluster.name(node).to_owned();
        tokio::time::timeout(WRITES, waited)
            .await
            .map_err(|_| Trouble::new(format!("no other node than {name} leads after {} s", WRITES.as_secs())))
    }

    /// The nodes as they are now are those that are watched.
    pub fn watch_nodes(&self) {
        self.watched.set(self.cluster.nodes());
    }
}

/// What scripts ask of the nodes.
impl Stage {
    /// A running node other than `node`, by chance.
    pub fn draw_other(&mut self, node: usize) -> usize {
        use rand::seq::IndexedRandom;
        let running = |other: &usize| self.cluster.nodes()[*other].process().is_some();
        let others: Vec<usize> = self.cluster.others(node).into_iter().filter(running).collect();
        *others.choose(&mut self.rng).expect("another node runs")
    }

    /// The term in which somebody leads, and who: asked until there is an answer, since one that is slow says nothing.
    ///
    /// # Errors
    /// When nobody leads for long.
    pub async fn office(&mut self) -> Result<(usize, u64), Trouble> {
        loop {
            let leader = self.cluster.leader().await?;
            if let Some(status) = self.cluster.nodes()[leader].status().await {
                return Ok((leader, status.term));
            }
        }
    }

    /// It is a finding if somebody else leads than before, or in another term: there was an election for nothing.
    ///
    /// # Errors
    /// When nobody leads for long.
    pub async fn same_office(&mut self, before: (usize, u64), after: &str) -> Result<(), Trouble> {
        let now = self.office().await?;
        if now != before {
            let name = |(node, term): (usize, u64)| format!("{} led term {term}", self.cluster.name(node));
            let what = format!("{after}: {} before, and {} then: an election for nothing", name(before), name(now));
            self.finding(what);
        }
        Ok(())
    }
}
