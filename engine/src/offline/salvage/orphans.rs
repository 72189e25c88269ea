//! Pages that no walk has reached: what hung below a page that is lost.
//!
//! Of the leaves and branches that no tree has, those that no other of them refers to are the *tops*: each hung directly
//! below a lost page. A top goes back into the tree of the one hole in which its height and its first key fit.

use std::collections::HashSet;

use crate::btree::node::Node;
use crate::btree::{MAX_HEIGHT, PageSource, TreeKind};
use crate::ids::PageNumber;
use crate::page::PageKind;
use crate::verify::Progress;

use super::copy::Copier;
use super::walk::{Walk, read, reason};
use super::{Lost, SalvageError, SalvageReport};

/// Progress is told each time that so many pages were looked at.
const PROGRESS_PAGES: u32 = 1024;

/// The pages that nothing has reached, and which of them others refer to.
#[derive(Default)]
struct Orphans {
    nodes: Vec<PageNumber>,
    children: HashSet<PageNumber>,
    of_values: Vec<PageNumber>,
}

/// Copies what hangs below lost pages.
pub(super) fn copy<S: PageSource + ?Sized>(
    walk: &mut Walk<'_, S>,
    copy: &mut Copier,
    report: &mut SalvageReport,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), SalvageError> {
    let orphans = find(walk, report, progress)?;
    for top in orphans.nodes.iter().filter(|number| !orphans.children.contains(number)) {
        let Some((level, key)) = first_key(walk.source, *top) else {
            report.lose(None, Some(*top), "a page of a tree, without a key by which to tell of which");
            continue;
        };
        let mut homes: Vec<_> = walk.holes.iter().filter(|hole| hole.may_have_held(&key, level)).collect();
        homes.dedup_by(|a, b| a.tree == b.tree);
        let only = match &homes[..] {
            [hole] => hole.tree.clone().map(|name| (name, hole.kind)),
            _ => None,
        };
        let (name, kind) = match only {
            Some(home) => home,
            None => {
                let names: Vec<String> = homes.iter().filter_map(|hole| hole.tree.clone()).collect();
                let name = copy.unused_name(&format!("lost-page-{top}"));
                let candidates = if names.is_empty() { "unknown".into() } else { format!("one of {names:?}") };
                let reason = format!("its tree is {candidates}; what can be read is in tree {name:?}");
                report.lost.push(Lost { tree: None, from: Some(key), to: None, page: Some(*top), reason });
                copy.tree(&name, TreeKind::Plain, report)?;
                (name, TreeKind::Plain)
            }
        };
        walk.orphan((&name, kind), *top, level, copy, report)?;
    }
    // Reading them has reached the values that they refer to.
    report.ownerless_value_pages = orphans.of_values.iter().filter(|page| !walk.has_reached(**page)).count() as u64;
    Ok(())
}

fn find<S: PageSource + ?Sized>(
    walk: &Walk<'_, S>,
    report: &mut SalvageReport,
    progress: &mut dyn FnMut(Progress),
) -> Result<Orphans, SalvageError> {
    let mut found = Orphans::default();
    for number in 0..walk.page_count {
        if number.is_multiple_of(PROGRESS_PAGES) {
            progress(Progress::Pages { done: number, total: walk.page_count });
        }
        let number = PageNumber(number);
        if walk.has_reached(number) {
            continue;
        }
        let page = match walk.source.page(number) {
            Ok(page) => page,
            Err(error) => {
                // Page 0 and damage within a tree are told of already.
                let what = reason(error)?;
                if number.0 > 0 && walk.holes.iter().any(|hole| hole.level > 0) {
                    report.lose(None, Some(number), format!("{what}; it may belong to a tree, or to a long value"));
                }
                continue;
            }
        };
        match page.kind() {
            Some(PageKind::Leaf) => found.nodes.push(number),
            Some(PageKind::Branch) => {
                found.nodes.push(number);
                if let Ok(node) = Node::branch(&page) {
                    found.children.extend((0..node.count()).filter_map(|slot| node.child(slot).ok()));
                }
            }
            Some(PageKind::Overflow) => found.of_values.push(number),
            _ => {}
        }
    }
    progress(Progress::Pages { done: walk.page_count, total: walk.page_count });
    Ok(found)
}

/// The level of a page, and the least key below it.
fn first_key<S: PageSource + ?Sized>(source: &S, top: PageNumber) -> Option<(u8, Vec<u8>)> {
    let (mut number, mut level, mut separator) = (top, 0, None);
    loop {
        let Ok(Ok(page)) = read(source, number) else {
            // Below a damaged first child: the key that separates it from the second is not far off.
            return separator.map(|key| (level, key));
        };
        if let Ok(leaf) = Node::leaf(&page) {
            return Some((level, leaf.key(0).ok()?.to_vec()));
        }
        let branch = Node::branch(&page).ok()?;
        level += 1;
        if usize::from(level) >= MAX_HEIGHT {
            return None;
        }
        separator = branch.key(1).ok().map(<[u8]>::to_vec).or(separator);
        number = branch.child(0).ok()?;
    }
}
