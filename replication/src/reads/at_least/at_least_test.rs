use std::time::Duration;

use calamus_proto::v1::{ReadPoint, SeenTxn};
use tokio::sync::watch;

use super::{check, wait};
use crate::error::{TxnError, reason};
use crate::merger::test_consensus::TestConsensus;
use crate::merger::{Merger, MergerOptions};
use crate::test_requests::{put, txn};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn seen(txn_id: u64, timeline: u64) -> SeenTxn {
    SeenTxn { txn_id, timeline }
}

fn reason_of(result: Result<(), TxnError>) -> (&'static str, bool) {
    let error = result.expect_err("it is not here");
    (error.reason, error.retryable)
}

#[tokio::test]
async fn a_read_waits_for_what_its_reader_has_seen_and_not_for_ever() {
    let consensus = TestConsensus::new();
    let engine = consensus.engine.clone();
    let merger = Merger::start(engine.clone(), consensus.clone(), MergerOptions::default());
    let (sender, applied) = watch::channel(None);
    assert_eq!(wait(&engine, applied.clone(), seen(0, 0), LONG).await, Ok(()), "nothing is asked for");
    assert_eq!(reason_of(wait(&engine, applied.clone(), seen(1, 0), SHORT).await), (reason::BEHIND, true));
    // A database that has nothing yet may be of any timeline.
    assert_eq!(reason_of(wait(&engine, applied.clone(), seen(1, 77), SHORT).await), (reason::BEHIND, true));

    let waiting = {
        let (engine, applied) = (engine.clone(), applied.clone());
        tokio::spawn(async move { wait(&engine, applied, seen(1, 1), LONG).await })
    };
    consensus.pump(merger.submit(txn(vec![put("t", "k", "1")]), None)).await.expect("committed");
    sender.send_replace(engine.applied().log_id);
    assert_eq!(waiting.await.expect("no panic"), Ok(()));
    assert_eq!(reason_of(wait(&engine, applied.clone(), seen(2, 1), SHORT).await), (reason::BEHIND, true));
    let other = wait(&engine, applied, seen(2, 77), SHORT).await;
    assert_eq!(reason_of(other), (reason::OTHER_TIMELINE, false), "it will never come");
}

#[test]
fn what_is_shown_is_what_was_asked_for_or_an_error() {
    let point = ReadPoint { txn_id: 10, timeline: 3, ..ReadPoint::default() };
    for good in [seen(0, 0), seen(0, 9), seen(10, 0), seen(10, 3), seen(4, 3)] {
        assert_eq!(check(good, &point), Ok(()), "{good:?}");
    }
    for (bad, why) in [
        (seen(10, 2), reason::OTHER_TIMELINE),
        (seen(11, 2), reason::OTHER_TIMELINE),
        (seen(11, 3), reason::NO_SUCH_TXN),
        (seen(11, 0), reason::NO_SUCH_TXN),
    ] {
        assert_eq!(reason_of(check(bad, &point)), (why, false), "{bad:?}");
    }
}
