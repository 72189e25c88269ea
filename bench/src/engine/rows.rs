//! What is measured, and the marks to reach.

use super::store::Rival;
use super::window::Measured;
use crate::report::Mark;

/// Entries that are there before a row begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Its folder.
    pub name: &'static str,
    pub value_bytes: usize,
    /// One of so many of `--entries`.
    pub share: u64,
}

pub const SMALL: Dataset = Dataset { name: "256B", value_bytes: 256, share: 1 };
pub const MEDIUM: Dataset = Dataset { name: "4KiB", value_bytes: 4 << 10, share: 10 };
pub const LARGE: Dataset = Dataset { name: "256KiB", value_bytes: 256 << 10, share: 500 };
pub const DATASETS: [Dataset; 3] = [SMALL, MEDIUM, LARGE];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Commits of so many puts of keys that are there, drawn evenly.
    Put { threads: usize, batch: usize },
    /// Fills an empty database in key order.
    BulkLoad,
    /// Reads keys that are there, drawn evenly.
    Get { threads: usize },
    /// Reads all there is, in key order.
    Scan,
}

impl Work {
    pub fn writes(self) -> bool {
        matches!(self, Self::Put { .. } | Self::BulkLoad)
    }
}

/// Whether Calamus takes checkpoints within the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoints {
    /// As its defaults say.
    Default,
    /// None.
    Without,
    /// At least three: the window lasts until they are done.
    With,
}

/// One line of the comparison.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub dataset: Dataset,
    pub work: Work,
    pub checkpoints: Checkpoints,
}

const fn row(name: &'static str, dataset: Dataset, work: Work, checkpoints: Checkpoints) -> Row {
    Row { name, dataset, work, checkpoints }
}

pub const ROWS: [Row; 12] = [
    row("put 256 B, 1 thread, no checkpoint", SMALL, Work::Put { threads: 1, batch: 1 }, Checkpoints::Without),
    row("put 256 B, 1 thread, checkpoints", SMALL, Work::Put { threads: 1, batch: 1 }, Checkpoints::With),
    row("put 256 B, 8 threads", SMALL, Work::Put { threads: 8, batch: 1 }, Checkpoints::With),
    row("put 256 B, 1,000 a commit", SMALL, Work::Put { threads: 1, batch: 1000 }, Checkpoints::With),
    row("load 256 B in key order", SMALL, Work::BulkLoad, Checkpoints::Default),
    row("get 256 B, 1 thread", SMALL, Work::Get { threads: 1 }, Checkpoints::Default),
    row("get 256 B, 2 threads", SMALL, Work::Get { threads: 2 }, Checkpoints::Default),
    row("scan 256 B", SMALL, Work::Scan, Checkpoints::Default),
    row("put 4 KiB, 1 thread", MEDIUM, Work::Put { threads: 1, batch: 1 }, Checkpoints::With),
    row("get 4 KiB, 1 thread", MEDIUM, Work::Get { threads: 1 }, Checkpoints::Default),
    row("put 256 KiB, 1 thread", LARGE, Work::Put { threads: 1, batch: 1 }, Checkpoints::With),
    row("get 256 KiB, 1 thread", LARGE, Work::Get { threads: 1 }, Checkpoints::Default),
];

/// The marks of a row, judged on medians.
pub fn marks(row: &Row, measured: &dyn Fn(Rival) -> Option<Measured>) -> Vec<Mark> {
    let ours = measured(Rival::Calamus);
    let mut found = Vec::new();
    let mut mark = |what: &str, rival: Rival, value: fn(&Measured) -> f64, at_least: bool, bound: f64| {
        let Some((ours, theirs)) = ours.as_ref().zip(measured(rival)) else { return };
        let what = format!("{}: {what} against {}", row.name, rival.name());
        found.push(Mark { what, found: value(ours) / value(&theirs), at_least, bound });
    };
    let mut speed = |rival, bound| mark("operations a second", rival, |m| m.operations_a_second, true, bound);
    match (row.dataset.name, row.work, row.checkpoints) {
        ("256B", Work::Put { threads: 1, batch: 1 }, Checkpoints::Without) => {
            speed(Rival::Lmdb, 1.8);
            speed(Rival::Fjall, 0.9);
        }
        ("256B", Work::Put { threads: 1, batch: 1 }, _) => {
            speed(Rival::Lmdb, 1.8);
            speed(Rival::Fjall, 0.6);
            mark("bytes written a user byte", Rival::Lmdb, |m| m.written_per_user_byte, false, 0.5);
        }
        ("256B", Work::Put { threads: 8, .. }, _) => speed(Rival::Lmdb, 4.0),
        ("256B", Work::Put { .. }, _) => speed(Rival::Lmdb, 2.5),
        ("256B", Work::BulkLoad, _) => speed(Rival::Lmdb, 1.0),
        ("256B", Work::Get { .. }, _) => speed(Rival::Lmdb, 1.0),
        ("256B", Work::Scan, _) => speed(Rival::Lmdb, 0.9),
        ("256KiB", Work::Put { .. }, _) => speed(Rival::Lmdb, 1.5),
        _ => {}
    }
    found
}

/// The mark of a file's size after the load.
pub fn size_mark(dataset: Dataset, ours: u64, lmdb: u64) -> Option<Mark> {
    let what = format!("size of the file after loading {}, against lmdb", dataset.name);
    (dataset == SMALL).then(|| Mark { what, found: ours as f64 / lmdb as f64, at_least: false, bound: 1.1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_those_that_were_set() {
        let one =
            |operations_a_second| Measured { operations_a_second, written_per_user_byte: 1.0, ..Measured::default() };
        let of = |rival: Rival| Some(one(if rival == Rival::Calamus { 2.0 } else { 1.0 }));
        let all: Vec<Mark> = ROWS.iter().flat_map(|row| marks(row, &of)).collect();
        let bounds: Vec<f64> = all.iter().map(|mark| mark.bound).collect();
        assert_eq!(bounds, [1.8, 0.9, 1.8, 0.6, 0.5, 4.0, 2.5, 1.0, 1.0, 1.0, 0.9, 1.5]);
        let missed = all.iter().filter(|mark| !mark.reached()).count();
        assert_eq!(missed, 3, "half the bytes, four times, two and a half times");
        assert_eq!(size_mark(SMALL, 11, 10).map(|mark| mark.reached()), Some(true));
        assert!(size_mark(LARGE, 11, 10).is_none());
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }
}
