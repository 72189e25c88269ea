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

    /// The term that a node is in, if it answers.
    pub async fn term_of(&self, node: usize) -> Option<u64> {
        self.cluster.nodes()[node].status().await.map(|status| status.term)
    }

    /// It is a finding if the node does not lead any more, or in another term: somebody was elected for nothing.
    pub async fn same_term(&mut self, node: usize, term: Option<u64>, after: &str) {
        let now = self.term_of(node).await;
        if now != term || self.cluster.leader_now().await != Some(node) {
            let name = self.cluster.name(node).to_owned();
            self.finding(format!(
                "{after}, and {name} led term {term:?} before and is in {now:?} now: an election for nothing"
            ));
        }
    }
}
