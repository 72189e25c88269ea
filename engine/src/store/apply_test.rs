//! Applying a record while others ask for the applied state.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Applied;
use crate::engine::rig_test::{append, commit, create};
use crate::env::{Disk, DiskFile, DiskInFront, FileInFront, OpenMode, SimDisk};
use crate::error::StorageError;

/// Holds up every read of a data file while it is closed.
#[derive(Default)]
struct Gate {
    /// Whether it is closed, and whether somebody stands at it.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        while state.0 {
            state.1 = true;
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
    }

    fn wait_for_somebody(&self) {
        let mut state = self.state.lock();
        while !state.1 {
            let waited = self.changed.wait_for(&mut state, Duration::from_secs(30));
            assert!(!waited.timed_out(), "nobody reads the data file");
        }
    }
}

/// A gate that is closed until this is dropped: also when a check fails, else whoever stands at it would never end.
struct Closed<'a>(&'a Gate);

impl<'a> Closed<'a> {
    fn new(gate: &'a Gate) -> Self {
        *gate.state.lock() = (true, false);
        Self(gate)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.state.lock().0 = false;
        self.0.changed.notify_all();
    }
}

/// A simulated disk whose data files are read through a gate.
struct GatedDisk {
    inner: SimDisk,
    gate: Arc<Gate>,
}

impl DiskInFront for GatedDisk {
    fn behind(&self) -> &dyn Disk {
        &self.inner
    }
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, StorageError> {
        let inner = self.inner.open(path, mode)?;
        if path.file_name().is_some_and(|name| name == "data") {
            return Ok(Arc::new(GatedFile { inner, gate: self.gate.clone() }));
        }
        Ok(inner)
    }
}

struct GatedFile {
    inner: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl FileInFront for GatedFile {
    fn behind(&self) -> &dyn DiskFile {
        &*self.inner
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        self.gate.pass();
        self.inner.read_at(buffer, offset)
    }
}

#[test]
fn others_see_the_applied_state_while_a_record_is_decoded() {
    let leader_disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let leader = create(&leader_disk, Path::new("/leader"), 1);
    let gate = Arc::new(Gate::default());
    let gated: Arc<dyn Disk> = Arc::new(GatedDisk { inner: SimDisk::new(2), gate: gate.clone() });
    let follower = create(&gated, Path::new("/follower"), 2);
    let mut frames = Vec::new();
    frames.extend(commit(&leader, |batch| {
        batch.create_tree("t").expect("new");
        batch.put("t", b"k", &[7; 100_000]).expect("fits");
    }));
    frames.extend(commit(&leader, |batch| {
        batch.drop_tree("t").expect("works");
    }));
    append(&follower, frames.clone());
    follower.apply(&frames[0]).expect("applies");
    // Its pages are in the file now, and in no version.
    follower.checkpoint().expect("works");
    let before = follower.applied();

    let closed = Closed::new(&gate);
    let applying = std::thread::spawn({
        let (follower, frame) = (follower.clone(), frames[1].clone());
        move || follower.apply(&frame)
    });
    gate.wait_for_somebody();
    let (answer, answered) = mpsc::channel();
    let asking = std::thread::spawn({
        let follower = follower.clone();
        move || answer.send((follower.status().decoded_records, follower.applied())).expect("waited for")
    });
    let seen = answered.recv_timeout(Duration::from_secs(30)).expect("nobody waits for the disk to ask for the state");
    assert_eq!(seen, (1, before), "the record is not applied yet");
    drop(closed);
    asking.join().expect("no panic");
    assert!(matches!(applying.join().expect("no panic"), Ok(Applied::Record { .. })));
    assert_eq!(follower.applied().digest, leader.applied().digest);
}
