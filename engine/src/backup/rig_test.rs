//! What tests of backups are written with: a clock that nobody waits for, and an engine that lives at random beside a map.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{
    BackupOptions, BackupProgress, BackupStore, Backups, DirectoryStore, NewNode, ObjectInfo, ObjectWriter,
    RestoreOptions, StoreError, Surroundings,
};
use crate::checkpoint::meta::NodeIdentity;
use crate::engine::rig_test::{append, frame_of, options};
use crate::engine::{Engine, EngineOptions};
use crate::env::Disk;
use crate::ids::{DatabaseId, Digest, LogId, TxnId};
use crate::journal::JournalOptions;
use crate::journal::frame::{Frame, FrameKind, Payload};

/// A clock that moves when it is asked to, or slept by; what is drawn is counted.
#[derive(Clone, Default)]
pub(crate) struct TestSurroundings(pub(crate) Arc<Mutex<(Duration, u128)>>);

impl TestSurroundings {
    pub(crate) fn pass(&self, time: Duration) {
        self.0.lock().0 += time;
    }
}

/// A place in memory, as a bucket is one: copies are cheap.
#[derive(Default)]
pub(crate) struct MapStore(pub(crate) Arc<Mutex<BTreeMap<String, Bytes>>>);

impl BackupStore for MapStore {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Ok(Box::new(MapWriter { objects: self.0.clone(), name: name.to_owned(), bytes: Vec::new() }))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.lock().insert(name.to_owned(), Bytes::copy_from_slice(bytes));
        Ok(())
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let objects = self.0.lock();
        let object = objects.get(name).ok_or_else(|| StoreError::NotFound { name: name.to_owned() })?;
        let rest = object.get(offset as usize..).unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let objects = self.0.lock();
        let found = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(found.map(|(name, bytes)| ObjectInfo { name: name.clone(), bytes: bytes.len() as u64 }).collect())
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.0.lock().remove(name);
        Ok(())
    }
}

struct MapWriter {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    name: String,
    bytes: Vec<u8>,
}

impl ObjectWriter for MapWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.objects.lock().insert(self.name, self.bytes.into());
        Ok(())
    }
}

/// The wall clock's beginning.
pub(crate) const WALL_START: u64 = 1_790_000_000_000_000;

impl Surroundings for TestSurroundings {
    fn elapsed(&self) -> Duration {
        self.0.lock().0
    }

    fn wall_micros(&self) -> u64 {
        WALL_START + self.elapsed().as_micros() as u64
    }

    fn sleep(&self, how_long: Duration) {
        self.pass(how_long);
    }

    fn draw(&self) -> u128 {
        let mut state = self.0.lock();
        state.1 += 1;
        xxhash_rust::xxh3::xxh3_128(&state.1.to_le_bytes())
    }
}

pub(crate) fn small() -> BackupOptions {
    BackupOptions { part_bytes: 24 << 10, chunk_bytes: 16 << 10, hold_bytes: u64::MAX, ..BackupOptions::default() }
}

pub(crate) fn backups(disk: &Arc<dyn Disk>, root: &str, time: &TestSurroundings) -> Backups {
    let store = Arc::new(DirectoryStore::new(disk.clone(), Path::new(root)));
    Backups::with(store, Arc::new(time.clone()), small())
}

pub(crate) fn go_on(_: BackupProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn membership_of(identity: &NodeIdentity) -> Bytes {
    Bytes::from(format!("only {}", identity.raft_id))
}

/// The node that tests restore.
pub(crate) fn node() -> NewNode<'static> {
    NewNode { name: "restored", listen: "127.0.0.1:1", advertise: "127.0.0.1:1", membership: Some(&membership_of) }
}

pub(crate) fn engine_options() -> EngineOptions {
    let journal = JournalOptions { segment_bytes: 512 << 10, ..options().journal };
    EngineOptions { journal, retention_bytes: 0, ..options() }
}

pub(crate) fn restore_options() -> RestoreOptions {
    RestoreOptions { engine: engine_options(), ..RestoreOptions::default() }
}

/// A number from the environment.
pub(crate) fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The engine that tests make backups of.
pub(crate) fn new_engine(disk: &Arc<dyn Disk>, database: u128) -> Engine {
    let (place, identity) = (Path::new("/db"), crate::engine::rig_test::identity(1));
    Engine::create(disk.clone(), place, &identity, DatabaseId(database), engine_options()).expect("new")
}

/// Trees by name, as plain maps.
pub(crate) type Trees = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// The state at the end of a frame.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Moment {
    pub(crate) txn_id: TxnId,
    pub(crate) digest: Digest,
    pub(crate) wall_micros: u64,
    pub(crate) trees: Trees,
}

/// An engine that is written to at random, and every state that it has been in.
pub(crate) struct Life {
    pub(crate) engine: Engine,
    pub(crate) random: StdRng,
    pub(crate) moments: Vec<Moment>,
    term: u64,
}

impl Life {
    /// Goes on from what the engine holds: nothing, at first.
    pub(crate) fn new(engine: Engine, seed: u64) -> Self {
        let applied = engine.applied();
        let moment = Moment {
            txn_id: applied.txn_id,
            digest: applied.digest,
            wall_micros: applied.wall_time_micros,
            trees: trees_of(&engine),
        };
        let term = engine.log_state().last.map_or(1, |last| last.term.0);
        Self { engine, random: StdRng::seed_from_u64(seed), moments: vec![moment], term }
    }

    pub(crate) fn now(&self) -> &Moment {
        self.moments.last().expect("it was something from the beginning")
    }

    /// A batch of a few transactions, or an entry of another kind, or a checkpoint.
    pub(crate) fn step(&mut self, time: &TestSurroundings) {
        time.pass(Duration::from_micros(self.random.random_range(0..2_000_000)));
        match self.random.random_range(0..20) {
            0 => self.other(FrameKind::Blank, Bytes::new()),
            1 => {
                let members = Bytes::from(vec![b'm'; self.random.random_range(1..60)]);
                self.other(FrameKind::Membership, members);
            }
            2..5 => drop(self.engine.checkpoint().expect("works")),
            _ => self.write(time),
        }
    }

    /// Steps until so many frames have changed what the trees hold.
    pub(crate) fn change(&mut self, times: usize, time: &TestSurroundings) {
        for _ in 0..times {
            let before = self.now().trees.clone();
            while self.now().trees == before {
                self.step(time);
            }
        }
    }

    fn other(&mut self, kind: FrameKind, bytes: Bytes) {
        self.term += u64::from(kind == FrameKind::Blank);
        let last = self.engine.log_state().last.map_or(0, |last| last.index.0 + 1);
        let commit = self.engine.applied().log_id.map(|log_id| log_id.index);
        let (log_id, chain) = (LogId::new(self.term, last), self.engine.last_chain());
        self.take(&Frame::encode(kind, log_id, commit, chain, Payload::new(bytes)));
    }

    fn take(&self, frame: &Frame) {
        append(&self.engine, vec![frame.clone()]);
        self.engine.apply(frame).expect("applies");
        // As a consensus that keeps nothing for anybody: only pins hold the journal.
        self.engine.purge(frame.log_id()).expect("only noted");
    }

    fn write(&mut self, time: &TestSurroundings) {
        let mut trees = self.now().trees.clone();
        let mut batch = self.engine.begin_batch().expect("memory");
        for _ in 0..self.random.random_range(1..4) {
            batch.begin_txn();
            for _ in 0..self.random.random_range(1..8) {
                let tree = ["a", "b", "$c"][self.random.random_range(0..3)];
                if batch.create_tree(tree).expect("works") {
                    trees.insert(tree.to_owned(), BTreeMap::new());
                }
                let entries = trees.get_mut(tree).expect("made at the latest now");
                let key = self.random.random_range(0..150_u32).to_be_bytes().to_vec();
                match self.random.random_range(0..60) {
                    0..18 => {
                        batch.delete(tree, &key).expect("works");
                        entries.remove(&key);
                    }
                    18 => {
                        batch.drop_tree(tree).expect("works");
                        trees.remove(tree);
                    }
                    _ => {
                        let length = [20, 600, 3_000, 12_000][self.random.random_range(0..4)];
                        let mut value = vec![self.random.random::<u8>(); self.random.random_range(0..length)];
                        value.iter_mut().step_by(13).for_each(|byte| *byte = self.random.random());
                        batch.put(tree, &key, &value).expect("fits");
                        entries.insert(key, value);
                    }
                }
            }
            batch.commit_txn();
        }
        let Some(staged) = batch.seal(time.wall_micros()).expect("it fits") else { return };
        let frame = frame_of(&self.engine, &staged);
        let (last, chain) = (frame.log_id().index.0, self.engine.last_chain());
        let payload = frame.payload().clone();
        self.take(&Frame::encode(FrameKind::Record, LogId::new(self.term, last), frame.commit(), chain, payload));
        let applied = self.engine.applied();
        let moment =
            Moment { txn_id: applied.txn_id, digest: applied.digest, wall_micros: applied.wall_time_micros, trees };
        self.moments.push(moment);
    }
}

/// All trees of an engine but the one that a restore makes.
pub(crate) fn trees_of(engine: &Engine) -> Trees {
    let names = engine.read().list_trees().expect("readable");
    let names = names.into_iter().map(|tree| tree.name).filter(|name| name != "$timelines");
    names.map(|name| (name.clone(), crate::engine::rig_test::contents(engine, &name))).collect()
}
