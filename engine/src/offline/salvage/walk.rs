//! Walking a tree around what is damaged.
//!
//! A page that cannot be read, is not of the kind that the tree has there, was met before, or holds keys that it cannot
//! hold, is a *hole*: it is noted with the bounds that the branches above set, and with what was lost there. The trees of
//! values of a multi-value tree are walked in the same way, each when its key is met.

use crate::btree::multi::check_bare;
use crate::btree::multi::payload::Values;
use crate::btree::node::{Damage, LeafCell, Node, Payload};
use crate::btree::overflow::{run_page, run_pages};
use crate::btree::{MAX_HEIGHT, PageRef, PageSource, ReadError, TreeKind, TreeState};
use crate::error::StorageError;
use crate::ids::PageNumber;
use crate::page::{PAGE_HEADER_BYTES, PageKind};

use super::copy::Copier;
use super::place::{Hole, Part};
use super::{Lost, SalvageError, SalvageReport};

/// What a walk meets.
pub(super) enum Found<'k> {
    /// An entry of a plain tree, and its page.
    Entry(PageNumber, &'k [u8], &'k [u8]),
    /// A key of a multi-value tree, and one of its values.
    Value(&'k [u8], &'k [u8]),
}

/// Takes what is met.
type Sink<'f> = &'f mut dyn FnMut(Found<'_>) -> Result<(), SalvageError>;

/// The key bounds of a subtree.
#[derive(Clone, Copy)]
struct Bounds<'k> {
    from: Option<&'k [u8]>,
    to: Option<&'k [u8]>,
}

const ANYWHERE: Bounds<'static> = Bounds { from: None, to: None };

pub(super) struct Walk<'s, S: ?Sized> {
    pub source: &'s S,
    pub page_count: u32,
    /// A bit for each page: whether a tree has it.
    reached: Vec<u64>,
    pub holes: Vec<Hole>,
}

impl<'s, S: PageSource + ?Sized> Walk<'s, S> {
    pub fn new(source: &'s S, page_count: u32) -> Self {
        Self { source, page_count, reached: vec![0; page_count.div_ceil(64) as usize], holes: Vec::new() }
    }

    /// Whether a tree was found to have the page.
    pub fn has_reached(&self, number: PageNumber) -> bool {
        self.reached[number.0 as usize / 64] & (1 << (number.0 % 64)) != 0
    }

    /// Notes that a tree has the page, if it is one of the file.
    fn reach(&mut self, number: PageNumber) {
        if number.0 < self.page_count {
            self.reached[number.0 as usize / 64] |= 1 << (number.0 % 64);
        }
    }

    /// Walks the tree of trees.
    pub fn names(
        &mut self,
        trees: &TreeState,
        report: &mut SalvageReport,
        mut sink: impl FnMut(PageNumber, &[u8], &[u8]),
    ) -> Result<(), SalvageError> {
        let part = Part { tree: None, kind: TreeKind::Plain, key: None };
        let sink = &mut |found: Found<'_>| {
            match found {
                Found::Entry(page, name, state) => sink(page, name, state),
                Found::Value(..) => unreachable!("the tree of trees is a plain one"),
            }
            Ok(())
        };
        Tour { walk: self, report, sink }.whole_tree(part, trees)
    }

    /// Copies what can be read of a tree.
    pub fn tree(
        &mut self,
        name: &str,
        tree: &TreeState,
        copy: &mut Copier,
        report: &mut SalvageReport,
    ) -> Result<(), SalvageError> {
        let part = Part { tree: Some(name), kind: tree.kind, key: None };
        Tour { walk: self, report, sink: &mut |found| copy.take(name, found) }.whole_tree(part, tree)
    }

    /// Copies what can be read of a subtree that nothing refers to any more, into the tree of `part`.
    pub fn orphan(
        &mut self,
        part: Part<'_>,
        (number, level): (PageNumber, u8),
        copy: &mut Copier,
        report: &mut SalvageReport,
    ) -> Result<(), SalvageError> {
        let name = part.tree.expect("a tree to copy into");
        let sink = &mut |found: Found<'_>| copy.take(name, found);
        Tour { walk: self, report, sink }.subtree(part, number, level, ANYWHERE)
    }
}

/// A walk through one tree, or a part of one.
struct Tour<'t, 's, S: ?Sized> {
    walk: &'t mut Walk<'s, S>,
    report: &'t mut SalvageReport,
    sink: Sink<'t>,
}

impl<S: PageSource + ?Sized> Tour<'_, '_, S> {
    fn whole_tree(&mut self, part: Part<'_>, tree: &TreeState) -> Result<(), SalvageError> {
        let Some(root) = tree.root else { return Ok(()) };
        if !(1..=MAX_HEIGHT).contains(&usize::from(tree.height)) {
            self.report.lose(part.tree, Some(root), format!("a tree of height {}", tree.height));
            return Ok(());
        }
        self.subtree(part, root, tree.height - 1, ANYWHERE)
    }

    fn hole(&mut self, part: Part<'_>, (number, level): (PageNumber, u8), bounds: Bounds<'_>, reason: String) {
        let reason = if part.tree.is_none() { format!("names of trees: {reason}") } else { reason };
        let owned = |key: Option<&[u8]>| key.map(<[u8]>::to_vec);
        let (tree, key, from, to) =
            (part.tree.map(str::to_owned), owned(part.key), owned(bounds.from), owned(bounds.to));
        let lost = Lost {
            tree: tree.clone(),
            key: key.clone(),
            from: from.clone(),
            to: to.clone(),
            page: Some(number),
            reason,
        };
        self.report.lost.push(lost);
        self.walk.holes.push(Hole { tree, kind: part.kind, key, level, from, to });
    }

    /// Notes that a single entry is lost, or a single value.
    fn lose_entry(&mut self, part: Part<'_>, key: &[u8], page: PageNumber, reason: String) {
        let (tree, of, key) = (part.tree.map(str::to_owned), part.key.map(<[u8]>::to_vec), Some(key.to_vec()));
        self.report.lost.push(Lost { tree, key: of, from: key.clone(), to: key, page: Some(page), reason });
    }

    fn subtree(
        &mut self,
        part: Part<'_>,
        number: PageNumber,
        level: u8,
        bounds: Bounds<'_>,
    ) -> Result<(), SalvageError> {
        let here = (number, level);
        if number.0 < self.walk.page_count && self.walk.has_reached(number) {
            self.hole(part, here, bounds, format!("page {number} belongs to more than one place"));
            return Ok(());
        }
        let page = match read(self.walk.source, number)? {
            Ok(page) => page,
            Err(reason) => {
                self.walk.reach(number);
                self.hole(part, here, bounds, reason);
                return Ok(());
            }
        };
        let fits = |node: Node<'_>| {
            keys_fit(&node, bounds)?;
            if level == 0 { part.check_leaf(&node) } else { Ok(()) }
        };
        let node = match Node::at_level(&page, level).and_then(|node| fits(node).map(|()| node)) {
            Ok(node) => node,
            Err(damage) => {
                // It is not this tree's: whose it is, is to be found out.
                self.hole(part, here, bounds, format!("page {number}: {}", damage.0));
                return Ok(());
            }
        };
        self.walk.reach(number);
        for slot in 0..node.count() {
            let result = if level == 0 {
                self.entry(part, number, &node, slot)?
            } else {
                self.child(part, &node, slot, level, bounds)?
            };
            if let Err(damage) = result {
                self.bad_slot(part, here, &node, slot, damage);
            }
        }
        Ok(())
    }

    /// Notes a cell that makes no sense, under its key if that can be read.
    fn bad_slot(
        &mut self,
        part: Part<'_>,
        (number, level): (PageNumber, u8),
        node: &Node<'_>,
        slot: usize,
        damage: Damage,
    ) {
        let key = if level == 0 { node.key(slot).ok().map(<[u8]>::to_vec) } else { None };
        if level == 0 && part.kind == TreeKind::Multi && part.key.is_none() {
            // It may have named a tree of values.
            let tree = part.tree.map(str::to_owned);
            self.walk.holes.push(Hole { tree, kind: part.kind, key: None, level, from: key.clone(), to: key.clone() });
        }
        let reason = format!("page {number}, slot {slot}: {}", damage.0);
        let (tree, of) = (part.tree.map(str::to_owned), part.key.map(<[u8]>::to_vec));
        self.report.lost.push(Lost { tree, key: of, from: key.clone(), to: key, page: Some(number), reason });
    }

    fn child(
        &mut self,
        part: Part<'_>,
        node: &Node<'_>,
        slot: usize,
        level: u8,
        bounds: Bounds<'_>,
    ) -> Result<Result<(), Damage>, SalvageError> {
        let place = || {
            let from = if slot == 0 { bounds.from } else { Some(node.key(slot)?) };
            let to = if slot + 1 == node.count() { bounds.to } else { Some(node.key(slot + 1)?) };
            Ok((node.child(slot)?, Bounds { from, to }))
        };
        match place() {
            Ok((child, bounds)) => self.subtree(part, child, level - 1, bounds).map(Ok),
            Err(damage) => Ok(Err(damage)),
        }
    }

    fn entry(
        &mut self,
        part: Part<'_>,
        number: PageNumber,
        node: &Node<'_>,
        slot: usize,
    ) -> Result<Result<(), Damage>, SalvageError> {
        let cell = match node.leaf_cell(slot) {
            Ok(cell) => cell,
            Err(damage) => return Ok(Err(damage)),
        };
        match (part.key, part.kind) {
            (Some(key), _) => match check_bare(&cell) {
                Ok(()) => (self.sink)(Found::Value(key, cell.key)).map(Ok),
                Err(damage) => Ok(Err(damage)),
            },
            (None, TreeKind::Plain) => self.plain_entry(part, number, &cell).map(Ok),
            (None, TreeKind::Multi) => match cell.multi_values() {
                Ok(values) => self.values(part, cell.key, values).map(Ok),
                Err(damage) => Ok(Err(damage)),
            },
        }
    }

    fn plain_entry(&mut self, part: Part<'_>, number: PageNumber, cell: &LeafCell<'_>) -> Result<(), SalvageError> {
        let (first, length) = match cell.payload {
            Payload::Inline(value) => return (self.sink)(Found::Entry(number, cell.key, value)),
            Payload::Overflow(first, length) => (first, length as usize),
        };
        match self.long_value(first, length)? {
            Ok(value) => (self.sink)(Found::Entry(number, cell.key, &value)),
            Err((page, reason)) => {
                self.lose_entry(part, cell.key, page, reason);
                Ok(())
            }
        }
    }

    /// All values of a key, as far as they can be read.
    fn values(&mut self, part: Part<'_>, key: &[u8], values: Values<'_>) -> Result<(), SalvageError> {
        match values {
            Values::List(list) => list.iter().try_for_each(|value| (self.sink)(Found::Value(key, value))),
            Values::Tree(tree) => self.whole_tree(Part { key: Some(key), ..part }, &tree),
        }
    }

    /// A value in a run of pages, or the page of it that is lost.
    fn long_value(
        &mut self,
        first: PageNumber,
        length: usize,
    ) -> Result<Result<Vec<u8>, (PageNumber, String)>, SalvageError> {
        let (mut value, mut lost) = (Vec::with_capacity(length), None);
        for index in 0..run_pages(length) {
            let number = PageNumber(first.0.saturating_add(index));
            self.walk.reach(number);
            match run_page(self.walk.source, first, index) {
                Ok(page) => value.extend_from_slice(&page.bytes()[PAGE_HEADER_BYTES..]),
                Err(error) => lost = lost.or(Some((number, reason(error)?))),
            }
        }
        value.truncate(length);
        Ok(lost.map_or(Ok(value), Err))
    }
}

/// Whether the keys of a page are in order and within the bounds that the tree sets: else it is another's page, or an
/// older version of it.
fn keys_fit(node: &Node<'_>, bounds: Bounds<'_>) -> Result<(), Damage> {
    let mut previous: Option<&[u8]> = None;
    for slot in usize::from(!node.is_leaf())..node.count() {
        // A cell that cannot be read is told of when it is met.
        let Ok(key) = node.key(slot) else { continue };
        if previous.is_some_and(|previous| previous >= key) {
            return Err(Damage("keys out of order"));
        }
        if bounds.from.is_some_and(|from| key < from) || bounds.to.is_some_and(|to| key >= to) {
            return Err(Damage("a key outside the bounds that the branch above sets"));
        }
        previous = Some(key);
    }
    Ok(())
}

/// What is wrong with a page, in words; an error if it is not the page's fault.
pub(super) fn reason(error: ReadError) -> Result<String, SalvageError> {
    match error {
        ReadError::Storage(StorageError::Corrupted { what, .. } | StorageError::DamagedPage { what, .. }) => Ok(what),
        error => Err(error.into()),
    }
}

/// Reads a page, or says what is wrong with it.
pub(super) fn read<S: PageSource + ?Sized>(
    source: &S,
    number: PageNumber,
) -> Result<Result<PageRef<'_>, String>, SalvageError> {
    match source.page(number) {
        Ok(page) if page.kind() == Some(PageKind::Free) => Ok(Err(format!("page {number} is free"))),
        Ok(page) => Ok(Ok(page)),
        Err(error) => reason(error).map(Err),
    }
}
