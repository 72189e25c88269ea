//! What a quorum round takes for an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use futures::poll;
use openraft::ReadPolicy;
use tokio::runtime::Runtime;

#[cfg(feature = "mutants")]
use super::cluster::PATIENCE;
use super::cluster::{TestNode, retry};
use super::scripted::{Arrived, ScriptedPeer};
use crate::options::NodeConfig;
use crate::test_requests::{put, txn};
use crate::types::{Membership, NodeInfo};

/// A leader of three whose other members are scripted, and live as long as `runtime`.
pub(super) fn leader_of_scripted(
    root: &std::path::Path,
    config: NodeConfig,
    runtime: &Runtime,
) -> (TestNode, [ScriptedPeer; 2]) {
    // Nobody else stands for election, and no lease runs out, while the script runs.
    let election_timeout = Duration::from_secs(60)..Duration::from_secs(120);
    let node = TestNode::create(root, "n1", 101, &NodeConfig { election_timeout, ..config });
    let peers = runtime.block_on(async { [ScriptedPeer::start().await, ScriptedPeer::start().await] });
    let addresses = [&node.identity.advertise, &peers[0].address, &peers[1].address];
    let nodes: BTreeMap<u64, NodeInfo> = (101..)
        .zip(addresses)
        .map(|(id, address)| {
            (id, NodeInfo { name: format!("n{}", id - 100), address: address.clone(), ..NodeInfo::default() })
        })
        .collect();
    let voters: BTreeSet<u64> = nodes.keys().copied().collect();
    let membership = Membership::new(vec![voters], nodes).expect("all are nodes");
    node.on(node.replica().core().initialize(&membership)).expect("an empty log");
    retry("it leads", || node.leading());
    (node, peers)
}

#[test]
fn an_answer_to_what_was_sent_before_a_read_began_does_not_confirm_it() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let runtime = Runtime::new().expect("threads");
    let (node, [first, second]) = leader_of_scripted(root.path(), NodeConfig::default(), &runtime);
    let core = node.replica().core();
    first.hold();
    second.hold();
    let before = node.engine().log_state().last;
    let client = node.node().clone();
    drop(node.spawn(async move { client.txn(txn(vec![put("t", "k", "v")])).await }));
    let last = retry("it is in the log", || node.engine().log_state().last.filter(|last| Some(*last) != before));
    let append = Arrived { last: Some(last), frames: 1 };
    retry("both have it", || (first.arrived(append) && second.arrived(append)).then_some(()));

    // Both reads begin here: the core has their questions before it hears of any answer.
    let mut read = Box::pin(core.lead_read_index(None));
    let mut openrafts = Box::pin(core.raft.get_read_linearizer(ReadPolicy::ReadIndex));
    node.on(async {
        assert!(poll!(&mut read).is_pending());
        assert!(poll!(&mut openrafts).is_pending());
    });
    // The first peer's old answer commits the entry; the second is told so by an append without frames, and only then
    // its old answer arrives.
    first.let_appends_to(append);
    retry("it is committed", || node.get("k"));
    let commit = Arrived { last: Some(last), frames: 0 };
    retry("the second is told", || second.arrived(commit).then_some(()));
    second.let_appends_to(append);
    let fooled = node.on(&mut openrafts).is_ok();
    assert!(fooled, "openraft does not take the one answer for the other any more: our own round may go");
    assert!(node.on(async { (&mut read).now_or_never() }).is_none(), "nobody has answered anything since it began");
    // An answer to a question of after the read began does.
    second.let_heartbeats();
    assert_eq!(node.on(read), Ok(before.expect("its own first entry")));
}

/// In the script above nothing is said before somebody has answered; a leader that asks nobody says it in silence.
#[cfg(feature = "mutants")]
#[test]
fn a_planted_read_index_without_a_quorum_is_found() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let mutants = crate::options::Mutants { read_index_without_quorum: true, ..Default::default() };
    let config = NodeConfig { mutants, ..NodeConfig::default() };
    let runtime = Runtime::new().expect("threads");
    let (node, [first, second]) = leader_of_scripted(root.path(), config, &runtime);
    first.hold();
    second.hold();
    let core = node.replica().core();
    let read = node.on(async { tokio::time::timeout(PATIENCE, core.lead_read_index(None)).await });
    assert!(matches!(read, Ok(Ok(_))), "the planted fault has no effect, so the test above proves nothing: {read:?}");
}
