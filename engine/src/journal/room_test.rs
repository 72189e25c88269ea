//! What is said to be needed is never too little.

use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::env::SimDisk;
use crate::journal::format::MIN_SEGMENT_BYTES;
use crate::journal::journal_test::{EMPTY, done, end_of, frames_after, small};
use crate::journal::{Journal, JournalMode};

#[test]
fn no_more_segments_are_made_than_were_counted() {
    let mut exact = 0;
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = Arc::new(SimDisk::new(seed));
        let journal = Journal::create(disk, Path::new("/j"), EMPTY, small(JournalMode::Inline)).expect("create");
        let largest = if seed % 2 == 0 { 60_000 } else { 5_000 };
        let mut appended = 0;
        for _ in 0..20 {
            let lengths: Vec<usize> = (0..random.random_range(1..8)).map(|_| random.random_range(0..largest)).collect();
            let frames = frames_after(end_of(&journal), 1, &lengths);
            let bytes: u64 = frames.iter().map(|frame| frame.frame_bytes() as u64).sum();
            let (needed, before) = (journal.space_needed(bytes), journal.stats());
            let (callback, outcome) = done();
            journal.append(frames, callback).expect("append");
            outcome.recv().expect("the callback runs").expect("durable");
            let begun = journal.stats().segments - before.segments;
            let made = begun.saturating_sub(before.spares) as u64 * MIN_SEGMENT_BYTES;
            assert!(made <= needed, "seed {seed}: {lengths:?} took {made} bytes and {needed} were said");
            exact += u32::from(made == needed);
            appended += bytes;
            let behind = journal.bytes_behind(None);
            assert!(behind >= appended, "seed {seed}: {appended} bytes, and {behind} were said");
            assert_eq!(journal.bytes_behind(journal.last()), 0);
        }
    }
    assert!(exact > 100, "the bound is near: {exact} times of 800 it was what was taken");
}
