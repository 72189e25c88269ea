//! Making a directory, and opening one: recovery, in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::log::{VOTE_SLOT_BYTES, Vote};
use super::{Background, Bell, Core, CurrentStore, Engine, EngineOptions, Faults, MetaFile, OpenError, Pins};
use crate::alloc::{Allocator, BitmapPages};
use crate::btree::{PageRef, ReadError, TreeState};
use crate::checkpoint::NodeMeta;
use crate::checkpoint::meta::{NodeIdentity, SLOT_BYTES};
use crate::damage::{Damage, DamagedPart, FoundBy};
use crate::env::{Disk, OpenMode, create_dir_durable};
use crate::error::StorageError;
use crate::ids::{DatabaseId, Digest, Generation, PageNumber, Timeline, TxnId};
use crate::journal::frame::CHAIN_START;
use crate::journal::{Journal, JournalOptions, LogStart, Scan};
use crate::page::superblock::Superblock;
use crate::page::{Page, checksum};
use crate::recovery::decide::Entries;
use crate::recovery::replay::{for_each_frame, replay_blindly};
use crate::recovery::{Decision, Observed, decide};
use crate::scrub::{Scrub, ScrubThread};
use crate::slots::{Look, SlotDamage, SlotFile};
use crate::space::Reserve;
use crate::store::{AppliedState, Counters, DataFile, Home, Store, StoreLimits, View};

/// What opening found and did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// What was decided.
    #[doc(hidden)]
    pub decision: Decision,
    /// Frames replayed behind the checkpoint.
    pub replayed_frames: u64,
    /// Bytes of an unfinished group that were cut from the journal's end.
    pub cut_bytes: u64,
    /// Slots of `node.meta` and `vote` that were damaged, and have the other slot's content again.
    pub mended_slots: Vec<SlotDamage>,
    /// How long it took.
    pub took: Duration,
}

/// The files of a directory.
pub(crate) struct Paths;

impl Paths {
    pub(crate) fn meta(directory: &Path) -> PathBuf {
        directory.join("node.meta")
    }

    pub(crate) fn vote(directory: &Path) -> PathBuf {
        directory.join("vote")
    }

    pub(crate) fn lock(directory: &Path) -> PathBuf {
        directory.join("lock")
    }

    pub(crate) fn generation(directory: &Path, generation: Generation) -> PathBuf {
        directory.join(format!("g{generation}"))
    }

    /// The highest generation that has a place in a directory, whatever stands there.
    pub(crate) fn highest_generation(disk: &dyn Disk, directory: &Path) -> Result<Option<Generation>, StorageError> {
        let names = disk.list_dir(directory)?;
        Ok(names.iter().filter_map(|name| name.strip_prefix('g')?.parse().ok().map(Generation)).max())
    }

    pub(crate) fn data(generation: &Path) -> PathBuf {
        generation.join("data")
    }

    pub(crate) fn journal(generation: &Path) -> PathBuf {
        generation.join("journal")
    }
}

/// The first pages of a database, and its state with them: the same on every node.
fn first_pages(database_id: DatabaseId) -> Result<(Vec<Box<Page>>, AppliedState), ReadError> {
    struct First(Vec<Box<Page>>);

    impl BitmapPages for First {
        fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
            Ok(PageRef::Mapped(&self.0[number.0 as usize]))
        }

        fn page_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
            Ok(&mut self.0[number.0 as usize])
        }

        fn new_bitmap(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
            self.page_mut(number)
        }
    }

    let mut pages = First(vec![Page::zeroed(), Page::zeroed()]);
    let mut page_count = 0;
    Allocator::create(&mut pages, &mut page_count)?;
    assert_eq!(page_count as usize, pages.0.len(), "a new database is the superblock and a bitmap");
    let superblock = Superblock {
        txn_id: TxnId(0),
        page_count,
        trees: TreeState::default(),
        database_id,
        timeline: Timeline(1),
        wall_time_micros: 0,
    };
    superblock.encode(&mut pages.0[0]);
    let mut digest = Digest::default();
    for (number, page) in (0..).map(PageNumber).zip(&mut pages.0) {
        checksum::seal(number, page);
        digest = digest.replace(number, 0, page.checksum());
    }
    Ok((pages.0, AppliedState { digest, chain: CHAIN_START, ..AppliedState::default() }))
}

impl Engine {
    /// Whether a directory holds a database.
    pub fn exists(disk: &dyn Disk, directory: &Path) -> Result<bool, StorageError> {
        disk.exists(&Paths::meta(directory))
    }

    /// Makes a database in `directory`, which is made if need be, and opens it. Two databases of one `database_id` start
    /// with equal pages.
    ///
    /// `node.meta` is written last: a directory without it was never finished, and is begun anew.
    pub fn create(
        disk: Arc<dyn Disk>,
        directory: &Path,
        identity: &NodeIdentity,
        database_id: DatabaseId,
        options: EngineOptions,
    ) -> Result<Self, OpenError> {
        let started = Instant::now();
        create_dir_durable(&*disk, directory)?;
        // Held until it is open: nobody else finds it half made, or made and not taken.
        let lock = take_lock(&*disk, directory)?;
        if Self::exists(&*disk, directory)? {
            return Err(OpenError::Exists(directory.to_path_buf()));
        }
        let generation = Generation(1);
        let home = Paths::generation(directory, generation);
        let vote = Paths::vote(directory);
        if disk.exists(&vote)? {
            disk.remove_file(&vote)?;
        }
        if disk.exists(&home)? {
            disk.remove_dir_all(&home)?;
        }
        disk.create_dir_all(&home)?;
        let (pages, state) = first_pages(database_id).map_err(read_error)?;
        DataFile::create(&*disk, &Paths::data(&home), &pages)?;
        let start = LogStart { previous: None, chain: CHAIN_START };
        Journal::create(disk.clone(), &Paths::journal(&home), start, options.journal)?.close();
        disk.sync_dir(&home)?;
        SlotFile::create(&*disk, &vote, VOTE_SLOT_BYTES, &[])?;
        let meta = NodeMeta {
            generation,
            identity: identity.clone(),
            checkpoint: state.clone(),
            target: state,
            purged: None,
            segment_bytes: options.journal.segment_bytes,
        };
        SlotFile::create(&*disk, &Paths::meta(directory), SLOT_BYTES, &meta.encode())?;
        Ok(Self::open_locked(disk, directory, options, lock, started)?.0)
    }

    /// Opens a database: recovers what a crash left, and says what that was.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: EngineOptions,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let started = Instant::now();
        if !Self::exists(&*disk, directory)? {
            return Err(OpenError::Missing(directory.to_path_buf()));
        }
        let lock = take_lock(&*disk, directory)?;
        // A process that made the directory, or switched its generation, may have been killed before it had synced the
        // names in it.
        disk.sync_dir(directory)?;
        Self::open_locked(disk, directory, options, lock, started)
    }

    /// As [`Self::open`], by who has the lock.
    fn open_locked(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: EngineOptions,
        lock: Arc<dyn Send + Sync>,
        started: Instant,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let (meta, value) = open_meta(&disk, directory)?;
        let (vote_file, vote) = open_vote(&disk, directory)?;
        let mended_slots: Vec<SlotDamage> =
            [&meta, &vote_file].into_iter().filter_map(|file| file.mended().cloned()).collect();
        let counters = Arc::new(Counters::default());
        let opened = open_store(&disk, directory, &value, &options, counters.clone(), lock.clone())?;
        // Only now: as long as it is not known that this generation can be opened, another may be all there is.
        remove_other_generations(&*disk, directory, value.generation)?;
        let reserve = Arc::new(Reserve::open(disk.clone(), directory, options.space.reserve_bytes)?);
        opened.store.journal.draw_on(reserve.clone());
        let core = Arc::new(Core {
            disk,
            directory: directory.to_path_buf(),
            options,
            database_id: opened.database_id,
            finished: Mutex::new(value.checkpoint.log_id),
            meta: Mutex::new(MetaFile { slots: meta, value }),
            vote_file: Arc::new(Mutex::new(vote_file)),
            vote: Mutex::new(vote),
            store: CurrentStore::new(opened.store),
            counters,
            maintenance: Mutex::default(),
            checkpointing: AtomicBool::new(false),
            seeding: AtomicBool::new(false),
            pins: Pins::default(),
            purge_wish: Mutex::default(),
            purge_unasked: AtomicBool::new(false),
            observers: Mutex::default(),
            bell: Bell::default(),
            plenty: Mutex::default(),
            reserve,
            failed: Mutex::default(),
            scrub: Scrub::default(),
            lock,
        });
        for slot in &mended_slots {
            let error = StorageError::corrupted(&slot.file, slot.offset, slot.what.clone());
            let damage = Damage::new(DamagedPart::Slot, &error, FoundBy::Recovery);
            core.store().data.register().note_mended(&damage);
        }
        let target = core.meta.lock().value.target.log_id;
        let replayed = replay_onwards(&core, target, opened.commit)?;
        let report = RecoveryReport {
            decision: opened.decision,
            replayed_frames: opened.replayed_blindly + replayed,
            cut_bytes: opened.scan.cut_bytes,
            mended_slots,
            took: started.elapsed(),
        };
        tracing::info!(?report, directory = %core.directory.display(), "opened");
        if !core.options.background {
            core.tend_space(&core.store())?;
        }
        let background = Arc::new(Background::start(&core));
        let scrub = Arc::new(ScrubThread::start(&core));
        Ok((Self { core, _background: background, _scrub: scrub }, report))
    }
}

/// Takes a directory for this process.
pub(crate) fn take_lock(disk: &dyn Disk, directory: &Path) -> Result<Arc<dyn Send + Sync>, OpenError> {
    let lock = disk.lock(&Paths::lock(directory))?.ok_or_else(|| OpenError::Locked(directory.to_path_buf()))?;
    Ok(Arc::from(lock))
}

fn read_error(error: ReadError) -> StorageError {
    match error {
        ReadError::Storage(error) => error,
        ReadError::Expired => unreachable!("no reader is open yet"),
        ReadError::NoRoom(_) => unreachable!("no batch is open yet"),
        ReadError::OtherKind(_) => unreachable!("no tree is read by its values yet"),
    }
}

/// What a slot file that cannot be opened means: trouble of the disk may pass, and a bad or missing file does not.
fn unreadable(file: &Path, error: StorageError) -> OpenError {
    match error {
        StorageError::Io { kind, .. } if kind != std::io::ErrorKind::NotFound => error.into(),
        error => bad_payload(file, &error.to_string()),
    }
}

fn bad_payload(file: &Path, what: &str) -> OpenError {
    OpenError::Meta { file: file.to_path_buf(), what: what.to_owned() }
}

/// Opens `node.meta` of a directory.
fn open_meta(disk: &Arc<dyn Disk>, directory: &Path) -> Result<(SlotFile, NodeMeta), OpenError> {
    let file = Paths::meta(directory);
    let (slots, payload) = SlotFile::open(&**disk, &file, SLOT_BYTES).map_err(|error| unreadable(&file, error))?;
    let meta = NodeMeta::decode(&payload).map_err(|what| bad_payload(&file, what))?;
    Ok((slots, meta))
}

/// Opens `vote` of a directory.
fn open_vote(disk: &Arc<dyn Disk>, directory: &Path) -> Result<(SlotFile, Option<Vote>), OpenError> {
    let file = Paths::vote(directory);
    let (slots, payload) = SlotFile::open(&**disk, &file, VOTE_SLOT_BYTES).map_err(|error| unreadable(&file, error))?;
    let vote = Vote::decode(&payload).map_err(|what| bad_payload(&file, what))?;
    Ok((slots, vote))
}

/// Reads `node.meta` of a directory that no node has open, and changes nothing. `vote` must be readable, too.
pub(crate) fn read_meta(disk: &dyn Disk, directory: &Path) -> Result<NodeMeta, OpenError> {
    let look = |file: &Path, slot_bytes| -> Result<Look, OpenError> {
        SlotFile::look(disk, file, slot_bytes).map_err(|error| unreadable(file, error))
    };
    let (meta_file, vote_file) = (Paths::meta(directory), Paths::vote(directory));
    let (meta, vote) = (look(&meta_file, SLOT_BYTES)?, look(&vote_file, VOTE_SLOT_BYTES)?);
    Vote::decode(&vote.payload).map_err(|what| bad_payload(&vote_file, what))?;
    NodeMeta::decode(&meta.payload).map_err(|what| bad_payload(&meta_file, what))
}

/// What a crash left of generations that were never switched in, or were switched out.
pub(crate) fn remove_other_generations(
    disk: &dyn Disk,
    directory: &Path,
    keep: Generation,
) -> Result<(), StorageError> {
    for name in disk.list_dir(directory)? {
        let number = name.strip_prefix('g').and_then(|rest| rest.parse::<u64>().ok());
        if number.is_some_and(|number| number != keep.0) {
            disk.remove_dir_all(&directory.join(name))?;
        }
    }
    Ok(())
}

/// A store as of its target, with what recovery decided about the rest.
pub(crate) struct OpenedStore {
    pub(crate) store: Store,
    pub(crate) database_id: DatabaseId,
    pub(crate) commit: Entries,
    pub(crate) decision: Decision,
    pub(crate) replayed_blindly: u64,
    pub(crate) scan: Scan,
}

/// Opens the generation that `meta` names, as of its target.
pub(crate) fn open_store(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    meta: &NodeMeta,
    options: &EngineOptions,
    counters: Arc<Counters>,
    lock: Arc<dyn Send + Sync>,
) -> Result<OpenedStore, OpenError> {
    let home = Paths::generation(directory, meta.generation);
    let journal_options = JournalOptions {
        segment_bytes: meta.segment_bytes,
        acknowledge_before_sync: options.faults.acknowledge_before_sync,
        cut_not_durable: options.faults.cut_not_durable,
        ..options.journal
    };
    let (journal, scan) = Journal::open(disk.clone(), &Paths::journal(&home), journal_options)?;
    if let Some(damage) = &scan.damage {
        return Err(OpenError::JournalDamaged { directory: directory.to_path_buf(), what: format!("{damage:?}") });
    }
    let decision = decide(&observe(meta, &journal, &scan));
    let commit = match decision {
        Decision::Clean { commit } | Decision::FinishCheckpoint { commit, .. } => commit,
        Decision::Damaged(damage) => {
            return Err(OpenError::Damaged { directory: directory.to_path_buf(), damage });
        }
    };
    let data = DataFile::open(&**disk, &Paths::data(&home), OpenMode::Write, options.map_bytes)?;
    let limits = StoreLimits { version_bytes: options.version_bytes_limit, split_policy: options.split_policy() };
    let blind = matches!(decision, Decision::FinishCheckpoint { .. })
        && !Faults::planted(options.faults.replay_stops_before_target);
    let (view, images) = if blind {
        let replayed = replay_blindly(&data, &journal, &meta.checkpoint, &meta.target, &options.faults)?;
        (replayed.view, replayed.images)
    } else {
        let page = data.read(PageNumber(0))?;
        let superblock =
            Superblock::decode(&page).map_err(|what| StorageError::corrupted(data.path(), 0, what.to_owned()))?;
        if superblock.txn_id != meta.checkpoint.txn_id {
            let what =
                format!("page 0 is of txn {}, and the checkpoint of {}", superblock.txn_id, meta.checkpoint.txn_id);
            return Err(StorageError::corrupted(data.path(), 0, what).into());
        }
        (View { applied: meta.checkpoint.clone(), superblock }, std::collections::BTreeMap::new())
    };
    let database_id = view.superblock.database_id;
    let txn_id = view.applied.txn_id;
    let replayed_blindly = Entries::through(index(&meta.target)).0 - Entries::through(index(&meta.checkpoint)).0;
    let home = Home { generation: meta.generation, directory: home, lock };
    let store = Store::new(home, data, journal, view, counters, limits, meta.checkpoint.txn_id);
    for (number, image) in images {
        store.versions.push(number, txn_id, image);
    }
    Ok(OpenedStore { store, database_id, commit, decision, replayed_blindly, scan })
}

fn index(state: &AppliedState) -> Option<crate::ids::LogIndex> {
    state.log_id.map(|log_id| log_id.index)
}

fn observe(meta: &NodeMeta, journal: &Journal, scan: &Scan) -> Observed {
    let fits = |state: &AppliedState| match state.log_id {
        // The chain value says it all of a frame that was written; but not of a log id that never was.
        Some(log_id) => {
            let found = journal.log_id(log_id.index).zip(journal.chain(log_id.index));
            found.map(|found| found == (log_id, state.chain))
        }
        // Before the first frame no journal is needed to tell.
        None => Some(state.chain == CHAIN_START),
    };
    Observed {
        checkpoint: Entries::through(index(&meta.checkpoint)),
        target: Entries::through(index(&meta.target)),
        journal_start: Entries::through(scan.first.previous.map(|log_id| log_id.index)),
        journal_end: Entries::through(journal.last().map(|log_id| log_id.index)),
        committed: Entries::through(scan.highest_commit),
        chain_fits_checkpoint: fits(&meta.checkpoint),
        chain_fits_target: fits(&meta.target),
    }
}

/// Applies the frames behind the target that are known committed, with checkpoints in between where memory asks for them.
pub(crate) fn replay_onwards(
    core: &Core,
    target: Option<crate::ids::LogId>,
    commit: Entries,
) -> Result<u64, OpenError> {
    let store = core.store();
    let from = if Faults::planted(core.options.faults.replay_stops_before_target) {
        Entries::through(store.head.lock().view.applied.log_id.map(|log_id| log_id.index))
    } else {
        Entries::through(target.map(|log_id| log_id.index))
    };
    let commit = if Faults::planted(core.options.faults.replay_stops_before_target) { from } else { commit };
    for_each_frame::<OpenError>(&store.journal, from.0, commit.0, |frame| {
        store.apply(frame)?;
        if store.versions.bytes() >= core.options.version_bytes_limit {
            core.checkpoint()?;
        }
        Ok(())
    })?;
    Ok(commit.0 - from.0)
}
