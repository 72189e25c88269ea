//! `Kv.Scan`: a range as a stream of chunks.
//!
//! A chunk is copied out of the read transaction in a blocking task, which owns the transaction meanwhile and gives it
//! back; between two chunks nothing but the last key is remembered, so no slice of the map lives across an await. The
//! channel holds one chunk: a slow client holds its snapshot, a chunk or two, and no thread. A snapshot that is held
//! for too long is expired by the engine, and the stream ends with an error that says so.

use std::time::Duration;

use bytes::Bytes;
use calamus_engine::ReadTxn;
use calamus_engine::btree::{Cursor, ReadError};
use calamus_proto::v1::{Entry, ReadPoint, ScanRequest, ScanResponse};
use calamus_replication::Node;
use calamus_replication::error::{TxnError, reason};
use calamus_replication::execute::range::KeyRange;
use calamus_replication::execute::validate::{self, Limits};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::kv::{INLINE_BYTES, consistency};
use crate::status::of_txn_error;

/// About how many bytes of keys and values go into a message; one larger entry goes alone.
const CHUNK_BYTES: usize = 1 << 20;
/// A scan of no more entries than this begins at once, on the thread that serves the call: it copies there what is small
/// (see `kv::INLINE_BYTES`), and the rest as other scans do.
const INLINE_ENTRIES: u64 = 32;
/// How often a scan whose client takes no chunk looks whether its snapshot was expired: it must be dropped then, because
/// the engine waits for that.
const EXPIRY_LOOK: Duration = Duration::from_millis(100);
/// What an entry counts beside its key and value, in bytes.
const ENTRY_OVERHEAD_BYTES: usize = 16;

/// The answer to a scan.
pub type ScanStream = ReceiverStream<Result<ScanResponse, Status>>;

/// Begins a scan: takes its snapshot, and copies chunks as the client takes them.
pub async fn start(node: &Node, request: ScanRequest) -> Result<ScanStream, TxnError> {
    let consistency = consistency(request.consistency)?;
    check_tree_name(&request.tree)?;
    let seen = request.at_least.unwrap_or_default();
    let mut scan = Scan::new(request)?;
    let (txn, read_point) = node.read_at_least(consistency, seen).await?;
    if txn.tree(&scan.tree).map_err(|error| read_failed(&error))?.is_none() {
        return Err(no_such_tree(&scan.tree));
    }
    let (sender, receiver) = mpsc::channel(1);
    let mut read_point = Some(read_point);
    if scan.left.is_some_and(|left| left <= INLINE_ENTRIES) {
        let small = Chunk { most_bytes: INLINE_BYTES, larger_alone: false };
        let entries = scan.next_chunk(&txn, small).map_err(|error| read_failed(&error))?;
        // Nothing at all: the first entry is a large one.
        if scan.done || !entries.is_empty() {
            let first = ScanResponse { entries, read_point: read_point.take() };
            sender.try_send(Ok(first)).expect("the channel has room for one");
        }
    }
    if !scan.done {
        tokio::spawn(produce(scan, txn, read_point, sender));
    }
    Ok(ReceiverStream::new(receiver))
}

/// Copies chunk after chunk until the range ends, the client goes, or the snapshot is expired.
async fn produce(
    mut scan: Scan,
    mut txn: ReadTxn,
    mut read_point: Option<ReadPoint>,
    sender: mpsc::Sender<Result<ScanResponse, Status>>,
) {
    loop {
        let copied = tokio::task::spawn_blocking(move || {
            let entries = scan.next_chunk(&txn, CHUNK);
            (scan, txn, entries)
        });
        let Ok((its_scan, its_txn, entries)) = copied.await else {
            // The copy panicked, and the panic has been reported; the client must not take the range for complete.
            let lost = TxnError::not_committed(reason::STORAGE, "the scan broke off inside the node; see its log");
            let _ = sender.send(Err(of_txn_error(&lost))).await;
            return;
        };
        (scan, txn) = (its_scan, its_txn);
        let message = match entries {
            Ok(entries) => Ok(ScanResponse { entries, read_point: read_point.take() }),
            Err(error) => Err(of_txn_error(&read_failed(&error))),
        };
        if scan.done || message.is_err() {
            // The snapshot is not held for a client that takes its time over the last chunk.
            drop(txn);
            let _ = sender.send(message).await;
            return;
        }
        let expired = tokio::select! {
            room = sender.reserve() => {
                let Ok(room) = room else { return };
                room.send(message);
                false
            }
            () = until_expired(&txn) => true,
        };
        if expired {
            // What holds back the engine goes at once; the client learns of it when it takes the next chunk.
            drop(txn);
            let _ = sender.send(Err(of_txn_error(&read_failed(&ReadError::Expired)))).await;
            return;
        }
    }
}

async fn until_expired(txn: &ReadTxn) {
    while !txn.is_expired() {
        tokio::time::sleep(EXPIRY_LOOK).await;
    }
}

/// How much goes into a chunk.
#[derive(Clone, Copy)]
struct Chunk {
    /// Of keys, values and overhead.
    most_bytes: usize,
    /// Whether an entry that is larger goes alone, or is left for another chunk.
    larger_alone: bool,
}

/// A chunk as it is sent.
const CHUNK: Chunk = Chunk { most_bytes: CHUNK_BYTES, larger_alone: true };

/// A scan between two chunks.
struct Scan {
    tree: String,
    range: KeyRange,
    reverse: bool,
    keys_only: bool,
    /// How many entries may still be given; `None` for all.
    left: Option<u64>,
    /// The key that was given last.
    last: Option<Bytes>,
    done: bool,
}

impl Scan {
    fn new(request: ScanRequest) -> Result<Scan, TxnError> {
        let range = KeyRange::from_message(request.range.as_ref())
            .map_err(|(word, text)| TxnError::invalid(word, format!("the range to scan: {text}")))?;
        Ok(Scan {
            tree: request.tree,
            range,
            reverse: request.reverse,
            keys_only: request.keys_only,
            left: (request.limit > 0).then_some(request.limit),
            last: None,
            done: false,
        })
    }

    /// Copies the next chunk, and sets `done` with the last one.
    fn next_chunk(&mut self, txn: &ReadTxn, chunk: Chunk) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        self.done = true;
        let Some(mut cursor) = txn.cursor(&self.tree)? else { return Ok(entries) };
        let mut at_entry = self.seek(&mut cursor)?;
        while at_entry && self.range.contains(cursor.key()) && self.left != Some(0) {
            let value_bytes = if self.keys_only { 0 } else { cursor.value().len() };
            let size = cursor.key().len() + value_bytes + ENTRY_OVERHEAD_BYTES;
            if bytes + size > chunk.most_bytes && (bytes > 0 || !chunk.larger_alone) {
                self.done = false;
                break;
            }
            bytes += size;
            let value = if self.keys_only { Bytes::new() } else { cursor.value().to_vec()?.into() };
            entries.push(Entry { key: Bytes::copy_from_slice(cursor.key()), value, version: cursor.version().0 });
            self.left = self.left.map(|left| left - 1);
            at_entry = if self.reverse { cursor.previous()? } else { cursor.next()? };
        }
        if let Some(last) = entries.last() {
            self.last = Some(last.key.clone());
        }
        Ok(entries)
    }

    /// Goes to the first entry of the next chunk. `false` if there is none.
    fn seek(&self, cursor: &mut Cursor<'_, ReadTxn>) -> Result<bool, ReadError> {
        let given = self.last.as_deref();
        if !self.reverse {
            let from = given.unwrap_or(self.range.start());
            let found = if from.is_empty() { cursor.first()? } else { cursor.seek(from)? };
            return if found && given == Some(cursor.key()) { cursor.next() } else { Ok(found) };
        }
        // Backwards, both the end of the range and the last key given are excluded.
        match given.or(self.range.end()) {
            None => cursor.last(),
            Some(below) => {
                let found = cursor.seek_back(below)?;
                if found && cursor.key() == below { cursor.previous() } else { Ok(found) }
            }
        }
    }
}

/// Refuses what is no name of a client's tree.
pub fn check_tree_name(tree: &str) -> Result<(), TxnError> {
    validate::check_tree(tree).map(|_| ()).map_err(|(word, text)| TxnError::invalid(word, text))
}

/// Refuses what is no key.
pub fn check_key(key: &[u8]) -> Result<(), TxnError> {
    validate::check_key(key, &Limits::default()).map(|_| ()).map_err(|(word, text)| TxnError::invalid(word, text))
}

/// The tree that a read names is not there.
pub fn no_such_tree(tree: &str) -> TxnError {
    TxnError::invalid(
        reason::NO_SUCH_TREE,
        format!(
            "there is no tree {tree:?}; the first put into a tree makes it, and ListTrees shows those that are there"
        ),
    )
}

/// A read that failed: it has changed nothing.
pub fn read_failed(error: &ReadError) -> TxnError {
    match error {
        ReadError::Expired => TxnError::not_committed(
            reason::READER_EXPIRED,
            format!("the read was broken off: {error}; read again from the last key, with a lower limit"),
        ),
        ReadError::OtherKind(_) => TxnError::invalid(
            reason::TREE_KIND,
            "the tree has many values under a key, and is read by programs that embed the engine; nothing was read",
        ),
        other => TxnError::not_committed(
            reason::STORAGE,
            format!(
                "this node could not read its pages: {other}; ask another node, and run `calamus check` on this one"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use calamus_engine::Database;

    use super::*;

    /// Entries of these lengths, under the keys 0, 1, ...
    fn database(directory: &std::path::Path, lengths: &[usize]) -> Database {
        let database = Database::open(directory).unwrap();
        let put_all = |txn: &mut calamus_engine::Batch| {
            txn.create_tree("t")?;
            for (key, length) in lengths.iter().enumerate() {
                txn.put("t", &[key as u8], &vec![7; *length])?;
            }
            Ok(())
        };
        database.write(put_all).unwrap();
        database
    }

    #[test]
    fn what_is_large_is_left_for_a_chunk_that_is_copied_elsewhere() {
        let small = Chunk { most_bytes: INLINE_BYTES, larger_alone: false };
        for (lengths, at_once) in [([10, INLINE_BYTES, 10], 1), ([INLINE_BYTES, 10, 10], 0), ([10, 20, 30], 3)] {
            let temp = tempfile::tempdir().unwrap();
            let txn = database(temp.path(), &lengths).read();
            let request = ScanRequest { tree: "t".to_owned(), limit: 3, ..ScanRequest::default() };
            let mut scan = Scan::new(request).unwrap();
            assert_eq!(scan.next_chunk(&txn, small).unwrap().len(), at_once, "{lengths:?}");
            assert_eq!(scan.done, at_once == 3, "{lengths:?}");
            if !scan.done {
                let rest = scan.next_chunk(&txn, CHUNK).unwrap();
                let found: Vec<usize> = rest.iter().map(|entry| entry.value.len()).collect();
                assert_eq!(found, lengths[at_once..]);
                assert!(scan.done);
            }
        }
    }
}
