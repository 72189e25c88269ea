//! A scan as it arrives: one snapshot of one node, chunk by chunk, never held whole.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use calamus_proto::v1::{Entry, Range, ReadPoint, ScanRequest, ScanResponse};
use futures::stream::{BoxStream, Stream, StreamExt};
use tonic::{Code, Streaming};

use crate::client::Client;
use crate::nodes::Node;
use crate::outcome::{Failure, ReadError};
use crate::read::ReadAs;
use crate::retry::Refusal;

/// What a scan returns, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScanOptions {
    /// The range; all keys by default. See [`crate::range`].
    pub range: Range,
    /// The most entries; 0 is no limit.
    pub limit: u64,
    /// Backwards.
    pub reverse: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Linearizable by default.
    pub read: ReadAs,
}

/// The entries of a scan, in order. All are of one snapshot; so a scan that breaks after its first chunk ends in an error and is
/// not silently gone on with at another snapshot.
pub struct ScanStream {
    read_point: ReadPoint,
    entries: BoxStream<'static, Result<Entry, ReadError>>,
}

impl ScanStream {
    /// Where the read stands.
    pub fn read_point(&self) -> &ReadPoint {
        &self.read_point
    }
}

impl std::fmt::Debug for ScanStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScanStream").field("read_point", &self.read_point).finish_non_exhaustive()
    }
}

impl Stream for ScanStream {
    type Item = Result<Entry, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.entries.poll_next_unpin(context)
    }
}

impl Client {
    /// Reads a range. Until the first chunk is here, failures are retried as for other reads.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn scan(&self, tree: impl Into<String>, options: ScanOptions) -> Result<ScanStream, ReadError> {
        let ScanOptions { range, limit, reverse, keys_only, read } = options;
        let (tree, consistency, at_least) = (tree.into(), read.consistency.into(), Some(read.at_least));
        let request = ScanRequest { tree, range: Some(range), limit, reverse, consistency, keys_only, at_least };
        let begin = |node: Node, _| {
            let request = request.clone();
            async move {
                let mut chunks = node.kv().scan(request).await?.into_inner();
                let first = chunks.message().await?;
                let first = first.ok_or_else(|| tonic::Status::unavailable("the scan ended before its first chunk"))?;
                Ok((node.address, first, chunks))
            }
        };
        let (address, first, chunks) = self.read(begin).await?;
        let read_point = first.read_point.clone().unwrap_or_default();
        let gap = self.options().attempt_timeout;
        let first = futures::stream::iter(first.entries.into_iter().map(Ok));
        let entries = first.chain(rest(address, chunks, gap)).boxed();
        Ok(ScanStream { read_point, entries })
    }
}

/// The entries of the chunks after the first.
fn rest(
    address: String,
    chunks: Streaming<ScanResponse>,
    gap: Duration,
) -> impl Stream<Item = Result<Entry, ReadError>> + Send + 'static {
    let next = move |state: Option<(String, Streaming<ScanResponse>)>| async move {
        let (address, mut chunks) = state?;
        let chunk: Result<Option<ScanResponse>, Refusal> = match tokio::time::timeout(gap, chunks.message()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(status)) => Err(Refusal::of(&status, &address)),
            Err(_) => Err(Refusal::silent(&address, gap)),
        };
        match chunk {
            Ok(None) => None,
            Ok(Some(chunk)) => {
                let entries: Vec<_> = chunk.entries.into_iter().map(Ok).collect();
                Some((futures::stream::iter(entries), Some((address, chunks))))
            }
            Err(refusal) => Some((futures::stream::iter(vec![Err(broken(refusal.failure))]), None)),
        }
    };
    futures::stream::unfold(Some((address, chunks)), next).flatten()
}

fn broken(failure: Failure) -> ReadError {
    let message = format!("the scan broke off: {}; begin it again after the last key received", failure.message);
    let code = if failure.code == Code::Ok { Code::Unavailable } else { failure.code };
    ReadError(Failure { message, code, ..failure })
}
