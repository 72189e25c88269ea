//! How a new leader finds out what its followers have.

use std::time::Duration;

use calamus_engine::ids::{LogId, LogIndex};
use tokio::runtime::Runtime;

use super::cluster::{TestNode, retry};
use super::rounds::leader_of_scripted;
use super::scripted::{Arrived, ScriptedPeer};
use crate::options::NodeConfig;

/// Enough that openraft's search takes several steps.
const ENTRIES: u64 = 200;

/// A leader of three with a long log starts again and is elected once more, by peers that say with their votes that they have
/// `said` entries, and have `entries`; waits until it leads. Returns what the first peer got since.
fn elected_again(said: u64, entries: u64) -> (Vec<Arrived>, LogId) {
    let root = tempfile::tempdir().expect("a temporary directory");
    // What was answered stays good while this machine does something else.
    let config = NodeConfig { heartbeat_interval: Duration::from_secs(20), ..NodeConfig::default() };
    let runtime = Runtime::new().expect("threads");
    let (mut node, peers) = leader_of_scripted(root.path(), config, &runtime);
    while last(&node).index.0 + 1 < ENTRIES {
        node.put("k", b"v").expect("it leads");
    }
    let arrived = |peer: &ScriptedPeer| peer.appends().len();
    retry("the peers were sent all", || {
        let has = |peer: &ScriptedPeer| peer.arrived(Arrived { last: Some(last(&node)), frames: 0 });
        peers.iter().all(has).then_some(())
    });
    let (before, term) = (arrived(&peers[0]), node.leading().expect("nobody else is elected"));
    for peer in &peers {
        peer.set_log(
            said.checked_sub(1).map(|index| node.engine().log_id(LogIndex(index)).expect("it is there")),
            entries,
        );
    }
    node.kill();
    node.restart();
    node.on(node.replica().core().raft.trigger().elect(false)).expect("it runs");
    let now = retry("it leads again", || node.leading());
    let end = last(&node);
    assert!(now > term && end.term == now);
    retry("both have all", || peers.iter().all(|peer| peer.entries() > end.index.0).then_some(()));
    (peers[0].appends().split_off(before), end)
}

fn last(node: &TestNode) -> LogId {
    node.engine().log_state().last.expect("it has its own first entry")
}

#[test]
fn a_peer_that_has_all_is_sent_the_first_entry_of_its_new_leader_at_once() {
    let (appends, end) = elected_again(ENTRIES, ENTRIES);
    // An append without frames may be a late one of its earlier life.
    let sent: Vec<_> = appends.into_iter().filter(|append| append.frames > 0).collect();
    assert_eq!(sent.first(), Some(&Arrived { last: Some(end), frames: 1 }), "{sent:?}");
    // Where the other peer was quicker, openraft's last step is sent, as it tells of the commit.
    let frames: usize = sent.iter().map(|append| append.frames).sum();
    assert!(frames <= 10, "{sent:?}");
}

#[test]
fn a_peer_is_sent_what_it_lacks_and_little_of_what_it_has() {
    let (appends, _) = elected_again(ENTRIES - 3, ENTRIES - 3);
    let frames: usize = appends.iter().map(|append| append.frames).sum();
    assert!((4..=16).contains(&frames), "{appends:?}");
}

/// What is said with a vote is a hint: the peer is asked, and what it lacks then is sent.
#[test]
fn a_peer_that_has_less_than_it_said_is_not_believed() {
    for entries in [0, 10, ENTRIES - 1] {
        elected_again(ENTRIES, entries);
    }
}

#[test]
fn a_peer_that_has_nothing_is_sent_all() {
    let (appends, end) = elected_again(0, 0);
    let frames: usize = appends.iter().map(|append| append.frames).sum();
    assert!(frames as u64 > end.index.0, "{appends:?}");
}
