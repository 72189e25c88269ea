//! The thread that runs checkpoints and purges when they are due.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::pieces::Speed;
use super::{Core, EngineOptions};
use crate::error::StorageError;
use crate::store::Store;

/// How long a checkpoint that found no space waits before it is tried again.
const SPACE_PAUSE: Duration = Duration::from_millis(500);

/// How often the thread looks when nobody rings but something may change: so long a node may go on refusing when there is
/// space again, and so long after the reader that held it back a checkpoint may begin.
const LOOK: Duration = Duration::from_millis(500);

/// Wakes the background thread.
#[derive(Default)]
pub(crate) struct Bell {
    state: Mutex<State>,
    rung: Condvar,
    /// Bytes of frames applied since the last look: so that not every frame takes locks to ask whether one is due.
    applied_bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    rung: bool,
    stopped: bool,
    /// How many wait for a checkpoint to end.
    awaiting: usize,
}

/// Somebody waits for a checkpoint to end, as long as this lives.
pub(crate) struct Awaited<'a>(&'a Bell);

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.state.lock().awaiting -= 1;
    }
}

impl Bell {
    /// Makes the thread look.
    pub(crate) fn ring(&self) {
        self.state.lock().rung = true;
        self.rung.notify_all();
    }

    /// Ends the thread at its next look.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.rung.notify_all();
    }

    /// Notes an applied frame, and rings where a checkpoint may be due.
    pub(crate) fn note_applied(&self, bytes: u64, store: &Store, options: &EngineOptions) {
        let step = options.checkpoint_journal_bytes / 8;
        let before = self.applied_bytes.fetch_add(bytes, Ordering::Relaxed);
        let crowded = store.versions.bytes() >= options.version_bytes_limit / 2;
        if before + bytes >= step || crowded {
            self.applied_bytes.store(0, Ordering::Relaxed);
            self.ring();
        }
    }

    /// Waits until rung, or for so long if that is said; `false` when stopped.
    fn wait(&self, most: Option<Duration>) -> bool {
        let until = most.map(|most| Instant::now() + most);
        let mut state = self.state.lock();
        while !state.rung && !state.stopped {
            match until {
                None => self.rung.wait(&mut state),
                Some(until) if self.rung.wait_until(&mut state, until).timed_out() => break,
                Some(_) => {}
            }
        }
        state.rung = false;
        !state.stopped
    }

    /// From here on, until what is returned goes, checkpoints do not pause.
    pub(crate) fn await_checkpoint(&self) -> Awaited<'_> {
        self.state.lock().awaiting += 1;
        self.rung.notify_all();
        Awaited(self)
    }

    /// Whether somebody waits for a checkpoint to end.
    pub(crate) fn is_awaited(&self) -> bool {
        let state = self.state.lock();
        state.stopped || state.awaiting > 0
    }

    /// Waits that long, or until somebody waits for the checkpoint's end.
    pub(crate) fn pause_checkpoint(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.state.lock();
        while !state.stopped && state.awaiting == 0 && !self.rung.wait_until(&mut state, until).timed_out() {}
    }

    /// Waits that long, rung or not; `false` when stopped.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.state.lock();
        while !state.stopped && !self.rung.wait_until(&mut state, until).timed_out() {}
        !state.stopped
    }
}

/// The thread, joined when the last handle of the engine goes. Then the journal is closed, too.
pub(crate) struct Background {
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Background {
    /// Starts the thread, unless the options say that checkpoints are called for.
    pub(crate) fn start(core: &Arc<Core>) -> Self {
        let thread = core.options.background.then(|| {
            let core = core.clone();
            std::thread::Builder::new()
                .name("checkpoint".into())
                .spawn(move || run(&core))
                .expect("the system has room for a thread")
        });
        Self { core: core.clone(), thread: Mutex::new(thread) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.core.bell.stop();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread panicked");
        }
        // Readers may hold the store, and with it the journal, for much longer.
        self.core.store().journal.close();
    }
}

/// Until the engine is closed, or something fails: that is noted in `failed`, writers are refused, and whoever drives the
/// engine finds it in its status.
fn run(core: &Core) {
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| checkpoint_when_due(core))) {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        core.fail(&StorageError::Poisoned(format!("the checkpoint thread panicked: {text}")));
    }
}

fn checkpoint_when_due(core: &Core) {
    tend_space(core);
    while core.bell.wait(looks(core).then_some(LOOK)) {
        tend_space(core);
        while core.checkpoint_due(&core.store()) {
            let speed = if core.is_short_of_space(&core.store()) { Speed::Full } else { Speed::Spread };
            match core.checkpoint_at(speed) {
                Ok(_) => break,
                Err(error) if core.failed.lock().is_some() => {
                    tracing::error!(%error, "a checkpoint failed");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "a checkpoint found no space, and is tried again");
                    if !core.bell.pause(SPACE_PAUSE) {
                        return;
                    }
                }
            }
        }
    }
}

/// Whether something may change for which nobody rings.
fn looks(core: &Core) -> bool {
    let store = core.store();
    core.watches_space(&store) || core.checkpoint_wanted(&store)
}

fn tend_space(core: &Core) {
    // What cannot be given back now is tried again at the next look.
    if let Err(error) = core.tend_space(&core.store()) {
        tracing::warn!(%error, "space is short, and what nobody needs cannot be given back");
    }
}
