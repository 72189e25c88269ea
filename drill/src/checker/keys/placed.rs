//! Which operations are placed, in few bytes.
//!
//! Definite operations are placed nearly in the order of their beginnings: all before some of them, then a few here and there
//! among those that run at the same time, then none. So of their bits only those between are kept. Unknown operations may be
//! left behind for ever; they have bits of their own, or one of them would keep all that follow it in the key.

use super::entry::{Entry, State};

/// Where the bit of an entry is.
#[derive(Clone, Copy, Debug)]
struct Bit {
    definite: bool,
    word: u32,
    mask: u64,
}

/// The placed operations.
#[derive(Debug)]
pub(super) struct Placed {
    bits: Vec<Bit>,
    definite: Vec<u64>,
    unknown: Vec<u64>,
    /// All words of `definite` before this one are full.
    full: usize,
    /// All words of `definite` from this one on are empty.
    empty: usize,
    /// How many definite operations are not placed.
    missing: usize,
}

impl Placed {
    /// None of these is placed.
    pub(super) fn none(entries: &[Entry]) -> Placed {
        let (mut definite, mut unknown) = (0usize, 0usize);
        let bit = |entry: &Entry| {
            let count = if entry.ended.is_some() { &mut definite } else { &mut unknown };
            let bit = Bit { definite: entry.ended.is_some(), word: (*count / 64) as u32, mask: 1 << (*count % 64) };
            *count += 1;
            bit
        };
        let bits = entries.iter().map(bit).collect();
        Placed {
            bits,
            definite: vec![0; definite.div_ceil(64)],
            unknown: vec![0; unknown.div_ceil(64)],
            full: 0,
            empty: 0,
            missing: definite,
        }
    }

    /// How many definite operations are not placed.
    pub(super) fn missing(&self) -> usize {
        self.missing
    }

    /// Notes that an entry is placed, which it was not.
    pub(super) fn insert(&mut self, entry: u32) {
        let Bit { definite, word, mask } = self.bits[entry as usize];
        let words = if definite { &mut self.definite } else { &mut self.unknown };
        assert_eq!(words[word as usize] & mask, 0, "an operation is placed once");
        words[word as usize] |= mask;
        if definite {
            self.missing -= 1;
            self.empty = self.empty.max(word as usize + 1);
            while self.definite.get(self.full) == Some(&u64::MAX) {
                self.full += 1;
            }
        }
    }

    /// Notes that an entry is not placed, which it was.
    pub(super) fn remove(&mut self, entry: u32) {
        let Bit { definite, word, mask } = self.bits[entry as usize];
        let words = if definite { &mut self.definite } else { &mut self.unknown };
        assert_ne!(words[word as usize] & mask, 0, "only what is placed can be taken back");
        words[word as usize] &= !mask;
        if definite {
            self.missing += 1;
            self.full = self.full.min(word as usize);
            while self.empty > 0 && self.definite[self.empty - 1] == 0 {
                self.empty -= 1;
            }
        }
    }

    /// The placed operations and a state, as a key: equal if and only if both are.
    pub(super) fn key(&self, state: State) -> Box<[u64]> {
        let window = &self.definite[self.full.min(self.empty)..self.empty];
        let mut key = Vec::with_capacity(3 + self.unknown.len() + window.len());
        key.push(u64::from(state.is_some()));
        key.push(state.map_or(0, |value| value.0));
        key.push(self.full as u64);
        // Always as many words as there are unknown operations, so that the window begins at one place.
        key.extend_from_slice(&self.unknown);
        key.extend_from_slice(window);
        key.into_boxed_slice()
    }
}
