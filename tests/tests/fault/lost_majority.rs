//! A majority that is lost for good: what is left becomes a new cluster, and says what may be missing.

use std::path::Path;
use std::process::Command;

use calamus_tests::acknowledged::{DOCUMENTS, Ledger};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, until};
use serde_json::Value;

use super::setup;

/// Runs `calamus cluster recover`; its exit code and its answer, or what it says on stderr.
fn recover(directories: &[&Path], accepts: Option<&str>) -> (i32, Result<Value, String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calamus-fault"));
    command.args(["cluster", "recover", "--json"]);
    for directory in directories {
        command.arg("--dir").arg(directory);
    }
    if let Some(id) = accepts {
        command.args(["--i-accept-loss", id]);
    }
    let output = command.output().expect("it runs");
    let answer = serde_json::from_slice(&output.stdout);
    (output.status.code().expect("it ends"), answer.map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned()))
}

async fn put(cluster: &Cluster, node: usize, key: &str) -> u64 {
    let written = || cluster.put_to(node, DOCUMENTS, key, format!("value of {key}").into());
    until("a write is taken", LIMIT, async || written().await.ok()).await
}

/// Two of three go with their directories, and with them what only they had acknowledged. The third knows nothing of that,
/// says so, and leads a new cluster that two new nodes join.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_as_a_new_cluster_when_the_others_are_lost() {
    let mut cluster = Cluster::start(setup()).await;
    let leader = cluster.leader().await;
    let (second, left) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    let mut ledger = Ledger::default();
    let mut last = 0;
    for number in 0..40 {
        let key = format!("key {number}");
        last = put(&cluster, leader, &key).await;
        ledger.note(key.clone(), format!("value of {key}").as_bytes(), last);
    }
    until("all have applied it", LIMIT, async || (cluster.status(left).await?.applied_txn == last).then_some(())).await;
    let before = cluster.status_now(left).await;
    cluster.process(left).freeze().await.expect("it stops");
    let lost = put(&cluster, leader, "acknowledged by those that are lost").await;
    assert!(lost > last);
    cluster.kill(left);
    cluster.wipe(leader);
    cluster.kill(second);

    // Of the two that could be chosen from, the one that has more is, in whichever order they are named.
    let directories = [cluster.directory(left).to_path_buf(), cluster.directory(second).to_path_buf()];
    for order in [[&*directories[0], &*directories[1]], [&*directories[1], &*directories[0]]] {
        let (code, answer) = recover(&order, None);
        let answer = answer.expect("an answer");
        assert_eq!((code, answer["chosen"].as_str()), (4, directories[1].to_str()), "{answer}");
    }
    cluster.wipe(second);

    let directory = &*directories[0];
    let (code, answer) = recover(&[directory], None);
    let answer = answer.expect("an answer");
    assert_eq!((code, &answer["recovered"]), (4, &Value::Null), "{answer}");
    assert_eq!(answer["directories"][0]["last_txn"], last, "{answer}");
    let cluster_id = answer["cluster_id"].as_str().expect("it has one").to_owned();
    assert_eq!(cluster_id, before.cluster_id);
    let (code, refusal) = recover(&[directory], Some("yes"));
    assert!(code == 1 && refusal.expect_err("no answer").contains("nothing was done"));

    let (code, answer) = recover(&[directory], Some(&cluster_id));
    let answer = answer.expect("an answer");
    assert_eq!(code, 0, "{answer}");
    let (code, again) = recover(&[directory], Some(&cluster_id));
    assert!(code == 1 && again.expect_err("no answer").contains("nothing was done"), "it is another cluster now");

    cluster.restart(left);
    cluster.ready(left).await;
    let after = cluster.status_now(left).await;
    assert!(after.cluster_id != before.cluster_id && after.raft_id != before.raft_id, "{after:?}");
    assert_eq!(after.cluster_id, answer["recovered"]["cluster_id"]);
    for node in [leader, second] {
        cluster.rejoin(node, left);
        cluster.ready(node).await;
    }
    cluster.voters().await;
    let read = cluster.get_from(left, DOCUMENTS, b"acknowledged by those that are lost").await.expect("it reads");
    assert!(read.entry.is_none(), "nobody could have it");
    let key = "after";
    ledger.note(key.to_owned(), format!("value of {key}").as_bytes(), put(&cluster, leader, key).await);
    cluster.close(&ledger).await;
}
