//! Exactly once: a session, whose transactions run at most once however often they are sent, and whose outcomes can be
//! asked for until they are known.
//!
//! Each transaction has a sequence of its own. The nodes store its outcome with what it changed, so the client sends it
//! again after a lost answer, and gets the first one. What it tells the application:
//!
//! | told | when |
//! | --- | --- |
//! | committed | the answer has a txn id, which stands in the log; or it changed nothing, and no copy is under way |
//! | not committed | nothing was ever sent; or every copy was answered, the last by a refusal for good; or the log says *never* |
//! | unknown | the deadline is over, or the session is gone. Within the session it can be asked again: [`Pending`] |
//!
//! If a copy is under way whose answer was lost, an answer without a txn id, or a refusal, is not believed by itself: the
//! transaction is *resolved*, which makes the nodes write that it never runs, unless it did.
//!
//! [`Session::txn`] does all of it for a process that lives on. For one that may not, [`Session::begin`] takes a sequence;
//! then [`Session::state`] is saved, then [`Pending::run`] sends; when the answer is where it will be found again,
//! [`Session::answered`] lets the nodes drop it. A process that resumes from the state finds what it has no answer to in
//! [`Session::unanswered`].
//!
//! | file | role |
//! | --- | --- |
//! | `pending` | one transaction until its outcome is known |
//! | `state` | what another process needs to go on |

mod pending;
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use calamus_proto::v1::{CloseSessionRequest, OpenSessionRequest, TxnRequest, TxnSession};
use prost::Message;
use tokio::sync::Notify;
use tokio::time::timeout;
use tonic::Code;

pub use pending::Pending;
pub use state::{ResumeError, SessionState};

use crate::client::{Client, IfUnknown, ReadFrom};
use crate::nodes::Node;
use crate::outcome::{Committed, Failure, Outcome, TxnError};
use crate::txn::Txn;

/// How far a sequence may be above the lowest that is unanswered: the nodes refuse more.
const MAX_AHEAD: u64 = 255;

/// A session. Cheap to clone; clones share it. Dropping it does not close it: it may be resumed.
#[derive(Clone, Debug)]
pub struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    id: u64,
    ttl: Duration,
    sequences: Mutex<Sequences>,
    /// A sequence was answered.
    answered: Notify,
}

#[derive(Debug)]
struct Sequences {
    next: u64,
    unanswered: BTreeMap<u64, Unanswered>,
}

#[derive(Clone, Debug, PartialEq)]
struct Unanswered {
    request: TxnRequest,
    /// A copy whose answer was lost may be under way.
    lost: bool,
    /// How many runs of it have not ended: each may have a copy under way. One whose future was dropped never ends.
    runs: u32,
}

impl Sequences {
    fn lowest(&self) -> u64 {
        self.unanswered.keys().next().copied().unwrap_or(self.next)
    }
}

impl Client {
    /// Opens a session that lives for an hour without being used.
    ///
    /// # Errors
    /// As [`Client::session_with`].
    pub async fn session(&self) -> Result<Session, TxnError> {
        self.session_with(Duration::ZERO).await
    }

    /// Opens a session that lives for `ttl` without being used: 1 s to 30 days; zero is the nodes' default.
    ///
    /// # Errors
    /// If there are too many sessions, or no node opens one within the deadline.
    pub async fn session_with(&self, ttl: Duration) -> Result<Session, TxnError> {
        let request = OpenSessionRequest { ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX) };
        let call =
            |node: Node, _| async move { node.kv().open_session(request).await.map(tonic::Response::into_inner) };
        // One that was opened and whose number was lost expires.
        let deadline = self.options().deadline;
        let (opened, _) = self.change(ReadFrom::Leader, IfUnknown::Repeat, deadline, call).await?;
        let sequences = Sequences { next: 1, unanswered: BTreeMap::new() };
        Ok(Session::new(self.clone(), opened.session_id, Duration::from_millis(opened.ttl_ms), sequences))
    }

    /// Goes on with a session that another process has left.
    ///
    /// # Errors
    /// If the state is of another cluster, or not understood.
    pub fn resume(&self, state: &SessionState) -> Result<Session, ResumeError> {
        let sequences = state.sequences(&self.topology().cluster_id)?;
        Ok(Session::new(self.clone(), state.session_id(), state.ttl(), sequences))
    }
}

impl Session {
    fn new(client: Client, id: u64, ttl: Duration, sequences: Sequences) -> Session {
        let (sequences, answered) = (Mutex::new(sequences), Notify::new());
        Session { inner: Arc::new(Inner { client, id, ttl, sequences, answered }) }
    }

    fn sequences(&self) -> MutexGuard<'_, Sequences> {
        self.inner.sequences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn named(&self, sequence: u64) -> TxnSession {
        TxnSession { id: self.inner.id, sequence, lowest_unanswered: self.sequences().lowest().min(sequence) }
    }

    /// Its number, which is never used again.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// How long it lives without being used.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    /// Runs a transaction, at most once. Several may run at the same time.
    ///
    /// One that only reads takes no part in the session. If the future is dropped, or ends unknown, the transaction is
    /// one of [`Session::unanswered`].
    ///
    /// # Errors
    /// [`TxnError::NotCommitted`] if it changed nothing and never will; [`TxnError::Unknown`] if the deadline is over or
    /// the session is gone.
    pub async fn txn(&self, txn: Txn) -> Result<Committed, TxnError> {
        if txn.only_reads() {
            return self.inner.client.txn(txn).await;
        }
        self.run_through(txn).await
    }

    /// Says that the session is in use, if nothing else does: at least once in its time to live.
    ///
    /// # Errors
    /// As [`Session::txn`].
    pub async fn keep_alive(&self) -> Result<(), TxnError> {
        self.run_through(Txn::new()).await.map(|_| ())
    }

    async fn run_through(&self, txn: Txn) -> Result<Committed, TxnError> {
        let pending = self.begin(txn).await?;
        let result = pending.run().await;
        if Outcome::of(&result) != Outcome::Unknown {
            self.answered(pending.sequence());
        }
        result
    }

    /// Takes a sequence for a transaction, and sends nothing: [`Pending::run`] does. Waits while the lowest sequence that
    /// is unanswered is too far behind.
    ///
    /// # Errors
    /// If it is too large, or such a wait does not end within the deadline.
    pub async fn begin(&self, txn: Txn) -> Result<Pending, TxnError> {
        let deadline = txn.own_deadline().unwrap_or(self.inner.client.options().deadline);
        let request = txn.request;
        crate::client::check_size(request.encoded_len())?;
        let taken = timeout(deadline, async {
            loop {
                let answered = self.inner.answered.notified();
                tokio::pin!(answered);
                // Registered before looking, so that it cannot be missed.
                answered.as_mut().enable();
                if let Some(sequence) = self.take(&request) {
                    return sequence;
                }
                answered.await;
            }
        });
        match taken.await {
            Ok(sequence) => Ok(Pending::new(self.clone(), sequence, deadline)),
            Err(_) => {
                let lowest = self.sequences().lowest();
                let message = format!(
                    "sequence {lowest} of the session has no answer yet, and {MAX_AHEAD} above it are used: run that one again, \
                     or resolve it"
                );
                Err(TxnError::NotCommitted(Failure::new("session_full", message, Code::ResourceExhausted)))
            }
        }
    }

    fn take(&self, request: &TxnRequest) -> Option<u64> {
        let mut sequences = self.sequences();
        let sequence = sequences.next;
        if sequence - sequences.lowest() > MAX_AHEAD {
            return None;
        }
        sequences.next += 1;
        sequences.unanswered.insert(sequence, Unanswered { request: request.clone(), lost: false, runs: 0 });
        Some(sequence)
    }

    /// The transactions that were begun and not said to be answered, in the order of their sequences.
    #[must_use]
    pub fn unanswered(&self) -> Vec<Pending> {
        let deadline = self.inner.client.options().deadline;
        let sequences = self.sequences();
        sequences.unanswered.keys().map(|sequence| Pending::new(self.clone(), *sequence, deadline)).collect()
    }

    /// Says that the application has its answer: nobody will ask for it again, and the nodes may drop it.
    pub fn answered(&self, sequence: u64) {
        self.sequences().unanswered.remove(&sequence);
        self.inner.answered.notify_waiters();
    }

    /// What another process needs to go on. To be saved after [`Session::begin`] and before [`Pending::run`]; and after
    /// [`Session::answered`] if what was answered is not to be run again.
    #[must_use]
    pub fn state(&self) -> SessionState {
        SessionState::of(self)
    }

    /// Closes the session: none of its transactions runs from here on, whatever is under way. Whether there was one to
    /// close.
    ///
    /// # Errors
    /// As [`Session::txn`]; the session goes by itself when its time is over.
    pub async fn close(&self) -> Result<bool, TxnError> {
        let request = CloseSessionRequest { session_id: self.inner.id };
        let call =
            |node: Node, _| async move { node.kv().close_session(request).await.map(tonic::Response::into_inner) };
        let (client, deadline) = (&self.inner.client, self.inner.client.options().deadline);
        let (closed, _) = client.change(ReadFrom::Leader, IfUnknown::Repeat, deadline, call).await?;
        Ok(closed.closed)
    }
}
