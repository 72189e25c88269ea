//! What this node receives: fed to the engine's receiver by a thread for blocking work, left as it is when the stream ends
//! early, and verified when it is complete.
//!
//! Memory: the chunks that wait between the network and the disk, of which each is a message at most.

use std::collections::BTreeSet;
use std::time::Duration;

use calamus_engine::Engine;
use calamus_engine::ids::LogId;
use calamus_engine::page::PAGE_BYTES;
use calamus_engine::seed::{SeedChunk, SeedError, SeedManifest, SeedProgress, SeedReceiver, SeedResume, VerifiedSeed};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Seeded, SeedingError};
use crate::state_machine::meta_of;

/// Chunks that wait between the network and the disk.
const CHUNKS_WAITING: usize = 2;
/// Looks at how far a verification is, in each stall limit.
const LOOKS: u32 = 4;
/// Between two of them, at least.
const LOOK_LEAST: Duration = Duration::from_millis(1);

/// A generation that is being filled.
pub(crate) struct Filling {
    content: Content,
    /// Received of all streams, in bytes.
    received: u64,
    /// The length of the source's data file, in bytes; 0 before it is known.
    total: u64,
    /// The raft ids of the nodes that something came from.
    fed_by: BTreeSet<u64>,
}

enum Content {
    Receiver(Box<SeedReceiver>),
    Verified(Box<VerifiedSeed>),
    /// Something went wrong with it, so it was dropped.
    Gone,
}

/// Who watches a seeding: is told the bytes received and the source's with each chunk, and while it is
/// verified as long as there is progress.
pub(crate) struct Watch<'w> {
    pub(crate) at_least: LogId,
    /// A source that sends nothing for so long has failed.
    pub(crate) stall_limit: Duration,
    pub(crate) progress: &'w (dyn Fn(u64, u64) + Sync),
}

fn unusable(error: SeedError) -> SeedingError {
    SeedingError::Unusable(error.to_string())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SeedingError> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| SeedingError::Unusable(panic.to_string()))
}

impl Filling {
    /// Takes the engine's one receiver.
    ///
    /// # Errors
    /// [`SeedingError::Busy`] while another seeding has it, perhaps one whose task has gone; those of the disk.
    pub(crate) async fn begin(engine: &Engine) -> Result<Self, SeedingError> {
        let engine = engine.clone();
        let taken = blocking(move || engine.seed_receiver()).await?;
        let receiver = taken.map_err(|error| match error {
            SeedError::Busy => SeedingError::Busy,
            error => unusable(error),
        })?;
        Ok(Self { content: Content::Receiver(Box::new(receiver)), received: 0, total: 0, fed_by: BTreeSet::new() })
    }

    /// Nothing.
    pub(crate) fn gone() -> Self {
        Self { content: Content::Gone, received: 0, total: 0, fed_by: BTreeSet::new() }
    }

    /// Whether nothing can come of it any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.content, Content::Gone)
    }

    /// Notes whom the next stream comes from.
    pub(crate) fn fed_by(&mut self, source: u64) {
        self.fed_by.insert(source);
    }

    /// Whom something came from.
    pub(crate) fn sources(&self) -> impl Iterator<Item = u64> + '_ {
        self.fed_by.iter().copied()
    }

    /// Received of all streams, in bytes.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The term of its last entry, if it is verified.
    pub(crate) fn term(&self) -> Option<u64> {
        match &self.content {
            Content::Verified(verified) => verified.applied().log_id.map(|last| last.term.0),
            _ => None,
        }
    }

    /// Whether it is verified, and reaches so far.
    pub(crate) fn reaches(&self, at_least: LogId) -> bool {
        match &self.content {
            Content::Verified(verified) => {
                verified.applied().log_id.is_some_and(|reached| reached.index >= at_least.index)
            }
            _ => false,
        }
    }

    /// Where another stream goes on; `None` for one from the beginning.
    ///
    /// # Errors
    /// Those of the disk; it is gone then.
    pub(crate) async fn resume(&mut self) -> Result<Option<SeedResume>, SeedingError> {
        let content = std::mem::replace(&mut self.content, Content::Gone);
        let receiver = blocking(move || match content {
            Content::Receiver(receiver) => Ok(Some(receiver)),
            Content::Verified(verified) => verified.reopen().map(|receiver| Some(Box::new(receiver))),
            Content::Gone => Ok(None),
        });
        let Some(mut receiver) = receiver.await?.map_err(unusable)? else { return Ok(None) };
        let resume = receiver.resume();
        self.content = Content::Receiver(receiver);
        Ok(resume)
    }

    /// Feeds a stream until it ends. Returns whether it was done, which says that it reaches as far as is wanted.
    ///
    /// # Errors
    /// Why it came to no end; unless it is gone, it goes on from there. What `cut` says, if that comes first.
    pub(crate) async fn feed(
        &mut self,
        stream: impl Stream<Item = Result<SeedChunk, SeedingError>>,
        watch: &Watch<'_>,
        cut: impl Future<Output = SeedingError>,
    ) -> Result<bool, SeedingError> {
        let Content::Receiver(receiver) = std::mem::replace(&mut self.content, Content::Gone) else {
            return Err(SeedingError::Unusable("what was received is lost".to_owned()));
        };
        let (sender, mut chunks) = mpsc::channel::<SeedChunk>(CHUNKS_WAITING);
        let feeding = tokio::task::spawn_blocking(move || {
            let mut receiver = receiver;
            while let Some(chunk) = chunks.blocking_recv() {
                receiver.feed(chunk)?;
            }
            Ok(receiver)
        });
        let pumped = tokio::select! {
            pumped = self.pump(stream, sender, watch) => pumped,
            why = cut => Err(why),
        };
        // What was sent is fed, whatever became of the stream.
        let fed = feeding.await.map_err(|panic| SeedingError::Unusable(panic.to_string()))?;
        self.content = Content::Receiver(fed.map_err(unusable)?);
        pumped
    }

    async fn pump(
        &mut self,
        stream: impl Stream<Item = Result<SeedChunk, SeedingError>>,
        sender: mpsc::Sender<SeedChunk>,
        watch: &Watch<'_>,
    ) -> Result<bool, SeedingError> {
        let mut stream = std::pin::pin!(stream);
        loop {
            let next = tokio::time::timeout(watch.stall_limit, stream.next()).await;
            let chunk = match next.map_err(|_| SeedingError::Stalled(watch.stall_limit))? {
                Some(chunk) => chunk?,
                None => return Ok(false),
            };
            self.received += chunk.carried_bytes();
            if let SeedChunk::Manifest(bytes) = &chunk
                && let Ok(manifest) = SeedManifest::decode(bytes)
            {
                self.total = u64::from(manifest.page_count) * PAGE_BYTES as u64;
            }
            (watch.progress)(self.received, self.total);
            let done = match &chunk {
                SeedChunk::Done { last, .. } => {
                    let reached = last.filter(|last| last.index >= watch.at_least.index);
                    // Not fed: it can still go on.
                    reached.ok_or(SeedingError::TooOld { got: *last, wanted: watch.at_least })?;
                    true
                }
                _ => false,
            };
            // A closed channel means that the engine refused a chunk; the feeding thread knows why.
            if sender.send(chunk).await.is_err() || done {
                return Ok(done);
            }
        }
    }

    /// Verifies what was received. It takes as long as it takes, whether somebody waits for it or not.
    ///
    /// # Errors
    /// Why it is not usable; it is gone then.
    pub(crate) async fn verify(&mut self, watch: &Watch<'_>) -> Result<(), SeedingError> {
        let Content::Receiver(receiver) = std::mem::replace(&mut self.content, Content::Gone) else {
            return Err(SeedingError::Unusable("what was received is lost".to_owned()));
        };
        let steps = receiver.progress();
        let verifying = tokio::task::spawn_blocking(move || receiver.verify());
        let (received, total) = (self.received, self.total);
        let verified = watched(verifying, &steps, watch.stall_limit, || (watch.progress)(received, total)).await?;
        self.content = Content::Verified(Box::new(verified));
        Ok(())
    }

    /// What is to be switched in, if it is verified.
    ///
    /// # Errors
    /// When it is not, or its membership cannot be read.
    pub(crate) fn finish(self) -> Result<Seeded, SeedingError> {
        let Content::Verified(verified) = self.content else {
            return Err(SeedingError::Unusable("it is not verified".to_owned()));
        };
        let meta = meta_of(&verified.applied()).map_err(|error| SeedingError::Unusable(error.to_string()))?;
        Ok(Seeded { verified: *verified, meta, bytes: self.received })
    }
}

/// Waits for the verified generation, and says now and then that there was progress with it, if there was.
async fn watched(
    mut verifying: JoinHandle<Result<VerifiedSeed, SeedError>>,
    steps: &SeedProgress,
    stall_limit: Duration,
    progress: impl Fn(),
) -> Result<VerifiedSeed, SeedingError> {
    let mut look = tokio::time::interval((stall_limit / LOOKS).max(LOOK_LEAST));
    let mut seen = steps.steps();
    loop {
        tokio::select! {
            verified = &mut verifying => {
                return verified.map_err(|panic| SeedingError::Unusable(panic.to_string()))?.map_err(unusable);
            }
            _ = look.tick() => {
                let before = std::mem::replace(&mut seen, steps.steps());
                if seen != before {
                    progress();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use calamus_engine::env::RealDisk;

    use super::*;
    use crate::tests::support;

    #[tokio::test]
    async fn a_seeding_is_busy_as_long_as_anybody_holds_the_receiver() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let identity = support::identity(1, "n", "h:1");
        let engine = support::create(Arc::new(RealDisk::new()), &directory.path().join("n"), &identity);
        let held = Filling::begin(&engine).await.expect("nobody has it");
        assert!(matches!(Filling::begin(&engine).await, Err(SeedingError::Busy)));
        drop(held);
        assert!(Filling::begin(&engine).await.is_ok());
    }
}
