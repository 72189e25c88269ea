//! `calamus dev`: a whole cluster on this machine, each node a child process `calamus serve`.
//!
//! ```text
//! DIR/dev.json    names and addresses, kept for the next start
//! DIR/lock        one `dev` at a time
//! DIR/nK/         the directory of node nK, with its `pid`
//! DIR/nK.log      what nK wrote to stdout and stderr
//! ```
//!
//! Contract: no child outlives this process, however it ends: at an orderly end they are ended in order, at a panic
//! they are killed, and if this process is killed the system kills them (see `parent`). A node that exits is shown, with
//! the command that starts it again, and is not started again by itself: a database that restarts a crashing node hides
//! the crash. A node that was started by hand meanwhile is one of the cluster, is shown when it ends, and is ended with
//! it (see `by_hand`); whoever else answers at an address of this cluster is left alone (see `watch`).

mod by_hand;
mod child;
mod ending;
mod event;
mod layout;
mod starting;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;
use crate::parent;
use child::Children;
use event::{Event, Printer};
use watch::Watch;

pub use layout::DEFAULT_FIRST_PORT;

/// How often the nodes are asked how they are.
const TICK: Duration = Duration::from_millis(250);

/// What `calamus dev` was asked for.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// How many nodes; `None` for as many as DIR has, else 3.
    pub nodes: Option<u8>,
    /// DIR.
    pub dir: PathBuf,
    /// The port of the first node of a new DIR, if it and those that follow are free; 0 for any free ports.
    pub first_port: u16,
    /// The log filter of the nodes.
    pub log: String,
    /// Whether events are printed as JSON lines.
    pub json: bool,
}

/// Runs the cluster until it is told to end.
pub fn run(options: &DevOptions) -> Result<(), Failure> {
    parent::tie();
    // On one thread, the main one: on Linux the children are tied to the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start", error, "check the limits of this user (`ulimit -a`)"))?;
    runtime.block_on(run_here(options))
}

async fn run_here(options: &DevOptions) -> Result<(), Failure> {
    let mut asked = Asked::new()?;
    let (layout, _lock) = layout::load_or_plan(options)?;
    let printer = Printer { json: options.json };
    let mut children = Children::new(layout.clone(), options.log.clone());
    let mut watch = Watch::new(layout.clone());
    tokio::select! {
        started = starting::start(&mut children, &mut watch, &printer) => started?,
        () = asked.wait() => {
            printer.print(&Event::Ending);
            children.kill_all().await;
            return Ok(());
        }
    }
    printer.table(&layout, &watch);
    loop {
        tokio::select! {
            exit = children.next_exit() => printer.print(&Event::Exited {
                again: layout.again(&exit.name),
                name: exit.name,
                how: exit.how,
            }),
            () = tokio::time::sleep(TICK) => {
                for event in watch.look(&children).await {
                    printer.print(&event);
                }
            }
            () = asked.wait() => break,
        }
    }
    tokio::select! {
        ended = ending::end(&mut children, &mut watch, &printer) => ended,
        () = asked.wait() => {
            ending::kill_all(&mut children, &watch).await;
            Err(Failure::new("ended at once, because it was asked twice", "the nodes were killed", "start it again on the same --dir"))
        }
    }
}

/// The signals that end the cluster.
struct Asked {
    signals: [Signal; 3],
}

impl Asked {
    fn new() -> Result<Asked, Failure> {
        let take = |kind| signal(kind).map_err(|error| Failure::new("cannot take signals", error, ""));
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [a, b, c] = kinds.map(take);
        Ok(Asked { signals: [a?, b?, c?] })
    }

    async fn wait(&mut self) {
        let [a, b, c] = &mut self.signals;
        tokio::select! {
            _ = a.recv() => {}
            _ = b.recv() => {}
            _ = c.recv() => {}
        }
    }
}
