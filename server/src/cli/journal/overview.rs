//! Segments, and where and how the journal ends.

use std::io::{self, Write};
use std::path::Path;

use calamus_engine::ids::LogId;
use calamus_engine::journal::{SegmentInfo, Survey};
use serde_json::{Value, json};

use super::super::table;

/// Prints it, as a table or as one document.
pub fn write(out: &mut impl Write, journal: &Path, found: &Survey, as_json: bool) -> io::Result<()> {
    if as_json {
        let document = serde_json::to_string_pretty(&document(journal, found)).expect("a value is always JSON");
        return writeln!(out, "{document}");
    }
    let mut segments = table::new(&["segment", "first", "last", "frames", "bytes", "epoch", "header"]);
    for segment in &found.segments {
        let (first, last) = segment.range.map_or(("-".into(), "-".into()), |(a, b)| (a.to_string(), b.to_string()));
        let epoch = segment.header.as_ref().map_or_else(|_| "-".into(), |header| header.epoch.to_string());
        let header = segment.header.as_ref().map_or_else(|what| what.as_str(), |_| "good");
        let (frames, bytes) = (segment.frames.to_string(), table::bytes(segment.bytes));
        segments.add_row([&segment.number.to_string(), &first, &last, &frames, &bytes, &epoch, header]);
    }
    writeln!(out, "{segments}")?;
    let bytes: u64 = found.spares.iter().map(|spare| spare.bytes).sum();
    writeln!(out, "spares: {}, {}", found.spares.len(), table::bytes(bytes))?;
    writeln!(out, "frames: {}, the last is {}", found.frames, log_id(found.last))?;
    writeln!(out, "end: {}", end(found))?;
    for damage in &found.damage {
        writeln!(out, "DAMAGE {}", damage.error())?;
    }
    if found.frames_behind_damage > 0 {
        writeln!(out, "behind the damage {} frames can be read", found.frames_behind_damage)?;
    }
    Ok(())
}

/// How the journal ends, in words.
fn end(found: &Survey) -> String {
    let (end, attested) = (found.end, found.attested);
    let mut words = format!("position {end}, ");
    if !found.damage.is_empty() {
        words += "where it is damaged";
    } else if attested >= end {
        words += "attested to the end: all of it was durable";
    } else {
        words += &format!("attested to {attested}: what is behind was written by one sync that may not have finished");
    }
    if found.unfinished_bytes > 0 {
        words += &format!("; behind it, {} bytes of a group that a crash left unfinished", found.unfinished_bytes);
    }
    words
}

fn log_id(at: Option<LogId>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

fn log_id_json(at: LogId) -> Value {
    json!({ "term": at.term.0, "index": at.index.0 })
}

fn segment(segment: &SegmentInfo) -> Value {
    let header = segment.header.as_ref();
    json!({
        "number": segment.number, "file": segment.file.display().to_string(), "bytes": segment.bytes,
        "frames": segment.frames, "first": segment.range.map(|range| log_id_json(range.0)),
        "last": segment.range.map(|range| log_id_json(range.1)),
        "epoch": header.ok().map(|header| header.epoch), "first_group": header.ok().map(|header| header.first_group),
        "previous": header.ok().and_then(|header| header.start.previous).map(log_id_json),
        "bad_header": header.err(),
    })
}

fn document(journal: &Path, found: &Survey) -> Value {
    let spare = |spare: &calamus_engine::journal::SpareInfo| json!({ "file": spare.file.display().to_string(), "bytes": spare.bytes });
    let damage = |damage: &calamus_engine::journal::Damage| json!({ "file": damage.file.display().to_string(), "offset": damage.offset, "index": damage.index.0, "what": damage.what });
    json!({
        "journal": journal.display().to_string(),
        "segments": found.segments.iter().map(segment).collect::<Vec<_>>(),
        "spares": found.spares.iter().map(spare).collect::<Vec<_>>(),
        "frames": found.frames, "last": found.last.map(log_id_json), "end": found.end.0, "attested": found.attested.0,
        "unfinished_bytes": found.unfinished_bytes, "highest_commit": found.commit.map(|index| index.0),
        "frames_behind_damage": found.frames_behind_damage,
        "damage": found.damage.iter().map(damage).collect::<Vec<_>>(),
    })
}
