//! Bringing all nodes up.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use calamus_proto::v1::Role as RaftRole;
use tokio::time::Instant;

use super::TICK;
use super::child::{Children, Exit, Role};
use super::event::Printer;
use super::layout::Layout;
use super::watch::{Answer, Watch};
use crate::failure::Failure;

/// How long the cluster may take to come up. Recovery after kill -9 takes seconds, seeding a node that was lost more.
const START: Duration = Duration::from_secs(120);

/// Starts every node, and waits until all of them are members and know who leads.
pub async fn start(children: &mut Children, watch: &mut Watch, printer: &Printer) -> Result<(), Failure> {
    let layout = children.layout().clone();
    let until = Instant::now() + START;
    let old = layout.nodes.iter().find(|node| layout.has_database(&node.name)).cloned();
    let first = old.clone().unwrap_or_else(|| layout.nodes[0].clone());
    if old.is_none() {
        // Alone first: the others ask it for the ids of the cluster.
        children.start(&first, &Role::Bootstrap)?;
        wait_until(children, watch, until, |nodes| nodes.iter().any(|leader| *leader)).await?;
    }
    for node in &layout.nodes {
        if children.pid(&node.name).is_none() {
            let again = layout.has_database(&node.name);
            let role = if again { Role::Again } else { Role::Join(first.address.clone()) };
            children.start(node, &role)?;
        }
    }
    let answers = wait_until(children, watch, until, |nodes| nodes.len() == layout.nodes.len()).await?;
    watch.learn_cluster(&answers);
    for event in watch.look(children).await {
        if !printer.json {
            printer.print(&event);
        }
    }
    Ok(())
}

/// Waits until the members that know a leader (for each: whether it leads) are as they should be; what all answered then.
///
/// A child that has ended is looked for before the answers are: it must not be counted by an answer it gave while it lived.
async fn wait_until(
    children: &mut Children,
    watch: &Watch,
    until: Instant,
    enough: impl Fn(&[bool]) -> bool,
) -> Result<Vec<Answer>, Failure> {
    loop {
        let answers = watch.ask(children).await;
        if let Some(exit) = children.take_exit() {
            return Err(give_up(children, &exit).await);
        }
        let members: Vec<bool> = answers.iter().filter_map(member).collect();
        if enough(&members) {
            return Ok(answers);
        }
        if Instant::now() > until {
            children.kill_all().await;
            return Err(Failure::new(
                format!("the cluster did not come up in {} s", START.as_secs()),
                states(&answers).join("; "),
                format!("read the logs in {}", children.layout().dir.display()),
            ));
        }
        tokio::select! {
            exit = children.next_exit() => return Err(give_up(children, &exit).await),
            () = tokio::time::sleep(TICK / 5) => {}
        }
    }
}

async fn give_up(children: &mut Children, exit: &Exit) -> Failure {
    let failure = failed(children.layout(), exit);
    children.kill_all().await;
    failure
}

/// For a voter that knows who leads: whether it is the one.
fn member(answer: &Answer) -> Option<bool> {
    let Answer::Status(status) = answer else { return None };
    match status.role() {
        RaftRole::Leader => Some(true),
        RaftRole::Follower if status.voter && !status.leader.is_empty() => Some(false),
        _ => None,
    }
}

fn states(answers: &[Answer]) -> Vec<String> {
    let state = |answer: &Answer| match answer {
        Answer::Status(status) => format!("{} is {}", status.name, status.state),
        Answer::Down => "one is down".to_owned(),
        Answer::Silent => "one does not answer".to_owned(),
        Answer::Stranger => "another process answers in place of one".to_owned(),
    };
    answers.iter().map(state).collect()
}

fn failed(layout: &Layout, exit: &Exit) -> Failure {
    let log = layout.log(&exit.name);
    Failure::new(
        format!("{} ended while the cluster started: {}", exit.name, exit.how),
        format!("the last lines of {}:\n{}", log.display(), last_lines(&log, 12)),
        format!("mend that, and start again on the same --dir; to begin anew, remove {}", layout.dir.display()),
    )
}

/// The last lines of a log, as far as its last few kilobytes have them.
fn last_lines(path: &Path, count: usize) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(8192)));
        let _ = file.take(8192).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
