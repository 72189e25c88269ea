//! A new cluster from the directory of a node whose majority is lost: everything that its journal has, on a new timeline.
//!
//! It is a restore whose source is the directory itself. [`examine`] only reads, and says what there is. [`recover`] builds a
//! generation beside the old one: the pages of the data file, and over them every frame of the journal, those that are
//! not known to be committed too. What is built is verified, gets the first record of a new timeline, and is switched in by
//! `node.meta`: see [`super`], which also says what a crash leaves. Until the switch nothing of the old state is changed, so
//! that the node can still be started as what it was. The new generation needs as much space as the old one's data file.
//!
//! What may be missing afterwards cannot be read here: what others have acknowledged behind this journal's end. What
//! becomes committed by it can: the frames behind the last that is known to be. An entry that a quorum has is in the
//! journal of at least one node of each quorum; so of all directories that are left, the one whose journal ends with the
//! highest term, and in that with the highest index, has the most that was acknowledged.

use std::path::Path;
use std::sync::Arc;

use super::build::{Built, differs, prove};
use super::fork::{self, New};
use super::place::Place;
use super::{NewNode, RestoreError};
use crate::backup::progress::{Meter, OnProgress};
use crate::backup::surroundings::Surroundings;
use crate::backup::track::Track;
use crate::checkpoint::NodeMeta;
use crate::checkpoint::meta::NodeIdentity;
use crate::engine::{Engine, EngineOptions, OpenError, Paths, read_meta, take_lock};
use crate::env::{Disk, OpenMode};
use crate::error::StorageError;
use crate::ids::{ClusterId, LogId, LogIndex, PageNumber, RaftId, Timeline, TxnId};
use crate::journal::frame::Frame;
use crate::page::superblock::Superblock;
use crate::recovery::in_place::PutError;
use crate::recovery::replay::{BlindReplay, timeline_of};
use crate::store::{AppliedState, DataFile};

/// The largest data file that is looked at, in bytes of address space.
const MAP_BYTES: u64 = 1 << 40;
/// How much of the data file is copied at a time, in bytes.
const COPY_BYTES: usize = 1 << 20;

/// What the directory of a node holds.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SurvivorReport {
    /// Who the node is.
    pub identity: NodeIdentity,
    /// The last entry of its journal.
    pub last: Option<LogId>,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogIndex>,
    /// Up to where the data file has it.
    pub checkpointed: Option<LogId>,
    /// The last transaction of its journal, committed or not.
    pub last_txn: TxnId,
    /// When the last transaction was made, by its leader's clock, in microseconds since 1970; 0 for none.
    pub wall_time_micros: u64,
    /// The first and last transaction that are not known to be committed: they are, once this directory goes on alone.
    pub undecided_txns: Option<(TxnId, TxnId)>,
    /// The newest membership in it, as the consensus encodes it.
    pub membership: Option<bytes::Bytes>,
}

impl SurvivorReport {
    /// Where among survivors it stands: the greatest has the most.
    #[must_use]
    pub fn rank(&self) -> Option<LogId> {
        self.last
    }
}

/// What was made of it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RecoverReport {
    /// What it was.
    pub before: SurvivorReport,
    /// Who the node is now.
    pub identity: NodeIdentity,
    /// The timeline that it was of.
    pub forked_from: Timeline,
    /// The new one.
    pub timeline: Timeline,
    /// The state of the new database.
    pub applied: AppliedState,
}

/// Reads what a directory holds, on which no node runs. Changes nothing.
///
/// # Errors
/// When a node runs on it; when it cannot be read, or is damaged.
pub fn examine(disk: &Arc<dyn Disk>, directory: &Path) -> Result<SurvivorReport, RestoreError> {
    ensure_there(&**disk, directory)?;
    let _lock = take_lock(&**disk, directory).map_err(locked)?;
    look(disk, directory, &read_meta(&**disk, directory)?)
}

/// Nothing is made where nothing is.
fn ensure_there(disk: &dyn Disk, directory: &Path) -> Result<(), RestoreError> {
    if Engine::exists(disk, directory)? {
        return Ok(());
    }
    Err(OpenError::Missing(directory.to_path_buf()).into())
}

fn locked(error: OpenError) -> RestoreError {
    match error {
        OpenError::Locked(directory) => RestoreError::Locked(directory),
        error => error.into(),
    }
}

fn look(disk: &Arc<dyn Disk>, directory: &Path, meta: &NodeMeta) -> Result<SurvivorReport, RestoreError> {
    let checkpoint = &meta.checkpoint;
    let mut report = SurvivorReport {
        identity: meta.identity.clone(),
        last: checkpoint.log_id,
        committed: checkpoint.log_id.map(|log_id| log_id.index),
        checkpointed: checkpoint.log_id,
        last_txn: checkpoint.txn_id,
        wall_time_micros: checkpoint.wall_time_micros,
        undecided_txns: None,
        membership: None,
    };
    let data = Paths::data(&Paths::generation(directory, meta.generation));
    let timeline = timeline_of(&DataFile::open(&**disk, &data, OpenMode::Read, MAP_BYTES)?)?;
    let mut track = Track::new(checkpoint.clone(), timeline);
    let mut records = Vec::new();
    for_each_behind(disk, directory, meta, |frame| {
        report.committed = report.committed.max(frame.commit());
        if let Some(record) = track.take(frame).map_err(differs)? {
            records.push((frame.log_id().index, record.header.first_txn, record.header.last_txn));
        }
        Ok(())
    })?;
    let state = track.state;
    (report.last, report.last_txn, report.wall_time_micros) = (state.log_id, state.txn_id, state.wall_time_micros);
    report.membership = state.membership.map(|(_, bytes)| bytes);
    // The target is what a checkpoint was told to be committed.
    report.committed = report.committed.max(meta.target.log_id.map(|log_id| log_id.index));
    let undecided = records.iter().filter(|(index, ..)| Some(*index) > report.committed);
    report.undecided_txns = undecided.fold(None, |range: Option<(TxnId, TxnId)>, (_, first, last)| {
        Some((range.map_or(*first, |(begin, _)| begin), *last))
    });
    Ok(report)
}

fn bad(directory: &Path, frame: &Frame, error: impl std::fmt::Display) -> RestoreError {
    StorageError::corrupted(directory.join("journal"), 0, format!("frame {}: {error}", frame.log_id())).into()
}

/// Each frame behind the checkpoint, in order.
fn for_each_behind(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    meta: &NodeMeta,
    mut each: impl FnMut(&Frame) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let journal = Paths::journal(&Paths::generation(directory, meta.generation));
    for found in crate::journal::frames(disk.clone(), &journal)? {
        let (frame, _) = found?;
        if Some(frame.log_id().index) > meta.checkpoint.log_id.map(|log_id| log_id.index) {
            each(&frame)?;
        }
    }
    Ok(())
}

/// Makes the directory the first node of a new cluster, with all that its journal has. `expected` is what [`examine`] found
/// and somebody has agreed to: if the directory is another by now, nothing is done. Name and addresses of the node stay.
///
/// # Errors
/// When a node runs on it; when it is not what was expected, is damaged, or the disk fails. It is then what it was.
pub fn recover(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    expected: &SurvivorReport,
    membership: Option<&dyn Fn(&NodeIdentity) -> bytes::Bytes>,
    options: &EngineOptions,
    surroundings: &dyn Surroundings,
    on_progress: OnProgress<'_>,
) -> Result<RecoverReport, RestoreError> {
    ensure_there(&**disk, directory)?;
    let place = Place::take(disk, directory, true)?;
    let meta = read_meta(&**disk, directory)?;
    let before = look(disk, directory, &meta)?;
    if before != *expected {
        return Err(differs("the directory has changed since it was looked at"));
    }
    let mut meter = Meter::new(surroundings, None, 0, on_progress);
    let (built, forked_from) = rebuild(&place, &meta, options, &mut meter)?;
    if built.state.log_id != before.last {
        return Err(differs(format!(
            "it leads to {:?}, and the journal ends with {:?}",
            built.state.log_id, before.last
        )));
    }
    let NodeIdentity { name, listen, advertise, .. } = &before.identity;
    let node = NewNode { name, listen, advertise, membership };
    let identity = NodeIdentity {
        cluster_id: ClusterId(surroundings.draw()),
        raft_id: RaftId(surroundings.draw() as u64),
        name: node.name.to_owned(),
        listen: node.listen.to_owned(),
        advertise: node.advertise.to_owned(),
    };
    let timeline = super::draw_timeline(surroundings);
    let new = New {
        identity: &identity,
        membership: node.membership.map(|encode| encode(&identity)),
        forked_from,
        timeline,
        // Wall times never go back.
        wall_micros: surroundings.wall_micros().max(built.state.wall_time_micros),
        options,
    };
    let forked = fork::fork(&place, &built, &new)?;
    place.switch(&forked.meta)?;
    Ok(RecoverReport { before, identity, forked_from, timeline, applied: forked.meta.checkpoint })
}

/// The state at the end of the journal, in the new generation, verified.
fn rebuild(
    place: &Place,
    meta: &NodeMeta,
    options: &EngineOptions,
    meter: &mut Meter<'_>,
) -> Result<(Built, Timeline), RestoreError> {
    let path = Paths::data(&place.home);
    copy(&*place.disk, &Paths::data(&Paths::generation(&place.directory, meta.generation)), &path)?;
    let data = DataFile::open(&*place.disk, &path, OpenMode::Write, options.map_bytes)?;
    let timeline = timeline_of(&data)?;
    let mut track = Track::new(meta.checkpoint.clone(), timeline);
    let mut replay = BlindReplay::new(&data);
    for_each_behind(&place.disk, &place.directory, meta, |frame| {
        let Some(record) = track.take(frame).map_err(differs)? else { return Ok(()) };
        let put = replay.put(&record, frame.payload().bytes(), &options.faults);
        put.map_err(|error| match error {
            PutError::Storage(error) => error.into(),
            PutError::Record(error) => bad(&place.directory, frame, error),
        })
    })?;
    replay.flush()?;
    drop(replay);
    let page = data.read_unverified(PageNumber(0))?.ok_or_else(|| differs("it has no page 0"))?;
    let superblock = Superblock::decode(&page).map_err(differs)?;
    data.set_page_count(superblock.page_count)?;
    data.sync()?;
    drop(data);
    let state = track.state;
    if (superblock.txn_id, superblock.timeline) != (state.txn_id, timeline) {
        let what = format!("page 0 is of txn {}, and the journal ends with {}", superblock.txn_id, state.txn_id);
        return Err(differs(what));
    }
    prove(place, superblock.page_count, &state, meter)?;
    Ok((Built { state }, timeline))
}

/// Copies a data file. Where it is all zeros, nothing is written.
fn copy(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), RestoreError> {
    let (from, to) = (disk.open(from, OpenMode::Read)?, disk.open(to, OpenMode::CreateNew)?);
    let length = from.len()?;
    to.set_len(length)?;
    let mut piece = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < length {
        let bytes = usize::try_from(length - at).unwrap_or(usize::MAX).min(COPY_BYTES);
        from.read_exact_at(&mut piece[..bytes], at)?;
        if piece[..bytes].iter().any(|byte| *byte != 0) {
            to.write_at(&[std::io::IoSlice::new(&piece[..bytes])], at)?;
        }
        at += bytes as u64;
    }
    to.sync_data()?;
    Ok(())
}
