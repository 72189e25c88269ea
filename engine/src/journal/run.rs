//! Works the queue off: by the journal's thread, or within the call that queued. Whoever finds nobody at it does all that
//! waits, so one thread is at it at a time; the others' callbacks run on that thread. A caller that would only wait for
//! its own frames writes them itself, which spares a commit of one thread the way to another thread and back.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::env::Disk;
use crate::error::StorageError;
use crate::journal::JournalOptions;
use crate::journal::dones::{Dones, panicked};
use crate::journal::format::Geometry;
use crate::journal::spare;
use crate::journal::state::{State, Taken, Work};
use crate::journal::writer::Writer;
use crate::space::Reserve;

/// The journal counts as idle after this long without work; then its end is attested.
const IDLE: Duration = Duration::from_millis(50);

pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    pub options: JournalOptions,
    pub geometry: Geometry,
    pub state: Mutex<State>,
    /// Locked before `state`, never after it.
    pub writer: Mutex<Writer>,
    /// The journal's thread waits here for work.
    pub wake: Condvar,
    /// The spare thread waits here for work, and the writer for a spare.
    pub spare_wake: Condvar,
    /// Whoever follows the end waits here: see `follow.rs`.
    pub progress: Condvar,
    /// Where space comes from when the disk is full; nothing of a journal that is not in use yet.
    pub reserve: OnceLock<Arc<Reserve>>,
}

impl Shared {
    /// Fails everything that waits and will come. `dones` are heard first.
    fn poison(&self, error: &StorageError, dones: Dones) {
        tracing::error!(%error, directory = %self.directory.display(), "the journal stops");
        let later = self.state.lock().poison(error);
        self.spare_wake.notify_all();
        self.progress.notify_all();
        dones.hear(Err(error));
        later.hear(Err(error));
    }

    /// Does everything that waits, unless somebody is at it already: they do it. That may be a call further out, of which
    /// this is a callback.
    pub fn drain(&self) {
        {
            let mut state = self.state.lock();
            if state.drainer.is_some() {
                return;
            }
            state.drainer = Some(std::thread::current().id());
        }
        let guard = PoisonOnPanic(self);
        loop {
            {
                let mut writer = self.writer.lock();
                while step(self, &mut writer) {}
            }
            let mut state = self.state.lock();
            if !state.has_work() {
                state.drainer = None;
                if state.closing {
                    // The journal's thread waits for this before it attests the end.
                    self.wake.notify_all();
                    self.progress.notify_all();
                }
                guard.disarm();
                return;
            }
        }
    }
}

/// Does one piece of work; false when none waits.
fn step(shared: &Shared, writer: &mut Writer) -> bool {
    let taken = {
        let mut state = shared.state.lock();
        if state.poisoned.is_some() {
            return false;
        }
        state.take(writer.offset, shared.options.max_group_bytes)
    };
    let Some(Taken { work, dones }) = taken else { return false };
    match perform(shared, writer, work) {
        Ok(()) => {
            dones.hear(Ok(()));
            if shared.options.acknowledges_before_sync()
                && let Err(error) = writer.file.sync_data()
            {
                shared.poison(&error, Dones::default());
            }
        }
        Err(error) => shared.poison(&error, dones),
    }
    true
}

fn perform(shared: &Shared, writer: &mut Writer, work: Work) -> Result<(), StorageError> {
    match work {
        Work::Group { frames, fresh } => {
            let began = Instant::now();
            let written = writer.write_group(shared, &frames, fresh)?;
            let took = began.elapsed();
            let mut state = shared.state.lock();
            state.finish_group(&frames, written, took);
            if !std::mem::replace(&mut state.unattested, true) {
                // It sleeps until there is something to attest.
                shared.wake.notify_one();
            }
            if state.followers > 0 {
                shared.progress.notify_all();
            }
            // By the end of this segment the next one is to be ready.
            state.spares.want();
            if state.spares.has_task() {
                shared.spare_wake.notify_all();
            }
        }
        Work::InOrder(job) => {
            job()?;
            shared.state.lock().finish();
        }
        Work::Cut(target) => {
            let written = writer.cut(&*shared.disk, &shared.directory, &target, &shared.options)?;
            let gone = shared.state.lock().finish_cut(&target, written, writer.offset);
            spare::retire_now(shared, &gone)?;
        }
        Work::Attest => {
            let result = attest(shared, writer);
            shared.state.lock().finish();
            result?;
        }
        Work::Nothing => shared.state.lock().finish(),
    }
    Ok(())
}

fn attest(shared: &Shared, writer: &mut Writer) -> Result<(), StorageError> {
    shared.state.lock().unattested = false;
    if writer.can_attest() {
        writer.attest()?;
        shared.state.lock().stats.attests += 1;
    }
    Ok(())
}

/// Fails what waits if whoever works the queue off panics: nobody may wait for ever for a callback.
struct PoisonOnPanic<'a>(&'a Shared);

impl PoisonOnPanic<'_> {
    /// It did not panic. (That the thread is panicking says nothing: it may commit something as it unwinds.)
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        self.0.poison(&panicked(), Dones::default());
    }
}

/// The journal's thread: works off what was only queued, and attests the end when nobody has written for a while.
pub(super) fn run(shared: &Shared) {
    loop {
        shared.drain();
        let mut state = shared.state.lock();
        let working = state.poisoned.is_none();
        if working && state.has_work() && state.drainer.is_none() {
            continue;
        }
        let groups = state.stats.groups;
        if state.closing && !(working && state.drainer.is_some()) {
            if working && state.unattested {
                state.attest();
                drop(state);
                shared.drain();
            }
            return;
        }
        if !working || !state.unattested {
            shared.wake.wait(&mut state);
        } else if shared.wake.wait_for(&mut state, IDLE).timed_out() && state.is_idle_since(groups) {
            state.attest();
        }
    }
}

/// The thread that prepares spares.
pub(super) fn run_spares(shared: &Shared) {
    let guard = PoisonOnPanic(shared);
    spare::run(shared);
    guard.disarm();
}
