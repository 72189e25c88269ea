//! Opening and making directories: who may, and when.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::rig_test::{catch_up, check, commit, contents, create, identity, options};
use super::{Engine, EngineOptions, OpenError, Paths};
use crate::checkpoint::NodeMeta;
use crate::checkpoint::meta::SLOT_BYTES;
use crate::env::{Disk, DiskInFront, RealDisk, SimDisk};
use crate::error::StorageError;
use crate::ids::{DatabaseId, LogId};
use crate::journal::{JournalMode, JournalOptions};
use crate::recovery::Damage;
use crate::slots::SlotFile;
use crate::store::AppliedState;

#[test]
fn a_directory_is_locked_as_long_as_a_reader_or_a_batch_is_open() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    for mode in [JournalMode::Inline, JournalMode::Threaded] {
        let directory = home.path().join(format!("{mode:?}"));
        let journal = JournalOptions { mode, ..options().journal };
        let options = EngineOptions { journal, background: mode == JournalMode::Threaded, ..options() };
        let engine = Engine::create(disk.clone(), &directory, &identity(1), DatabaseId(9), options).expect("new");
        let put = |engine: &Engine, key: &[u8]| {
            commit(engine, |batch| {
                batch.create_tree("t").expect("works");
                batch.put("t", key, &[key[0]; 20_000]).expect("fits");
            });
        };
        put(&engine, b"a");
        let reader = engine.read();
        put(&engine, b"b");
        drop(engine);
        let open = || Engine::open(disk.clone(), &directory, options).map(|(engine, _)| engine);
        assert!(matches!(open(), Err(OpenError::Locked(_))), "a reader is open");
        assert!(
            reader.get("t", b"a").expect("readable").is_some() && reader.get("t", b"b").expect("readable").is_none()
        );
        drop(reader);
        let engine = open().expect("nobody has it");
        catch_up(&engine);
        assert_eq!(contents(&engine, "t").into_keys().collect::<Vec<_>>(), [b"a".to_vec(), b"b".to_vec()]);
        check(&engine);
        let batch = engine.begin_batch().expect("memory");
        drop(engine);
        assert!(matches!(open(), Err(OpenError::Locked(_))), "a batch is open");
        drop(batch);
        check(&open().expect("nobody has it"));
    }
}

/// The real disk; counts how often a lock was taken.
#[derive(Default)]
struct LockCounter {
    real: RealDisk,
    taken: AtomicU32,
}

impl DiskInFront for LockCounter {
    fn behind(&self) -> &dyn Disk {
        &self.real
    }
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, StorageError> {
        let lock = self.real.lock(path)?;
        self.taken.fetch_add(u32::from(lock.is_some()), Ordering::Relaxed);
        Ok(lock)
    }
}

#[test]
fn making_a_database_takes_the_lock_once_and_looks_only_behind_it() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let counter = Arc::new(LockCounter::default());
    let disk: Arc<dyn Disk> = counter.clone();
    let make = || Engine::create(disk.clone(), home.path(), &identity(1), DatabaseId(9), options());
    let engine = make().expect("a new directory");
    assert_eq!(counter.taken.load(Ordering::Relaxed), 1, "nobody can come between making and opening");
    assert!(matches!(make(), Err(OpenError::Locked(_))), "whoever has it may be making it just now");
    drop(engine);
    assert!(matches!(make(), Err(OpenError::Exists(_))));
}

/// A frame that was written has the log id that its chain value says, and before the first one the chain value is known.
/// A `node.meta` may say what it likes.
#[test]
fn a_checkpoint_that_no_log_was_ever_at_is_of_another_history() {
    let refused = |checkpointed: bool, change: fn(&mut AppliedState)| {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let directory = Path::new("/node");
        let engine = create(&disk, directory, 1);
        // The second one says that the first is committed.
        for tree in ["t", "u"] {
            commit(&engine, |batch| drop(batch.create_tree(tree)));
        }
        if checkpointed {
            engine.checkpoint().expect("works");
        }
        drop(engine);
        let path = Paths::meta(directory);
        let payload = SlotFile::read(&*disk, &path, SLOT_BYTES).expect("sound");
        let mut meta = NodeMeta::decode(&payload).expect("sound");
        assert_eq!(meta.checkpoint.log_id.is_some(), checkpointed);
        change(&mut meta.checkpoint);
        meta.target = meta.checkpoint.clone();
        SlotFile::open(&*disk, &path, SLOT_BYTES).expect("sound").0.write(&meta.encode()).expect("works");
        let opened = Engine::open(disk, directory, options()).map(drop);
        assert!(matches!(opened, Err(OpenError::Damaged { damage: Damage::OtherHistory, .. })), "{opened:?}");
    };
    refused(true, |checkpoint| checkpoint.log_id = checkpoint.log_id.map(|log_id| LogId::new(9, log_id.index.0)));
    refused(false, |checkpoint| checkpoint.chain ^= 1);
}
