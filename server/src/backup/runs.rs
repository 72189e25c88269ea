//! One run at a time on a node, and what is known of it.
//!
//! A run is work on a thread of its own kind (it waits for disks and networks), begun by [`Runs::begin`], which refuses a
//! second one, and ended when its [`Run`] is dropped. It asks [`Run::goes_on`] as often as it tells of progress: no longer
//! when its client is gone, or when the node ends ([`Runs::end`]). What it did stays readable in [`Runs::now`] and
//! [`Runs::last`], until the next one has ended or the node has.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calamus_proto::v1::{BackupDone, BackupProgress, BackupRun, BackupRunEnd, BackupSaved, RunKind};
use parking_lot::{Condvar, Mutex};

use super::error::RunError;

/// The runs of a node.
#[derive(Clone, Default)]
pub struct Runs(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ending: bool,
    now: Option<BackupRun>,
    last: Option<BackupRunEnd>,
}

/// A run that is under way.
pub struct Run {
    runs: Runs,
    /// How it ended, once it has.
    end: BackupRunEnd,
    /// Whether nobody wants it any more.
    unwanted: Box<dyn Fn() -> bool + Send>,
}

impl Runs {
    /// Begins a run, unless there is one. It goes on until `unwanted` says so.
    ///
    /// # Errors
    /// [`RunError::Busy`], [`RunError::Ending`].
    pub fn begin(
        &self,
        target: &str,
        kind: RunKind,
        unwanted: impl Fn() -> bool + Send + 'static,
    ) -> Result<Run, RunError> {
        let mut state = self.0.state.lock();
        if state.ending {
            return Err(RunError::Ending);
        }
        if let Some(now) = &state.now {
            return Err(RunError::Busy { target: now.target.clone() });
        }
        let target = target.to_owned();
        state.now =
            Some(BackupRun { target: target.clone(), kind: kind.into(), since: seconds(), ..BackupRun::default() });
        let end = BackupRunEnd { target, kind: kind.into(), ..BackupRunEnd::default() };
        Ok(Run { runs: self.clone(), end, unwanted: Box::new(unwanted) })
    }

    /// What runs now.
    #[must_use]
    pub fn now(&self) -> Option<BackupRun> {
        self.0.state.lock().now.clone()
    }

    /// How the last one ended.
    #[must_use]
    pub fn last(&self) -> Option<BackupRunEnd> {
        self.0.state.lock().last.clone()
    }

    /// Lets the run end, and begins no other. Waits for that, but not longer than `patience`: it may hang in a place that does
    /// not answer.
    pub fn end(&self, patience: Duration) {
        let mut state = self.0.state.lock();
        state.ending = true;
        self.0.changed.notify_all();
        let _ = self.0.changed.wait_while_for(&mut state, |state| state.now.is_some(), patience);
    }
}

impl Run {
    /// Whether it is still wanted.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        !self.runs.0.state.lock().ending && !(self.unwanted)()
    }

    /// Waits that long, or until the node ends.
    pub fn pause(&self, time: Duration) {
        let mut state = self.runs.0.state.lock();
        let _ = self.runs.0.changed.wait_while_for(&mut state, |state| !state.ending, time);
    }

    /// How far it is.
    pub fn progress(&self, at: BackupProgress) {
        self.change(|now| now.progress = Some(at));
    }

    /// What is archived, by one that follows.
    pub fn saved(&self, saved: BackupSaved) {
        self.change(|now| {
            now.saved = Some(saved);
            now.progress = None;
            now.trouble.clear();
        });
    }

    /// Why it cannot go on at the moment.
    pub fn trouble(&self, message: &str) {
        self.change(|now| message.clone_into(&mut now.trouble));
    }

    /// A backup is complete.
    pub fn done(&mut self, done: BackupDone) {
        self.end.done = Some(done);
    }

    /// It has failed.
    pub fn failed(&mut self, error: &RunError) {
        self.end.error = error.to_string();
    }

    fn change(&self, change: impl FnOnce(&mut BackupRun)) {
        change(self.runs.0.state.lock().now.as_mut().expect("it runs"));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end.error = RunError::Broken.to_string();
        }
        let mut state = self.runs.0.state.lock();
        state.now = None;
        state.last = Some(BackupRunEnd { ended_at: seconds(), ..std::mem::take(&mut self.end) });
        self.runs.0.changed.notify_all();
    }
}

/// The time now, since 1970.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_what_it_did_can_be_told() {
        let runs = Runs::default();
        let mut first = runs.begin("a", RunKind::Full, || false).unwrap();
        assert!(first.goes_on());
        assert!(matches!(runs.begin("b", RunKind::Full, || false), Err(RunError::Busy { target }) if target == "a"));
        first.progress(BackupProgress { done_bytes: 7, ..BackupProgress::default() });
        assert_eq!(runs.now().unwrap().progress.unwrap().done_bytes, 7);
        first.failed(&RunError::Broken);
        drop(first);
        assert_eq!(runs.now(), None);
        assert_eq!(runs.last().unwrap().error, RunError::Broken.to_string());
        let gone = runs.begin("b", RunKind::Follow, || true).unwrap();
        assert!(!gone.goes_on(), "nobody wants it");
        drop(gone);
        assert_eq!((runs.last().unwrap().target.as_str(), runs.last().unwrap().error.as_str()), ("b", ""));
    }

    #[test]
    fn a_node_that_ends_waits_for_the_run_but_not_for_ever() {
        let runs = Runs::default();
        let run = runs.begin("a", RunKind::Full, || false).unwrap();
        runs.end(Duration::from_millis(1));
        assert!(!run.goes_on() && runs.now().is_some());
        let waiter = std::thread::spawn({
            let runs = runs.clone();
            move || runs.end(Duration::from_secs(60))
        });
        drop(run);
        waiter.join().unwrap();
        assert!(matches!(runs.begin("a", RunKind::Full, || false), Err(RunError::Ending)));
    }
}
