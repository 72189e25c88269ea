//! What an entry owns besides its cell.
//!
//! An overflow run, or a tree of values: who takes an entry out, or puts another in its place, gives those pages back;
//! who moves pages or checks them must know of them. Which it is, the tree's kind says.

use crate::ids::PageNumber;

use super::multi::payload::Values;
use super::node::{Damage, LeafCell, Payload};
use super::overflow::run_pages;
use super::range::{free_tree, take_off};
use super::{PageStore, ReadError, TreeKind, TreeState};

/// Pages that only an entry refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owned {
    /// All that there is stands in the cell.
    Nothing,
    /// An overflow run: its first page, and the value's length in bytes.
    Run(PageNumber, u32),
    /// A tree of values.
    Values(TreeState),
}

/// What an entry counts for in its tree's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holding {
    pub(super) owned: Owned,
    /// How many values of a multi-value tree it holds.
    pub(super) values: u64,
}

impl Holding {
    /// What an entry of a tree of this kind holds.
    pub(super) fn of(kind: TreeKind, cell: &LeafCell<'_>) -> Result<Self, Damage> {
        match (kind, cell.payload) {
            (TreeKind::Plain, Payload::Inline(_)) => Ok(Self { owned: Owned::Nothing, values: 0 }),
            (TreeKind::Plain, Payload::Overflow(first, length)) => {
                Ok(Self { owned: Owned::Run(first, length), values: 0 })
            }
            (TreeKind::Multi, _) => {
                let values = cell.multi_values()?;
                let owned = match values {
                    Values::List(_) => Owned::Nothing,
                    Values::Tree(tree) => Owned::Values(tree),
                };
                Ok(Self { owned, values: values.count() })
            }
        }
    }

    /// Gives back the pages of an entry of the leaf `number`, whose values count as gone then.
    pub(super) fn release<S: PageStore + ?Sized>(
        self,
        store: &mut S,
        tree: &mut TreeState,
        number: PageNumber,
    ) -> Result<(), ReadError> {
        let pages = match self.owned {
            Owned::Nothing => 0,
            Owned::Run(first, length) => {
                let pages = run_pages(length as usize);
                store.free(first, pages)?;
                u64::from(pages)
            }
            Owned::Values(mut values) => {
                let pages = values.pages;
                free_tree(store, &mut values)?;
                pages
            }
        };
        take_off(store, number, &mut tree.pages, pages)?;
        take_off(store, number, &mut tree.values, self.values)
    }
}
