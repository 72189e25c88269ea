//! What a node is, and does, while and after it is seeded.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calamus_engine::Engine;
use calamus_engine::env::{LosingDisk, RealDisk};
use calamus_engine::ids::{LogId, LogIndex};
use calamus_engine::journal::frame::{Frame, FrameKind};
use calamus_engine::seed::{SeedChunk, SeedError};
use openraft::storage::RaftStateMachine;
use tokio::sync::watch;

use super::cluster::{TREE, TestCluster, retry};
use super::replication::{purge_past, write_range};
use super::support;
use crate::core::Standing;
use crate::log_store::SwitchGate;
use crate::network::convert::to_log_id;
use crate::options::NodeConfig;
use crate::seeding::Seeded;
use crate::state_machine::{StateMachine, StopReason, Ticket, meta_of};

fn engine(root: &Path, name: &str) -> Engine {
    support::create(Arc::new(RealDisk::new()), &root.join(name), &support::identity(1, name, "nowhere:1"))
}

fn append(engine: &Engine, frames: Vec<Frame>) {
    let (done, durable) = std::sync::mpsc::channel();
    engine.append(frames, Box::new(move |result| drop(done.send(result)))).expect("the journal takes frames");
    durable.recv().expect("called").expect("durable");
}

/// Executes, appends and applies one put.
fn commit(engine: &Engine, number: u64) {
    let mut batch = engine.begin_batch().expect("a batch");
    batch.begin_txn();
    batch.create_tree(TREE).expect("works");
    batch.put(TREE, &number.to_be_bytes(), &[7; 3000]).expect("fits");
    batch.commit_txn();
    let staged = batch.seal(number).expect("sealed").expect("changed");
    let index = engine.log_state().last.map_or(0, |last| last.index.0 + 1);
    let frame = Frame::encode(FrameKind::Record, LogId::new(1, index), None, engine.last_chain(), staged.payload);
    append(engine, vec![frame.clone()]);
    engine.apply(&frame).expect("its own");
}

/// Seeds `target` from `source`, which finishes a checkpoint while its pages are copied.
fn seed_over_a_checkpoint(source: &Engine, target: &Engine) -> Seeded {
    let mut stream = source.seed_source(u64::MAX).expect("a source");
    let mut receiver = target.seed_receiver().expect("a receiver");
    receiver.feed(stream.next(64 << 10).expect("readable").expect("a manifest")).expect("right");
    commit(source, 1000);
    source.checkpoint().expect("works");
    while let Some(chunk) = stream.next(64 << 10).expect("readable") {
        receiver.feed(chunk).expect("right");
    }
    let verified = receiver.verify().expect("right");
    let meta = meta_of(&verified.applied()).expect("no membership");
    Seeded { verified, meta, bytes: 0 }
}

/// Where a stream of `engine` ends.
fn end_of_stream(engine: &Engine) -> Option<LogId> {
    let mut stream = engine.seed_source(u64::MAX).expect("a source").frames_beside();
    let chunks = std::iter::from_fn(|| stream.next(64 << 10).expect("readable"));
    chunks.last().and_then(|chunk| match chunk {
        SeedChunk::Done { last, .. } => last,
        other => panic!("{other:?} at the end"),
    })
}

/// Installs a seeding that ends above its checkpoint, on a node whose journal holds its end or not, and looks what the
/// node offers then.
async fn offers_what_it_installed(held: bool) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (source, target) = (engine(root.path(), "source"), engine(root.path(), "target"));
    (0..5).for_each(|number| commit(&source, number));
    source.checkpoint().expect("works");
    let seeded = seed_over_a_checkpoint(&source, &target);
    let end = to_log_id(&seeded.meta.last_log_id.expect("not empty"));
    if held {
        append(&target, source.read_frames(LogIndex(0), end.index.next(), usize::MAX).expect("kept"));
    }
    let applied = watch::Sender::new(None);
    let mut machine = StateMachine::new(target.clone(), applied, SwitchGate::default(), StopReason::default());
    let meta = seeded.meta.clone();
    machine.install_snapshot(&meta, Ticket::Seeded(Box::new(seeded))).await.expect("installed");
    assert_eq!(target.applied().log_id, Some(end));
    let checkpointed = target.checkpointed().log_id;
    assert!(checkpointed.is_none_or(|checkpointed| checkpointed.index < end.index), "{checkpointed:?} reaches {end}");
    // openraft has purged up to `end`.
    let current = machine.get_current_snapshot().await.expect("readable").expect("there");
    assert_eq!(current.meta, meta, "less is offered than was purged");
    assert!(end_of_stream(&target) >= Some(end), "a seeding would end too early");
    // A later checkpoint is the newer one.
    commit(&target, 2000);
    target.checkpoint().expect("works");
    let current = machine.get_current_snapshot().await.expect("readable").expect("there");
    assert_eq!(current.meta, meta_of(&target.checkpointed()).expect("no membership"));
}

#[tokio::test]
async fn a_seeded_node_offers_at_least_what_it_has_purged() {
    offers_what_it_installed(false).await;
}

#[tokio::test]
async fn so_does_one_that_held_the_end_of_its_seeding() {
    offers_what_it_installed(true).await;
}

/// Kills `node`, purges the log past its end, and seeds it while writes and checkpoints go on. Returns whether the
/// seeding ended above the checkpoint that it stands on.
fn seed_under_load(cluster: &mut TestCluster, node: usize) -> bool {
    let engine = cluster.nodes[node].engine();
    let (last, generation) = (engine.log_state().last.expect("a log").index.0, engine.status().generation);
    cluster.nodes[node].kill();
    purge_past(cluster, last);
    cluster.nodes[node].restart();
    let mut number = 0;
    retry("the node is seeded", || {
        cluster.write(&format!("load{}", number % 7), format!("{number}").as_bytes());
        cluster.leader().engine().checkpoint().expect("works");
        number += 1;
        (cluster.nodes[node].engine().status().generation > generation).then_some(())
    });
    let checkpointed = cluster.nodes[node].engine().checkpointed().log_id;
    let declared = retry("it is installed", || cluster.nodes[node].replica().core().declared_snapshot());
    checkpointed.is_none_or(|checkpointed| checkpointed.index < declared.index)
}

#[test]
fn a_seeded_node_that_leads_seeds_the_next() {
    let mut cluster = TestCluster::start(5);
    // More than fits between the two ends of a seeding, so that its pages are copied for a while.
    for number in 0..320 {
        cluster.write(&format!("large{number}"), &[b'x'; 64 << 10]);
    }
    let leader = cluster.leader_index();
    let (seeded, lagging) = ((leader + 1) % 5, (leader + 2) % 5);
    cluster.nodes[lagging].kill();
    let above = (0..20).any(|_| seed_under_load(&mut cluster, seeded));
    assert!(above, "no checkpoint finished while pages were copied");
    let name = cluster.nodes[seeded].identity.name.clone();
    retry("the seeded node leads", || {
        let leader = cluster.leader();
        drop(leader.on(leader.replica().transfer(&name)));
        cluster.nodes[seeded].leading()
    });
    cluster.nodes[lagging].restart();
    let end = cluster.nodes[seeded].engine().applied().log_id;
    retry("the lagging one catches up", || (cluster.nodes[lagging].engine().applied().log_id >= end).then_some(()));
    cluster.close();
}

const STALL: Duration = Duration::from_millis(500);

/// A cluster of three with a node that is to be seeded, behind a disk that has `trouble` where the new generation will
/// be. Returns that node.
fn seeded_behind(trouble: impl FnOnce(&LosingDisk, &Path)) -> (TestCluster, usize) {
    let mut cluster = TestCluster::start_with(3, &NodeConfig { seed_stall_limit: STALL, ..NodeConfig::default() });
    write_range(&cluster, 0..10);
    cluster.assert_equal();
    let behind = (cluster.leader_index() + 1) % 3;
    let last = cluster.nodes[behind].engine().log_state().last.expect("a log").index.0;
    cluster.nodes[behind].kill();
    purge_past(&cluster, last);
    let disk = LosingDisk::new();
    trouble(&disk, &cluster.nodes[behind].directory.join("g2"));
    cluster.nodes[behind].restart_behind(disk);
    (cluster, behind)
}

#[test]
fn a_leader_waits_for_a_verification_that_takes_long() {
    let (cluster, behind) = seeded_behind(|disk, home| disk.delay_reads(home, STALL / 20));
    let started = Instant::now();
    let node = &cluster.nodes[behind];
    retry("the node is seeded", || (node.engine().status().generation.0 == 2).then_some(()));
    assert!(started.elapsed() > STALL * 3, "it took {:?}, so this proves nothing", started.elapsed());
    assert_eq!(node.replica().seedings_begun(), 1, "it was given up and begun again");
    cluster.write("after", b"x");
    cluster.close();
}

#[test]
fn a_voter_that_verifies_its_seeding_votes() {
    let (mut cluster, behind) = seeded_behind(|disk, home| disk.hang_reads(Some(home)));
    retry("it verifies", || (cluster.nodes[behind].disk.reads_hanging() > 0).then_some(()));
    let lost = cluster.leader_index();
    cluster.nodes[lost].kill();
    let third = 3 - lost - behind;
    retry("the third node is elected, with the vote of the one that verifies", || {
        matches!(cluster.nodes[third].replica().core().standing(), Standing::Elected { .. }).then_some(())
    });
    assert!(cluster.nodes[behind].disk.reads_hanging() > 0, "it did not verify any more");
    // Whose instruction it was is gone; the engine's one receiver is not free before it has ended.
    let another = cluster.nodes[behind].engine().seed_receiver();
    assert!(matches!(another, Err(SeedError::Busy)), "another seeding might begin beside it");
    cluster.nodes[behind].disk.hang_reads(None);
    cluster.nodes[lost].restart();
    write_range(&cluster, 3000..3005);
    cluster.close();
}
