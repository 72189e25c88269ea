//! `calamus.v1.Backup`: backups of this node, whichever it is in the cluster.
//!
//! A run is blocking work and gets a thread for that. Its client is told through a bounded channel: what only says how far it
//! is may be left out when the client is slow, what says that something is done waits for it. A run ends with its client:
//! nobody has to find and stop one that somebody else forgot, and what an interrupted one has written is not lost
//! (`calamus_engine::backup`). Looking at a target is blocking work as well.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use calamus_engine::Engine;
use calamus_proto::v1::backup_event::Event;
use calamus_proto::v1::backup_server::Backup;
use calamus_proto::v1::{
    BackupEvent, BackupStatusRequest, BackupStatusResponse, BackupStreamRequest, BackupTarget, ListBackupsRequest,
    ListBackupsResponse, RunBackupRequest,
};
use calamus_replication::Node;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::seed_stream::{self, SeedStream};
use crate::backup::describe;
use crate::backup::error::RunError;
use crate::backup::place::PlaceUrl;
use crate::backup::runs::Runs;
use crate::backup::targets::Targets;
use crate::backup::work::work;
use crate::status::of_run_error;

/// Events that may wait for a client.
const EVENTS: usize = 16;
/// How often a client is told how far a run is.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// What is committed is archived so long after, if the client does not say.
const FOLLOW_EVERY: Duration = Duration::from_secs(5);

/// The service of one node.
pub struct BackupService {
    node: Node,
    targets: Targets,
    runs: Runs,
}

impl BackupService {
    /// Makes backups of `node`.
    pub fn new(node: Node, targets: Targets, runs: Runs) -> BackupService {
        BackupService { node, targets, runs }
    }
}

/// Runs blocking work on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, RunError> + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or(Err(RunError::Broken));
    done.map_err(|error| of_run_error(&error))
}

#[tonic::async_trait]
impl Backup for BackupService {
    type RunStream = ReceiverStream<Result<BackupEvent, Status>>;
    type StreamStream = SeedStream;

    async fn run(&self, request: Request<RunBackupRequest>) -> Result<Response<Self::RunStream>, Status> {
        let request = request.into_inner();
        let (sender, receiver) = mpsc::channel(EVENTS);
        let (engine, targets) = (self.node.engine().clone(), self.targets.clone());
        self.targets.place(&request.target).map_err(|error| of_run_error(&error))?;
        let begun = {
            let gone = sender.clone();
            self.runs.begin(&request.target, request.kind(), move || gone.is_closed())
        };
        let run = begun.map_err(|error| of_run_error(&error))?;
        tokio::task::spawn_blocking(move || serve_run(run, &engine, &targets, &request, &sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list(&self, request: Request<ListBackupsRequest>) -> Result<Response<ListBackupsResponse>, Status> {
        let (targets, target) = (self.targets.clone(), request.into_inner().target);
        let found = blocking(move || Ok(describe::catalog(&targets.open(&target, None)?.list()?))).await?;
        Ok(Response::new(found))
    }

    async fn status(&self, _: Request<BackupStatusRequest>) -> Result<Response<BackupStatusResponse>, Status> {
        let targets = self.targets.clone();
        let looked = blocking(move || Ok(targets.iter().map(|(name, place)| look(&targets, name, place)).collect()));
        let targets = looked.await?;
        let (running, last) = (self.runs.now(), self.runs.last());
        Ok(Response::new(BackupStatusResponse { node: self.node.engine().identity().name, targets, running, last }))
    }

    async fn stream(&self, request: Request<BackupStreamRequest>) -> Result<Response<SeedStream>, Status> {
        let stream = seed_stream::start(self.node.engine().clone(), request.into_inner());
        Ok(Response::new(stream.map_err(|error| of_run_error(&error))?))
    }
}

/// A run from its beginning to its end, on a thread of its own.
fn serve_run(
    mut run: crate::backup::runs::Run,
    engine: &Engine,
    targets: &Targets,
    request: &RunBackupRequest,
    sender: &mpsc::Sender<Result<BackupEvent, Status>>,
) {
    let (target, kind) = (&request.target, request.kind());
    let limit = Some(request.bytes_per_second).filter(|limit| *limit > 0);
    let every = match request.every_ms {
        0 => FOLLOW_EVERY,
        millis => Duration::from_millis(millis.into()),
    };
    info!(target, kind = kind.as_str_name(), "a backup begins");
    let mut told: Option<Instant> = None;
    let mut tell = |event: Event| {
        let may_be_left_out = matches!(event, Event::Progress(_) | Event::Saved(_));
        if matches!(event, Event::Progress(_)) {
            if told.is_some_and(|at| at.elapsed() < TELL_EVERY) {
                return;
            }
            told = Some(Instant::now());
        }
        let event = Ok(BackupEvent { event: Some(event) });
        // A client that is gone is noticed by the run itself.
        let _ = if may_be_left_out { sender.try_send(event).is_ok() } else { sender.blocking_send(event).is_ok() };
    };
    let ended =
        targets.open(target, limit).and_then(|backups| work(&mut run, engine, &backups, kind, every, &mut tell));
    match ended {
        Ok(()) => info!(target, "the backup has ended"),
        Err(error) => {
            warn!(target, why = %error, "the backup has failed");
            run.failed(&error);
            // Another may begin as soon as this one's client knows that it has ended.
            drop(run);
            let _ = sender.blocking_send(Err(of_run_error(&error)));
        }
    }
}

/// How a target is.
fn look(targets: &Targets, name: &str, place: &PlaceUrl) -> BackupTarget {
    let mut target = BackupTarget { name: name.to_owned(), url: place.to_string(), ..BackupTarget::default() };
    match targets.open(name, None).and_then(|backups| Ok(backups.list()?)) {
        Ok(catalog) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            target.newest = describe::newest(&catalog);
            let age = |as_of| now.saturating_sub(Duration::from_micros(as_of)).as_secs();
            target.age_seconds = target.newest.as_ref().map(|newest| age(newest.as_of_micros));
            target.problems = catalog.problems.len() as u64;
        }
        Err(error) => target.error = error.to_string(),
    }
    target
}
