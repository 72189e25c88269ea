//! The largest value there may be, beside small ones.

use std::sync::Arc;

use calamus_engine::btree::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use calamus_engine::env::{CrashChoice, SimDisk};
use calamus_engine::{BatchError, EngineOptions};
use calamus_tests::engine_driver::changes::put;
use calamus_tests::engine_driver::node::Node;
use calamus_tests::engine_driver::pair::Pair;
use calamus_tests::engine_driver::promise::Promise;
use calamus_tests::engine_driver::{Stop, disk, small_options};
use parking_lot::Mutex;

fn new_node(raft_id: u64, options: EngineOptions) -> Result<Node, Stop> {
    let sim = SimDisk::new(raft_id);
    let promise = Arc::new(Mutex::new(Promise::unborn()));
    Node::create(sim.clone(), Arc::new(sim), raft_id, options, promise)
}

fn stage(pair: &mut Pair, lengths: &[usize]) -> Result<(), Stop> {
    pair.leader().stage(&mut |batch, state| {
        let version = batch.begin_txn();
        batch.create_tree("t").map_err(disk("create tree"))?;
        state.trees.entry("t".into()).or_default();
        for (number, length) in (0..).zip(lengths) {
            put(batch, state, "t", number, vec![number as u8 + 1; *length], version)?;
        }
        batch.commit_txn();
        state.txn_id = version;
        Ok(())
    })?;
    Ok(())
}

fn life() -> Result<(), Stop> {
    let mut options = small_options();
    options.journal.segment_bytes = 24 << 20;
    options.version_bytes_limit = 64 << 20;
    let mut pair = Pair::new([new_node(1, options)?, new_node(2, options)?]);
    stage(&mut pair, &[10, MAX_VALUE_BYTES, 3_000])?;
    pair.send(true)?;
    pair.commit(1);
    pair.replicate(1)?;
    for node in 0..2 {
        pair.apply(node, 1)?;
        pair.power_cut(node, CrashChoice::LoseAll, None)?;
    }
    pair.elect(1)?;
    pair.apply(1, 1)?;
    // Shorter, and then gone: the file gives its space back.
    stage(&mut pair, &[10, 1, 3_000])?;
    pair.finish()
}

#[test]
fn eight_mebibytes_go_in_come_back_survive_a_power_cut_and_go() {
    life().unwrap_or_else(|stop| panic!("{stop}"));
}

#[test]
fn what_is_over_a_limit_is_refused_and_leaves_nothing() {
    let mut node = new_node(1, small_options()).expect("new");
    let changed = node.stage(&mut |batch, _| {
        batch.begin_txn();
        assert!(matches!(batch.put("t", b"k", b"v"), Err(BatchError::NoSuchTree(_))));
        let long = vec![1; MAX_KEY_BYTES + 1];
        assert!(matches!(batch.put("t", &long, b"v"), Err(BatchError::KeyLength(_))));
        assert!(matches!(batch.put("t", b"", b"v"), Err(BatchError::KeyLength(0))));
        let large = vec![1; MAX_VALUE_BYTES + 1];
        assert!(matches!(batch.put("t", b"k", &large), Err(BatchError::ValueLength(_))));
        assert!(matches!(batch.create_tree(&"n".repeat(256)), Err(BatchError::NameLength(256))));
        batch.commit_txn();
        Ok(())
    });
    assert!(!changed.expect("no failure"), "nothing changed");
    node.check().expect("as before");
}
