//! The end of a scratch cluster: all nodes come to one state, end in good order, pass the whole check, and are compared.

use std::path::PathBuf;

use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::cluster_client::ClusterClient;
use calamus_proto::v1::kv_client::KvClient;
use calamus_proto::v1::{Consistency, Entry, FreezeRequest, ScanRequest};
use rustix::process::Signal;

use super::{LIMIT, Node, Scratch, compare};
use crate::trouble::Trouble;

impl Scratch {
    /// Stops writes and waits until all nodes have applied the same. Returns the applied index and digest.
    ///
    /// # Errors
    /// When they do not come to one state, or one index has two digests.
    pub async fn settle(&mut self) -> Result<(u64, String), Trouble> {
        for node in self.nodes.iter().filter(|node| !node.is_retired()) {
            let frozen = ClusterClient::new(node.channel()).freeze(FreezeRequest { frozen: true }).await;
            frozen
                .map_err(|status| Trouble::during(format!("{} does not stop writes", node.name()), status.message()))?;
        }
        let mut settled = None;
        self.until("all nodes have applied the same", async |s| {
            let mut found = Vec::new();
            for (node, status) in s.nodes.iter().zip(s.statuses().await) {
                if node.is_retired() {
                    continue;
                }
                let Some(status) = status else { return Ok(false) };
                let (Some(applied), Some(last)) = (status.applied, status.last_log) else { return Ok(false) };
                if applied.index != last.index {
                    return Ok(false);
                }
                found.push((node.name().to_owned(), applied.index, status.digest));
            }
            let first = found.first().ok_or_else(|| Trouble::new("there is no node"))?.clone();
            if found.iter().any(|(_, index, _)| *index != first.1) {
                return Ok(false);
            }
            if found.iter().any(|(_, _, digest)| *digest != first.2) {
                return Err(Trouble::new(format!("one index, and different digests: {found:?}")));
            }
            settled = Some((first.1, first.2));
            Ok(true)
        })
        .await?;
        Ok(settled.expect("waited for"))
    }

    /// All entries of a tree as a node holds them in its own pages.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn scan(&self, node: usize, tree: &str) -> Result<Vec<Entry>, Trouble> {
        let cannot =
            |status: tonic::Status| Trouble::during(format!("{} cannot be read", self.name(node)), status.message());
        let mut client = KvClient::new(self.nodes[node].channel()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let request =
            ScanRequest { tree: tree.to_owned(), consistency: Consistency::Local.into(), ..ScanRequest::default() };
        let mut chunks = client.scan(request).await.map_err(cannot)?.into_inner();
        let mut entries = Vec::new();
        while let Some(chunk) = chunks.message().await.map_err(cannot)? {
            entries.extend(chunk.entries);
        }
        Ok(entries)
    }

    /// Ends all nodes in good order, followers first: a leader that goes while others are there is replaced, for nothing.
    /// Then each directory must pass the whole check, and all data files must be the same. Returns how many were
    /// compared.
    ///
    /// # Errors
    /// With what is not so.
    pub async fn end(&mut self) -> Result<usize, Trouble> {
        let leader = self.leader().await?;
        let running: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].process().is_some()).collect();
        for node in running.into_iter().filter(|node| *node != leader).chain([leader]) {
            self.nodes[node].terminate(Signal::USR1, LIMIT).await?;
        }
        let directories: Vec<PathBuf> =
            self.nodes.iter().filter(|node| !node.is_retired()).map(|node| node.directory().to_owned()).collect();
        let program = self.plan.program.clone();
        let compared = tokio::task::spawn_blocking(move || {
            for directory in &directories {
                check(&program, directory)?;
            }
            same_data(&directories)
        });
        compared.await.map_err(|panic| Trouble::during("the comparison of the nodes' files ended", panic))?
    }
}

/// The whole check of a directory, by the program itself.
fn check(program: &std::path::Path, directory: &std::path::Path) -> Result<(), Trouble> {
    let output = std::process::Command::new(program)
        .arg("check")
        .arg(directory)
        .output()
        .map_err(|error| Trouble::during(format!("cannot run {} check", program.display()), error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Err(Trouble::new(format!("{} does not pass the check ({}):\n{said}", directory.display(), output.status)))
}

fn same_data(directories: &[PathBuf]) -> Result<usize, Trouble> {
    let files = directories.iter().map(|directory| compare::data_file(directory)).collect::<Result<Vec<_>, _>>()?;
    for pair in files.windows(2) {
        if let Some(difference) = compare::difference(&pair[0], &pair[1])? {
            return Err(Trouble::new(difference));
        }
    }
    Ok(files.len())
}

impl Node {
    /// Whether it takes part in the end.
    pub fn belongs(&self) -> bool {
        !self.is_retired()
    }
}
