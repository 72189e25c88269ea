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

use super::enumerate::{Search, Watched, caught, options};
use super::workloads;

/// Disks as power cuts leave them while pages are written, at every tenth such operation or so.
fn torn_disks() -> Vec<(SimDisk, Promise)> {
    let (sim, promise) = (SimDisk::new(3), Arc::new(Mutex::new(Promise::unborn())));
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
    workloads::leader(&mut Pair::new([node, other])).expect("the power stays on");
    std::mem::take(&mut *torn.lock())
}

#[test]
fn recovery_survives_a_power_cut_at_any_operation() {
    let (mut boundaries, mut images) = (0, 0);
    let torn = torn_disks();
    assert!(torn.len() >= 2, "only {} torn disks", torn.len());
    for (sim, promise) in torn {
        let watched = Watched::of(sim, promise, Faults::default(), Search::PowerCuts);
        let done = caught(|| {
            let (sim, promise) = (watched.sim.clone(), watched.promise.clone());
            let mut node = Node::closed(sim, watched.door(), watched.options, promise);
            node.open()?;
            node.go_on(true)
        });
        let found = watched.finish(done);
        if let Some(what) = found.failure {
            panic!("{what}\nrun it again: cargo test -p calamus-tests --test crash recovery_survives");
        }
        boundaries += found.boundaries;
        images += found.images;
    }
    println!("crash: recovery: {boundaries} operations, {images} disks recovered from");
    assert!(boundaries > 20, "only {boundaries} operations");
}
