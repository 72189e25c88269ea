//! When a peer is told that more is committed.
//!
//! A request without entries says nothing but how far the leader has committed; the next request with entries says it
//! as well, and under load it is there within a fraction of a millisecond. Sent by itself, it wakes every follower
//! twice for each entry, and the leader sends it before it answers its client: some 50 us of a lone client's 570. So
//! it is held back for a moment, and left out if another request comes.
//!
//! Leaving it out is safe: openraft takes an answer for all requests up to the log id that it names, and the later
//! request names no lower one. Nobody waits for it but who reads on the follower: a follower that asks for a read index
//! is told at once what is held ([`CommitNotes::wanted`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use calamus_engine::ids::RaftId;
use futures::StreamExt;
use futures::stream::FusedStream;
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::TypeConfig;

/// How long a request without entries waits for a better one. The clock of the runtime counts in milliseconds.
const HOLD: Duration = Duration::from_millis(1);

/// Who wants to know at once.
#[derive(Clone, Default)]
pub struct CommitNotes(Arc<Mutex<HashMap<RaftId, Arc<Notify>>>>);

impl CommitNotes {
    pub(crate) fn of(&self, peer: RaftId) -> Arc<Notify> {
        Arc::clone(self.0.lock().entry(peer).or_default())
    }

    /// The peer waits for what is committed.
    pub(crate) fn wanted(&self, peer: RaftId) {
        self.of(peer).notify_one();
    }
}

/// The next request that is worth sending. The input may end while one is held, and is asked again behind it.
pub(super) async fn next_request<S>(input: &mut S, wanted: &Notify) -> Option<AppendEntriesRequest<TypeConfig>>
where
    S: FusedStream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    let mut request = input.next().await?;
    if !request.entries.is_empty() {
        return Some(request);
    }
    let hold = tokio::time::sleep(HOLD);
    tokio::pin!(hold);
    while request.entries.is_empty() {
        tokio::select! {
            biased;
            next = input.next() => match next {
                Some(next) => request = next,
                None => break,
            },
            () = wanted.notified() => break,
            () = &mut hold => break,
        }
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::channel::mpsc;
    use openraft::entry::RaftEntry as _;
    use openraft::vote::RaftVote as _;

    use super::*;
    use crate::types::{CommittedLeaderId, Entry, EntryBody, LeaderId, RaftLogId, RaftVote};

    fn append_request(entries: u64, commit: u64) -> AppendEntriesRequest<TypeConfig> {
        let log_id = |index| RaftLogId::new(CommittedLeaderId::new(1), index);
        AppendEntriesRequest {
            vote: RaftVote::from_leader_id(LeaderId { term: 1, voted_for: 1 }, true),
            prev_log_id: Some(log_id(commit)),
            entries: (1..=entries).map(|number| Entry::new(log_id(commit + number), EntryBody::Blank)).collect(),
            leader_commit: Some(log_id(commit)),
        }
    }

    #[tokio::test]
    async fn a_note_waits_for_entries_or_a_moment_or_for_who_wants_it() {
        let (sender, mut input) = mpsc::unbounded();
        let notes = CommitNotes::default();
        let wanted = notes.of(RaftId(1));
        let send = |entries, commit| sender.unbounded_send(append_request(entries, commit)).expect("open");

        send(0, 5);
        let begun = tokio::time::Instant::now();
        let alone = next_request(&mut input, &wanted).await.expect("open");
        assert_eq!((alone.entries.len(), begun.elapsed() >= HOLD), (0, true));

        send(0, 6);
        send(0, 7);
        send(1, 7);
        send(1, 8);
        for commit in [7, 8] {
            let request = next_request(&mut input, &wanted).now_or_never().expect("at once").expect("open");
            assert_eq!((request.entries.len(), request.leader_commit.map(|at| at.index())), (1, Some(commit)));
        }

        send(0, 9);
        notes.wanted(RaftId(2));
        assert!(next_request(&mut input, &wanted).now_or_never().is_none(), "somebody else asked");
        send(0, 10);
        notes.wanted(RaftId(1));
        let told = next_request(&mut input, &wanted).now_or_never().expect("at once").expect("open");
        assert_eq!(told.leader_commit.map(|at| at.index()), Some(10));

        send(0, 11);
        drop(sender);
        let last = next_request(&mut input, &wanted).await.expect("what was held is sent");
        assert_eq!(last.leader_commit.map(|at| at.index()), Some(11));
        assert!(next_request(&mut input, &wanted).await.is_none());
    }
}
