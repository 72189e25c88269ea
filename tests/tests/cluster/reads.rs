//! Reads on nodes that do not lead: linearizable, and local ones that wait for what their reader has seen.

use std::time::Duration;

use calamus_client::{Client, Options, ReadAs, ReadFrom, SeenTxn};
use calamus_tests::acknowledged::{DOCUMENTS, Ledger};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, until};
use tonic::Code;

use super::setup;

/// The leader's `Kv` is shut and its peers' service is open: a follower answers gets from its own pages, having asked the
/// leader for nothing but a read index; each sees the write before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_reads_while_the_service_of_the_leader_is_shut() {
    let mut cluster = Cluster::start(setup()).await;
    let shut = cluster.follower().await;
    cluster.terminate(shut, rustix::process::Signal::TERM).await;
    cluster.set_environment(shut, &[("CALAMUS_PLANTED_KV", "shut")]);
    cluster.restart(shut);
    cluster.ready(shut).await;
    cluster.lead(shut).await;
    let refused = cluster.get_from(shut, DOCUMENTS, b"key").await.expect_err("it is shut");
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");

    let followers = cluster.others(shut);
    let mut ledger = Ledger::default();
    for number in 0..50_u32 {
        let (key, value) = (format!("key-{number}"), number.to_string());
        let via = followers[number as usize % 2];
        let txn_id = cluster.put_to(via, DOCUMENTS, &key, value.clone().into()).await.expect("a follower forwards");
        for node in &followers {
            let read = cluster.get_from(*node, DOCUMENTS, key.as_bytes()).await.expect("a follower answers");
            assert_eq!(read.entry.expect("written before").value, value);
            assert_eq!(read.read_point.expect("a read says where it stood").node, cluster.name(*node));
        }
        ledger.note(key, value.as_bytes(), txn_id);
    }
    assert_eq!(cluster.leader().await, shut, "the leader was the shut one all the time");

    cluster.terminate(shut, rustix::process::Signal::TERM).await;
    cluster.set_environment(shut, &[]);
    cluster.restart(shut);
    cluster.close(&ledger).await;
}

/// Who writes through one node reads it from any other, locally, without a miss; and a number that nobody was given, or of
/// a database that this one is not, is refused by any node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_read_shows_what_its_reader_has_written() {
    let cluster = Cluster::start(setup()).await;
    let writer = cluster.client().await;
    let mut readers = Vec::new();
    for address in cluster.addresses() {
        let options = Options { read_from: ReadFrom::Endpoints, ..Options::default() };
        readers.push(Client::connect([address], options).await.expect("it answers"));
    }
    let mut ledger = Ledger::default();
    for number in 0..60 {
        let (key, value) = (format!("key {number}"), format!("value {number}"));
        let done = writer.put(DOCUMENTS, key.clone(), value.clone()).await.expect("committed");
        ledger.note(key.clone(), value.as_bytes(), done.txn_id);
        let mut seen = done.seen();
        for reader in &readers {
            let got = reader.get_with(DOCUMENTS, key.clone(), ReadAs::local().at_least(seen)).await.expect("applied");
            assert_eq!(got.entry.expect("its own write").value, value);
            let point = got.read_point.expect("every read has one");
            assert!(point.txn_id >= seen.txn_id && point.timeline == done.timeline, "{point:?} for {seen:?}");
            seen = (&point).into();
        }
    }
    let last = writer
        .get_with(DOCUMENTS, "key 0", ReadAs::linearizable())
        .await
        .expect("read")
        .read_point
        .expect("it has one");
    let strangers = [
        (SeenTxn { timeline: last.timeline + 1, ..(&last).into() }, "other_timeline"),
        (SeenTxn { txn_id: last.txn_id + 1_000, ..(&last).into() }, "no_such_txn"),
    ];
    for (seen, reason) in strangers {
        let read = ReadAs::linearizable().at_least(seen);
        for reader in &readers {
            assert_eq!(reader.get_with(DOCUMENTS, "key 0", read).await.expect_err("not here").0.reason, reason);
        }
    }
    let strange = ReadAs::local().at_least(strangers[0].0);
    assert_eq!(
        readers[1].get_with(DOCUMENTS, "key 0", strange).await.expect_err("not here").0.reason,
        "other_timeline"
    );
    cluster.close(&ledger).await;
}

/// A node that hears of no leader goes on telling what it has, and says how old that may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_read_of_a_node_that_is_alone_grows_old() {
    let mut cluster = Cluster::start(setup()).await;
    let writer = cluster.client().await;
    let done = writer.put(DOCUMENTS, "key", "value").await.expect("committed");
    let mut ledger = Ledger::default();
    ledger.note("key".to_owned(), b"value", done.txn_id);
    let alone = cluster.follower().await;
    let options = Options { read_from: ReadFrom::Endpoints, ..Options::default() };
    let reader = Client::connect([cluster.address(alone).to_owned()], options).await.expect("it answers");
    let age = async || {
        let read = ReadAs::local().at_least(done.seen());
        let got = reader.get_with(DOCUMENTS, "key", read).await.expect("a local read asks nobody");
        assert_eq!(got.entry.expect("it was applied").value, "value");
        Duration::from_micros(got.read_point.expect("every read has one").age_micros)
    };
    // A heartbeat has come within the longest election timeout: without one it would stand for election.
    until("it has heard of the leader", LIMIT, async || (age().await < Duration::from_secs(1)).then_some(())).await;
    let left = std::time::Instant::now();
    for node in cluster.others(alone) {
        cluster.terminate(node, rustix::process::Signal::TERM).await;
    }
    let (grown, found) = until("what it shows is old", LIMIT, async || {
        let age = age().await;
        (age > Duration::from_secs(2)).then_some((left.elapsed(), age))
    })
    .await;
    assert!(found < grown + Duration::from_secs(2), "{found:?} old, {grown:?} after the others began to end");
    for node in cluster.others(alone) {
        cluster.restart(node);
    }
    until("it hears of a leader again", LIMIT, async || (age().await < Duration::from_secs(1)).then_some(())).await;
    cluster.close(&ledger).await;
}
