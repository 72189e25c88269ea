//! Proving that a tree is sound: every page, every bound, every count.

use crate::error::StorageError;
use crate::ids::{PageNumber, TxnId};
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES, Page, PageKind};

use super::multi::check_bare;
use super::multi::payload::{Values, list_fits};
use super::node::{Damage, LeafCell, Node, Payload, head_of, overflows};
use super::overflow::run_pages;
use super::{MAX_HEIGHT, MAX_KEY_BYTES, PageRef, PageSource, ReadError, TreeKind, TreeState};

/// Who is told what a check meets.
pub(crate) trait TreeVisitor {
    /// A run of pages belongs to the tree. `false` if that cannot be: the check does not look into them then.
    fn reach(&mut self, first: PageNumber, count: u32) -> bool;
    /// An entry; its value, if the tree is a plain one and it stands in the leaf.
    fn entry(&mut self, page: PageNumber, key: &[u8], version: TxnId, value: Option<&[u8]>);
    /// An entry of a tree of values.
    fn value(&mut self, page: PageNumber, version: TxnId);
    /// Something is wrong with a page.
    fn problem(&mut self, page: PageNumber, what: String);
}

/// What the leaves of a tree hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// What the tree's kind says.
    Entries(TreeKind),
    /// The values of one key.
    Values,
}

struct Check<'c, 'v, S: ?Sized, V: ?Sized> {
    source: &'c S,
    visitor: &'v mut V,
    content: Content,
    entries: u64,
    values: u64,
    pages: u64,
}

/// Checks a tree. Damage goes to the visitor; only what is not the tree's fault is an error.
pub(crate) fn check_tree<S: PageSource + ?Sized, V: TreeVisitor + ?Sized>(
    source: &S,
    tree: &TreeState,
    visitor: &mut V,
) -> Result<(), ReadError> {
    let Some(root) = tree.root else {
        if *tree != TreeState::empty(tree.kind) {
            visitor.problem(PageNumber(0), "a tree without a root, yet not empty".to_owned());
        }
        return Ok(());
    };
    walk(source, tree, root, Content::Entries(tree.kind), visitor).map(drop)
}

/// Checks a tree with a root, and returns how many pages were met.
fn walk<S: PageSource + ?Sized, V: TreeVisitor + ?Sized>(
    source: &S,
    tree: &TreeState,
    root: PageNumber,
    content: Content,
    visitor: &mut V,
) -> Result<u64, ReadError> {
    if !(1..=MAX_HEIGHT).contains(&usize::from(tree.height)) {
        visitor.problem(root, format!("a tree of height {}", tree.height));
        return Ok(0);
    }
    let mut check = Check { source, visitor, content, entries: 0, values: 0, pages: 0 };
    check.subtree(root, tree.height - 1, None, None, true)?;
    let (entries, values, pages) = (check.entries, check.values, check.pages);
    if (entries, pages) != (tree.entries, tree.pages) {
        let counted = format!("{entries} entries in {pages} pages");
        visitor.problem(root, format!("the tree has {counted}, not {} in {} as it says", tree.entries, tree.pages));
    }
    if values != tree.values {
        visitor.problem(root, format!("the tree has {values} values, not {} as it says", tree.values));
    }
    Ok(pages)
}

impl<'c, S: PageSource + ?Sized, V: TreeVisitor + ?Sized> Check<'c, '_, S, V> {
    /// Takes note of pages and reads the first of them; `None` if that is not possible.
    fn reach(&mut self, first: PageNumber, count: u32) -> Result<Option<PageRef<'c>>, ReadError> {
        self.pages += u64::from(count);
        if !self.visitor.reach(first, count) {
            return Ok(None);
        }
        self.read(first)
    }

    fn read(&mut self, number: PageNumber) -> Result<Option<PageRef<'c>>, ReadError> {
        match self.source.page(number) {
            Ok(page) => Ok(Some(page)),
            Err(ReadError::Storage(StorageError::Corrupted { what, .. } | StorageError::DamagedPage { what, .. })) => {
                self.visitor.problem(number, what);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Checks what is under a page. Keys must be at or above `lower` and below `upper`.
    fn subtree(
        &mut self,
        number: PageNumber,
        level: u8,
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
        is_root: bool,
    ) -> Result<(), ReadError> {
        let Some(page) = self.reach(number, 1)? else { return Ok(()) };
        let checked = Node::at_level(&page, level).and_then(|node| {
            check_layout(&page, &node)?;
            check_keys(&node, lower, upper)?;
            if node.count() == 0 {
                return Err(Damage("a page without cells"));
            }
            if is_root && level > 0 && node.count() == 1 {
                return Err(Damage("a root with only one child"));
            }
            Ok(node)
        });
        let node = match checked {
            Ok(node) => node,
            Err(damage) => {
                self.visitor.problem(number, damage.0.to_owned());
                return Ok(());
            }
        };
        for slot in 0..node.count() {
            let result = if level == 0 {
                self.entry(number, &node, slot)?
            } else {
                self.child(&node, slot, level, lower, upper)?
            };
            if let Err(damage) = result {
                self.visitor.problem(number, damage.0.to_owned());
                return Ok(());
            }
        }
        Ok(())
    }

    fn child(
        &mut self,
        node: &Node<'_>,
        slot: usize,
        level: u8,
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
    ) -> Result<Result<(), Damage>, ReadError> {
        let bounds = || {
            let low = if slot == 0 { lower } else { Some(node.key(slot)?) };
            let high = if slot + 1 == node.count() { upper } else { Some(node.key(slot + 1)?) };
            Ok((node.child(slot)?, low, high))
        };
        match bounds() {
            Ok((child, low, high)) => self.subtree(child, level - 1, low, high, false).map(Ok),
            Err(damage) => Ok(Err(damage)),
        }
    }

    fn entry(&mut self, number: PageNumber, node: &Node<'_>, slot: usize) -> Result<Result<(), Damage>, ReadError> {
        let cell = match node.leaf_cell(slot) {
            Ok(cell) => cell,
            Err(damage) => return Ok(Err(damage)),
        };
        self.entries += 1;
        match self.content {
            Content::Entries(TreeKind::Plain) => self.plain_entry(number, &cell),
            Content::Entries(TreeKind::Multi) => self.multi_entry(number, &cell),
            Content::Values => {
                self.visitor.value(number, cell.version);
                Ok(check_bare(&cell))
            }
        }
    }

    fn plain_entry(&mut self, number: PageNumber, cell: &LeafCell<'_>) -> Result<Result<(), Damage>, ReadError> {
        let (value, bytes) = match cell.payload {
            Payload::Inline(value) => (Some(value), value.len()),
            Payload::Overflow(_, length) => (None, length as usize),
        };
        if overflows(cell.key.len(), bytes) != value.is_none() {
            return Ok(Err(Damage("a value in the wrong place for its length")));
        }
        self.visitor.entry(number, cell.key, cell.version, value);
        if let Payload::Overflow(first, length) = cell.payload {
            self.run(first, run_pages(length as usize))?;
        }
        Ok(Ok(()))
    }

    fn multi_entry(&mut self, number: PageNumber, cell: &LeafCell<'_>) -> Result<Result<(), Damage>, ReadError> {
        let values = match (cell.multi_values(), cell.payload) {
            (Err(damage), _) => return Ok(Err(damage)),
            (Ok(Values::List(_)), Payload::Inline(list)) if !list_fits(cell.key.len(), list.len()) => {
                return Ok(Err(Damage("a list of values in the wrong place for its length")));
            }
            (Ok(values), _) => values,
        };
        self.values = self.values.saturating_add(values.count());
        self.visitor.entry(number, cell.key, cell.version, None);
        if let Values::Tree(tree) = &values {
            let root = tree.root.expect("a tree of values has a root");
            self.pages += walk(self.source, tree, root, Content::Values, self.visitor)?;
        }
        Ok(Ok(()))
    }

    fn run(&mut self, first: PageNumber, count: u32) -> Result<(), ReadError> {
        let mut page = self.reach(first, count)?;
        for index in 0..count {
            let Some(current) = page else { return Ok(()) };
            let number = PageNumber(first.0 + index);
            if current.kind() != Some(PageKind::Overflow) {
                self.visitor.problem(number, "not an overflow page where a value has one".to_owned());
            }
            if current.bytes()[9..PAGE_HEADER_BYTES].iter().any(|byte| *byte != 0) {
                self.visitor.problem(number, "an overflow page with more in its header than its kind".to_owned());
            }
            page = if index + 1 < count { self.read(number.next())? } else { None };
        }
        Ok(())
    }
}

/// Whether cells lie apart from each other, and the header counts their bytes.
fn check_layout(page: &Page, node: &Node<'_>) -> Result<(), Damage> {
    if page.bytes()[9] != 0 {
        return Err(Damage("flags that do not exist"));
    }
    let mut cells = (0..node.count())
        .map(|slot| Ok((node.offset(slot)?, node.cell_bytes(slot)?)))
        .collect::<Result<Vec<_>, Damage>>()?;
    cells.sort_unstable();
    if cells.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        return Err(Damage("cells overlap"));
    }
    let live: usize = cells.iter().map(|(_, bytes)| bytes).sum();
    if PAGE_BYTES - node.cells_start() != live + node.dead_bytes() {
        return Err(Damage("a wrong count of dead bytes"));
    }
    Ok(())
}

fn check_keys(node: &Node<'_>, lower: Option<&[u8]>, upper: Option<&[u8]>) -> Result<(), Damage> {
    let mut previous: Option<&[u8]> = None;
    for slot in 0..node.count() {
        let key = node.key(slot)?;
        if node.head(slot) != head_of(key) {
            return Err(Damage("a slot whose head is not that of its key"));
        }
        if slot == 0 && !node.is_leaf() {
            if !key.is_empty() {
                return Err(Damage("the first child of a branch has a key"));
            }
            continue;
        }
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(Damage("a key of a length that keys cannot have"));
        }
        if previous.is_some_and(|previous| previous >= key) {
            return Err(Damage("keys out of order"));
        }
        if lower.is_some_and(|lower| key < lower) || upper.is_some_and(|upper| key >= upper) {
            return Err(Damage("a key outside the bounds that the branch above sets"));
        }
        previous = Some(key);
    }
    Ok(())
}
