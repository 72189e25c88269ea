//! Backups in a bucket of an S3-compatible service.
//!
//! The door to places ([`BackupStore`]) is synchronous, because the engine is; the library that speaks to buckets is not. So
//! a store has a runtime of its own, with one thread: what is encrypted and sent for a backup, megabytes of it, never waits
//! behind or before the consensus of a node on the node's runtime, and it goes on while that one ends. Whoever calls waits
//! for it, and is therefore no thread of a runtime: a command's own, or one that is kept for blocking work.
//!
//! Of what the door promises, and by what it is kept:
//!
//! | promise | kept by |
//! | --- | --- |
//! | an object is there whole or not at all | a small one is one PUT; a large one an upload in pieces, which is seen once it is completed |
//! | durable on return | that is what the answer to the PUT, or to the completion, means |
//! | a writer that is dropped leaves nothing | the upload is aborted. A process that is killed leaves its pieces, which no listing shows and the service keeps: the bucket should have a rule that removes incomplete uploads |
//! | no object behind the end of a read | a read that the service refuses is compared with the object's length |
//!
//! Memory: one piece that fills and [`PIECES_UNDER_WAY`] that are sent, of [`PIECE_BYTES`] each.
//!
//! Where the service is, and who asks, is said by the environment: `AWS_ENDPOINT_URL` (or `AWS_ENDPOINT`), `AWS_REGION`,
//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ALLOW_HTTP=true` for a service without TLS, and whatever else
//! `object_store` reads there. A request that fails for a reason that may pass (5xx, a connection that breaks) is made
//! again, see [`Patience`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use calamus_engine::backup::{BackupStore, ObjectInfo, ObjectWriter, StoreError};
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{BackoffConfig, Error, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use crate::failure::Failure;

/// The least that the pieces of an upload may have, but for the last one.
pub const PIECE_BYTES: usize = 5 << 20;
/// So many pieces are sent at once.
pub const PIECES_UNDER_WAY: usize = 3;

/// How often a request is made again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How many times, after the first.
    pub retries: usize,
    /// The wait before the first of them; it doubles.
    pub first_wait: Duration,
}

impl Default for Patience {
    /// About a quarter of a minute. A backup that is given up then goes on where it was when it is asked for again.
    fn default() -> Self {
        Self { retries: 8, first_wait: Duration::from_millis(100) }
    }
}

/// Runs what waits for the service.
struct Waiting(Option<Runtime>);

impl Waiting {
    fn new() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Ok(Self(Some(builder.worker_threads(1).thread_name("object-store").enable_all().build()?)))
    }

    /// Waits for an answer.
    ///
    /// # Panics
    /// On a thread of a runtime, which must not wait.
    fn on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("there until it is dropped").block_on(future)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Without waiting: this may be the thread of another runtime. Nothing is under way that anybody waits for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A bucket, or what stands under a prefix in it.
pub struct BucketStore {
    waiting: Arc<Waiting>,
    bucket: Arc<AmazonS3>,
    prefix: Path,
}

impl BucketStore {
    /// The objects under `prefix` of a bucket. Nothing is asked of the service yet.
    ///
    /// # Errors
    /// When the environment does not say how to reach it.
    pub fn open(bucket: &str, prefix: &str, patience: Patience) -> Result<Self, Failure> {
        Self::with(AmazonS3Builder::from_env(), bucket, prefix, patience)
    }

    /// As [`Self::open`], with what `builder` says in place of the environment.
    ///
    /// # Errors
    /// As there.
    pub fn with(builder: AmazonS3Builder, bucket: &str, prefix: &str, patience: Patience) -> Result<Self, Failure> {
        // Refused if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let backoff =
            BackoffConfig { init_backoff: patience.first_wait, max_backoff: Duration::from_secs(5), base: 2.0 };
        let retry = RetryConfig { backoff, max_retries: patience.retries, retry_timeout: Duration::from_secs(120) };
        let built = builder.with_bucket_name(bucket).with_retry(retry).build().map_err(|error| {
            Failure::new(
                format!("cannot use the bucket {bucket}"),
                error,
                "check the environment: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
            )
        })?;
        let prefix = Path::parse(prefix).map_err(|error| {
            Failure::new(format!("cannot use the prefix `{prefix}` of a bucket"), error, "choose another one")
        })?;
        let waiting = Waiting::new().map_err(|error| {
            Failure::new("cannot start a thread", error, "check the limits of this user (`ulimit -a`)")
        })?;
        Ok(Self { waiting: Arc::new(waiting), bucket: Arc::new(built), prefix })
    }

    fn place(&self, name: &str) -> Path {
        self.prefix.parts().chain(Path::from(name).parts()).collect()
    }
}

fn failed(operation: &'static str, name: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Other { operation, name: name.to_owned(), message: error.to_string() }
}

impl BackupStore for BucketStore {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let bucket: Arc<dyn ObjectStore> = self.bucket.clone();
        let writer = BufWriter::with_capacity(bucket, self.place(name), PIECE_BYTES);
        let writer = writer.with_max_concurrency(PIECES_UNDER_WAY);
        Ok(Box::new(Writer { waiting: self.waiting.clone(), writer: Some(writer), name: name.to_owned() }))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let put = self.waiting.on(self.bucket.put(&self.place(name), Bytes::copy_from_slice(bytes).into()));
        put.map(|_| ()).map_err(|error| failed("the writing", name, &error))
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let place = self.place(name);
        let read = self.waiting.on(async {
            let read = self.bucket.get_range(&place, offset..offset.saturating_add(length as u64)).await;
            match read {
                Err(Error::NotFound { .. }) | Ok(_) => read,
                // A range that begins at the end, or behind it, is refused by some services: it has no bytes.
                Err(error) => match self.bucket.head(&place).await {
                    Ok(object) if object.size <= offset => Ok(Bytes::new()),
                    _ => Err(error),
                },
            }
        });
        match read {
            Ok(bytes) => Ok(bytes.into()),
            Err(Error::NotFound { .. }) => Err(StoreError::NotFound { name: name.to_owned() }),
            Err(error) => Err(failed("the reading", name, &error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        // The service lists by whole parts of names; the rest is chosen here.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let within = self.place(folder);
        let listed = self.waiting.on(self.bucket.list(Some(&within)).try_collect::<Vec<_>>());
        let listed = listed.map_err(|error| failed("the listing", prefix, &error))?;
        let mut found: Vec<_> = listed
            .into_iter()
            .filter_map(|object| {
                let parts: Vec<_> = object.location.prefix_match(&self.prefix)?.collect();
                let name = parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/");
                name.starts_with(prefix).then_some(ObjectInfo { name, bytes: object.size })
            })
            .collect();
        found.sort();
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.waiting.on(self.bucket.delete(&self.place(name))) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("the removal", name, &error)),
        }
    }
}

struct Writer {
    waiting: Arc<Waiting>,
    /// There until it was finished.
    writer: Option<BufWriter>,
    name: String,
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let writer = self.writer.as_mut().expect("not finished");
        let put = self.waiting.on(writer.put(Bytes::copy_from_slice(bytes)));
        put.map_err(|error| failed("the writing", &self.name, &error))
    }

    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        let mut writer = self.writer.take().expect("it is finished once");
        // A completion that fails aborts the upload.
        self.waiting.on(writer.shutdown()).map_err(|error| failed("the writing", &self.name, &error))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take() else { return };
        if let Err(error) = self.waiting.on(writer.abort()) {
            tracing::warn!(%error, object = self.name, "an unfinished upload was not aborted; the bucket's rule removes it");
        }
    }
}
