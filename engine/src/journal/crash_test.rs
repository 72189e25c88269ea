//! The power goes at every single operation of a journal's life.

use super::rig_test::{Op, Rig};
use crate::env::{CrashChoice, SimDisk};

/// A life with everything in it: groups of several frames and of one, segments begun, left, cut away, purged, recycled;
/// cuts within a group, at its start, at a segment's start, of everything; attests; jobs that wait together.
fn life() -> Vec<Op> {
    let append = |length: usize, count: usize| Op::Append(vec![length; count]);
    vec![
        append(0, 1),
        Op::Append(vec![10, 4000, 500, 1]),
        Op::Attest,
        Op::Cut(2),
        append(9000, 5),
        append(9000, 3),
        Op::Attest,
        append(100, 2),
        Op::Cut(6),
        append(300, 3),
        Op::Cut(0),
        Op::Together(vec![append(700, 2), append(9000, 1), Op::Cut(2), append(50, 4), append(60, 1)]),
        Op::Together(vec![append(20_000, 4), Op::Cut(1), Op::Cut(2), append(30_000, 1)]),
        append(30_000, 2),
        Op::Purge(3),
        append(30_000, 1),
        Op::Reopen,
        append(30_000, 2),
        Op::Purge(2),
        append(100, 3),
        append(30_000, 2),
        Op::Cut(3),
        Op::Cut(1),
        append(5000, 3),
        Op::Attest,
        Op::Reopen,
        append(60_000, 1),
        Op::Cut(1),
        append(60_000, 1),
        Op::Cut(100),
        append(33, 2),
    ]
}

fn choices() -> impl Iterator<Item = CrashChoice> {
    [CrashChoice::LoseAll, CrashChoice::KeepAll].into_iter().chain((0..6).map(CrashChoice::Seeded))
}

/// The number of operations of an undisturbed life.
fn operations() -> u64 {
    let mut rig = Rig::create(SimDisk::new(1));
    assert!(rig.run(&life()), "undisturbed");
    rig.disk.operation_count()
}

#[test]
fn nothing_promised_is_lost_and_nothing_cut_comes_back() {
    let operations = operations();
    assert!(operations > 100, "only {operations} operations");
    for boundary in 0..=operations {
        let disk = SimDisk::new(boundary);
        disk.crash_after(boundary);
        let mut rig = Rig::create(disk);
        let survived = rig.run(&life());
        assert!(!survived || boundary == operations, "boundary {boundary}");
        for choice in choices() {
            let context = format!("the power went after operation {boundary} of {operations}, {choice:?}");
            let _context = OnPanic(&context);
            let Some(mut after) = rig.crash(choice) else { continue };
            // It goes on, in a term of its own, through another life's worth of trouble.
            let more = [Op::Append(vec![77, 8000]), Op::Cut(1), Op::Append(vec![9, 9, 9]), Op::Reopen];
            assert!(after.run(&more));
            let mut again = after.crash(CrashChoice::LoseAll).expect("there is one");
            assert!(again.run(&[Op::Append(vec![1])]));
        }
    }
}

/// A frame is cut away, durably; another of the same index and length is written over it, and of that write only the block
/// reaches the disk. The block is sound, and so is the frame behind it: it is of the right index, and follows the frame
/// before. But it is the one that was cut.
#[test]
fn a_cut_frame_does_not_come_back_under_the_block_of_another() {
    let append = |length| Op::Append(vec![length]);
    // The first frame ends at 384 of a sector: behind a cut block there a group's block ends the sector.
    let life = [append(240), append(100), Op::Cut(1), append(100), Op::Cut(1), append(100)];
    let mut rig = Rig::create(SimDisk::new(1));
    assert!(rig.run(&life));
    let operations = rig.disk.operation_count();
    for seed in 0..300 {
        let disk = SimDisk::new(1);
        disk.crash_after(operations - 1);
        let mut rig = Rig::create(disk);
        assert!(!rig.run(&life), "the last sync is not done");
        let context = format!("seed {seed}");
        let _context = OnPanic(&context);
        rig.crash(CrashChoice::Seeded(seed)).expect("there is one");
    }
}

/// What the first opening after a kill finds it reports as durable: then it must be, when the power goes.
#[test]
fn kills_and_then_a_power_cut() {
    let operations = operations();
    for boundary in 0..=operations {
        for failed_syncs in [false, true] {
            let disk = SimDisk::new(boundary);
            disk.crash_after(boundary);
            let mut rig = Rig::create(disk);
            rig.run(&life());
            for choice in [CrashChoice::LoseAll, CrashChoice::Seeded(boundary)] {
                let context = format!(
                    "killed after operation {boundary} of {operations}, syncs failed: {failed_syncs}, {choice:?}"
                );
                let _context = OnPanic(&context);
                let Some(mut opened) = rig.kill(failed_syncs) else { continue };
                let mut after = opened.crash(choice).expect("there is one");
                assert!(after.run(&[Op::Append(vec![77, 8000]), Op::Cut(1), Op::Append(vec![9])]));
                drop(opened);
            }
        }
    }
}

#[test]
fn power_cuts_while_opening() {
    let operations = operations();
    for boundary in (0..operations).step_by(3) {
        let disk = SimDisk::new(boundary);
        disk.crash_after(boundary);
        let mut rig = Rig::create(disk);
        rig.run(&life());
        for choice in [CrashChoice::KeepAll, CrashChoice::Seeded(boundary)] {
            let context = format!("the power went after operation {boundary} of {operations}, {choice:?}");
            let _context = OnPanic(&context);
            rig.crash_while_opening(choice);
        }
    }
}

/// Says where it was when a check failed.
struct OnPanic<'a>(&'a str);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}
