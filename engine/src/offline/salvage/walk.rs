//! Walking a tree around what is damaged.
//!
//! A page that cannot be read, is not of the kind that the tree has there, was met before, or holds keys that it cannot
//! hold, is a *hole*: it is noted with the bounds that the branches above set, and with what was lost there.

use crate::btree::multi::check_bare;
use crate::btree::multi::payload::Values;
use crate::btree::node::{Damage, LeafCell, Node, Payload};
use crate::btree::overflow::{run_page, run_pages};
use crate::btree::{MAX_HEIGHT, PageRef, PageSource, ReadError, TreeKind, TreeState};
use crate::error::StorageError;
use crate::ids::PageNumber;
use crate::page::{PAGE_HEADER_BYTES, PageKind};

use super::copy::Copier;
use super::{Lost, SalvageError, SalvageReport};

/// A page of a tree that is lost.
#[derive(Clone, Debug)]
pub(super) struct Hole {
    /// Whose it is; `None` for the tree of trees.
    pub tree: Option<String>,
    pub kind: TreeKind,
    /// 0 for a leaf.
    pub level: u8,
    pub from: Option<Vec<u8>>,
    pub to: Option<Vec<u8>>,
}

impl Hole {
    /// Whether what begins with this key, at the level below, may have hung here.
    pub fn may_have_held(&self, key: &[u8], level: u8) -> bool {
        self.level == level + 1
            && self.from.as_ref().is_none_or(|from| from.as_slice() <= key)
            && self.to.as_ref().is_none_or(|to| key < to.as_slice())
    }
}

/// Takes entries, and values of entries that have many: the page, the key, the value.
type Sink<'f> = &'f mut dyn FnMut(PageNumber, &[u8], &[u8]) -> Result<(), SalvageError>;

/// What is being walked.
#[derive(Clone, Copy)]
struct Of<'n> {
    /// The name; `None` for the tree of trees.
    name: Option<&'n str>,
    kind: TreeKind,
    /// In a tree of values: the key whose values they are.
    values_of: Option<&'n [u8]>,
}

/// The key bounds of a subtree.
#[derive(Clone, Copy)]
struct Bounds<'k> {
    from: Option<&'k [u8]>,
    to: Option<&'k [u8]>,
}

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

    /// Notes that a tree has the page; `false` if it is none of the file, or one has it already.
    fn reach(&mut self, number: PageNumber) -> bool {
        if number.0 >= self.page_count || self.has_reached(number) {
            return false;
        }
        self.reached[number.0 as usize / 64] |= 1 << (number.0 % 64);
        true
    }

    /// Walks the tree of trees.
    pub fn names(&mut self, trees: &TreeState, report: &mut SalvageReport, sink: Sink<'_>) -> Result<(), SalvageError> {
        let of = Of { name: None, kind: TreeKind::Plain, values_of: None };
        self.whole_tree(of, trees, report, sink)
    }

    /// Copies what can be read of a tree.
    pub fn tree(
        &mut self,
        name: &str,
        tree: &TreeState,
        copy: &mut Copier,
        report: &mut SalvageReport,
    ) -> Result<(), SalvageError> {
        let of = Of { name: Some(name), kind: tree.kind, values_of: None };
        self.whole_tree(of, tree, report, &mut |_, key, value| copy.put(name, key, value))
    }

    /// Copies what can be read of a subtree that nothing refers to any more, into the tree `name`.
    pub fn orphan(
        &mut self,
        (name, kind): (&str, TreeKind),
        number: PageNumber,
        level: u8,
        copy: &mut Copier,
        report: &mut SalvageReport,
    ) -> Result<(), SalvageError> {
        let anywhere = Bounds { from: None, to: None };
        let of = Of { name: Some(name), kind, values_of: None };
        self.subtree(of, number, level, anywhere, report, &mut |_, key, value| copy.put(name, key, value))
    }

    fn whole_tree(
        &mut self,
        of: Of<'_>,
        tree: &TreeState,
        report: &mut SalvageReport,
        sink: Sink<'_>,
    ) -> Result<(), SalvageError> {
        let Some(root) = tree.root else { return Ok(()) };
        if !(1..=MAX_HEIGHT).contains(&usize::from(tree.height)) {
            report.lose(of.name, Some(root), format!("a tree of height {}", tree.height));
            return Ok(());
        }
        self.subtree(of, root, tree.height - 1, Bounds { from: None, to: None }, report, sink)
    }

    fn hole(
        &mut self,
        of: Of<'_>,
        (number, level): (PageNumber, u8),
        bounds: Bounds<'_>,
        report: &mut SalvageReport,
        reason: String,
    ) {
        let (tree, page) = (of.name.map(str::to_owned), Some(number));
        // What hung below a lost page of a tree of values is found, but not told apart from other trees.
        if let Some(key) = of.values_of {
            let (key, reason) = (Some(key.to_vec()), format!("values of the key: {reason}"));
            report.lost.push(Lost { tree, from: key.clone(), to: key, page, reason });
            return;
        }
        let (from, to) = (bounds.from.map(<[u8]>::to_vec), bounds.to.map(<[u8]>::to_vec));
        let reason = if of.name.is_none() { format!("names of trees: {reason}") } else { reason };
        self.holes.push(Hole { tree: tree.clone(), kind: of.kind, level, from: from.clone(), to: to.clone() });
        report.lost.push(Lost { tree, from, to, page, reason });
    }

    fn subtree(
        &mut self,
        of: Of<'_>,
        number: PageNumber,
        level: u8,
        bounds: Bounds<'_>,
        report: &mut SalvageReport,
        sink: Sink<'_>,
    ) -> Result<(), SalvageError> {
        let here = (number, level);
        if number.0 < self.page_count && self.has_reached(number) {
            self.hole(of, here, bounds, report, format!("page {number} belongs to more than one place"));
            return Ok(());
        }
        let page = match read(self.source, number)? {
            Ok(page) => page,
            Err(reason) => {
                self.reach(number);
                self.hole(of, here, bounds, report, reason);
                return Ok(());
            }
        };
        let node = match Node::at_level(&page, level).and_then(|node| keys_fit(&node, bounds).map(|()| node)) {
            Ok(node) => node,
            Err(damage) => {
                // It is not this tree's: whose it is, is to be found out.
                self.hole(of, here, bounds, report, format!("page {number}: {}", damage.0));
                return Ok(());
            }
        };
        self.reach(number);
        for slot in 0..node.count() {
            let result = if level == 0 {
                match node.leaf_cell(slot) {
                    Ok(cell) => self.entry(of, number, &cell, report, sink)?,
                    Err(damage) => Err(damage),
                }
            } else {
                self.child(of, &node, slot, level, bounds, report, sink)?
            };
            if let Err(damage) = result {
                report.lose(of.name, Some(number), format!("page {number}, slot {slot}: {}", damage.0));
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a step of the walk, with all that it knows")]
    fn child(
        &mut self,
        of: Of<'_>,
        node: &Node<'_>,
        slot: usize,
        level: u8,
        bounds: Bounds<'_>,
        report: &mut SalvageReport,
        sink: Sink<'_>,
    ) -> Result<Result<(), Damage>, SalvageError> {
        let place = || {
            let from = if slot == 0 { bounds.from } else { Some(node.key(slot)?) };
            let to = if slot + 1 == node.count() { bounds.to } else { Some(node.key(slot + 1)?) };
            Ok((node.child(slot)?, Bounds { from, to }))
        };
        match place() {
            Ok((child, bounds)) => self.subtree(of, child, level - 1, bounds, report, sink).map(Ok),
            Err(damage) => Ok(Err(damage)),
        }
    }

    fn entry(
        &mut self,
        of: Of<'_>,
        number: PageNumber,
        cell: &LeafCell<'_>,
        report: &mut SalvageReport,
        sink: Sink<'_>,
    ) -> Result<Result<(), Damage>, SalvageError> {
        match (of.values_of, of.kind) {
            (Some(key), _) => match check_bare(cell) {
                Ok(()) => sink(number, key, cell.key).map(Ok),
                Err(damage) => Ok(Err(damage)),
            },
            (None, TreeKind::Plain) => self.plain_entry(of, number, cell, report, sink).map(Ok),
            (None, TreeKind::Multi) => match cell.multi_values() {
                Ok(Values::List(list)) => list.iter().try_for_each(|value| sink(number, cell.key, value)).map(Ok),
                Ok(Values::Tree(values)) => {
                    let of = Of { values_of: Some(cell.key), ..of };
                    self.whole_tree(of, &values, report, sink).map(Ok)
                }
                Err(damage) => Ok(Err(damage)),
            },
        }
    }

    fn plain_entry(
        &mut self,
        of: Of<'_>,
        number: PageNumber,
        cell: &LeafCell<'_>,
        report: &mut SalvageReport,
        sink: Sink<'_>,
    ) -> Result<(), SalvageError> {
        let (first, length) = match cell.payload {
            Payload::Inline(value) => return sink(number, cell.key, value),
            Payload::Overflow(first, length) => (first, length as usize),
        };
        match self.value(first, length)? {
            Ok(value) => sink(number, cell.key, &value),
            Err((page, reason)) => {
                let (tree, key) = (of.name.map(str::to_owned), Some(cell.key.to_vec()));
                report.lost.push(Lost { tree, from: key.clone(), to: key, page: Some(page), reason });
                Ok(())
            }
        }
    }

    /// A value in a run of pages, or the page of it that is lost.
    fn value(
        &mut self,
        first: PageNumber,
        length: usize,
    ) -> Result<Result<Vec<u8>, (PageNumber, String)>, SalvageError> {
        let (mut value, mut lost) = (Vec::with_capacity(length), None);
        for index in 0..run_pages(length) {
            let number = PageNumber(first.0.saturating_add(index));
            self.reach(number);
            match run_page(self.source, first, index) {
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
