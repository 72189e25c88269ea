//! Salvage of multi-value trees: a page of each kind is lost, and everything else is in the new database.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::salvage_test::{break_page, options, pages, real};
use super::{PageContent, SalvageReport, check_directory, salvage};
use crate::btree::TreeKind;
use crate::database::Database;
use crate::ids::PageNumber;
use crate::page::{PAGE_BYTES, Page, checksum};

/// Under each tree the keys, with their values; those of a plain tree have one.
type Contents = BTreeMap<String, BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>>;

const BIG: &[u8] = b"k150";
const BIG_VALUES: u32 = 3_000;

fn value(letter: char, number: u32) -> Vec<u8> {
    format!("{letter}{number:05}{}", "x".repeat(60)).into_bytes()
}

fn contents(directory: &Path) -> Contents {
    let database = Database::open_with(real(), directory, options()).expect("opens");
    let read = database.read();
    let mut all = Contents::new();
    for info in read.list_trees().expect("readable") {
        let tree = all.entry(info.name.clone()).or_default();
        let mut keys = read.keys(&info.name).expect("readable").expect("it was listed");
        while keys.next().expect("readable") {
            let found = tree.entry(keys.key().to_vec()).or_default();
            if info.kind == TreeKind::Plain {
                let entry = read.get(&info.name, keys.key()).expect("readable").expect("a key of it");
                found.insert(entry.value.to_vec().expect("readable"));
                continue;
            }
            let mut values = keys.values().expect("readable");
            while values.next().expect("readable") {
                found.insert(values.value().to_vec());
            }
        }
    }
    all
}

struct Place {
    _temp: tempfile::TempDir,
    from: PathBuf,
    to: PathBuf,
    all: Contents,
}

/// A multi-value tree of two levels with lists, and one key in the middle of it with a tree of values of two levels; and
/// an empty one.
fn place() -> Place {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    let database = Database::open_with(real(), &from, options()).expect("a new directory");
    let made = database.write(|txn| {
        txn.create_multi_tree("many")?;
        txn.create_multi_tree("none")?;
        for key in 0..300_u32 {
            for number in 0..5 {
                txn.add("many", format!("k{key:03}").as_bytes(), &value('w', key * 10 + number))?;
            }
        }
        (0..BIG_VALUES).try_for_each(|number| txn.add("many", BIG, &value('v', number)).map(drop))
    });
    made.expect("the disk works");
    database.engine().checkpoint().expect("works");
    drop(database);
    let all = contents(&from);
    Place { _temp: temp, from, to, all }
}

fn leaves_of_lists(place: &Place) -> Vec<PageNumber> {
    pages(
        &place.from,
        |content| matches!(content, PageContent::Leaf(entries) if entries.iter().all(|entry| entry.many.is_some() && entry.many_root.is_none())),
    )
}

fn leaf_of_big(place: &Place) -> PageNumber {
    pages(
        &place.from,
        |content| matches!(content, PageContent::Leaf(entries) if entries.iter().any(|entry| entry.many_root.is_some())),
    )[0]
}

fn leaves_of_values(place: &Place) -> Vec<PageNumber> {
    pages(
        &place.from,
        |content| matches!(content, PageContent::Leaf(entries) if entries.iter().all(|entry| entry.value_bytes == 0)),
    )
}

/// The branch whose separators begin with this letter: `k` for the tree's, `v` for that of the tree of values.
fn branch(place: &Place, letter: u8) -> PageNumber {
    let found = pages(
        &place.from,
        |content| matches!(content, PageContent::Branch(children) if children.len() > 1 && children[1].0[0] == letter),
    );
    assert_eq!(found.len(), 1);
    found[0]
}

fn run(place: &Place) -> (SalvageReport, Contents) {
    let report = salvage(&real(), &place.from, &place.to, &mut |_| {}).expect("something can be read");
    assert!(check_directory(&real(), &place.to, &mut |_| {}).expect("there").is_clean());
    let found = contents(&place.to);
    assert_eq!(found.keys().collect::<Vec<_>>(), report.trees.keys().collect::<Vec<_>>());
    for (name, tree) in &report.trees {
        let keys = &found[name];
        let values: usize = keys.values().map(BTreeSet::len).sum();
        assert_eq!((tree.entries, tree.values), (keys.len() as u64, values as u64), "{name}");
        let in_cells: usize = keys.iter().map(|(key, all)| key.len() + all.iter().map(Vec::len).sum::<usize>()).sum();
        assert_eq!(tree.bytes, in_cells as u64, "{name}");
    }
    (report, found)
}

/// What is between two bounds.
fn between(key: &[u8], from: Option<&Vec<u8>>, to: Option<&Vec<u8>>) -> bool {
    from.is_none_or(|from| from.as_slice() <= key) && to.is_none_or(|to| key < to.as_slice())
}

#[test]
fn a_sound_tree_is_copied_with_its_kind() {
    let place = place();
    let (report, found) = run(&place);
    assert!(report.is_complete(), "{:?}", report.lost);
    assert!(report.trees.values().all(|tree| tree.kind == TreeKind::Multi), "{:?}", report.trees);
    assert!(found == place.all);
}

#[test]
fn a_lost_leaf_costs_its_keys_and_their_lists() {
    let place = place();
    let leaf = leaves_of_lists(&place)[1];
    break_page(&place.from, leaf);
    let (report, found) = run(&place);
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    let lost = &report.lost[0];
    assert_eq!((lost.tree.as_deref(), &lost.key, lost.page), (Some("many"), &None, Some(leaf)));
    let mut expected = place.all.clone();
    let many = expected.get_mut("many").expect("there");
    many.retain(|key, _| !between(key, lost.from.as_ref(), lost.to.as_ref()));
    assert!(many.len() < 300 && many.len() > 200);
    assert!(found == expected);
}

/// The key is lost with the leaf, and no page says it: its values are kept by themselves.
#[test]
fn the_values_of_a_lost_key_become_a_tree_of_their_own() {
    let place = place();
    break_page(&place.from, leaf_of_big(&place));
    let (report, found) = run(&place);
    let lost = report.lost.iter().find(|lost| lost.tree.is_none()).expect("told of");
    assert!(lost.reason.contains("tree \"many\", values of a key that is lost"), "{lost:?}");
    assert!(!found["many"].contains_key(BIG));
    let (_, kept) = found.iter().find(|(name, _)| name.starts_with("lost-page-")).expect("there");
    let of_tree = |all: &Contents| all["many"][BIG].iter().cloned().collect::<Vec<_>>();
    assert_eq!(found.len(), 3);
    assert!(kept.keys().cloned().collect::<Vec<_>>() == of_tree(&place.all), "{} values", kept.len());
}

#[test]
fn a_lost_leaf_of_values_costs_those_values() {
    let place = place();
    let leaf = leaves_of_values(&place)[3];
    break_page(&place.from, leaf);
    let (report, found) = run(&place);
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    let lost = &report.lost[0];
    assert_eq!((lost.tree.as_deref(), lost.key.as_deref(), lost.page), (Some("many"), Some(BIG), Some(leaf)));
    let mut expected = place.all.clone();
    let values = expected.get_mut("many").expect("there").get_mut(BIG).expect("there");
    let before = values.len();
    values.retain(|value| !between(value, lost.from.as_ref(), lost.to.as_ref()));
    assert!(values.len() < before && values.len() > before / 2);
    assert!(found == expected);
}

#[test]
fn below_lost_branches_everything_goes_back() {
    for letters in [&b"k"[..], b"v", b"kv"] {
        let place = place();
        for letter in letters {
            break_page(&place.from, branch(&place, *letter));
        }
        let (report, found) = run(&place);
        assert_eq!(report.lost.len(), letters.len(), "{:?}", report.lost);
        assert_eq!(report.lost.iter().any(|lost| lost.key.as_deref() == Some(BIG)), letters.contains(&b'v'));
        assert!(found == place.all, "{letters:?}");
    }
}

/// With a leaf lost too, the pages of values may be those of a key that it had.
#[test]
fn where_values_belong_is_said_only_where_it_is_certain() {
    let place = place();
    let leaf = leaves_of_lists(&place)[1];
    break_page(&place.from, leaf);
    break_page(&place.from, branch(&place, b'v'));
    let of_values = leaves_of_values(&place)[3];
    break_page(&place.from, of_values);
    let (report, found) = run(&place);
    assert!(report.lost.iter().any(|lost| lost.page == Some(of_values)), "{:?}", report.lost);
    let lost = report.lost.iter().find(|lost| lost.page == Some(leaf)).expect("told of");
    let (mut named, mut values) = (BTreeSet::new(), BTreeSet::new());
    for (name, tree) in &found {
        if name == "many" {
            named.extend(tree.clone());
        } else {
            values.extend(tree.keys().cloned());
        }
    }
    let mut expected = place.all["many"].clone();
    let big = expected.remove(BIG).expect("there");
    expected.retain(|key, _| !between(key, lost.from.as_ref(), lost.to.as_ref()));
    assert!(named == expected.into_iter().collect());
    assert!(values.is_subset(&big) && values.len() + 200 > big.len(), "{} of {} values", values.len(), big.len());
}

#[test]
fn without_names_trees_are_of_the_kind_that_their_pages_show() {
    let place = place();
    break_page(&place.from, PageNumber(0));
    let (report, found) = run(&place);
    let (name, _) = report.trees.iter().find(|(_, tree)| tree.kind == TreeKind::Multi).expect("it shows");
    assert!(found[name] == place.all["many"]);
}

#[test]
fn a_list_that_makes_no_sense_costs_its_key() {
    let place = place();
    let leaf = leaves_of_lists(&place)[0];
    let path = place.from.join("g1/data");
    let mut bytes = fs::read(&path).expect("there");
    let here = leaf.0 as usize * PAGE_BYTES..(leaf.0 as usize + 1) * PAGE_BYTES;
    let mut page = Page::zeroed();
    page.bytes_mut().copy_from_slice(&bytes[here.clone()]);
    // Not the head in its slot, which stands before all cells.
    let at = page.bytes().windows(4).rposition(|found| found == b"k001").expect("its key");
    page.bytes_mut()[at + 4] = 9;
    checksum::seal(leaf, &mut page);
    bytes[here].copy_from_slice(page.bytes());
    fs::write(&path, bytes).expect("writable");
    let (report, found) = run(&place);
    let mut expected = place.all.clone();
    expected.get_mut("many").expect("there").remove(&b"k001"[..]).expect("there");
    let lost: Vec<_> = report.lost.iter().map(|lost| (lost.tree.as_deref(), lost.from.as_deref(), lost.page)).collect();
    assert_eq!(lost, [(Some("many"), Some(&b"k001"[..]), Some(leaf))]);
    assert!(found == expected);
}
