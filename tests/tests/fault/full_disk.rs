//! Disks that are full, under a load: one node of three, the leader, a quorum. Nothing that was acknowledged is lost, what is
//! refused says why, and when there is space again everything goes on in the same processes.

use std::path::PathBuf;
use std::process::Command;

use calamus_client::{Client, Txn, TxnError, range};
use calamus_proto::v1::NodeStatus;
use calamus_tests::acknowledged::{Ledger, Load, value, values};
use calamus_tests::cluster::{Cluster, Setup};
use calamus_tests::wait::{LIMIT, share, until};

use super::{CLIENTS, LOAD_LIMIT, setup};

/// A tree that the load does not write.
const SCRATCH: &str = "scratch";
const VALUE_BYTES: usize = 50_000;

fn with_space(reserve_mib: u32, low_mib: u32, high_mib: u32) -> Setup {
    let setup = setup().flag("--reserve-mib", reserve_mib).flag("--retention-mib", 0);
    setup.flag("--space-low-mib", low_mib).flag("--space-high-mib", high_mib)
}

fn control(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.directory(node).with_extension("control")
}

/// A cluster whose disks do what [`fill`] and [`free`] say.
async fn begin(setup: Setup) -> Cluster {
    let mut cluster = Cluster::start(setup).await;
    for node in 0..cluster.len() {
        let control = control(&cluster, node);
        free(&cluster, node);
        cluster.set_environment(node, &[("CALAMUS_DISK_CONTROL", control.to_str().expect("UTF-8"))]);
        cluster.kill(node);
        cluster.restart(node);
        cluster.ready(node).await;
        let what = format!("the reserve of {} is taken", cluster.name(node));
        until(&what, LIMIT, async || cluster.status(node).await.filter(|status| status.reserve_bytes > 0)).await;
    }
    cluster
}

/// From now on files of the node find no space to grow.
fn fill(cluster: &Cluster, node: usize) {
    std::fs::write(control(cluster, node), "space_limit 0\n").expect("a file can be written");
}

fn free(cluster: &Cluster, node: usize) {
    std::fs::write(control(cluster, node), "").expect("a file can be written");
}

/// Kills a node and starts it again, on a disk that is full from the first moment on.
fn kill_on_a_full_disk(cluster: &mut Cluster, node: usize) {
    let control = control(cluster, node);
    let control = ("CALAMUS_DISK_CONTROL", control.to_str().expect("UTF-8"));
    cluster.set_environment(node, &[control, ("CALAMUS_DISK_SPACE_LIMIT", "0")]);
    cluster.kill(node);
    cluster.restart(node);
}

/// Waits until a node says that it is short of space.
async fn short(cluster: &mut Cluster, node: usize) -> NodeStatus {
    until("it says that it is short of space", LIMIT, async || {
        cluster.assert_running();
        cluster.status(node).await.filter(|status| status.space_level != "normal")
    })
    .await
}

fn index(position: Option<calamus_proto::v1::Position>) -> u64 {
    position.map_or(0, |at| at.index)
}

/// A full follower takes what it has room for and then nothing, not even across a kill, while the others go on; when it has
/// space, it catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower() {
    let mut cluster = begin(with_space(8, 1, 2)).await;
    let mut load = Load::begin(&cluster.addresses(), CLIENTS, values("value", VALUE_BYTES)).await;
    load.progress(50, LOAD_LIMIT).await;
    let full = cluster.follower().await;
    fill(&cluster, full);
    short(&mut cluster, full).await;
    until("it falls behind", LIMIT, async || {
        load.progress(10, LOAD_LIMIT).await;
        let leader = cluster.leader_other_than(full).await;
        let (ahead, behind) = (cluster.status(leader).await?, cluster.status(full).await?);
        (index(ahead.last_log) > index(behind.last_log) + 50).then_some(())
    })
    .await;
    kill_on_a_full_disk(&mut cluster, full);
    load.progress(share(100, 2_000), LOAD_LIMIT).await;
    let status = short(&mut cluster, full).await;
    assert!(!status.state.starts_with("stopped"), "{}", status.state);
    free(&cluster, full);
    cluster.ready(full).await;
    load.progress(10, LOAD_LIMIT).await;
    let ledger = load.stop(LOAD_LIMIT).await;
    cluster.close(&ledger).await;
}

/// A full leader is no leader for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader() {
    let mut cluster = begin(with_space(96, 16, 32)).await;
    let mut load = Load::begin(&cluster.addresses(), CLIENTS, values("value", 3_000)).await;
    load.progress(100, LOAD_LIMIT).await;
    let full = cluster.leader().await;
    fill(&cluster, full);
    cluster.leader_other_than(full).await;
    load.progress(100, LOAD_LIMIT).await;
    short(&mut cluster, full).await;
    free(&cluster, full);
    load.progress(10, LOAD_LIMIT).await;
    let ledger = load.stop(LOAD_LIMIT).await;
    cluster.close(&ledger).await;
}

async fn put(client: &Client, ledger: &mut Ledger, key: u64) -> Result<(), TxnError> {
    let value = value(key, VALUE_BYTES);
    let done =
        client.txn(Txn::new().put(calamus_tests::acknowledged::DOCUMENTS, key.to_string(), value.clone())).await?;
    ledger.note(key.to_string(), &value, done.txn_id);
    Ok(())
}

/// Waits until what grows is refused for want of space, as an answer that says all that a client needs.
async fn refused(client: &Client, ledger: &mut Ledger, next: &mut u64) {
    until("growth is refused for want of space", LIMIT, async || {
        *next += 1;
        match put(client, ledger, *next).await {
            // Not everybody has said yet that he is full.
            Ok(()) => None,
            Err(error) => {
                let failure = error.failure().clone();
                assert!(matches!(error, TxnError::NotCommitted(_)) && failure.reason == "disk_full", "{failure}");
                assert!(
                    failure.message.contains("short of space") && failure.message.contains("Free space"),
                    "{failure}"
                );
                Some(())
            }
        }
    })
    .await;
}

/// All three are full: growth is refused, reads and deletes go on, also after all of them were killed; space goes back to
/// those who delete; and when there is space from elsewhere, all goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_three() {
    let mut cluster = begin(with_space(96, 16, 32)).await;
    let client = cluster.client().await;
    let (mut ledger, mut next) = (Ledger::default(), 0);
    for key in 0..20_u64 {
        client.txn(Txn::new().put(SCRATCH, key.to_string(), value(key, VALUE_BYTES))).await.expect("there is space");
        put(&client, &mut ledger, 1_000_000 + key).await.expect("there is space");
    }
    for node in 0..cluster.len() {
        fill(&cluster, node);
    }
    for node in 0..cluster.len() {
        assert_eq!(short(&mut cluster, node).await.space_level, "deletes only");
    }
    refused(&client, &mut ledger, &mut next).await;
    for node in 0..cluster.len() {
        // A machine with much to do may lose its leader, and not only for lack of space.
        let read = until("reads go on", LIMIT, async || cluster.get_from(node, SCRATCH, b"7").await.ok()).await;
        assert!(read.entry.is_some());
    }
    let deleted = client.txn(Txn::new().delete(SCRATCH, "7")).await.expect("deletes go on");
    assert!(deleted.txn_id > 0);
    let status = Command::new(env!("CARGO_BIN_EXE_calamus-fault"))
        .args(["cluster", "status", "--endpoints", cluster.address(0)])
        .output()
        .expect("it runs");
    let table = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(table.matches("deletes only").count(), 3, "{table}");

    cluster.kill_all().await;
    for node in 0..cluster.len() {
        let control = control(&cluster, node);
        let control = ("CALAMUS_DISK_CONTROL", control.to_str().expect("UTF-8"));
        cluster.set_environment(node, &[control, ("CALAMUS_DISK_SPACE_LIMIT", "0")]);
        cluster.restart(node);
    }
    for node in 0..cluster.len() {
        cluster.ready(node).await;
    }
    refused(&client, &mut ledger, &mut next).await;
    client.txn(Txn::new().delete_range(SCRATCH, range::all())).await.expect("deletes go on");
    for node in 0..cluster.len() {
        let gone = until("reads go on", LIMIT, async || cluster.scan_from(node, SCRATCH).await.ok()).await;
        assert!(gone.is_empty());
    }

    for node in 0..cluster.len() {
        free(&cluster, node);
    }
    until("growth is taken again", LIMIT, async || {
        cluster.assert_running();
        next += 1;
        put(&client, &mut ledger, next).await.ok()
    })
    .await;
    for node in 0..cluster.len() {
        let what = format!("{} has its reserve again", cluster.name(node));
        until(&what, LIMIT, async || {
            let status = cluster.status(node).await?;
            (status.space_level == "normal" && status.reserve_bytes == 96 << 20).then_some(())
        })
        .await;
    }
    cluster.close(&ledger).await;
}
