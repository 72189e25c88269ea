//! One watcher: from its position to the tip, and on as frames come.

use std::sync::Arc;
use std::time::Duration;

use calamus_engine::feed::{FeedError, FeedPlace, FrameChanges};
use calamus_engine::{Engine, Timeline, TxnId};
use calamus_proto::v1::watch_request::Start;
use calamus_proto::v1::watch_response::Event;
use calamus_proto::v1::{
    Consistency, WatchBegin, WatchEnd, WatchNotHeld, WatchOtherTimeline, WatchPosition, WatchProgress, WatchRequest,
    WatchResponse, watch_end,
};
use calamus_replication::Node;
use calamus_replication::error::{TxnError, reason};
use calamus_replication::execute::range::KeyRange;
use calamus_replication::execute::validate;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::warn;

use super::READ_BYTES;
use super::filter::Filter;
use super::tip::{Look, Reached, SharedTip, Tip, TipEnded};
use crate::status::of_txn_error;

/// How often an idle stream says how far it is, if the client does not say.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// No client is told more often.
const LEAST_HEARTBEAT: Duration = Duration::from_millis(50);
/// Frames of no more bytes become messages on the thread that serves the stream; larger ones on one for such work.
const INLINE_BYTES: usize = 256 << 10;

/// The answer.
pub type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

/// The watches of a node.
#[derive(Clone)]
pub struct Watches {
    node: Node,
    tip: SharedTip,
}

/// How a stream ends, but for the client's going.
enum Ended {
    Gone,
    Told(watch_end::Why),
    Failed(TxnError),
}

impl Watches {
    /// None yet.
    pub fn new(node: Node) -> Watches {
        Watches { node, tip: SharedTip::default() }
    }

    /// Begins a stream. What the position says is looked at within it.
    ///
    /// # Errors
    /// When the request contradicts itself; when nobody can say what is committed now.
    pub async fn start(&self, request: WatchRequest) -> Result<WatchStream, TxnError> {
        let filter = filter_of(&request)?;
        let start = match request.start {
            Some(Start::Now(_)) => {
                let (snapshot, _) = self.node.read(Consistency::Linearizable).await?;
                Start::After(WatchPosition { txn_id: snapshot.txn_id().0, ..WatchPosition::default() })
            }
            Some(start) => start,
            None => {
                return Err(TxnError::invalid(reason::BAD_OPERATION, "say where the watch starts: now, after, oldest"));
            }
        };
        // Before the position is looked for: what is committed from here on, the tip has.
        let engine = self.node.engine();
        let tip = self.tip.hold(engine).map_err(|error| {
            TxnError::not_committed(reason::OVERLOADED, format!("no thread can be started for watches: {error}"))
        })?;
        let heartbeat = match request.heartbeat_ms {
            0 => HEARTBEAT,
            millis => Duration::from_millis(millis.into()).max(LEAST_HEARTBEAT),
        };
        let (sender, receiver) = mpsc::channel(1);
        let watcher = Watcher { node: self.node.clone(), filter: Arc::new(filter), tip, heartbeat, sender };
        tokio::spawn(watcher.run(start));
        Ok(ReceiverStream::new(receiver))
    }
}

fn filter_of(request: &WatchRequest) -> Result<Filter, TxnError> {
    let tree = Some(request.tree.clone()).filter(|tree| !tree.is_empty());
    if let Some(name) = tree.as_deref().filter(|name| !(request.include_system && name.starts_with('$'))) {
        validate::check_tree(name).map_err(|(word, text)| TxnError::invalid(word, text))?;
    }
    let range = KeyRange::from_message(request.range.as_ref())
        .map_err(|(word, text)| TxnError::invalid(word, format!("the range to watch: {text}")))?;
    Ok(Filter { tree, range, keys_only: request.keys_only, include_system: request.include_system })
}

struct Watcher {
    node: Node,
    filter: Arc<Filter>,
    tip: Arc<Tip>,
    heartbeat: Duration,
    sender: mpsc::Sender<Result<WatchResponse, Status>>,
}

impl Watcher {
    async fn run(self, start: Start) {
        let last = match self.follow(start).await {
            Ended::Gone => return,
            Ended::Told(why) => Ok(message(Event::End(WatchEnd { why: Some(why) }))),
            Ended::Failed(error) => Err(of_txn_error(&error)),
        };
        // A client that is gone needs no last word.
        let _ = self.sender.send(last).await;
    }

    async fn follow(&self, start: Start) -> Ended {
        let found = self.blocking(move |engine| place_of(engine, &start)).await;
        let mut place = match found {
            Ok(Ok(place)) => place,
            Ok(Err(why)) | Err(why) => return self.with_members(why),
        };
        let mut reached = self.tip.reached();
        let begin = WatchBegin {
            position: Some(position(self.node.engine(), place.through())),
            node: self.node.engine().identity().name,
            applied_txn: self.node.engine().applied().txn_id.0,
        };
        let mut told = place.through().0;
        if self.send(Event::Begin(begin)).await.is_err() {
            return Ended::Gone;
        }
        let mut beat = Instant::now() + self.heartbeat;
        loop {
            let frames = match self.next_frames(&mut place, &mut reached, beat).await {
                Ok(frames) => frames,
                Err(why) => return self.with_members(why),
            };
            for frame in frames {
                match self.tell(&mut place, frame, &mut told).await {
                    Ok(true) => beat = Instant::now() + self.heartbeat,
                    Ok(false) => {}
                    Err(why) => return self.with_members(why),
                }
            }
            if Instant::now() >= beat {
                if self.send(Event::Progress(self.progress(place.through()))).await.is_err() {
                    return Ended::Gone;
                }
                told = place.through().0;
                beat = Instant::now() + self.heartbeat;
            }
        }
    }

    /// What comes next: from the tip, or from the journal. Nothing if there is none before `beat`.
    async fn next_frames(
        &self,
        place: &mut FeedPlace,
        reached: &mut watch::Receiver<Reached>,
        beat: Instant,
    ) -> Result<Vec<Arc<FrameChanges>>, Ended> {
        let ended = reached.borrow_and_update().ended.clone();
        if ended == Some(TipEnded::Closed) {
            return Err(stopping());
        }
        match self.tip.look(place.next(), READ_BYTES) {
            Look::Frames(frames) => Ok(frames),
            Look::Older => {
                let from = place.clone();
                let frames = self.blocking(move |engine| read(engine, &from)).await??;
                // What is before the tip is there, unless the journal was closed.
                if frames.is_empty() { Err(stopping()) } else { Ok(frames) }
            }
            Look::ToCome => {
                if let Some(TipEnded::Failed(why)) = ended {
                    return Err(unreadable(&why));
                }
                tokio::select! {
                    // An error means that there is no tip any more, and this watcher holds it.
                    _ = reached.changed() => {}
                    () = tokio::time::sleep_until(beat) => {}
                    () = self.sender.closed() => return Err(Ended::Gone),
                }
                Ok(Vec::new())
            }
        }
    }

    /// Tells the client what it wants of a frame; whether that was anything. `told` is the position that it knows.
    async fn tell(&self, place: &mut FeedPlace, frame: Arc<FrameChanges>, told: &mut u64) -> Result<bool, Ended> {
        let new = place.take(&frame).map_err(ended)?.len();
        if new == 0 {
            return Ok(false);
        }
        let (filter, follows) = (self.filter.clone(), *told);
        let bytes = frame.frame().frame_bytes();
        let make = move || filter.messages(&frame, frame.last(new), follows);
        let messages = if bytes <= INLINE_BYTES { make() } else { self.blocking(move |_| make()).await? };
        let any = !messages.is_empty();
        for transaction in messages {
            *told = transaction.txn_id;
            self.send(Event::Transaction(transaction)).await?;
        }
        Ok(any)
    }

    fn progress(&self, through: TxnId) -> WatchProgress {
        WatchProgress { txn_id: through.0, read_point: Some(self.node.local_point()) }
    }

    async fn send(&self, event: Event) -> Result<(), Ended> {
        self.sender.send(Ok(message(event))).await.map_err(|_| Ended::Gone)
    }

    /// Work that may wait for the disk, on a thread for that.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Engine) -> T + Send + 'static) -> Result<T, Ended> {
        let engine = self.node.engine().clone();
        tokio::task::spawn_blocking(move || work(&engine)).await.map_err(|_| {
            let what = "the watch broke off inside the node; see its log, and watch on another one";
            Ended::Failed(TxnError::not_committed(reason::STORAGE, what))
        })
    }

    /// Who may hold what this node does not.
    fn with_members(&self, ended: Ended) -> Ended {
        match ended {
            Ended::Told(watch_end::Why::NotHeld(not_held)) => {
                let this = self.node.engine().identity().raft_id.0;
                let members = self.node.members().into_iter().filter(|member| member.raft_id != this).collect();
                Ended::Told(watch_end::Why::NotHeld(WatchNotHeld { members, ..not_held }))
            }
            other => other,
        }
    }
}

fn stopping() -> Ended {
    let text = "this node ends; watch on another one, from the last position";
    Ended::Failed(TxnError::not_committed(reason::STOPPING, text))
}

fn unreadable(why: &dyn std::fmt::Display) -> Ended {
    let text = format!("this node cannot go on with its journal: {why}; watch on another one, from the last position");
    Ended::Failed(TxnError::not_committed(reason::STORAGE, text))
}

fn message(event: Event) -> WatchResponse {
    WatchResponse { event: Some(event) }
}

fn position(engine: &Engine, txn_id: TxnId) -> WatchPosition {
    let database_id = engine.database_id().to_string();
    WatchPosition { database_id, timeline: engine.timeline().0, txn_id: txn_id.0 }
}

/// Where the watch begins.
fn place_of(engine: &Engine, start: &Start) -> Result<FeedPlace, Ended> {
    let Start::After(after) = start else { return engine.feed_oldest().map_err(|error| of_feed(engine, error)) };
    let timeline = engine.timeline();
    let same_database = after.database_id.is_empty() || after.database_id == engine.database_id().to_string();
    if same_database && (after.timeline == 0 || after.timeline == timeline.0) {
        return engine.feed_after(TxnId(after.txn_id)).map_err(|error| of_feed(engine, error));
    }
    let forked = if same_database { engine.forked_from(Timeline(after.timeline)) } else { Ok(None) };
    let forked = forked.map_err(|error| {
        Ended::Failed(TxnError::not_committed(reason::STORAGE, format!("the timelines cannot be read: {error}")))
    })?;
    Err(Ended::Told(watch_end::Why::OtherTimeline(WatchOtherTimeline {
        database_id: engine.database_id().to_string(),
        timeline: timeline.0,
        forked_at_txn: forked.map(|txn_id| txn_id.0),
        applied_txn: engine.applied().txn_id.0,
    })))
}

/// Frames of the journal, decoded.
fn read(engine: &Engine, from: &FeedPlace) -> Result<Vec<Arc<FrameChanges>>, Ended> {
    let frames = engine.committed_frames(from, READ_BYTES).map_err(|error| of_feed(engine, error))?;
    let decoded = frames.into_iter().map(|frame| FrameChanges::decode(frame).map(Arc::new));
    decoded.collect::<Result<_, _>>().map_err(|error| {
        warn!(%error, "a frame cannot be read as changes");
        unreadable(&error)
    })
}

fn of_feed(engine: &Engine, error: FeedError) -> Ended {
    match error {
        FeedError::NotHeld { oldest, .. } => {
            let oldest = Some(position(engine, oldest));
            Ended::Told(watch_end::Why::NotHeld(WatchNotHeld { oldest, members: Vec::new() }))
        }
        // Seeded with what does not follow what was read: the watcher begins anew from its position, which says what is what.
        other => ended(other),
    }
}

fn ended(error: FeedError) -> Ended {
    let text = format!("{error}; watch again from the last position, here or on another node");
    Ended::Failed(TxnError::not_committed(reason::STORAGE, text))
}
