//! Walking over a tree in both directions.
//!
//! A cursor holds one page: the leaf it stands in. Branches are looked up again when a leaf ends, once for a hundred
//! entries or so; so a cursor is small, and standing still it holds nothing that others wait for but that leaf.

use std::ops::Range;

use crate::ids::{PageNumber, TxnId};

use super::ahead::Ahead;
use super::node::{Damage, Node, Payload};
use super::search::{Step, checked_height};
use super::{MAX_HEIGHT, MAX_KEY_BYTES, PageRef, PageSource, ReadError, TreeKind, TreeState, Value, damaged};

/// A place in a tree, as its source shows it.
///
/// A new cursor stands nowhere: `next` goes to the first entry then, and `previous` to the last. A cursor that ran off
/// an end comes back to the entry at that end when it is turned round. After an error it stands nowhere.
pub struct Cursor<'a, S: PageSource + ?Sized> {
    source: &'a S,
    tree: TreeState,
    steps: [Step; MAX_HEIGHT],
    standing: Standing,
    leaf: Option<PageRef<'a>>,
    /// How many entries the leaf has.
    leaf_entries: usize,
    ahead: Ahead<'a>,
    entry: EntryPlace,
}

/// Where a cursor is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Nowhere,
    AtEntry,
    BeforeFirst,
    BehindLast,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

/// The slot beside one of `count`.
fn beside(slot: usize, count: usize, direction: Direction) -> Option<usize> {
    match direction {
        Direction::Forward => Some(slot + 1).filter(|slot| *slot < count),
        Direction::Back => slot.checked_sub(1),
    }
}

/// The current entry, as offsets in the leaf.
#[derive(Clone, Copy, Default)]
struct EntryPlace {
    slot: usize,
    key_start: usize,
    payload_start: usize,
    payload_end: usize,
    run: Option<(PageNumber, u32)>,
    version: TxnId,
}

impl<'a, S: PageSource + ?Sized> Cursor<'a, S> {
    /// A cursor over `tree`, standing nowhere.
    #[doc(hidden)]
    #[must_use]
    pub fn new(source: &'a S, tree: TreeState) -> Self {
        Self {
            source,
            tree,
            steps: [Step::default(); MAX_HEIGHT],
            standing: Standing::Nowhere,
            leaf: None,
            leaf_entries: 0,
            ahead: Ahead::default(),
            entry: EntryPlace::default(),
        }
    }

    /// Goes to the first entry. `false` if there is none.
    pub fn first(&mut self) -> Result<bool, ReadError> {
        self.edge(Direction::Forward)
    }

    /// Goes to the last entry. `false` if there is none.
    pub fn last(&mut self) -> Result<bool, ReadError> {
        self.edge(Direction::Back)
    }

    /// Goes to the first entry whose key is `key` or above. `false` if there is none.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool, ReadError> {
        let Some(found) = self.descend_to(key)? else { return Ok(false) };
        match found {
            (Ok(slot), _) => self.stand(slot),
            (Err(slot), count) if slot < count => self.stand(slot),
            (Err(_), _) => self.turn_leaf(Direction::Forward),
        }
    }

    /// Goes to the last entry whose key is `key` or below. `false` if there is none.
    pub fn seek_back(&mut self, key: &[u8]) -> Result<bool, ReadError> {
        let Some(found) = self.descend_to(key)? else { return Ok(false) };
        match found {
            (Ok(slot), _) => self.stand(slot),
            (Err(0), _) => self.turn_leaf(Direction::Back),
            (Err(slot), _) => self.stand(slot - 1),
        }
    }

    /// Goes to the next entry. `false` if there is none.
    #[expect(clippy::should_implement_trait, reason = "a cursor is no iterator: what it shows is borrowed from it")]
    pub fn next(&mut self) -> Result<bool, ReadError> {
        match self.standing {
            Standing::Nowhere | Standing::BeforeFirst => self.first(),
            Standing::BehindLast => Ok(false),
            Standing::AtEntry if self.entry.slot + 1 < self.leaf_entries => self.step_to(self.entry.slot + 1),
            Standing::AtEntry => self.turn_leaf(Direction::Forward),
        }
    }

    /// Goes to the entry before. `false` if there is none.
    pub fn previous(&mut self) -> Result<bool, ReadError> {
        match self.standing {
            Standing::Nowhere | Standing::BehindLast => self.last(),
            Standing::BeforeFirst => Ok(false),
            Standing::AtEntry if self.entry.slot > 0 => self.step_to(self.entry.slot - 1),
            Standing::AtEntry => self.turn_leaf(Direction::Back),
        }
    }

    /// Whether the cursor stands at an entry.
    #[must_use]
    pub fn is_at_entry(&self) -> bool {
        self.standing == Standing::AtEntry
    }

    /// The current key.
    ///
    /// # Panics
    /// When the cursor stands at no entry.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.current_leaf().bytes()[self.entry.key_start..self.entry.payload_start]
    }

    /// The transaction that wrote the current entry.
    ///
    /// # Panics
    /// When the cursor stands at no entry.
    #[must_use]
    pub fn version(&self) -> TxnId {
        assert!(self.is_at_entry(), "the cursor stands at no entry");
        self.entry.version
    }

    /// The current value.
    ///
    /// # Panics
    /// When the cursor stands at no entry.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        let leaf = self.current_leaf();
        match self.entry.run {
            None => Value::borrowed(&leaf.bytes()[self.entry.payload_start..self.entry.payload_end]),
            Some((first, length)) => Value::in_run(self.source, first, length),
        }
    }

    #[inline]
    fn current_leaf(&self) -> &PageRef<'a> {
        assert!(self.standing == Standing::AtEntry, "the cursor stands at no entry");
        self.leaf.as_ref().expect("an entry stands in a leaf")
    }

    /// Where the payload of the current entry stands in its leaf, which it is to be read from by who knows what it is.
    pub(super) fn place_in_leaf(&self) -> Result<(PageNumber, PageRef<'a>, Range<usize>), ReadError> {
        let (leaf, number) = (self.current_leaf().clone(), self.steps[self.branches()].page);
        if self.entry.run.is_some() {
            return Err(damaged(self.source, number, Damage("an overflow run in a multi-value tree")));
        }
        Ok((number, leaf, self.entry.payload_start..self.entry.payload_end))
    }

    /// Says that it is damage if the current entry is more than a key, or one of a length that keys cannot have: entries
    /// of a tree of values are nothing else, and a value is what is served.
    pub(super) fn expect_bare(&mut self) -> Result<(), ReadError> {
        let entry = &self.entry;
        let what = if entry.run.is_some() || entry.payload_start != entry.payload_end {
            "more than a value in a tree of values"
        } else if !(1..=MAX_KEY_BYTES).contains(&(entry.payload_start - entry.key_start)) {
            "a value of a length that values cannot have"
        } else {
            return Ok(());
        };
        Err(self.fail(self.steps[self.branches()].page, Damage(what)))
    }

    /// How many branches are above a leaf.
    fn branches(&self) -> usize {
        usize::from(self.tree.height) - 1
    }

    fn fail(&mut self, number: PageNumber, damage: Damage) -> ReadError {
        self.standing = Standing::Nowhere;
        self.leaf = None;
        damaged(self.source, number, damage)
    }

    fn run_off(&mut self, direction: Direction) -> bool {
        self.leaf = None;
        self.standing = match direction {
            Direction::Forward => Standing::BehindLast,
            Direction::Back => Standing::BeforeFirst,
        };
        false
    }

    /// The root, if there is one, the height is possible, and the tree is one to be read by its values. Until a descent has ended well, the cursor stands nowhere.
    fn begin(&mut self) -> Result<Option<PageNumber>, ReadError> {
        self.standing = Standing::Nowhere;
        self.leaf = None;
        if self.tree.kind != TreeKind::Plain {
            return Err(ReadError::OtherKind(self.tree.kind));
        }
        let Some(root) = self.tree.root else { return Ok(None) };
        checked_height(self.source, root, &self.tree)?;
        Ok(Some(root))
    }

    fn edge(&mut self, direction: Direction) -> Result<bool, ReadError> {
        match self.begin()? {
            Some(root) => self.descend_edge(root, 0, direction),
            None => Ok(false),
        }
    }

    /// Goes down from a page at depth `index` along one edge.
    fn descend_edge(&mut self, from: PageNumber, index: usize, direction: Direction) -> Result<bool, ReadError> {
        let mut number = from;
        for index in index..self.branches() {
            let page = self.source.page(number)?;
            let choose = |node: Node<'_>| {
                let slot = if direction == Direction::Forward { 0 } else { node.count().saturating_sub(1) };
                Ok((slot, node.child(slot)?))
            };
            let (slot, child) = Node::branch(&page).and_then(choose).map_err(|damage| self.fail(number, damage))?;
            self.steps[index] = Step { page: number, slot: slot as u16 };
            number = child;
        }
        let count = self.enter_leaf(number)?;
        self.look_ahead(direction);
        self.stand(if direction == Direction::Forward { 0 } else { count - 1 })
    }

    /// Goes down to where `key` is or would be: the result of the search in the leaf, and how many entries it has.
    #[expect(clippy::type_complexity, reason = "the result of a binary search with one more number")]
    fn descend_to(&mut self, key: &[u8]) -> Result<Option<(Result<usize, usize>, usize)>, ReadError> {
        let Some(mut number) = self.begin()? else { return Ok(None) };
        for index in 0..self.branches() {
            let page = self.source.page(number)?;
            let choose = |node: Node<'_>| {
                let slot = node.child_slot(key)?;
                Ok((slot, node.child(slot)?))
            };
            let (slot, child) = Node::branch(&page).and_then(choose).map_err(|damage| self.fail(number, damage))?;
            self.steps[index] = Step { page: number, slot: slot as u16 };
            number = child;
        }
        let count = self.enter_leaf(number)?;
        let leaf = self.leaf.as_ref().expect("just entered");
        let found = Node::leaf(leaf).and_then(|node| node.find(key));
        Ok(Some((found.map_err(|damage| self.fail(number, damage))?, count)))
    }

    /// Looks ahead to the next leaf, if it is under the same branch.
    fn look_ahead(&mut self, direction: Direction) {
        let Some(Step { page, slot }) = self.branches().checked_sub(1).map(|index| self.steps[index]) else { return };
        let child = |branch| {
            let node = Node::branch(branch).ok()?;
            node.child(beside(usize::from(slot), node.count(), direction)?).ok()
        };
        let next = self.source.page_at_hand(page).and_then(child);
        let next = next.and_then(|number| self.source.page_at_hand(number));
        self.ahead = Ahead::new(next, self.leaf_entries);
    }

    /// Takes hold of a leaf; returns how many entries it has, at least one.
    fn enter_leaf(&mut self, number: PageNumber) -> Result<usize, ReadError> {
        let page = self.source.page(number)?;
        let count = match Node::leaf(&page) {
            Ok(node) if node.count() > 0 => node.count(),
            Ok(_) => return Err(self.fail(number, Damage("a leaf without entries"))),
            Err(damage) => return Err(self.fail(number, damage)),
        };
        self.steps[self.branches()] = Step { page: number, slot: 0 };
        (self.leaf, self.leaf_entries) = (Some(page), count);
        Ok(count)
    }

    #[inline]
    fn step_to(&mut self, slot: usize) -> Result<bool, ReadError> {
        self.ahead.step();
        self.stand(slot)
    }

    /// Makes an entry of the leaf the current one.
    #[inline]
    fn stand(&mut self, slot: usize) -> Result<bool, ReadError> {
        let leaf = self.leaf.as_ref().expect("the caller has entered a leaf");
        match Node::leaf(leaf).and_then(|node| node.leaf_cell(slot)) {
            Ok(cell) => {
                let (bytes, run) = match cell.payload {
                    Payload::Inline(value) => (value.len(), None),
                    Payload::Overflow(first, length) => (0, Some((first, length))),
                };
                self.entry = EntryPlace {
                    slot,
                    key_start: cell.payload_offset - cell.key.len(),
                    payload_start: cell.payload_offset,
                    payload_end: cell.payload_offset + bytes,
                    run,
                    version: cell.version,
                };
                self.standing = Standing::AtEntry;
                Ok(true)
            }
            Err(damage) => Err(self.fail(self.steps[self.branches()].page, damage)),
        }
    }

    /// Goes to the nearest entry of the leaf beside the current one.
    fn turn_leaf(&mut self, direction: Direction) -> Result<bool, ReadError> {
        // Should a page fail to be read on the way, the cursor must not look as if it stood at an entry.
        self.standing = Standing::Nowhere;
        self.leaf = None;
        for index in (0..self.branches()).rev() {
            let Step { page: number, slot } = self.steps[index];
            let page = self.source.page(number)?;
            let slot = usize::from(slot);
            let choose = |node: Node<'_>| {
                beside(slot, node.count(), direction).map(|slot| Ok((slot, node.child(slot)?))).transpose()
            };
            let next = Node::branch(&page).and_then(choose).map_err(|damage| self.fail(number, damage))?;
            if let Some((slot, child)) = next {
                self.steps[index].slot = slot as u16;
                return self.descend_edge(child, index + 1, direction);
            }
        }
        Ok(self.run_off(direction))
    }
}
