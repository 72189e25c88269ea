//! Opening and making directories: who may, and when.

use std::sync::Arc;

use super::engine_test::{catch_up, check, commit, contents, identity, options};
use super::{Engine, EngineOptions, OpenError};
use crate::env::{Disk, RealDisk};
use crate::ids::DatabaseId;
use crate::journal::{JournalMode, JournalOptions};

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
