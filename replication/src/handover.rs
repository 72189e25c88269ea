//! Who may be given leadership when an operator asks for it.
//!
//! A leader that hands over takes no transactions until another one leads. So it hands over only to a voter that has answered
//! just now, and that lacks few entries: those are sent to it before it stands. One that stands still, or has much to catch up
//! with, would leave the cluster without a leader for as long.

use std::time::Duration;

use calamus_engine::ids::LogIndex;

use crate::core::Progress;
use crate::options::NodeConfig;

/// A member whose last answer is older than so many heartbeats does not answer.
const FRESH_HEARTBEATS: u32 = 3;

/// `Err` with the reason, as a part of a sentence behind the node's name, if it may not.
pub(crate) fn may_take_over(progress: Progress, last: Option<LogIndex>, config: &NodeConfig) -> Result<(), String> {
    judge(progress, last, config.heartbeat_interval * FRESH_HEARTBEATS, config.promotion_lag_entries)
}

fn judge(progress: Progress, last: Option<LogIndex>, fresh: Duration, most: u64) -> Result<(), String> {
    if progress.last_answer.is_none_or(|age| age > fresh) {
        return Err("does not answer".to_owned());
    }
    let count = |index: Option<LogIndex>| index.map_or(0, |index| index.0 + 1);
    let lacks = count(last).saturating_sub(count(progress.matched));
    if lacks > most {
        return Err(format!("lacks {lacks} entries, and may lack {most}; wait until it has them"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_or_lacks_too_much_is_not_given_leadership() {
        let fresh = Duration::from_millis(300);
        let may = |answered: Option<u64>, matched: Option<u64>| {
            let progress =
                Progress { matched: matched.map(LogIndex), last_answer: answered.map(Duration::from_millis) };
            judge(progress, Some(LogIndex(1_000)), fresh, 256)
        };
        assert_eq!(may(Some(300), Some(744)), Ok(()));
        assert!(may(Some(301), Some(1_000)).unwrap_err().contains("does not answer"));
        assert!(may(None, Some(1_000)).unwrap_err().contains("does not answer"));
        assert!(may(Some(0), Some(743)).unwrap_err().contains("lacks 257 entries"));
        assert!(may(Some(0), None).unwrap_err().contains("lacks 1001 entries"));
        assert_eq!(
            judge(Progress { matched: None, last_answer: Some(fresh) }, Some(LogIndex(255)), fresh, 256),
            Ok(())
        );
    }
}
