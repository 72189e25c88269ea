//! `calamus session close FILE`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{DataArgs, SessionFile, lock};
use crate::cli::common::write;
use crate::cli::{Exit, Failure};

/// What can be done with a session file.
#[derive(Clone, Debug, Args)]
pub struct SessionCommandArgs {
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum SessionCommand {
    /// End the session of a file of --session, with all that is stored of it, and remove the file.
    Close(CloseArgs),
}

/// Options of `session close`.
#[derive(Clone, Debug, Args)]
pub struct CloseArgs {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also if it holds a transaction without an answer: nobody can tell then what became of it.
    #[arg(long)]
    abandon: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Closes first, and removes the file then: who is killed in between closes a session that is gone, which is no failure.
pub(in crate::cli::data) async fn run(args: SessionCommandArgs) -> Result<Exit, Failure> {
    let SessionCommand::Close(CloseArgs { file: path, abandon, data }) = args.command;
    let failed = |why: &dyn std::fmt::Display, next: &str| {
        Failure::new(format!("the session of {} is not closed", path.display()), why, next)
    };
    if !path.exists() {
        return Err(failed(&"there is no such file", "name the file that --session was given"));
    }
    let _lock = lock(&path)?;
    let file = SessionFile { path: &path, data: &data, what: "session close" };
    let client = data.connect().await?;
    let content = file.load()?.ok_or_else(|| failed(&"the file is gone", "another command has closed it"))?;
    let session = client.resume(&content.session).map_err(|error| file.unusable(&error.to_string()))?;
    if !abandon && !session.unanswered().is_empty() {
        let next = "run that command again with this file; or give up knowing what became of it, with --abandon";
        return Err(failed(&"it holds a transaction whose answer was not printed", next));
    }
    let id = session.id();
    let closed = session.close().await.map_err(|error| data.txn_failed("session close", &error))?;
    // The lock stays: who has opened it already must not find another one there.
    std::fs::remove_file(&path).map_err(|error| {
        Failure::new(format!("session {id} is closed, and {} cannot be removed", path.display()), error, "remove it")
    })?;
    let text = match (data.json(), closed) {
        (true, _) => format!("{}\n", json!({ "session_id": id, "closed": closed })),
        (false, true) => format!("session {id} is closed\n"),
        (false, false) => format!("session {id} was gone already\n"),
    };
    write(text.as_bytes()).map(|()| Exit::Done).map_err(|error| {
        Failure::new(format!("session {id} is closed; but that cannot be written to stdout"), error, "")
    })
}
