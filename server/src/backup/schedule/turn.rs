//! One scheduled backup: claimed, made while the claim is renewed, its result noted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calamus_proto::v1::{BackupKind, RunKind, backup_event::Event};
use calamus_replication::Node;
use tokio::time::Instant;
use tracing::warn;

use super::record::{Known, Record, Running, now_micros};
use super::{GIVE_UP, RENEW};
use crate::backup::error::RunError;
use crate::backup::runs::Runs;
use crate::backup::targets::Targets;
use crate::backup::work::work;

/// How long the note of a result is tried: after that others find the claim abandoned, and the backup in its place.
const NOTE_LIMIT: Duration = Duration::from_secs(20);

/// How long after a note that was not committed another is tried.
const NOTE_AGAIN: Duration = Duration::from_millis(250);

/// A backup that this node has claimed.
pub(super) struct Turn {
    target: String,
    kind: RunKind,
    /// How much is copied at most.
    bytes_per_second: Option<u64>,
    known: Known,
    /// Before the last renewal that was committed was sent.
    renewed_at: Instant,
    began_micros: u64,
}

/// How a run has ended: whether a full backup was made.
type Made = Result<bool, RunError>;

impl Turn {
    /// Claims the backup; `None` if somebody else was first, or nobody can be asked.
    pub(super) async fn claim(
        node: &Node,
        target: &str,
        kind: RunKind,
        bytes_per_second: Option<u64>,
        known: Known,
    ) -> Option<Turn> {
        let (renewed_at, began_micros) = (Instant::now(), now_micros());
        let identity = node.engine().identity();
        let running = Some(Running { raft_id: identity.raft_id.0, name: identity.name, renewed: 0 });
        let record = Record { running, ..known.record.clone() };
        match known.replace(node, target, record).await {
            Ok(claimed) => Some(Turn {
                target: target.to_owned(),
                kind,
                bytes_per_second,
                known: claimed?,
                renewed_at,
                began_micros,
            }),
            Err(error) => {
                warn!(target, why = %error, "a scheduled backup could not be claimed; trying on");
                None
            }
        }
    }

    /// Makes it, and notes the result.
    pub(super) async fn take(mut self, node: &Node, targets: &Targets, runs: &Runs) -> Result<(), RunError> {
        let made = self.make(node, targets, runs).await;
        self.note(node, &made).await;
        made.map(|_| ())
    }

    async fn make(&mut self, node: &Node, targets: &Targets, runs: &Runs) -> Made {
        let lost = Arc::new(AtomicBool::new(false));
        let unwanted = lost.clone();
        let mut run = runs.begin(&self.target, self.kind, move || unwanted.load(Ordering::Relaxed))?;
        let (engine, targets, target) = (node.engine().clone(), targets.clone(), self.target.clone());
        let (kind, bytes_per_second) = (self.kind, self.bytes_per_second);
        let mut working = tokio::task::spawn_blocking(move || {
            let mut full = false;
            let mut hear = |event: Event| {
                if let Event::Done(done) = event {
                    full = done.backup.is_some_and(|backup| backup.kind() == BackupKind::Full);
                }
            };
            let backups = targets.open(&target, bytes_per_second);
            let made = backups.and_then(|backups| work(&mut run, &engine, &backups, kind, Duration::ZERO, &mut hear));
            if let Err(error) = &made {
                run.failed(error);
            }
            made.map(|()| full)
        });
        loop {
            if let Ok(ended) = tokio::time::timeout(RENEW, &mut working).await {
                return ended.unwrap_or(Err(RunError::Broken));
            }
            if !self.renew(node).await {
                lost.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Renews the claim. Returns whether the run may go on.
    async fn renew(&mut self, node: &Node) -> bool {
        let asked_at = Instant::now();
        let mut record = self.known.record.clone();
        let Some(running) = &mut record.running else { return false };
        running.renewed += 1;
        // What takes longer than this comes too late.
        let renewing = tokio::time::timeout(RENEW, self.known.replace(node, &self.target, record));
        match renewing.await {
            Ok(Ok(Some(known))) => {
                (self.known, self.renewed_at) = (known, asked_at);
                true
            }
            // Somebody else has it, or a renewal without an outcome was committed: then it is this node's still.
            Ok(Ok(None)) => self.is_still_ours(node).await,
            Ok(Err(_)) | Err(_) => self.renewed_at.elapsed() < GIVE_UP,
        }
    }

    /// Looks at the record, after it was found changed.
    async fn is_still_ours(&mut self, node: &Node) -> bool {
        let own = node.engine().identity().raft_id.0;
        match Known::read(node, &self.target).await {
            Some(known) if known.record.running.as_ref().is_some_and(|running| running.raft_id == own) => {
                self.known = known;
                self.renewed_at.elapsed() < GIVE_UP
            }
            _ => false,
        }
    }

    /// Notes the result, and gives the claim back.
    async fn note(&mut self, node: &Node, made: &Made) {
        let until = Instant::now() + NOTE_LIMIT;
        loop {
            let mut record = Record { running: None, ..self.known.record.clone() };
            match made {
                Ok(full) => {
                    record.success_micros = Some(self.began_micros);
                    record.full_micros = if *full { Some(self.began_micros) } else { record.full_micros };
                    record.made_by = node.engine().identity().name;
                    (record.failed_micros, record.error) = (0, String::new());
                }
                // An operator was faster, or the node ends: that is no failure of the place.
                Err(RunError::Busy { .. } | RunError::Ending) => {}
                Err(error) => (record.failed_micros, record.error) = (now_micros(), error.to_string()),
            }
            let noted = self.known.replace(node, &self.target, record).await;
            if matches!(noted, Ok(Some(_))) || (matches!(noted, Ok(None)) && !self.is_still_ours(node).await) {
                return;
            }
            if Instant::now() >= until {
                warn!(target = self.target, "the result of a scheduled backup could not be noted");
                return;
            }
            tokio::time::sleep(NOTE_AGAIN).await;
        }
    }
}
