//! A chain of backups as the source of a seeding: manifest, pages, frames, up to its end. What the cluster has committed since
//! comes from a node, which goes on from there as with any stream that was cut ([`crate::seed`]).
//!
//! Why that is right: a full backup is such a stream, made of pages that are of versions from the checkpoint at its start to
//! the end of its frames; its increments are the frames behind it. Everything in it was committed. So what a receiver has
//! at the end of the chain is what it would have if a node that had applied just that much had sent it, and had died then.
//! Whether a node has the same history, and reaches back that far, is that node's to say.
//!
//! Only backups of the receiver's own cluster are taken: one that was made before a restore is of another history, even if both
//! begin alike. Chunks are compared with their checksums on the way; whether it is the right state, the receiver verifies when
//! all is there.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::error::RestoreError;
use super::input::{Input, Piece};
use super::manifest::{BackupKind, Manifest};
use super::restore::plan;
use super::{Backup, Backups, RestoreOptions};
use crate::ids::{ClusterId, DatabaseId, PageNumber, TxnId};
use crate::page::PAGE_BYTES;
use crate::seed::{SeedChunk, SeedManifest, SeedResume};
use crate::store::AppliedState;

/// Takes the pieces, one after the other; ends the work by [`ControlFlow::Break`].
pub type OnPiece<'p> = &'p mut dyn FnMut(SeedChunk) -> ControlFlow<()>;

impl Backups {
    /// Hands the newest chain to `on_piece`; of one that was begun, what comes behind `received`. There is no
    /// [`SeedChunk::Done`]. Where nothing is to be handed on for a while, an empty piece says that it is at work.
    ///
    /// # Errors
    /// When the backups cannot be relied on, are of another cluster or database, or are not those of which something was
    /// received.
    pub fn seed(
        &self,
        database_id: DatabaseId,
        cluster_id: ClusterId,
        received: Option<&SeedResume>,
        on_piece: OnPiece<'_>,
    ) -> Result<(), RestoreError> {
        let catalog = self.list()?;
        let members = plan::members(&catalog, &RestoreOptions::default())?;
        let full = &members[0].manifest;
        if full.database_id() != database_id || full.cluster_id() != cluster_id {
            return Err(RestoreError::Foreign {
                database: full.database_id(),
                cluster: full.cluster_id(),
                wanted: cluster_id,
            });
        }
        let start = AppliedState { membership: full.start_membership(), ..full.start.state() };
        let received = match received {
            Some(received) => {
                if received.checkpoint != start || received.page_count != full.page_count {
                    let what = "what was received so far is not of the newest chain that is there";
                    return Err(RestoreError::Point(what.to_owned()));
                }
                received.clone()
            }
            None => {
                let manifest = SeedManifest { database_id, page_count: full.page_count, checkpoint: start };
                if on_piece(SeedChunk::Manifest(manifest.encode())).is_break() {
                    return Ok(());
                }
                SeedResume::from_manifest(&manifest)
            }
        };
        self.hand_on(&members, &received, on_piece)
    }

    fn hand_on(&self, members: &[&Backup], received: &SeedResume, on_piece: OnPiece<'_>) -> Result<(), RestoreError> {
        let full = &members[0].manifest;
        // A page that is free by now was left out by whom it came from before, if it came from a node.
        let mut pages_sent = received.pages_sent;
        for Backup { manifest, .. } in members.iter().copied() {
            let has_all = received.next_page.0 == full.page_count && received.last >= manifest.end.log_id();
            if has_all {
                continue;
            }
            let mut input = Input::new(&self.store, manifest)?;
            let mut pages_end = manifest.kind == BackupKind::Full && received.next_page.0 < full.page_count;
            while let Some((piece, _)) = input.next()? {
                let mut pieces = Vec::new();
                match piece {
                    Piece::Pages(runs) => {
                        pieces
                            .extend(runs.into_iter().filter_map(|(first, bytes)| pages(full, received, first, bytes)));
                    }
                    Piece::Frames(frames) => {
                        pieces.extend(std::mem::take(&mut pages_end).then(|| pages_done(full, pages_sent)));
                        let missing = frames.into_iter().filter(|frame| Some(frame.log_id()) > received.last);
                        pieces.push(SeedChunk::Frames(missing.collect()));
                    }
                }
                for piece in &pieces {
                    if let SeedChunk::Pages { bytes, .. } = piece {
                        pages_sent += (bytes.len() / PAGE_BYTES) as u64;
                    }
                }
                if pieces.is_empty() {
                    pieces.push(SeedChunk::Frames(Vec::new()));
                }
                if pieces.into_iter().try_for_each(&mut *on_piece).is_break() {
                    return Ok(());
                }
            }
            if pages_end && on_piece(pages_done(full, pages_sent)).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Of a run of pages, what was not received.
fn pages(full: &Manifest, received: &SeedResume, first: PageNumber, bytes: Bytes) -> Option<SeedChunk> {
    let known = received.next_page.0.saturating_sub(first.0) as usize * PAGE_BYTES;
    let target = full.end.log_id();
    (known < bytes.len()).then(|| SeedChunk::Pages {
        first: PageNumber(first.0.max(received.next_page.0)),
        bytes: bytes.slice(known..),
        target,
    })
}

fn pages_done(full: &Manifest, pages_sent: u64) -> SeedChunk {
    let (target, target_txn) = (full.end.log_id(), TxnId(full.end.txn_id));
    SeedChunk::PagesDone { target, target_txn, pages_sent }
}
