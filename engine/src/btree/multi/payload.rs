//! What a leaf cell of a multi-value tree holds: all values of its key.
//!
//! ```text
//! list:            0     1     2       4             4+2n
//!                  +-----+-----+-------+-------------+----------------+
//!                  | 1   | 0   | count | ends        | values, joined |   end: where a value ends, in bytes from the start
//!                  | u8  | u8  | u16   | u16 LE each |                |   of the values; the last is where the cell ends
//!                  +-----+-----+-------+-------------+----------------+
//!
//! tree of values:  0     1        2       4        8         16        24
//!                  +-----+--------+-------+--------+---------+---------+
//!                  | 2   | height | zeros | root   | values  | pages   |
//!                  | u8  | u8     | u16   | u32 LE | u64 LE  | u64 LE  |
//!                  +-----+--------+-------+--------+---------+---------+
//! ```
//!
//! The values of a list ascend strictly. Neither form is ever empty: a key without values is not there. All of a list is
//! checked before any of it is used; it has at most 2 KiB.

use crate::btree::node::{Damage, LEAF_CELL_HEADER_BYTES, MAX_INLINE_CELL_BYTES, SUB_TREE_BYTES};
use crate::btree::{MAX_HEIGHT, MAX_KEY_BYTES, TreeState};
use crate::ids::PageNumber;

const LIST: u8 = 1;
const TREE: u8 = 2;
const LIST_HEADER_BYTES: usize = 4;
const END_BYTES: usize = 2;
const _: () = assert!(SUB_TREE_BYTES == 24 && MAX_INLINE_CELL_BYTES + MAX_KEY_BYTES + END_BYTES <= u16::MAX as usize);

/// The values of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values<'p> {
    /// In the cell.
    List(List<'p>),
    /// In a tree of their own, as whose keys they are.
    Tree(TreeState),
}

impl<'p> Values<'p> {
    /// Reads a payload, and checks all that it says.
    pub(crate) fn parse(payload: &'p [u8]) -> Result<Self, Damage> {
        match payload.first() {
            Some(&LIST) => List::parse(payload).map(Self::List),
            Some(&TREE) => decode_tree(payload).map(Self::Tree).ok_or(Damage("a tree of values that cannot be one")),
            _ => Err(Damage("values in no form that exists")),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::List(list) => list.count() as u64,
            Self::Tree(tree) => tree.entries,
        }
    }
}

/// Whether a payload may stand in the cell of a key, by their lengths in bytes.
pub(crate) fn list_fits(key_bytes: usize, list_bytes: usize) -> bool {
    LEAF_CELL_HEADER_BYTES + key_bytes + list_bytes <= MAX_INLINE_CELL_BYTES
}

/// Whether a tree of values is better a list again, as which it would have so many bytes.
pub(crate) fn list_fits_well(key_bytes: usize, list_bytes: usize) -> bool {
    list_fits(key_bytes, 0) && list_bytes <= (MAX_INLINE_CELL_BYTES - LEAF_CELL_HEADER_BYTES - key_bytes) / 2
}

/// How long a list is, in bytes, of so many values, which have so many bytes together.
pub(crate) fn list_bytes(count: usize, value_bytes: usize) -> usize {
    LIST_HEADER_BYTES + count * END_BYTES + value_bytes
}

/// A list of values, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'p> {
    ends: &'p [u8],
    values: &'p [u8],
}

impl<'p> List<'p> {
    /// Reads a list and checks it.
    fn parse(payload: &'p [u8]) -> Result<Self, Damage> {
        let list = Self::of_checked(payload).ok_or(Damage("a list of values that ends too early"))?;
        if payload[1] != 0 || list.count() == 0 {
            return Err(Damage("a list of values with an impossible header"));
        }
        let (mut start, mut previous): (usize, &[u8]) = (0, &[]);
        for slot in 0..list.count() {
            let end = list.end(slot);
            let value = list.values.get(start..end).ok_or(Damage("a value ends outside its list"))?;
            if value.is_empty() || value.len() > MAX_KEY_BYTES {
                return Err(Damage("a value of a length that values cannot have"));
            }
            if previous >= value {
                return Err(Damage("values out of order"));
            }
            (start, previous) = (end, value);
        }
        if start != list.values.len() {
            return Err(Damage("a list of values with bytes behind its end"));
        }
        Ok(list)
    }

    /// The list in a payload that [`Values::parse`] has checked; `None` if it is shorter than it says.
    pub(crate) fn of_checked(payload: &'p [u8]) -> Option<Self> {
        let count = usize::from(u16::from_le_bytes(payload.get(2..LIST_HEADER_BYTES)?.try_into().expect("2 bytes")));
        let (ends, values) = payload[LIST_HEADER_BYTES..].split_at_checked(count * END_BYTES)?;
        Some(Self { ends, values })
    }

    /// How many values there are.
    pub(crate) fn count(&self) -> usize {
        self.ends.len() / END_BYTES
    }

    fn end(&self, slot: usize) -> usize {
        let at = slot * END_BYTES;
        usize::from(u16::from_le_bytes([self.ends[at], self.ends[at + 1]]))
    }

    /// A value.
    pub(crate) fn value(&self, slot: usize) -> &'p [u8] {
        let start = slot.checked_sub(1).map_or(0, |before| self.end(before));
        &self.values[start..self.end(slot)]
    }

    /// All values, in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'p [u8]> {
        (0..self.count()).map(move |slot| self.value(slot))
    }

    /// Where a value is, or would be.
    pub(crate) fn find(&self, value: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            match self.value(middle).cmp(value) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// The payload with one value more, before the one in `slot`.
    pub(crate) fn with(self, slot: usize, value: &[u8]) -> Vec<u8> {
        encode_list(self.iter().take(slot).chain([value]).chain(self.iter().skip(slot)))
    }

    /// The payload without a value.
    pub(crate) fn without(self, slot: usize) -> Vec<u8> {
        encode_list(self.iter().take(slot).chain(self.iter().skip(slot + 1)))
    }
}

/// A list as a payload. The values ascend, and there is at least one.
pub(crate) fn encode_list<'v>(values: impl Iterator<Item = &'v [u8]>) -> Vec<u8> {
    let (mut payload, mut joined) = (vec![LIST, 0, 0, 0], Vec::new());
    let mut count: u16 = 0;
    for value in values {
        joined.extend_from_slice(value);
        count += 1;
        payload.extend_from_slice(&u16::try_from(joined.len()).expect("little more than a cell").to_le_bytes());
    }
    assert!(count > 0, "a key without values is not there");
    payload[2..4].copy_from_slice(&count.to_le_bytes());
    payload.extend_from_slice(&joined);
    payload
}

/// A tree of values as a payload.
pub(crate) fn encode_tree(tree: &TreeState) -> [u8; SUB_TREE_BYTES] {
    let root = tree.root.expect("a key without values is not there");
    let mut payload = [0; SUB_TREE_BYTES];
    (payload[0], payload[1]) = (TREE, tree.height);
    payload[4..8].copy_from_slice(&root.0.to_le_bytes());
    payload[8..16].copy_from_slice(&tree.entries.to_le_bytes());
    payload[16..24].copy_from_slice(&tree.pages.to_le_bytes());
    payload
}

fn decode_tree(payload: &[u8]) -> Option<TreeState> {
    let payload: &[u8; SUB_TREE_BYTES] = payload.try_into().ok()?;
    let u64_at = |offset: usize| u64::from_le_bytes(payload[offset..offset + 8].try_into().expect("8 bytes"));
    let root = u32::from_le_bytes(payload[4..8].try_into().expect("4 bytes"));
    let tree = TreeState {
        root: Some(PageNumber(root)),
        height: payload[1],
        entries: u64_at(8),
        pages: u64_at(16),
        ..TreeState::default()
    };
    let sound = root != 0 && (1..=MAX_HEIGHT).contains(&usize::from(tree.height)) && tree.entries > 0 && tree.pages > 0;
    (sound && payload[2..4] == [0; 2]).then_some(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(payload: &[u8]) -> Result<Vec<Vec<u8>>, Damage> {
        match Values::parse(payload)? {
            Values::List(list) => Ok(list.iter().map(<[u8]>::to_vec).collect()),
            Values::Tree(tree) => panic!("a list, not {tree:?}"),
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = [1, 0, 2, 0, 1, 0, 4, 0, b'a', b'b', b'b', b'b'];
        assert_eq!(encode_list([&b"a"[..], b"bbb"].into_iter()), bytes);
        assert_eq!(list(&bytes).unwrap(), [&b"a"[..], b"bbb"]);
        assert_eq!(list_bytes(2, 4), bytes.len());

        let tree = TreeState {
            root: Some(PageNumber(0x0403_0201)),
            height: 2,
            entries: 0x55,
            pages: 0x66,
            ..Default::default()
        };
        let mut bytes = [2, 2, 0, 0, 1, 2, 3, 4, 0x55, 0, 0, 0, 0, 0, 0, 0, 0x66, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(encode_tree(&tree), bytes);
        assert!(matches!(Values::parse(&bytes), Ok(Values::Tree(found)) if found == tree));
        for (offset, value) in [(0, 0), (0, 3), (1, 0), (1, 33), (2, 1), (3, 1), (8, 0), (16, 0)] {
            let before = std::mem::replace(&mut bytes[offset], value);
            assert!(Values::parse(&bytes).is_err(), "byte {offset} = {value}");
            bytes[offset] = before;
        }
        assert!(Values::parse(&bytes[..23]).is_err());
        bytes[4..8].fill(0);
        assert!(Values::parse(&bytes).is_err(), "no root");
    }

    #[test]
    fn lists_that_cannot_be_are_refused() {
        let good = encode_list([&b"a"[..], b"b", b"c"].into_iter());
        assert!(list(&good).is_ok());
        for length in 0..good.len() {
            assert!(Values::parse(&good[..length]).is_err(), "its first {length} bytes");
        }
        // Reserved byte, counts, an end before the one before it, two values that are one, too many bytes, wrong order.
        for (offset, value) in
            [(1, 1), (2, 0), (2, 2), (2, 4), (3, 1), (4, 0), (4, 2), (6, 1), (8, 9), (10, b'b'), (11, b'a')]
        {
            let mut bad = good.clone();
            bad[offset] = value;
            assert!(Values::parse(&bad).is_err(), "byte {offset} = {value}");
        }
        assert!(Values::parse(&[&good[..], &[0]].concat()).is_err(), "one byte more");
        let long = vec![7; MAX_KEY_BYTES + 1];
        assert!(Values::parse(&encode_list([&long[..]].into_iter())).is_err(), "a value that is too long");
    }

    #[test]
    fn a_list_finds_gains_and_loses_values() {
        let payload = encode_list([&b"b"[..], b"d"].into_iter());
        let Ok(Values::List(values)) = Values::parse(&payload) else { panic!("a list") };
        assert_eq!(
            [values.find(b"a"), values.find(b"b"), values.find(b"c"), values.find(b"e")],
            [Err(0), Ok(0), Err(1), Err(2)]
        );
        assert_eq!(list(&values.with(1, b"c")).unwrap(), [b"b", b"c", b"d"]);
        assert_eq!(list(&values.with(2, b"e")).unwrap(), [b"b", b"d", b"e"]);
        assert_eq!(list(&values.without(0)).unwrap(), [b"d"]);
    }
}
