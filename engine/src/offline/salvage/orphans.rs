//! Pages that no walk has reached: what hung below a page that is lost.
//!
//! Of the leaves and branches that no tree has, those that no other of them refers to are the *tops*: each hung directly
//! below something lost. A top goes back into the one hole in which it fits: by its height, its first key, and by what its
//! leaves hold. What its leaves hold also says of which kind its own tree is, if there is no such hole, or more than one.
//!
//! The tops of trees of values come last: a multi-value tree that was put back may have holes in which they fit. What is
//! still not reached then, since what referred to it turned out to be wrong, is a top itself, until nothing is left.

use std::collections::HashSet;

use crate::btree::node::Node;
use crate::btree::{MAX_HEIGHT, PageSource, TreeKind};
use crate::ids::PageNumber;
use crate::page::PageKind;
use crate::verify::Progress;

use super::copy::Copier;
use super::place::{Form, Hole, Looks, Part, Top, roots_of_values};
use super::walk::{Walk, read, reason};
use super::{Lost, SalvageError, SalvageReport};

/// Progress is told each time that so many pages were looked at.
const PROGRESS_PAGES: u32 = 1024;

/// The pages that nothing has reached.
#[derive(Default)]
struct Orphans {
    /// Leaves and branches, with what they refer to.
    nodes: Vec<(PageNumber, Vec<PageNumber>)>,
    of_values: Vec<PageNumber>,
    /// With what is wrong with them.
    unreadable: Vec<(PageNumber, String)>,
}

/// Copies what hangs below lost pages.
pub(super) fn copy<S: PageSource + ?Sized>(
    walk: &mut Walk<'_, S>,
    copy: &mut Copier,
    report: &mut SalvageReport,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), SalvageError> {
    let mut orphans = find(walk, progress)?;
    while !orphans.nodes.is_empty() {
        let tops = take_tops(&mut orphans.nodes);
        let mut known = Vec::new();
        for number in tops {
            match look(walk.source, number) {
                Some(top) => known.push(top),
                None => report.lose(None, Some(number), "a page of a tree, without a key by which to tell of which"),
            }
        }
        known.sort_by_key(|top| top.looks == Some(Looks::Bare));
        for top in &known {
            if !walk.has_reached(top.number) {
                put_back(walk, top, copy, report)?;
            }
        }
        orphans.nodes.retain(|(number, _)| !walk.has_reached(*number));
    }
    // Page 0 and what turned out to be a tree's are told of already.
    let may_be_below = walk.holes.iter().any(Hole::referred_to_pages);
    for (number, what) in orphans.unreadable {
        if may_be_below && number.0 > 0 && !walk.has_reached(number) {
            report.lose(None, Some(number), format!("{what}; it may belong to a tree, or to a long value"));
        }
    }
    // Reading them has reached the values that they refer to.
    report.ownerless_value_pages = orphans.of_values.iter().filter(|page| !walk.has_reached(**page)).count() as u64;
    Ok(())
}

/// Takes those out to which no other refers; one of them, if they refer to each other in a circle.
fn take_tops(nodes: &mut Vec<(PageNumber, Vec<PageNumber>)>) -> Vec<PageNumber> {
    let children: HashSet<PageNumber> = nodes.iter().flat_map(|(_, children)| children).copied().collect();
    let tops: Vec<_> =
        nodes.extract_if(.., |(number, _)| !children.contains(number)).map(|(number, _)| number).collect();
    if tops.is_empty() { vec![nodes.remove(0).0] } else { tops }
}

/// Copies a top to where it belongs, or into a tree of its own.
fn put_back<S: PageSource + ?Sized>(
    walk: &mut Walk<'_, S>,
    top: &Top,
    copy: &mut Copier,
    report: &mut SalvageReport,
) -> Result<(), SalvageError> {
    let here = (top.number, top.level);
    let home = match home(&walk.holes, top) {
        Ok(home) => home.clone(),
        Err(candidates) => {
            let kind = if top.looks == Some(Looks::Multi) { TreeKind::Multi } else { TreeKind::Plain };
            let name = copy.unused_name(&format!("lost-page-{}", top.number));
            let what = match top.looks {
                Some(Looks::Bare) => "keys, or values of a key, which are keys there: they are",
                Some(Looks::Multi) => "keys with many values: its tree is",
                Some(Looks::Plain) | None => "its tree is",
            };
            let of =
                if candidates.is_empty() { "unknown".into() } else { format!("one of: {}", candidates.join("; ")) };
            let reason = format!("{what} {of}; what can be read is in tree {name:?}");
            let (from, page) = (Some(top.key.clone()), Some(top.number));
            report.lost.push(Lost { tree: None, key: None, from, to: None, page, reason });
            copy.tree(&name, kind, report)?;
            return walk.orphan(Part { tree: Some(&name), kind, key: None }, here, copy, report);
        }
    };
    let part = Part { tree: home.tree.as_deref(), kind: home.kind, key: home.key.as_deref() };
    walk.orphan(part, here, copy, report)
}

/// The hole that a top belongs to, or which it may have been if that cannot be told.
fn home<'h>(holes: &'h [Hole], top: &Top) -> Result<&'h Hole, Vec<String>> {
    let mut below: Vec<&Hole> = Vec::new();
    for hole in holes.iter().filter(|hole| hole.may_have_held(top)) {
        if !below.iter().any(|other| (&other.tree, &other.key) == (&hole.tree, &hole.key)) {
            below.push(hole);
        }
    }
    let mut candidates: Vec<String> = below.iter().map(ToString::to_string).collect();
    for hole in holes.iter().filter(|hole| hole.may_have_named(top)) {
        let words = hole.to_string();
        if !candidates.contains(&words) {
            candidates.push(words);
        }
    }
    match below[..] {
        [hole] if candidates.len() == 1 && hole.tree.is_some() => Ok(hole),
        _ => Err(candidates),
    }
}

fn find<S: PageSource + ?Sized>(
    walk: &Walk<'_, S>,
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
                found.unreadable.push((number, reason(error)?));
                continue;
            }
        };
        match page.kind() {
            Some(PageKind::Leaf) => {
                found.nodes.push((number, Node::leaf(&page).map(|leaf| roots_of_values(&leaf)).unwrap_or_default()));
            }
            Some(PageKind::Branch) => {
                let children = Node::branch(&page).map(|node| children_of(&node)).unwrap_or_default();
                found.nodes.push((number, children));
            }
            Some(PageKind::Overflow) => found.of_values.push(number),
            _ => {}
        }
    }
    progress(Progress::Pages { done: walk.page_count, total: walk.page_count });
    Ok(found)
}

fn children_of(branch: &Node<'_>) -> Vec<PageNumber> {
    (0..branch.count()).filter_map(|slot| branch.child(slot).ok()).collect()
}

/// What can be told of a top; `None` if it has no key.
fn look<S: PageSource + ?Sized>(source: &S, number: PageNumber) -> Option<Top> {
    let key = first_key(source, number)?;
    let mut leaves = Leaves { source, seen: HashSet::new(), form: Form::default() };
    let level = leaves.below(number, MAX_HEIGHT)?;
    Some(Top { number, level, key, looks: leaves.form.looks() })
}

/// The least key below a page.
fn first_key<S: PageSource + ?Sized>(source: &S, top: PageNumber) -> Option<Vec<u8>> {
    let (mut number, mut separator) = (top, None);
    for _ in 0..MAX_HEIGHT {
        let Ok(Ok(page)) = read(source, number) else {
            // Below a damaged first child: the key that separates it from the second is not far off.
            return separator;
        };
        if let Ok(leaf) = Node::leaf(&page) {
            return leaf.key(0).ok().map(<[u8]>::to_vec);
        }
        let branch = Node::branch(&page).ok()?;
        separator = branch.key(1).ok().map(<[u8]>::to_vec).or(separator);
        number = branch.child(0).ok()?;
    }
    None
}

/// A look at all leaves of a subtree, each page once.
struct Leaves<'s, S: ?Sized> {
    source: &'s S,
    seen: HashSet<PageNumber>,
    form: Form,
}

impl<S: PageSource + ?Sized> Leaves<'_, S> {
    /// Counts the cells of the leaves below a page. Its level, by the first leaf that can be read; a branch without one is
    /// taken for one of leaves.
    fn below(&mut self, number: PageNumber, levels_left: usize) -> Option<u8> {
        if levels_left == 0 || !self.seen.insert(number) {
            return None;
        }
        let Ok(Ok(page)) = read(self.source, number) else { return None };
        if let Ok(leaf) = Node::leaf(&page) {
            self.form.add(&leaf);
            return Some(0);
        }
        let mut level = None;
        for child in children_of(&Node::branch(&page).ok()?) {
            let below = self.below(child, levels_left - 1);
            level = level.or(below);
        }
        Some(level.unwrap_or(0) + 1)
    }
}
