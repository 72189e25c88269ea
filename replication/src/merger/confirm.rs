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
//! it was proposed. Only who asked for the answer of an earlier copy of its transaction is told that the outcome is
//! unknown: of that copy nothing is said. An answer that was remembered for the term, and fails, is forgotten, and who waits
//! for the same one fails with it: it was never told.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use calamus_engine::ids::{LogId, Term};
use futures::future::BoxFuture;

use super::{Answer, Reply};
use crate::error::{TxnError, reason};
use crate::seam::{Consensus, ReadIndexError};
use crate::sessions::CopyOf;

/// The number of a batch in the order of proposals, since the merger started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct BatchNumber(pub(super) u64);

/// An answer that waits.
pub(super) struct Held {
    pub(super) reply: Reply,
    pub(super) answer: Answer,
    /// The transaction of a session that it is for, ...
    pub(super) copy: Option<CopyOf>,
    /// ... and whether the answer is that of an earlier copy.
    pub(super) repeated: bool,
}

impl Held {
    fn send(self) {
        let _ = self.reply.send(self.answer);
    }

    fn fail(self, error: &TxnError) {
        let error = if self.repeated {
            let text =
                format!("the answer to an earlier copy of the transaction cannot be confirmed: {}", error.message);
            TxnError { leader: error.leader.clone(), ..TxnError::unknown(error.reason, text) }
        } else {
            error.clone()
        };
        let _ = self.reply.send(Err(error));
    }
}

/// Answers of one batch.
struct Group {
    /// The newest batch that they saw, as long as its outcome is not known.
    saw: Option<BatchNumber>,
    /// The first quorum round that begins after their evaluation.
    round: u64,
    held_bytes: usize,
    answers: Vec<Held>,
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
    pub(super) fn hold(&mut self, saw: Option<BatchNumber>, held_bytes: usize, answers: Vec<Held>) {
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

    /// A batch was not applied, or it is not known: what its readers saw may never have been. Returns the copies whose
    /// answers are not told after all.
    pub(super) fn not_applied(&mut self, number: BatchNumber) -> Vec<CopyOf> {
        self.fail_where(
            |group| group.saw == Some(number),
            &TxnError::not_committed(
                reason::REFUSED,
                "the transaction read what another one had written that was not committed; nothing was changed, send it \
                 again",
            ),
        )
    }

    /// Fails all. Returns the copies whose answers are not told after all.
    pub(super) fn fail_all(&mut self, error: &TxnError) -> Vec<CopyOf> {
        self.running = None;
        self.fail_where(|_| true, error)
    }

    fn fail_where(&mut self, which: impl Fn(&Group) -> bool, error: &TxnError) -> Vec<CopyOf> {
        let (held_bytes, mut untold) = (&mut self.held_bytes, Vec::new());
        self.groups.retain_mut(|group| {
            let fails = which(group);
            if fails {
                *held_bytes -= group.held_bytes;
                for held in group.answers.drain(..) {
                    untold.extend(held.copy.filter(|_| !held.repeated));
                    held.fail(error);
                }
            }
            !fails
        });
        if !untold.is_empty() {
            for group in &mut self.groups {
                let with_it = |held: &mut Held| held.repeated && held.copy.is_some_and(|copy| untold.contains(&copy));
                for held in group.answers.extract_if(.., with_it) {
                    held.fail(error);
                }
            }
        }
        untold
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

    /// Looks whether the running round has ended. If it has, returns the copies whose answers are not told after all.
    pub(super) fn poll_round(&mut self, cx: &mut Context<'_>) -> Option<Vec<CopyOf>> {
        let Poll::Ready(result) = self.running.as_mut()?.as_mut().poll(cx) else { return None };
        self.running = None;
        match result {
            Ok(_) => {
                self.succeeded = self.begun;
                Some(Vec::new())
            }
            Err(error) => {
                let failed = self.succeeded + 1..=self.begun;
                let error = TxnError::from_read_index(&error);
                Some(self.fail_where(|group| failed.contains(&group.round), &error))
            }
        }
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
                group.answers.drain(..).for_each(Held::send);
            }
            !ready
        });
        sent
    }
}
