//! What watchers at the tip are told when there is nothing more to tell.

use std::path::Path;
use std::time::Duration;

use calamus_engine::env::SimDisk;
use calamus_engine::{Database, EngineOptions};

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

async fn ended(tip: &Tip) -> TipEnded {
    let mut reached = tip.reached();
    let found = tokio::time::timeout(LIMIT, reached.wait_for(|reached| reached.ended.is_some())).await;
    found.expect("it ends").expect("it is held").ended.clone().expect("waited for")
}

#[tokio::test]
async fn a_journal_that_fails_ends_the_tip_behind_what_was_read_and_the_next_watcher_gets_a_new_one() {
    let disk = SimDisk::new(1);
    let options = EngineOptions::default();
    let database = Database::open_with(Arc::new(disk.clone()), Path::new("/node"), options).unwrap();
    let shared = SharedTip::default();
    let first = next_of(database.engine());
    let tip = shared.hold(database.engine()).unwrap();
    database.write(|txn| txn.create_tree("t")).unwrap();
    // Of the segment that is written: the one behind it may be prepared at this moment, and fail without harm.
    disk.fail_next_sync_of(Path::new("00000000000000000001.seg"));
    database.write(|txn| txn.put("t", b"k", b"v")).unwrap_err();
    let TipEnded::Failed(why) = ended(&tip).await else { panic!("it has failed") };
    assert!(why.contains("injected"), "{why}");
    // What stays is told before that.
    let Look::Frames(frames) = tip.look(first, 1 << 20) else { panic!("a transaction was committed") };
    assert_eq!(frames.len(), 1);
    assert!(matches!(tip.look(first.next(), 1 << 20), Look::ToCome));
    let another = shared.hold(database.engine()).unwrap();
    assert!(!Arc::ptr_eq(&tip, &another), "one that has failed is of no use to anybody");
    assert!(matches!(ended(&another).await, TipEnded::Failed(_)));
}

#[tokio::test]
async fn an_engine_that_closes_ends_the_tip_without_a_failure() {
    let database =
        Database::open_with(Arc::new(SimDisk::new(1)), Path::new("/node"), EngineOptions::default()).unwrap();
    let shared = SharedTip::default();
    let tip = shared.hold(database.engine()).unwrap();
    assert!(Arc::ptr_eq(&tip, &shared.hold(database.engine()).unwrap()), "one thread for all");
    database.engine().close();
    assert_eq!(ended(&tip).await, TipEnded::Closed);
}
