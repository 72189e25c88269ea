//! Random lives of a journal against a plain list of frames, with power cuts at random operations.
//!
//! `CALAMUS_CASES=10000 cargo test -p calamus-engine --release --lib journal::model` is the long run. A failure prints
//! the smallest case found and its seed.

use proptest::prelude::*;

use super::rig_test::{Op, Rig};
use crate::env::{CrashChoice, SimDisk};

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..300_usize, 3 => 300..9000_usize, 1 => 9000..50_000_usize]
}

fn change() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop::collection::vec(length(), 0..6).prop_map(Op::Append),
        1 => (0..9_usize).prop_map(Op::Cut),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => change(),
        3 => prop::collection::vec(change(), 1..6).prop_map(Op::Together),
        3 => (0..6_usize).prop_map(Op::Purge),
        1 => Just(Op::Attest),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Clone, Debug)]
struct Life {
    ops: Vec<Op>,
    /// Where in the operations of the disk the power goes, from 0 to 1.
    until: f64,
    left: Option<u64>,
}

fn life() -> impl Strategy<Value = Life> {
    (prop::collection::vec(op(), 1..16), 0.0..1.2_f64, prop::option::of(any::<u64>()))
        .prop_map(|(ops, until, left)| Life { ops, until, left })
}

fn cases() -> u32 {
    std::env::var("CALAMUS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_is_a_list_of_frames(lives in prop::collection::vec(life(), 1..4), seed in any::<u64>()) {
        let mut rig = Rig::create(SimDisk::new(seed));
        for life in lives {
            // About three operations of the disk for each of the journal.
            rig.disk.crash_after((life.until * 4.0 * life.ops.len() as f64) as u64);
            rig.run(&life.ops);
            let choice = life.left.map_or(CrashChoice::KeepAll, CrashChoice::Seeded);
            rig = rig.crash(choice).expect("it was created undisturbed");
        }
    }
}
