use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{PageContent, SalvageError, SalvageReport, check_directory, inspect_page, salvage};
use crate::btree::TreeKind;
use crate::database::Database;
use crate::engine::{EngineOptions, OpenError};
use crate::env::{Disk, LosingDisk, RealDisk};
use crate::ids::PageNumber;
use crate::journal::{JournalMode, JournalOptions};
use crate::page::PAGE_BYTES;

type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

pub(super) fn options() -> EngineOptions {
    let journal = JournalOptions { segment_bytes: 4 << 20, mode: JournalMode::Inline, ..JournalOptions::default() };
    EngineOptions { journal, background: false, ..EngineOptions::default() }
}

pub(super) fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk::new())
}

/// All entries; of a multi-value tree, each value behind its key.
fn contents(directory: &Path) -> Contents {
    let database = Database::open_with(real(), directory, options()).expect("opens");
    let read = database.read();
    let mut all = Contents::new();
    for (name, state) in read.trees().expect("readable") {
        if state.kind == TreeKind::Multi {
            let mut keys = read.keys(&name).expect("readable").expect("it was listed");
            let tree = all.entry(name).or_default();
            while keys.next().expect("readable") {
                let mut values = keys.values().expect("readable");
                while values.next().expect("readable") {
                    tree.insert([keys.key(), b"=", values.value()].concat(), Vec::new());
                }
            }
            continue;
        }
        let mut cursor = read.cursor(&name).expect("readable").expect("it was listed");
        let tree = all.entry(name.clone()).or_default();
        while cursor.next().expect("readable") {
            tree.insert(cursor.key().to_vec(), cursor.value().to_vec().expect("readable"));
        }
    }
    all
}

/// Two trees of two levels whose keys do not overlap, one of three long values, one without entries, a multi-value tree
/// with a list and a tree of values; all in the data file but for the last transaction.
fn make(directory: &Path) -> Contents {
    let database = Database::open_with(real(), directory, options()).expect("a new directory");
    let put = |round: u8| {
        let done = database.write(|txn| {
            for tree in ["one", "two", "long", "empty"] {
                txn.create_tree(tree)?;
            }
            for key in 0..100_u8 {
                txn.put("one", &[b'a', key, round], &[key; 300])?;
                txn.put("two", &[b'b', key, round], &[round; 300])?;
            }
            txn.create_multi_tree("many")?;
            for value in 0..200_u8 {
                txn.add("many", b"list", &[round])?;
                txn.add("many", b"tree", &[&[round, value][..], &[b'v'; 60]].concat())?;
            }
            txn.put("long", &[round], &vec![round; 20_000]).map(drop)
        });
        done.expect("the disk works");
    };
    put(1);
    put(2);
    database.engine().checkpoint().expect("works");
    put(3);
    drop(database);
    contents(directory)
}

/// The numbers of the pages of the data file whose content `is` so.
pub(super) fn pages(directory: &Path, is: impl Fn(&PageContent) -> bool) -> Vec<PageNumber> {
    let page = |number| inspect_page(&real(), directory, PageNumber(number)).expect("readable");
    (0..).map_while(page).filter(|report| is(&report.content)).map(|report| report.number).collect()
}

fn leaf_of(content: &PageContent, tree: u8) -> bool {
    matches!(content, PageContent::Leaf(entries) if entries.iter().all(|entry| entry.key.len() == 3 && entry.key[0] == tree))
}

fn branch_of(content: &PageContent, tree: u8) -> bool {
    matches!(content, PageContent::Branch(children) if children.len() > 1 && children[1].0[0] == tree)
}

pub(super) fn break_page(directory: &Path, number: PageNumber) {
    let path = directory.join("g1/data");
    let mut bytes = fs::read(&path).expect("there");
    bytes[number.0 as usize * PAGE_BYTES + 4000] ^= 1;
    fs::write(&path, bytes).expect("writable");
}

struct Place {
    _temp: tempfile::TempDir,
    from: std::path::PathBuf,
    to: std::path::PathBuf,
}

fn place() -> (Place, Contents) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    let all = make(&from);
    // So that pages of the data file are the newest ones.
    let database = Database::open_with(real(), &from, options()).expect("opens");
    database.engine().checkpoint().expect("works");
    drop(database);
    (Place { _temp: temp, from, to }, all)
}

fn bytes_of(directory: &Path) -> Vec<Vec<u8>> {
    ["node.meta", "vote", "g1/data", "g1/journal/00000000000000000001.seg"]
        .map(|name| fs::read(directory.join(name)).expect("there"))
        .to_vec()
}

/// Salvages; the source stays as it was and the result is sound.
fn run(place: &Place) -> (SalvageReport, Contents) {
    let before = bytes_of(&place.from);
    let report = salvage(&real(), &place.from, &place.to, &mut |_| {}).expect("something can be read");
    assert!(bytes_of(&place.from) == before, "the damaged directory is only read");
    assert!(check_directory(&real(), &place.to, &mut |_| {}).expect("there").is_clean());
    let found = contents(&place.to);
    let counted: BTreeMap<_, _> = found.iter().map(|(name, tree)| (name, tree.len() as u64)).collect();
    let told: BTreeMap<_, _> = report.trees.iter().map(|(name, tree)| (name, tree.values)).collect();
    assert_eq!(counted, told, "what is told is what is there");
    (report, found)
}

#[test]
fn a_sound_directory_is_copied_whole() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let place = Place { from: temp.path().join("from"), to: temp.path().join("to"), _temp: temp };
    let all = make(&place.from);
    fs::create_dir(&place.to).expect("an empty directory may be there");
    let (report, found) = run(&place);
    assert!(report.is_complete(), "{:?}", report.lost);
    assert!(found == all, "what was committed in the journal only is there too");
}

#[test]
fn a_lost_leaf_costs_its_keys_and_no_others() {
    let (place, all) = place();
    let leaf = pages(&place.from, |content| leaf_of(content, b'a'))[1];
    break_page(&place.from, leaf);
    let (report, found) = run(&place);
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    let lost = &report.lost[0];
    assert_eq!((lost.tree.as_deref(), lost.page), (Some("one"), Some(leaf)), "{lost:?}");
    let is_lost =
        |key: &Vec<u8>| lost.from.as_ref().is_none_or(|from| from <= key) && lost.to.as_ref().is_none_or(|to| key < to);
    let mut expected = all;
    let one = expected.get_mut("one").expect("there");
    let before = one.len();
    one.retain(|key, _| !is_lost(key));
    assert!(one.len() < before && one.len() > before / 2);
    assert!(found == expected);
}

#[test]
fn below_a_lost_branch_everything_is_found() {
    let (place, all) = place();
    for tree in [b'a', b'b'] {
        let root = pages(&place.from, |content| branch_of(content, tree));
        assert_eq!(root.len(), 1);
        break_page(&place.from, root[0]);
    }
    let (report, found) = run(&place);
    assert_eq!(report.lost.iter().filter(|lost| lost.tree.is_some()).count(), 2, "{:?}", report.lost);
    // Both roots are lost, with any key between: whose each leaf was cannot be told.
    let (mut named, mut unnamed) = (Contents::new(), Contents::new());
    for (name, tree) in found {
        if name.starts_with("lost-page-") { &mut unnamed } else { &mut named }.insert(name, tree);
    }
    assert_eq!(named["long"], all["long"]);
    let entries: BTreeMap<_, _> = unnamed.into_values().flatten().collect();
    let expected: BTreeMap<_, _> = ["one", "two"].iter().flat_map(|name| all[*name].clone()).collect();
    assert!(entries == expected, "{} of {} entries", entries.len(), expected.len());
}

#[test]
fn what_fits_in_one_hole_only_goes_back_into_its_tree() {
    let (place, all) = place();
    let root = pages(&place.from, |content| branch_of(content, b'b'));
    break_page(&place.from, root[0]);
    let (report, found) = run(&place);
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    assert!(found == all);
}

#[test]
fn a_lost_page_of_a_value_costs_that_value() {
    let (place, all) = place();
    let run_of = |content: &PageContent| matches!(content, PageContent::Leaf(entries) if entries[0].run.is_some());
    let leaf = pages(&place.from, run_of)[0];
    let report = inspect_page(&real(), &place.from, leaf).expect("readable").expect("there");
    let PageContent::Leaf(entries) = report.content else { panic!("a leaf") };
    break_page(&place.from, PageNumber(entries[1].run.expect("long").0 + 1));
    let (report, found) = run(&place);
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    assert_eq!((report.lost[0].tree.as_deref(), &report.lost[0].from), (Some("long"), &Some(vec![2])));
    let mut expected = all;
    expected.get_mut("long").expect("there").remove(&vec![2]);
    assert!(found == expected);
}

#[test]
fn without_a_superblock_the_trees_lose_their_names() {
    let (place, mut all) = place();
    break_page(&place.from, PageNumber(0));
    let (report, found) = run(&place);
    assert!(report.lost.iter().any(|lost| lost.page == Some(PageNumber(0))), "{:?}", report.lost);
    let entries: BTreeMap<_, _> = found.into_values().flatten().collect();
    all.remove("many");
    assert!(all.into_values().flatten().all(|(key, value)| entries.get(&key) == Some(&value)));
}

#[test]
fn lost_frames_cost_what_they_and_later_ones_did() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let place = Place { from: temp.path().join("from"), to: temp.path().join("to"), _temp: temp };
    let mut all = make(&place.from);
    let journal = place.from.join("g1/journal/00000000000000000001.seg");
    let frames = crate::journal::inspect(real(), &place.from.join("g1/journal")).expect("there");
    let last = frames.map(|frame| frame.expect("sound")).last().expect("some");
    let mut bytes = fs::read(&journal).expect("there");
    let at = last.position.0 as usize % bytes.len() + 1000;
    bytes[at] ^= 1;
    fs::write(&journal, bytes).expect("writable");
    let (report, found) = run(&place);
    assert_eq!((report.lost.len(), report.is_mixture, report.txn_id.0), (1, false, 2), "{report:?}");
    let by_third = |name: &str, key: &[u8]| match name {
        "many" => key[5] == 3,
        _ => key.last() == Some(&3),
    };
    for (name, tree) in &mut all {
        tree.retain(|key, _| !by_third(name, key));
    }
    assert!(found == all, "the state as of the last frame that can be read");
}

#[test]
fn a_place_that_is_taken_is_refused_and_an_open_directory_too() {
    let (place, _) = place();
    let refuse = |to: &Path| salvage(&real(), &place.from, to, &mut |_| {}).expect_err("refused");
    assert!(matches!(refuse(&place.from.join("g1/new")), SalvageError::Within(_)));
    fs::create_dir(&place.to).expect("works");
    fs::write(place.to.join("file"), b"x").expect("works");
    assert!(matches!(refuse(&place.to), SalvageError::NotEmpty(_)));
    fs::remove_dir_all(&place.to).expect("works");
    fs::create_dir(place.to.with_added_extension("salvage")).expect("works");
    assert!(matches!(refuse(&place.to), SalvageError::Unfinished(_)));
    fs::remove_dir(place.to.with_added_extension("salvage")).expect("works");
    let open = Database::open_with(real(), &place.from, options()).expect("opens");
    assert!(matches!(refuse(&place.to), SalvageError::Open(OpenError::Locked(_))));
    drop(open);
    assert!(!place.to.exists());
}

/// The disk is full at some moment of it: nothing is left that looks like a result, nor anything else.
#[test]
fn a_failure_on_the_way_leaves_nothing() {
    let (place, _) = place();
    let mut failed = 0;
    for space in [0_u64, 1 << 20, 70 << 20, 200 << 20] {
        let disk = LosingDisk::new();
        disk.set_space_limit(Some(space));
        let door: Arc<dyn Disk> = Arc::new(disk);
        let made = salvage(&door, &place.from, &place.to, &mut |_| {});
        assert_eq!(made.is_ok(), place.to.exists(), "{space} bytes");
        assert!(!place.to.with_added_extension("salvage").exists(), "{space} bytes");
        failed += u32::from(made.is_err());
        if made.is_ok() {
            assert!(check_directory(&real(), &place.to, &mut |_| {}).expect("there").is_clean());
            fs::remove_dir_all(&place.to).expect("works");
        }
    }
    assert!(failed >= 2, "some of them had no space");
}

#[test]
fn a_lost_page_of_values_costs_those_and_keeps_their_key() {
    let (place, all) = place();
    let values = |content: &PageContent| matches!(content, PageContent::Leaf(entries) if entries[0].key.len() == 62 && entries[0].key[0] == 2);
    let leaf = pages(&place.from, values)[0];
    break_page(&place.from, leaf);
    let (report, found) = run(&place);
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    assert_eq!((report.lost[0].tree.as_deref(), &report.lost[0].key), (Some("many"), &Some(b"tree".to_vec())));
    let (left, before) = (found["many"].len(), all["many"].len());
    assert!(left < before && left > before / 2 && found["many"].keys().all(|key| all["many"].contains_key(key)));
    assert!(found.iter().all(|(name, tree)| name == "many" || *tree == all[name]));
}
