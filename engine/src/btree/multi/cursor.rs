//! Walking over the values of one key, in both directions.

use super::payload::{List, Values};
use super::read::{Place, place_of};
use crate::btree::{Cursor, PageSource, ReadError, TreeState};

/// A place among the values of a key, as its source shows them. As a cursor it is no iterator, since what it shows is
/// borrowed from it: `while values.next()? { values.value(); }`.
///
/// It stands nowhere at first: `next` goes to the first value then, and `previous` to the last. Where it ran off an end, it
/// comes back to the value at that end when it is turned round. After an error it stands nowhere.
pub struct ValuesCursor<'a, S: PageSource + ?Sized> {
    over: Over<'a, S>,
    count: u64,
}

#[expect(clippy::large_enum_variant, reason = "reading allocates nothing, and a cursor is not copied")]
enum Over<'a, S: PageSource + ?Sized> {
    /// The key is not there.
    Nothing,
    /// Checked as a whole when the cursor was made.
    List(Place<'a>, Standing),
    Tree(Cursor<'a, S>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Nowhere,
    At(usize),
    BeforeFirst,
    BehindLast,
}

impl Place<'_> {
    fn list(&self) -> List<'_> {
        List::of_checked(&self.page.bytes()[self.payload.clone()]).expect("checked when the cursor was made")
    }
}

impl<'a, S: PageSource + ?Sized> ValuesCursor<'a, S> {
    /// The values of a key of a multi-value tree.
    #[doc(hidden)]
    pub fn new(source: &'a S, tree: &TreeState, key: &[u8]) -> Result<Self, ReadError> {
        match place_of(source, tree, key)? {
            Some(place) => Self::at(source, place),
            None => Ok(Self::nothing()),
        }
    }

    /// Over no values at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self { over: Over::Nothing, count: 0 }
    }

    pub(super) fn at(source: &'a S, place: Place<'a>) -> Result<Self, ReadError> {
        let (count, tree) = match place.values(source)? {
            Values::List(list) => (list.count() as u64, None),
            Values::Tree(tree) => (tree.entries, Some(tree)),
        };
        let over = match tree {
            None => Over::List(place, Standing::Nowhere),
            Some(tree) => Over::Tree(Cursor::new(source, tree)),
        };
        Ok(Self { over, count })
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Moves within a list as `in_list` says, or within a tree.
    fn go(
        &mut self,
        in_list: impl FnOnce(&List<'_>, Standing) -> Standing,
        in_tree: impl FnOnce(&mut Cursor<'a, S>) -> Result<bool, ReadError>,
    ) -> Result<bool, ReadError> {
        match &mut self.over {
            Over::Nothing => Ok(false),
            Over::List(place, standing) => {
                *standing = in_list(&place.list(), *standing);
                Ok(matches!(standing, Standing::At(_)))
            }
            Over::Tree(cursor) => {
                let there = in_tree(cursor)?;
                if there {
                    cursor.expect_bare()?;
                }
                Ok(there)
            }
        }
    }

    /// Goes to the first value. `false` if there is none.
    pub fn first(&mut self) -> Result<bool, ReadError> {
        self.go(|_, _| Standing::At(0), Cursor::first)
    }

    /// Goes to the last value. `false` if there is none.
    pub fn last(&mut self) -> Result<bool, ReadError> {
        self.go(|list, _| Standing::At(list.count() - 1), Cursor::last)
    }

    /// Goes to the first value that is `value` or above. `false` if there is none.
    pub fn seek(&mut self, value: &[u8]) -> Result<bool, ReadError> {
        let in_list = |list: &List<'_>, _| match list.find(value) {
            Ok(slot) => Standing::At(slot),
            Err(slot) if slot < list.count() => Standing::At(slot),
            Err(_) => Standing::BehindLast,
        };
        self.go(in_list, |cursor| cursor.seek(value))
    }

    /// Goes to the last value that is `value` or below. `false` if there is none.
    pub fn seek_back(&mut self, value: &[u8]) -> Result<bool, ReadError> {
        let in_list = |list: &List<'_>, _| match list.find(value) {
            Ok(slot) => Standing::At(slot),
            Err(0) => Standing::BeforeFirst,
            Err(slot) => Standing::At(slot - 1),
        };
        self.go(in_list, |cursor| cursor.seek_back(value))
    }

    /// Goes to the next value. `false` if there is none.
    #[expect(clippy::should_implement_trait, reason = "a cursor is no iterator: what it shows is borrowed from it")]
    pub fn next(&mut self) -> Result<bool, ReadError> {
        let in_list = |list: &List<'_>, standing| match standing {
            Standing::Nowhere | Standing::BeforeFirst => Standing::At(0),
            Standing::At(slot) if slot + 1 < list.count() => Standing::At(slot + 1),
            Standing::At(_) | Standing::BehindLast => Standing::BehindLast,
        };
        self.go(in_list, Cursor::next)
    }

    /// Goes to the value before. `false` if there is none.
    pub fn previous(&mut self) -> Result<bool, ReadError> {
        let in_list = |list: &List<'_>, standing| match standing {
            Standing::Nowhere | Standing::BehindLast => Standing::At(list.count() - 1),
            Standing::At(slot) if slot > 0 => Standing::At(slot - 1),
            Standing::At(_) | Standing::BeforeFirst => Standing::BeforeFirst,
        };
        self.go(in_list, Cursor::previous)
    }

    /// Whether the cursor stands at a value.
    #[must_use]
    pub fn is_at_value(&self) -> bool {
        match &self.over {
            Over::Nothing => false,
            Over::List(_, standing) => matches!(standing, Standing::At(_)),
            Over::Tree(cursor) => cursor.is_at_entry(),
        }
    }

    /// The current value.
    ///
    /// # Panics
    /// When the cursor stands at no value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        match &self.over {
            Over::List(place, Standing::At(slot)) => place.list().value(*slot),
            Over::Tree(cursor) => cursor.key(),
            _ => panic!("the cursor stands at no value"),
        }
    }
}
