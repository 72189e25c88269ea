//! What is known of a tree without reading it: the value under its name in the tree of trees.
//!
//! ```text
//!  0        4        5        8           16         24
//!  +--------+--------+--------+-----------+----------+
//!  | root   | height | zeros  | entries   | pages    |
//!  | u32 LE | u8     |        | u64 LE    | u64 LE   |
//!  +--------+--------+--------+-----------+----------+
//! ```
//!
//! Root 0 (the superblock's place) stands for an empty tree; then all other fields are zero too.

use crate::ids::PageNumber;

use super::MAX_HEIGHT;

/// A tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TreeState {
    /// The page where every descent begins; `None` in an empty tree.
    pub root: Option<PageNumber>,
    /// How many levels there are; 0 in an empty tree, 1 if the root is a leaf.
    pub height: u8,
    /// How many entries there are.
    pub entries: u64,
    /// How many pages the tree has, those of overflow runs among them.
    pub pages: u64,
}

impl TreeState {
    /// The length of the encoding, in bytes.
    pub const ENCODED_BYTES: usize = 24;

    /// The state as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[0..4].copy_from_slice(&self.root.map_or(0, |root| root.0).to_le_bytes());
        bytes[4] = self.height;
        bytes[8..16].copy_from_slice(&self.entries.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.pages.to_le_bytes());
        bytes
    }

    /// The state that these bytes encode, or `None` if they cannot be one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::ENCODED_BYTES] = bytes.try_into().ok()?;
        let u64_at = |offset: usize| u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("8 bytes"));
        let root = u32::from_le_bytes(bytes[0..4].try_into().expect("4 bytes"));
        let state = Self {
            root: (root != 0).then_some(PageNumber(root)),
            height: bytes[4],
            entries: u64_at(8),
            pages: u64_at(16),
        };
        let sound = match state.root {
            None => state == Self::default(),
            Some(_) => (1..=MAX_HEIGHT).contains(&usize::from(state.height)) && state.entries > 0 && state.pages > 0,
        };
        (sound && bytes[5..8] == [0; 3]).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let state = TreeState { root: Some(PageNumber(0x0403_0201)), height: 3, entries: 0x1122, pages: 0x33 };
        let bytes = [1, 2, 3, 4, 3, 0, 0, 0, 0x22, 0x11, 0, 0, 0, 0, 0, 0, 0x33, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(state.encode(), bytes);
        assert_eq!(TreeState::decode(&bytes), Some(state));
        assert_eq!(TreeState::decode(&[0; 24]), Some(TreeState::default()));
    }

    #[test]
    fn impossible_states_are_refused() {
        let good = TreeState { root: Some(PageNumber(9)), height: 1, entries: 1, pages: 1 }.encode();
        assert!(TreeState::decode(&good).is_some());
        assert_eq!(TreeState::decode(&good[..23]), None);
        for (offset, value) in [(0, 0), (4, 0), (4, 33), (5, 1), (8, 0), (16, 0)] {
            let mut bad = good;
            bad[offset] = value;
            assert_eq!(TreeState::decode(&bad), None, "byte {offset} = {value}");
        }
    }
}
