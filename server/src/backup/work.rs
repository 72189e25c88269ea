//! What a run does: one backup, or following the journal without an end.
//!
//! A run that follows goes through what would end another: where no increment can follow it makes a full backup, and follows
//! that; while the place does not take what it is given, it says so and tries again after [`RETRY`], from the newest backup
//! there. What cannot pass by itself (the backups are of another cluster, somebody else writes there) ends it.
//! When it is not wanted any more it archives what was committed until then, and seals the backup that grows.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use calamus_engine::Engine;
use calamus_engine::backup::{
    BackupError, BackupProgress, BackupReport, Backups, ChainError, Followed, Follower, StoreError,
};
use calamus_engine::ids::LogIndex;
use calamus_proto::v1::backup_event::Event;
use calamus_proto::v1::{BackupSaved, BackupTrouble, RunKind};

use super::describe;
use super::error::RunError;
use super::runs::Run;

/// How long a run that follows waits before it tries a place again that has failed.
pub const RETRY: Duration = Duration::from_secs(1);
/// How often it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);
/// How long it reads on when it is not wanted any more.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Does the work of `run`, and tells of it. Whoever is told may be gone: then the run is not wanted any more.
///
/// # Errors
/// [`BackupError::Stopped`] when it was not wanted any more; those of the node and of the place.
pub fn work(
    run: &mut Run,
    engine: &Engine,
    backups: &Backups,
    kind: RunKind,
    every: Duration,
    tell: &mut dyn FnMut(Event),
) -> Result<(), RunError> {
    match kind {
        RunKind::Full => once(run, tell, |on_progress| backups.full(engine, on_progress)),
        RunKind::Incremental => once(run, tell, |on_progress| backups.incremental(engine, on_progress)),
        RunKind::Follow => follow(run, engine, backups, every, tell),
        RunKind::Unspecified => {
            Err(RunError::Invalid("the kind of the run is not said; it is full, incremental or follow".to_owned()))
        }
    }
}

/// One backup.
fn once(
    run: &mut Run,
    tell: &mut dyn FnMut(Event),
    make: impl FnOnce(&mut dyn FnMut(BackupProgress) -> ControlFlow<()>) -> Result<BackupReport, BackupError>,
) -> Result<(), RunError> {
    let mut on_progress = |at: BackupProgress| {
        let at = describe::progress(&at);
        run.progress(at.clone());
        tell(Event::Progress(at));
        if run.goes_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let report = make(&mut on_progress)?;
    let done = describe::done(&report);
    run.done(done.clone());
    tell(Event::Done(done));
    Ok(())
}

fn follow(
    run: &mut Run,
    engine: &Engine,
    backups: &Backups,
    every: Duration,
    tell: &mut dyn FnMut(Event),
) -> Result<(), RunError> {
    loop {
        match follow_until_it_fails(run, engine, backups, every, tell) {
            Err(RunError::Backup(error)) if passes(&error) => {
                let message = error.to_string();
                tracing::warn!(why = message, "the journal cannot be archived at the moment; trying on");
                run.trouble(&message);
                tell(Event::Trouble(BackupTrouble { message }));
                run.pause(RETRY);
                if !run.goes_on() {
                    return Err(error.into());
                }
            }
            ended => return ended,
        }
    }
}

/// Whether a new attempt may do better.
fn passes(error: &BackupError) -> bool {
    match error {
        BackupError::Chain(ChainError::Store(StoreError::Storage(error))) => error.damage().is_none(),
        BackupError::Chain(ChainError::Store(_))
        | BackupError::Seed(_)
        | BackupError::Pin(_)
        | BackupError::Tail(_) => true,
        _ => false,
    }
}

fn follow_until_it_fails(
    run: &mut Run,
    engine: &Engine,
    backups: &Backups,
    every: Duration,
    tell: &mut dyn FnMut(Event),
) -> Result<(), RunError> {
    while run.goes_on() {
        let Ok(mut follower) = backups.follow(engine, every)? else {
            // It finds the same reason again, and says it in its report.
            once(run, tell, |on_progress| backups.incremental(engine, on_progress))?;
            continue;
        };
        loop {
            if !run.goes_on() {
                return end(&mut follower, engine);
            }
            match follower.step(LOOK.min(every))? {
                Followed::Saved(at) => {
                    let position = describe::log_id(at.log_id());
                    let saved = BackupSaved { position, txn_id: at.txn_id };
                    run.saved(saved);
                    tell(Event::Saved(saved));
                }
                Followed::Nothing => {}
                Followed::FullDue(why) => {
                    tracing::info!(%why, "a full backup is due");
                    break;
                }
                Followed::Closed => return Err(RunError::Ending),
            }
        }
    }
    Ok(())
}

/// Archives what this node has applied, and seals the backup.
fn end(follower: &mut Follower<'_>, engine: &Engine) -> Result<(), RunError> {
    let until = engine.applied().log_id.map_or(LogIndex(0), |at| at.index.next());
    // Bounded, because the node's disk may hang: an entry may be applied here before it is durable here.
    let patience = Instant::now() + END_LIMIT;
    while follower.next_index() < until && Instant::now() < patience {
        match follower.step(LOOK)? {
            Followed::Saved(_) | Followed::Nothing => {}
            Followed::FullDue(_) | Followed::Closed => return Ok(()),
        }
    }
    Ok(follower.end()?)
}
