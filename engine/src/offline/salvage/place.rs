//! Where a page belongs: to a tree, or to the tree of values under one of its keys; and what can be told of that by looking
//! at a page alone.

use std::fmt;

use crate::btree::TreeKind;
use crate::btree::multi::check_bare;
use crate::btree::multi::payload::Values;
use crate::btree::node::{Damage, Node};
use crate::ids::PageNumber;

/// What is walked.
#[derive(Clone, Copy)]
pub(super) struct Part<'k> {
    /// `None` for the tree of trees.
    pub tree: Option<&'k str>,
    pub kind: TreeKind,
    /// The key, if it is the tree of values under one.
    pub key: Option<&'k [u8]>,
}

impl Part<'_> {
    /// Whether a leaf can be one of this part, by its cells: else it is another's.
    pub fn check_leaf(&self, leaf: &Node<'_>) -> Result<(), Damage> {
        let form = Form::of(leaf);
        match (self.key, self.kind) {
            (Some(_), _) if form.lists + form.others > 0 => Err(Damage("not a leaf of a tree of values")),
            // Lists may be damaged, but none is empty.
            (None, TreeKind::Multi) if form.looks() == Some(Looks::Bare) => {
                Err(Damage("not a leaf of a multi-value tree"))
            }
            _ => Ok(()),
        }
    }
}

/// A page of a tree that is lost, or a cell of a multi-value tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hole {
    /// Whose it is; `None` for the tree of trees.
    pub tree: Option<String>,
    pub kind: TreeKind,
    /// The key, if it is of the tree of values under one.
    pub key: Option<Vec<u8>>,
    /// 0 for a leaf.
    pub level: u8,
    pub from: Option<Vec<u8>>,
    pub to: Option<Vec<u8>>,
}

impl Hole {
    /// Whether a subtree may have hung below the page that is lost.
    pub fn may_have_held(&self, top: &Top) -> bool {
        self.level == top.level + 1
            && self.from.as_ref().is_none_or(|from| *from <= top.key)
            && self.to.as_ref().is_none_or(|to| top.key < *to)
            && match top.looks {
                None => true,
                Some(Looks::Plain) => self.kind == TreeKind::Plain,
                Some(Looks::Multi) => self.kind == TreeKind::Multi && self.key.is_none(),
                Some(Looks::Bare) => self.kind == TreeKind::Plain || self.key.is_some(),
            }
    }

    /// Whether a whole tree may have had its root named here: that of a tree in the tree of trees, or that of a tree of
    /// values in a multi-value tree.
    pub fn may_have_named(&self, top: &Top) -> bool {
        let may_be_values = matches!(top.looks, None | Some(Looks::Bare));
        self.level == 0 && self.key.is_none() && (self.tree.is_none() || self.kind == TreeKind::Multi && may_be_values)
    }
}

impl Hole {
    /// Whether pages of trees may have hung below it.
    pub fn referred_to_pages(&self) -> bool {
        self.level > 0 || self.key.is_none() && (self.tree.is_none() || self.kind == TreeKind::Multi)
    }

    /// The tree of trees, as a whole.
    pub fn all_names() -> Self {
        Self { tree: None, kind: TreeKind::Plain, key: None, level: 0, from: None, to: None }
    }
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tree, &self.key) {
            (None, _) => write!(f, "a tree whose name is lost"),
            (Some(tree), Some(key)) => write!(f, "tree {tree:?}, values of key \"{}\"", key.escape_ascii()),
            (Some(tree), None) if self.level == 0 => write!(f, "tree {tree:?}, values of a key that is lost"),
            (Some(tree), None) => write!(f, "tree {tree:?}"),
        }
    }
}

/// A subtree that hung directly below something that is lost.
pub(super) struct Top {
    pub number: PageNumber,
    pub level: u8,
    /// The least key below it, or one not far above that.
    pub key: Vec<u8>,
    /// `None` if none of its leaves can be read.
    pub looks: Option<Looks>,
}

/// What leaves hold, as far as their cells show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Looks {
    /// Keys with a value.
    Plain,
    /// Keys with lists, or trees, of values.
    Multi,
    /// Keys with nothing: values in a tree of values, or entries of a plain tree whose values are all empty.
    Bare,
}

/// How many cells there are of each sort.
#[derive(Clone, Copy, Default)]
pub(super) struct Form {
    lists: usize,
    bare: usize,
    others: usize,
}

impl Form {
    fn of(leaf: &Node<'_>) -> Self {
        let mut form = Self::default();
        form.add(leaf);
        form
    }

    /// Counts the cells of a leaf. Those that cannot be read say nothing.
    pub fn add(&mut self, leaf: &Node<'_>) {
        for cell in (0..leaf.count()).filter_map(|slot| leaf.leaf_cell(slot).ok()) {
            if check_bare(&cell).is_ok() {
                self.bare += 1;
            } else if cell.multi_values().is_ok() {
                self.lists += 1;
            } else {
                self.others += 1;
            }
        }
    }

    /// What the leaves look like. That values of a plain tree are all lists by chance is left out of account; that one of
    /// many lists is damaged is not.
    pub fn looks(self) -> Option<Looks> {
        match (self.lists, self.bare, self.others) {
            (0, 0, 0) => None,
            (0, _, 0) => Some(Looks::Bare),
            (lists, bare, others) if lists > bare + others => Some(Looks::Multi),
            _ => Some(Looks::Plain),
        }
    }
}

/// The roots of the trees of values that a leaf names, if it looks like one of a multi-value tree.
pub(super) fn roots_of_values(leaf: &Node<'_>) -> Vec<PageNumber> {
    if Form::of(leaf).looks() != Some(Looks::Multi) {
        return Vec::new();
    }
    let cells = (0..leaf.count()).filter_map(|slot| leaf.leaf_cell(slot).ok());
    let trees = cells.filter_map(|cell| match cell.multi_values() {
        Ok(Values::Tree(tree)) => tree.root,
        _ => None,
    });
    trees.collect()
}
