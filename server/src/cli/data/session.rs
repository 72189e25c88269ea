//! `--session FILE`: a transaction that runs at most once, however often the command is run again.
//!
//! ```text
//! {"format": 1, "session": {...}, "answer": {"text": "committed as txn 7\n", "txn_id": 7, "exit": 0}}
//! ```
//!
//! `session` is a `calamus_client::SessionState`. The file is replaced as a whole, and is on disk before what follows it:
//!
//! 1. the transaction stands in it, as unanswered, before it is sent;
//! 2. its answer stands in it before it is printed;
//! 3. neither does after it was printed.
//!
//! So a command that is run again after it was killed, in whatever step, sends the same transaction under the same sequence,
//! or prints the answer that the first one got. Only after 3 is the same command a new transaction.

pub(super) mod close;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use calamus_client::{Client, Committed, Pending, Session, SessionState, Txn, TxnError};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{DataArgs, print_done};
use crate::cli::{Exit, Failure};

/// The version of the file's form.
const FORMAT: u32 = 1;
/// As long as there may be: nobody knows when the command is run again.
const TTL: Duration = Duration::from_secs(30 * 86_400);
/// What a session is that expired.
const GONE: &str = "no_such_session";

/// The option of the commands that change something.
#[derive(Clone, Debug, Default, Args)]
pub struct SessionArgs {
    /// Run at most once: this file remembers the transaction until its answer is printed. The same command with the same
    /// file goes on, after whatever has crashed, and prints the first answer.
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    format: u32,
    session: SessionState,
    answer: Option<Answer>,
}

/// What is printed, and was perhaps not.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    text: String,
    txn_id: u64,
    exit: u8,
}

/// Runs a transaction, in a session if one is named, and prints what `tell` makes of its answer.
pub(super) async fn run(
    data: &DataArgs,
    session: &SessionArgs,
    client: &Client,
    (what, txn): (&str, Txn),
    tell: impl Fn(&Committed) -> (String, Exit),
) -> Result<Exit, Failure> {
    let Some(path) = &session.session else {
        let done = client.txn(txn).await.map_err(|error| data.txn_failed(what, &error))?;
        let (text, exit) = tell(&done);
        return print_done(&text, done.txn_id, exit);
    };
    let _lock = lock(path)?;
    let file = SessionFile { path, data, what };
    let (session, pending, answer) = match file.load()? {
        None => {
            let (session, pending) = file.begin(client, None, &txn).await?;
            (session, pending, None)
        }
        Some(content) => {
            let session = client.resume(&content.session).map_err(|error| file.unusable(&error.to_string()))?;
            match session.unanswered().into_iter().next() {
                None => {
                    let (session, pending) = file.begin(client, Some(session), &txn).await?;
                    (session, pending, None)
                }
                Some(pending) if pending.request().as_ref() == Some(txn.request()) => {
                    (session, pending, content.answer)
                }
                Some(_) => return Err(file.of_another_command()),
            }
        }
    };
    let answer = match answer {
        Some(answer) => answer,
        None => file.answer(&session, &pending, tell).await?,
    };
    let exit = if answer.exit == Exit::Done as u8 { Exit::Done } else { Exit::No };
    let printed = print_done(&answer.text, answer.txn_id, exit)?;
    session.answered(pending.sequence());
    file.save(&session, None)?;
    Ok(printed)
}

struct SessionFile<'a> {
    path: &'a Path,
    data: &'a DataArgs,
    what: &'a str,
}

impl SessionFile<'_> {
    fn load(&self) -> Result<Option<Content>, Failure> {
        let bytes = match fs::read(self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(&error.to_string())),
        };
        let content: Content = serde_json::from_slice(&bytes).map_err(|error| self.unusable(&error.to_string()))?;
        if content.format != FORMAT {
            let format = content.format;
            return Err(self.unusable(&format!("it is of format {format}, this program knows {FORMAT}")));
        }
        Ok(Some(content))
    }

    /// Replaces the file: written beside, synced, renamed, and its directory synced.
    fn save(&self, session: &Session, answer: Option<Answer>) -> Result<(), Failure> {
        let content = Content { format: FORMAT, session: session.state(), answer };
        let write = || -> io::Result<()> {
            let beside = beside(self.path, ".new");
            let mut file = File::create(&beside)?;
            file.write_all(&serde_json::to_vec_pretty(&content)?)?;
            file.sync_all()?;
            fs::rename(&beside, self.path)?;
            let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|error| {
            let next = "free space or choose another place; what was printed so far is true";
            Failure::new(format!("cannot write the session file {}", self.path.display()), error, next)
        })
    }

    /// Takes a sequence for a new transaction, in this session or a new one, and notes it.
    async fn begin(&self, client: &Client, session: Option<Session>, txn: &Txn) -> Result<(Session, Pending), Failure> {
        let failed = |error: &TxnError| self.data.txn_failed(self.what, error);
        let session = match session {
            Some(session) if is_there(&session).await => session,
            _ => client.session_with(TTL).await.map_err(|error| failed(&error))?,
        };
        let pending = session.begin(txn.clone()).await.map_err(|error| failed(&error))?;
        self.save(&session, None)?;
        Ok((session, pending))
    }

    /// Sends it until it has an answer, and notes that.
    async fn answer(
        &self,
        session: &Session,
        pending: &Pending,
        tell: impl Fn(&Committed) -> (String, Exit),
    ) -> Result<Answer, Failure> {
        match pending.run().await {
            Ok(done) => {
                let (text, exit) = tell(&done);
                let answer = Answer { text, txn_id: done.txn_id, exit: exit as u8 };
                self.save(session, Some(answer.clone()))?;
                Ok(answer)
            }
            Err(error @ TxnError::NotCommitted(_)) => {
                session.answered(pending.sequence());
                self.save(session, None)?;
                Err(self.data.txn_failed(self.what, &error))
            }
            Err(error) => {
                let next = if error.failure().reason == GONE {
                    format!(
                        "what became of it cannot be told any more: read to find out, and remove {}",
                        self.path.display()
                    )
                } else {
                    format!("run the same command again: with {} it runs at most once", self.path.display())
                };
                Err(self.data.txn_failed(self.what, &error).with_next(next))
            }
        }
    }

    fn unusable(&self, why: &str) -> Failure {
        let next = "name another file, or remove it if you do not need to know what became of its transaction";
        Failure::new(format!("the session file {} cannot be used", self.path.display()), why, next)
    }

    fn of_another_command(&self) -> Failure {
        let why = "whether it ran is not known, and its answer would be lost";
        let next = "run that command again with this file; or name another file for this one";
        Failure::new(format!("{} holds a transaction of another command", self.path.display()), why, next)
    }
}

/// Whether the session has not expired: only then is it used for something new.
async fn is_there(session: &Session) -> bool {
    let used = session.keep_alive().await;
    for pending in session.unanswered() {
        // What says that it is in use changes nothing, whatever became of it.
        session.answered(pending.sequence());
    }
    !used.is_err_and(|error| error.failure().reason == GONE)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// Two commands with one file would send each other's transactions.
fn lock(path: &Path) -> Result<File, Failure> {
    let failed = |why: &dyn std::fmt::Display, next: &str| {
        Failure::new(format!("the session file {} cannot be used", path.display()), why, next)
    };
    let file = File::create(beside(path, ".lock")).map_err(|error| failed(&error, "check the path"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(failed(&"another command uses it now", "wait for its end, or name another file"))
        }
        Err(TryLockError::Error(error)) => Err(failed(&error, "choose a place where files can be locked")),
    }
}
