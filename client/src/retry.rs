//! What an error status means for what was asked, and how long to wait before asking again.

use std::error::Error;
use std::time::Duration;

use calamus_proto::ERROR_DETAIL_METADATA;
use calamus_proto::v1::{ErrorDetail, error_detail::OutcomeClass};
use prost::Message;
use rand::Rng;
use tonic::{Code, Status};

use crate::outcome::Failure;

/// Waits between attempts: each a random part (so that clients that failed together do not come back together) of a bound that
/// doubles from `first` to `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait.
    pub first: Duration,
    /// The greatest bound.
    pub most: Duration,
}

impl Default for Backoff {
    /// From 10 ms: an election without waiting for timers takes about as long. To 500 ms: the least election timeout.
    fn default() -> Self {
        Backoff { first: Duration::from_millis(10), most: Duration::from_millis(500) }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row (1 or more): between half of the bound and the bound.
    pub(crate) fn wait(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let bound = self.first.saturating_mul(1 << doublings).min(self.most);
        bound.mul_f64(rng.random_range(0.5..=1.0))
    }
}

/// The reason of an attempt that took too long, in a node's word or ours.
pub(crate) const TIMEOUT: &str = "timeout";

/// The reason of an attempt that came to no node, or no further than to one which could not reach the leader.
pub(crate) const UNREACHABLE: &str = "unreachable";

/// What a session that is gone makes of its transactions: unknown, and asking again is of no use.
const GONE: [&str; 2] = ["no_such_session", "sequence_answered"];

/// A failed attempt, understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub failure: Failure,
    /// It may have run, or may still.
    pub unknown: bool,
    /// Asking again can help.
    pub retryable: bool,
    /// Who leads, as the node that refused sees it.
    pub leader: Option<String>,
    /// The connection, or the node behind it, is not to be trusted for a while.
    pub broken: bool,
}

impl Refusal {
    /// The node could not be connected to: nothing was sent.
    pub fn unreachable(node: &str, why: &dyn Error) -> Refusal {
        let message = format!("node {node} cannot be reached: {}", chain(why));
        let failure = Failure::new(UNREACHABLE, message, Code::Unavailable).at(node);
        Refusal { failure, unknown: false, retryable: true, leader: None, broken: true }
    }

    /// The node did not answer in time: it was sent, so the outcome is unknown.
    pub fn silent(node: &str, waited: Duration) -> Refusal {
        let message = format!("node {node} did not answer within {} ms", waited.as_millis());
        let failure = Failure::new(TIMEOUT, message, Code::DeadlineExceeded).at(node);
        Refusal { failure, unknown: true, retryable: true, leader: None, broken: true }
    }

    /// Whether the leader that is named is one that did not answer the node that was asked.
    pub fn leader_is_silent(&self) -> bool {
        self.leader.is_some() && matches!(self.failure.reason.as_str(), TIMEOUT | UNREACHABLE)
    }

    /// What an error status says. Without Calamus' own detail (so: from the transport, or from something in between) only an
    /// error that tells that nothing was sent, or that no handler was there, is *not committed*.
    pub fn of(status: &Status, node: &str) -> Refusal {
        if let Some(encoded) = status.metadata().get_bin(ERROR_DETAIL_METADATA) {
            return encoded.to_bytes().ok().and_then(|bytes| ErrorDetail::decode(bytes).ok()).map_or_else(
                || Refusal::without_detail(status, node),
                |detail| Refusal::with_detail(detail, status, node),
            );
        }
        Refusal::without_detail(status, node)
    }

    fn with_detail(detail: ErrorDetail, status: &Status, node: &str) -> Refusal {
        let message = if detail.message.is_empty() { status.message().to_owned() } else { detail.message };
        let failure = Failure::new(&detail.reason, message, status.code()).at(node);
        // An outcome class of a later version is not known to be harmless.
        let unknown = detail.outcome != OutcomeClass::NotCommitted as i32;
        let leader = Some(detail.leader).filter(|leader| !leader.is_empty());
        let retryable = detail.retryable || (unknown && !GONE.contains(&detail.reason.as_str()));
        Refusal { failure, unknown, retryable, leader, broken: false }
    }

    fn without_detail(status: &Status, node: &str) -> Refusal {
        if let Some(why) = connect_error(status) {
            return Refusal::unreachable(node, why);
        }
        let unimplemented = status.code() == Code::Unimplemented;
        let (reason, next) = if unimplemented {
            ("unimplemented", "is this the address of a Calamus node of this version?")
        } else {
            ("connection_lost", "the connection ended before the answer came")
        };
        let message = format!("node {node}: {}: {}; {next}", status.code(), status.message());
        let failure = Failure::new(reason, message, status.code()).at(node);
        Refusal { failure, unknown: !unimplemented, retryable: !unimplemented, leader: None, broken: true }
    }
}

/// The error of a connection that never came about, if that is why the call failed.
fn connect_error(status: &Status) -> Option<&(dyn Error + 'static)> {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

/// An error and all that caused it, without what the outer ones repeat.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use tonic::metadata::MetadataValue;

    fn status(detail: &[u8]) -> Status {
        let mut status = Status::unavailable("refused");
        status.metadata_mut().insert_bin(ERROR_DETAIL_METADATA, MetadataValue::from_bytes(detail));
        status
    }

    fn detail(outcome: i32) -> ErrorDetail {
        let (message, reason) = ("there is no leader".to_owned(), "no_leader".to_owned());
        ErrorDetail { outcome, message, reason, leader: "n2:2".into(), retryable: true }
    }

    #[test]
    fn the_detail_decides_when_there_is_one() {
        let refusal = Refusal::of(&status(&detail(OutcomeClass::NotCommitted.into()).encode_to_vec()), "n1:1");
        assert!(!refusal.unknown && refusal.retryable && !refusal.broken);
        assert_eq!((refusal.failure.reason.as_str(), refusal.leader.as_deref()), ("no_leader", Some("n2:2")));
        assert!(Refusal::of(&status(&detail(OutcomeClass::Unknown.into()).encode_to_vec()), "n1:1").unknown);
        assert!(Refusal::of(&status(&detail(77).encode_to_vec()), "n1:1").unknown, "a class of a later version");
    }

    #[test]
    fn without_a_detail_the_outcome_is_unknown_unless_no_handler_was_there() {
        for bad in
            [status(b"\xff\xff\xff"), Status::unavailable("broken pipe"), Status::internal("h2"), Status::cancelled("")]
        {
            let refusal = Refusal::of(&bad, "n1:1");
            assert!(refusal.unknown && refusal.broken, "{bad:?}");
        }
        let refusal = Refusal::of(&Status::unimplemented(""), "n1:1");
        assert!(!refusal.unknown && !refusal.retryable);
    }

    #[test]
    fn waits_double_with_jitter_up_to_the_most() {
        let mut rng = rand::rngs::SmallRng::seed_from_u64(7);
        let backoff = Backoff { first: Duration::from_millis(10), most: Duration::from_millis(100) };
        let mut distinct = std::collections::BTreeSet::new();
        for failures in 1..40 {
            let bound = Duration::from_millis(10 << (failures - 1).min(4)).min(Duration::from_millis(100));
            let wait = backoff.wait(failures, &mut rng);
            assert!(wait <= bound && wait >= bound / 2, "{failures}: {wait:?} of {bound:?}");
            distinct.insert(wait);
        }
        assert!(distinct.len() > 30, "waits must differ: {distinct:?}");
    }
}
