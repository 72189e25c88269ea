//! The registry under many threads: whatever they do when, a snapshot in use is never judged unneeded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use super::readers::{Readers, Registration};
use crate::ids::TxnId;

const STATES: u64 = 400;

/// What a store would do with what the registry says, reduced to two facts.
struct World {
    readers: Readers<u64>,
    /// Whether versions that only this snapshot sees were dropped.
    dropped: Vec<AtomicBool>,
    /// The snapshot that the data file has: nobody may need an older one.
    written: AtomicU64,
    ended: AtomicBool,
}

impl World {
    fn assert_whole(&self, snapshot: &Registration<u64>) {
        let shown = **snapshot.state();
        assert_eq!(shown, snapshot.txn_id().0);
        assert!(!self.dropped[shown as usize].load(Ordering::SeqCst), "snapshot {shown} is open, and was dropped");
        let written = self.written.load(Ordering::SeqCst);
        assert!(written <= shown, "snapshot {shown} is open, and the file has {written}");
    }

    /// Publishes every state, and drops what is not in use of those before.
    fn publish_all(&self) {
        for state in 1..STATES {
            let in_use = self.readers.publish(TxnId(state), Arc::new(state));
            assert!(in_use.is_sorted());
            for old in state.saturating_sub(50)..state {
                if !in_use.contains(&TxnId(old)) {
                    self.dropped[old as usize].store(true, Ordering::SeqCst);
                }
            }
            std::thread::yield_now();
        }
        self.ended.store(true, Ordering::SeqCst);
    }

    fn checkpoint_all(&self) {
        while !self.ended.load(Ordering::SeqCst) {
            let Some(target) = self.readers.open_for_checkpoint() else { panic!("nobody expires anybody") };
            self.assert_whole(&target);
            self.written.fetch_max(target.txn_id().0, Ordering::SeqCst);
            std::thread::yield_now();
        }
    }

    /// Opens and drops readers, holds a few for longer, and hands copies of some to another thread.
    fn read_all(&self, hand_over: &mpsc::SyncSender<Registration<u64>>) {
        let mut held: Vec<Registration<u64>> = Vec::new();
        let mut last = 0;
        for round in 0_u64.. {
            if self.ended.load(Ordering::SeqCst) {
                break;
            }
            let snapshot = self.readers.open();
            assert!(snapshot.txn_id().0 >= last, "a thread never sees an older state than before");
            last = snapshot.txn_id().0;
            self.assert_whole(&snapshot);
            if round.is_multiple_of(7) {
                // Nobody takes it where the queue is full: then it is dropped here.
                let _ = hand_over.try_send(snapshot.clone());
            }
            if round.is_multiple_of(5) {
                held.push(snapshot);
            }
            held.iter().for_each(|snapshot| self.assert_whole(snapshot));
            if held.len() > 6 {
                held.drain(..4);
            }
        }
    }
}

#[test]
fn no_snapshot_in_use_is_ever_judged_unneeded() {
    let world = World {
        readers: Readers::new(TxnId(0), Arc::new(0)),
        dropped: (0..STATES).map(|_| AtomicBool::new(false)).collect(),
        written: AtomicU64::new(0),
        ended: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let (hand_over, taken) = mpsc::sync_channel(8);
        for _ in 0..3 {
            let hand_over = hand_over.clone();
            let world = &world;
            scope.spawn(move || world.read_all(&hand_over));
        }
        drop(hand_over);
        scope.spawn(|| world.checkpoint_all());
        scope.spawn(|| {
            for snapshot in taken {
                world.assert_whole(&snapshot);
            }
        });
        world.publish_all();
    });
    assert_eq!(world.readers.count(), 0);
    assert!(world.readers.oldest().is_none());
    assert_eq!(*world.readers.newest(), STATES - 1);
}

#[test]
fn a_copy_of_an_expired_reader_is_expired() {
    let readers = Readers::new(TxnId(1), Arc::new(()));
    let old = readers.open();
    readers.publish(TxnId(2), Arc::new(()));
    let copied_before = old.clone();
    assert_eq!(readers.expire_in_the_way(TxnId(1)).len(), 2);
    assert!(copied_before.is_expired() && old.clone().is_expired());
    drop((old, copied_before));
    assert!(!readers.open().is_expired(), "a seat that was expired is as new for the next");
    assert_eq!(readers.count(), 0);
}

#[test]
fn readers_of_one_txn_id_have_the_state_that_they_opened() {
    // An entry of the log that changes nothing is published under the txn id before it.
    let readers = Readers::new(TxnId(1), Arc::new('a'));
    let first = readers.open();
    readers.publish(TxnId(1), Arc::new('b'));
    let second = readers.open();
    assert_eq!((**first.state(), **second.state()), ('a', 'b'));
    assert_eq!(readers.checkpoint_snapshot().map(|state| *state), Some('a'));
    drop(first);
    assert_eq!(readers.checkpoint_snapshot().map(|state| *state), Some('b'));
}

#[test]
fn a_reader_may_be_dropped_by_another_thread() {
    let readers = Readers::new(TxnId(1), Arc::new(()));
    let snapshots: Vec<_> = (0..40).map(|_| readers.open()).collect();
    assert_eq!(readers.count(), 40);
    assert_eq!(readers.oldest().expect("forty").place.file(), file!());
    std::thread::scope(|scope| {
        scope.spawn(move || drop(snapshots));
    });
    assert_eq!(readers.count(), 0);
}
