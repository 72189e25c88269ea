//! Runs a workload once; before every operation that changes the disk of one node it looks at what a power cut there
//! would leave, in many ways, or at what a kill would leave to the next process, and lets a node recover from it and
//! go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use calamus_engine::engine::Faults;
use calamus_engine::env::sim::SECTOR_BYTES;
use calamus_engine::env::{CrashChoice, Disk, OpenMode, SimDisk};
use calamus_engine::{Engine, EngineOptions};
use calamus_tests::boundary_disk::BoundaryDisk;
use calamus_tests::engine_driver::node::Node;
use calamus_tests::engine_driver::pair::Pair;
use calamus_tests::engine_driver::promise::Promise;
use calamus_tests::engine_driver::{Stop, disk, small_options, wrong};
use calamus_tests::panic_message;
use parking_lot::Mutex;

use super::images::{self, Bounds};
use super::steps::Steps;
use super::tally::Tally;
use super::workloads::Sizes;

/// What happens at every operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    /// The power goes.
    PowerCuts,
    /// The process is killed and started again, and then the power goes.
    Kills,
}

/// What is looked at.
#[derive(Clone)]
pub struct Looks {
    pub search: Search,
    pub bounds: Bounds,
    /// What the disk writes whole or not at all, in bytes.
    pub unit_bytes: usize,
    /// For what is drawn: sizes of the workload, subsets, mixtures. 0 has the sizes that the workload names.
    pub seed: u64,
    pub tally: Arc<Tally>,
    /// Nothing is looked at any more when so many disks were tried, by all who share the tally.
    pub enough: u64,
}

impl Looks {
    pub fn new(search: Search) -> Self {
        let tally = Arc::default();
        Self { search, bounds: Bounds::SHARE, unit_bytes: SECTOR_BYTES, seed: 0, tally, enough: u64::MAX }
    }
}

/// What was found.
#[derive(Clone, Default, Debug)]
pub struct Findings {
    /// Operations of the disk, before each of which the power went.
    pub boundaries: u64,
    /// Disks that were recovered from.
    pub images: u64,
    /// The first failure; nothing is looked at after it.
    pub failure: Option<String>,
}

/// The disk of the node in question, and what it has promised.
pub struct Watched {
    pub sim: SimDisk,
    pub promise: Arc<Mutex<Promise>>,
    pub options: EngineOptions,
    looks: Looks,
    findings: Mutex<Findings>,
    /// And the step of the operation that comes next.
    steps: Mutex<(Steps, &'static str)>,
}

/// Small segments, so that a short life recycles them; memory for few frames, so that the disk is read.
pub fn options(faults: Faults) -> EngineOptions {
    let mut options = small_options();
    options.faults = faults;
    options.journal.segment_bytes = 64 << 10;
    options.journal.cache_bytes = 16 << 10;
    options
}

impl Watched {
    /// An empty disk.
    pub fn new(faults: Faults, looks: Looks) -> Arc<Self> {
        Self::of(SimDisk::with_unit(11, looks.unit_bytes), Promise::unborn(), faults, looks)
    }

    /// A disk with something on it.
    pub fn of(sim: SimDisk, promise: Promise, faults: Faults, looks: Looks) -> Arc<Self> {
        let promise = Arc::new(Mutex::new(promise));
        let steps = Mutex::new((Steps::default(), "start"));
        Arc::new(Self { sim, promise, options: options(faults), looks, findings: Mutex::default(), steps })
    }

    /// The door that lets the power go before every operation.
    pub fn door(self: &Arc<Self>) -> Arc<dyn Disk> {
        let watched = self.clone();
        let hook = move |operation: &'static str, path: &Path| watched.look(operation, path);
        Arc::new(BoundaryDisk::new(Arc::new(self.sim.clone()), Arc::new(hook)))
    }

    fn look(&self, operation: &str, path: &Path) {
        let boundary = {
            let mut findings = self.findings.lock();
            if findings.failure.is_some() {
                return;
            }
            findings.boundaries += 1;
            findings.boundaries
        };
        match self.looks.search {
            Search::PowerCuts => self.look_at_power_cuts(operation, path, boundary),
            Search::Kills => self.look_at_kills(operation, path, boundary),
        }
    }

    /// Notes a failure; `false` says that it was one.
    fn note(&self, what: &str, result: Result<(), String>) -> bool {
        let mut findings = self.findings.lock();
        findings.images += 1;
        findings.failure = result.err().map(|error| format!("{what}: {error}"));
        findings.failure.is_none()
    }

    /// The disks that the operations so far may leave count for the step that the last one of them was of.
    fn look_at_power_cuts(&self, operation: &str, path: &Path, boundary: u64) {
        let promise = self.promise.lock().clone();
        let step = {
            let mut steps = self.steps.lock();
            let next = steps.0.next(operation, path, promise.doing);
            std::mem::replace(&mut steps.1, next)
        };
        let (tally, promised) = (&self.looks.tally, promise.hash());
        if tally.tried() >= self.looks.enough {
            return;
        }
        tally.boundary(step);
        let pending = self.sim.pending();
        let seed = self.looks.seed.rotate_left(32) ^ boundary;
        for kept in images::kept(&pending, &self.looks.bounds, seed) {
            let image = images::image(&self.sim, &pending, &kept);
            if !tally.is_new(step, image.image_hash(), promised) {
                continue;
            }
            let result = caught(|| recover(image, promise.clone(), self.options)?.go_on(boundary.is_multiple_of(2)));
            let place = path.display();
            let what = || {
                format!(
                    "the power goes before operation {boundary} ({operation} of {place}), in {step}, units of {}: of {} \
                     pending operations is left {kept:?}",
                    self.looks.unit_bytes,
                    pending.len()
                )
            };
            if !self.note(&what(), result) {
                return;
            }
        }
    }

    /// The process is killed, where the sync that comes next has failed or not. The next one opens what it finds there,
    /// and from then on that is promised: openraft counts what it is told is durable, and clients are answered. Then the
    /// power goes.
    fn look_at_kills(&self, operation: &str, path: &Path, boundary: u64) {
        for failed_sync in [false, true] {
            if failed_sync && operation != "sync" {
                continue;
            }
            for choice in [CrashChoice::LoseAll, CrashChoice::Seeded(boundary)] {
                let place = path.display();
                let what = format!(
                    "killed before operation {boundary} ({operation} of {place}), its sync failed: {failed_sync}, \
                     opened, then a power cut, {choice:?}"
                );
                let promise = self.promise.lock().clone();
                let image = self.sim.kill();
                let result = caught(|| {
                    if failed_sync {
                        image.fail_next_sync();
                        let file = image.open(path, OpenMode::Write).map_err(disk("open"))?;
                        file.sync_data().expect_err("told to fail");
                    }
                    let opened = recover(image, promise, self.options)?;
                    let mut promise = opened.promise.lock().clone();
                    promise.created = true;
                    promise.remains[0].applied = opened.applied;
                    recover(opened.sim.crash(choice), promise, self.options)?.go_on(boundary.is_multiple_of(2))
                });
                if !self.note(&what, result) {
                    return;
                }
            }
        }
    }

    /// Ends the enumeration: the workload's own failure is one too. What the last operation left is looked at.
    pub fn finish(&self, done: Result<(), String>) -> Findings {
        if done.is_ok() {
            self.look("end", Path::new("/"));
        }
        let mut findings = self.findings.lock().clone();
        if let (None, Err(what)) = (&findings.failure, done) {
            findings.failure = Some(format!("with the power on: {what}"));
        }
        findings
    }
}

/// Opens what is left on a disk, or begins anew where nothing was promised.
pub fn recover(image: SimDisk, promise: Promise, options: EngineOptions) -> Result<Node, Stop> {
    let door: Arc<dyn Disk> = Arc::new(image.clone());
    let exists = Engine::exists(&*door, Path::new("/db")).map_err(disk("look"))?;
    if !exists && promise.created {
        return Err(wrong("the database is gone"));
    }
    let promise = Arc::new(Mutex::new(promise));
    if !exists {
        return Node::create(image, door, 1, options, promise);
    }
    let mut node = Node::closed(image, door, options, promise);
    node.open()?;
    Ok(node)
}

/// A panic is a failure like any other.
pub fn caught(work: impl FnOnce() -> Result<(), Stop>) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|stop| stop.to_string()),
        Err(panic) => Err(panic_message(&*panic)),
    }
}

/// A workload for a pair of nodes.
pub type Workload = fn(&mut Pair, &mut Sizes) -> Result<(), Stop>;

/// Runs a workload with the power going, or the process ending, at every operation of one node, from its creation on.
pub fn enumerate(workload: Workload, node: usize, faults: Faults, looks: Looks) -> Findings {
    let mut sizes = Sizes::new(looks.seed);
    let watched = Watched::new(faults, looks);
    let done = caught(|| {
        let in_question = Node::create(
            watched.sim.clone(),
            watched.door(),
            node as u64 + 1,
            watched.options,
            watched.promise.clone(),
        )?;
        let sim = SimDisk::new(12);
        let promise = Arc::new(Mutex::new(Promise::unborn()));
        let other = Node::create(sim.clone(), Arc::new(sim), 2 - node as u64, options(Faults::default()), promise)?;
        let nodes = if node == 0 { [in_question, other] } else { [other, in_question] };
        workload(&mut Pair::new(nodes), &mut sizes)
    });
    watched.finish(done)
}
