//! A history as JSON lines, so that one that was found bad can be kept, and checked again.
//!
//! The first line says what follows: `{"calamus_history":1,"kind":"keys"}`, or `"transactions"`. Then one operation a line,
//! in the order of their beginnings. Moments are nanoseconds.
//!
//! ```text
//! {"client":3,"invoked":1200,"ended":1900,"call":{"key":7,"action":{"write":41}},"outcome":{"ok":"done"}}
//! {"client":1,"invoked":2000,"ended":null,"call":{"key":7,"action":"delete"},"outcome":"unknown"}
//! ```

use std::collections::HashSet;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Call, History, KeyHistory, MalformedOperation, Operation, TransactionHistory};

/// The version of the format.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    calamus_history: u32,
    kind: String,
}

/// A history of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyHistory {
    /// Operations on single keys.
    Keys(KeyHistory),
    /// Transactions on lists.
    Transactions(TransactionHistory),
}

/// Why a history could not be read.
#[derive(Debug, Error)]
pub enum ReadHistoryError {
    /// The file could not be read.
    #[error("the history could not be read")]
    Io(#[from] io::Error),
    /// Another file, or another version of the format.
    #[error(
        "line 1 does not say what this is ({found:?}): expected {{\"calamus_history\":{FORMAT},\"kind\":KIND}} with the kind \"keys\" or \"transactions\"; give a history that a drill has kept"
    )]
    Header { found: String },
    /// A line that is not an operation.
    #[error("line {line} is no operation of this history: {source}")]
    Syntax { line: usize, source: serde_json::Error },
    /// A line that says two things at once.
    #[error("line {line} is malformed: {source}")]
    Malformed { line: usize, source: MalformedOperation },
    /// Two things at one moment.
    #[error("line {line} has a moment that an earlier line has, too ({nanoseconds} ns): real-time order is lost")]
    SameMoment { line: usize, nanoseconds: u64 },
}

/// Writes a history.
///
/// # Errors
/// Those of the writer.
pub fn write<C: Call>(history: &History<C>, mut to: impl Write) -> io::Result<()> {
    let header = Header { calamus_history: FORMAT, kind: C::KIND.to_string() };
    serde_json::to_writer(&mut to, &header)?;
    to.write_all(b"\n")?;
    for operation in history.operations() {
        serde_json::to_writer(&mut to, operation)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

/// Reads a history of either kind.
///
/// # Errors
/// Names the line that is not as it must be.
pub fn read(mut from: impl BufRead) -> Result<AnyHistory, ReadHistoryError> {
    let mut first = String::new();
    from.read_line(&mut first)?;
    let kind = match serde_json::from_str::<Header>(&first) {
        Ok(header) if header.calamus_history == FORMAT => header.kind,
        _ => return Err(ReadHistoryError::Header { found: shortened(&first) }),
    };
    match kind.as_str() {
        super::KeyCall::KIND => Ok(AnyHistory::Keys(operations(from)?)),
        super::TransactionCall::KIND => Ok(AnyHistory::Transactions(operations(from)?)),
        _ => Err(ReadHistoryError::Header { found: shortened(&first) }),
    }
}

fn operations<C: Call>(from: impl BufRead) -> Result<History<C>, ReadHistoryError> {
    let mut operations: Vec<Operation<C>> = Vec::new();
    let mut moments = HashSet::new();
    for (number, text) in from.lines().enumerate() {
        // The header is line 1.
        let (line, text) = (number + 2, text?);
        let operation: Operation<C> =
            serde_json::from_str(&text).map_err(|source| ReadHistoryError::Syntax { line, source })?;
        operation.validate().map_err(|source| ReadHistoryError::Malformed { line, source })?;
        for moment in [Some(operation.invoked), operation.ended].into_iter().flatten() {
            if !moments.insert(moment) {
                return Err(ReadHistoryError::SameMoment { line, nanoseconds: moment.0 });
            }
        }
        operations.push(operation);
    }
    Ok(History::new(operations))
}

fn shortened(line: &str) -> String {
    line.trim_end().chars().take(80).collect()
}
