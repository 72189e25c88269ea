//! The operations of a transaction, each on the state that the ones before it left.
//!
//! An unknown tree: `put`, `add` and `put_next` make it (`put` unless told otherwise), `create_tree` and `drop_tree`
//! say whether they changed something, all others are refused.

use bytes::Bytes;
use calamus_engine::btree::Value;
use calamus_engine::txn::Batch;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::operation_result::Kind as ResultKind;
use calamus_proto::v1::{
    Add, AddResult, Delete, DeleteRange, DeleteRangeResult, DeleteResult, Entry, GetOperation, GetResult, Operation,
    OperationResult, Put, PutNext, PutNextResult, PutResult, RenameTree, ScanOperation, ScanResult, TreeResult,
};

use super::fault::{Fault, from_batch};
use super::range::KeyRange;
use super::text::{key_text, kind_name};
use super::validate::{MAX_SCAN_ENTRIES, NUMBER_BYTES};
use crate::error::reason;

/// What each result takes in the answer at most, beside the entries and keys in it, in bytes.
pub(super) const RESULT_BYTES: usize = 16;
/// What an entry or a key in a result takes beside its key and value, in bytes: at most, too.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 32;
/// The most keys that the puts under next numbers of a transaction pass over.
const MAX_PASSED_OVER: usize = 10_000;

/// What a transaction may still return and look at.
///
/// An answer must fit a message, and that is known only when the transaction has run: so every result is counted while
/// it runs, those of writes too. One that returned too much after it was committed could never be told of it.
pub(super) struct Budget {
    /// Bytes of the answer.
    left: usize,
    limit: usize,
    passed_over: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { left: limit, limit, passed_over: 0 }
    }

    pub(super) fn taken(&self) -> usize {
        self.limit - self.left
    }

    /// An entry, or a key.
    fn take_entry(&mut self, bytes: usize) -> Result<(), Fault> {
        self.take(bytes + ENTRY_OVERHEAD_BYTES)
    }

    fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Fault::new(
                reason::RESULT_TOO_LARGE,
                format!("the transaction's results take more than {} bytes; read less, or split it", self.limit),
            )),
        }
    }

    /// A key that is not the one that was looked for.
    fn pass_over(&mut self, prefix: &[u8]) -> Result<(), Fault> {
        self.passed_over += 1;
        if self.passed_over <= MAX_PASSED_OVER {
            return Ok(());
        }
        let text = format!(
            "more than {MAX_PASSED_OVER} keys with the prefix {} are shorter or longer than a numbered one, and stand \
             between its numbers; number under a prefix that nothing else uses",
            key_text(prefix)
        );
        Err(Fault::new(reason::BAD_OPERATION, text))
    }
}

/// Runs a list of operations; `list` is what errors call it.
///
/// Behind others in a batch, the transaction is given up as soon as the record might not hold all of them: it has a batch
/// of its own before it. There, nothing but memory stops it, and the end of the batch finds out how large its record is.
pub(super) fn run_all(
    batch: &mut Batch,
    list: &str,
    operations: &[Operation],
    budget: &mut Budget,
) -> Result<Vec<OperationResult>, Fault> {
    let alone = batch.is_empty();
    let mut results = Vec::with_capacity(operations.len());
    for (at, operation) in operations.iter().enumerate() {
        let kind = budget
            .take(RESULT_BYTES)
            .and_then(|()| run(batch, operation, budget))
            .map_err(|fault| fault.at_operation(list, at, kind_name(operation)))?;
        if !alone {
            batch.check_record_bound().map_err(from_batch)?;
        }
        results.push(OperationResult { kind: Some(kind) });
    }
    Ok(results)
}

fn run(batch: &mut Batch, operation: &Operation, budget: &mut Budget) -> Result<ResultKind, Fault> {
    match operation.kind.as_ref().expect("validated") {
        Kind::Put(operation) => put(batch, operation),
        Kind::Delete(operation) => delete(batch, operation),
        Kind::DeleteRange(operation) => delete_range(batch, operation),
        Kind::Get(operation) => get(batch, operation, budget),
        Kind::Scan(operation) => scan(batch, operation, budget),
        Kind::Add(operation) => add(batch, operation),
        Kind::PutNext(operation) => put_next(batch, operation, budget),
        Kind::CreateTree(operation) => batch.create_tree(&operation.tree).map(tree_result).map_err(from_batch),
        Kind::DropTree(operation) => batch.drop_tree(&operation.tree).map(tree_result).map_err(from_batch),
        Kind::RenameTree(operation) => rename_tree(batch, operation),
        Kind::Session(_) => {
            let text = "an operation on sessions stands alone in its transaction";
            Err(Fault::new(reason::BAD_OPERATION, text))
        }
    }
}

fn tree_result(changed: bool) -> ResultKind {
    ResultKind::Tree(TreeResult { changed })
}

fn no_such_tree(tree: &str) -> Fault {
    Fault::new(reason::NO_SUCH_TREE, format!("there is no tree named {tree:?}; create it, or put something into it"))
}

fn need_tree(batch: &Batch, tree: &str) -> Result<(), Fault> {
    if batch.tree_exists(tree).map_err(from_batch)? { Ok(()) } else { Err(no_such_tree(tree)) }
}

fn put(batch: &mut Batch, put: &Put) -> Result<ResultKind, Fault> {
    if put.tree_must_exist {
        need_tree(batch, &put.tree)?;
    } else {
        batch.create_tree(&put.tree).map_err(from_batch)?;
    }
    let previous = batch.put(&put.tree, &put.key, &put.value).map_err(from_batch)?;
    Ok(ResultKind::Put(PutResult { previous_version: previous.map_or(0, |version| version.0) }))
}

fn delete(batch: &mut Batch, delete: &Delete) -> Result<ResultKind, Fault> {
    need_tree(batch, &delete.tree)?;
    let previous = batch.delete(&delete.tree, &delete.key).map_err(from_batch)?;
    Ok(ResultKind::Delete(DeleteResult { previous_version: previous.map_or(0, |version| version.0) }))
}

fn delete_range(batch: &mut Batch, delete: &DeleteRange) -> Result<ResultKind, Fault> {
    need_tree(batch, &delete.tree)?;
    let range = KeyRange::from_message(delete.range.as_ref()).expect("validated");
    if range.is_empty() {
        return Ok(ResultKind::DeleteRange(DeleteRangeResult { deleted: 0 }));
    }
    let (start, end) = range.bounds();
    let deleted = batch.delete_range(&delete.tree, start, end).map_err(from_batch)?;
    Ok(ResultKind::DeleteRange(DeleteRangeResult { deleted }))
}

fn to_bytes(value: &Value<'_>) -> Result<Bytes, Fault> {
    value.to_vec().map(Bytes::from).map_err(|error| from_batch(error.into()))
}

fn get(batch: &Batch, get: &GetOperation, budget: &mut Budget) -> Result<ResultKind, Fault> {
    let Some(entry) = batch.get(&get.tree, &get.key).map_err(from_batch)? else {
        need_tree(batch, &get.tree)?;
        return Ok(ResultKind::Get(GetResult { entry: None }));
    };
    budget.take_entry(get.key.len() + entry.value.len())?;
    let value = to_bytes(&entry.value)?;
    let entry = Entry { key: get.key.clone(), value, version: entry.version.0 };
    Ok(ResultKind::Get(GetResult { entry: Some(entry) }))
}

fn scan(batch: &Batch, scan: &ScanOperation, budget: &mut Budget) -> Result<ResultKind, Fault> {
    let range = KeyRange::from_message(scan.range.as_ref()).expect("validated");
    let limit = if scan.limit == 0 { MAX_SCAN_ENTRIES } else { scan.limit } as usize;
    let read = |error: calamus_engine::btree::ReadError| from_batch(error.into());
    let Some(mut cursor) = batch.cursor(&scan.tree).map_err(from_batch)? else {
        return Err(no_such_tree(&scan.tree));
    };
    let mut entries = Vec::new();
    let mut at_entry = match (scan.reverse, range.end()) {
        (false, _) => cursor.seek(range.start()).map_err(read)?,
        (true, None) => cursor.last().map_err(read)?,
        (true, Some(end)) => {
            // The end itself lies outside.
            let found = cursor.seek_back(end).map_err(read)?;
            if found && cursor.key() == end { cursor.previous().map_err(read)? } else { found }
        }
    };
    let mut more = false;
    while at_entry && range.contains(cursor.key()) {
        if entries.len() == limit {
            more = true;
            break;
        }
        let value = cursor.value();
        budget.take_entry(cursor.key().len() + value.len())?;
        entries.push(Entry {
            key: Bytes::copy_from_slice(cursor.key()),
            value: to_bytes(&value)?,
            version: cursor.version().0,
        });
        at_entry = if scan.reverse { cursor.previous() } else { cursor.next() }.map_err(read)?;
    }
    Ok(ResultKind::Scan(ScanResult { entries, more }))
}

fn add(batch: &mut Batch, add: &Add) -> Result<ResultKind, Fault> {
    batch.create_tree(&add.tree).map_err(from_batch)?;
    let current = match batch.get(&add.tree, &add.key).map_err(from_batch)? {
        None => 0,
        Some(entry) => {
            let bytes = if entry.value.len() == 8 { to_bytes(&entry.value)? } else { Bytes::new() };
            let Some(bytes) = bytes.first_chunk::<8>() else {
                let text = format!(
                    "the value of {} has {} bytes and an integer has 8; add to integers only",
                    key_text(&add.key),
                    entry.value.len()
                );
                return Err(Fault::new(reason::NOT_AN_INTEGER, text));
            };
            i64::from_le_bytes(*bytes)
        }
    };
    let Some(value) = current.checked_add(add.amount) else {
        let text = format!(
            "{current} plus {} at {} leaves the range of signed 64-bit integers; add less",
            add.amount,
            key_text(&add.key)
        );
        return Err(Fault::new(reason::OVERFLOW, text));
    };
    batch.put(&add.tree, &add.key, &value.to_le_bytes()).map_err(from_batch)?;
    Ok(ResultKind::Add(AddResult { value }))
}

fn put_next(batch: &mut Batch, put: &PutNext, budget: &mut Budget) -> Result<ResultKind, Fault> {
    budget.take_entry(put.prefix.len() + NUMBER_BYTES)?;
    batch.create_tree(&put.tree).map_err(from_batch)?;
    let Some(number) = last_number(batch, put, budget)?.checked_add(1) else {
        let text = format!("the numbers under the prefix {} are used up; take another", key_text(&put.prefix));
        return Err(Fault::new(reason::OVERFLOW, text));
    };
    let key = numbered(&put.prefix, number);
    batch.put(&put.tree, &key, &put.value).map_err(from_batch)?;
    Ok(ResultKind::PutNext(PutNextResult { key, number }))
}

fn numbered(prefix: &[u8], number: u64) -> Bytes {
    let mut key = Vec::with_capacity(prefix.len() + NUMBER_BYTES);
    key.extend_from_slice(prefix);
    key.extend_from_slice(&number.to_be_bytes());
    Bytes::from(key)
}

/// The highest number under the prefix; 0 if there is none. Keys with the prefix that are shorter or longer than a
/// numbered one are passed over, longer ones a number at a time. There is no way around them in a tree that is ordered
/// by bytes, so their number is bounded.
fn last_number(batch: &Batch, put: &PutNext, budget: &mut Budget) -> Result<u64, Fault> {
    let read = |error: calamus_engine::btree::ReadError| from_batch(error.into());
    let length = put.prefix.len() + NUMBER_BYTES;
    let Some(mut cursor) = batch.cursor(&put.tree).map_err(from_batch)? else { return Ok(0) };
    let mut found = cursor.seek_back(&numbered(&put.prefix, u64::MAX)).map_err(read)?;
    while found && cursor.key().starts_with(&put.prefix) {
        let key = cursor.key();
        if key.len() == length {
            let digits = key[put.prefix.len()..].try_into().expect("8 bytes");
            return Ok(u64::from_be_bytes(digits));
        }
        budget.pass_over(&put.prefix)?;
        found = if key.len() > length {
            let numbered = key[..length].to_vec();
            cursor.seek_back(&numbered).map_err(read)?
        } else {
            cursor.previous().map_err(read)?
        };
    }
    Ok(0)
}

fn rename_tree(batch: &mut Batch, rename: &RenameTree) -> Result<ResultKind, Fault> {
    if batch.rename_tree(&rename.tree, &rename.new_name).map_err(from_batch)? {
        return Ok(tree_result(true));
    }
    Err(no_such_tree(&rename.tree))
}
