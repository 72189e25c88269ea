//! The thread that scrubs, and whoever wants a pass now.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::pace::{Pace, Seen};
use super::pass::{self, Ended};
use crate::engine::{Core, Engine};
use crate::error::StorageError;

/// After a pass that failed, and where another generation was switched in, the next one begins so much later.
const AGAIN: Duration = Duration::from_secs(10);

/// While it waits it looks so often whether the generation is still in use.
const LOOK: Duration = Duration::from_secs(1);

/// What a whole pass did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Pages of the data file.
    pub pages: u64,
    /// Frames of the journal.
    pub frames: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Parts that were found damaged meanwhile, by whomever.
    pub found: u64,
    /// Whether the pages were, all together, those of the finished checkpoint. `false` also where that could not be told:
    /// a page is damaged whose checksum is not known, or a checkpoint was given up for want of space.
    pub proven: bool,
    /// When it ended.
    pub finished_at: Option<SystemTime>,
    /// How long it took.
    pub took: Duration,
}

/// How far the scrub is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ScrubStatus {
    /// Bytes that the running pass has read, and is to read, about; `None` where none runs.
    pub running: Option<(u64, u64)>,
    /// Whole passes since the directory was opened.
    pub passes: u64,
    /// The last of them.
    pub last: Option<ScrubReport>,
    /// How long a pass takes at the pace that the options set: what goes wrong on disk is found within so long. `None`
    /// if nothing is scrubbed unless somebody asks for it.
    pub expected_pass: Option<Duration>,
}

#[derive(Default)]
struct State {
    stopped: bool,
    /// Passes that somebody waits for.
    awaiting: usize,
    /// The pass that runs is wanted soon.
    hurried: bool,
    status: ScrubStatus,
}

/// What the thread and those who ask share.
#[derive(Default)]
pub(crate) struct Scrub {
    state: Mutex<State>,
    changed: Condvar,
    /// One pass that somebody waits for at a time.
    by_hand: Mutex<()>,
    /// Held while a piece is read, with the reader that it opens.
    piece: Mutex<()>,
}

impl Scrub {
    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Keeps the scrub, and with it its readers, out until this is dropped. Waits for the piece that is being read.
    pub(crate) fn between_pieces(&self) -> MutexGuard<'_, ()> {
        self.piece.lock()
    }

    fn hurry(&self) {
        self.state.lock().hurried = true;
        self.changed.notify_all();
    }

    pub(crate) fn status(&self, core: &Core) -> ScrubStatus {
        let options = &core.options;
        let pace = Pace::new(pass::total_bytes(&core.store()), options.scrub_pass, options.scrub_bytes_per_second);
        let scrubs = options.background && options.scrub_bytes_per_second > 0;
        ScrubStatus { expected_pass: scrubs.then(|| pace.length()), ..self.state.lock().status }
    }

    fn progress(&self, running: Option<(u64, u64)>) {
        self.state.lock().status.running = running;
    }

    fn finished(&self, report: &ScrubReport) {
        let mut state = self.state.lock();
        state.status.running = None;
        state.status.passes += 1;
        state.status.last = Some(*report);
        state.hurried = false;
        drop(state);
        self.changed.notify_all();
        tracing::debug!(?report, "scrubbed");
    }

    /// A pass at full speed, which somebody waits for; the thread's own begins anew.
    fn now(&self, core: &Core) -> Result<ScrubReport, StorageError> {
        let _one = self.by_hand.lock();
        self.state.lock().awaiting += 1;
        self.changed.notify_all();
        let result = loop {
            let store = core.store();
            let (total, done) = (pass::total_bytes(&store), Cell::new(0));
            let count = |bytes: u64| {
                done.set(done.get() + bytes);
                self.progress(Some((done.get(), total)));
                true
            };
            match pass::run(core, &store, &count) {
                Ok(report) => break Ok(report),
                Err(Ended::GivenUp) => {}
                Err(Ended::Failed(error)) => break Err(error),
            }
        };
        if let Ok(report) = &result {
            self.finished(report);
        }
        let mut state = self.state.lock();
        state.awaiting -= 1;
        state.status.running = None;
        drop(state);
        self.changed.notify_all();
        result
    }

    /// Waits that long, or until something else is to be done; `false` if the thread is to end.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.state.lock();
        while !state.stopped && state.awaiting == 0 && !state.hurried {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        !state.stopped
    }

    /// Waits until nobody waits for a pass of their own; `false` if the thread is to end.
    fn let_others_pass(&self) -> bool {
        let mut state = self.state.lock();
        while !state.stopped && state.awaiting > 0 {
            self.changed.wait(&mut state);
        }
        !state.stopped
    }

    /// A pass of the thread's.
    fn paced(&self, core: &Core) -> Result<ScrubReport, Ended> {
        let store = core.store();
        let (started, done) = (Instant::now(), Cell::new(0));
        let total = pass::total_bytes(&store);
        let pace = Pace::new(total, core.options.scrub_pass, core.options.scrub_bytes_per_second);
        let go_on = |bytes: u64| {
            done.set(done.get() + bytes);
            self.progress(Some((done.get(), total)));
            loop {
                let (stopped, awaiting, hurried) = {
                    let state = self.state.lock();
                    (state.stopped, state.awaiting, state.hurried)
                };
                // A generation that is out of use keeps its files as long as this pass holds it.
                if stopped || awaiting > 0 || core.store().generation != store.generation {
                    return false;
                }
                let busy = store.journal.pending_bytes() > 0 || core.is_checkpointing();
                let seen = Seen { time: started.elapsed(), busy, awaited: hurried };
                match pace.wait(done.get(), &seen) {
                    Some(wait) => self.pause(wait.min(LOOK)),
                    None => return true,
                };
            }
        };
        pass::run(core, &store, &go_on)
    }
}

/// The thread; joined when the last handle of the engine goes.
pub(crate) struct ScrubThread {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

impl ScrubThread {
    /// Starts the thread, unless the options say that passes are asked for.
    pub(crate) fn start(core: &Arc<Core>) -> Self {
        let scrubs = core.options.background && core.options.scrub_bytes_per_second > 0;
        let thread = scrubs.then(|| {
            let core = core.clone();
            std::thread::Builder::new()
                .name("scrub".into())
                .spawn(move || run(&core))
                .expect("the system has room for a thread")
        });
        Self { core: core.clone(), thread }
    }
}

impl Drop for ScrubThread {
    fn drop(&mut self) {
        self.core.scrub.stop();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the scrub thread panicked");
        }
    }
}

fn run(core: &Core) {
    let scrub = &core.scrub;
    while scrub.let_others_pass() {
        match std::panic::catch_unwind(AssertUnwindSafe(|| scrub.paced(core))) {
            Ok(Ok(report)) => scrub.finished(&report),
            Ok(Err(Ended::GivenUp)) => scrub.progress(None),
            Ok(Err(Ended::Failed(error))) => {
                scrub.progress(None);
                tracing::warn!(%error, "a scrub could not go on");
                if !scrub.pause(AGAIN) {
                    return;
                }
            }
            // A broken invariant of the scrub is no reason to stop the node: what is served is verified without it.
            Err(_) => {
                scrub.progress(None);
                tracing::error!("the scrub panicked, and is not run any more until the next start");
                return;
            }
        }
    }
}

impl Engine {
    /// Reads everything once, at full speed, and returns when that is done. What was found is in [`Self::damaged`].
    ///
    /// # Errors
    /// Those of the disk that are not about the bytes of one page or frame.
    pub fn scrub_now(&self) -> Result<ScrubReport, StorageError> {
        self.core.scrub.now(&self.core)
    }

    /// Lets the pass that runs in the background go on at full speed.
    pub fn hurry_scrub(&self) {
        self.core.scrub.hurry();
    }

    /// How far the scrub is.
    #[must_use]
    pub fn scrub_status(&self) -> ScrubStatus {
        self.core.scrub.status(&self.core)
    }
}

/// Waits for a pass of the thread's own.
#[cfg(test)]
pub(super) fn wait_for_pass(engine: &Engine, after: u64) {
    let scrub = &engine.core.scrub;
    let mut state = scrub.state.lock();
    while state.status.passes <= after {
        let waited = scrub.changed.wait_for(&mut state, Duration::from_secs(60));
        assert!(!waited.timed_out(), "the thread makes no pass");
    }
}
