//! The tree of trees: names to tree states. System trees have names that start with `$`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::BatchError;
use super::pages::BatchPages;
use crate::btree::{self, Cursor, Edge, PageSource, ReadError, TreeKind, TreeState};
use crate::error::StorageError;
use crate::ids::TxnId;

/// The longest name of a tree, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// The state of a tree as the tree of trees has it.
pub fn find<S: PageSource + ?Sized>(source: &S, trees: &TreeState, name: &str) -> Result<Option<TreeState>, ReadError> {
    let Some(entry) = btree::get(source, trees, name.as_bytes())? else { return Ok(None) };
    // A state is short, and stands in its leaf: it is not copied.
    match entry.value.as_slice() {
        Some(bytes) => decode(name, bytes).map(Some),
        None => decode(name, &entry.value.to_vec()?).map(Some),
    }
}

fn decode(name: &str, bytes: &[u8]) -> Result<TreeState, ReadError> {
    TreeState::decode(bytes).ok_or_else(|| {
        ReadError::Storage(StorageError::corrupted("data", 0, format!("the state of tree {name:?} makes no sense")))
    })
}

/// All trees, by name.
pub fn list<S: PageSource + ?Sized>(source: &S, trees: &TreeState) -> Result<Vec<(String, TreeState)>, ReadError> {
    let mut found = Vec::new();
    let mut cursor = Cursor::new(source, *trees);
    let mut there = cursor.first()?;
    while there {
        let name = String::from_utf8_lossy(cursor.key()).into_owned();
        let state = decode(&name, &cursor.value().to_vec()?)?;
        found.push((name, state));
        there = cursor.next()?;
    }
    Ok(found)
}

/// What there is to know of a tree without reading it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TreeInfo {
    /// Its name.
    pub name: String,
    /// What it holds under a key.
    pub kind: TreeKind,
    /// How many keys it has.
    pub entries: u64,
    /// How many values it has: in a plain tree one for each key.
    pub values: u64,
    /// How many pages it has, those that only its values take among them.
    pub pages: u64,
}

impl TreeInfo {
    pub(super) fn new(name: String, state: &TreeState) -> Self {
        let values = match state.kind {
            TreeKind::Plain => state.entries,
            TreeKind::Multi => state.values,
        };
        Self { name, kind: state.kind, entries: state.entries, values, pages: state.pages }
    }
}

/// The trees that a batch has touched, as they are now; the tree of trees learns of them when the batch ends.
#[derive(Clone)]
pub(super) struct OpenTrees {
    pub(super) root: TreeState,
    open: BTreeMap<Arc<str>, Open>,
}

#[derive(Clone)]
struct Open {
    /// `None`: there is no such tree.
    state: Option<TreeState>,
    stored: Option<TreeState>,
    edge: Edge,
}

impl OpenTrees {
    pub(super) fn new(root: TreeState) -> Self {
        Self { root, open: BTreeMap::new() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// The tree as it is now, for reading.
    pub(super) fn look(&self, pages: &BatchPages, name: &str) -> Result<Option<TreeState>, ReadError> {
        match self.open.get(name) {
            Some(open) => Ok(open.state),
            None => find(pages, &self.root, name),
        }
    }

    /// The tree's name as the batch keeps it, and its state, to change.
    pub(super) fn open(&mut self, pages: &BatchPages, name: &str) -> Result<&mut Option<TreeState>, BatchError> {
        let (state, edge) = self.open_at_edge(pages, name)?;
        // Who changes the tree in another way than by putting may change where its edge is.
        *edge = Edge::default();
        Ok(state)
    }

    /// As [`Self::open`], for whoever minds the tree's edge in all that it does.
    pub(super) fn open_at_edge(
        &mut self,
        pages: &BatchPages,
        name: &str,
    ) -> Result<(&mut Option<TreeState>, &mut Edge), BatchError> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(BatchError::NameLength(name.len()));
        }
        if !self.open.contains_key(name) {
            let stored = find(pages, &self.root, name)?;
            self.open.insert(name.into(), Open { state: stored, stored, edge: Edge::default() });
        }
        let open = self.open.get_mut(name).expect("just put there");
        Ok((&mut open.state, &mut open.edge))
    }

    /// All trees, by name. Writes nothing: a transaction that only asks must not have changed anything.
    pub(super) fn list(&self, pages: &BatchPages) -> Result<Vec<(String, TreeState)>, ReadError> {
        let mut found: BTreeMap<String, TreeState> = list(pages, &self.root)?.into_iter().collect();
        for (name, open) in &self.open {
            match open.state {
                Some(state) => found.insert(name.to_string(), state),
                None => found.remove(&**name),
            };
        }
        Ok(found.into_iter().collect())
    }

    /// Writes what changed into the tree of trees, as of `version`.
    pub(super) fn store(&mut self, pages: &mut BatchPages, version: TxnId) -> Result<(), ReadError> {
        for (name, open) in &mut self.open {
            if open.state == open.stored {
                continue;
            }
            match open.state {
                Some(state) => {
                    btree::insert(pages, &mut self.root, name.as_bytes(), &state.encode(), version)?;
                }
                None => {
                    btree::remove(pages, &mut self.root, name.as_bytes())?;
                }
            }
            open.stored = open.state;
        }
        Ok(())
    }
}
