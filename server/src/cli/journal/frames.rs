//! Frames, one a line, and what their transactions did.

use std::io::{self, Write};

use calamus_engine::ids::JournalPosition;
use calamus_engine::journal::frame::{Frame, FrameKind};
use calamus_engine::journal::frame_hash;
use calamus_engine::txn::ops::{OperationKind, OperationView, ValueAt};
use calamus_engine::txn::record::Record;
use serde_json::{Value, json};

use super::super::table;

/// How to print.
pub struct Lines {
    /// The operations, too.
    pub operations: bool,
    /// JSON lines.
    pub json: bool,
}

impl Lines {
    /// The names of the columns.
    pub fn head(&self, out: &mut impl Write) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        writeln!(
            out,
            "{:>16} {:<10} {:>14} {:>10} {:>12} {:>15} {:>6} {:<16} {:<16}",
            "LOG ID", "KIND", "POSITION", "BYTES", "COMMITTED", "TXNS", "PAGES", "CHAIN", "HASH"
        )
    }

    /// A frame.
    pub fn frame(&self, out: &mut impl Write, frame: &Frame, position: JournalPosition) -> io::Result<()> {
        let record = (frame.kind() == FrameKind::Record).then(|| Record::decode(frame.payload().bytes()));
        if self.json {
            return writeln!(
                out,
                "{}",
                self.document(frame, position, record.as_ref().and_then(|it| it.as_ref().ok()))
            );
        }
        let committed = frame.commit().map_or_else(|| "-".to_owned(), |index| index.to_string());
        let (txns, pages) = match &record {
            Some(Ok(record)) => {
                let (first, last) = (record.header.first_txn, record.header.last_txn);
                let txns = if first == last { first.to_string() } else { format!("{first}-{last}") };
                (txns, (record.full.len() + record.diffs.len()).to_string())
            }
            _ => ("-".to_owned(), "-".to_owned()),
        };
        writeln!(
            out,
            "{:>16} {:<10} {:>14} {:>10} {committed:>12} {txns:>15} {pages:>6} {:016x} {:016x}",
            frame.log_id().to_string(),
            kind_word(frame.kind()),
            position.0,
            frame.frame_bytes(),
            frame.chain(),
            frame_hash(frame)
        )?;
        match &record {
            Some(Ok(record)) if self.operations => {
                record.operations.iter().try_for_each(|operation| writeln!(out, "{}", words(record, operation)))
            }
            Some(Err(error)) => writeln!(out, "    {error}"),
            _ => Ok(()),
        }
    }

    fn document(&self, frame: &Frame, position: JournalPosition, record: Option<&Record>) -> Value {
        let mut line = json!({
            "term": frame.log_id().term.0, "index": frame.log_id().index.0, "kind": kind_word(frame.kind()),
            "position": position.0, "bytes": frame.frame_bytes(), "committed": frame.commit().map(|index| index.0),
            "chain": format!("{:016x}", frame.chain()), "hash": format!("{:016x}", frame_hash(frame)),
        });
        let Some(record) = record else { return line };
        let header = &record.header;
        line["record"] = json!({
            "first_txn": header.first_txn.0, "last_txn": header.last_txn.0, "builds_on": header.builds_on.0,
            "timeline": header.timeline.0, "wall_time_micros": header.wall_time_micros,
            "digest": header.digest.to_string(), "freed_runs": record.freed.len(), "full_images": record.full.len(),
            "diffs": record.diffs.len(), "operations": record.operations.len(),
        });
        if self.operations {
            let operation = |it: &OperationView| {
                json!({
                    "txn": header.first_txn.0 + u64::from(it.txn), "kind": operation_word(it.kind),
                    "tree": record.trees[usize::from(it.tree)], "key": hex(&it.key), "value_bytes": value_bytes(it),
                })
            };
            line["operations"] = record.operations.iter().map(operation).collect();
        }
        line
    }
}

fn kind_word(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Blank => "blank",
        FrameKind::Membership => "membership",
        FrameKind::Record => "record",
    }
}

/// `DeleteRange` as `delete range`.
fn operation_word(kind: OperationKind) -> String {
    let mut word = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push(' ');
        }
        word.extend(letter.to_lowercase());
    }
    word
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value_bytes(operation: &OperationView) -> Option<u64> {
    match &operation.value {
        ValueAt::None => None,
        ValueAt::Inline(bytes) => Some(bytes.len() as u64),
        ValueAt::Span(_, length) | ValueAt::Run(_, length) => Some(u64::from(*length)),
    }
}

fn words(record: &Record, operation: &OperationView) -> String {
    let txn = record.header.first_txn.0 + u64::from(operation.txn);
    let tree = &record.trees[usize::from(operation.tree)];
    let mut line = format!("    txn {txn}: {} {tree:?}", operation_word(operation.kind));
    if !operation.key.is_empty() {
        line += &format!(" \"{}\"", operation.key.escape_ascii());
    }
    match (operation.kind, &operation.value) {
        (OperationKind::RenameTree, ValueAt::Inline(name)) => line += &format!(" to \"{}\"", name.escape_ascii()),
        _ => {
            if let Some(bytes) = value_bytes(operation) {
                line += &format!(" {}", table::bytes(bytes));
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_named_by_their_words() {
        assert_eq!(operation_word(OperationKind::Put), "put");
        assert_eq!(operation_word(OperationKind::DeleteRange), "delete range");
    }
}
