//! Reading and writing by way of one node alone, where a client would go to whichever answers.

use std::time::Duration;

use bytes::Bytes;
use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::kv_client::KvClient;
use calamus_proto::v1::{Entry, GetRequest, GetResponse, Operation, Put, ScanRequest, TxnRequest, operation};
use tonic::transport::Channel;

use super::Cluster;

/// How long a node may take for one answer of data, or the next piece of a longer one: a node gives up by itself before.
const ANSWER: Duration = Duration::from_secs(30);

/// An answer, or an error in its place if it takes too long: a hanging node must fail its test, not hold it up.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, tonic::Status> {
    let late = |_| Err(tonic::Status::deadline_exceeded(format!("no answer within {} s", ANSWER.as_secs())));
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(late)
}

impl Cluster {
    fn kv(&self, node: usize) -> KvClient<Channel> {
        KvClient::new(self.members[node].channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Puts a value by way of this node alone: it runs the transaction or forwards it. Returns the txn id.
    ///
    /// # Errors
    /// What the node answers.
    pub async fn put_to(&self, node: usize, tree: &str, key: &str, value: Bytes) -> Result<u64, tonic::Status> {
        let put = Put { tree: tree.to_owned(), key: key.to_owned().into(), value, tree_must_exist: false };
        let operations = vec![Operation { kind: Some(operation::Kind::Put(put)) }];
        let request = TxnRequest { operations, ..TxnRequest::default() };
        Ok(in_time(self.kv(node).txn(request)).await?.into_inner().txn_id)
    }

    /// A linearizable read of this node's own pages.
    ///
    /// # Errors
    /// What the node answers.
    pub async fn get_from(&self, node: usize, tree: &str, key: &[u8]) -> Result<GetResponse, tonic::Status> {
        let request = GetRequest { tree: tree.to_owned(), key: key.to_vec().into(), ..GetRequest::default() };
        Ok(in_time(self.kv(node).get(request)).await?.into_inner())
    }

    /// All entries of a tree, linearizably, from this node's own pages.
    ///
    /// # Errors
    /// What the node answers.
    pub async fn scan_from(&self, node: usize, tree: &str) -> Result<Vec<Entry>, tonic::Status> {
        let request = ScanRequest { tree: tree.to_owned(), ..ScanRequest::default() };
        let mut chunks = in_time(self.kv(node).scan(request)).await?.into_inner();
        let mut entries = Vec::new();
        while let Some(chunk) = in_time(chunks.message()).await? {
            entries.extend(chunk.entries);
        }
        Ok(entries)
    }
}
