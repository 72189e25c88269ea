//! Where a peer's log stops being this leader's, found with one question.
//!
//! A new leader does not know that place. openraft searches for it by halving the log: each step opens a stream, carries
//! up to eight entries from the middle, and waits for the answer; a million entries are seventeen steps. The leader's own first
//! entry, before which nothing is committed, comes behind all of them. Nearly always the peer has all of the log of
//! before, so that each step only hears so.
//!
//! Here the peer is asked for that at once, and openraft's steps that lie before the place are answered in its stead:
//!
//! ```text
//! elected; X is the end of the log then, or where the peer said with its vote that its own ends
//!   -> append behind X, with this leader's first entry if that is the next
//!   <- the peer has that, once all of it is durable
//!   openraft's steps that end there or before: answered here, "it has that"
//!   the first that ends behind it, and all after that: sent
//! ```
//!
//! Why what is answered here is true:
//! - The question is an append request like any other, in the leader's term. The peer's core takes over the leader's vote,
//!   compares X with its log, and answers when all that it had accepted by then is durable, what earlier leaders sent or
//!   had cut as well: the core hands votes, frames and cuts to the journal in that order, and the journal keeps it. So the peer
//!   has X on its disk, and by Raft's log matching all before it.
//! - X and the first entry are in this leader's log, and the peer follows this leader: only one of a later term may have them
//!   cut. That is what any answer to an append promises, and no more.
//! - The first entry is read while the vote on this node is still its own for that term, as openraft reads what it sends: a later
//!   leader's entries come into a log behind its vote.
//! - Nothing behind what the peer said is ever answered here.
//!
//! A peer that lacks X, or knows a later vote, is left to openraft's search; one that does not answer is asked again with the
//! next step.
//!
//! openraft also takes answers as signs of life, as of when it sent the request: so they are given here for one heartbeat
//! interval after the peer's own and no longer, and what this node says of its age counts from when the peer was asked
//! ([`Credit`](crate::network::credit::Credit)). And it passes the commit index on with requests: one that ends in this term
//! and tells of a commit in this term is sent.

use calamus_engine::ids::{LogId, LogIndex, Term};
use calamus_engine::journal::frame::FrameKind;
use openraft::network::RPCTypes;
use openraft::raft::AppendEntriesRequest;
use tokio::time::Instant;

use super::appends::append_from_wire;
use super::{C, Peer};
use crate::network::convert;
use crate::network::peers::Lane;
use crate::types::{Entry, RaftLogId, RaftVote};

/// How far the search is, in one leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// The peer has not said what it has.
    Begins,
    /// The peer has everything up to and with this entry.
    Has { upto: LogId, asked: Instant, answered: Instant },
    /// Everything is sent to the peer.
    Over,
}

impl Peer {
    /// The end of a request, if the peer is known to have all of it: that is the answer to it.
    pub(super) async fn has_all_of(&mut self, request: &AppendEntriesRequest<C>) -> Option<RaftLogId> {
        let end = request.entries.last()?.log_id;
        let (last, term) = (convert::to_log_id(&end), Term(request.vote.leader_id.term));
        if self.search == Search::Begins {
            self.search = self.ask_for_end(request.vote, last).await;
        }
        let Search::Has { upto, asked, answered } = self.search else { return None };
        let of_term = |log_id: &RaftLogId| convert::to_log_id(log_id).term == term;
        let tells = of_term(&end) && request.leader_commit.as_ref().is_some_and(of_term);
        if last > upto || tells || answered.elapsed() >= self.shared.config.heartbeat_interval {
            self.search = Search::Over;
            return None;
        }
        if last == upto {
            self.search = Search::Over;
        }
        self.shared.peers.credit.give(asked, Instant::now());
        Some(end)
    }

    /// Asks whether the peer has the log of before this leader's term. `last`: where openraft's first step ends.
    async fn ask_for_end(&self, vote: RaftVote, last: LogId) -> Search {
        let (peers, engine) = (&self.shared.peers, &self.shared.engine);
        let term = Term(vote.leader_id.term);
        let Some(place) = peers.ends.place(term, self.target, |index| engine.log_id(index)) else {
            return Search::Over;
        };
        // A short log, or streams that are opened anew in the middle of a term: there is nothing to search.
        if last > place {
            return Search::Over;
        }
        if self.check_silence().is_err() {
            return Search::Begins;
        }
        let Ok(mut client) = peers.client(self.target, Lane::Control) else { return Search::Begins };
        let asked = Instant::now();
        let question = AppendEntriesRequest {
            vote,
            prev_log_id: Some(convert::to_raft_log_id(place)),
            entries: self.first_entry(term, place.index.next()).into_iter().collect(),
            leader_commit: None,
        };
        let upto = question.entries.last().map_or(place, |entry: &Entry| convert::to_log_id(&entry.log_id));
        // Two syncs of the peer, of the vote and of the entry.
        let limit = self.shared.config.election_timeout.start;
        let call = client.heartbeat(self.append_request(&question));
        let Ok(answer) = self.limited(RPCTypes::AppendEntries, limit, call).await else { return Search::Begins };
        self.shared.heard(self.target, &answer);
        self.shared.note_promise(self.target, &answer);
        match append_from_wire(answer) {
            Ok(Ok(Some(has))) if convert::to_log_id(&has) == upto => {
                Search::Has { upto, asked, answered: Instant::now() }
            }
            _ => Search::Over,
        }
    }

    /// The entry at `index`, if it is the one that this node appended when it was elected for `term`.
    fn first_entry(&self, term: Term, index: LogIndex) -> Option<Entry> {
        let (engine, wanted) = (&self.shared.engine, LogId { term, index });
        if engine.log_id(index) != Some(wanted) {
            return None;
        }
        let frames = engine.read_frames(index, index.next(), 0).ok()?;
        let frame = frames.into_iter().next().filter(|frame| frame.kind() == FrameKind::Blank)?;
        let ours = self.shared.own_vote().is_some_and(|vote| vote.term == term);
        if ours && frame.log_id() == wanted { Entry::from_frame(frame).ok() } else { None }
    }
}
