//! The property that checkpoints rest on: replaying from a finished checkpoint up to the target, over any mixture of
//! page versions up to that target, torn pages included, ends in the same bytes. Stopping earlier does not in general.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use calamus_engine::engine::Faults;
use calamus_engine::env::{CrashChoice, Disk, OpenMode, SimDisk};
use calamus_engine::{Engine, EngineOptions};
use calamus_tests::boundary_disk::BoundaryDisk;
use calamus_tests::engine_driver::changes::{Sizes, transactions};
use calamus_tests::engine_driver::node::{Node, read_file};
use calamus_tests::engine_driver::promise::Promise;
use calamus_tests::engine_driver::{Stop, disk};
use calamus_tests::oracle::Entry;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const DATA: &str = "/db/g1/data";
const SECTOR_BYTES: usize = 512;

fn small() -> EngineOptions {
    let mut small = super::enumerate::options(Faults::default());
    small.journal.segment_bytes = 1 << 20;
    small
}

fn new_node(sim: &SimDisk, door: Arc<dyn Disk>) -> Result<Node, Stop> {
    Node::create(sim.clone(), door, 1, small(), Arc::new(Mutex::new(Promise::unborn())))
}

/// A log, and the whole data file as of each of its entries: `files[n]` is that of the first `n`.
struct History {
    log: Vec<Arc<Entry>>,
    files: Vec<Vec<u8>>,
}

fn history(random: &mut StdRng, entries: usize) -> Result<History, Stop> {
    let sim = SimDisk::new(1);
    let mut node = new_node(&sim, Arc::new(sim.clone()))?;
    let mut files = vec![node.data_file()?];
    while node.log.len() < entries {
        node.stage(&mut |batch, state| transactions(random, Sizes::Small, batch, state))?;
        // No frame says that anything is committed: recovery goes to the target and no further.
        let entries = node.frames(1, 0);
        if entries.is_empty() {
            continue;
        }
        node.append(&entries)?;
        node.apply(node.log.len())?;
        node.checkpoint()?;
        files.push(node.data_file()?);
    }
    Ok(History { log: node.log.clone(), files })
}

/// A directory with a finished checkpoint of `checkpoint` entries, the whole log, and a checkpoint begun whose target is
/// `target` entries; no page of it is written yet.
fn begun(history: &History, checkpoint: usize, target: usize) -> Result<SimDisk, Stop> {
    let sim = SimDisk::new(2);
    let taken: Arc<Mutex<Option<SimDisk>>> = Arc::default();
    let armed = Arc::new(Mutex::new(false));
    let (from, to, when) = (sim.clone(), taken.clone(), armed.clone());
    let hook = move |_: &'static str, path: &Path| {
        if path == Path::new(DATA) && *when.lock() {
            to.lock().get_or_insert_with(|| from.crash(CrashChoice::KeepAll));
        }
    };
    let mut node = new_node(&sim, Arc::new(BoundaryDisk::new(Arc::new(sim.clone()), Arc::new(hook))))?;
    node.append(&history.log[..checkpoint])?;
    node.apply(checkpoint)?;
    node.checkpoint()?;
    node.append(&history.log[checkpoint..])?;
    node.apply(target)?;
    *armed.lock() = true;
    node.checkpoint()?;
    let taken = taken.lock().take();
    Ok(taken.expect("a checkpoint writes pages"))
}

/// Each sector, or each page, of some version from `first` to `last`; as long as one of them, or something between.
fn mixture(random: &mut StdRng, files: &[Vec<u8>], first: usize, last: usize) -> Vec<u8> {
    let versions = &files[first..=last];
    let unit = if random.random_ratio(1, 4) { 8192 } else { SECTOR_BYTES };
    let lengths = versions.iter().map(|file| file.len() / 8192);
    let (shortest, longest) = (lengths.clone().min().expect("some"), lengths.max().expect("some"));
    let mut mixed = vec![0; 8192 * random.random_range(shortest..=longest)];
    for (place, part) in mixed.chunks_mut(unit).enumerate() {
        let version = &versions[random.random_range(0..versions.len())];
        if let Some(bytes) = version.get(place * unit..(place + 1) * unit) {
            part.copy_from_slice(bytes);
        }
    }
    mixed
}

/// Recovers over a data file, and returns what it becomes.
fn recovered(begun: &SimDisk, data: &[u8]) -> Result<Vec<u8>, Stop> {
    let sim = begun.crash(CrashChoice::KeepAll);
    let file = sim.open(Path::new(DATA), OpenMode::Write).map_err(disk("open"))?;
    file.set_len(data.len() as u64).map_err(disk("set length"))?;
    file.write_at(&[IoSlice::new(data)], 0).map_err(disk("write"))?;
    file.sync_data().map_err(disk("sync"))?;
    let (engine, _) = Engine::open(Arc::new(sim.clone()), Path::new("/db"), small()).map_err(disk("open"))?;
    engine.checkpoint().map_err(disk("checkpoint"))?;
    read_file(&sim, Path::new(DATA))
}

#[test]
fn any_mixture_up_to_the_target_ends_in_the_same_bytes_and_stopping_earlier_does_not() {
    let (mut mixtures, mut stopped, mut differed) = (0, 0, 0);
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let history = history(&mut random, 12).expect("the power stays on");
        let checkpoint = random.random_range(0..6);
        let target = random.random_range(checkpoint + 3..=12);
        let at_target = begun(&history, checkpoint, target).expect("the power stays on");
        let earlier = random.random_range(checkpoint + 1..target);
        let at_earlier = begun(&history, checkpoint, earlier).expect("the power stays on");
        for _ in 0..12 {
            let mixed = mixture(&mut random, &history.files, checkpoint, target);
            let place = format!("seed {seed}: from {checkpoint} to {target}");
            let found = recovered(&at_target, &mixed).unwrap_or_else(|stop| panic!("{place}: {stop}"));
            assert!(found == history.files[target], "{place}: other bytes");
            mixtures += 1;
            // The same mixture, with a target that is too early.
            let found = recovered(&at_earlier, &mixed);
            stopped += 1;
            differed += u64::from(found.is_err() || found.is_ok_and(|found| found != history.files[earlier]));
        }
    }
    println!("replay: {mixtures} mixtures end in the target's bytes; stopped early, {differed} of {stopped} do not");
    assert!(differed > stopped / 2, "stopping early was right {} times of {stopped}", stopped - differed);
}
