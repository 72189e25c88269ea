//! The power goes again, at every operation of recovery.

use std::path::Path;
use std::sync::Arc;

use calamus_engine::engine::Faults;
use calamus_engine::env::{CrashChoice, SimDisk};
use calamus_tests::boundary_disk::BoundaryDisk;
use calamus_tests::engine_driver::node::Node;
use calamus_tests::engine_driver::pair::Pair;
use calamus_tests::engine_driver::promise::Promise;
use parking_lot::Mutex;

use super::enumerate::{Findings, Looks, Watched, caught, options};
use super::workloads::{self, Sizes};

/// Disks as power cuts leave them while pages are written, at every tenth such operation or so.
fn torn_disks(looks: &Looks) -> Vec<(SimDisk, Promise)> {
    let sim = SimDisk::with_unit(3 + looks.seed, looks.unit_bytes);
    let promise = Arc::new(Mutex::new(Promise::unborn()));
    let torn: Arc<Mutex<Vec<(SimDisk, Promise)>>> = Arc::default();
    let (at, from, to, promised) = (Mutex::new(0), sim.clone(), torn.clone(), promise.clone());
    let hook = move |_: &'static str, path: &Path| {
        let mut at = at.lock();
        *at += u64::from(path.ends_with("data") && promised.lock().created);
        if path.ends_with("data") && *at % 10 == 9 {
            to.lock().push((from.crash(CrashChoice::Seeded(*at)), promised.lock().clone()));
        }
    };
    let door = Arc::new(BoundaryDisk::new(Arc::new(sim.clone()), Arc::new(hook)));
    let node = Node::create(sim, door, 1, options(Faults::default()), promise).expect("a new database");
    let plain = SimDisk::new(4);
    let idle = Arc::new(Mutex::new(Promise::unborn()));
    let other = Node::create(plain.clone(), Arc::new(plain), 2, options(Faults::default()), idle).expect("another");
    workloads::leader(&mut Pair::new([node, other]), &mut Sizes::new(looks.seed)).expect("the power stays on");
    let torn = std::mem::take(&mut *torn.lock());
    assert!(torn.len() >= 2, "only {} torn disks", torn.len());
    torn
}

/// Recovers from each, with the power going at every operation of it.
pub fn enumerate_recovery(looks: Looks) -> Findings {
    let mut all = Findings::default();
    for (number, (sim, promise)) in (1..).zip(torn_disks(&looks)) {
        let looks = Looks { seed: looks.seed ^ number << 48, ..looks.clone() };
        let watched = Watched::of(sim, promise, Faults::default(), looks);
        let done = caught(|| {
            let (sim, promise) = (watched.sim.clone(), watched.promise.clone());
            let mut node = Node::closed(sim, watched.door(), watched.options, promise);
            node.open()?;
            node.go_on(true)
        });
        let found = watched.finish(done);
        all.boundaries += found.boundaries;
        all.images += found.images;
        if found.failure.is_some() {
            return Findings { failure: found.failure, ..all };
        }
    }
    assert!(all.boundaries > 20, "only {} operations", all.boundaries);
    all
}
