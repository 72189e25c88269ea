//! Where the logs of those who elected this node ended.
//!
//! A voter says so with its vote. The new leader asks each of them for that place first: see
//! [`super::client`]'s `search`. It is a hint: nothing is concluded from it but where to ask.

use std::collections::HashMap;

use calamus_engine::ids::{LogId, LogIndex, RaftId, Term};
use parking_lot::Mutex;

/// The newest election in which somebody voted for this node.
#[derive(Default)]
struct Election {
    term: Term,
    /// Where its own log ended: all behind it is of its own term.
    own: Option<LogId>,
    /// Where those of others did.
    others: HashMap<RaftId, Option<LogId>>,
}

/// What votes said.
#[derive(Default)]
pub(crate) struct Ends(Mutex<Election>);

impl Ends {
    /// A peer whose log ends at `theirs` voted in `term` for this node, whose log ended at `own`.
    pub(crate) fn voted(&self, term: Term, own: Option<LogId>, peer: RaftId, theirs: Option<LogId>) {
        let mut election = self.0.lock();
        if term < election.term {
            return;
        }
        if term > election.term {
            *election = Election { term, own, others: HashMap::new() };
        }
        election.others.insert(peer, theirs);
    }

    /// The newest entry of this leader's log of before `term` that a peer may have. `log`: the log ids of this node.
    pub(crate) fn place(&self, term: Term, peer: RaftId, log: impl Fn(LogIndex) -> Option<LogId>) -> Option<LogId> {
        let election = self.0.lock();
        let own = election.own.filter(|_| election.term == term)?;
        match election.others.get(&peer) {
            // It has not said, so it may have all.
            None => Some(own),
            Some(None) => None,
            Some(Some(theirs)) if theirs.index >= own.index => Some(own),
            Some(Some(theirs)) => Some(*theirs).filter(|theirs| log(theirs.index) == Some(*theirs)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: RaftId = RaftId(2);
    const TERM: Term = Term(5);

    /// The log of a leader of term 5: 100 entries of term 3, 100 of term 4, and its own.
    fn log(index: LogIndex) -> Option<LogId> {
        let term = match index.0 {
            0..100 => 3,
            100..200 => 4,
            200..210 => 5,
            _ => return None,
        };
        Some(LogId::new(term, index.0))
    }

    fn place(theirs: Option<LogId>) -> Option<LogId> {
        let ends = Ends::default();
        ends.voted(TERM, Some(LogId::new(4, 199)), PEER, theirs);
        ends.place(TERM, PEER, log)
    }

    #[test]
    fn a_voter_is_asked_for_its_end_if_that_is_in_the_leaders_log_and_never_for_what_is_of_its_own_term() {
        assert_eq!(place(Some(LogId::new(4, 199))), Some(LogId::new(4, 199)));
        assert_eq!(place(Some(LogId::new(4, 150))), Some(LogId::new(4, 150)));
        assert_eq!(place(Some(LogId::new(3, 99))), Some(LogId::new(3, 99)));
        assert_eq!(place(Some(LogId::new(3, 300))), Some(LogId::new(4, 199)), "it may have what is before its tail");
        assert_eq!(place(Some(LogId::new(3, 150))), None, "it ends with what this leader never had");
        assert_eq!(place(None), None, "it has nothing");
    }

    #[test]
    fn who_has_not_voted_may_have_all_and_what_was_said_in_another_term_does_not_count() {
        let ends = Ends::default();
        assert_eq!(ends.place(TERM, PEER, log), None, "nobody has voted");
        ends.voted(TERM, Some(LogId::new(4, 199)), RaftId(3), None);
        assert_eq!(ends.place(TERM, PEER, log), Some(LogId::new(4, 199)));
        assert_eq!(ends.place(Term(6), PEER, log), None);
        ends.voted(Term(4), Some(LogId::new(3, 99)), PEER, Some(LogId::new(3, 98)));
        assert_eq!(ends.place(TERM, PEER, log), Some(LogId::new(4, 199)), "a late answer of an earlier election");
        ends.voted(Term(6), Some(LogId::new(5, 209)), RaftId(3), None);
        assert_eq!(ends.place(TERM, PEER, log), None);
        assert_eq!(ends.place(Term(6), PEER, log), Some(LogId::new(5, 209)));
    }
}
