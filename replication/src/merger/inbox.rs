//! Where transactions arrive. Many push, the merger takes all at once.
//!
//! Bytes that wait are bounded: who pushes has reserved them before, and they are given back when the transaction is
//! executed. Frozen and stopped are decided under the queue's lock: after `freeze(true)` returns nothing more is
//! queued, and after the merger has closed the inbox nothing is left in it.

use std::collections::VecDeque;
use std::task::Waker;

use calamus_engine::ids::Term;
use calamus_proto::v1::TxnRequest;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use super::{Reply, stopping};
use crate::error::{TxnError, reason};

/// A transaction that waits. It passed validation.
pub(super) struct Waiting {
    pub(super) request: TxnRequest,
    /// The term that it was forwarded to, if it was.
    pub(super) term: Option<Term>,
    /// Its weight.
    pub(super) bytes: usize,
    pub(super) reply: Reply,
}

pub(super) struct Inbox {
    shared: Mutex<Shared>,
    room: Semaphore,
    waker: AtomicWaker,
    idle: Notify,
    /// Set once the merger has ended: whether it was asked to.
    ended: watch::Sender<Option<bool>>,
    capacity_bytes: usize,
}

#[derive(Default)]
struct Shared {
    queue: VecDeque<Waiting>,
    frozen: bool,
    stopping: bool,
    /// The merger has ended.
    closed: bool,
    /// Something was pushed since the merger last said that it has nothing to do.
    busy: bool,
}

impl Inbox {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        Self {
            shared: Mutex::default(),
            room: Semaphore::new(capacity_bytes),
            waker: AtomicWaker::new(),
            idle: Notify::new(),
            ended: watch::Sender::new(None),
            capacity_bytes,
        }
    }

    /// One larger than the whole queue goes in alone.
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.capacity_bytes)).expect("the queue's bound fits 32 bits")
    }

    pub(super) fn try_reserve(&self, bytes: usize) -> bool {
        self.room.try_acquire_many(self.permits(bytes)).map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    /// Waits for room; `false` when the merger has ended.
    pub(super) async fn reserve(&self, bytes: usize) -> bool {
        match self.room.acquire_many(self.permits(bytes)).await {
            Ok(permit) => {
                permit.forget();
                true
            }
            Err(_) => false,
        }
    }

    /// Gives reserved bytes back.
    pub(super) fn release(&self, bytes: usize) {
        self.room.add_permits(self.permits(bytes) as usize);
    }

    /// Queues a transaction whose bytes were reserved; gives them back if it refuses.
    pub(super) fn push(&self, waiting: Waiting) -> Result<(), TxnError> {
        let refused = {
            let mut shared = self.shared.lock();
            if shared.stopping || shared.closed {
                stopping()
            } else if shared.frozen {
                TxnError::not_committed(
                    reason::FROZEN,
                    "an operator has frozen the writes of this node; nothing was changed, send it again later",
                )
            } else {
                shared.busy = true;
                shared.queue.push_back(waiting);
                drop(shared);
                self.waker.wake();
                return Ok(());
            }
        };
        self.release(waiting.bytes);
        Err(refused)
    }

    pub(super) fn freeze(&self, frozen: bool) {
        self.shared.lock().frozen = frozen;
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.shared.lock().frozen
    }

    pub(super) fn stop(&self) {
        self.shared.lock().stopping = true;
        self.waker.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.shared.lock().stopping
    }

    /// Says whom to wake; then look.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Moves all that waits behind what `queue` holds. `nothing_else`: the merger has nothing else to do, so that if
    /// nothing waits, it is idle. Returns whether something came.
    pub(super) fn take(&self, queue: &mut VecDeque<Waiting>, nothing_else: bool) -> bool {
        let mut shared = self.shared.lock();
        if shared.queue.is_empty() {
            if nothing_else && std::mem::take(&mut shared.busy) {
                drop(shared);
                self.idle.notify_waiters();
            }
            return false;
        }
        if queue.is_empty() {
            std::mem::swap(queue, &mut shared.queue);
        } else {
            queue.append(&mut shared.queue);
        }
        true
    }

    /// Waits until the merger is idle.
    pub(super) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before looking, so that it cannot be missed.
            idle.as_mut().enable();
            if !self.shared.lock().busy {
                return;
            }
            idle.await;
        }
    }

    /// Set once the merger has ended: whether it was asked to.
    pub(super) fn ended(&self) -> watch::Receiver<Option<bool>> {
        self.ended.subscribe()
    }

    /// Nothing can be queued from here on. Returns what waited.
    pub(super) fn close(&self) -> VecDeque<Waiting> {
        self.room.close();
        let mut shared = self.shared.lock();
        shared.closed = true;
        shared.busy = false;
        let left = std::mem::take(&mut shared.queue);
        let asked = shared.stopping;
        drop(shared);
        self.ended.send_replace(Some(asked));
        self.idle.notify_waiters();
        left
    }
}
