//! The orderly end: freeze, come to the same state, followers first, the leader last.
//!
//! With hand-over off and the leader last nobody stands for election meanwhile, so no entry is written by the end
//! itself, and the data files of all nodes end equal, byte for byte.

use std::time::Duration;

use calamus_proto::v1::{FreezeRequest, NodeStatus, Role};
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::by_hand;
use super::child::Children;
use super::event::{Event, Printer};
use super::layout::Layout;
use super::watch::{Answer, Watch};
use crate::failure::Failure;
use crate::peer;

/// How long a node may take to freeze.
const FREEZE: Duration = Duration::from_secs(2);
/// How long the nodes may take to come to the same state.
const EQUAL: Duration = Duration::from_secs(20);
/// How long a node may take to end before it is killed. Its last checkpoint may write a lot.
const END: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(25);

/// Ends all nodes, those too that were started by hand.
pub async fn end(children: &mut Children, watch: &mut Watch, printer: &Printer) -> Result<(), Failure> {
    printer.print(&Event::Ending);
    // A node that does not answer here is not waited for below.
    let ours = live(children, watch).await;
    join_all(ours.iter().map(|node| peer::freeze(&node.address, FreezeRequest { frozen: true }, FREEZE))).await;
    printer.print(&come_together(children, watch).await);
    let mut order = live(children, watch).await;
    order.sort_by_key(|status| status.role() == Role::Leader);
    let mut killed = Vec::new();
    for status in &order {
        let in_good_order = match children.pid(&status.name) {
            Some(_) => end_child(children, &status.name).await,
            None => end_other(children.layout(), status).await,
        };
        if !in_good_order {
            killed.push(status.name.clone());
        }
    }
    // What is left does not answer: stopped or hung.
    killed.extend(kill_all(children, watch).await);
    killed.sort();
    killed.dedup();
    printer.print(&Event::Ended);
    if killed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        format!("not every node ended in good order: {}", killed.join(", ")),
        "it did not answer or did not end in time, and was killed",
        "start again on the same --dir: a killed node recovers by itself",
    ))
}

/// Kills all nodes that still run; their names.
pub async fn kill_all(children: &mut Children, watch: &Watch) -> Vec<String> {
    let names = watch.nodes().iter().map(|node| &node.name);
    let mut killed: Vec<String> = names.filter(|name| children.pid(name).is_some()).cloned().collect();
    children.kill_all().await;
    killed.extend(by_hand::kill_all(children).await);
    killed
}

/// The nodes of this cluster that answer.
async fn live(children: &Children, watch: &Watch) -> Vec<NodeStatus> {
    let answers = watch.ask(children).await.into_iter();
    answers
        .filter_map(|answer| match answer {
            Answer::Status(status) => Some(*status),
            Answer::Down | Answer::Silent | Answer::Stranger => None,
        })
        .collect()
}

/// Waits until every live node has applied all that any of them has in its log.
async fn come_together(children: &Children, watch: &Watch) -> Event {
    let until = Instant::now() + EQUAL;
    loop {
        let mut live = live(children, watch).await;
        // A node that was removed gets nothing any more: whom the leader counts, counts.
        if let Some(leader) = live.iter().find(|status| status.role() == Role::Leader)
            && let Ok(view) = peer::status(&leader.address, true, FREEZE).await
        {
            live.retain(|status| view.members.iter().any(|member| member.raft_id == status.raft_id));
        }
        let last = live.iter().filter_map(|status| status.last_log.as_ref().map(|at| at.index)).max().unwrap_or(0);
        let applied = |status: &NodeStatus| status.applied.as_ref().map_or(0, |at| at.index);
        if live.iter().all(|status| applied(status) == last) {
            return Event::Equal { index: last, nodes: live.len() };
        }
        if Instant::now() > until {
            let words = |status: &NodeStatus| format!("{} {} of {last}", status.name, applied(status));
            return Event::NotEqual { applied: live.iter().map(words).collect() };
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Ends a child; `false` if it had to be killed or failed.
async fn end_child(children: &mut Children, name: &str) -> bool {
    children.signal(name, Signal::USR1);
    let until = Instant::now() + END;
    while children.pid(name).is_some() {
        match tokio::time::timeout_at(until, children.next_exit()).await {
            Ok(exit) if exit.name == name => return exit.clean,
            Ok(_) => {}
            Err(_) => {
                children.signal(name, Signal::KILL);
                return false;
            }
        }
    }
    true
}

/// Ends a node that somebody started by hand; `false` if it has to be killed.
async fn end_other(layout: &Layout, status: &NodeStatus) -> bool {
    let Some(pid) = i32::try_from(status.process_id).ok().and_then(Pid::from_raw) else { return false };
    kill_process(pid, Signal::USR1).is_ok() && by_hand::is_gone(layout, &status.name, END).await
}
