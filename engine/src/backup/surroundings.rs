//! Time and chance, as backups ask for them: tests put their own in place, and do not sleep.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where time and chance come from.
pub trait Surroundings: Send + Sync {
    /// Time since some moment; never goes back.
    fn elapsed(&self) -> Duration;
    /// Microseconds since 1970, as the wall clock says.
    fn wall_micros(&self) -> u64;
    /// Returns after that long.
    fn sleep(&self, how_long: Duration);
    /// A number that nobody has drawn before.
    fn draw(&self) -> u128;
}

/// The operating system's.
#[derive(Clone, Copy, Debug)]
pub struct RealSurroundings {
    began: Instant,
}

impl Default for RealSurroundings {
    fn default() -> Self {
        Self { began: Instant::now() }
    }
}

impl Surroundings for RealSurroundings {
    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn wall_micros(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, how_long: Duration) {
        std::thread::sleep(how_long);
    }

    /// From the standard library's source of random hash keys, which the operating system seeds.
    fn draw(&self) -> u128 {
        let half = || u128::from(RandomState::new().hash_one(self.wall_micros()));
        half() << 64 | half()
    }
}
