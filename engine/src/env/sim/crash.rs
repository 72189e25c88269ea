//! What a power cut leaves.

use std::collections::BTreeMap;

use super::CrashChoice;
use super::chance::Chance;
use super::inode::Inode;
use super::world::{Node, World};

impl World {
    /// The disk after the power is back.
    pub fn crash(&self, choice: CrashChoice) -> World {
        match choice {
            CrashChoice::LoseAll => self.crash_keeping(&mut |_, _| false),
            CrashChoice::KeepAll => self.crash_keeping(&mut |_, _| true),
            CrashChoice::Seeded(seed) => {
                let mut chance = Chance::new(self.seed ^ seed.rotate_left(32));
                // The odds differ from seed to seed, so that some crashes lose nearly everything and some nearly nothing.
                let odds = [16, 64, 128, 192, 240][chance.below(5)];
                self.crash_keeping(&mut |_, _| chance.draw() % 256 < odds)
            }
        }
    }

    /// The same, where `keeps` decides: it is asked once for each part of each operation that is not durable.
    pub fn crash_keeping(&self, keeps: &mut dyn FnMut(u64, usize) -> bool) -> World {
        let mut parts: BTreeMap<u64, usize> = BTreeMap::new();
        let mut keeps = |operation: u64| {
            let part = parts.entry(operation).or_default();
            *part += 1;
            keeps(operation, *part - 1)
        };
        let mut names = self.durable_names.clone();
        for (operation, change) in &self.name_changes {
            if keeps(*operation) {
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
        let inodes: BTreeMap<u64, Inode> =
            self.inodes.iter().map(|(number, inode)| (*number, inode.after(&mut keeps))).collect();
        let mut world = World::with(self.seed, self.unit_bytes, inodes, reachable, self.next_inode());
        world.troubles.short = self.troubles.short;
        world
    }

    /// How many parts each operation has that is not durable, in order of operations.
    pub fn pending(&self) -> BTreeMap<u64, usize> {
        let mut parts: BTreeMap<u64, usize> = BTreeMap::new();
        self.crash_keeping(&mut |operation, part| {
            parts.insert(operation, part + 1);
            false
        });
        parts
    }
}
