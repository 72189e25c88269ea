//! Runs a workload once; before every operation that changes the disk of one node it looks at what a power cut there
//! would leave, in several ways, and lets a node recover from it and go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use calamus_engine::engine::Faults;
use calamus_engine::env::{CrashChoice, Disk, SimDisk};
use calamus_engine::{Engine, EngineOptions};
use calamus_tests::boundary_disk::BoundaryDisk;
use calamus_tests::engine_driver::node::Node;
use calamus_tests::engine_driver::pair::Pair;
use calamus_tests::engine_driver::promise::Promise;
use calamus_tests::engine_driver::{Stop, disk, small_options, wrong};
use calamus_tests::panic_message;
use parking_lot::Mutex;

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
    pub findings: Mutex<Findings>,
}

/// Small segments, so that a short life recycles them; memory for few frames, so that the disk is read.
pub fn options(faults: Faults) -> EngineOptions {
    let mut options = EngineOptions { faults, ..small_options() };
    options.journal.segment_bytes = 192 << 10;
    options.journal.cache_bytes = 16 << 10;
    options
}

/// How many random mixtures are looked at for each operation, beside all and nothing of what was not synced.
fn mixtures() -> u64 {
    match std::env::var("CALAMUS_CRASHES") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("CALAMUS_CRASHES is {text:?} and should be a number")),
        Err(_) => 1,
    }
}

impl Watched {
    /// An empty disk.
    pub fn new(faults: Faults) -> Arc<Self> {
        Self::of(SimDisk::new(11), Promise::unborn(), faults)
    }

    /// A disk with something on it.
    pub fn of(sim: SimDisk, promise: Promise, faults: Faults) -> Arc<Self> {
        let promise = Arc::new(Mutex::new(promise));
        Arc::new(Self { sim, promise, options: options(faults), findings: Mutex::default() })
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
        let random = (0..mixtures()).map(|mixture| CrashChoice::Seeded(boundary + (mixture << 32)));
        for choice in [CrashChoice::LoseAll, CrashChoice::KeepAll].into_iter().chain(random) {
            let result = self.recover(self.sim.crash(choice), boundary.is_multiple_of(2));
            let mut findings = self.findings.lock();
            findings.images += 1;
            if let Err(what) = result {
                let place = path.display();
                findings.failure = Some(format!(
                    "the power goes before operation {boundary} ({operation} of {place}), {choice:?}: {what}"
                ));
                return;
            }
        }
    }

    /// Recovers and goes on, on a disk of its own.
    fn recover(&self, image: SimDisk, keep_tail: bool) -> Result<(), String> {
        let promise = self.promise.lock().clone();
        caught(|| {
            let door: Arc<dyn Disk> = Arc::new(image.clone());
            let exists = Engine::exists(&*door, Path::new("/db")).map_err(disk("look"))?;
            if !exists && promise.created {
                return Err(wrong("the database is gone"));
            }
            let promise = Arc::new(Mutex::new(promise));
            let mut node = if exists {
                let mut node = Node::closed(image, door, self.options, promise);
                node.open()?;
                node
            } else {
                Node::create(image, door, 1, self.options, promise)?
            };
            node.go_on(keep_tail)
        })
    }

    /// Ends the enumeration: the workload's own failure is one too.
    pub fn finish(&self, done: Result<(), String>) -> Findings {
        let mut findings = self.findings.lock().clone();
        if let (None, Err(what)) = (&findings.failure, done) {
            findings.failure = Some(format!("with the power on: {what}"));
        }
        findings
    }
}

/// A panic is a failure like any other.
pub fn caught(work: impl FnOnce() -> Result<(), Stop>) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|stop| stop.to_string()),
        Err(panic) => Err(panic_message(&*panic)),
    }
}

/// A workload for a pair of nodes.
pub type Workload = fn(&mut Pair) -> Result<(), Stop>;

/// Runs a workload with the power going at every operation of one node, from its creation on.
pub fn enumerate(workload: Workload, node: usize, faults: Faults) -> Findings {
    let watched = Watched::new(faults);
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
        workload(&mut Pair::new(nodes))
    });
    watched.finish(done)
}
