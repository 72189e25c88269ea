//! A full backup of a live engine: its stream of pages and frames ([`crate::seed`]), cut into chunks and parts.
//!
//! The order, and what a crash between two steps leaves:
//! 1. `progress` is put: from here on the folder is an interrupted backup, until the manifest is there.
//! 2. Parts are put, one after the other; after each that holds only pages `progress` is put anew, and says which page is
//!    next and which parts there are. A crash leaves parts of which `progress` may not know the last: that one is written again.
//! 3. What stands in the folder and is none of this backup's parts is removed: an attempt before this one may have had more.
//! 4. The manifest is put: now the backup is there. A crash before leaves an interrupted one, whose end is read anew.
//! 5. `progress` is removed. A crash before leaves it beside the manifest, where it says nothing.
//!
//! Memory: a chunk as it is, one compressed, what the source has read ahead, and what the place has not written yet: some MiB,
//! or three times the longest frame.

use super::Backups;
use super::chunk::{ChunkKind, PagesRaw, Raw, push_frame};
use super::error::BackupError;
use super::id::BackupId;
use super::interrupted::Interrupted;
use super::manifest::{BackupKind, FORMAT_VERSION, Manifest, Membership, Position};
use super::output::{Output, manifest_name, part_name, progress_name};
use super::progress::{Meter, OnProgress, Stage, Stopped};
use super::track::Track;
use crate::engine::Engine;
use crate::page::PAGE_BYTES;
use crate::seed::{SeedChunk, SeedSource};

impl From<Stopped> for BackupError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// A full backup, being written.
struct Writing<'w> {
    backups: &'w Backups,
    known: Interrupted,
    id: BackupId,
    source: SeedSource,
    output: Output<'w>,
    meter: Meter<'w>,
    pages: PagesRaw,
    frames: Raw,
    track: Track,
    frame_count: u64,
}

impl Backups {
    /// Makes a full backup under a new name.
    pub(super) fn write_full(
        &self,
        engine: &Engine,
        id: BackupId,
        on_progress: OnProgress<'_>,
    ) -> Result<Manifest, BackupError> {
        let source = engine.seed_source(self.options.hold_bytes)?;
        let checkpoint = source.checkpoint().clone();
        let known = Interrupted {
            format: FORMAT_VERSION,
            id: id.as_str().to_owned(),
            kind: BackupKind::Full,
            database_id: engine.database_id().0,
            cluster_id: engine.identity().cluster_id.0,
            timeline: engine.timeline().0,
            start: Position::of(&checkpoint),
            start_membership: Membership::of(&checkpoint),
            page_count: source.page_count(),
            next_page: 0,
            pages: 0,
            raw_bytes: 0,
            target: None,
            parts: Vec::new(),
        };
        self.write_from(engine, known, source, on_progress)
    }

    /// Goes on with one that was interrupted.
    ///
    /// # Errors
    /// [`SeedError::CannotResume`](crate::seed::SeedError::CannotResume) before anything was written, when this node has
    /// not what it needs.
    pub(super) fn resume_full(
        &self,
        engine: &Engine,
        known: Interrupted,
        on_progress: OnProgress<'_>,
    ) -> Result<Manifest, BackupError> {
        let source = engine.resume_seed_source(known.resume(), self.options.hold_bytes)?;
        self.write_from(engine, known, source, on_progress)
    }

    fn write_from(
        &self,
        engine: &Engine,
        known: Interrupted,
        source: SeedSource,
        on_progress: OnProgress<'_>,
    ) -> Result<Manifest, BackupError> {
        let id = BackupId::parse(&known.id).expect("it was made, or checked when it was read");
        known.put(&*self.store, &id)?;
        let (part_bytes, compress) = (self.options.part_bytes, self.options.compress);
        let mut output = Output::new(&*self.store, id.clone(), part_bytes, compress, known.parts.clone());
        output.raw_bytes = known.raw_bytes;
        let file_bytes = u64::from(known.page_count) * PAGE_BYTES as u64;
        let total = file_bytes + engine.journal_bytes_from(known.start.next_index());
        let mut meter = Meter::new(&*self.surroundings, self.options.bytes_per_second, total, on_progress);
        meter.skip(u64::from(known.next_page) * PAGE_BYTES as u64);
        let track = Track::new(known.start_state(), engine.timeline());
        Writing {
            backups: self,
            id,
            source: source.until_applied(),
            output,
            meter,
            pages: PagesRaw::default(),
            frames: Raw::default(),
            track,
            frame_count: 0,
            known,
        }
        .run()
    }
}

impl Writing<'_> {
    fn run(mut self) -> Result<Manifest, BackupError> {
        let mut as_of_micros = 0;
        let mut seen_page = self.known.next_page;
        let mut skip_to = |meter: &mut Meter<'_>, from: u32, to: u32| {
            meter.skip(u64::from(from.saturating_sub(seen_page)) * PAGE_BYTES as u64);
            seen_page = seen_page.max(to);
        };
        loop {
            // Before the source looks where the frames end.
            let asked_micros = self.backups.surroundings.wall_micros();
            let Some(chunk) = self.source.next(self.backups.options.chunk_bytes)? else { break };
            match chunk {
                SeedChunk::Manifest(_) => {}
                SeedChunk::Pages { first, bytes, .. } => {
                    let end = first.0 + u32::try_from(bytes.len() / PAGE_BYTES).expect("a piece of a file");
                    skip_to(&mut self.meter, first.0, end);
                    let moved = bytes.len() as u64;
                    self.known.pages += moved / PAGE_BYTES as u64;
                    self.pages.push(first, bytes);
                    if self.pages.bytes() >= self.backups.options.chunk_bytes {
                        self.end_pages()?;
                    }
                    self.meter.moved(Stage::Pages, moved)?;
                }
                SeedChunk::PagesDone { .. } => {
                    skip_to(&mut self.meter, self.known.page_count, self.known.page_count);
                    as_of_micros = asked_micros;
                    self.end_pages()?;
                }
                SeedChunk::Frames(frames) => {
                    for frame in frames {
                        // The journal has checked it; a frame that does not fit is a bug, not a damage.
                        self.track.take(&frame).unwrap_or_else(|what| panic!("the journal is out of order: {what}"));
                        self.frame_count += 1;
                        push_frame(&mut self.frames, &frame);
                        if self.frames.len() >= self.backups.options.chunk_bytes {
                            self.end_frames()?;
                        }
                        self.meter.moved(Stage::Frames, frame.frame_bytes() as u64)?;
                    }
                }
                SeedChunk::Done { .. } => self.end_frames()?,
            }
        }
        self.output.end_part()?;
        let manifest = self.manifest(as_of_micros);
        self.backups.finish(&self.id, &manifest)?;
        Ok(manifest)
    }

    fn end_pages(&mut self) -> Result<(), BackupError> {
        let Some(end) = self.pages.end() else { return Ok(()) };
        if self.output.chunk(ChunkKind::Pages, self.pages.take())? {
            // Asked for after the pages were read: they are of versions up to it.
            self.known.target = self.source.target()?.map(|log_id| (log_id.term.0, log_id.index.0));
            self.known.next_page = end.0;
            self.known.parts.clone_from(&self.output.parts);
            self.known.raw_bytes = self.output.raw_bytes;
            self.known.put(&*self.backups.store, &self.id)?;
        }
        Ok(())
    }

    fn end_frames(&mut self) -> Result<(), BackupError> {
        if !self.frames.is_empty() {
            self.output.chunk(ChunkKind::Frames, std::mem::take(&mut self.frames))?;
        }
        Ok(())
    }

    fn manifest(&self, as_of_micros: u64) -> Manifest {
        let state = &self.track.state;
        Manifest {
            format: FORMAT_VERSION,
            id: self.known.id.clone(),
            kind: BackupKind::Full,
            sealed: true,
            parent: None,
            database_id: self.known.database_id,
            cluster_id: self.known.cluster_id,
            timeline: self.known.timeline,
            start: self.known.start,
            end: Position::of(state),
            membership: Membership::of(state),
            as_of_micros,
            page_count: self.known.page_count,
            pages: self.known.pages,
            frames: self.frame_count,
            raw_bytes: self.output.raw_bytes,
            stored_bytes: self.output.stored_bytes(),
            parts: self.output.parts.clone(),
        }
    }
}

impl Backups {
    /// Steps 3 to 5: the backup is there, and nothing else in its folder.
    pub(super) fn finish(&self, id: &BackupId, manifest: &Manifest) -> Result<(), BackupError> {
        self.remove_strangers(id, manifest)?;
        self.store.put(&manifest_name(id), &manifest.encode())?;
        self.store.delete(&progress_name(id))?;
        Ok(())
    }

    /// Removes what stands in a backup's folder and is none of its parts.
    pub(super) fn remove_strangers(&self, id: &BackupId, manifest: &Manifest) -> Result<(), BackupError> {
        let parts = 1..=manifest.parts.len();
        let ours: std::collections::BTreeSet<String> =
            parts.map(|number| part_name(id, number)).chain([manifest_name(id), progress_name(id)]).collect();
        for object in self.store.list(&format!("{id}/"))?.into_iter().filter(|object| !ours.contains(&object.name)) {
            self.store.delete(&object.name)?;
        }
        Ok(())
    }
}
