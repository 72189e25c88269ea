//! A node that joins is filled by a follower; another goes on when that one is killed.

use calamus_tests::acknowledged::{Load, values};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, share, until};

use super::{LOAD_LIMIT, setup};

const WRITERS: usize = 4;
const VALUE_BYTES: usize = 30_000;

/// Waits until `node` has half of what it is filled with. Returns the name of its source.
async fn half_has_come(cluster: &mut Cluster, node: usize) -> String {
    until("half of the pages have come", LIMIT, async || {
        cluster.assert_running();
        let status = cluster.status(node).await?;
        assert_eq!(status.generation, 1, "it is filled already: too fast for this test");
        let seeding = status.seeding?;
        (seeding.total_bytes > 0 && seeding.received_bytes > seeding.total_bytes / 2).then_some(seeding.from)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_of_a_joining_node_is_killed_half_way() {
    let setup = setup().flag("--retention-mib", 16).flag("--seed-mib-s", 8);
    let mut cluster = Cluster::start(setup).await;
    let mut load = Load::begin(&cluster.addresses(), WRITERS, values("value", VALUE_BYTES)).await;
    load.reach(share(1_200, 8_000), LOAD_LIMIT).await;
    let leader = cluster.leader().await;
    until("the journal's beginning is purged", LIMIT, async || {
        load.progress(1, LIMIT).await;
        cluster.status(leader).await?.purged
    })
    .await;
    let source = cluster.others(leader)[0];
    let wish = format!("node:{}", cluster.name(source));
    let joins = cluster.grow(leader, &["--seed-from", &wish]);
    assert_eq!(half_has_come(&mut cluster, joins).await, cluster.name(source), "the operator's choice");
    cluster.kill(source);
    until("another one goes on", LIMIT, async || {
        let status = cluster.status(joins).await?;
        let from = status.seeding.map(|seeding| seeding.from);
        (status.generation > 1 || from.is_some_and(|from| from != cluster.name(source))).then_some(())
    })
    .await;
    load.progress(50, LOAD_LIMIT).await;
    cluster.restart(source);
    cluster.voters().await;
    let ledger = load.stop(LOAD_LIMIT).await;
    let status = cluster.status_now(joins).await;
    assert!(status.generation > 1, "it was not seeded");
    assert_eq!(status.seedings_begun, 1, "pages were sent twice");
    assert!(status.seedings_resumed > 0, "nobody went on where it was cut");
    assert!(!cluster.directory(joins).join("seed-from").exists(), "the wish was fulfilled");
    cluster.close(&ledger).await;
}
