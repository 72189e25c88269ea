//! The table of page versions: page number and snapshot to content.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::PageBits;
use crate::ids::{PageNumber, TxnId};
use crate::page::{PAGE_BYTES, Page};

const SHARDS: usize = 64;

/// The content of a page as of a version.
#[derive(Clone, Debug)]
pub enum Image {
    /// Allocated, with this content.
    Page(Arc<Page>),
    /// Free: all zeros.
    Free,
}

impl Image {
    /// The checksum that the content carries; 0 for a free page.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        match self {
            Self::Page(page) => page.checksum(),
            Self::Free => 0,
        }
    }

    fn bytes(&self) -> usize {
        // The entry and its share of the table, measured roughly; a page's content dominates.
        const OVERHEAD: usize = 64;
        match self {
            Self::Page(_) => PAGE_BYTES + OVERHEAD,
            Self::Free => OVERHEAD,
        }
    }
}

struct Version {
    txn_id: TxnId,
    image: Image,
}

/// Page numbers are dense: a multiplication spreads them well enough.
#[derive(Default)]
pub struct PageHasher(u64);

impl Hasher for PageHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

type Shard = HashMap<PageNumber, Vec<Version>, BuildHasherDefault<PageHasher>>;

/// Versions by page, ascending by txn id.
pub struct VersionTable {
    present: PageBits,
    shards: [RwLock<Shard>; SHARDS],
    bytes: AtomicUsize,
}

impl Default for VersionTable {
    fn default() -> Self {
        Self {
            present: PageBits::default(),
            shards: std::array::from_fn(|_| RwLock::default()),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl VersionTable {
    fn shard(&self, number: PageNumber) -> &RwLock<Shard> {
        &self.shards[number.0 as usize % SHARDS]
    }

    /// Whether there is a version of the page.
    #[must_use]
    pub fn has_any(&self, number: PageNumber) -> bool {
        self.present.contains(number)
    }

    /// The newest version not above `snapshot`; `None` where the data file has the content.
    #[must_use]
    pub fn newest_at(&self, number: PageNumber, snapshot: TxnId) -> Option<Image> {
        if !self.present.contains(number) {
            return None;
        }
        let shard = self.shard(number).read();
        let versions = shard.get(&number)?;
        versions.iter().rev().find(|version| version.txn_id <= snapshot).map(|version| version.image.clone())
    }

    /// Adds a version.
    ///
    /// # Panics
    /// When the page has a version as new or newer.
    pub fn push(&self, number: PageNumber, txn_id: TxnId, image: Image) {
        self.bytes.fetch_add(image.bytes(), Ordering::Relaxed);
        let mut shard = self.shard(number).write();
        let versions = shard.entry(number).or_default();
        if let Some(last) = versions.last() {
            assert!(last.txn_id < txn_id, "page {number} has version {} and gets {txn_id}", last.txn_id);
        }
        versions.push(Version { txn_id, image });
        self.present.insert(number);
    }

    /// Drops the page's versions for which `gone` says so; it is shown each version's txn id and the next one's.
    fn retain(&self, number: PageNumber, mut gone: impl FnMut(TxnId, Option<TxnId>) -> bool) {
        let mut shard = self.shard(number).write();
        let Some(versions) = shard.get_mut(&number) else { return };
        let (mut kept, mut freed) = (0, 0);
        for place in 0..versions.len() {
            // What stays moves down over what goes; what is behind `place` has not moved yet.
            let next = versions.get(place + 1).map(|next| next.txn_id);
            if gone(versions[place].txn_id, next) {
                freed += versions[place].image.bytes();
            } else {
                versions.swap(kept, place);
                kept += 1;
            }
        }
        versions.truncate(kept);
        if versions.is_empty() {
            shard.remove(&number);
            self.present.remove(number);
        }
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
    }

    /// Drops the version `txn_id` of a page: a staged one that will never be applied.
    pub fn drop_version(&self, number: PageNumber, txn_id: TxnId) {
        self.retain(number, |version, _| version == txn_id);
    }

    /// Drops the versions that the data file now holds or has passed: all not above `txn_id`.
    pub fn drop_up_to(&self, number: PageNumber, txn_id: TxnId) {
        self.retain(number, |version, _| version <= txn_id);
    }

    /// Drops the versions that none of `snapshots` (ascending) sees and that are not the newest applied.
    pub fn prune(&self, number: PageNumber, applied: TxnId, snapshots: &[TxnId]) {
        self.retain(number, |version, next| match next {
            Some(next) if next <= applied => {
                // Seen by snapshots in version..next.
                let first = snapshots.partition_point(|snapshot| *snapshot < version);
                snapshots.get(first).is_none_or(|snapshot| *snapshot >= next)
            }
            _ => false,
        });
    }

    /// All versions of a page, the oldest first.
    #[must_use]
    pub fn all_of(&self, number: PageNumber) -> Vec<Image> {
        let shard = self.shard(number).read();
        shard
            .get(&number)
            .map(|versions| versions.iter().map(|version| version.image.clone()).collect())
            .unwrap_or_default()
    }

    /// For each page with a version not above `snapshot`, the newest such; in page order.
    #[must_use]
    pub fn collect_at(&self, snapshot: TxnId) -> Vec<(PageNumber, Image)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            for (number, versions) in shard.read().iter() {
                if let Some(version) = versions.iter().rev().find(|version| version.txn_id <= snapshot) {
                    found.push((*number, version.image.clone()));
                }
            }
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        found
    }

    /// Bytes held by all versions, staged ones too.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether no page has a version.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.read().is_empty())
    }
}
