//! Multi-value trees: many values under one key, sorted by their bytes, each of them there once.
//!
//! Such a tree is a tree like any other, whose leaf cells hold no value but all values of their key, in one of two forms
//! (`payload`):
//!
//! - a *list* in the cell, as long as the cell is no longer than a cell with a value may be;
//! - a *tree of values* of their own: a tree whose keys are the values, and whose payloads are empty. It begins as one
//!   page, and grows as any tree does.
//!
//! A list that would become too long is planted as a tree. A tree of values that shrinks to one page becomes a list again
//! when that takes no more than half of what a list may take, so that a value that comes and goes at the limit does not
//! take a page each time. (Under a key so long that no list fits, even one value has its page.)
//!
//! What follows from a value being a key of a tree: a value has 1 to [`MAX_KEY_BYTES`](super::MAX_KEY_BYTES) bytes. The
//! version of an entry is that of the transaction which last added or removed a value under its key; values have none that
//! can be asked for.
//!
//! The state of a multi-value tree counts keys (`entries`), values, and the pages of trees of values among its own. What
//! else reads a tree by its values refuses one of the other kind: see [`ReadError::OtherKind`](super::ReadError).
//!
//! | file | role |
//! | --- | --- |
//! | `payload` | what a cell holds, as bytes |
//! | `change`, `range` | adding and removing a value; removing many |
//! | `read` | contains, count |
//! | `cursor`, `keys` | walking over the values of a key, and over the keys |

mod change;
mod cursor;
mod keys;
pub(crate) mod payload;
mod range;
mod read;

#[cfg(test)]
mod cursor_test;
#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod model_test;

pub use change::{add, check_value, remove_value};
pub use cursor::ValuesCursor;
pub use keys::Keys;
pub use range::{first_leaf_of_values, remove_values};
pub(crate) use read::check_bare;
pub use read::{contains, count_values};
