//! Moments, and the clock that gives them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Nanoseconds since the clock was made. No two moments of a clock are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// The system's monotonic clock, and a number that makes moments unique. Copies are the same clock: histories and faults that
/// are to be seen on one scale share one.
#[derive(Clone, Debug)]
pub struct Clock {
    began: Instant,
    last: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that begins now.
    pub fn new() -> Clock {
        Clock { began: Instant::now(), last: Arc::new(AtomicU64::new(0)) }
    }

    /// This moment; one nanosecond after the last one that was given, if the system's clock has not gone on since.
    ///
    /// Whoever saw that another call has returned gets a greater moment than that call: both change one atomic number, and
    /// the changes of one atomic number are in one order.
    pub fn now(&self) -> Moment {
        let read = u64::try_from(self.began.elapsed().as_nanos()).expect("a process does not run for 584 years");
        let next = |last: u64| Some(read.max(last + 1));
        let last = self
            .last
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .expect("the function always gives a next moment");
        Moment(read.max(last + 1))
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}
