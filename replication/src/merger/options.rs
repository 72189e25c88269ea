//! What can be set of the merger, with its reasons.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calamus_engine::journal::frame::MAX_PAYLOAD_BYTES;

use crate::execute::Limits;
use crate::sessions::SessionLimits;

/// Microseconds since 1970, as the machine believes.
#[derive(Clone)]
pub struct WallClock(pub Arc<dyn Fn() -> u64 + Send + Sync>);

impl WallClock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        }))
    }

    /// The time now.
    #[must_use]
    pub fn micros(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// The merger's options.
#[derive(Clone, Debug)]
pub struct MergerOptions {
    /// What a transaction may be at most.
    pub limits: Limits,
    /// Batches in flight. Four keep the journals of a quorum busy while the next batch gathers; more only cut the
    /// same transactions into smaller batches.
    pub pipeline_batches: usize,
    /// Bytes of records in flight beyond which no batch is begun. Every node holds this much in memory.
    pub pipeline_bytes: usize,
    /// A batch is ended when its requests have this many bytes: large enough that a sync costs little beside the
    /// writing, small enough that a follower does not wait for one batch while it could write another.
    pub batch_bytes: usize,
    /// The most that a record may have, in bytes. A transaction that alone needs more is refused.
    pub record_bytes: usize,
    /// Bytes of requests that may wait; beyond, clients wait before they are admitted.
    pub queue_bytes: usize,
    /// Bytes that answers may hold which wait for a quorum round; beyond, no batch is begun.
    pub held_result_bytes: usize,
    /// How long a transaction waits for its outcome that does not say it.
    pub default_timeout: Duration,
    /// How long to wait before another quorum round when one failed after a refusal.
    pub settle_pause: Duration,
    /// Where the wall time of records comes from.
    pub clock: WallClock,
    /// What sessions may be at most.
    pub sessions: SessionLimits,
    /// How often a leader looks whether sessions have expired.
    pub expiry_interval: Duration,
    /// Planted faults, for tests that must find them.
    #[cfg(feature = "mutants")]
    pub mutants: Mutants,
}

impl Default for MergerOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            pipeline_batches: 4,
            pipeline_bytes: 32 << 20,
            batch_bytes: 1 << 20,
            record_bytes: MAX_PAYLOAD_BYTES,
            queue_bytes: 64 << 20,
            held_result_bytes: 64 << 20,
            default_timeout: Duration::from_secs(10),
            settle_pause: Duration::from_millis(10),
            clock: WallClock::system(),
            sessions: SessionLimits::default(),
            expiry_interval: Duration::from_secs(1),
            #[cfg(feature = "mutants")]
            mutants: Mutants::from_environment(),
        }
    }
}

impl MergerOptions {
    /// Whether the planted fault *staged batches kept after a refusal* is on.
    pub(super) fn keeps_staged_after_refusal(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutants.staged_kept_after_refusal;
        #[cfg(not(feature = "mutants"))]
        false
    }
}

impl MergerOptions {
    /// Whether the outcome of a session's transaction is stored by the batch that it ran in; the planted fault *session
    /// result not in batch* leaves it to the next one.
    pub(super) fn stores_in_the_batch(&self) -> bool {
        #[cfg(feature = "mutants")]
        return !self.mutants.session_result_not_in_batch;
        #[cfg(not(feature = "mutants"))]
        true
    }

    /// Whether a forwarded copy runs in the term that it names only; not with the planted fault *forwarded copy in a later
    /// term*.
    pub(super) fn minds_the_term(&self) -> bool {
        #[cfg(feature = "mutants")]
        return !self.mutants.forwarded_copy_in_later_term;
        #[cfg(not(feature = "mutants"))]
        true
    }

    /// Whether an answer that changes nothing is sent as soon as it is evaluated: the planted fault *failed guard from
    /// staged state*.
    pub(super) fn answers_from_staged_state(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutants.failed_guard_from_staged_state;
        #[cfg(not(feature = "mutants"))]
        false
    }
}

impl MergerOptions {
    /// Panics, if the planted fault *the merger panics* is on.
    pub(super) fn panic_if_planted(&self) {
        #[cfg(feature = "mutants")]
        assert!(!self.mutants.panics, "a planted fault");
    }
}

/// Planted faults.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutants {
    /// After a refusal the staged batches stay, and staging goes on.
    pub staged_kept_after_refusal: bool,
    /// The merger panics at its first transaction.
    pub panics: bool,
    /// The outcome of a session's transaction is stored by the batch after it.
    pub session_result_not_in_batch: bool,
    /// A forwarded copy runs in whatever term this node leads.
    pub forwarded_copy_in_later_term: bool,
    /// Answers that change nothing wait for nothing.
    pub failed_guard_from_staged_state: bool,
}

#[cfg(feature = "mutants")]
impl Mutants {
    /// The faults named in `CALAMUS_MUTANTS`, separated by commas: `staged_kept_after_refusal`, `merger_panics`,
    /// `session_result_not_in_batch`, `forwarded_copy_in_later_term`, `failed_guard_from_staged_state`.
    #[must_use]
    pub fn from_environment() -> Self {
        let named = std::env::var("CALAMUS_MUTANTS").unwrap_or_default();
        let named = |fault: &str| named.split(',').any(|name| name.trim() == fault);
        Self {
            staged_kept_after_refusal: named("staged_kept_after_refusal"),
            panics: named("merger_panics"),
            session_result_not_in_batch: named("session_result_not_in_batch"),
            forwarded_copy_in_later_term: named("forwarded_copy_in_later_term"),
            failed_guard_from_staged_state: named("failed_guard_from_staged_state"),
        }
    }
}
