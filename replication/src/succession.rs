//! Not waiting for a leader that has a successor.
//!
//! A leader that stands still, or is cut off, keeps a forwarded transaction for as long as its sender waits. Once another leads a
//! later term, nothing that the old one has not committed already will be, in its term; so the sender is told *unknown* soon, and asks
//! the new one if it may. Answers that are on their way get a moment: a leader that handed over has mostly answered.

use std::time::Duration;

use calamus_engine::ids::Term;
use tokio::sync::watch;

use crate::error::{TxnError, reason};
use crate::seam::{LeaderInfo, Leadership};

/// How long an answer of the old leader may still come: several times what one takes in a data centre.
const MOMENT: Duration = Duration::from_millis(20);

/// The term in which this node knows a leader, itself included.
fn led(leadership: &Leadership) -> Option<Term> {
    match leadership {
        Leadership::Leading { term } => Some(*term),
        Leadership::Following { leader, .. } => leader.as_ref().map(|leader| leader.term),
        Leadership::Stopped { .. } => None,
    }
}

/// What `leader` answers, unless another one leads a later term first.
///
/// # Errors
/// Those of the answer; *unknown* if there is a successor.
pub(crate) async fn unless_succeeded<T>(
    mut leadership: watch::Receiver<Leadership>,
    leader: &LeaderInfo,
    answer: impl Future<Output = Result<T, TxnError>>,
) -> Result<T, TxnError> {
    let succeeded = async {
        let later = |now: &Leadership| led(now).is_some_and(|term| term > leader.term);
        if leadership.wait_for(later).await.is_err() {
            // The node is ending, and whoever answers is told so.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(MOMENT).await;
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = succeeded => Err(TxnError::unknown(
            reason::LEADER_LOST,
            format!(
                "{} at {} was asked as the leader of term {}, has not answered, and another node leads now; the transaction may be \
                 committed: read to find out",
                leader.name, leader.address, leader.term
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use calamus_engine::ids::RaftId;

    use super::*;
    use crate::error::Outcome;

    fn leader(term: u64) -> LeaderInfo {
        let (name, address) = ("n2".to_owned(), "127.0.0.1:1".to_owned());
        LeaderInfo { raft_id: RaftId(2), name, address, term: Term(term) }
    }

    fn following(term: u64, leader: Option<LeaderInfo>) -> Leadership {
        Leadership::Following { term: Term(term), leader }
    }

    #[tokio::test]
    async fn a_leader_that_has_a_successor_is_not_waited_for() {
        let (changes, seen) = watch::channel(following(7, Some(leader(7))));
        let old = leader(7);
        let waiting = unless_succeeded(seen, &old, std::future::pending::<Result<(), TxnError>>());
        let elect = async {
            // Neither its own term again nor an election without an end ends the wait.
            changes.send_replace(following(8, None));
            tokio::time::sleep(Duration::from_millis(50)).await;
            changes.send_replace(following(8, Some(leader(8))));
            changes
        };
        let (told, _changes) = tokio::join!(waiting, elect);
        let error = told.expect_err("nobody answers");
        assert_eq!((error.outcome, error.reason), (Outcome::Unknown, reason::LEADER_LOST), "{error}");
    }

    #[tokio::test]
    async fn an_answer_that_is_on_its_way_is_taken() {
        let (changes, seen) = watch::channel(Leadership::Leading { term: Term(9) });
        let answer = async {
            tokio::time::sleep(MOMENT / 2).await;
            Ok(5)
        };
        assert_eq!(unless_succeeded(seen, &leader(7), answer).await, Ok(5));
        drop(changes);
    }

    #[tokio::test]
    async fn a_node_that_ends_leaves_the_answer_to_whoever_has_it() {
        let (changes, seen) = watch::channel(following(7, Some(leader(7))));
        drop(changes);
        let answer = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(5)
        };
        assert_eq!(unless_succeeded(seen, &leader(7), answer).await, Ok(5));
    }
}
