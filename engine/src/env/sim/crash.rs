//! What a power cut leaves.

use std::collections::BTreeMap;

use super::CrashChoice;
use super::world::{Inode, Node, Unsynced, World, apply};

/// SplitMix64 (Steele, Lea, Flood 2014): a small generator whose every seed is good.
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Decides for each change whether it reached the disk.
enum Fate {
    All(bool),
    /// Kept with `odds` of 256. The odds differ from seed to seed, so that some crashes lose nearly everything and
    /// some nearly nothing.
    Random {
        chance: Chance,
        odds: u64,
    },
}

impl Fate {
    fn keeps(&mut self) -> bool {
        match self {
            Self::All(kept) => *kept,
            Self::Random { chance, odds } => chance.draw() % 256 < *odds,
        }
    }
}

impl World {
    /// The disk after the power is back.
    pub fn crash(&self, choice: CrashChoice) -> World {
        let mut fate = match choice {
            CrashChoice::LoseAll => Fate::All(false),
            CrashChoice::KeepAll => Fate::All(true),
            CrashChoice::Seeded(seed) => {
                let mut chance = Chance(self.seed ^ seed.rotate_left(32));
                let odds = [16, 64, 128, 192, 240][usize::try_from(chance.draw() % 5).expect("below 5")];
                Fate::Random { chance, odds }
            }
        };
        let mut names = self.durable_names.clone();
        for change in &self.name_changes {
            if fate.keeps() {
                change.apply(&mut names);
            }
        }
        // What stands in a directory that is not there is not there either.
        let mut reachable = BTreeMap::new();
        for (path, node) in names {
            let parent = path.parent();
            if parent.is_none_or(|parent| reachable.get(parent) == Some(&Node::Directory)) {
                reachable.insert(path, node);
            }
        }
        let inodes = self.inodes.iter().map(|(number, inode)| (*number, after(inode, &mut fate))).collect();
        World::with(self.seed, inodes, reachable, self.next_inode())
    }
}

fn after(inode: &Inode, fate: &mut Fate) -> Inode {
    let mut image = inode.durable.clone();
    let mut length = image.len();
    let mut kept = Vec::new();
    for change in inode.given_up.iter().chain(&inode.unsynced) {
        if !fate.keeps() {
            continue;
        }
        match change {
            Unsynced::Length(changed) => length = *changed,
            Unsynced::Sector { .. } => kept.push(change),
        }
    }
    apply(&mut image, kept.into_iter(), length);
    Inode { current: image.clone(), durable: image, ..Inode::default() }
}
