//! Backups in a bucket: a real S3-compatible server over HTTP, with answers that fail and connections that break.

mod s3;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use calamus_engine::backup::{
    BackupOptions, BackupProgress, BackupStore, Backups, DirectoryStore, NewNode, RestoreOptions, StoreError,
};
use calamus_engine::env::{Disk, RealDisk};
use calamus_engine::offline::check_directory;
use calamus_engine::{Database, EngineOptions};
use calamus_server::backup::object::{BucketStore, PIECE_BYTES, Patience};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use s3::{BUCKET, S3Server, Wrong};

const QUICK: Patience = Patience { retries: 8, first_wait: Duration::from_millis(1) };

fn bucket(server: &S3Server, prefix: &str) -> BucketStore {
    BucketStore::with(server.builder(), BUCKET, prefix, QUICK).expect("the server is described")
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk::new())
}

fn go_on(_: BackupProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn names(store: &dyn BackupStore, prefix: &str) -> Vec<(String, u64)> {
    let listed = store.list(prefix).expect("it can be listed");
    listed.into_iter().map(|object| (object.name, object.bytes)).collect()
}

fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// What the door to places promises, of a bucket and of a directory alike.
fn keeps_the_contract(store: &dyn BackupStore) {
    assert_eq!(names(store, ""), []);
    assert!(matches!(store.read("a/manifest", 0, 10), Err(StoreError::NotFound { name }) if name == "a/manifest"));
    store.delete("a/manifest").expect("none is fine");

    store.put("a/manifest", b"one").expect("put");
    store.put("a/manifest", b"another").expect("put over it");
    store.put("a/expired", b"").expect("an empty one");
    store.put("ab/manifest", b"of another").expect("put");
    assert_eq!(store.read("a/manifest", 0, 100).expect("readable"), b"another");
    assert_eq!(store.read("a/manifest", 2, 3).expect("readable"), b"oth");
    assert_eq!(store.read("a/manifest", 7, 3).expect("the end is no error"), b"");
    assert_eq!(store.read("a/expired", 0, 3).expect("nor is an empty one"), b"");
    let all = [("a/expired", 0), ("a/manifest", 7), ("ab/manifest", 10)].map(|(name, bytes)| (name.to_owned(), bytes));
    assert_eq!(names(store, ""), all);
    assert_eq!(names(store, "a/"), all[..2]);
    assert_eq!(names(store, "a/m"), all[1..2]);

    let long = random_bytes(1, 2 * PIECE_BYTES + 12_345);
    for whole in [&long[..], &long[..5], &[]] {
        let mut writer = store.create("a/part-000001").expect("begun");
        for piece in whole.chunks(1 << 20) {
            writer.write(piece).expect("written");
        }
        assert_eq!(
            names(store, "a/part").len(),
            usize::from(whole.len() != long.len()),
            "not seen before it is finished"
        );
        writer.finish().expect("finished");
        assert_eq!(names(store, "a/part"), [("a/part-000001".to_owned(), whole.len() as u64)]);
        assert!(store.read("a/part-000001", 0, whole.len() + 1).expect("readable") == whole, "{} bytes", whole.len());
    }
    for count in [10, 2 * PIECE_BYTES] {
        let mut writer = store.create("a/part-000002").expect("begun");
        writer.write(&long[..count]).expect("written");
        drop(writer);
        assert_eq!(names(store, "a/part-000002"), [], "given up after {count} bytes");
    }
    for (name, _) in names(store, "") {
        store.delete(&name).expect("deleted");
    }
    assert_eq!(names(store, ""), []);
}

#[test]
fn a_bucket_and_a_directory_keep_the_same_contract() {
    let temp = tempfile::tempdir().unwrap();
    keeps_the_contract(&DirectoryStore::new(disk(), &temp.path().join("place")));
    let server = S3Server::start(0);
    keeps_the_contract(&bucket(&server, "calamus/eu-1"));
    keeps_the_contract(&bucket(&server, ""));
    let left: Vec<_> = std::fs::read_dir(server.objects()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("part-")), "uploads were aborted: {left:?}");
}

#[test]
fn prefixes_of_a_bucket_do_not_see_each_other() {
    let server = S3Server::start(0);
    let (one, other) = (bucket(&server, "one"), bucket(&server, "one-more"));
    one.put("a/manifest", b"1").unwrap();
    other.put("b/manifest", b"22").unwrap();
    assert_eq!(names(&one, ""), [("a/manifest".to_owned(), 1)]);
    assert_eq!(names(&other, ""), [("b/manifest".to_owned(), 2)]);
    assert_eq!(names(&bucket(&server, ""), "one/").len(), 1);
}

/// A database that grows between backups.
fn put_some(database: &Database, round: u64) {
    for number in 0..20_u64 {
        let value = random_bytes(round * 1000 + number, 40_000);
        let committed = database.write(|txn| {
            txn.put("t", &(round * 100 + number).to_be_bytes(), &value)?;
            Ok(())
        });
        committed.expect("committed");
    }
}

/// Does it until it succeeds: what a request that was done and whose answer was lost leaves may be refused once.
fn persevere<T, E: std::fmt::Display>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let mut last = String::new();
    for _ in 0..20 {
        match attempt() {
            Ok(done) => return done,
            Err(error) => last = error.to_string(),
        }
    }
    panic!("{what} failed twenty times; at last: {last}");
}

fn restored_equals(backups: &Backups, database: &Database, directory: &Path) {
    let node = NewNode { name: "r", listen: "127.0.0.1:1", advertise: "127.0.0.1:1", membership: None };
    let options = RestoreOptions::default();
    let report = persevere("a restore", || backups.restore(&disk(), directory, node, &options, &mut go_on));
    let applied = database.engine().applied();
    assert_eq!((report.restored.txn_id, report.restored.digest), (applied.txn_id.0, applied.digest.0));
    let checked = check_directory(&disk(), directory, &mut |_| {}).expect("it can be checked");
    assert!(checked.is_clean(), "{:?}", checked.findings);
}

#[test]
fn backups_get_through_answers_that_fail_and_connections_that_break() {
    let mut seen = Vec::new();
    for seed in 0..4 {
        let temp = tempfile::tempdir().unwrap();
        let server = S3Server::start(seed);
        let mut options = BackupOptions::default();
        (options.part_bytes, options.chunk_bytes) = (7 << 20, 256 << 10);
        let backups = Backups::new(Arc::new(bucket(&server, "a")), options);
        let database = Database::open_with(disk(), &temp.path().join("db"), EngineOptions::default()).unwrap();
        database.write(|txn| txn.create_tree("t").map(|_| ())).unwrap();
        server.go_wrong(20);
        put_some(&database, 0);
        persevere("a full backup", || backups.full(database.engine(), &mut go_on));
        for round in 1..4 {
            put_some(&database, round);
            persevere("an increment", || backups.incremental(database.engine(), &mut go_on));
        }
        let report = persevere("a look at all of it", || backups.verify(&mut go_on));
        assert!(report.is_sound() && report.backups >= 2, "seed {seed}: {report:?}");
        restored_equals(&backups, &database, &temp.path().join("restored"));
        let (requests, wrong) = server.counts();
        println!("seed {seed}: {requests} requests, {} of them went wrong", wrong.len());
        seen.extend(wrong);
    }
    for way in [Wrong::Refused, Wrong::AnsweredWithError, Wrong::CutBefore, Wrong::CutAfter, Wrong::CutWithin] {
        assert!(seen.contains(&way), "{way:?} was never tried");
    }
}

#[test]
fn a_service_that_only_fails_is_an_error_that_names_it() {
    let server = S3Server::start(1);
    let patience = Patience { retries: 2, first_wait: Duration::from_millis(1) };
    let store = BucketStore::with(server.builder(), BUCKET, "a", patience).unwrap();
    server.go_wrong(100);
    let errors = [
        store.put("a/manifest", b"1").unwrap_err(),
        store.read("a/manifest", 0, 1).unwrap_err(),
        store.list("").map(|_| ()).unwrap_err(),
        store.create("a/part-000001").unwrap().finish().unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains(&server.endpoint()), "{error}");
    }
    server.go_wrong(0);
    let stranger = BucketStore::with(server.builder().with_secret_access_key("wrong"), BUCKET, "a", patience).unwrap();
    let refused = stranger.put("a/manifest", b"1").unwrap_err().to_string();
    assert!(refused.contains("403") || refused.to_lowercase().contains("signature"), "{refused}");
}
