//! What an input is: steps of a life, and the operations of its transactions.

use std::ops::Bound;

use arbitrary::Arbitrary;

use crate::many::ManyOperation;

const TREES: [&str; 4] = ["a", "b", "birds", "$system"];

/// An input.
#[derive(Arbitrary, Debug)]
pub struct Input {
    pub(super) steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
pub(super) enum Step {
    Txn {
        operations: Vec<Operation>,
        commit: bool,
    },
    /// Opens a reader, or looks at one that is open and drops it.
    Reader(u8),
    Checkpoint,
    Reopen,
    PowerCut(u8),
    /// The power goes after this many more operations of the disk.
    PowerCutSoon {
        operations: u8,
        choice: u8,
    },
}

#[derive(Arbitrary, Debug)]
pub(super) enum Operation {
    CreateTree(u8),
    DropTree(u8),
    RenameTree(u8, u8),
    Put {
        tree: u8,
        key: Key,
        value: Value,
    },
    /// Keys that follow each other.
    PutMany {
        tree: u8,
        key: Key,
        value: Value,
        count: u8,
    },
    Delete {
        tree: u8,
        key: Key,
    },
    DeleteRange {
        tree: u8,
        start: Limit,
        end: Limit,
    },
    Get {
        tree: u8,
        key: Key,
    },
    Walk {
        tree: u8,
        from: Key,
        back: bool,
        turns: u8,
    },
    Many(ManyOperation),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) number: u8,
    pub(super) shape: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Limit {
    Included(Key),
    Excluded(Key),
    None,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Value {
    pub(super) shape: u8,
    pub(super) more: u8,
    pub(super) fill: u8,
}

impl Key {
    pub(super) fn bytes(self) -> Vec<u8> {
        let length = [2, 2, 3, 20, 300, 2_048][usize::from(self.shape) % 6];
        let mut key = vec![self.number, self.shape % 6];
        key.resize(length, b'k');
        if self.shape == 255 {
            key.truncate(1);
        }
        key
    }

    pub(super) fn after(self, steps: u8) -> Self {
        Self { number: self.number.wrapping_add(steps), ..self }
    }
}

impl Limit {
    pub(super) fn bound(self) -> Bound<Vec<u8>> {
        match self {
            Self::Included(key) => Bound::Included(key.bytes()),
            Self::Excluded(key) => Bound::Excluded(key.bytes()),
            Self::None => Bound::Unbounded,
        }
    }
}

impl Value {
    pub(super) fn bytes(self) -> Vec<u8> {
        // Around the lengths at which a value changes its place, and larger ones.
        let base = [0, 1, 8, 100, 1_700, 2_020, 8_170, 16_300][usize::from(self.shape) % 8];
        vec![self.fill; base + usize::from(self.more) % 32]
    }
}

pub(super) fn tree(number: u8) -> &'static str {
    TREES[usize::from(number) % TREES.len()]
}
