use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DirectoryReport, FindingKind, check_directory};
use crate::engine::rig_test::{commit, create, options};
use crate::engine::{Engine, OpenError, Vote};
use crate::env::{CrashChoice, Disk, OpenMode, SimDisk};
use crate::ids::{LogIndex, PageNumber, RaftId, Term};
use crate::page::PAGE_BYTES;

const PLACE: &str = "/db";

fn place() -> &'static Path {
    Path::new(PLACE)
}

fn file(name: &str) -> PathBuf {
    place().join(name)
}

/// Trees of several levels with long values, a checkpoint, a journal that goes on behind it, two votes.
fn sample() -> SimDisk {
    let sim = SimDisk::new(3);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let engine = create(&disk, place(), 1);
    for term in 1..3 {
        let vote = Vote { term: Term(term), node: Some(RaftId(1)), committed: false };
        engine.save_vote(vote, Box::new(|saved| saved.expect("saved"))).expect("queued");
    }
    let put = |round: u8| {
        commit(&engine, |batch| {
            for tree in ["a", "b"] {
                batch.create_tree(tree).expect("works");
                for key in 0..40_u8 {
                    let length = if key % 9 == 0 { 20_000 } else { 700 };
                    batch.put(tree, &[key, round], &vec![key; length]).expect("fits");
                }
            }
        });
    };
    put(1);
    put(2);
    engine.checkpoint().expect("works");
    put(3);
    engine.close();
    drop(engine);
    sim.crash(CrashChoice::KeepAll)
}

fn check(disk: &SimDisk) -> DirectoryReport {
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let before = disk.image_hash();
    let report = check_directory(&door, place(), &mut |_| {}).expect("the directory is there");
    assert_eq!(disk.image_hash(), before, "a check changes nothing");
    report
}

fn kinds(report: &DirectoryReport) -> Vec<FindingKind> {
    let mut kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    kinds.dedup();
    kinds
}

fn write(disk: &SimDisk, name: &str, offset: u64, bytes: &[u8]) {
    let open = disk.open(&file(name), OpenMode::Write).expect("there");
    open.write_at(&[std::io::IoSlice::new(bytes)], offset).expect("works");
    open.sync_data().expect("works");
}

fn truncate(disk: &SimDisk, name: &str, length: u64) {
    let open = disk.open(&file(name), OpenMode::Write).expect("there");
    open.set_len(length).expect("works");
    open.sync_data().expect("works");
}

fn length(disk: &SimDisk, name: &str) -> u64 {
    disk.open(&file(name), OpenMode::Read).expect("there").len().expect("works")
}

const SEGMENT: &str = "g1/journal/00000000000000000001.seg";

#[test]
fn troubles_of_every_file_are_in_one_report() {
    let disk = sample();
    assert!(check(&disk).is_clean(), "{:?}", check(&disk));
    let pages = length(&disk, "g1/data") / PAGE_BYTES as u64;
    disk.flip_bit(&file("node.meta"), 40, 0);
    disk.flip_bit(&file("vote"), 4096 + 3000, 0);
    disk.flip_bit(&file(SEGMENT), 4096 + 64 + 200, 0);
    disk.flip_bit(&file("g1/data"), 5 * PAGE_BYTES as u64 + 77, 0);
    disk.flip_bit(&file("g1/data"), (pages - 1) * PAGE_BYTES as u64 + 77, 0);
    let report = check(&disk);
    let found = kinds(&report);
    for kind in [FindingKind::OneSlot, FindingKind::UnusedPart, FindingKind::Journal, FindingKind::Page] {
        assert!(found.contains(&kind), "{kind:?} in {:#?}", report.findings);
    }
    for page in [5, pages - 1] {
        let page = Some(PageNumber(u32::try_from(page).expect("few")));
        assert!(report.findings.iter().any(|finding| finding.page == page), "{page:?} in {:#?}", report.findings);
    }
    let journal = report.journal.expect("there");
    assert_eq!((journal.frames, journal.frames_behind_damage), (0, 2), "the frames behind the bad one are read");
}

#[test]
fn a_directory_without_a_readable_node_meta_is_checked_all_the_same() {
    let disk = sample();
    truncate(&disk, "node.meta", 0);
    let report = check(&disk);
    assert!(report.meta.is_none() && kinds(&report) == [FindingKind::Slots], "{:#?}", report.findings);
    assert_eq!(report.journal.map(|journal| journal.frames), Some(3));
    assert_eq!(report.pages.map(|pages| pages.trees), Some(2));
    disk.flip_bit(&file("g1/data"), 5 * PAGE_BYTES as u64 + 77, 0);
    assert!(kinds(&check(&disk)).contains(&FindingKind::Page));
}

#[test]
fn without_a_superblock_every_page_is_looked_at_by_itself() {
    let disk = sample();
    write(&disk, "g1/data", 0, &[0; 512]);
    disk.flip_bit(&file("g1/data"), 6 * PAGE_BYTES as u64 + 77, 0);
    let report = check(&disk);
    let pages: Vec<u32> = report.findings.iter().filter_map(|finding| finding.page.map(|page| page.0)).collect();
    assert!(pages.contains(&0) && pages.contains(&6) && pages.len() <= 3, "{:#?}", report.findings);
}

#[test]
fn a_bitmap_that_is_lost_is_one_trouble_and_not_one_a_page() {
    let disk = sample();
    disk.flip_bit(&file("g1/data"), PAGE_BYTES as u64 + 100, 0);
    let report = check(&disk);
    assert_eq!((report.findings.len(), report.findings[0].page), (1, Some(PageNumber(1))), "{:#?}", report.findings);
}

#[test]
fn a_data_file_of_another_length_is_found() {
    let disk = sample();
    let bytes = length(&disk, "g1/data");
    truncate(&disk, "g1/data", bytes + 3 * PAGE_BYTES as u64);
    assert_eq!(kinds(&check(&disk)), [FindingKind::Length]);
    truncate(&disk, "g1/data", bytes - PAGE_BYTES as u64);
    assert!(kinds(&check(&disk)).contains(&FindingKind::Length));
    truncate(&disk, "g1/data", 0);
    assert!(!check(&disk).findings.is_empty(), "a data file with no byte in it");
    disk.remove_file(&file("g1/data")).expect("works");
    assert_eq!(kinds(&check(&disk)), [FindingKind::Unreadable]);
}

/// An older version of a page has a checksum that fits it: only the digest tells.
#[test]
fn a_stale_page_is_found_by_the_digest() {
    let disk = sample();
    let (engine, _) = Engine::open(Arc::new(disk.clone()), place(), options()).expect("opens");
    for frame in engine.read_frames(LogIndex(2), LogIndex(3), 1).expect("kept") {
        engine.apply(&frame).expect("applies");
    }
    engine.checkpoint().expect("works");
    let data = |disk: &SimDisk| {
        let mut bytes = vec![0; usize::try_from(length(disk, "g1/data")).expect("small")];
        disk.open(&file("g1/data"), OpenMode::Read).expect("there").read_exact_at(&mut bytes, 0).expect("works");
        bytes
    };
    let before = data(&disk);
    commit(&engine, |batch| {
        batch.put("a", &[3, 1], &[9; 700]).expect("fits");
    });
    engine.checkpoint().expect("works");
    drop(engine);
    let after = data(&disk);
    let changed = |page: &usize| before.chunks(PAGE_BYTES).nth(*page) != after.chunks(PAGE_BYTES).nth(*page);
    let leaf = (2..before.len() / PAGE_BYTES)
        .filter(changed)
        .find(|page| before[page * PAGE_BYTES + 8] == crate::page::PageKind::Leaf as u8)
        .expect("a leaf was changed");
    write(&disk, "g1/data", (leaf * PAGE_BYTES) as u64, &before[leaf * PAGE_BYTES..(leaf + 1) * PAGE_BYTES]);
    let report = check(&disk);
    assert_eq!(kinds(&report), [FindingKind::Digest], "{:#?}", report.findings);
}

/// A write of `vote` was acknowledged and never happened, and frames of that term came after it.
#[test]
fn a_vote_older_than_the_journal_is_found() {
    let sim = SimDisk::new(3);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let engine = create(&disk, place(), 1);
    let vote = Vote { term: Term(0), node: Some(RaftId(1)), committed: true };
    engine.save_vote(vote, Box::new(|saved| saved.expect("saved"))).expect("queued");
    commit(&engine, |batch| {
        batch.create_tree("t").expect("works");
    });
    engine.close();
    drop(engine);
    let report = check(&sim);
    assert_eq!(kinds(&report), [FindingKind::Disagreement], "{:#?}", report.findings);
    assert_eq!(report.findings[0].file, file("vote"));
}

#[test]
fn what_is_no_directory_of_a_node_is_refused() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let refused = check_directory(&disk, place(), &mut |_| {});
    assert!(matches!(refused, Err(OpenError::Missing(_))), "{refused:?}");
}
