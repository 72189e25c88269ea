//! One life of a leader and a follower, drawn from a seed.

use std::sync::Arc;

use calamus_engine::EngineOptions;
use calamus_engine::env::sim::{LARGE_SECTOR_BYTES, SECTOR_BYTES};
use calamus_engine::env::{CrashChoice, SimDisk};
use calamus_engine::journal::frame::FrameKind;
use calamus_tests::engine_driver::changes::{Sizes, transactions};
use calamus_tests::engine_driver::node::Node;
use calamus_tests::engine_driver::pair::Pair;
use calamus_tests::engine_driver::promise::Promise;
use calamus_tests::engine_driver::{Stop, small_options};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What happened in a life, or in many.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub steps: u64,
    pub batches: u64,
    pub entries: u64,
    pub power_cuts: u64,
    pub cuts_in_recovery: u64,
    pub reopenings: u64,
    pub checkpoints: u64,
    pub elections: u64,
    pub refusals: u64,
    pub seedings: u64,
    pub void_records: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.batches += other.batches;
        self.entries += other.entries;
        self.power_cuts += other.power_cuts;
        self.cuts_in_recovery += other.cuts_in_recovery;
        self.reopenings += other.reopenings;
        self.checkpoints += other.checkpoints;
        self.elections += other.elections;
        self.refusals += other.refusals;
        self.seedings += other.seedings;
        self.void_records += other.void_records;
    }
}

/// The two nodes, the dice, and what has happened.
pub struct Life {
    random: StdRng,
    sizes: Sizes,
    pair: Pair,
    needs_leader: bool,
    /// A batch that was staged on a broken chain: the entries up to it must be applied before the next is staged.
    alone: usize,
    pub tally: Tally,
    pub trace: Vec<String>,
}

/// On a disk of either kind of sectors, which may take its calls in pieces.
fn new_node(random: &mut StdRng, seed: u64, raft_id: u64, options: EngineOptions) -> Result<Node, Stop> {
    let unit_bytes = if random.random() { SECTOR_BYTES } else { LARGE_SECTOR_BYTES };
    let sim = SimDisk::with_unit(seed ^ raft_id, unit_bytes);
    sim.set_short_io(random.random());
    let door = Arc::new(sim.clone());
    Node::create(sim, door, raft_id, options, Arc::new(Mutex::new(Promise::unborn())))
}

impl Life {
    /// Two new nodes.
    pub fn begin(seed: u64) -> Result<Self, Stop> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut options = small_options();
        if random.random_ratio(1, 5) {
            // Readers are expired, and recovery takes checkpoints on the way.
            options.version_bytes_limit = 256 << 10;
        }
        if random.random_ratio(1, 2) {
            options.retention_bytes = 100 << 10;
        }
        let mut follower = options;
        follower.split_percent = random.random_range(30..70);
        let nodes = [new_node(&mut random, seed, 1, options)?, new_node(&mut random, seed, 2, follower)?];
        let pair = Pair::new(nodes);
        let sizes = if random.random_ratio(1, 4) { Sizes::Large } else { Sizes::Small };
        Ok(Self { random, sizes, pair, needs_leader: false, alone: 0, tally: Tally::default(), trace: Vec::new() })
    }

    /// Lives it to the end.
    pub fn run(&mut self) -> Result<(), Stop> {
        for _ in 0..self.random.random_range(20..=70) {
            self.tally.steps += 1;
            let done = if self.needs_leader { self.elect() } else { self.step() };
            self.settle(done)?;
        }
        self.end()
    }

    /// Power cuts that were still to come come now; then everything must be equal.
    fn end(&mut self) -> Result<(), Stop> {
        for node in 0..2 {
            if self.pair.nodes[node].power_will_go() {
                self.power_cut(node)?;
            }
        }
        while self.needs_leader {
            let done = self.elect();
            self.settle(done)?;
        }
        self.trace.push("finish".into());
        let truth = self.pair.nodes[self.pair.leader].log.clone();
        self.tally.entries += truth.len() as u64;
        self.tally.void_records += truth.iter().filter(|entry| entry.void).count() as u64;
        self.pair.finish()
    }

    /// A failure is none if the power of a node is gone; then it comes back.
    fn settle(&mut self, done: Result<(), Stop>) -> Result<(), Stop> {
        let gone: Vec<usize> = (0..2).filter(|node| self.pair.nodes[*node].power_is_gone()).collect();
        if gone.is_empty() {
            return done;
        }
        gone.into_iter().try_for_each(|node| self.power_cut(node))
    }

    fn power_cut(&mut self, node: usize) -> Result<(), Stop> {
        let choice = match self.random.random_range(0..6) {
            0 => CrashChoice::LoseAll,
            1 => CrashChoice::KeepAll,
            _ => CrashChoice::Seeded(self.random.random()),
        };
        let again = self.random.random_ratio(1, 4).then(|| self.random.random_range(0..25));
        self.trace.push(format!("power cut of {node}: {choice:?}, once more within recovery: {again:?}"));
        self.tally.power_cuts += 1;
        self.tally.cuts_in_recovery += u64::from(again.is_some());
        self.needs_leader |= node == self.pair.leader;
        self.pair.power_cut(node, choice, again)
    }

    fn elect(&mut self) -> Result<(), Stop> {
        let able: Vec<usize> = (0..2).filter(|node| self.pair.may_lead(*node)).collect();
        assert!(!able.is_empty(), "what the leader has acknowledged is there, so it may lead");
        let node = able[self.random.random_range(0..able.len())];
        self.trace.push(format!("{node} leads"));
        self.tally.elections += 1;
        // Stays as it is if the power goes on the way.
        self.needs_leader = true;
        self.pair.elect(node)?;
        self.needs_leader = false;
        Ok(())
    }

    /// Stages a batch as the merger would: on a chain that is whole, or alone. (A record that does not build on the
    /// applied state is void; one that is staged on a void one must never be in the log.)
    fn stage(&mut self) -> Result<(), Stop> {
        let leader = self.pair.leader();
        let whole = leader.chain_is_whole();
        if !whole && leader.applied < self.alone {
            return Ok(());
        }
        self.execute()?;
        if !whole {
            self.pair.send(true)?;
            self.alone = self.pair.leader().log.len();
        }
        Ok(())
    }

    fn execute(&mut self) -> Result<(), Stop> {
        let (random, sizes) = (&mut self.random, self.sizes);
        let staged = self.pair.leader().stage(&mut |batch, state| transactions(random, sizes, batch, state))?;
        self.tally.batches += u64::from(staged);
        Ok(())
    }

    fn step(&mut self) -> Result<(), Stop> {
        let node = self.random.random_range(0..2);
        let draw = self.random.random_range(0..100);
        self.trace.push(format!("{draw} on {node}"));
        match draw {
            0..30 => {
                for _ in 0..self.random.random_range(1..=3) {
                    self.stage()?;
                }
                if self.random.random_ratio(3, 4) { self.pair.send(self.random.random()) } else { Ok(()) }
            }
            30..42 => {
                let upto = self.random.random_range(self.pair.truth.len()..=self.pair.leader().log.len());
                self.pair.commit(upto);
                Ok(())
            }
            42..54 => {
                let most = if self.random.random() { usize::MAX } else { self.random.random_range(1..4) };
                self.pair.replicate(most)
            }
            54..68 => {
                let most = if self.random.random() { usize::MAX } else { self.random.random_range(1..4) };
                self.pair.apply(node, most)
            }
            68..75 => self.checkpoint(node),
            75..78 => {
                let engine = self.pair.nodes[node].engine();
                let checkpointed = engine.checkpointed().log_id.map_or(0, |id| id.index.0 as usize + 1);
                self.pair.nodes[node].purge(checkpointed)
            }
            78..81 => {
                self.tally.refusals += 1;
                self.pair.leader().drop_staged();
                Ok(())
            }
            81..83 => self.elect(),
            83..85 => self.pair.send_other(FrameKind::Membership, vec![draw; 20]),
            85..88 => {
                self.pair.nodes[node].open_reader();
                Ok(())
            }
            88..90 => {
                let mut readers = std::mem::take(&mut self.pair.nodes[node].readers);
                readers.drain(..readers.len().div_ceil(2));
                self.pair.nodes[node].readers = readers;
                Ok(())
            }
            90..92 => {
                self.pair.nodes[node].check_readers()?;
                self.pair.nodes[node].check()
            }
            92..94 => self.reopen(node),
            94..95 => self.seed(),
            _ => {
                let operations = self.random.random_range(0..60);
                self.trace.push(format!("the power of {node} goes after {operations} operations"));
                self.pair.nodes[node].power_ends_after(operations);
                Ok(())
            }
        }
    }

    fn checkpoint(&mut self, node: usize) -> Result<(), Stop> {
        self.tally.checkpoints += 1;
        self.pair.nodes[node].checkpoint()
    }

    /// A node that led does not go on leading its term after it was away.
    fn reopen(&mut self, node: usize) -> Result<(), Stop> {
        self.tally.reopenings += 1;
        self.needs_leader |= node == self.pair.leader;
        self.pair.nodes[node].reopen()
    }

    /// Seeds the follower while the leader goes on; often the stream is cut, and goes on where it was.
    fn seed(&mut self) -> Result<(), Stop> {
        self.tally.seedings += 1;
        let (random, sizes) = (&mut self.random, self.sizes);
        let pieces = if random.random() { u32::MAX } else { random.random_range(2..6) };
        self.pair.seed_cut(pieces, &mut |pair, chunk| {
            if chunk >= 6 || random.random() {
                return Ok(());
            }
            if pair.leader().chain_is_whole() {
                pair.leader().stage(&mut |batch, state| transactions(random, sizes, batch, state))?;
            }
            pair.send(true)?;
            let all = pair.leader().log.len();
            pair.commit(all);
            pair.apply(pair.leader, usize::MAX)?;
            if random.random() { pair.leader().checkpoint() } else { Ok(()) }
        })
    }
}
