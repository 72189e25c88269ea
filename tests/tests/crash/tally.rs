//! What was tried: each disk once with each promise, counted by step.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use parking_lot::Mutex;

/// Of one step.
#[derive(Clone, Copy, Default)]
struct Count {
    boundaries: u64,
    tried: u64,
    distinct: u64,
}

#[derive(Default)]
struct Counts {
    steps: BTreeMap<&'static str, Count>,
    tried: HashSet<(u128, u128)>,
    images: HashSet<u128>,
    again: u64,
}

/// Shared by all who try.
#[derive(Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    /// A moment at which the power may go, within a step.
    pub fn boundary(&self, step: &'static str) {
        self.0.lock().steps.entry(step).or_default().boundaries += 1;
    }

    /// Whether a disk was not tried with this promise yet. It counts as tried from here on.
    pub fn is_new(&self, step: &'static str, image: u128, promise: u128) -> bool {
        let mut counts = self.0.lock();
        let counts = &mut *counts;
        if !counts.tried.insert((image, promise)) {
            counts.again += 1;
            return false;
        }
        let count = counts.steps.entry(step).or_default();
        count.tried += 1;
        count.distinct += u64::from(counts.images.insert(image));
        true
    }

    /// How many were tried.
    pub fn tried(&self) -> u64 {
        self.0.lock().tried.len() as u64
    }

    /// A table for people, and for `docs/testing.md`.
    pub fn table(&self) -> String {
        let counts = self.0.lock();
        let mut table = String::from("| step | moments | disks tried | distinct |\n| --- | ---: | ---: | ---: |\n");
        let mut all = Count::default();
        for (step, count) in &counts.steps {
            let Count { boundaries, tried, distinct } = count;
            writeln!(table, "| {step} | {boundaries} | {tried} | {distinct} |").expect("memory");
            all.boundaries += boundaries;
            all.tried += tried;
            all.distinct += distinct;
        }
        writeln!(table, "| all | {} | {} | {} |", all.boundaries, all.tried, all.distinct).expect("memory");
        writeln!(table, "{} more were the same disk with the same promise as one before, and left out", counts.again)
            .expect("memory");
        table
    }
}

#[test]
fn the_same_disk_counts_again_only_with_another_promise() {
    let tally = Tally::default();
    assert!(tally.is_new("a", 1, 1) && tally.is_new("b", 1, 2) && !tally.is_new("b", 1, 1));
    assert_eq!(tally.tried(), 2);
    assert!(tally.table().contains("| all | 0 | 2 | 1 |"), "{}", tally.table());
}
