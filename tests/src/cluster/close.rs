//! The closing act that every cluster test ends with.

use calamus_proto::v1::FreezeRequest;
use calamus_proto::v1::cluster_client::ClusterClient;
use rustix::process::Signal;

use super::Cluster;
use super::data::in_time;
use crate::acknowledged::Ledger;
use crate::compare;
use crate::wait::{LIMIT, until};

impl Cluster {
    /// Waits until all nodes have applied the same, and says of which state: index and digest.
    pub async fn equal_states(&mut self) -> (u64, String) {
        until("all nodes have applied the same", LIMIT, async || {
            self.assert_running();
            let mut found = Vec::new();
            for node in 0..self.len() {
                let status = self.status(node).await?;
                let applied = status.applied?.index;
                if status.last_log?.index != applied {
                    return None;
                }
                found.push((applied, status.digest));
            }
            found.iter().all(|state| state.0 == found[0].0).then(|| {
                assert!(found.iter().all(|state| state.1 == found[0].1), "one index, and digests {found:?}");
                found[0].clone()
            })
        })
        .await
    }

    /// Each acknowledged write is there, with its value, on each node, read from that node's own pages.
    pub async fn assert_acknowledged(&mut self, ledger: &Ledger) {
        for tree in ledger.trees() {
            for node in 0..self.len() {
                let what = format!("a scan of {tree} from {}", self.name(node));
                let found = until(&what, LIMIT, async || {
                    self.assert_running();
                    self.scan_from(node, tree).await.ok()
                })
                .await;
                ledger.compare(self.name(node), tree, &found);
            }
        }
    }

    /// The end of every cluster test: all nodes run and hold what was acknowledged, they come to equal states, end in
    /// good order, and their directories are clean and equal, byte for byte and frame for frame.
    ///
    /// # Panics
    /// When any of that is not so.
    pub async fn close(mut self, ledger: &Ledger) {
        for node in 0..self.len() {
            self.ready(node).await;
        }
        self.assert_acknowledged(ledger).await;
        for node in 0..self.len() {
            let mut client = ClusterClient::new(self.members[node].channel.clone());
            in_time(client.freeze(FreezeRequest { frozen: true })).await.expect("the node answers");
        }
        self.equal_states().await;
        // Followers first: a leader that goes while others are there is replaced, for nothing.
        let leader = self.leader().await;
        for node in self.others(leader).into_iter().chain([leader]) {
            self.terminate(node, Signal::USR1).await;
        }
        let directories = self.directories();
        let compared = tokio::task::spawn_blocking(move || compare::assert_equal_after_stop(&directories)).await;
        if let Err(panic) = compared {
            std::panic::resume_unwind(panic.into_panic());
        }
        self.closed = true;
    }
}
