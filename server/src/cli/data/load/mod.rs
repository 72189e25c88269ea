//! `calamus load FILE.jsonl --tree T --key FIELD`
//!
//! Each line is a document: its bytes become the value, a field of it the key. Documents go in batches, one transaction each;
//! several clients send at once. Contract:
//! - Every document of a batch is looked at before any of it is sent; a bad line is named and ends the load before its batch.
//! - A batch is sent until it is committed: putting the same documents twice does no harm, so an unknown outcome is resolved
//!   by sending again (and counted). If one key stands in the file twice, which of the two remains is not said.
//! - The position file says up to where *all* batches are acknowledged, never further.

mod batches;
mod position;
mod send;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

use calamus_client::{Client, Outcome, TxnError};
use clap::Args;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use self::batches::{Batches, Limits};
use self::position::Position;
use super::DataArgs;
use crate::cli::common::print;
use crate::cli::{Exit, Failure};

/// Options of `load`.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// The file: one JSON object a line.
    file: PathBuf,
    /// The tree that the documents go into.
    #[arg(long)]
    tree: String,
    /// The field of each document that is its key: a string or an integer.
    #[arg(long, value_name = "FIELD")]
    key: String,
    /// Documents in one transaction (fewer if they are large).
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Transactions under way at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    clients: u32,
    /// Remember in this file how far the load came; if the file is there, go on from there.
    #[arg(long, value_name = "FILE")]
    position: Option<PathBuf>,
    /// Append the key of each acknowledged document to this file, one a line (escaped as by `scan`).
    #[arg(long, value_name = "FILE")]
    acknowledged: Option<PathBuf>,
    /// How long one batch may go without being committed before the load gives up, in seconds.
    #[arg(long, default_value_t = 120.0, value_parser = super::seconds, value_name = "SECONDS")]
    give_up: f64,
    #[command(flatten)]
    data: DataArgs,
}

/// What a load did.
#[derive(Debug)]
pub(super) struct Summary {
    pub documents: u64,
    pub transactions: u64,
    pub bytes: u64,
    /// Microseconds from the first sending of a batch to its acknowledgement.
    pub latency: Histogram<u64>,
    pub retries: u64,
    pub unknown_resolved: u64,
    pub seconds: f64,
    /// The line that the position file let it begin after.
    pub resumed_after_line: u64,
}

impl Summary {
    fn new(resumed_after_line: u64) -> Summary {
        // In microseconds, up to an hour. With bounds, because a histogram that grows by itself does not when it saturates.
        let latency = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are allowed");
        let (documents, transactions, bytes, retries, unknown_resolved) = (0, 0, 0, 0, 0);
        Summary { documents, transactions, bytes, latency, retries, unknown_resolved, seconds: 0.0, resumed_after_line }
    }

    fn milliseconds(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn json(&self) -> Value {
        json!({
            "documents": self.documents, "transactions": self.transactions, "bytes": self.bytes,
            "seconds": self.seconds, "p50_ms": self.milliseconds(0.5), "p99_ms": self.milliseconds(0.99),
            "retries": self.retries, "unknown_outcomes_resolved": self.unknown_resolved,
            "resumed_after_line": self.resumed_after_line,
        })
    }

    fn text(&self) -> String {
        let rate = self.documents as f64 / self.seconds.max(1e-6);
        let resumed = match self.resumed_after_line {
            0 => String::new(),
            line => format!("went on after line {line}\n"),
        };
        format!(
            "{resumed}documents          {} ({:.1} MB in {:.1} s, {rate:.0}/s)\ntransactions       {}\n\
             latency            p50 {:.1} ms, p99 {:.1} ms\nretries            {}\nunknown outcomes   {} resolved\n",
            self.documents,
            self.bytes as f64 / 1e6,
            self.seconds,
            self.transactions,
            self.milliseconds(0.5),
            self.milliseconds(0.99),
            self.retries,
            self.unknown_resolved,
        )
    }
}

/// Why a load ended early.
#[derive(Debug)]
pub(super) enum Stopped {
    /// A line is bad.
    Line { line: u64, why: String },
    /// A batch could not be committed, or its outcome could not be resolved.
    Batch { first_line: u64, last_line: u64, error: TxnError },
    /// A file of ours could not be written, or the input not be read.
    Io { doing: String, error: io::Error },
}

pub(super) async fn run(args: LoadArgs) -> Result<Exit, Failure> {
    let open = |error| Failure::new(format!("cannot open {}", args.file.display()), error, "check the path");
    let input = File::open(&args.file).map_err(open)?;
    let client = args.data.connect().await?;
    load(&client, &args, input).await
}

pub(super) async fn load(client: &Client, args: &LoadArgs, input: File) -> Result<Exit, Failure> {
    let cluster_id = client.topology().cluster_id;
    let begin = Position::of(&input, &args.tree, &args.key, &cluster_id).map_err(|error| unreadable(args, &error))?;
    let position = match &args.position {
        None => begin,
        Some(path) => Position::resume(path, begin).map_err(|why| {
            let what = format!("cannot go on from position file {}", path.display());
            Failure::new(what, why, "remove that file to load everything from the first line")
        })?,
    };
    let acknowledged =
        match &args.acknowledged {
            None => None,
            Some(path) => Some(OpenOptions::new().append(true).create(true).open(path).map_err(|error| {
                Failure::new(format!("cannot append to {}", path.display()), error, "check the path")
            })?),
        };
    let bar = progress(args, &position);
    let limits = Limits { documents: args.batch as usize, ..Limits::default() };
    let batches = Batches::new(input, &position, args.key.clone(), limits).map_err(|error| unreadable(args, &error))?;
    let sender = send::Sender { client, args, acknowledged, bar: bar.clone() };
    let (summary, stopped) = sender.send_all(batches, position).await;
    bar.finish_and_clear();
    finish(args, &summary, stopped)
}

fn unreadable(args: &LoadArgs, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read {}", args.file.display()), error, "it must be a regular file")
}

fn progress(args: &LoadArgs, position: &Position) -> ProgressBar {
    if args.data.json() {
        return ProgressBar::hidden();
    }
    // Drawn on stderr, and not at all where that is no terminal.
    let style = ProgressStyle::with_template("{bar:32} {bytes}/{total_bytes}  {msg}  {elapsed} gone, {eta} to go");
    let bar = ProgressBar::new(position.file_bytes).with_style(style.expect("the template is right"));
    bar.set_position(position.offset);
    bar
}

/// Says what was done, and why it ended if that was early.
fn finish(args: &LoadArgs, summary: &Summary, stopped: Option<Stopped>) -> Result<Exit, Failure> {
    let Some(stopped) = stopped else {
        let text = if args.data.json() { format!("{}\n", summary.json()) } else { summary.text() };
        return print(text.as_bytes(), Exit::Done).map_err(|failure| failure.with_exit(Exit::Unknown));
    };
    let file = args.file.display();
    let so_far = format!("{} documents are acknowledged", summary.documents);
    let again = match args.position.is_some() {
        true => "run the same command to go on",
        false => {
            "run it again (documents that are there are put again); --position FILE lets it go on where it stopped"
        }
    };
    let (word, failure) = match stopped {
        Stopped::Line { line, why } => {
            let what = format!("{file}, line {line}: {why}");
            let why = format!("nothing of the batch with this line was sent; {so_far}");
            ("bad_line", Failure::new(what, why, format!("mend the line, then {again}")))
        }
        Stopped::Batch { first_line, last_line, error } => {
            let unknown = error.outcome() == Outcome::Unknown;
            let what = format!("{file}, lines {first_line} to {last_line}: {error}");
            let failure = Failure::new(what, so_far, again);
            if unknown { ("unknown", failure.with_exit(Exit::Unknown)) } else { ("not_committed", failure) }
        }
        Stopped::Io { doing, error } => {
            ("io", Failure::new(format!("cannot {doing}"), error, format!("{so_far}; {again}")))
        }
    };
    let mut document = summary.json();
    document["error"] = word.into();
    document["message"] = failure.to_string().into();
    args.data.client.tell(&document);
    Err(failure)
}
