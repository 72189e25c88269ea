//! Short lives with everything in them that writes to a disk. Frames are smaller than a segment of 64 KiB.

use calamus_engine::Vote;
use calamus_engine::ids::{RaftId, Term};
use calamus_engine::journal::frame::FrameKind;
use calamus_tests::engine_driver::changes::put;
use calamus_tests::engine_driver::many;
use calamus_tests::engine_driver::pair::Pair;
use calamus_tests::engine_driver::{Stop, disk};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How long values are: as the workload says, or up to a fifth shorter or longer, by a seed.
pub struct Sizes(Option<StdRng>);

impl Sizes {
    /// With 0: as the workload says.
    pub fn new(seed: u64) -> Self {
        Self((seed > 0).then(|| StdRng::seed_from_u64(seed)))
    }

    fn near(&mut self, length: usize) -> usize {
        self.0.as_mut().map_or(length, |random| length - length / 5 + random.random_range(0..=length / 5 * 2))
    }
}

/// Stages a batch on the leader: values of about `length` bytes under `count` keys from `first` on.
fn puts(pair: &mut Pair, sizes: &mut Sizes, tree: &str, first: u32, count: u32, length: usize) -> Result<(), Stop> {
    let length = sizes.near(length);
    pair.leader().stage(&mut |batch, state| {
        let version = batch.begin_txn();
        batch.create_tree(tree).map_err(disk("create tree"))?;
        state.trees.entry(tree.into()).or_default();
        for number in first..first + count {
            let value = (0..length).map(|place| (place as u32 + number + first) as u8).collect();
            put(batch, state, tree, number, value, version)?;
        }
        batch.commit_txn();
        state.txn_id = version;
        Ok(())
    })?;
    Ok(())
}

/// Stages a batch on a multi-value tree: values from one number to another are added under a key, or removed.
fn values(pair: &mut Pair, key: u32, first: u32, count: u32, add: bool) -> Result<(), Stop> {
    pair.leader().stage(&mut |batch, state| {
        let version = batch.begin_txn();
        many::create(batch, state, "tags")?;
        for number in first..first + count {
            match add {
                true => many::add(batch, state, "tags", key, number, version)?,
                false => many::remove(batch, state, "tags", key, number, version)?,
            };
        }
        state.txn_id = batch.commit_txn().unwrap_or(state.txn_id);
        Ok(())
    })?;
    Ok(())
}

/// Stages a batch that drops a tree.
fn drop_tree(pair: &mut Pair, tree: &str) -> Result<(), Stop> {
    pair.leader().stage(&mut |batch, state| {
        let version = batch.begin_txn();
        batch.drop_tree(tree).map_err(disk("drop tree"))?;
        state.trees.remove(tree);
        state.many.remove(tree);
        batch.commit_txn();
        state.txn_id = version;
        Ok(())
    })?;
    Ok(())
}

/// Appends, commits and applies on the leader.
fn settle(pair: &mut Pair) -> Result<(), Stop> {
    pair.send(true)?;
    let all = pair.leader().log.len();
    pair.commit(all);
    pair.apply(pair.leader, usize::MAX)
}

/// A leader: groups, votes, batches ahead, refusals, a file that grows and shrinks, checkpoints past a reader,
/// segments that are begun, purged and recycled.
pub fn leader(pair: &mut Pair, sizes: &mut Sizes) -> Result<(), Stop> {
    pair.leader().vote(Vote { term: Term(1), node: Some(RaftId(1)), committed: false })?;
    puts(pair, sizes, "a", 0, 12, 60)?;
    settle(pair)?;
    puts(pair, sizes, "a", 8, 6, 900)?;
    puts(pair, sizes, "b", 0, 2, 9_000)?;
    pair.send(true)?;
    pair.leader().checkpoint()?;
    pair.commit(2);
    pair.apply(0, 1)?;
    pair.leader().checkpoint()?;
    settle(pair)?;
    // A list, then a page, then a tree of values in one record.
    values(pair, 0, 0, 40, true)?;
    settle(pair)?;
    pair.send_other(FrameKind::Membership, vec![1, 2, 3])?;
    puts(pair, sizes, "run", 0, 4, 20_000)?;
    // Does not fit a segment of this size: goes in parts.
    pair.leader().drop_staged();
    for number in 0..7 {
        puts(pair, sizes, "run", number, 1, 36_000)?;
        settle(pair)?;
    }
    pair.leader().open_reader();
    puts(pair, sizes, "a", 3, 9, 300)?;
    settle(pair)?;
    // A list again.
    values(pair, 0, 0, 38, false)?;
    settle(pair)?;
    pair.leader().checkpoint()?;
    pair.leader().readers.clear();
    pair.leader().checkpoint()?;
    let all = pair.leader().log.len();
    pair.leader().purge(all)?;
    // Behind it in the file: it leaves a hole.
    puts(pair, sizes, "c", 0, 3, 2_000)?;
    settle(pair)?;
    drop_tree(pair, "run")?;
    // Of the state before the tree is dropped.
    pair.leader().checkpoint()?;
    settle(pair)?;
    pair.leader().checkpoint()?;
    pair.leader().vote(Vote { term: Term(2), node: None, committed: false })?;
    for number in 0..4 {
        puts(pair, sizes, "c", number, 3, 5_500)?;
        pair.send(false)?;
    }
    settle(pair)?;
    pair.leader().check()?;
    pair.leader().reopen()?;
    drop_tree(pair, "c")?;
    drop_tree(pair, "tags")?;
    settle(pair)?;
    pair.leader().checkpoint()?;
    pair.leader().check()
}

/// A follower: frames in groups, cuts of what was not committed, in its own segment and back over others.
pub fn follower(pair: &mut Pair, sizes: &mut Sizes) -> Result<(), Stop> {
    puts(pair, sizes, "a", 0, 20, 200)?;
    settle(pair)?;
    pair.replicate(usize::MAX)?;
    pair.apply(1, usize::MAX)?;
    for round in 0..3 {
        // The follower has all of it, and none is committed; it leads for a moment, then it does not.
        puts(pair, sizes, "a", round, 5, 1_500)?;
        puts(pair, sizes, "b", 0, 2 + round, 6_000)?;
        values(pair, round % 2, 10 * (round % 2), 25, round < 2)?;
        pair.send(false)?;
        pair.replicate(usize::MAX)?;
        pair.elect(1)?;
        puts(pair, sizes, "x", 0, 2, 9_000)?;
        pair.send(true)?;
        pair.elect(0)?;
        pair.replicate(usize::MAX)?;
        let all = pair.leader().log.len();
        pair.commit(all);
        pair.apply(0, usize::MAX)?;
        pair.apply(1, 2)?;
        pair.follower().checkpoint()?;
        pair.apply(1, usize::MAX)?;
    }
    let applied = pair.follower().applied;
    pair.follower().checkpoint()?;
    pair.follower().purge(applied)?;
    puts(pair, sizes, "b", 2, 3, 6_000)?;
    settle(pair)?;
    pair.replicate(usize::MAX)?;
    pair.apply(1, usize::MAX)?;
    pair.follower().checkpoint()?;
    pair.follower().reopen()?;
    pair.follower().check()
}

/// A follower that is too far behind: seeded, and switched to a new generation, twice; the second time from a stream that is
/// cut behind each third piece, and goes on once more after it was verified.
pub fn seeded(pair: &mut Pair, sizes: &mut Sizes) -> Result<(), Stop> {
    puts(pair, sizes, "a", 0, 20, 300)?;
    settle(pair)?;
    pair.replicate(usize::MAX)?;
    pair.apply(1, usize::MAX)?;
    for round in 0..2 {
        for number in 0..4 {
            puts(pair, sizes, "b", number + round, 2, 6_000)?;
            settle(pair)?;
        }
        pair.leader().checkpoint()?;
        if round == 1 {
            drop_tree(pair, "b")?;
            settle(pair)?;
        }
        let pieces = if round == 1 { 3 } else { u32::MAX };
        pair.seed_cut(pieces, &mut |pair, chunk| {
            if chunk < 2 {
                puts(pair, sizes, "a", 5 * chunk, 9, 400)?;
                settle(pair)?;
                pair.leader().checkpoint()?;
            }
            Ok(())
        })?;
        puts(pair, sizes, "a", 0, 2, 5_000)?;
        settle(pair)?;
        pair.replicate(usize::MAX)?;
        pair.apply(1, usize::MAX)?;
        pair.follower().checkpoint()?;
        pair.follower().check()?;
    }
    Ok(())
}
