//! Answers that change nothing: held back until they are true of the committed state.
//!
//! Such an answer was evaluated on a staged state of this leader. It may be sent when
//! - the newest batch that it saw has been applied (its predecessors are too: the records are a chain), and
//! - a quorum round begun after the evaluation has confirmed the term: otherwise another leader might have committed
//!   something since that this node has not seen.
//!
//! At most one round runs. Who is evaluated meanwhile takes part in the next one.
//!
//! If either fails, the client is told that its transaction is not committed, which is so whatever happens: nothing of
//! it was proposed.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use calamus_engine::ids::{LogId, Term};
use futures::future::BoxFuture;

use super::{Answer, Reply};
use crate::error::{TxnError, reason};
use crate::seam::{Consensus, ReadIndexError};

/// The number of a batch in the order of proposals, since the merger started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct BatchNumber(pub(super) u64);

/// Answers of one batch.
struct Group {
    /// The newest batch that they saw, as long as its outcome is not known.
    saw: Option<BatchNumber>,
    /// The first quorum round that begins after their evaluation.
    round: u64,
    held_bytes: usize,
    answers: Vec<(Reply, Answer)>,
}

type Round = BoxFuture<'static, Result<Option<LogId>, ReadIndexError>>;

/// The answers that wait.
#[derive(Default)]
pub(super) struct Confirm {
    groups: VecDeque<Group>,
    held_bytes: usize,
    begun: u64,
    succeeded: u64,
    running: Option<Round>,
}

impl Confirm {
    /// Bytes of the answers that wait.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// How many answers wait.
    pub(super) fn held(&self) -> usize {
        self.groups.iter().map(|group| group.answers.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Holds answers that were evaluated just now.
    pub(super) fn hold(&mut self, saw: Option<BatchNumber>, held_bytes: usize, answers: Vec<(Reply, Answer)>) {
        if !answers.is_empty() {
            self.held_bytes += held_bytes;
            self.groups.push_back(Group { saw, round: self.begun + 1, held_bytes, answers });
        }
    }

    /// A batch was applied: who saw it no longer waits for it.
    pub(super) fn applied(&mut self, number: BatchNumber) {
        for group in &mut self.groups {
            if group.saw == Some(number) {
                group.saw = None;
            }
        }
    }

    /// A batch was not applied, or it is not known: what its readers saw may never have been.
    pub(super) fn not_applied(&mut self, number: BatchNumber) {
        self.fail_where(
            |group| group.saw == Some(number),
            &TxnError::not_committed(
                reason::REFUSED,
                "the transaction read what another one had written that was not committed; nothing was changed, send it \
                 again",
            ),
        );
    }

    /// Fails all.
    pub(super) fn fail_all(&mut self, error: &TxnError) {
        self.running = None;
        self.fail_where(|_| true, error);
    }

    fn fail_where(&mut self, which: impl Fn(&Group) -> bool, error: &TxnError) {
        let held_bytes = &mut self.held_bytes;
        self.groups.retain_mut(|group| {
            let fails = which(group);
            if fails {
                *held_bytes -= group.held_bytes;
                for (reply, _) in group.answers.drain(..) {
                    let _ = reply.send(Err(error.clone()));
                }
            }
            !fails
        });
    }

    /// Begins a round if somebody needs one that has not begun. Returns whether it did.
    pub(super) fn begin_round(&mut self, consensus: &dyn Consensus, term: Term) -> bool {
        if self.running.is_some() || self.groups.back().is_none_or(|group| group.round <= self.begun) {
            return false;
        }
        self.begun += 1;
        self.running = Some(consensus.read_index(Some(term)));
        true
    }

    /// Looks whether the running round has ended. Returns whether it has.
    pub(super) fn poll_round(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(round) = &mut self.running else { return false };
        let Poll::Ready(result) = round.as_mut().poll(cx) else { return false };
        self.running = None;
        match result {
            Ok(_) => self.succeeded = self.begun,
            Err(error) => {
                let failed = self.succeeded + 1..=self.begun;
                self.fail_where(|group| failed.contains(&group.round), &TxnError::from_read_index(&error));
            }
        }
        true
    }

    /// Sends what may be sent. Returns how many answers.
    pub(super) fn send_ready(&mut self) -> usize {
        let mut sent = 0;
        let (succeeded, held_bytes) = (self.succeeded, &mut self.held_bytes);
        self.groups.retain_mut(|group| {
            let ready = group.saw.is_none() && group.round <= succeeded;
            if ready {
                sent += group.answers.len();
                *held_bytes -= group.held_bytes;
                for (reply, answer) in group.answers.drain(..) {
                    let _ = reply.send(answer);
                }
            }
            !ready
        });
        sent
    }
}
