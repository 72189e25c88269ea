//! What this node knows others to have promised it, and whether one of them has forgotten.
//!
//! A directory that was put back to an earlier state (a snapshot of its file system, an image of its disk) opens like any
//! other. It holds a valid state of its node, only not the newest: what the node has voted and acknowledged since is gone,
//! and whoever believes it may lose what a quorum has acknowledged. Inode and time of birth tell a copy, and not this. But
//! others have heard what is gone. So a node that starts says what it has, before it takes part in anything, and
//! whoever was promised more refuses it; then it does not start.
//!
//! What was heard of a raft id, all of it durable there before it was said:
//! - it voted for this node in a term: its vote is of that term and for this node, or for the one that was elected in that
//!   term (a leader takes over votes that were given to another), or of a later term, for ever;
//! - in the term that this node led, it acknowledged an entry of that term: the same for its vote; and while it has no
//!   later vote, that entry is in its log, for only a leader of a later term can have it cut.
//! - what it acknowledged was also applied here, so committed: the entry's index is in its log for ever.
//!
//! | the directory has | of whom was heard | decision |
//! | --- | --- | --- |
//! | a vote of an earlier term, or in the same for another node that was not elected | a vote, or an entry | contradiction |
//! | the vote of that term | an entry behind its end | contradiction |
//! | a later vote | a committed entry behind its end | contradiction |
//! | anything else | | it may be its newest state |
//!
//! Beside what was heard, the vote of whoever is asked speaks: if it is for the node that starts, that one stood for
//! election in that term, and a candidate's own vote is durable before it asks for others. That stands on disk.
//!
//! What is not found: what was heard is kept in memory by those who led or stood for election. If none of them runs on since, or none
//! answers when the node starts (the whole cluster was stopped, or the leader of then is gone as well), nobody knows
//! better, and a directory that was put back is believed. Nor is it found where nothing was promised since, nor where a leader's
//! own directory is put back to a moment within the term that it led: nobody notes what a leader has promised itself. So an image is
//! never to be put back; where it has happened, the node is wiped and joins anew.
//!
//! A leader guards itself too: a follower that denies what it acknowledged in this very term is not fed, because openraft
//! takes it for impossible.

use std::collections::HashMap;

use calamus_engine::Vote;
use calamus_engine::ids::{LogId, RaftId, Term};
use parking_lot::Mutex;

/// What one raft id has promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    /// The newest term in which it voted for this node, or followed it.
    term: Term,
    /// What it acknowledged in that term, to this node as its leader.
    matched: Option<LogId>,
    /// What it acknowledged in any term, and is committed.
    committed: Option<LogId>,
}

/// What was heard of the others.
#[derive(Default)]
pub(crate) struct Heard(Mutex<HashMap<RaftId, Known>>);

impl Heard {
    /// A peer voted for this node.
    pub(crate) fn voted(&self, peer: RaftId, term: Term) {
        let mut all = self.0.lock();
        let known = all.entry(peer).or_default();
        if term > known.term {
            *known = Known { term, matched: None, committed: known.committed };
        }
    }

    /// A peer acknowledged an entry of the log to this node, which leads `term` and has applied up to `applied`.
    pub(crate) fn acknowledged(&self, peer: RaftId, term: Term, matched: LogId, applied: Option<LogId>) {
        if matched.term != term {
            // Of an earlier leader: it may have been there before this one's vote.
            return;
        }
        let mut all = self.0.lock();
        let known = all.entry(peer).or_default();
        if term > known.term {
            *known = Known { term, matched: None, committed: known.committed };
        }
        if term == known.term {
            known.matched = known.matched.max(Some(matched));
        }
        known.committed = known.committed.max(applied.min(Some(matched)));
    }

    /// Whether a follower denies an entry that it acknowledged to this node in the term that this node leads now.
    pub(crate) fn is_denied(&self, peer: RaftId, term: Term, missing: LogId) -> bool {
        let all = self.0.lock();
        all.get(&peer)
            .is_some_and(|known| known.term == term && known.matched.is_some_and(|had| had.index >= missing.index))
    }

    /// Why what a peer has cannot be its newest state, as far as this node, `this`, knows.
    pub(crate) fn contradiction(
        &self,
        this: RaftId,
        peer: RaftId,
        vote: Option<Vote>,
        last: Option<LogId>,
    ) -> Option<String> {
        let known = *self.0.lock().get(&peer)?;
        let own = vote.map_or(Term(0), |vote| vote.term);
        let same = own == known.term;
        // A leader that was elected in the same term takes over a vote that was given to another.
        let elsewhere = same && vote.is_some_and(|vote| vote.node != Some(this) && !vote.committed);
        if own < known.term || elsewhere {
            return Some(format!(
                "it voted for this node in term {}, and its directory has a vote of term {own}",
                known.term
            ));
        }
        let index = |log_id: Option<LogId>| log_id.map(|log_id| log_id.index);
        let promised = if same { known.matched.max(known.committed) } else { known.committed };
        if index(last) >= index(promised) {
            return None;
        }
        let text = |log_id: Option<LogId>| log_id.map_or_else(|| "nothing".to_owned(), |log_id| log_id.to_string());
        Some(format!("it acknowledged the log up to {}, and its directory has {}", text(promised), text(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIS: RaftId = RaftId(1);
    const PEER: RaftId = RaftId(2);

    fn vote(term: u64, node: u64) -> Option<Vote> {
        Some(Vote { term: Term(term), node: Some(RaftId(node)), committed: false })
    }

    /// Of who follows the leader of the term.
    fn led(term: u64, node: u64) -> Option<Vote> {
        vote(term, node).map(|vote| Vote { committed: true, ..vote })
    }

    fn at(term: u64, index: u64) -> Option<LogId> {
        Some(LogId::new(term, index))
    }

    #[test]
    fn who_has_all_that_it_promised_is_believed_and_who_has_less_is_not() {
        let heard = Heard::default();
        let forgot = |vote, last| heard.contradiction(THIS, PEER, vote, last).is_some();
        assert!(!forgot(None, None), "nothing was heard");
        heard.voted(PEER, Term(5));
        assert!(forgot(None, None) && forgot(vote(4, 1), None) && forgot(vote(5, 3), None));
        assert!(!forgot(vote(5, 1), None) && !forgot(vote(6, 3), None));
        assert!(!forgot(led(5, 3), None), "it voted for this node, and another one was elected in that term");
        heard.acknowledged(PEER, Term(5), LogId::new(4, 90), at(4, 90));
        assert!(!forgot(vote(5, 1), at(4, 10)), "an entry of an earlier leader says nothing");
        heard.acknowledged(PEER, Term(5), LogId::new(5, 100), at(5, 98));
        heard.acknowledged(PEER, Term(5), LogId::new(5, 99), at(5, 99));
        assert!(forgot(vote(5, 1), at(5, 99)) && !forgot(vote(5, 1), at(5, 100)) && forgot(vote(4, 1), at(5, 100)));
        // A later leader may have cut what was not committed, and nothing else.
        assert!(!forgot(vote(6, 3), at(5, 99)) && forgot(vote(6, 3), at(5, 98)));
        heard.voted(PEER, Term(7));
        assert!(forgot(vote(6, 3), at(6, 200)) && !forgot(vote(7, 1), at(5, 99)) && forgot(vote(7, 1), at(5, 98)));
        assert!(heard.contradiction(THIS, RaftId(3), None, None).is_none(), "another one");
    }

    #[test]
    fn only_what_was_acknowledged_in_this_term_is_denied() {
        let heard = Heard::default();
        heard.acknowledged(PEER, Term(5), LogId::new(5, 100), None);
        assert!(heard.is_denied(PEER, Term(5), LogId::new(5, 100)) && heard.is_denied(PEER, Term(5), LogId::new(4, 7)));
        assert!(
            !heard.is_denied(PEER, Term(5), LogId::new(5, 101)) && !heard.is_denied(PEER, Term(6), LogId::new(5, 100))
        );
        assert!(!heard.is_denied(RaftId(3), Term(5), LogId::new(5, 1)));
    }
}
