//! What is known of a tree without reading it: the value under its name in the tree of trees.
//!
//! ```text
//!  0        4        5      6        8           16         24         32
//!  +--------+--------+------+--------+-----------+----------+----------+
//!  | root   | height | kind | zeros  | entries   | pages    | values   |
//!  | u32 LE | u8     | u8   |        | u64 LE    | u64 LE   | u64 LE   |
//!  +--------+--------+------+--------+-----------+----------+----------+
//! ```
//!
//! Root 0 (the superblock's place) stands for an empty tree; then all other fields but the kind are zero too. Kind 0 is a
//! plain tree, whose `values` are not counted, and 1 a multi-value tree.

use crate::ids::{NEVER_REACHED, PageNumber};

use super::MAX_HEIGHT;

/// What a tree holds under a key. Exhaustive: each kind has operations of its own, and a program could do nothing
/// with a tree of a kind that it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum TreeKind {
    /// One value of any bytes.
    #[default]
    Plain = 0,
    /// Many values, sorted, each of them there once: see [`super::multi`].
    Multi = 1,
}

/// A tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TreeState {
    /// The page where every descent begins; `None` in an empty tree.
    pub root: Option<PageNumber>,
    /// How many levels there are; 0 in an empty tree, 1 if the root is a leaf.
    pub height: u8,
    /// What the tree holds under a key. A tree that was emptied keeps it.
    pub kind: TreeKind,
    /// How many keys there are.
    pub entries: u64,
    /// How many pages the tree has, those of overflow runs and of trees of values among them.
    pub pages: u64,
    /// How many values there are under all keys of a multi-value tree; 0 in a plain one, where `entries` says it.
    pub values: u64,
}

impl TreeState {
    /// The length of the encoding, in bytes.
    pub const ENCODED_BYTES: usize = 32;

    /// An empty tree.
    #[must_use]
    pub fn empty(kind: TreeKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// The state as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[0..4].copy_from_slice(&self.root.map_or(0, |root| root.0).to_le_bytes());
        bytes[4] = self.height;
        bytes[5] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.entries.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.pages.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.values.to_le_bytes());
        bytes
    }

    /// The state that these bytes encode, or `None` if they cannot be one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::ENCODED_BYTES] = bytes.try_into().ok()?;
        let u64_at = |offset: usize| u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("8 bytes"));
        let root = u32::from_le_bytes(bytes[0..4].try_into().expect("4 bytes"));
        let kind = match bytes[5] {
            0 => TreeKind::Plain,
            1 => TreeKind::Multi,
            _ => return None,
        };
        let state = Self {
            root: (root != 0).then_some(PageNumber(root)),
            height: bytes[4],
            kind,
            entries: u64_at(8),
            pages: u64_at(16),
            values: u64_at(24),
        };
        let sound = match state.root {
            None => state == Self::empty(kind),
            Some(_) => state.has_sound_counts(),
        };
        (sound && bytes[6..8] == [0; 2]).then_some(state)
    }

    /// Whether a tree with a root can say this of itself.
    fn has_sound_counts(&self) -> bool {
        let values = match self.kind {
            TreeKind::Plain => self.values == 0,
            TreeKind::Multi => self.values >= self.entries,
        };
        // Page numbers have 32 bits, and no tree gets so many entries that a count of them could not go on.
        let pages = self.pages > 0 && self.pages <= u64::from(u32::MAX);
        let entries = self.entries > 0 && self.entries.max(self.values) < NEVER_REACHED;
        (1..=MAX_HEIGHT).contains(&usize::from(self.height)) && entries && pages && values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let plain = TreeState {
            root: Some(PageNumber(0x0403_0201)),
            height: 3,
            entries: 0x1122,
            pages: 0x33,
            ..Default::default()
        };
        let mut bytes = [0; 32];
        bytes[..5].copy_from_slice(&[1, 2, 3, 4, 3]);
        (bytes[8], bytes[9], bytes[16]) = (0x22, 0x11, 0x33);
        assert_eq!(plain.encode(), bytes);
        assert_eq!(TreeState::decode(&bytes), Some(plain));
        let multi = TreeState { kind: TreeKind::Multi, values: 0x4455, ..plain };
        (bytes[5], bytes[24], bytes[25]) = (1, 0x55, 0x44);
        assert_eq!(multi.encode(), bytes);
        assert_eq!(TreeState::decode(&bytes), Some(multi));
    }

    #[test]
    fn an_empty_tree_keeps_its_kind() {
        for kind in [TreeKind::Plain, TreeKind::Multi] {
            let empty = TreeState::empty(kind);
            let mut bytes = [0; 32];
            bytes[5] = kind as u8;
            assert_eq!(empty.encode(), bytes);
            assert_eq!(TreeState::decode(&bytes), Some(empty));
        }
    }

    #[test]
    fn impossible_states_are_refused() {
        let state = TreeState { root: Some(PageNumber(9)), height: 1, entries: 1, pages: 1, ..Default::default() };
        let good = state.encode();
        assert!(TreeState::decode(&good).is_some());
        assert_eq!(TreeState::decode(&good[..31]), None);
        let refused = |state: &[u8; 32], offset: usize, value: u8| {
            let mut bad = *state;
            bad[offset] = value;
            assert_eq!(TreeState::decode(&bad), None, "byte {offset} = {value}");
        };
        for (offset, value) in [(0, 0), (4, 0), (4, 33), (5, 2), (5, 1), (6, 1), (7, 1), (8, 0), (16, 0), (24, 1)] {
            refused(&good, offset, value);
        }
        let multi = TreeState { kind: TreeKind::Multi, entries: 2, values: 3, ..state }.encode();
        assert!(TreeState::decode(&multi).is_some());
        for (offset, value) in [(5, 0), (24, 1)] {
            refused(&multi, offset, value);
        }
        refused(&TreeState::empty(TreeKind::Multi).encode(), 24, 1);
    }
}
