//! Bytes one way, as the fault wants it.
//!
//! A reader takes pieces from one socket into a bounded queue; a writer gives each its turn and writes it to the other one.
//! Ends and errors of the first socket are pieces too, so they do not overtake bytes, and do not pass a held direction.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::fault::{Fault, Flow};

/// The most that is read at once.
const PIECE_BYTES: usize = 16 << 10;
/// How many pieces wait at most: with the greatest ones, 2 MiB.
const PIECES: usize = 128;
/// A throttled direction writes what it may in this time at once.
const THROTTLE_STEP: Duration = Duration::from_millis(20);

/// What came from a socket.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes, when they came, and how much of the jitter they get: -1 to 1.
    Bytes(Vec<u8>, Instant, f64),
    /// The sender will send no more.
    End,
    /// The connection broke.
    Broken,
}

/// The queue of a direction.
pub(super) fn queue() -> (mpsc::Sender<Piece>, mpsc::Receiver<Piece>) {
    mpsc::channel(PIECES)
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToTarget,
    ToClient,
}

/// What all connections of a proxy share of one direction: what is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Direction {
    way: Way,
    fault: watch::Receiver<Fault>,
    /// Until when the throttled wire is taken.
    taken_until: Arc<Mutex<Instant>>,
}

impl Direction {
    pub(super) fn new(way: Way, fault: watch::Receiver<Fault>) -> Direction {
        Direction { way, fault, taken_until: Arc::new(Mutex::new(Instant::now())) }
    }

    /// What is wrong now; `changed` waits for what comes after it.
    fn flow(&mut self) -> Flow {
        let fault = self.fault.borrow_and_update();
        match self.way {
            Way::ToTarget => fault.to_target,
            Way::ToClient => fault.to_client,
        }
    }

    /// Waits for another fault. The proxy owns this task, so without the proxy it never goes on.
    async fn changed(&mut self) {
        if self.fault.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the direction is not held.
    pub(super) async fn not_held(&mut self) {
        while self.flow() == Flow::Hold {
            self.changed().await;
        }
    }

    /// Waits until bytes that came then may go on. How many of them.
    async fn turn(&mut self, bytes: usize, came: Instant, jitter_part: f64) -> usize {
        loop {
            let (due, bytes) = match self.flow() {
                Flow::Pass => return bytes,
                Flow::Hold => {
                    self.changed().await;
                    continue;
                }
                Flow::Delay { delay, jitter } => (came + delayed(delay, jitter, jitter_part), bytes),
                Flow::Throttle { bytes_per_second } => self.take_wire(bytes, bytes_per_second.get()),
            };
            tokio::select! {
                () = sleep_until(due) => return bytes,
                () = self.changed() => {}
            }
        }
    }

    /// Takes the throttled wire for as many of the bytes as go in one step, but for one at least. When they are through.
    fn take_wire(&self, bytes: usize, bytes_per_second: u64) -> (Instant, usize) {
        let step = (THROTTLE_STEP.as_secs_f64() * bytes_per_second as f64) as usize;
        let bytes = bytes.min(step.max(1));
        let mut taken_until = self.taken_until.lock();
        let through =
            (*taken_until).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
        *taken_until = through;
        (through, bytes)
    }
}

fn delayed(delay: Duration, jitter: Duration, part: f64) -> Duration {
    let shift = jitter.mul_f64(part.abs());
    if part < 0.0 { delay.saturating_sub(shift) } else { delay + shift }
}

/// Reads all that comes from a socket into the queue, until its end. `number` is that of the connection: jitter is the same for
/// the same connections.
pub(super) async fn read_all(mut from: ReadHalf<'_>, queue: mpsc::Sender<Piece>, number: u64) {
    let mut random = StdRng::seed_from_u64(number);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let (piece, last) = match from.read(&mut buffer).await {
            Ok(0) => (Piece::End, true),
            Ok(read) => {
                let part = random.random_range(-1.0..=1.0);
                (Piece::Bytes(buffer[..read].to_vec(), Instant::now(), part), false)
            }
            Err(_) => (Piece::Broken, true),
        };
        // Nobody takes it any more: the connection is being reset.
        if queue.send(piece).await.is_err() || last {
            return;
        }
    }
}

/// Writes all that is in the queue to a socket, each piece when it is its turn, until the end.
///
/// # Errors
/// That one of the sockets broke; said when the fault lets it be known on the other side.
pub(super) async fn write_all(
    mut queue: mpsc::Receiver<Piece>,
    mut to: WriteHalf<'_>,
    mut direction: Direction,
    mut reverse: Direction,
    count: &AtomicU64,
) -> io::Result<()> {
    while let Some(piece) = queue.recv().await {
        let written = match piece {
            Piece::Bytes(bytes, came, jitter_part) => {
                write(&bytes, came, jitter_part, &mut to, &mut direction, count).await
            }
            Piece::End => {
                direction.not_held().await;
                return to.shutdown().await;
            }
            Piece::Broken => {
                direction.not_held().await;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        };
        if written.is_err() {
            // That the receiver is gone is news that goes the other way.
            reverse.not_held().await;
            return written;
        }
    }
    Ok(())
}

async fn write(
    mut bytes: &[u8],
    came: Instant,
    jitter_part: f64,
    to: &mut WriteHalf<'_>,
    direction: &mut Direction,
    count: &AtomicU64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let turn = direction.turn(bytes.len(), came, jitter_part).await;
        let mut now = &bytes[..turn];
        while !now.is_empty() {
            let written = tokio::select! {
                // A writer that waits for the receiver must not go on once the direction is held.
                biased;
                () = direction.changed() => break,
                written = to.write(now) => written?,
            };
            count.fetch_add(written as u64, Ordering::Relaxed);
            (now, bytes) = (&now[written..], &bytes[written..]);
        }
    }
    Ok(())
}
