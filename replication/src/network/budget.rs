//! Bounds what is under way on a stream, in bytes: used by the sender of frames and by their receiver.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What is sent and not answered, in order. One request may always be under way, however large.
pub(crate) struct Budget {
    limit: usize,
    sent: Mutex<VecDeque<(usize, Instant)>>,
    freed: Notify,
}

impl Budget {
    /// Lets about `limit` bytes be under way.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, sent: Mutex::default(), freed: Notify::new() }
    }

    /// Waits until `bytes` more may be under way, and counts them. One task at a time may wait.
    pub(crate) async fn take(&self, bytes: usize) {
        loop {
            {
                let mut sent = self.sent.lock();
                let under_way: usize = sent.iter().map(|(bytes, _)| *bytes).sum();
                if under_way == 0 || under_way + bytes <= self.limit {
                    sent.push_back((bytes, Instant::now()));
                    return;
                }
            }
            // A permit that was stored between the check and here is not lost: there is only one waiter.
            self.freed.notified().await;
        }
    }

    /// What is under way, in bytes.
    pub(crate) fn under_way(&self) -> usize {
        self.sent.lock().iter().map(|(bytes, _)| *bytes).sum()
    }

    /// The oldest request is answered. Returns whether there was one.
    pub(crate) fn answered(&self) -> bool {
        let answered = self.sent.lock().pop_front().is_some();
        self.freed.notify_one();
        answered
    }

    /// When the oldest request without an answer was sent.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.sent.lock().front().map(|(_, sent)| *sent)
    }
}

/// A task that ends with its owner.
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_large_request_passes_and_the_next_waits_for_its_answer() {
        let budget = Budget::new(10);
        budget.take(1000).await;
        assert!(budget.take(1).now_or_never().is_none());
        assert!(budget.answered());
        budget.take(6).await;
        budget.take(4).await;
        assert!(budget.take(1).now_or_never().is_none());
        assert!(budget.answered());
        assert!(budget.take(6).now_or_never().is_some());
        assert!(budget.answered() && budget.answered());
        assert!(!budget.answered(), "an answer to nothing");
        assert!(budget.oldest().is_none());
    }
}
