//! Gaps: how long nothing was done after a fault.
//!
//! The gap of a fault is the longest time without an answer of a kind from the fault on, until all was whole again or the next
//! fault came. Time before the fault does not count. So it is not "the first answer after the fault", which may have been on
//! its way already when the fault came.

use serde::Serialize;

use super::{Call, Ending, MarkKind, Recorded};

/// The gaps of all faults of a drill, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// How many there were.
    pub faults: usize,
    /// Half of them were not longer.
    pub p50_us: u64,
    /// 99 of 100 were not longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Gap {
    /// Of these, in microseconds and any order.
    pub fn of(mut gaps: Vec<u64>) -> Gap {
        gaps.sort_unstable();
        let at = |share: f64| {
            // The least that at least this share of them does not exceed.
            let place = (gaps.len() as f64 * share).ceil() as usize;
            gaps.get(place.saturating_sub(1)).copied().unwrap_or(0)
        };
        Gap { faults: gaps.len(), p50_us: at(0.5), p99_us: at(0.99), max_us: gaps.last().copied().unwrap_or(0) }
    }
}

/// The gaps in the answers of one kind.
pub fn gaps(recorded: &Recorded, call: Call) -> Gap {
    let done: Vec<u64> = recorded
        .answers
        .iter()
        .filter(|answer| answer.call == call && answer.ending == Ending::Done)
        .map(|answer| answer.at_us)
        .collect();
    let faults = recorded.marks.iter().enumerate().filter(|(_, mark)| mark.kind == MarkKind::Fault);
    let gaps = faults.map(|(place, fault)| {
        let mut later = recorded.marks[place + 1..].iter();
        let ends = later.find(|mark| matches!(mark.kind, MarkKind::Fault | MarkKind::Whole));
        longest(&done, fault.at_us, ends.map_or(recorded.length_us, |mark| mark.at_us))
    });
    Gap::of(gaps.collect())
}

/// The longest time between two answers, of which the second comes after `from`, and the first before `to`.
fn longest(done: &[u64], from: u64, to: u64) -> u64 {
    let first = done.partition_point(|at| *at <= from);
    let mut last = from;
    let mut longest = 0;
    for at in done[first..].iter().copied() {
        longest = longest.max(at - last);
        last = at;
        if at >= to {
            return longest;
        }
    }
    // No answer came any more.
    longest.max(to.saturating_sub(last))
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Mark};
    use super::*;

    fn recorded(writes: &[u64], marks: &[(u64, MarkKind)], length_us: u64) -> Recorded {
        let answer = |at_us: &u64| Answer { at_us: *at_us, took_us: 1, call: Call::Write, ending: Ending::Done };
        let mark = |(at_us, kind): &(u64, MarkKind)| Mark { at_us: *at_us, kind: *kind, what: String::new() };
        Recorded {
            length_us,
            answers: writes.iter().map(answer).collect(),
            marks: marks.iter().map(mark).collect(),
            roles: Vec::new(),
        }
    }

    #[test]
    fn what_was_on_its_way_when_the_fault_came_does_not_end_the_gap() {
        let found = recorded(&[90, 101, 160, 170, 300], &[(100, MarkKind::Fault), (180, MarkKind::Whole)], 400);
        // From 101 to 160; from 170 to 300 also begins before all is whole.
        assert_eq!(gaps(&found, Call::Write).max_us, 130);
        let found = recorded(&[90, 101, 160, 181, 300], &[(100, MarkKind::Fault), (180, MarkKind::Whole)], 400);
        assert_eq!(gaps(&found, Call::Write).max_us, 59);
        assert_eq!(gaps(&found, Call::Read).max_us, 80, "no read at all");
    }

    #[test]
    fn time_before_the_fault_does_not_count_and_the_end_ends_a_gap() {
        let found = recorded(&[10], &[(100, MarkKind::Fault)], 150);
        assert_eq!(gaps(&found, Call::Write), Gap { faults: 1, p50_us: 50, p99_us: 50, max_us: 50 });
    }

    #[test]
    fn each_fault_has_a_gap_of_its_own() {
        let marks = (0..100).flat_map(|n| [(n * 1000, MarkKind::Fault), (n * 1000 + 900, MarkKind::Whole)]);
        let marks: Vec<_> = marks.collect();
        let writes: Vec<u64> = (0..100).flat_map(|n| [n * 1000 + n + 1, n * 1000 + 901]).collect();
        let found = gaps(&recorded(&writes, &marks, 100_000), Call::Write);
        assert_eq!((found.faults, found.max_us), (100, 900));
        let all: Vec<u64> = (0..100_000).collect();
        assert_eq!(gaps(&recorded(&all, &marks, 100_000), Call::Write).max_us, 1);
    }
}
