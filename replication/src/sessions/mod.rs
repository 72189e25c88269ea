//! Exactly once: transactions of sessions run at most once, and what a client was told of one stays true.
//!
//! A session is opened by a transaction, which returns its number. Each of its transactions carries session, sequence and
//! the lowest sequence that the client still wants an answer to. All of what follows is decided by the merger of the
//! leader, on the newest staged state; a follower copies pages and decides nothing.
//!
//! # What is kept where
//!
//! | what | where | until |
//! | --- | --- | --- |
//! | outcome, txn id, answer of what changed something | `$sessions`, by the batch that changed it | the client has it |
//! | "not committed", of what was resolved so | `$sessions`, by a batch of its own | the client has it |
//! | answers without an entry: guards that failed, errors, refusals for good | the leader's memory | its term ends, or the client has it |
//! | the lowest sequence that is unanswered (the *floor*) | with each outcome, and in memory | the session ends |
//!
//! The floor needs no write of its own. Each outcome says what the floor was when it was stored, below which its batch may
//! have dropped others. The outcome that says the highest is not below it: so it is never dropped before one that says a
//! higher one stands there.
//!
//! # What becomes of a copy
//!
//! A *copy* is one request as it arrives: the client's first, a later one, one that another node forwarded, one that
//! the network delivered twice. In this order:
//!
//! | the copy | it is | the answer |
//! | --- | --- | --- |
//! | is forwarded, and names another term | refused, before the session is looked at | not committed |
//! | is of a session that is not there: closed, expired, of another timeline | never executed | unknown |
//! | has a sequence below the floor | never executed | unknown: the client has had its answer |
//! | has an outcome in the staged state | never executed | that outcome, once it is committed and a quorum round has confirmed the leader |
//! | has an answer in memory | never executed | that answer, confirmed in the same way |
//! | is another transaction under a sequence that has one | never executed | an error that says so |
//! | is none of these | executed | what changes something is stored with its answer by the same batch |
//!
//! A copy that arrives while the first one is staged sees the staged outcome, so it waits for that one. If that batch is
//! lost, who waits so is told *unknown*: it knows less than the first.
//!
//! # Why nothing runs twice
//!
//! Executing a copy and storing its outcome are one batch, one record, one frame. Suppose that two copies of one
//! transaction are executed and both are applied. Their records are a chain: the second builds on a state in which the
//! first is applied. The second was staged by a leader on exactly that state, or its record would be void. In that state the
//! outcome of the first stands under the transaction's key, or the floor was raised above it, or the session is gone, since only
//! these remove an outcome; the number of a session never comes again. In each case the second copy was not executed. It
//! does not matter who the leaders were, what they remembered, which term a copy named, or how often all nodes were killed: nothing
//! but the state decides.
//!
//! # Why nothing is applied after its client was told that it is not
//!
//! What an error says is said of one copy, and is certain of it: this copy is dealt with and proposes nothing. The
//! transaction is *not committed for ever* if that holds for every copy there is or may be. A client (the crate
//! `calamus-client` keeps to this) says so only when
//!
//! 1. no copy ever left it; or
//! 2. each copy that left it was answered, the last one by a refusal for good; or
//! 3. the log says so: the transaction was *resolved*.
//!
//! Case 2. The client's own copies are used up: a copy is delivered once, and each was answered. What is left are copies
//! of a *forwarded* copy, should the way between two nodes deliver one twice or late. They name a term. In another term they are
//! refused. In the same term the leader remembers what it told, and tells it again. It remembers before it tells, and as
//! long as it leads that term, also when staged batches are dropped meanwhile; if what it evaluated is never confirmed, it
//! forgets it, tells *not committed, send it again*, and that is no refusal for good. Once the client says that it has the answer, the copy is
//! below the floor; and at the end of the term nobody needs the memory any more.
//!
//! Case 3. A client that lost an answer does not know where that copy is: in a queue of a node that is frozen and will lead
//! later, in a connection that is slow. No term is named in it and no leader remembers it. So it sends the
//! transaction again until it gets an answer *with a txn id*, which stands in the log; or, if the answer is one without an
//! entry or a refusal, it asks the leader to resolve it. That writes *never* under the transaction's key, unless an
//! outcome stands there, by a transaction in the log like any other. Whoever finds it executes nothing, in any term. Only
//! then is *not committed* told.
//!
//! With neither, the outcome is unknown, and stays a question that can be asked again: by another process, too.
//!
//! # Guards that failed
//!
//! Their answer is not stored, because a transaction whose guards fail costs no log entry. Its retry after a failover is evaluated anew.
//! That is a first execution, and a legal one: the first copy was never applied and never will be, since the copy is
//! used up; and its client had no answer, for had it one, it would not ask. A client that had no answer and gets this one has an
//! unanswered copy under way, and resolves before it believes it.
//!
//! # Expiry
//!
//! A session that is not used for as long as it lives is removed by a transaction of the leader's merger, by the wall
//! time of records, which never goes back. No other node's clock matters. Use is not written: it is remembered for the term,
//! and at the beginning of a term each session is as good as just used. So no session goes early because of a failover, and
//! one that nobody uses stays longer by the time that the last term had lasted.
//!
//! | file | role |
//! | --- | --- |
//! | `layout` | keys and values of `$sessions` |
//! | `limits` | bounds, with their reasons |
//! | `table` | what the leader knows and remembers |
//! | `judge` | what becomes of a copy |
//! | `change` | storing outcomes; opening, closing, resolving, expiry |

mod change;
mod judge;
pub mod layout;
mod limits;
mod table;

use calamus_engine::ids::{Term, TxnId};
use calamus_engine::txn::Batch;
use calamus_proto::v1::TxnResponse;

pub(crate) use change::{Done, response};
pub(crate) use judge::{Permit, Verdict, is_valid, session_operation};
pub use limits::{MAX_AHEAD, SessionLimits};
pub(crate) use table::{CopyOf, TableError};

use crate::error::TxnError;
use layout::SessionId;
use table::{Table, Told};

/// The sessions as the merger of a leader sees them.
#[derive(Debug)]
pub(crate) struct Sessions {
    table: Table,
    /// The transaction that the next batch builds on, if what is known of the staged state is still so.
    builds_on: Option<TxnId>,
    /// Outcomes that the planted fault has not written yet.
    #[cfg(feature = "mutants")]
    late: Vec<([u8; 17], Vec<u8>)>,
}

impl Sessions {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self {
            table: Table::new(limits),
            builds_on: None,
            #[cfg(feature = "mutants")]
            late: Vec::new(),
        }
    }

    /// This node leads.
    pub(crate) fn begin_term(&mut self, term: Term) {
        self.forget_staged();
        self.table.begin_term(term);
        #[cfg(feature = "mutants")]
        self.late.clear();
    }

    /// Staged batches were dropped, or an open one: what is there is read again.
    pub(crate) fn forget_staged(&mut self) {
        self.table.forget_staged();
        self.builds_on = None;
    }

    /// A batch is begun. If it does not build on the one before, what is there is read again: an entry whose outcome
    /// nobody told may have been applied meanwhile.
    ///
    /// The txn id says it. While another entry might be applied under the id of one that is in flight, the merger begins no
    /// batch: see there, *the first batch after that goes alone*.
    pub(crate) fn begin_batch(&mut self, batch: &Batch) {
        if self.builds_on != Some(batch.builds_on()) {
            self.forget_staged();
            self.builds_on = Some(batch.builds_on());
        }
    }

    /// A batch is staged, the last transaction of which is this one.
    pub(crate) fn staged(&mut self, last: TxnId) {
        self.builds_on = Some(last);
    }

    /// Remembers an answer for good that has no entry, before it is told.
    pub(crate) fn remember(&mut self, permit: &Permit, answer: &Result<TxnResponse, TxnError>) {
        let for_good = answer.as_ref().map_or_else(|error| !error.retryable, |_| true);
        if for_good {
            let most = self.table.limits.remembered_bytes;
            let answer = answer.clone().map(|response| change::within(response, most));
            self.table.remember(permit.copy, Told { fingerprint: permit.fingerprint, answer });
        }
    }

    /// An answer that was remembered is not told after all.
    pub(crate) fn forget(&mut self, copies: impl IntoIterator<Item = CopyOf>) {
        for copy in copies {
            self.table.forget(copy);
        }
    }

    /// Forgets what was told in sessions that are gone for good: not in the newest staged state, and not among the applied
    /// ones. A removal that is staged only may be dropped again, and then what was told still counts.
    ///
    /// It does not matter how they went. So nothing has to be kept of removals on their way.
    pub(crate) fn sweep(&mut self, is_applied: impl FnMut(SessionId) -> bool) {
        self.table.sweep(is_applied);
    }

    /// How many answers without an entry are remembered.
    pub(crate) fn remembered(&self) -> usize {
        self.table.remembered()
    }
}
