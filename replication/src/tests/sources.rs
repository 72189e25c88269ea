//! Whom a node is seeded from, and that another goes on where one was cut.

use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use calamus_engine::backup::{BackupOptions, Backups, DirectoryStore};
use calamus_engine::env::RealDisk;
use calamus_engine::ids::{LogId, LogIndex};
use calamus_proto::raft::v1 as wire;

use super::cluster::{TestCluster, TestNode, retry};
use super::replication::purge_past;
use super::support;
use crate::network::{convert, peers};
use crate::options::NodeConfig;
use crate::seam::{Consensus, Leadership};
use crate::seeding::SeedFrom;
use crate::seeding::archive::SeedArchive;
use crate::types::RaftVote;

/// Slow enough that a seeding of [`filled`] takes seconds, so that things can happen meanwhile.
const SLOW: u64 = 8 << 20;

/// A cluster with some MiB of data, and a node of it that does not run and is to be seeded.
fn filled(count: u64, config: &NodeConfig) -> (TestCluster, usize) {
    let mut cluster = TestCluster::start_with(count, config);
    for number in 0..320 {
        cluster.write(&format!("large{number}"), &[b'x'; 64 << 10]);
    }
    let behind = (cluster.leader_index() + 1) % cluster.nodes.len();
    let last = cluster.nodes[behind].engine().log_state().last.expect("a log").index.0;
    cluster.nodes[behind].kill();
    purge_all_past(&cluster, behind, last);
    (cluster, behind)
}

/// Writes and checkpoints until no node but `behind` has the frames up to `index`: whoever leads, and whoever is asked.
fn purge_all_past(cluster: &TestCluster, behind: usize, index: u64) {
    purge_past(cluster, index);
    for (_, node) in cluster.nodes.iter().enumerate().filter(|(number, _)| *number != behind) {
        retry("the others purge, too", || {
            node.engine().checkpoint().expect("works");
            // What is noted as purged goes with a checkpoint.
            let frame = node.engine().read_frames(LogIndex(index), LogIndex(index + 1), 1);
            frame.is_err().then_some(())
        });
    }
}

fn slow(count: u64) -> (TestCluster, usize) {
    filled(count, &NodeConfig { seed_bytes_per_second: SLOW, ..NodeConfig::default() })
}

/// Waits until a part of the pages has come. Returns whom they come from.
fn a_part_has_come(cluster: &TestCluster, node: usize) -> String {
    retry("a part of the pages has come", || {
        let replica = cluster.nodes[node].replica();
        let (received, total) = replica.seeding_progress()?;
        (total > 0 && received > total / 4).then(|| replica.seeding_source())?
    })
}

fn is_seeded(cluster: &TestCluster, node: usize) {
    retry("the node is seeded", || (cluster.nodes[node].engine().status().generation.0 > 1).then_some(()));
}

fn index_of(cluster: &TestCluster, name: &str) -> usize {
    cluster.nodes.iter().position(|node| node.identity.name == name).expect("a node of this name")
}

#[test]
fn a_follower_is_the_source_and_when_it_dies_another_goes_on() {
    let (mut cluster, behind) = slow(5);
    cluster.nodes[behind].restart();
    let source = index_of(&cluster, &a_part_has_come(&cluster, behind));
    assert_ne!(source, cluster.leader_index(), "a follower spares the leader");
    cluster.nodes[source].kill();
    let mut number = 0;
    retry("the node is seeded", || {
        cluster.write(&format!("meanwhile{}", number % 7), format!("{number}").as_bytes());
        number += 1;
        (cluster.nodes[behind].engine().status().generation.0 > 1).then_some(())
    });
    let replica = cluster.nodes[behind].replica();
    assert_eq!(replica.seedings_begun(), 1, "pages were sent twice");
    assert!(replica.seedings_resumed() > 0);
    cluster.nodes[source].restart();
    cluster.close();
}

#[test]
fn what_was_received_goes_on_under_the_next_leader() {
    let (mut cluster, behind) = slow(5);
    cluster.nodes[behind].restart();
    a_part_has_come(&cluster, behind);
    let leader = cluster.leader_index();
    cluster.nodes[leader].kill();
    is_seeded(&cluster, behind);
    let replica = cluster.nodes[behind].replica();
    assert_eq!(replica.seedings_begun(), 1, "pages were sent twice");
    assert!(replica.seedings_resumed() > 0, "the leader's end was not noticed, so this proves nothing");
    cluster.nodes[leader].restart();
    cluster.close();
}

#[test]
fn what_nobody_goes_on_with_goes_after_a_while() {
    let config =
        NodeConfig { seed_bytes_per_second: SLOW, seed_keep: Duration::from_millis(200), ..NodeConfig::default() };
    let (mut cluster, behind) = filled(3, &config);
    cluster.nodes[behind].restart();
    a_part_has_come(&cluster, behind);
    let home = cluster.nodes[behind].directory.join("g2");
    assert!(home.exists());
    let others: Vec<usize> = (0..3).filter(|node| *node != behind).collect();
    others.iter().for_each(|node| cluster.nodes[*node].kill());
    retry("the space is free again", || (!home.exists()).then_some(()));
    assert!(cluster.nodes[behind].engine().seed_receiver().is_ok(), "the next seeding can begin");
    others.iter().for_each(|node| cluster.nodes[*node].restart());
    is_seeded(&cluster, behind);
    cluster.close();
}

#[test]
fn the_operator_chooses_the_source_even_in_the_middle() {
    let (mut cluster, behind) = slow(3);
    cluster.nodes[behind].restart();
    let first = a_part_has_come(&cluster, behind);
    let leader = cluster.nodes[cluster.leader_index()].identity.name.clone();
    assert_ne!(first, leader);
    let fulfilled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&fulfilled);
    let on_seeded = move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    cluster.nodes[behind].replica().seed_from(SeedFrom::Leader, Box::new(on_seeded));
    retry("it comes from the leader", || {
        (cluster.nodes[behind].replica().seeding_source().as_ref() == Some(&leader)).then_some(())
    });
    is_seeded(&cluster, behind);
    retry("the wish is fulfilled", || (fulfilled.load(Ordering::Relaxed) == 1).then_some(()));
    assert_eq!(cluster.nodes[behind].replica().seedings_begun(), 1, "pages were sent twice");
    cluster.close();
}

/// Seeds a node from backups, of which the last is made before or after the other nodes purge the frames behind it.
fn seed_from_backups(purged: bool) {
    let (mut cluster, behind) = filled(3, &NodeConfig::default());
    let store = DirectoryStore::new(Arc::new(RealDisk::new()), &cluster.root.path().join("backups"));
    let backups = Backups::new(Arc::new(store), BackupOptions::default());
    let mut go_on = |_| ControlFlow::Continue(());
    backups.full(cluster.leader().engine(), &mut go_on).expect("works");
    cluster.write("between", b"x");
    backups.incremental(cluster.leader().engine(), &mut go_on).expect("works");
    if purged {
        let end = cluster.leader().engine().applied().log_id.expect("not empty").index.0;
        purge_all_past(&cluster, behind, end);
    }
    cluster.write("behind", b"x");
    let served = |cluster: &TestCluster| -> u64 {
        let others = cluster.nodes.iter().enumerate().filter(|(node, _)| *node != behind);
        others.map(|(_, node)| node.replica().seedings_served()).sum()
    };
    let before = served(&cluster);
    let archive = SeedArchive::new("backups", backups, cluster.leader().engine());
    cluster.nodes[behind].wish = SeedFrom::Archive(Arc::new(archive));
    cluster.nodes[behind].restart();
    is_seeded(&cluster, behind);
    assert_eq!(cluster.nodes[behind].replica().seedings_begun(), u64::from(purged), "pages of other nodes");
    assert!(served(&cluster) > before, "the frames behind the backups come from a node");
    cluster.close();
}

#[test]
fn a_node_is_seeded_from_backups_and_goes_on_from_a_node() {
    seed_from_backups(false);
}

#[test]
fn backups_that_no_journal_reaches_back_to_are_passed_over() {
    seed_from_backups(true);
}

/// Tells `node` to seed itself, as the leader of `vote` would.
fn instruct(cluster: &TestCluster, node: &TestNode, vote: &RaftVote, at_least: LogId) {
    let first = &cluster.nodes[0];
    let request = wire::InstallSnapshotRequest {
        envelope: Some(convert::envelope(support::CLUSTER, first.identity.raft_id, node.identity.raft_id)),
        vote: Some(convert::vote_to_wire(vote)),
        at_least: Some(convert::plain_log_id_to_wire(at_least)),
        sources: vec![wire::SeedSource {
            raft_id: first.identity.raft_id.0,
            name: first.identity.name.clone(),
            address: first.identity.advertise.clone(),
        }],
    };
    first.on(async {
        let mut client = peers::client_at(&node.identity.advertise, Duration::from_secs(1)).expect("an address");
        let mut answers = client.install_snapshot(request).await.expect("taken").into_inner();
        while let Ok(Some(_)) = answers.message().await {}
    });
}

/// What comes may be of a later term than the leader whose instruction it is; openraft would end of that.
#[test]
fn entries_of_a_later_term_wait_for_its_leader() {
    let mut cluster = TestCluster::start(1);
    cluster.write("before", b"x");
    let at_least = cluster.nodes[0].engine().applied().log_id.expect("some");
    let old = cluster.nodes[0].replica().core().metrics().vote;
    cluster.nodes[0].kill();
    cluster.nodes[0].restart();
    cluster.write("after", b"x");
    let now = cluster.nodes[0].replica().core().metrics().vote;
    assert!(now > old);
    let new = TestNode::create(cluster.root.path(), "n9", 109, &NodeConfig::default());
    instruct(&cluster, &new, &old, at_least);
    assert_eq!(new.engine().status().generation.0, 1, "it was switched in under the wrong leader");
    assert!(!matches!(*new.replica().leadership().borrow(), Leadership::Stopped { .. }));
    instruct(&cluster, &new, &now, at_least);
    retry("it is seeded", || (new.engine().status().generation.0 == 2).then_some(()));
    assert_eq!(new.replica().seedings_begun(), 1, "what was received before is of use");
    assert_eq!(new.engine().applied().digest, cluster.nodes[0].engine().applied().digest);
    cluster.close();
}

/// A page that rotted on the source that is named first: what it sends is of no use, and another source is asked.
#[test]
fn a_source_with_a_damaged_page_is_in_nobodys_way() {
    let (mut cluster, behind) = filled(3, &NodeConfig::default());
    let leader = cluster.leader_index();
    let source = 3 - leader - behind;
    let generation = cluster.nodes[source].engine().status().generation.0;
    let path = cluster.nodes[source].directory.join(format!("g{generation}/data"));
    let page = |offset: u64| 1_000 * 8_192 + offset;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("a file");
    let mut sound = [0; 64];
    file.read_exact_at(&mut sound, page(4_096)).expect("there is such a page");
    file.write_all_at(&[0xee; 64], page(4_096)).expect("written");
    cluster.nodes[behind].restart();
    is_seeded(&cluster, behind);
    assert!(cluster.nodes[behind].replica().seedings_begun() > 1, "the page was of no consequence");
    file.write_all_at(&sound, page(4_096)).expect("written");
    cluster.close();
}

/// A source whose disk hangs under a process that answers.
#[test]
fn a_source_that_hangs_is_in_nobodys_way() {
    let stall = Duration::from_secs(2);
    let config = NodeConfig { seed_bytes_per_second: SLOW, seed_stall_limit: stall, ..NodeConfig::default() };
    let (mut cluster, behind) = filled(3, &config);
    cluster.nodes[behind].restart();
    let source = index_of(&cluster, &a_part_has_come(&cluster, behind));
    let data = cluster.nodes[source].directory.join("g1/data");
    cluster.nodes[source].disk.hang_reads(Some(&data));
    is_seeded(&cluster, behind);
    assert_eq!(cluster.nodes[behind].replica().seedings_begun(), 1, "pages were sent twice");
    cluster.nodes[source].disk.hang_reads(None);
    cluster.close();
}

/// Two at once, from whoever is named for each; nobody waits for the other.
#[test]
fn several_nodes_are_seeded_at_once() {
    let (mut cluster, first) = slow(5);
    let leader = cluster.leader_index();
    let second = (0..5).find(|node| *node != first && *node != leader).expect("there are five");
    let last = cluster.nodes[second].engine().log_state().last.expect("a log").index.0;
    cluster.nodes[second].kill();
    purge_past(&cluster, last);
    for (number, node) in cluster.nodes.iter().enumerate().filter(|(number, _)| ![first, second].contains(number)) {
        retry(&format!("node {number} purges, too"), || {
            node.engine().checkpoint().expect("works");
            node.engine().read_frames(LogIndex(last), LogIndex(last + 1), 1).is_err().then_some(())
        });
    }
    for node in [first, second] {
        cluster.nodes[node].restart();
    }
    retry("both are being seeded", || {
        let runs = |node: usize| cluster.nodes[node].replica().seeding_progress().is_some();
        (runs(first) && runs(second)).then_some(())
    });
    for node in [first, second] {
        is_seeded(&cluster, node);
        assert_eq!(cluster.nodes[node].replica().seedings_begun(), 1);
    }
    cluster.close();
}

/// A leader that stands still says nothing, and closes nothing. What was received under it goes on under the next one, and
/// the operator's wish is fulfilled when the node was seeded, not before.
#[test]
fn a_leader_that_stands_still_takes_nothing_along() {
    let config = NodeConfig { seed_bytes_per_second: SLOW / 2, ..NodeConfig::default() };
    let (mut cluster, behind) = filled(3, &config);
    cluster.nodes[behind].restart();
    let source = index_of(&cluster, &a_part_has_come(&cluster, behind));
    let leader = cluster.leader_index();
    assert_ne!(source, leader);
    let fulfilled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&fulfilled);
    let on_seeded = move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    cluster.nodes[behind].replica().seed_from(SeedFrom::Any, Box::new(on_seeded));
    let before = cluster.nodes[behind].replica().core().metrics().vote;
    // Its one thread.
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    cluster.nodes[leader].spawn(async move { wait.recv() });
    retry("the node is seeded", || {
        let early = fulfilled.load(Ordering::Relaxed) > 0;
        let seeded = cluster.nodes[behind].engine().status().generation.0 > 1;
        assert!(!early || seeded, "the wish was fulfilled, and nothing was seeded");
        seeded.then_some(())
    });
    assert_eq!(cluster.nodes[behind].replica().seedings_begun(), 1, "pages were sent twice");
    let after = cluster.nodes[behind].replica().core().metrics().vote;
    assert!(after > before, "nobody else led, so this proves nothing");
    drop(go_on);
    cluster.close();
}
