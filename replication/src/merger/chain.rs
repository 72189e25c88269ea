//! The batches in flight.
//!
//! ```text
//!              first outcome that is not applied
//!   Staging ------------------------------------> Settling: nothing is staged, all in flight get their outcomes,
//!      ^                                              |     then a quorum round, and its log id applied
//!      +----------------------------------------------+
//!        the next batch goes alone, until it is applied
//! ```
//!
//! A batch in flight belongs to the term it was proposed in. Those of an earlier term hold nothing up: this node's
//! first entry of the new term is applied when it begins to stage, so all that came before it in the log is decided.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use calamus_engine::ids::Term;
use calamus_proto::v1::TxnResponse;
use tokio::sync::oneshot;

use super::Reply;
use super::confirm::BatchNumber;
use crate::seam::Proposed;

/// A batch that was proposed, with the clients that wait for it.
pub(super) struct InFlight {
    pub(super) number: BatchNumber,
    pub(super) term: Term,
    pub(super) bytes: usize,
    pub(super) answers: Vec<(Reply, TxnResponse)>,
    outcome: oneshot::Receiver<Proposed>,
}

/// The batches that were proposed and have no outcome yet, in the order of proposals.
#[derive(Default)]
pub(super) struct Chain {
    in_flight: VecDeque<InFlight>,
    last: u64,
    /// The next batch goes alone.
    alone: bool,
}

impl Chain {
    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The newest batch in flight of a term.
    pub(super) fn newest(&self, term: Term) -> Option<BatchNumber> {
        self.of(term).next_back().map(|batch| batch.number)
    }

    /// Whether another batch of the term may go, with so many batches and bytes of records in flight at most.
    pub(super) fn has_room(&self, term: Term, batches: usize, bytes: usize) -> bool {
        let batches = if self.alone { 1 } else { batches.max(1) };
        let (count, sum) = self.of(term).fold((0, 0), |(count, sum), batch| (count + 1, sum + batch.bytes));
        count < batches && sum < bytes
    }

    /// Bytes of records in flight, of whatever term.
    pub(super) fn bytes(&self) -> usize {
        self.in_flight.iter().map(|batch| batch.bytes).sum()
    }

    fn of(&self, term: Term) -> impl DoubleEndedIterator<Item = &InFlight> {
        self.in_flight.iter().filter(move |batch| batch.term == term)
    }

    /// A chain begins on the applied state: its first batch goes alone.
    pub(super) fn begin(&mut self) {
        self.alone = true;
    }

    /// A batch was applied: all before it in the log is decided.
    pub(super) fn proved(&mut self) {
        self.alone = false;
    }

    /// The number of the next batch.
    pub(super) fn next_number(&mut self) -> BatchNumber {
        self.last += 1;
        BatchNumber(self.last)
    }

    /// Adds the batch that was proposed just now.
    pub(super) fn push(
        &mut self,
        number: BatchNumber,
        term: Term,
        bytes: usize,
        answers: Vec<(Reply, TxnResponse)>,
        outcome: oneshot::Receiver<Proposed>,
    ) {
        assert!(
            self.in_flight.back().is_none_or(|last| last.number < number && last.term <= term),
            "an order of proposals"
        );
        self.in_flight.push_back(InFlight { number, term, bytes, answers, outcome });
    }

    /// A batch that has its outcome, of any place: a refusal may come before the outcome of a batch ahead of it.
    pub(super) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Option<(InFlight, Proposed)> {
        for place in 0..self.in_flight.len() {
            if let Poll::Ready(outcome) = Pin::new(&mut self.in_flight[place].outcome).poll(cx) {
                let batch = self.in_flight.remove(place).expect("it is there");
                let outcome =
                    outcome.unwrap_or_else(|_| Proposed::Unknown { why: "the consensus has stopped".to_owned() });
                return Some((batch, outcome));
            }
        }
        None
    }

    /// Gives up on all that is in flight.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = InFlight> + '_ {
        self.in_flight.drain(..)
    }
}
