//! One transaction of a session, until its outcome is known.

use std::time::Duration;

use calamus_proto::v1::{ResolveRequest, TxnRequest, TxnResponse};
use tokio::time::Instant;
use tonic::Code;

use super::Session;
use crate::client::{IfUnknown, ReadFrom, Tries, committed, with_timeout};
use crate::nodes::Node;
use crate::outcome::{Committed, Failure, TxnError};
use crate::retry::Refusal;

/// The session is not there, or has dropped the outcome: what became of the transaction, no node can say.
const GONE: [&str; 2] = ["no_such_session", "sequence_answered"];
/// The log says that it never runs.
const RESOLVED: &str = "resolved";
/// Its sequence is another one's: a state was resumed that is older than what was sent.
const REUSED: &str = "sequence_reused";

/// A transaction that has its sequence. It may be run again and again, also by several tasks: it runs once. By one process at
/// a time: what another one has under way, this one cannot know.
#[derive(Clone, Debug)]
pub struct Pending {
    session: Session,
    sequence: u64,
    deadline: Duration,
}

impl Pending {
    pub(super) fn new(session: Session, sequence: u64, deadline: Duration) -> Pending {
        Pending { session, sequence, deadline }
    }

    /// Its sequence.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The same with another deadline.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Pending {
        Pending { deadline, ..self }
    }

    /// What it asks for, as the message that travels; `None` once it is said to be answered.
    #[must_use]
    pub fn request(&self) -> Option<calamus_proto::v1::TxnRequest> {
        let sequences = self.session.sequences();
        sequences.unanswered.get(&self.sequence).map(|unanswered| unanswered.request.clone())
    }

    /// Sends it, until its outcome is known or the deadline is over.
    ///
    /// # Errors
    /// As [`Session::txn`].
    pub async fn run(&self) -> Result<Committed, TxnError> {
        let end = Instant::now() + self.deadline;
        let Some((request, earlier)) = self.begin_run() else {
            return Err(TxnError::Unknown(self.failure("sequence_answered", "it was said to be answered")));
        };
        let client = &self.session.inner.client;
        let call = |node: Node, budget: Duration| {
            let mut copy = with_timeout(&request, budget);
            copy.session = Some(self.session.named(self.sequence));
            async move { node.kv().txn(copy).await.map(tonic::Response::into_inner) }
        };
        let result = client.run(ReadFrom::Leader, IfUnknown::Repeat, self.deadline, call).await;
        let tries = match &result {
            Ok((_, tries)) | Err((_, tries)) => *tries,
        };
        let lost = self.end_run(tries.unknown > 0) || earlier;
        match result {
            Ok((response, _)) => self.answer(response, tries, lost, end).await,
            Err((refusal, _)) => self.refusal(refusal, tries, earlier, lost, end).await,
        }
    }

    async fn answer(
        &self,
        response: TxnResponse,
        tries: Tries,
        lost: bool,
        end: Instant,
    ) -> Result<Committed, TxnError> {
        let done = committed(response, tries)?;
        if done.txn_id != 0 || !lost {
            return Ok(done);
        }
        // A copy that is under way might meet another state, and change it.
        Ok(self.resolve_by(end, tries).await?.unwrap_or(done))
    }

    async fn refusal(
        &self,
        refusal: Refusal,
        tries: Tries,
        earlier: bool,
        lost: bool,
        end: Instant,
    ) -> Result<Committed, TxnError> {
        let (retryable, failure) = (refusal.retryable, refusal.failure);
        let reason = failure.reason.as_str();
        if GONE.contains(&reason) || (reason == REUSED && lost) {
            return Err(TxnError::Unknown(failure));
        }
        if retryable {
            // The deadline is over. What was refused for the moment may have been delivered twice between two nodes.
            let never_sent = tries.sent == 0 && !earlier;
            return Err(if never_sent { TxnError::NotCommitted(failure) } else { TxnError::Unknown(failure) });
        }
        if !lost || reason == RESOLVED {
            return Err(TxnError::NotCommitted(failure));
        }
        self.resolve_by(end, tries).await?.ok_or(TxnError::NotCommitted(failure))
    }

    /// Makes its outcome final, without sending it: its answer if it is committed, `None` if it is not and never will be.
    ///
    /// # Errors
    /// [`TxnError::Unknown`] if that cannot be told within the deadline.
    pub async fn resolve(&self) -> Result<Option<Committed>, TxnError> {
        self.resolve_by(Instant::now() + self.deadline, Tries::default()).await
    }

    async fn resolve_by(&self, end: Instant, tries: Tries) -> Result<Option<Committed>, TxnError> {
        let call = |node: Node, _| {
            let request = ResolveRequest { transaction: Some(self.session.named(self.sequence)) };
            async move { node.kv().resolve(request).await.map(tonic::Response::into_inner) }
        };
        let left = end.saturating_duration_since(Instant::now());
        let client = &self.session.inner.client;
        match client.run(ReadFrom::Leader, IfUnknown::Repeat, left, call).await {
            Ok((resolved, _)) => resolved.committed.map(|response| committed(response, tries)).transpose(),
            Err((refusal, _)) => Err(TxnError::Unknown(refusal.failure)),
        }
    }

    /// A run begins: its copies count as lost until they are answered, since its future may be dropped at any moment. What it
    /// sends, and whether copies of others may be under way.
    fn begin_run(&self) -> Option<(TxnRequest, bool)> {
        let mut sequences = self.session.sequences();
        let unanswered = sequences.unanswered.get_mut(&self.sequence)?;
        let earlier = unanswered.lost || unanswered.runs > 0;
        unanswered.runs += 1;
        Some((unanswered.request.clone(), earlier))
    }

    /// A run ends, with an answer to each of its copies unless one is `lost`. Whether any copy may be under way now.
    fn end_run(&self, lost: bool) -> bool {
        let mut sequences = self.session.sequences();
        let Some(unanswered) = sequences.unanswered.get_mut(&self.sequence) else { return lost };
        unanswered.runs -= 1;
        unanswered.lost |= lost;
        unanswered.lost || unanswered.runs > 0
    }

    fn failure(&self, reason: &str, what: &str) -> Failure {
        let message = format!("sequence {} of session {}: {what}", self.sequence, self.session.id());
        Failure::new(reason, message, Code::FailedPrecondition)
    }
}
