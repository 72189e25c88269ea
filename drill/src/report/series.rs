//! Answers counted by slices of time.

use crate::timeline::{Call, Ending, Recorded};

/// What was answered in a slice of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) writes: u32,
    pub(super) reads: u32,
    /// Refused, or unknown.
    pub(super) failed: u32,
    /// Of what was done; 0 if nothing was.
    pub(super) p50_us: u64,
    pub(super) max_us: u64,
}

/// All slices, of equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) slice_us: u64,
    pub(super) slices: Vec<Slice>,
}

/// The shortest slice, in microseconds.
const SHORTEST_US: u64 = 50_000;
/// The most slices: more than a plot has pixels for are of no use.
const MOST: u64 = 480;

impl Series {
    pub(super) fn of(recorded: &Recorded) -> Series {
        let slice_us = recorded.length_us.div_ceil(MOST).max(SHORTEST_US);
        let count = usize::try_from(recorded.length_us / slice_us + 1).unwrap_or(1);
        let (mut slices, mut times) = (vec![Slice::default(); count], vec![Vec::new(); count]);
        for answer in &recorded.answers {
            let place = usize::try_from(answer.at_us / slice_us).unwrap_or(usize::MAX).min(count - 1);
            let slice: &mut Slice = &mut slices[place];
            match (answer.ending, answer.call) {
                (Ending::Done, Call::Write) => slice.writes += 1,
                (Ending::Done, Call::Read) => slice.reads += 1,
                (Ending::Refused | Ending::Unknown, _) => slice.failed += 1,
            }
            if answer.ending == Ending::Done {
                times[place].push(answer.took_us);
            }
        }
        for (slice, mut times) in slices.iter_mut().zip(times) {
            times.sort_unstable();
            slice.p50_us = times.get(times.len() / 2).copied().unwrap_or(0);
            slice.max_us = times.last().copied().unwrap_or(0);
        }
        Series { slice_us, slices }
    }

    /// A count in a slice as a rate a second.
    pub(super) fn rate(&self, count: u32) -> f64 {
        f64::from(count) * 1e6 / self.slice_us as f64
    }

    /// The middle of a slice, in microseconds.
    pub(super) fn middle(&self, place: usize) -> u64 {
        place as u64 * self.slice_us + self.slice_us / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Answer;

    #[test]
    fn every_answer_is_counted_once() {
        let answer = |at_us, call, ending| Answer { at_us, took_us: at_us / 10, call, ending };
        let answers = vec![
            answer(10, Call::Write, Ending::Done),
            answer(49_999, Call::Read, Ending::Done),
            answer(50_000, Call::Write, Ending::Unknown),
            answer(120_000, Call::Write, Ending::Done),
        ];
        let series = Series::of(&Recorded { length_us: 120_000, answers, ..Recorded::default() });
        let counts: Vec<_> = series.slices.iter().map(|s| (s.writes, s.reads, s.failed, s.max_us)).collect();
        assert_eq!(counts, [(1, 1, 0, 4_999), (0, 0, 1, 0), (1, 0, 0, 12_000)]);
        assert_eq!(series.rate(5), 100.0);
    }

    #[test]
    fn a_long_drill_has_no_more_slices_than_a_plot_has_room_for() {
        let series = Series::of(&Recorded { length_us: 600_000_000, ..Recorded::default() });
        assert!(series.slices.len() as u64 <= MOST + 1);
    }
}
