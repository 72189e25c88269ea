//! A file of a simulated disk: what reads see, what is durable, and what is between the two.

use std::collections::HashSet;

use super::content::{BLOCK_BYTES, Content, SharedBlock, bytes_mut, part};

/// A change that no sync has made durable, and the operation that it is of.
#[derive(Clone)]
pub(super) struct Unsynced {
    pub operation: u64,
    pub change: Change,
}

#[derive(Clone)]
pub(super) enum Change {
    /// The whole content of a unit after a write: it stands in the block as it was then.
    Unit { number: usize, block: SharedBlock },
    /// The length after a change of it.
    Length(usize),
}

impl Unsynced {
    fn unit(&self) -> Option<usize> {
        if let Change::Unit { number, .. } = self.change { Some(number) } else { None }
    }
}

/// A file, whatever its names are. `current` is what reads see.
#[derive(Clone)]
pub(super) struct Inode {
    /// What is written whole or not at all, in bytes.
    pub unit_bytes: usize,
    pub current: Content,
    pub durable: Content,
    /// Older than what is in `unsynced`: units that a failed sync has given up. No later sync writes them.
    pub given_up: Vec<Unsynced>,
    pub unsynced: Vec<Unsynced>,
}

impl Inode {
    pub fn new(unit_bytes: usize) -> Self {
        assert!(BLOCK_BYTES.is_multiple_of(unit_bytes), "units of {unit_bytes} bytes");
        Self {
            unit_bytes,
            current: Content::default(),
            durable: Content::default(),
            given_up: Vec::new(),
            unsynced: Vec::new(),
        }
    }

    /// Notes the units that hold `from..to`, as they are now.
    fn note_units(&mut self, operation: u64, from: usize, to: usize) {
        for number in from / self.unit_bytes..to.div_ceil(self.unit_bytes) {
            let block = self.current.block(number * self.unit_bytes / BLOCK_BYTES);
            self.unsynced.push(Unsynced { operation, change: Change::Unit { number, block } });
        }
    }

    pub fn set_len(&mut self, operation: u64, length: usize) {
        let before = self.current.len();
        self.current.set_len(length);
        self.unsynced.push(Unsynced { operation, change: Change::Length(length) });
        // What was cut reads as zeros if the file grows again.
        self.note_units(operation, length.min(before), length.max(before));
    }

    pub fn write(&mut self, operation: u64, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.current.len() {
            self.set_len(operation, end);
        }
        self.current.write(offset, bytes.len(), Some(bytes));
        self.note_units(operation, offset, end);
    }

    pub fn zero(&mut self, operation: u64, from: usize, to: usize) {
        let to = to.min(self.current.len());
        if from < to {
            self.current.write(from, to - from, None);
            self.note_units(operation, from, to);
        }
    }

    pub fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        if self.given_up.is_empty() {
            self.durable = self.current.clone();
            return;
        }
        apply(&mut self.durable, self.unit_bytes, unsynced.iter(), self.current.len());
        let written: HashSet<usize> = unsynced.iter().filter_map(Unsynced::unit).collect();
        self.given_up.retain(|change| change.unit().is_some_and(|unit| !written.contains(&unit)));
    }

    /// A sync that fails: the units count as clean from now on. A change of length waits for the next one.
    pub fn fail_sync(&mut self) {
        let (lengths, units) = std::mem::take(&mut self.unsynced).into_iter().partition(|it| it.unit().is_none());
        self.unsynced = lengths;
        self.given_up.extend::<Vec<Unsynced>>(units);
    }

    /// The file after a power cut that kept what `keeps` says.
    pub fn after(&self, keeps: &mut dyn FnMut(u64) -> bool) -> Self {
        let mut image = self.durable.clone();
        let mut length = image.len();
        let mut kept = Vec::new();
        for unsynced in self.given_up.iter().chain(&self.unsynced) {
            if !keeps(unsynced.operation) {
                continue;
            }
            match unsynced.change {
                Change::Length(changed) => length = changed,
                Change::Unit { .. } => kept.push(unsynced),
            }
        }
        apply(&mut image, self.unit_bytes, kept.into_iter(), length);
        Self { current: image.clone(), durable: image, ..Self::new(self.unit_bytes) }
    }

    /// Flips a bit wherever the byte stands: in what reads see, on the disk, and on its way there.
    pub fn flip_bit(&mut self, at: usize, bit: u8) {
        self.current.flip(at, bit);
        if at < self.durable.len() {
            self.durable.flip(at, bit);
        }
        for unsynced in self.given_up.iter_mut().chain(&mut self.unsynced) {
            if let Change::Unit { number, block } = &mut unsynced.change
                && *number == at / self.unit_bytes
            {
                bytes_mut(block)[at % BLOCK_BYTES] ^= 1 << bit;
            }
        }
    }
}

/// Brings an image to the given changes and length.
fn apply<'a>(image: &mut Content, unit_bytes: usize, changes: impl Iterator<Item = &'a Unsynced>, length: usize) {
    // Room for whole units, whatever the lengths on the way were.
    let longest = image.len().max(length).next_multiple_of(unit_bytes);
    image.set_len(longest);
    for Unsynced { change, .. } in changes {
        if let Change::Unit { number, block } = change
            && (number + 1) * unit_bytes <= longest
        {
            let at = number * unit_bytes;
            let from = at % BLOCK_BYTES;
            image.write(at, unit_bytes, part(block, from, from + unit_bytes));
        }
    }
    image.set_len(length);
}
