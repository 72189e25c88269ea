//! What clients were told, and whether the nodes keep to it.
//!
//! Every document is written under a key of its own, once, so the end of its transaction says what must be found:
//!
//! | the client was told | every node must hold |
//! | --- | --- |
//! | committed | the value, under the txn id that was told |
//! | not committed, and it was given up | nothing |
//! | unknown | the value or nothing |
//!
//! Beside the documents each client counts in a key of its own, with transactions that are never repeated after an
//! unknown outcome: the count must be at least what was acknowledged, and at most that plus what is unknown. So a
//! transaction that ran twice is found too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use calamus_client::{Client, Options, Txn, TxnError};
use calamus_proto::v1::Entry;
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_128;

use crate::wait::until;

/// The tree that the documents go to.
pub const DOCUMENTS: &str = "documents";
/// How many lines the real data set has.
const CITIES: usize = 34_006;
/// The tree of the clients' counters.
pub const COUNTERS: &str = "counters";
/// A client counts after so many documents.
const COUNT_EVERY: u64 = 4;
/// Longer than any failover takes, also on a slow machine.
const TXN_DEADLINE: Duration = Duration::from_secs(60);

/// What must be found under a key. Values are kept as hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Value { hash: u128, version: Option<u64> },
    Nothing,
    ValueOrNothing { hash: u128 },
}

/// A counter: adds that were acknowledged, and adds of which nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    acknowledged: i64,
    unknown: i64,
}

/// Everything that clients were told.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    documents: BTreeMap<Bytes, Expected>,
    counters: BTreeMap<Bytes, Count>,
}

impl Ledger {
    /// How many documents are acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.documents.values().filter(|expected| matches!(expected, Expected::Value { .. })).count()
    }

    /// Notes a document that was written and acknowledged outside of a load.
    pub fn note(&mut self, key: impl Into<Bytes>, value: &[u8], txn_id: u64) {
        let expected = Expected::Value { hash: xxh3_128(value), version: Some(txn_id) };
        self.documents.insert(key.into(), expected);
    }

    /// The trees that hold something of it.
    #[must_use]
    pub fn trees(&self) -> Vec<&'static str> {
        let holds = |expected: &Expected| matches!(expected, Expected::Value { .. });
        let documents = self.documents.values().any(holds).then_some(DOCUMENTS);
        let counters = self.counters.values().any(|count| count.acknowledged > 0).then_some(COUNTERS);
        documents.into_iter().chain(counters).collect()
    }

    /// Compares it with all entries of its trees as `node` has them.
    ///
    /// # Panics
    /// With the first acknowledged write that is missing or different, or entry that nobody wrote.
    pub fn compare(&self, node: &str, tree: &str, found: &[Entry]) {
        match tree {
            DOCUMENTS => self.compare_documents(node, found),
            COUNTERS => self.compare_counters(node, found),
            other => panic!("no ledger is kept of the tree {other}"),
        }
    }

    fn compare_documents(&self, node: &str, found: &[Entry]) {
        let entries: BTreeMap<&Bytes, &Entry> = found.iter().map(|entry| (&entry.key, entry)).collect();
        for (key, expected) in &self.documents {
            let entry = entries.get(key);
            let hash = entry.map(|entry| xxh3_128(&entry.value));
            let right = match *expected {
                Expected::Value { hash: wanted, version } => {
                    hash == Some(wanted) && version.is_none_or(|version| entry.is_some_and(|e| e.version == version))
                }
                Expected::Nothing => entry.is_none(),
                Expected::ValueOrNothing { hash: wanted } => hash.is_none_or(|hash| hash == wanted),
            };
            let held = entry.map(|entry| (entry.version, entry.value.len()));
            assert!(
                right,
                "{node}, key {key:?}: expected {expected:?}, found (version, bytes) {held:?}, hash {hash:?}"
            );
        }
        for entry in found {
            assert!(self.documents.contains_key(&entry.key), "{node} holds {:?}, which nobody wrote", entry.key);
        }
    }

    fn compare_counters(&self, node: &str, found: &[Entry]) {
        for (key, count) in &self.counters {
            let entry = found.iter().find(|entry| entry.key == *key);
            let value = entry
                .map_or(0, |entry| i64::from_le_bytes(entry.value.as_ref().try_into().expect("a counter has 8 bytes")));
            let allowed = count.acknowledged..=count.acknowledged + count.unknown;
            assert!(allowed.contains(&value), "{node}, counter {key:?}: {value} is not within {allowed:?}");
        }
    }
}

/// A document to write.
pub type Document = (Bytes, Bytes);

/// Lines of the real data set in `tests/data/cities.jsonl`: key and line.
///
/// # Panics
/// When the file is not there.
#[must_use]
pub fn cities(count: usize) -> Vec<Document> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/cities.jsonl");
    let text = std::fs::read_to_string(path).expect("the data set is part of the repository");
    let document = |line: &str| {
        let city: serde_json::Value = serde_json::from_str(line).expect("one JSON document a line");
        (Bytes::from(city["id"].to_string().trim_matches('"').to_owned()), Bytes::from(line.to_owned()))
    };
    let documents: Vec<Document> = text.lines().take(count).map(document).collect();
    assert_eq!(documents.len(), count, "the data set has fewer lines");
    documents
}

/// The same lines again and again, under keys of their own, without end: however fast a load is, it goes on.
pub fn endless_cities() -> impl Iterator<Item = Document> + Send + 'static {
    let documents = cities(CITIES).into_iter().cycle().zip(0_u64..);
    documents.map(|((key, line), number)| (format!("{number}-{}", key.escape_ascii()).into(), line))
}

/// Documents of 1 KiB to 4 MiB from a seed, without end.
pub fn documents(seed: u64) -> impl Iterator<Item = Document> + Send + 'static {
    calamus_drill::documents::Documents::new(seed).map(|document| (document.id.into(), document.bytes.into()))
}

/// Values of one size that do not compress, under keys with this prefix, without end.
pub fn values(prefix: &'static str, bytes: usize) -> impl Iterator<Item = Document> + Send + 'static {
    (0_u64..).map(move |number| (format!("{prefix}-{number:08}").into(), value(number, bytes)))
}

/// `bytes` bytes that depend on `number` and look random.
#[must_use]
pub fn value(number: u64, bytes: usize) -> Bytes {
    use rand::{RngCore, SeedableRng};
    let mut value = vec![0; bytes];
    rand::rngs::SmallRng::seed_from_u64(number).fill_bytes(&mut value);
    value.into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Shared {
    documents: Mutex<Box<dyn Iterator<Item = Document> + Send>>,
    ledger: Mutex<Ledger>,
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

/// Clients that write documents until there are no more, or they are told to stop.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts `clients` clients of the cluster at `addresses`, each with connections of its own.
    pub async fn begin(
        addresses: &[String],
        clients: usize,
        documents: impl IntoIterator<Item = Document, IntoIter: Send + 'static>,
    ) -> Self {
        let shared = Arc::new(Shared {
            documents: Mutex::new(Box::new(documents.into_iter())),
            ledger: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut running = JoinSet::new();
        for number in 0..clients {
            let client = Client::connect(addresses.to_vec(), Options { deadline: TXN_DEADLINE, ..Options::default() })
                .await
                .unwrap_or_else(|error| panic!("client {number} finds no cluster: {error}"));
            let client = LoadClient { name: format!("client-{number}").into(), client, shared: Arc::clone(&shared) };
            running.spawn(client.run());
        }
        Self { shared, clients: running }
    }

    /// Documents acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many documents are acknowledged in all.
    ///
    /// # Panics
    /// When the load ends before, or takes longer than `limit`.
    pub async fn reach(&mut self, acknowledged: u64, limit: Duration) {
        let what = format!("{acknowledged} acknowledged documents");
        until(&what, limit, async || {
            while let Some(ended) = self.clients.try_join_next() {
                ended.expect("a client of the load panicked");
            }
            let now = self.acknowledged();
            assert!(now >= acknowledged || !self.clients.is_empty(), "the load ended after {now} documents");
            (now >= acknowledged).then_some(())
        })
        .await;
    }

    /// Waits for so many more acknowledged documents.
    pub async fn progress(&mut self, more: u64, limit: Duration) {
        self.reach(self.acknowledged() + more, limit).await;
    }

    /// Lets the clients end what they are at, and no more.
    pub async fn stop(self, limit: Duration) -> Ledger {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.finish(limit).await
    }

    /// Waits until all documents are written.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    pub async fn finish(mut self, limit: Duration) -> Ledger {
        let all = async {
            while let Some(ended) = self.clients.join_next().await {
                ended.expect("a client of the load panicked");
            }
        };
        let ended = tokio::time::timeout(limit, all).await;
        assert!(ended.is_ok(), "the load did not finish: {} documents acknowledged", self.acknowledged());
        lock(&self.shared.ledger).clone()
    }
}

struct LoadClient {
    name: Bytes,
    client: Client,
    shared: Arc<Shared>,
}

impl LoadClient {
    async fn run(self) {
        let mut written = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let Some((key, value)) = lock(&self.shared.documents).next() else { return };
            let expected = self.write(&key, value, written % 2 == 0).await;
            lock(&self.shared.ledger).documents.insert(key, expected);
            if matches!(expected, Expected::Value { .. }) {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            written += 1;
            if written % COUNT_EVERY == 0 {
                self.count().await;
            }
        }
    }

    /// Writes a document. Half of them are said to be idempotent, so the client goes on after an unknown outcome; the
    /// txn id is then that of the last run.
    async fn write(&self, key: &Bytes, value: Bytes, idempotent: bool) -> Expected {
        let hash = xxh3_128(&value);
        loop {
            let txn = Txn::new().put(DOCUMENTS, key.clone(), value.clone());
            let txn = if idempotent { txn.idempotent() } else { txn };
            match self.client.txn(txn).await {
                Ok(done) => {
                    // An attempt of unknown outcome may yet be applied after the one that was acknowledged.
                    let version = (done.unknown_attempts == 0).then_some(done.txn_id);
                    return Expected::Value { hash, version };
                }
                Err(TxnError::Unknown(_)) => return Expected::ValueOrNothing { hash },
                // It says that it never will be: so it may be sent again, or given up.
                Err(TxnError::NotCommitted(_)) if self.shared.stop.load(Ordering::Relaxed) => return Expected::Nothing,
                Err(TxnError::NotCommitted(_)) => {}
            }
        }
    }

    async fn count(&self) {
        let ended = self.client.txn(Txn::new().add(COUNTERS, self.name.clone(), 1)).await;
        let mut ledger = lock(&self.shared.ledger);
        let count = ledger.counters.entry(self.name.clone()).or_default();
        match ended {
            Ok(_) => count.acknowledged += 1,
            Err(TxnError::Unknown(_)) => count.unknown += 1,
            Err(TxnError::NotCommitted(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &'static str, value: &'static [u8], version: u64) -> Entry {
        Entry { key: key.into(), value: value.into(), version }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.note("a", b"1", 7);
        ledger.documents.insert("b".into(), Expected::Nothing);
        ledger.documents.insert("c".into(), Expected::ValueOrNothing { hash: xxh3_128(b"3") });
        ledger.counters.insert("k".into(), Count { acknowledged: 2, unknown: 1 });
        ledger
    }

    #[test]
    fn what_was_promised_is_enough() {
        let ledger = ledger();
        ledger.compare("n", DOCUMENTS, &[entry("a", b"1", 7)]);
        ledger.compare("n", DOCUMENTS, &[entry("a", b"1", 7), entry("c", b"3", 9)]);
        ledger.compare("n", COUNTERS, &[entry("k", &[3, 0, 0, 0, 0, 0, 0, 0], 9)]);
    }

    #[test]
    fn anything_else_is_found() {
        let cases: [(&str, Vec<Entry>); 9] = [
            ("lost", vec![]),
            ("another value", vec![entry("a", b"2", 7)]),
            ("another txn id", vec![entry("a", b"1", 8)]),
            ("a refused write", vec![entry("a", b"1", 7), entry("b", b"2", 8)]),
            ("an unknown write with another value", vec![entry("a", b"1", 7), entry("c", b"4", 8)]),
            ("a key that nobody wrote", vec![entry("a", b"1", 7), entry("d", b"4", 8)]),
            ("a lost count", vec![entry("k", &[1, 0, 0, 0, 0, 0, 0, 0], 9)]),
            ("a count that ran twice", vec![entry("k", &[4, 0, 0, 0, 0, 0, 0, 0], 9)]),
            ("a lost counter", vec![]),
        ];
        for (place, (what, found)) in cases.into_iter().enumerate() {
            let tree = if place < 6 { DOCUMENTS } else { COUNTERS };
            let compared = std::panic::catch_unwind(|| ledger().compare("n", tree, &found));
            assert!(compared.is_err(), "not found: {what}");
        }
    }

    #[test]
    fn the_real_documents_have_keys_of_their_own() {
        let documents = cities(1_000);
        let keys: std::collections::BTreeSet<_> = documents.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), documents.len());
        assert!(documents.iter().all(|(_, line)| line.starts_with(b"{") && line.ends_with(b"}")));
    }
}
