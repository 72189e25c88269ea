//! Watches over failovers, a seeding and the death of all nodes: each committed change is told once and in order.
//!
//! What a watch tells is replayed into a map, which must be what the clients were told and what a scan shows, versions
//! included. The counters say more: each add raises one by 1, so a change that was missed or told twice is a step that is
//! not 1.

use std::collections::BTreeMap;

use bytes::Bytes;
use calamus_client::proto::Entry;
use calamus_client::proto::watch_change::Kind;
use calamus_client::{
    Client, Options, Position, ReadFrom, ScanOptions, Watch, WatchError, WatchEvent, WatchFrom, WatchOptions,
};
use calamus_tests::acknowledged::{COUNTERS, DOCUMENTS, Ledger, Load, values};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, share, until};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{CLIENTS, LOAD_LIMIT, setup};

/// How many documents are acknowledged between two faults.
const BETWEEN: u64 = 60;

/// How many failovers: `CALAMUS_WATCH_FAILOVERS` says it, else 4, and 20 in the long run.
fn failovers() -> usize {
    match std::env::var("CALAMUS_WATCH_FAILOVERS") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("CALAMUS_WATCH_FAILOVERS is {text:?}, and no number")),
        Err(_) => share(4, 20),
    }
}

/// What a watch has told.
#[derive(Default)]
struct Told {
    trees: BTreeMap<String, BTreeMap<Bytes, Entry>>,
    last_txn: u64,
    changes: u64,
}

impl Told {
    fn take(&mut self, txn: calamus_client::WatchedTxn) {
        assert!(txn.txn_id > self.last_txn, "txn {} behind txn {}", txn.txn_id, self.last_txn);
        self.last_txn = txn.txn_id;
        for (name, change) in txn.changes {
            self.changes += 1;
            match change.kind {
                Some(Kind::TreeCreated(_)) => {
                    assert!(self.trees.insert(name.clone(), BTreeMap::new()).is_none(), "{name} is made a second time");
                }
                Some(Kind::Put(put)) => {
                    let tree = self.trees.get_mut(&name).unwrap_or_else(|| panic!("{name} was never made"));
                    let entry = Entry { key: put.key.clone(), value: put.value, version: txn.txn_id };
                    let before = tree.insert(put.key, entry.clone());
                    if name == COUNTERS {
                        let count = |entry: &Entry| i64::from_le_bytes(entry.value[..].try_into().expect("8 bytes"));
                        assert_eq!(count(&entry), before.as_ref().map_or(0, count) + 1, "a step of {:?}", entry.key);
                    }
                }
                other => panic!("the load does no {other:?}"),
            }
        }
    }

    fn entries(&self, tree: &str) -> Vec<Entry> {
        self.trees.get(tree).map(|entries| entries.values().cloned().collect()).unwrap_or_default()
    }
}

/// A watch of all trees, in a task of its own.
struct Watching {
    until: watch::Sender<Option<u64>>,
    task: JoinHandle<(Told, Watch)>,
}

impl Watching {
    /// With a client of its own, as a new process has one.
    async fn begin(cluster: &Cluster, read_from: ReadFrom, from: WatchFrom, mut told: Told) -> Self {
        let options = Options { deadline: LOAD_LIMIT, read_from, ..Options::default() };
        let client = Client::connect(cluster.addresses(), options).await.expect("a node answers");
        let mut watch = client.watch("", WatchOptions { from, ..WatchOptions::default() });
        let (until, mut ends) = watch::channel(None);
        let run = async move {
            loop {
                let stands_at = watch.position().map_or(0, |position| position.txn_id);
                if ends.borrow_and_update().is_some_and(|end| stands_at >= end) {
                    return (told, watch);
                }
                tokio::select! {
                    event = watch.next_event() => {
                        if let WatchEvent::Txn(txn) = event.unwrap_or_else(|error| panic!("{error}")) {
                            told.take(txn);
                        }
                    }
                    _ = ends.changed() => {}
                }
            }
        };
        Self { until, task: tokio::spawn(run) }
    }

    /// Lets it come to this transaction, and no farther than it must. Returns where it stands, as text.
    async fn end(self, txn_id: u64) -> (Told, String) {
        self.until.send_replace(Some(txn_id));
        let ended = tokio::time::timeout(LOAD_LIMIT, self.task).await.expect("the watch comes to the end");
        let (told, watch) = ended.expect("the watch goes on to the end");
        (told, watch.position().expect("it has begun").to_string())
    }
}

/// What is committed now.
async fn committed(client: &Client) -> u64 {
    client.scan(COUNTERS, ScanOptions::default()).await.expect("a node answers").read_point().txn_id
}

fn assert_told(told: &Told, ledger: &Ledger, what: &str) {
    for tree in ledger.trees() {
        ledger.compare(what, tree, &told.entries(tree));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_is_told_once_and_in_order_over_failovers_a_seeding_and_the_death_of_all_nodes() {
    // So much is kept for the watches; a node without anything needs what is gone.
    let mut cluster = Cluster::start(setup().flag("--retention-mib", 16)).await;
    let client = cluster.client().await;
    let spread = Watching::begin(&cluster, ReadFrom::Spread, WatchFrom::Oldest, Told::default()).await;
    let of_leader = Watching::begin(&cluster, ReadFrom::Leader, WatchFrom::Oldest, Told::default()).await;
    let mut load = Load::begin(&cluster.addresses(), CLIENTS, values("value", 30_000)).await;
    load.reach(BETWEEN, LOAD_LIMIT).await;
    for _ in 0..failovers() {
        let leader = cluster.leader().await;
        cluster.kill(leader);
        cluster.leader_other_than(leader).await;
        load.progress(BETWEEN, LOAD_LIMIT).await;
        cluster.restart(leader);
        cluster.ready(leader).await;
    }
    // One that is filled anew, while it is watched or not.
    let (follower, host) = (cluster.follower().await, cluster.leader().await);
    cluster.wipe(follower);
    until("the journal's beginning is purged", LOAD_LIMIT, async || {
        load.progress(BETWEEN, LOAD_LIMIT).await;
        cluster.status(host).await?.purged
    })
    .await;
    cluster.rejoin(follower, host);
    cluster.ready(follower).await;
    cluster.voters().await;
    assert!(cluster.status_now(follower).await.generation > 1, "it was not seeded");
    load.progress(BETWEEN, LOAD_LIMIT).await;

    // Between the two halves all nodes die, and the client: what is told then comes from disk.
    let half = committed(&client).await;
    let (told, position) = spread.end(half).await;
    load.progress(BETWEEN, LOAD_LIMIT).await;
    cluster.kill_all().await;
    for node in 0..cluster.len() {
        cluster.restart(node);
    }
    let from = WatchFrom::After(position.parse::<Position>().expect("as it was written"));
    let spread = Watching::begin(&cluster, ReadFrom::Spread, from, told).await;
    load.progress(BETWEEN, LOAD_LIMIT).await;
    let ledger = load.stop(LOAD_LIMIT).await;

    let end = committed(&client).await;
    let ((spread, _), (of_leader, _)) = tokio::join!(spread.end(end), of_leader.end(end));
    assert!(spread.changes == of_leader.changes && spread.trees == of_leader.trees, "two watches, and two stories");
    assert_told(&spread, &ledger, "the watch");
    for tree in [DOCUMENTS, COUNTERS] {
        let scanned = cluster.scan_from(host, tree).await.expect("the node answers");
        assert!(scanned == spread.entries(tree), "{tree}: the watch tells another story than the scan");
    }
    assert!(spread.changes > BETWEEN * failovers() as u64, "{} changes show nothing", spread.changes);
    eprintln!("{} failovers: {} changes up to txn {}, told twice alike", failovers(), spread.changes, spread.last_txn);
    cluster.close(&ledger).await;
}

/// The journal is recycled in segments of 64 MiB: some hundred values.
const VALUE_BYTES: usize = 200_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_not_read_keeps_no_journal_and_says_who_may_still_hold_what_is_gone() {
    let setup = setup().flag("--retention-mib", 1);
    let cluster = Cluster::start(setup).await;
    let mut load = Load::begin(&cluster.addresses(), 4, values("value", VALUE_BYTES)).await;
    load.reach(10, LOAD_LIMIT).await;
    let client = cluster.client_with(Options { deadline: LIMIT, ..Options::default() }).await;
    let mut slow = client.watch("", WatchOptions { from: WatchFrom::Oldest, ..WatchOptions::default() });
    slow.next().await.expect("the first one is held");
    // It takes nothing more: what it has in its windows is all that it gets.
    let first = WatchOptions { from: WatchFrom::After(Position::after_txn(1)), ..WatchOptions::default() };
    until("no node holds the beginning", LOAD_LIMIT, async || {
        load.progress(40, LOAD_LIMIT).await;
        let held = client.watch("", first.clone()).next().await;
        matches!(held, Err(WatchError::NotHeld { .. })).then_some(())
    })
    .await;
    let ledger = load.stop(LOAD_LIMIT).await;
    let error = loop {
        if let Err(error) = slow.next_event().await {
            break error;
        }
    };
    match error {
        WatchError::NotHeld { position, oldest, asked, .. } => {
            assert!(position.txn_id < oldest.txn_id, "{position} is before {oldest}");
            assert_eq!(asked.len(), cluster.len(), "every node was asked: {asked:?}");
            let rest = WatchOptions { from: WatchFrom::After(Position::clone(&oldest)), ..WatchOptions::default() };
            let next = client.watch("", rest).next().await;
            assert!(next.is_ok_and(|txn| txn.txn_id > oldest.txn_id), "from there on it is held");
        }
        other => panic!("{other}"),
    }
    cluster.close(&ledger).await;
}
