//! What happens to the cluster, for people and as JSON lines.

use std::io::Write;

use comfy_table::Table;
use serde::Serialize;

use super::layout::{DEFAULT_FIRST_PORT, Layout, program, short};
use super::watch::{Seen, Watch};
use crate::cli::table;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// All nodes are up.
    Started {
        /// The nodes.
        nodes: Vec<Seen>,
        /// What `--endpoints` takes.
        endpoints: String,
    },
    /// A child ended.
    Exited {
        /// The node.
        name: String,
        /// How.
        how: String,
        /// The command that starts it again.
        again: String,
    },
    /// A node that was started by hand is not there any more.
    Gone {
        /// The node.
        name: String,
        /// The command that starts it again.
        again: String,
    },
    /// A node answers again, as another process.
    Back {
        /// The node.
        name: String,
        /// The process.
        process_id: u64,
    },
    /// A node's process is there and it does not answer.
    Silent {
        /// The node.
        name: String,
    },
    /// A node that was silent answers again.
    Answers {
        /// The node.
        name: String,
    },
    /// Another node leads.
    Leader {
        /// The node.
        name: String,
        /// The term that it leads.
        term: u64,
    },
    /// Nobody leads.
    NoLeader,
    /// The end has begun.
    Ending,
    /// All live nodes have applied the same.
    Equal {
        /// The log index.
        index: u64,
        /// How many nodes.
        nodes: usize,
    },
    /// They have not within the time given.
    NotEqual {
        /// What each of them has applied.
        applied: Vec<String>,
    },
    /// All have ended.
    Ended,
}

/// Where events go.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// As JSON lines.
    pub json: bool,
}

impl Printer {
    /// Prints an event.
    pub fn print(&self, event: &Event) {
        let text =
            if self.json { serde_json::to_string(event).expect("an event is always JSON") } else { words(event) };
        // Nobody may be reading any more; the cluster goes on.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Prints that all nodes are up: the table, and commands to try.
    pub fn table(&self, layout: &Layout, watch: &Watch) {
        let started = Event::Started { nodes: watch.nodes().to_vec(), endpoints: layout.endpoints() };
        if self.json {
            return self.print(&started);
        }
        let mut rows: Table = table::new(&["node", "address", "role", "process", "directory"]);
        for node in watch.nodes() {
            let dir = short(&layout.node_dir(&node.name));
            rows.add_row([&node.name, &node.address, &node.role, &node.process_id.to_string(), &dir]);
        }
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{rows}\n\n{}", hints(layout)).and_then(|()| out.flush());
    }
}

fn hints(layout: &Layout) -> String {
    let usual = layout.nodes.iter().take(3).enumerate();
    let mut usual =
        usual.map(|(at, node)| node.address == format!("127.0.0.1:{}", usize::from(DEFAULT_FIRST_PORT) + at));
    let endpoints = if layout.nodes.len() >= 3 && usual.all(|one| one) {
        String::new()
    } else {
        format!(" --endpoints {}", layout.endpoints())
    };
    let program = program();
    format!(
        "Try, in another terminal:\n  {program} put{endpoints} greetings hello 'good morning'\n  {program} get{endpoints} \
         greetings hello\n  {program} cluster status{endpoints}\n\nLogs are in {}/nK.log. Ctrl-C ends the cluster; the \
         same command goes on where it was.\n",
        short(&layout.dir)
    )
}

fn words(event: &Event) -> String {
    match event {
        Event::Started { nodes, .. } => format!("{} nodes are up", nodes.len()),
        Event::Exited { name, how, again } => format!("{name} exited ({how}); start it again with: {again}"),
        Event::Gone { name, again } => format!("{name}, started by hand, has ended; start it again with: {again}"),
        Event::Back { name, process_id } => format!("{name} is back, as process {process_id}"),
        Event::Silent { name } => format!("{name} does not answer"),
        Event::Answers { name } => format!("{name} answers again"),
        Event::Leader { name, term } => format!("{name} leads (term {term})"),
        Event::NoLeader => "nobody leads: an election runs, or a quorum is missing".to_owned(),
        Event::Ending => {
            "ending: writes are frozen, the nodes come to the same state (again to end at once)".to_owned()
        }
        Event::Equal { index, nodes } => format!("{nodes} nodes have applied the same, up to log index {index}"),
        Event::NotEqual { applied } => {
            format!("the nodes have not come to the same state in time ({}); ending all the same", applied.join(", "))
        }
        Event::Ended => "all nodes have ended".to_owned(),
    }
}
