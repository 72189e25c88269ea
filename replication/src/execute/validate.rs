//! What can be refused of a transaction without looking at any tree. It runs where the client called, before the
//! transaction waits for the merger, and again nowhere: the merger takes what passed for granted.
//!
//! | limit | value |
//! | --- | --- |
//! | key, prefix of a range | 1 to 2 KiB; the prefix of a put under the next number leaves 8 bytes for the number |
//! | value | 8 MiB |
//! | all of a transaction | 16 MiB |
//! | tree name | 1 to 255 bytes of UTF-8; names that begin with `$` are the system's |
//! | entries of a scan in a transaction | 1,000 |
//! | sequence of a session | from the lowest that is unanswered to 255 above |

use calamus_engine::btree::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::session_operation::Kind as SessionKind;
use calamus_proto::v1::{Guard, Operation, SessionOperation, TxnRequest, guard, version_compare};

use super::range::KeyRange;
use super::text::{key_text, kind_name};
use crate::error::{TxnError, reason};
use crate::sessions;

/// The longest tree name, in bytes.
pub const MAX_TREE_NAME_BYTES: usize = 255;
/// The most entries that a scan in a transaction returns.
pub const MAX_SCAN_ENTRIES: u32 = 1000;
/// The bytes of the number that a put under the next number appends to its prefix.
pub const NUMBER_BYTES: usize = 8;
/// What a guard or an operation is counted as beside its key, value and tree, in bytes.
const OVERHEAD_BYTES: usize = 64;

/// What a transaction may be at most. They can be configured downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A key, in bytes.
    pub key_bytes: usize,
    /// A value, in bytes.
    pub value_bytes: usize,
    /// A transaction: keys, values and tree names with a fixed addition for each guard and operation, in bytes.
    pub txn_bytes: usize,
    /// All that a transaction returns, in bytes; what it reads, and a little for each operation.
    pub result_bytes: usize,
    /// Whether trees whose names begin with `$` may be named: in transactions of the nodes themselves.
    pub system_trees: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: MAX_KEY_BYTES,
            value_bytes: MAX_VALUE_BYTES,
            txn_bytes: 16 << 20,
            result_bytes: 16 << 20,
            system_trees: false,
        }
    }
}

/// A stable word, and what is wrong with a part of a request.
type Fault = (&'static str, String);

/// Checks a request; returns its weight in bytes.
pub fn validate(request: &TxnRequest, limits: &Limits) -> Result<usize, TxnError> {
    let mut bytes = 0;
    for (at, guard) in request.guards.iter().enumerate() {
        bytes += check_guard(guard, limits)
            .map_err(|(word, text)| TxnError::invalid(word, format!("guard {at}: {text}; nothing was changed")))?;
    }
    for (list, operations) in [("operation", &request.operations), ("otherwise", &request.otherwise)] {
        for (at, operation) in operations.iter().enumerate() {
            bytes += check_operation(operation, limits).map_err(|(word, text)| {
                let name = kind_name(operation);
                TxnError::invalid(word, format!("{list} {at} ({name}): {text}; nothing was changed"))
            })?;
        }
    }
    if let Some(session) = &request.session {
        sessions::is_valid(session).map_err(|text| TxnError::invalid(reason::BAD_SEQUENCE, text))?;
    }
    if bytes > limits.txn_bytes {
        let limit = limits.txn_bytes;
        return Err(TxnError::invalid(
            reason::TXN_TOO_LARGE,
            format!("the transaction has {bytes} bytes and the limit is {limit}; split it; nothing was changed"),
        ));
    }
    Ok(bytes)
}

fn check_guard(guard: &Guard, limits: &Limits) -> Result<usize, Fault> {
    check_name(&guard.tree, limits)?;
    check_key(&guard.key, limits)?;
    let value_bytes = match &guard.condition {
        None => {
            return Err((reason::BAD_GUARD, "it has no condition; give exists, value_equals or version".to_owned()));
        }
        Some(guard::Condition::Exists(_)) => 0,
        Some(guard::Condition::ValueEquals(value)) => check_value(value, limits)?,
        Some(guard::Condition::Version(compare)) => {
            match version_compare::Operator::try_from(compare.operator) {
                Ok(version_compare::Operator::Unspecified) | Err(_) => {
                    let text = format!("it compares by operator {}, which is none; use 1 to 4", compare.operator);
                    return Err((reason::BAD_GUARD, text));
                }
                Ok(_) => {}
            }
            0
        }
    };
    Ok(OVERHEAD_BYTES + guard.tree.len() + guard.key.len() + value_bytes)
}

fn check_operation(operation: &Operation, limits: &Limits) -> Result<usize, Fault> {
    let bytes = match &operation.kind {
        None => {
            return Err((reason::BAD_OPERATION, "it has no kind, or one that this version does not know".to_owned()));
        }
        Some(Kind::Put(put)) => {
            check_name(&put.tree, limits)? + check_key(&put.key, limits)? + check_value(&put.value, limits)?
        }
        Some(Kind::Delete(delete)) => check_name(&delete.tree, limits)? + check_key(&delete.key, limits)?,
        Some(Kind::DeleteRange(delete)) => {
            let range = KeyRange::from_message(delete.range.as_ref())?;
            check_name(&delete.tree, limits)? + range.start().len() + range.end().map_or(0, <[u8]>::len)
        }
        Some(Kind::Get(get)) => check_name(&get.tree, limits)? + check_key(&get.key, limits)?,
        Some(Kind::Scan(scan)) => {
            if scan.limit > MAX_SCAN_ENTRIES {
                let text = format!(
                    "its limit of {} is more than {MAX_SCAN_ENTRIES}, the most in a transaction; take a lower one",
                    scan.limit
                );
                return Err((reason::BAD_OPERATION, text));
            }
            let range = KeyRange::from_message(scan.range.as_ref())?;
            check_name(&scan.tree, limits)? + range.start().len() + range.end().map_or(0, <[u8]>::len)
        }
        Some(Kind::Add(add)) => check_name(&add.tree, limits)? + check_key(&add.key, limits)?,
        Some(Kind::PutNext(put)) => {
            check_name(&put.tree, limits)? + check_prefix(&put.prefix, limits)? + check_value(&put.value, limits)?
        }
        Some(Kind::CreateTree(create)) => check_name(&create.tree, limits)?,
        Some(Kind::DropTree(drop)) => check_name(&drop.tree, limits)?,
        Some(Kind::Session(operation)) => check_session(operation, limits)?,
        Some(Kind::RenameTree(rename)) => {
            if rename.tree == rename.new_name {
                return Err((reason::BAD_OPERATION, "the new name is the old one; give another".to_owned()));
            }
            check_name(&rename.tree, limits)? + check_name(&rename.new_name, limits)?
        }
    };
    Ok(OVERHEAD_BYTES + bytes)
}

/// An operation on sessions comes from a node, which has made it of a call.
fn check_session(operation: &SessionOperation, limits: &Limits) -> Result<usize, Fault> {
    match &operation.kind {
        Some(SessionKind::Resolve(resolve)) if limits.system_trees => {
            let named = resolve.transaction.unwrap_or_default();
            sessions::is_valid(&named).map_err(|text| (reason::BAD_SEQUENCE, text))?;
            Ok(0)
        }
        Some(SessionKind::Open(_) | SessionKind::Close(_)) if limits.system_trees => Ok(0),
        _ => {
            let text = "sessions are opened, closed and resolved by calls of their own, not by operations";
            Err((reason::BAD_OPERATION, text.to_owned()))
        }
    }
}

/// Whether clients may use this name of a tree; returns its length in bytes.
pub fn check_tree(name: &str) -> Result<usize, Fault> {
    check_name(name, &Limits::default())
}

fn check_name(name: &str, limits: &Limits) -> Result<usize, Fault> {
    if name.is_empty() {
        return Err((reason::BAD_TREE_NAME, "the tree name is empty; give one".to_owned()));
    }
    if name.len() > MAX_TREE_NAME_BYTES {
        let text = format!(
            "the tree name {} has {} bytes, at most {MAX_TREE_NAME_BYTES} are allowed; shorten it",
            key_text(name.as_bytes()),
            name.len()
        );
        return Err((reason::BAD_TREE_NAME, text));
    }
    if name.starts_with('$') && !limits.system_trees {
        let text = format!("the tree {name:?} is the system's, as all names that begin with $; use another name");
        return Err((reason::SYSTEM_TREE, text));
    }
    Ok(name.len())
}

/// Whether these bytes can be a key; returns their number.
pub fn check_key(key: &[u8], limits: &Limits) -> Result<usize, Fault> {
    if key.is_empty() {
        return Err((reason::KEY_EMPTY, "the key is empty; a key has at least 1 byte".to_owned()));
    }
    if key.len() > limits.key_bytes {
        let text = format!(
            "the key {} has {} bytes, at most {} are allowed; shorten it",
            key_text(key),
            key.len(),
            limits.key_bytes
        );
        return Err((reason::KEY_TOO_LONG, text));
    }
    Ok(key.len())
}

fn check_prefix(prefix: &[u8], limits: &Limits) -> Result<usize, Fault> {
    if prefix.len() + NUMBER_BYTES > limits.key_bytes {
        let text = format!(
            "the prefix {} has {} bytes, at most {} are allowed before the number; shorten it",
            key_text(prefix),
            prefix.len(),
            limits.key_bytes.saturating_sub(NUMBER_BYTES)
        );
        return Err((reason::KEY_TOO_LONG, text));
    }
    Ok(prefix.len() + NUMBER_BYTES)
}

fn check_value(value: &[u8], limits: &Limits) -> Result<usize, Fault> {
    if value.len() > limits.value_bytes {
        let text = format!(
            "the value has {} bytes, at most {} are allowed; split it over several keys",
            value.len(),
            limits.value_bytes
        );
        return Err((reason::VALUE_TOO_LARGE, text));
    }
    Ok(value.len())
}
