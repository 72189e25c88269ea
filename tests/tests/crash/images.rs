//! Which disks a power cut may leave at one moment: what the model of the disk allows of what is pending, in the order in
//! which it is worth a look.

use std::collections::BTreeSet;

use calamus_engine::env::SimDisk;
use calamus_engine::env::sim::PendingOperation;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// How many disks are looked at for each moment.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Prefixes of the pending operations, the longest ones first; nothing and everything are always among them.
    pub prefixes: usize,
    /// Ways in which the last operation is torn.
    pub torn: usize,
    /// With so many pending operations or fewer, every subset of them.
    pub all_subsets: usize,
    /// With more: so many subsets, drawn.
    pub subsets: usize,
    /// Mixtures in which each unit is kept or lost by itself.
    pub mixtures: u64,
}

impl Bounds {
    /// What a machine of CI looks at.
    pub const SHARE: Self = Self { prefixes: 2, torn: 4, all_subsets: 3, subsets: 4, mixtures: 4 };
    /// What the long run looks at.
    pub const FULL: Self = Self { prefixes: 8, torn: 16, all_subsets: 6, subsets: 24, mixtures: 12 };
}

/// What of the pending operations is on the disk.
#[derive(Clone, Debug)]
pub enum Kept {
    /// The first so many.
    Prefix(usize),
    /// The first so many, and of the next one these parts.
    Torn(usize, Parts),
    /// Those at these places.
    Subset(BTreeSet<usize>),
    /// Each part or not, from this seed: in so many of 256 cases.
    Mixture { seed: u64, odds: u8 },
}

/// Parts of an operation.
#[derive(Clone, Copy, Debug)]
pub enum Parts {
    /// The first so many.
    First(usize),
    /// All from here on.
    From(usize),
    /// All but one.
    AllBut(usize),
    /// Each or not, from this seed.
    Drawn(u64),
}

/// The disks to look at.
pub fn kept(pending: &[PendingOperation], bounds: &Bounds, seed: u64) -> Vec<Kept> {
    let mut random = StdRng::seed_from_u64(seed);
    let count = pending.len();
    let mut found = vec![Kept::Prefix(count)];
    if count == 0 {
        return found;
    }
    found.push(Kept::Prefix(0));
    found.extend((1..count).rev().take(bounds.prefixes).map(Kept::Prefix));
    found.extend(torn(pending, bounds, &mut random));
    if count <= bounds.all_subsets {
        let subsets = (0..1_u32 << count).map(|mask| (0..count).filter(|place| mask >> place & 1 == 1).collect());
        found.extend(subsets.map(Kept::Subset));
    } else {
        for _ in 0..bounds.subsets {
            let odds = random.random_range(1..8);
            found.push(Kept::Subset((0..count).filter(|_| random.random_ratio(odds, 8)).collect()));
        }
    }
    for _ in 0..bounds.mixtures {
        found.push(Kept::Mixture { seed: random.random(), odds: [16, 64, 128, 192, 240][random.random_range(0..5)] });
    }
    found
}

/// The last operation torn, all before it kept.
fn torn(pending: &[PendingOperation], bounds: &Bounds, random: &mut StdRng) -> Vec<Kept> {
    let last = pending.len() - 1;
    let parts = pending[last].parts;
    if parts < 2 {
        return Vec::new();
    }
    let mut ways: Vec<Parts> = (1..parts).flat_map(|part| [Parts::First(part), Parts::From(part)]).collect();
    ways.extend((0..parts).map(Parts::AllBut));
    ways.extend((0..bounds.torn as u64).map(|_| Parts::Drawn(random.random())));
    ways.shuffle(random);
    ways.truncate(bounds.torn);
    ways.into_iter().map(|parts| Kept::Torn(last, parts)).collect()
}

/// The disk with what is kept.
pub fn image(sim: &SimDisk, pending: &[PendingOperation], kept: &Kept) -> SimDisk {
    let place = |operation: u64| {
        pending.binary_search_by_key(&operation, |pending| pending.operation).expect("an operation that is pending")
    };
    let mut random = match kept {
        Kept::Mixture { seed, .. } | Kept::Torn(_, Parts::Drawn(seed)) => StdRng::seed_from_u64(*seed),
        _ => StdRng::seed_from_u64(0),
    };
    sim.crash_keeping(&mut |operation, part| match kept {
        Kept::Prefix(count) => place(operation) < *count,
        Kept::Torn(last, parts) if place(operation) == *last => match parts {
            Parts::First(count) => part < *count,
            Parts::From(first) => part >= *first,
            Parts::AllBut(one) => part != *one,
            Parts::Drawn(_) => random.random(),
        },
        Kept::Torn(last, _) => place(operation) < *last,
        Kept::Subset(places) => places.contains(&place(operation)),
        Kept::Mixture { odds, .. } => random.random::<u8>() < *odds,
    })
}

#[test]
fn all_subsets_of_few_operations_are_looked_at_and_some_of_many() {
    let pending = |count: u64| -> Vec<PendingOperation> {
        (0..count).map(|operation| PendingOperation { operation, parts: 3 }).collect()
    };
    let subsets = |count: u64| {
        let kept = kept(&pending(count), &Bounds::FULL, 1);
        let sets =
            kept.into_iter().filter_map(|kept| if let Kept::Subset(places) = kept { Some(places) } else { None });
        sets.collect::<BTreeSet<_>>().len()
    };
    assert_eq!((subsets(1), subsets(4), subsets(6)), (2, 16, 64));
    assert!((20..=24).contains(&subsets(30)));
}
