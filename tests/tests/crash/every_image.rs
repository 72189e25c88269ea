//! The long run: whole lives and recovery, both sizes of a disk's sectors, round after round with other sizes and other
//! draws, until enough disks were tried. Without a number it is one round of a share of them, for CI.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use calamus_engine::engine::Faults;
use calamus_engine::env::sim::{LARGE_SECTOR_BYTES, SECTOR_BYTES};
use parking_lot::Mutex;

use super::enumerate::{Findings, Looks, Search, enumerate};
use super::images::Bounds;
use super::{recovery, workloads};

/// A life, lived with the power going at every operation.
type Run = fn(Looks) -> Findings;

/// One life on one disk.
#[derive(Clone, Copy)]
struct Job {
    name: &'static str,
    unit_bytes: usize,
    run: Run,
}

fn jobs() -> Vec<Job> {
    let lives: [(&'static str, Run); 4] = [
        ("leader", |looks| enumerate(workloads::leader, 0, Faults::default(), looks)),
        ("follower", |looks| enumerate(workloads::follower, 1, Faults::default(), looks)),
        ("seeded node", |looks| enumerate(workloads::seeded, 1, Faults::default(), looks)),
        ("recovery", recovery::enumerate_recovery),
    ];
    let units = [SECTOR_BYTES, LARGE_SECTOR_BYTES];
    units.into_iter().flat_map(|unit_bytes| lives.map(|(name, run)| Job { name, unit_bytes, run })).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?} and should be a number")))
}

/// Runs all jobs once, on all processors; the first failure comes back.
fn round(looks: &Looks) -> Option<String> {
    let (jobs, next, failure) = (jobs(), AtomicUsize::new(0), Mutex::new(None));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                    && failure.lock().is_none()
                {
                    let found = (job.run)(Looks { unit_bytes: job.unit_bytes, ..looks.clone() });
                    if let Some(what) = found.failure {
                        failure.lock().get_or_insert(format!("{}: {what}", job.name));
                    }
                }
            });
        }
    });
    failure.into_inner()
}

#[test]
fn every_image_opens_holds_what_was_promised_and_goes_on() {
    let started = std::time::Instant::now();
    let (wanted, first) = (number("CALAMUS_CRASH_IMAGES"), number("CALAMUS_CRASH_SEED").unwrap_or(0));
    let bounds = if wanted.is_some() { Bounds::FULL } else { Bounds::SHARE };
    let tally = Arc::default();
    let looks = Looks { bounds, tally: Arc::clone(&tally), ..Looks::new(Search::PowerCuts) };
    let mut seed = first;
    loop {
        let looks = Looks { seed, enough: wanted.unwrap_or(u64::MAX), ..looks.clone() };
        if let Some(what) = round(&looks) {
            let wanted = wanted.map_or(String::new(), |wanted| format!("CALAMUS_CRASH_IMAGES={wanted} "));
            panic!(
                "{what}\nafter {} disks; run it again: {wanted}CALAMUS_CRASH_SEED={seed} cargo test --release -p \
                 calamus-tests --test crash every_image",
                tally.tried(),
            );
        }
        if wanted.is_none_or(|wanted| tally.tried() >= wanted) {
            break;
        }
        seed += 1;
    }
    println!(
        "{}crash: {} rounds from seed {first}, in {:.1?}: 0 failures",
        tally.table(),
        seed - first + 1,
        started.elapsed()
    );
    let all = tally.tried();
    assert!(wanted.is_some_and(|wanted| wanted < 1_000) || all > 1_000, "only {all} disks");
}
