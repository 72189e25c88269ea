//! What the merger counts. Written by its thread, once a batch.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Plain numbers since the merger started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct MergerStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Default, Debug)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        impl Counters {
            pub(super) fn read(&self) -> MergerStats {
                MergerStats { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Batches proposed.
    batches,
    /// Bytes of their records.
    record_bytes,
    /// Transactions that were committed with a txn id.
    committed,
    /// Transactions answered without an entry.
    answered_without_entry,
    /// Batches refused before they were appended.
    refused_batches,
    /// Transactions refused because disks are short of space.
    refused_for_space,
    /// Sessions removed because nobody used them.
    expired_sessions,
    /// Batches whose record was void.
    void_batches,
    /// Batches whose outcome stayed unknown.
    unknown_batches,
    /// Times that the staged batches were dropped to start again from the applied state.
    broken_chains,
    /// Quorum rounds for answers without an entry.
    confirm_rounds,
    /// Batches in flight now.
    in_flight,
    /// Transactions that wait now to be staged.
    queued,
    /// Answers without an entry that wait now to be confirmed.
    held,
    /// Answers without an entry that are remembered now, to be told again.
    remembered,
}

#[derive(Default, Debug)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: usize) {
        self.0.fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }
}
