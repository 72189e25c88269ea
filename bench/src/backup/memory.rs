//! The most anonymous memory that a process has meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::process::rss_anon;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(5);

/// Looks at a process until it is dropped.
pub struct Peak {
    before: u64,
    most: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    looking: Option<JoinHandle<()>>,
}

impl Peak {
    /// Looks at this process from now on.
    pub fn of(pid: u32) -> Result<Peak> {
        let before = rss_anon(pid)?;
        let (most, ended) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
        let (noted, end) = (most.clone(), ended.clone());
        let looking = std::thread::spawn(move || {
            while !end.load(Ordering::Acquire) {
                // That a process has ended is told elsewhere.
                let Ok(now) = rss_anon(pid) else { return };
                noted.fetch_max(now, Ordering::Relaxed);
                std::thread::sleep(EVERY);
            }
        });
        Ok(Peak { before, most, ended, looking: Some(looking) })
    }

    /// The most so far, above what there was at first, in bytes.
    pub fn growth(&self) -> u64 {
        self.most.load(Ordering::Relaxed) - self.before
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(looking) = self.looking.take() {
            // It cannot panic; and if it did, nothing depends on it here.
            let _ = looking.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_given_back_counts() {
        let peak = Peak::of(std::process::id()).unwrap();
        let taken = vec![1_u8; 64 << 20];
        while peak.growth() < 32 << 20 {
            std::thread::yield_now();
        }
        drop(std::hint::black_box(taken));
        assert!(peak.growth() >= 32 << 20);
    }
}
