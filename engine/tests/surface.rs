//! What a user of the crate sees: every name that is promised (see "What is stable" on the crate's front page), and a
//! database driven by those names alone. A name that goes, or a type that cannot be written down any more, breaks the build.

use std::collections::BTreeSet;
use std::error::Error;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[allow(unused_imports, reason = "some are only named: that they can be is what is tested")]
use calamus_engine::{
    Applied, AppliedState, ApplyError, BLOCK_BYTES, Batch, BatchError, BatchId, BatchPages, CHAIN_START, CheckReport,
    CheckpointReport, Chunks, ClusterId, Committed, Cursor, Damage, DamageCounts, DamagedPart, Database, DatabaseId,
    Digest, DirectoryDamage, DirectoryReport, Disk, DiskFile, DiskFull, Done, DropProgress, Durability, Engine,
    EngineOptions, EngineStatus, Entry, FileMap, Finding, FindingKind, Footprint, FoundBy, Frame, FrameError,
    FrameHeader, FrameKind, Generation, JournalMode, JournalOptions, JournalPosition, JournalTail, Keys, LogId,
    LogIndex, LogState, Lost, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, MAX_VALUE_BYTES, NodeIdentity,
    OpenError, OpenMode, OperationKind, OperationView, PageDiff, PageNumber, Payload, Pin, PinError, PinInfo, Problem,
    ProblemKind, Progress, Published, RaftId, Range, ReadError, ReadTxn, ReaderInfo, RealDisk, Record, RecordError,
    RecordHeader, RecoveryReport, RepairError, Reserved, SalvageError, SalvageReport, Salvaged, Savepoint, ScrubReport,
    ScrubStatus, SlotDamage, Space, SpaceLevel, SpaceOptions, Staged, StagedState, StorageError, TailCloser, TailError,
    TailNext, Term, Timeline, TreeInfo, TreeKind, TreeView, TxnId, Value, ValueAt, ValueChunk, ValuesCursor, Vote,
    WriteCursor, WriteError, WriteTxn, check_directory, salvage,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The names that `use` items of a source bring, each of which begins with `opening`.
fn names<'s>(source: &'s str, opening: &str) -> BTreeSet<&'s str> {
    let lists = source.split(opening).skip(1).filter_map(|rest| rest.split(';').next());
    lists
        .flat_map(|list| list.trim_end_matches('}').rsplit('{').next().unwrap_or_default().split(','))
        .map(|name| name.rsplit("::").next().unwrap_or_default())
        .map(|name| name.rsplit(" as ").next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn this_file_names_all_that_is_promised() {
    let promised = names(include_str!("../src/lib.rs"), "\npub use ");
    let named = names(include_str!("surface.rs"), "\nuse calamus_engine::");
    assert!(promised.len() > 100, "{promised:?}");
    assert_eq!(
        promised, named,
        "name here what the crate's root has got, and take a name off in a breaking version only"
    );
}

#[test]
fn threads_may_share_what_is_open() {
    fn shared<T: Send + Sync>() {}
    fn errors<T: Error + Send + Sync + 'static>() {}
    shared::<(Database, Engine, ReadTxn, EngineOptions, EngineStatus, Pin, TailCloser, RealDisk)>();
    let _ = (errors::<OpenError>, errors::<WriteError>, errors::<BatchError>, errors::<ReadError>);
    let _ = (errors::<StorageError>, errors::<ApplyError>, errors::<SalvageError>, errors::<RepairError>);
    let _ = (errors::<TailError>, errors::<PinError>, errors::<FrameError>, errors::<RecordError>, errors::<DiskFull>);
}

fn open(disk: &Arc<dyn Disk>, directory: &Path) -> std::result::Result<Database, OpenError> {
    let mut options = EngineOptions::default();
    options.background = false;
    options.journal.segment_bytes = 1 << 20;
    options.journal.mode = JournalMode::Inline;
    options.space.reserve_bytes = 1 << 20;
    Database::open_with(disk.clone(), directory, options)
}

fn fill(batch: &mut Batch) -> std::result::Result<(), BatchError> {
    batch.create_tree("birds")?;
    batch.create_multi_tree("colours")?;
    batch.put("birds", b"heron", b"grey")?;
    let mut reserved: Reserved<'_> = batch.put_reserved("birds", b"swift", 5)?;
    reserved.chunk()?.copy_from_slice(b"black");
    reserved.advance(5);
    let here: Savepoint = batch.savepoint();
    batch.put("birds", b"robin", b"blue")?;
    batch.rollback_to(here)?;
    batch.add("colours", b"heron", b"grey").map(drop)
}

fn read(snapshot: &ReadTxn) -> Result<()> {
    let Some(Entry { value, version, .. }) = snapshot.get("birds", b"heron")? else { panic!("it was put") };
    assert_eq!(value.to_vec()?, b"grey");
    assert!(version <= snapshot.txn_id());
    let tree: TreeView<'_> = snapshot.open_tree("birds")?.expect("it was made");
    let mut cursor: Cursor<'_, ReadTxn> = tree.cursor();
    assert!(cursor.seek(b"i")? && cursor.key() == b"swift");
    let mut range: Range<'_, ReadTxn> = tree.range(Bound::Unbounded, Bound::Excluded(b"swift"));
    assert!(range.next()? && !range.next()?);
    let mut keys: Keys<'_, ReadTxn> = snapshot.keys("colours")?.expect("it was made");
    assert!(keys.first()?);
    let mut values: ValuesCursor<'_, ReadTxn> = keys.values()?;
    assert!(values.first()? && values.value() == b"grey");
    let kinds: Vec<TreeKind> = snapshot.list_trees()?.iter().map(|TreeInfo { kind, .. }| *kind).collect();
    assert_eq!(kinds, [TreeKind::Plain, TreeKind::Multi]);
    Ok(())
}

/// What a transaction that runs `work` fails with.
fn refused(database: &Database, work: impl Fn(&mut Batch) -> std::result::Result<(), BatchError>) -> BatchError {
    match database.write(|batch| work(batch)) {
        Err(WriteError::Batch(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_database_is_driven_by_these_names() -> Result<()> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let home = tempfile::tempdir()?;
    let (directory, copy) = (home.path().join("birds"), home.path().join("copy"));
    let database = open(&disk, &directory)?;
    let pin: Pin = database.engine().pin("surface", LogIndex(0), 1 << 20)?;
    let Committed { txn_id, .. } = database.with_durability(Durability::Deferred).write(fill)?;
    assert_eq!((txn_id, database.sync()?), (Some(TxnId(1)), TxnId(1)));
    read(&database.read())?;

    assert!(matches!(open(&disk, &directory), Err(OpenError::Locked(_))));
    let put = |key: usize, value: usize| {
        refused(&database, |batch| batch.put("birds", &vec![7; key], &vec![7; value]).map(drop))
    };
    assert!(matches!(put(MAX_KEY_BYTES + 1, 1), BatchError::KeyLength(_)));
    assert!(matches!(put(1, MAX_VALUE_BYTES + 1), BatchError::ValueLength(_)));
    let name = "n".repeat(MAX_NAME_BYTES + 1);
    assert!(matches!(refused(&database, |batch| batch.create_tree(&name).map(drop)), BatchError::NameLength(_)));
    let kind = database.read().values("birds", b"heron").err().expect("it is a plain tree");
    assert!(matches!(kind, ReadError::OtherKind(TreeKind::Plain)));

    let mut tail: JournalTail = database.engine().tail(pin.from());
    let TailNext::Frame(frame) = tail.next_within(Duration::from_secs(60))? else { panic!("it was committed") };
    assert_eq!(
        (frame.kind(), frame.log_id().index, frame.follows(CHAIN_START)),
        (FrameKind::Record, LogIndex(0), true)
    );
    let record = Record::decode(frame.payload().bytes())?;
    let OperationView { kind, ref key, ref value, .. } = record.operations[2];
    assert_eq!((kind, key.as_slice()), (OperationKind::Put, &b"heron"[..]));
    assert!(matches!(value, ValueAt::Span(..) | ValueAt::Run(..)));

    let CheckpointReport { at, .. } = database.engine().checkpoint()?;
    assert_eq!(at, Some(frame.log_id()));
    let EngineStatus { space: Space { level, .. }, damage, .. } = database.engine().status();
    assert_eq!((level, damage), (SpaceLevel::Normal, DamageCounts::default()));

    drop((pin, tail, database));
    let report: DirectoryReport = check_directory(&disk, &directory, &mut |_: Progress| ())?;
    assert!(report.is_clean(), "{:?}", report.findings);
    let SalvageReport { trees, lost, .. } = salvage(&disk, &directory, &copy, &mut |_| ())?;
    assert_eq!((trees["birds"].entries, lost), (2, Vec::<Lost>::new()));
    read(&open(&disk, &copy)?.read())
}
