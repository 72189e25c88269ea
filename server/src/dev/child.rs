//! The child processes.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use futures::FutureExt;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::layout::{Layout, Place};
use crate::failure::Failure;
use crate::parent;

/// Variables that would tell a child what its flags tell it.
const FLAG_VARIABLES: [&str; 6] =
    ["CALAMUS_DIR", "CALAMUS_NAME", "CALAMUS_LISTEN", "CALAMUS_ADVERTISE", "CALAMUS_BOOTSTRAP", "CALAMUS_JOIN"];

/// How a new node gets its cluster; one that has a database needs to be told nothing.
#[derive(Clone, Debug)]
pub enum Role {
    /// It has a database.
    Again,
    /// It is the first one.
    Bootstrap,
    /// It joins the node at this address.
    Join(String),
}

/// A child that ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The node.
    pub name: String,
    /// "exit code 1", "killed by signal 9".
    pub how: String,
    /// Whether it ended with exit code 0.
    pub clean: bool,
}

/// A child that runs, as far as is known.
struct Running {
    name: String,
    pid: Pid,
    /// Dropping it kills the child: it stands in the task that waits for its end.
    task: tokio::task::JoinHandle<()>,
}

/// All children. Dropping it kills them.
pub struct Children {
    layout: Layout,
    log: String,
    running: Vec<Running>,
    exits: mpsc::UnboundedReceiver<Exit>,
    report: mpsc::UnboundedSender<Exit>,
}

impl Children {
    /// None yet.
    pub fn new(layout: Layout, log: String) -> Children {
        let (report, exits) = mpsc::unbounded_channel();
        Children { layout, log, running: Vec::new(), exits, report }
    }

    /// The cluster.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Starts a node.
    pub fn start(&mut self, node: &Place, role: &Role) -> Result<(), Failure> {
        let cannot = |error: std::io::Error| {
            Failure::new(format!("cannot start {}", node.name), error, "check --dir, and the limits of this user")
        };
        let log_file = self.layout.log(&node.name);
        let log = OpenOptions::new().create(true).append(true).open(log_file).map_err(cannot)?;
        let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
        command.arg("serve").arg("--dir").arg(self.layout.node_dir(&node.name)).args(["--log", &self.log]);
        match role {
            Role::Again => {}
            Role::Bootstrap => {
                command.args(["--name", &node.name, "--listen", &node.address, "--bootstrap"]);
            }
            Role::Join(host) => {
                command.args(["--name", &node.name, "--listen", &node.address, "--join", host]);
            }
        }
        for variable in FLAG_VARIABLES {
            command.env_remove(variable);
        }
        command
            .env(parent::VARIABLE, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(cannot)?)
            .stderr(log)
            // Ctrl-C in the terminal is for this process, which then ends the nodes in order.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(cannot)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32)).expect("a child that was just started has an id");
        let task = tokio::spawn(wait(child, node.name.clone(), self.report.clone()));
        self.running.push(Running { name: node.name.clone(), pid, task });
        Ok(())
    }

    /// Waits for the next child that ends; for ever if none does.
    pub async fn next_exit(&mut self) -> Exit {
        let exit = self.exits.recv().await.expect("a sender is held here");
        self.running.retain(|child| child.name != exit.name);
        exit
    }

    /// A child that has ended and was not told of yet, without waiting.
    pub fn take_exit(&mut self) -> Option<Exit> {
        self.next_exit().now_or_never()
    }

    /// The process id of a node that is a child of this process and runs.
    pub fn pid(&self, name: &str) -> Option<Pid> {
        self.running.iter().find(|child| child.name == name).map(|child| child.pid)
    }

    /// Sends a signal to a child, if it runs.
    pub fn signal(&self, name: &str, signal: Signal) {
        if let Some(pid) = self.pid(name) {
            // It may have ended in this moment; then its exit is on its way.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills all that run, and waits until they are gone.
    pub async fn kill_all(&mut self) {
        let names: Vec<String> = self.running.iter().map(|child| child.name.clone()).collect();
        for name in &names {
            self.signal(name, Signal::KILL);
        }
        while !self.running.is_empty() {
            self.next_exit().await;
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &self.running {
            // At a panic nobody polls the tasks any more, so the signal is sent from here.
            let _ = kill_process(child.pid, Signal::KILL);
            child.task.abort();
        }
    }
}

async fn wait(mut child: Child, name: String, report: mpsc::UnboundedSender<Exit>) {
    let (how, clean) = match child.wait().await {
        Ok(status) => (describe(status), status.success()),
        Err(error) => (format!("its end could not be seen: {error}"), false),
    };
    let _ = report.send(Exit { name, how, clean });
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
