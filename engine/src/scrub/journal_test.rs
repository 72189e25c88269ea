//! What a disk does to the journal behind the engine's back.

use std::sync::Arc;

use super::scrub_test::{filled, parts, place, place_of, put};
use crate::damage::{DamagedPart, FoundBy};
use crate::engine::Engine;
use crate::engine::rig_test::{append, create, options};
use crate::env::{Disk, Fault, OpenMode, SimDisk, Trouble};
use crate::error::StorageError;
use crate::ids::{JournalPosition, LogIndex};
use crate::journal::frame::{Frame, FrameKind, Payload};
use crate::offline::check_directory;

/// Every byte of the journal that means something, below the end.
#[test]
fn rot_in_the_journal_is_found_and_named() {
    let (sim, engine) = filled();
    let (file, first) = place_of(&engine, LogIndex(0));
    let (same, second) = place_of(&engine, LogIndex(1));
    assert_eq!(file, same);
    let frames = engine.read_frames(LogIndex(0), LogIndex(2), 1 << 30).expect("kept");
    let ends = first + (72 + frames[0].payload().bytes().len()) as u64;
    let mut offsets: Vec<u64> = (0..72).chain(4096..first).chain(first..first + 72).collect();
    offsets.extend((first + 72..ends).step_by(4_099));
    offsets.extend(second - 64..second + 72);
    let store = engine.core.store();
    for offset in offsets {
        sim.flip_bit(&file, offset, (offset % 8) as u8);
        let found = store.journal.look_at_disk(LogIndex(0), 1 << 30).expect("readable").expect("frames").bad;
        sim.flip_bit(&file, offset, (offset % 8) as u8);
        let part = match offset {
            0..4096 => DamagedPart::Block(JournalPosition(1 << 20)),
            _ if offset < first => DamagedPart::Block(JournalPosition((1 << 20) + offset - offset % 64)),
            _ if offset < ends => DamagedPart::Frame(frames[0].log_id()),
            _ if offset < second => DamagedPart::Block(JournalPosition((1 << 20) + second - 64)),
            _ => DamagedPart::Frame(frames[1].log_id()),
        };
        assert_eq!(found.iter().map(|bad| bad.part).collect::<Vec<_>>(), [part], "byte {offset}");
    }
}

/// A write of the journal is lost, or lands elsewhere, and the disk says that all is well: found while the node runs, and
/// put right, from memory and by the frames that others have. Without that, the next start says that the journal is
/// damaged; but for the last group, which looks like one that was never written.
#[test]
fn a_lost_or_misdirected_write_of_the_journal_is_found_while_the_node_runs() {
    let mut mended = 0;
    for (fault, writes) in [Fault::LostWrite, Fault::MisdirectedWrite(64 << 10), Fault::MisdirectedWrite(4 << 10)]
        .into_iter()
        .flat_map(|fault| (0..8).map(move |writes| (fault, writes)))
    {
        let sim = SimDisk::new(1);
        let engine = create(&(Arc::new(sim.clone()) as Arc<dyn Disk>), place(), 1);
        let mut frames: Vec<Frame> = (0..2).filter_map(|round| put(&engine, round, 20)).collect();
        sim.plan(Trouble::new(fault).of("00000000000000000001.seg").after(writes));
        frames.extend((2..10).filter_map(|round| put(&engine, round, 20)));
        assert_eq!((frames.len(), sim.faults_happened()), (10, 1), "{fault:?} of write {writes}");
        let next = sim.kill();
        engine.scrub_now().expect("works");
        let counts = engine.damage_counts();
        assert!(counts.found > 0, "{fault:?} of write {writes}");
        for part in parts(&engine) {
            let DamagedPart::Frame(log_id) = part else { panic!("{fault:?} of write {writes}: {part} is not mended") };
            let index = usize::try_from(log_id.index.0).expect("few");
            engine.repair_frame(&frames[index]).expect("it is the frame");
        }
        assert_eq!(engine.scrub_now().expect("works").found, 0, "{fault:?} of write {writes}");
        mended += counts.repaired;
        drop(engine);
        let open = |disk: &SimDisk| Engine::open(Arc::new(disk.clone()), place(), options()).map(|(engine, _)| engine);
        let last = |engine: &Engine| engine.log_state().last.map(|last| last.index);
        assert_eq!(last(&open(&sim).expect("it is whole again")), Some(LogIndex(9)));
        let checked = check_directory(&(Arc::new(next.clone()) as Arc<dyn Disk>), place(), &mut |_| {});
        let clean = checked.is_ok_and(|report| report.is_clean());
        assert!(!clean || writes >= 7, "{fault:?} of write {writes}: the check finds it as well");
        match open(&next) {
            Ok(engine) => assert!(writes >= 7 && last(&engine) >= Some(LogIndex(8)), "{fault:?} of write {writes}"),
            Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
        }
    }
    assert!(mended > 10, "{mended} blocks were made anew");
}

/// Blocks and headers are this node's own, and made anew from memory: byte for byte what they were, but for what a group's
/// block says was durable before it.
#[test]
fn blocks_and_headers_are_made_anew() {
    let (sim, engine) = filled();
    let (file, first) = place_of(&engine, LogIndex(0));
    let (_, second) = place_of(&engine, LogIndex(1));
    let bytes = || {
        let mut bytes = vec![0; 1 << 20];
        sim.open(&file, OpenMode::Read).expect("there").read_exact_at(&mut bytes, 0).expect("there");
        bytes
    };
    let before = bytes();
    // The header; the cut that opening has made, and the first group; the second group.
    let (header, cut, one, two) = (10, first - 100, first - 60, second - 10);
    for flips in [vec![header], vec![cut], vec![one], vec![two], vec![header, cut, one], vec![cut, two], vec![one, two]]
    {
        flips.iter().for_each(|offset| sim.flip_bit(&file, *offset, 0));
        let report = engine.scrub_now().expect("works");
        assert_eq!((report.found, engine.damaged()), (flips.len() as u64, Vec::new()), "{flips:?}");
        let after = bytes();
        let differ: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        // The attested place and the checksum.
        let may = |at: usize| {
            [first - 128, first - 64, second - 64].iter().any(|block| {
                let block = usize::try_from(*block).expect("small");
                (block + 24..block + 32).contains(&at) || (block + 60..block + 64).contains(&at)
            })
        };
        assert!(differ.iter().all(|at| may(*at)), "{flips:?}: {differ:?}");
    }
    put(&engine, 9, 10);
    drop(engine);
    let (engine, _) = Engine::open(Arc::new(sim), place(), options()).expect("opens");
    assert_eq!(engine.log_state().last.map(|last| last.index), Some(LogIndex(3)));
}

#[test]
fn a_frame_that_cannot_be_read_is_noted_and_named() {
    let sim = SimDisk::new(1);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let mut small = options();
    small.journal.cache_bytes = 0;
    let identity = crate::engine::rig_test::identity(1);
    let engine = Engine::create(disk, place(), &identity, crate::ids::DatabaseId(9), small).expect("new");
    put(&engine, 1, 100);
    put(&engine, 2, 100);
    let (file, offset) = place_of(&engine, LogIndex(0));
    sim.flip_bit(&file, offset + 500, 1);
    let error = engine.read_frames(LogIndex(0), LogIndex(1), 1).expect_err("it is damaged");
    assert!(matches!(error, StorageError::DamagedFrame { log_id, .. } if log_id.index == LogIndex(0)), "{error}");
    assert!(error.to_string().contains("join again"), "{error}");
    assert_eq!(engine.damaged()[0].found_by, FoundBy::Read);
    assert!(engine.read_frames(LogIndex(1), LogIndex(2), 1).is_ok());
}

/// A frame that is cut while the scrub is on its way to it is nobody's damage.
#[test]
fn what_is_cut_or_purged_is_not_damage() {
    let (_, engine) = filled();
    let last = engine.log_state().last.expect("there is one");
    let blank = Frame::encode(
        FrameKind::Blank,
        crate::ids::LogId { term: last.term, index: last.index.next() },
        None,
        engine.last_chain(),
        Payload::new(bytes::Bytes::new()),
    );
    append(&engine, vec![blank]);
    let store = engine.core.store();
    assert!(store.journal.look_at_disk(last.index.next(), 1).expect("works").is_some());
    engine.cut_after(Some(last), Box::new(|cut| cut.expect("cut"))).expect("queued");
    assert!(store.journal.look_at_disk(last.index.next(), 1).expect("works").is_none());
    assert_eq!(engine.scrub_now().expect("works").found, 0);
}
