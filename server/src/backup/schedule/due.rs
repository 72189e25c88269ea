//! Whether a backup is due, and whether it is this node's to make: the table of [`super`], as functions of what is known.

use std::time::Duration;

use calamus_proto::v1::RunKind;

use super::record::Record;
use super::{LEADER_PATIENCE, LEASE, RETRY};
use crate::settings::ScheduleSettings;

/// What a node knows of itself, and for how long it has seen what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) raft_id: u64,
    /// It leads, and there are other members.
    pub(super) leads_others: bool,
    /// For how long the record has not changed.
    pub(super) unchanged_for: Duration,
    /// For how long a backup has been due.
    pub(super) due_for: Duration,
}

/// Which backup is due at this moment, in microseconds since 1970. A full one goes first: it is one of the other kind, too.
pub(super) fn kind_due(schedule: ScheduleSettings, record: &Record, now_micros: u64) -> Option<RunKind> {
    let passed = |since: Option<u64>, every: Duration| {
        since.is_none_or(|since| Duration::from_micros(now_micros.saturating_sub(since)) >= every)
    };
    if !passed(Some(record.failed_micros).filter(|at| *at > 0), RETRY) {
        return None;
    }
    if schedule.full_every.is_some_and(|every| passed(record.full_micros, every)) {
        return Some(RunKind::Full);
    }
    schedule.incremental_every.is_some_and(|every| passed(record.success_micros, every)).then_some(RunKind::Incremental)
}

/// Whether a backup that is due is this node's to make.
pub(super) fn is_ours(record: &Record, standing: Standing) -> bool {
    match &record.running {
        Some(running) => running.raft_id == standing.raft_id || standing.unchanged_for >= LEASE,
        None => !standing.leads_others || standing.due_for >= LEADER_PATIENCE,
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Running;
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    fn schedule(full_hours: Option<u64>, incremental_hours: Option<u64>) -> ScheduleSettings {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        ScheduleSettings {
            full_every: full_hours.map(hours),
            incremental_every: incremental_hours.map(hours),
            bytes_per_second: None,
        }
    }

    #[test]
    fn a_full_one_goes_first_and_counts_for_the_other() {
        let both = schedule(Some(10), Some(1));
        let after = |full: u64, success: u64| Record {
            full_micros: Some(full * HOUR),
            success_micros: Some(success * HOUR),
            ..Record::default()
        };
        let cases = [
            (both, Record::default(), 0, Some(RunKind::Full)),
            (both, after(100, 100), 100, None),
            (both, after(100, 100), 101, Some(RunKind::Incremental)),
            (both, after(100, 109), 110, Some(RunKind::Full)),
            (both, after(100, 100), 90, None), // A clock that goes back.
            (schedule(None, Some(1)), Record::default(), 0, Some(RunKind::Incremental)),
            (schedule(Some(10), None), after(100, 100), 109, None),
            (schedule(Some(10), None), after(100, 100), 110, Some(RunKind::Full)),
        ];
        for (schedule, record, hour, due) in cases {
            assert_eq!(kind_due(schedule, &record, hour * HOUR), due, "{record:?} at {hour}");
        }
    }

    #[test]
    fn what_failed_is_tried_again_after_a_while() {
        let failed = Record { failed_micros: 100 * HOUR, ..Record::default() };
        let retry = u64::try_from(RETRY.as_micros()).unwrap();
        assert_eq!(kind_due(schedule(Some(1), None), &failed, 100 * HOUR + retry - 1), None);
        assert_eq!(kind_due(schedule(Some(1), None), &failed, 100 * HOUR + retry), Some(RunKind::Full));
    }

    #[test]
    fn whose_it_is() {
        let by = |raft_id| Record {
            running: Some(Running { raft_id, name: "x".to_owned(), renewed: 1 }),
            ..Record::default()
        };
        let nobody = Record::default();
        let [short, long] = [Duration::ZERO, LEASE];
        // The record, whether this node leads others, how long unchanged, how long due, whose it is.
        let cases = [
            (&nobody, false, short, short, true),
            (&nobody, true, short, short, false),
            (&nobody, true, short, LEADER_PATIENCE, true),
            (&by(7), false, short, short, true),
            (&by(7), true, short, short, true),
            (&by(8), false, short, long, false),
            (&by(8), true, short, long, false),
            (&by(8), false, long, short, true),
            (&by(8), true, long, long, true),
        ];
        for (record, leads_others, unchanged_for, due_for, ours) in cases {
            let standing = Standing { raft_id: 7, leads_others, unchanged_for, due_for };
            assert_eq!(is_ours(record, standing), ours, "{record:?} {standing:?}");
        }
    }
}
