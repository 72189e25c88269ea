use std::time::Duration;

use super::pace::{Pace, Seen};

const MIB: u64 = 1 << 20;

fn seen(seconds: u64) -> Seen {
    Seen { time: Duration::from_secs(seconds), busy: false, awaited: false }
}

/// Lives a pass in pieces of 1 MiB, in time that stands still but for its waits.
fn live(pace: Pace, total: u64, busy: bool) -> Duration {
    let (mut done, mut time) = (0, Duration::ZERO);
    while done < total {
        done += MIB.min(total - done);
        while let Some(wait) = pace.wait(done, &Seen { time, busy, awaited: false }) {
            time += wait;
        }
    }
    time
}

#[test]
fn a_pass_takes_as_long_as_it_is_meant_to_and_never_goes_faster_than_it_may() {
    let day = Duration::from_secs(86_400);
    assert_eq!(live(Pace::new(1000 * MIB, day, 16 * MIB), 1000 * MIB, false), day);
    // 16 MiB a second are too few for a day.
    let large = 4_000_000 * MIB;
    assert_eq!(Pace::new(large, day, 16 * MIB).length(), Duration::from_secs(250_000));
    // Nothing to read, and as much as nothing.
    assert_eq!(live(Pace::new(0, day, 16 * MIB), 0, false), Duration::ZERO);
    assert_eq!(live(Pace::new(8192, day, 16 * MIB), 8192, false), day);
}

#[test]
fn it_gives_way_and_falls_behind_by_a_tenth_at_most() {
    let pace = Pace::new(1000 * MIB, Duration::from_secs(1000), 16 * MIB);
    let busy = |seconds| Seen { busy: true, ..seen(seconds) };
    assert!(pace.wait(100 * MIB, &busy(199)).is_some(), "99 s behind");
    assert!(pace.wait(100 * MIB, &busy(201)).is_none(), "101 s behind");
    assert!(pace.wait(100 * MIB, &seen(199)).is_none());
    let took = live(pace, 1000 * MIB, true);
    assert!(took >= Duration::from_secs(1000) && took <= Duration::from_secs(1101), "{took:?}");
}

#[test]
fn it_waits_for_nothing_where_somebody_waits_for_it() {
    let pace = Pace::new(1000 * MIB, Duration::from_secs(1000), MIB);
    assert_eq!(pace.wait(500 * MIB, &Seen { busy: true, awaited: true, ..seen(0) }), None);
    assert_eq!(pace.wait(500 * MIB, &seen(400)), Some(Duration::from_secs(100)));
}
