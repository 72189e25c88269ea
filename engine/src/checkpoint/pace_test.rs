//! Checkpoints beside journals that grow, stand still, are slow, or fill memory.

use std::time::Duration;

use super::pace::{Bounds, Pacer, Seen};

const MIB: u64 = 1 << 20;
const BOUNDS: Bounds = Bounds { interval_bytes: 256 * MIB, version_bytes: 256 << 20 };
const START: Seen = Seen {
    time: Duration::ZERO,
    journal_bytes: 1000 * MIB,
    sync: Duration::from_micros(100),
    version_bytes: 64 << 20,
    awaited: false,
};
const PIECES: usize = 1000;
const SLOW: Duration = Duration::from_micros(400);

/// A world in which a piece takes a millisecond, and its sizes grow by the second.
struct World {
    journal_bytes_per_second: u64,
    version_bytes_per_second: usize,
    sync: fn(time: Duration) -> Duration,
    awaited_from: Duration,
}

impl World {
    fn seen(&self, time: Duration) -> Seen {
        let grown = |per_second: u64| per_second * time.as_micros() as u64 / 1_000_000;
        Seen {
            time,
            journal_bytes: START.journal_bytes + grown(self.journal_bytes_per_second),
            sync: (self.sync)(time),
            version_bytes: START.version_bytes + grown(self.version_bytes_per_second as u64) as usize,
            awaited: time >= self.awaited_from,
        }
    }

    /// Runs a checkpoint: when each piece was begun, and the end.
    fn run(&self) -> (Vec<Duration>, Seen) {
        let mut pacer = Pacer::new(BOUNDS, START);
        let (mut time, mut begun) = (Duration::ZERO, Vec::new());
        while begun.len() < PIECES {
            match pacer.wait(begun.len(), PIECES, &self.seen(time)) {
                Some(wait) => time += wait,
                None => {
                    begun.push(time);
                    time += Duration::from_millis(1);
                }
            }
            assert!(time < Duration::from_secs(1000), "after {} pieces", begun.len());
        }
        (begun, self.seen(time))
    }
}

fn steady() -> World {
    World {
        journal_bytes_per_second: 50 * MIB,
        version_bytes_per_second: 0,
        sync: |_| START.sync,
        awaited_from: Duration::MAX,
    }
}

#[test]
fn pages_are_spread_over_three_quarters_of_the_interval() {
    let (begun, end) = steady().run();
    let interval = Duration::from_secs_f64(256.0 / 50.0);
    assert!(end.time > interval * 7 / 10 && end.time < interval * 4 / 5, "{:?} of {interval:?}", end.time);
    // Evenly: at no time is it further than a hundredth away from where it ought to be.
    for (index, time) in begun.iter().enumerate() {
        let expected = interval * 3 / 4 * index as u32 / PIECES as u32;
        assert!(time.abs_diff(expected) < interval / 100, "piece {index} at {time:?}, not {expected:?}");
    }
}

#[test]
fn nobody_is_made_room_for_where_nothing_is_written() {
    let (_, end) = World { journal_bytes_per_second: 0, ..steady() }.run();
    assert!(end.time < Duration::from_millis(PIECES as u64 + 50), "{:?}", end.time);
}

#[test]
fn it_ends_before_versions_reach_their_bound() {
    // 192 MiB are left, which would be gone in a quarter of the interval.
    let (_, end) = World { version_bytes_per_second: 150 << 20, ..steady() }.run();
    assert!(end.version_bytes < BOUNDS.version_bytes, "{end:?}");
    assert!(end.journal_bytes - START.journal_bytes < 100 * MIB, "{end:?}");
    // Too fast for the disk: it goes at full speed from the bound on.
    let (begun, _) = World { version_bytes_per_second: 2 << 30, ..steady() }.run();
    let late: Vec<_> = begun.windows(2).filter(|pair| pair[0] > Duration::from_millis(100)).collect();
    assert!(late.iter().all(|pair| pair[1] - pair[0] == Duration::from_millis(1)));
}

#[test]
fn who_waits_for_its_end_does_not_wait_long() {
    let (begun, end) = World { awaited_from: Duration::from_secs(1), ..steady() }.run();
    let left = begun.iter().filter(|time| **time >= Duration::from_secs(1)).count() as u64;
    assert!(end.time <= Duration::from_millis(1000 + left + 5), "{:?} with {left} pieces left", end.time);
}

#[test]
fn a_trickle_is_not_spared_for_ever() {
    let (_, end) = World { journal_bytes_per_second: 100_000, ..steady() }.run();
    assert!(end.time < Duration::from_secs(62), "{:?}", end.time);
}

/// Syncs that are slow for a while: pieces stop, and are caught up with behind it.
#[test]
fn slow_syncs_hold_it_back_for_a_while_but_not_for_ever() {
    let world =
        World { sync: |time| if (1000..1200).contains(&time.as_millis()) { SLOW } else { START.sync }, ..steady() };
    let (begun, end) = world.run();
    let during = |from, to| begun.iter().filter(|time| (from..to).contains(&time.as_millis())).count();
    assert!(during(800, 1000) > 40, "{} pieces before", during(800, 1000));
    assert!(during(1010, 1200) < 10, "{} pieces beside slow syncs", during(1010, 1200));
    let usual = steady().run().1.time;
    assert!(end.time <= usual + Duration::from_millis(100), "{:?}, not {usual:?}", end.time);

    // Slow from now on: as fast as ever, at most a tenth of the pages behind, and still in time.
    let (begun, end) = World { sync: |_| SLOW, ..steady() }.run();
    assert!(end.journal_bytes - START.journal_bytes < BOUNDS.interval_bytes, "{end:?}");
    assert!(begun[PIECES / 2] > Duration::from_secs_f64(256.0 / 50.0 * 0.4));
}
