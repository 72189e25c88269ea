//! Nodes of this cluster that are no children: somebody started them by hand.
//!
//! Which process that is stands in the directory. Whoever holds the lock of `DIR/nK` is the node nK, whether it answers or
//! hangs, and `DIR/nK/pid` names it. So nothing but a node of this cluster is ever killed, and none is missed because it
//! does not answer.

use std::time::Duration;

use calamus_engine::env::{Disk, RealDisk};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::child::Children;
use super::layout::Layout;
use crate::serve::PID_FILE;
use crate::small_file;

/// How long a process that was killed may take to be gone: the system has to free its memory.
const GONE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(25);

/// The process that has the directory of a node open, if there is one.
pub fn process(layout: &Layout, name: &str) -> Option<Pid> {
    let (disk, directory) = (RealDisk::new(), layout.node_dir(name));
    if !layout.has_database(name) || disk.lock(&directory).ok()?.is_some() {
        return None;
    }
    let text = small_file::read(&disk, &directory, PID_FILE).ok()??;
    Pid::from_raw(std::str::from_utf8(&text).ok()?.trim().parse().ok()?)
}

/// Kills all of them, and waits until they are gone; their names.
pub async fn kill_all(children: &Children) -> Vec<String> {
    let layout = children.layout();
    let mut killed = Vec::new();
    for node in layout.nodes.iter().filter(|node| children.pid(&node.name).is_none()) {
        let Some(pid) = process(layout, &node.name) else { continue };
        let _ = kill_process(pid, Signal::KILL);
        is_gone(layout, &node.name, GONE).await;
        killed.push(node.name.clone());
    }
    killed
}

/// Waits until no process has the directory of a node open; `false` if one still has it at the end of `limit`.
pub async fn is_gone(layout: &Layout, name: &str, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    while process(layout, name).is_some() {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}
