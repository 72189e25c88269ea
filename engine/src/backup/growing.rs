//! The frames of an increment, on their way into its parts.

use super::Backups;
use super::catalog::Backup;
use super::chunk::{ChunkKind, Raw, push_frame};
use super::error::BackupError;
use super::id::BackupId;
use super::interrupted::Interrupted;
use super::manifest::{BackupKind, FORMAT_VERSION, Manifest, Membership, Parent, Position};
use super::output::Output;
use super::track::Track;
use crate::ids::LogIndex;
use crate::journal::frame::Frame;

/// An increment that is being written.
pub(super) struct Growing<'g> {
    pub(super) id: BackupId,
    pub(super) track: Track,
    /// The first frame that is in no complete part.
    pub(super) saved: LogIndex,
    pub(super) output: Output<'g>,
    chunk_bytes: usize,
    frames: Raw,
    parent: Parent,
    started: Manifest,
}

impl<'g> Growing<'g> {
    /// Begins one behind `parent`, whose manifest does not change any more.
    pub(super) fn begin(backups: &'g Backups, parent: &Backup, id: BackupId) -> Result<Self, BackupError> {
        assert!(parent.manifest.sealed, "a manifest that is named by its hash stays as it is");
        let started = parent.manifest.clone();
        let known = Interrupted {
            format: FORMAT_VERSION,
            id: id.as_str().to_owned(),
            kind: BackupKind::Incremental,
            database_id: started.database_id,
            cluster_id: started.cluster_id,
            timeline: started.timeline,
            start: started.end,
            start_membership: started.membership.clone(),
            page_count: 0,
            next_page: 0,
            pages: 0,
            raw_bytes: 0,
            target: None,
            parts: Vec::new(),
        };
        known.put(&*backups.store, &id)?;
        let options = &backups.options;
        let output = Output::new(&*backups.store, id.clone(), options.part_bytes, options.compress, Vec::new());
        Ok(Self {
            id,
            track: Track::new(started.end_state(), started.timeline()),
            saved: started.end.next_index(),
            output,
            chunk_bytes: options.chunk_bytes,
            frames: Raw::default(),
            parent: Parent { id: started.id.clone(), manifest: parent.manifest_hash },
            started,
        })
    }

    /// Adds the next frame. Returns whether a part is complete with it.
    pub(super) fn push(&mut self, frame: &Frame) -> Result<bool, BackupError> {
        // The journal has checked it; a frame that does not fit is a bug, not a damage.
        self.track.take(frame).unwrap_or_else(|what| panic!("the journal is out of order: {what}"));
        push_frame(&mut self.frames, frame);
        if self.frames.len() >= self.chunk_bytes { self.end_chunk() } else { Ok(false) }
    }

    fn end_chunk(&mut self) -> Result<bool, BackupError> {
        if self.frames.is_empty() {
            return Ok(false);
        }
        let complete = self.output.chunk(ChunkKind::Frames, std::mem::take(&mut self.frames))?;
        if complete {
            self.saved = self.track.next_index();
        }
        Ok(complete)
    }

    /// Ends the part: all frames so far are in a complete one.
    pub(super) fn end_part(&mut self) -> Result<(), BackupError> {
        self.end_chunk()?;
        self.output.end_part()?;
        self.saved = self.track.next_index();
        Ok(())
    }

    /// The manifest of what is in complete parts.
    ///
    /// # Panics
    /// When frames are in none.
    pub(super) fn manifest(&self, as_of_micros: u64, sealed: bool) -> Manifest {
        assert_eq!(self.saved, self.track.next_index(), "the manifest says what is in the parts");
        Manifest {
            id: self.id.as_str().to_owned(),
            kind: BackupKind::Incremental,
            sealed,
            parent: Some(self.parent.clone()),
            start: self.started.end,
            end: Position::of(&self.track.state),
            membership: Membership::of(&self.track.state),
            as_of_micros,
            page_count: 0,
            pages: 0,
            frames: self.saved.0 - self.started.end.next_index().0,
            raw_bytes: self.output.raw_bytes,
            stored_bytes: self.output.stored_bytes(),
            parts: self.output.parts.clone(),
            ..self.started.clone()
        }
    }
}
