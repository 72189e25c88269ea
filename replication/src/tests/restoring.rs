//! A directory that was restored from a backup, as the first node of a new cluster.

use std::ops::ControlFlow;
use std::sync::Arc;

use calamus_engine::backup::{BackupOptions, Backups, DirectoryStore, NewNode, RestoreOptions};
use calamus_engine::env::{Disk, RealDisk};

use super::cluster::{TestCluster, TestNode, retry};
use super::support;
use crate::membership;

/// What a server does with `--bootstrap` is done already; others join as they join any cluster, and get the restored pages.
#[test]
fn a_restored_directory_leads_a_cluster_of_its_own_and_others_join_it() {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let root = tempfile::tempdir().expect("a temporary directory");
    let store = Arc::new(DirectoryStore::new(disk.clone(), &root.path().join("backups")));
    let backups = Backups::new(store, BackupOptions::default());
    let old = TestCluster::start(2);
    for number in 0..50 {
        old.write(&format!("k{number}"), &[b'x'; 2_000]);
    }
    let source = old.nodes.iter().find(|node| node.leading().is_none()).expect("one follows");
    let mut go_on = |_| ControlFlow::Continue(());
    backups.full(source.engine(), &mut go_on).expect("a full one, of a follower");
    let last = old.write("last", b"of the old cluster");
    retry("the follower has it", || source.get("last"));
    backups.incremental(source.engine(), &mut go_on).expect("an increment");
    let old_identity = old.nodes[0].identity.clone();
    old.close();

    let mut applied = None;
    let restored = TestNode::in_directory(&root.path().join("restored"), |directory, address| {
        let node =
            NewNode { name: "r1", listen: address, advertise: address, membership: Some(&membership::of_node_alone) };
        let mut options = RestoreOptions::default();
        options.engine = support::options();
        let report = backups.restore(&disk, directory, node, &options, &mut go_on).expect("restored");
        assert_eq!(report.restored.txn_id, last.txn_id);
        applied = Some(report.applied);
    });
    assert_ne!(restored.identity.cluster_id, old_identity.cluster_id);
    let log_id = applied.expect("it was restored").log_id;
    assert_eq!(restored.engine().applied().log_id, log_id, "it has its first record before anybody leads");
    restored.on(restored.replica().bootstrap()).expect("that was done by the restore");
    let mut new = TestCluster::around(root, restored);
    let first = new.write("first", b"of the new cluster");
    assert!(first.txn_id > last.txn_id + 1, "behind the record of the fork");
    new.grow("r2", 902);
    assert_eq!(new.nodes[1].get("last").as_deref(), Some(&b"of the old cluster"[..]));
    assert_eq!(new.nodes[1].engine().timeline(), new.nodes[0].engine().timeline());
    new.write("second", b"with two voters");
    new.close();
}
