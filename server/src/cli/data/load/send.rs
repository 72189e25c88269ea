//! Sends batches with several clients at once and keeps account of what is acknowledged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use calamus_client::{Client, Committed, Txn, TxnError};
use indicatif::ProgressBar;
use tokio::sync::{Mutex, mpsc};

use super::batches::{Batch, Batches};
use super::position::Position;
use super::{LoadArgs, Stopped, Summary};
use crate::cli::data::bytes::escape;

/// How often the position is written while the load goes on; at its end it always is.
const SAVE_EVERY: Duration = Duration::from_millis(250);

/// What sending needs.
pub(super) struct Sender<'a> {
    pub client: &'a Client,
    pub args: &'a LoadArgs,
    pub acknowledged: Option<File>,
    pub bar: ProgressBar,
}

/// A batch that was sent.
struct Sent {
    batch: Batch,
    latency: Duration,
    result: Result<Committed, TxnError>,
}

impl Sender<'_> {
    /// Sends all batches; what was done, and why it ended if that was before the end.
    pub async fn send_all(self, batches: Batches, position: Position) -> (Summary, Option<Stopped>) {
        let clients = self.args.clients as usize;
        let begun = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        // One batch waits for each client that is busy; reading is far faster than committing.
        let (to_clients, from_file) = mpsc::channel(clients);
        let reader = tokio::task::spawn_blocking(move || read(batches, &to_clients));
        let (to_account, from_clients) = mpsc::channel(clients);
        let from_file = Arc::new(Mutex::new(from_file));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..clients {
            let (client, tree, give_up) = (self.client.clone(), self.args.tree.clone(), self.args.give_up);
            let worker = Worker { client, tree, give_up: Duration::from_secs_f64(give_up), stop: stop.clone() };
            tasks.spawn(worker.run(from_file.clone(), to_account.clone()));
        }
        drop((to_account, from_file));
        let mut account = Account::new(self, position);
        account.run(from_clients, &stop).await;
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a worker does not panic");
        }
        let bad_input = reader.await.expect("the reader does not panic");
        account.finish(begun, bad_input)
    }
}

/// Reads batches until the file or the readers of the channel are at an end; why it ended if the file is bad.
fn read(batches: Batches, to_clients: &mpsc::Sender<Batch>) -> Option<Stopped> {
    for batch in batches {
        match batch {
            Ok(batch) => to_clients.blocking_send(batch).ok()?,
            Err(stopped) => return Some(stopped),
        }
    }
    None
}

struct Worker {
    client: Client,
    tree: String,
    give_up: Duration,
    stop: Arc<AtomicBool>,
}

impl Worker {
    async fn run(self, from_file: Arc<Mutex<mpsc::Receiver<Batch>>>, to_account: mpsc::Sender<Sent>) {
        loop {
            let next = from_file.lock().await.recv().await;
            let Some(batch) = next.filter(|_| !self.stop.load(Ordering::Relaxed)) else { return };
            let put = |txn: Txn, (key, value): &(_, _)| {
                let (key, value): (&bytes::Bytes, &bytes::Bytes) = (key, value);
                txn.put(&self.tree, key.clone(), value.clone())
            };
            // Putting the same documents again does no harm: so an unknown outcome is resolved by sending again.
            let txn = batch.documents.iter().fold(Txn::new().idempotent().deadline(self.give_up), put);
            let begun = Instant::now();
            let result = self.client.txn(txn).await;
            let sent = Sent { batch, latency: begun.elapsed(), result };
            if to_account.send(sent).await.is_err() {
                return;
            }
        }
    }
}

/// Adds up what clients report.
struct Account<'a> {
    sender: Sender<'a>,
    summary: Summary,
    /// Everything before it is acknowledged.
    position: Position,
    saved: Instant,
    /// The number of the first batch that is not acknowledged.
    next: u64,
    /// Acknowledged batches after that one: offset and lines at their ends.
    beyond: BTreeMap<u64, (u64, u64)>,
    stopped: Option<Stopped>,
}

impl<'a> Account<'a> {
    fn new(sender: Sender<'a>, position: Position) -> Account<'a> {
        let (summary, saved) = (Summary::new(position.lines), Instant::now());
        Account { sender, summary, position, saved, next: 0, beyond: BTreeMap::new(), stopped: None }
    }

    async fn run(&mut self, mut from_clients: mpsc::Receiver<Sent>, stop: &AtomicBool) {
        while let Some(sent) = from_clients.recv().await {
            let counted = match sent.result {
                Ok(ref done) => self.acknowledge(&sent, done),
                Err(error) => {
                    let (first_line, last_line) = (sent.batch.first_line, sent.batch.lines);
                    Err(Stopped::Batch { first_line, last_line, error })
                }
            };
            if let Err(stopped) = counted {
                // The first reason is the one to tell; batches under way are still counted.
                self.stopped.get_or_insert(stopped);
                stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn acknowledge(&mut self, sent: &Sent, done: &Committed) -> Result<(), Stopped> {
        let batch = &sent.batch;
        // Before the position moves over them.
        if let Some(file) = &mut self.sender.acknowledged {
            let keys: String = batch.documents.iter().flat_map(|(key, _)| [escape(key), "\n".to_owned()]).collect();
            let doing = || "append to the file of acknowledged keys".to_owned();
            file.write_all(keys.as_bytes()).map_err(|error| Stopped::Io { doing: doing(), error })?;
        }
        let summary = &mut self.summary;
        summary.documents += batch.documents.len() as u64;
        summary.transactions += 1;
        summary.bytes += batch.bytes;
        summary.retries += u64::from(done.attempts - 1);
        summary.unknown_resolved += u64::from(done.unknown_attempts);
        let micros = u64::try_from(sent.latency.as_micros()).expect("a batch takes less than half a million years");
        summary.latency.record(micros).expect("the histogram grows as needed");
        self.advance(batch);
        if self.saved.elapsed() >= SAVE_EVERY { self.save() } else { Ok(()) }
    }

    /// Moves the position over all batches that are acknowledged without a gap.
    fn advance(&mut self, batch: &Batch) {
        let before = self.beyond.insert(batch.number, (batch.end, batch.lines));
        assert!(before.is_none() && batch.number >= self.next, "batch {} was acknowledged twice", batch.number);
        while let Some((offset, lines)) = self.beyond.remove(&self.next) {
            assert!(offset > self.position.offset, "the position goes forward only");
            (self.position.offset, self.position.lines) = (offset, lines);
            self.next += 1;
        }
        self.sender.bar.set_position(self.position.offset);
        self.sender.bar.set_message(format!("{} documents", self.summary.documents));
    }

    fn save(&mut self) -> Result<(), Stopped> {
        self.saved = Instant::now();
        let Some(path) = &self.sender.args.position else { return Ok(()) };
        let doing = || format!("write position file {}", path.display());
        self.position.save(path).map_err(|error| Stopped::Io { doing: doing(), error })
    }

    fn finish(mut self, begun: Instant, bad_input: Option<Stopped>) -> (Summary, Option<Stopped>) {
        self.summary.seconds = begun.elapsed().as_secs_f64();
        let unsaved = self.save().err();
        assert!(self.stopped.is_some() || self.beyond.is_empty(), "batches between acknowledged ones are missing");
        (self.summary, self.stopped.or(bad_input).or(unsaved))
    }
}
