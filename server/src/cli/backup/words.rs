//! Backups for people, and as JSON.

use calamus_proto::v1::{BackupInfo, BackupKind, ListBackupsResponse};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use crate::cli::table::{self, position};

/// A moment as RFC 3339 writes it, from microseconds since 1970.
#[must_use]
pub fn moment(micros: u64) -> String {
    let moment = i64::try_from(micros).ok().and_then(DateTime::from_timestamp_micros);
    moment
        .map_or_else(|| format!("{micros} us since 1970"), |moment| moment.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// Microseconds since 1970 of a moment as RFC 3339 writes it.
///
/// # Errors
/// When it is none, or one before 1970.
pub fn parse_moment(text: &str) -> Result<u64, String> {
    let moment = DateTime::parse_from_rfc3339(text).map_err(|error| {
        format!("{error}; a moment is written as 2026-11-26T22:22:54Z or 2026-11-26T23:22:54.5+01:00")
    })?;
    u64::try_from(moment.timestamp_micros()).map_err(|_| "there are no backups of before 1970".to_owned())
}

/// What a backup holds, in a word.
#[must_use]
pub fn kind(backup: &BackupInfo) -> &'static str {
    match backup.kind() {
        BackupKind::Full => "full",
        BackupKind::Incremental => "incremental",
        BackupKind::Unspecified => "unknown",
    }
}

/// One backup in a line.
#[must_use]
pub fn line(backup: &BackupInfo) -> String {
    format!(
        "{} backup {}: txn {}, as of {}, {} in {} parts",
        kind(backup),
        backup.id,
        backup.end_txn,
        moment(backup.as_of_micros),
        table::bytes(backup.stored_bytes),
        backup.parts
    )
}

/// Everything in a place, for people.
#[must_use]
pub fn list(found: &ListBackupsResponse) -> String {
    let mut rows = table::new(&["backup", "kind", "as of", "txn", "log", "pages", "frames", "bytes", "stored"]);
    for (number, backup) in found.chains.iter().flat_map(|chain| chain.backups.iter().enumerate()) {
        let growing = if backup.sealed { "" } else { ", grows" };
        rows.add_row([
            format!("{}{}", if number == 0 { "" } else { "  " }, backup.id),
            format!("{}{growing}", kind(backup)),
            moment(backup.as_of_micros),
            backup.end_txn.to_string(),
            position(backup.end.as_ref()),
            backup.pages.to_string(),
            backup.frames.to_string(),
            table::bytes(backup.raw_bytes),
            table::bytes(backup.stored_bytes),
        ]);
    }
    let mut text = if found.chains.is_empty() { "there is no backup\n".to_owned() } else { format!("{rows}\n") };
    for left in &found.leftovers {
        let what = if left.expired { "is being removed" } else { "was interrupted; the next full one goes on with it" };
        text += &format!("LEFT {} ({}) {what}\n", left.id, table::bytes(left.bytes));
    }
    for problem in &found.problems {
        text += &format!("PROBLEM {}: {}\n", problem.object, problem.what);
    }
    text
}

/// One backup as JSON.
#[must_use]
pub fn backup_json(backup: &BackupInfo) -> Value {
    let at =
        |at: &Option<calamus_proto::v1::Position>| at.as_ref().map(|at| json!({ "term": at.term, "index": at.index }));
    json!({
        "id": backup.id, "kind": kind(backup), "parent": Some(&backup.parent).filter(|parent| !parent.is_empty()),
        "sealed": backup.sealed, "database_id": backup.database_id, "cluster_id": backup.cluster_id,
        "timeline": backup.timeline, "start": at(&backup.start), "end": at(&backup.end), "end_txn": backup.end_txn,
        "end_time": moment(backup.end_wall_micros), "end_digest": backup.end_digest,
        "as_of": moment(backup.as_of_micros), "pages": backup.pages, "frames": backup.frames, "parts": backup.parts,
        "raw_bytes": backup.raw_bytes, "stored_bytes": backup.stored_bytes,
    })
}

/// What cannot be relied on, as JSON.
pub fn problem_json(id: &str, object: &str, what: &str) -> Value {
    json!({ "backup": id, "object": object, "what": what })
}

/// Everything in a place, as JSON.
#[must_use]
pub fn list_json(found: &ListBackupsResponse) -> Value {
    let chains = found.chains.iter().map(|chain| chain.backups.iter().map(backup_json).collect::<Vec<_>>());
    let leftovers =
        found.leftovers.iter().map(|left| json!({ "id": left.id, "bytes": left.bytes, "expired": left.expired }));
    let problems = found.problems.iter().map(|problem| problem_json(&problem.id, &problem.object, &problem.what));
    json!({
        "chains": chains.collect::<Vec<_>>(), "leftovers": leftovers.collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}

/// A document for a program.
#[must_use]
pub fn document(value: &Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(value).expect("a value is always JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_it_is_written() {
        let micros = 1_795_731_774_123_456;
        assert_eq!(moment(micros), "2026-11-26T22:22:54.123456Z");
        assert_eq!(parse_moment(&moment(micros)), Ok(micros));
        assert_eq!(parse_moment("2026-11-26T23:22:54.123456+01:00"), Ok(micros));
        for bad in ["", "2026-11-26", "yesterday", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }
}
