//! `calamus.v1.Kv`: transactions and reads, on any node.

use std::pin::Pin;

use bytes::Bytes;
use calamus_engine::ReadTxn;
use calamus_engine::btree::ReadError;
use calamus_proto::v1::kv_server::Kv;
use calamus_proto::v1::{
    CloseSessionRequest, CloseSessionResponse, Consistency, Entry, GetRequest, GetResponse, ListTreesRequest,
    ListTreesResponse, OpenSessionRequest, OpenSessionResponse, ResolveRequest, ResolveResponse, ScanRequest,
    ScanResponse, TreeInfo, TxnRequest, TxnResponse,
};
use calamus_replication::Node;
use calamus_replication::error::{TxnError, reason};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::scan;
use crate::status::of_txn_error;

/// The service of one node.
pub struct KvService {
    node: Node,
}

impl KvService {
    /// Serves `node`.
    pub fn new(node: Node) -> KvService {
        KvService { node }
    }
}

/// The consistency that a request names.
pub fn consistency(number: i32) -> Result<Consistency, TxnError> {
    Consistency::try_from(number).map_err(|_| {
        TxnError::invalid(
            reason::BAD_OPERATION,
            format!("there is no consistency number {number}; 0 is linearizable, 1 is local"),
        )
    })
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let answer = self.node.txn(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| of_txn_error(&error))
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let answer = self.node.open_session(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| of_txn_error(&error))
    }

    async fn close_session(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        let answer = self.node.close_session(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| of_txn_error(&error))
    }

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let answer = self.node.resolve(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| of_txn_error(&error))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let request = request.into_inner();
        self.get_one(request).await.map(Response::new).map_err(|error| of_txn_error(&error))
    }

    type ScanStream = Pin<Box<dyn Stream<Item = Result<ScanResponse, Status>> + Send>>;

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let stream = scan::start(&self.node, request.into_inner()).await.map_err(|error| of_txn_error(&error))?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_trees(&self, request: Request<ListTreesRequest>) -> Result<Response<ListTreesResponse>, Status> {
        let request = request.into_inner();
        self.trees(request).await.map(Response::new).map_err(|error| of_txn_error(&error))
    }
}

/// A value of no more bytes is copied on the thread that serves the call; a larger one, whose pages may have to come from the
/// disk, on a thread for such work: the same threads run the consensus, whose heartbeats must not wait for pages.
pub const INLINE_BYTES: usize = 64 << 10;

/// An entry that was looked for.
enum Found {
    Missing,
    Small(Entry),
    Large,
}

fn find(txn: &ReadTxn, tree: &str, key: &Bytes, most_bytes: usize) -> Result<Found, ReadError> {
    let Some(found) = txn.get(tree, key)? else { return Ok(Found::Missing) };
    if found.value.len() > most_bytes {
        return Ok(Found::Large);
    }
    Ok(Found::Small(Entry { key: key.clone(), value: found.value.to_vec()?.into(), version: found.version.0 }))
}

/// Copies an entry on a thread of its own; the snapshot goes there and ends there.
async fn copy_large(txn: ReadTxn, tree: String, key: Bytes) -> Result<Option<Entry>, TxnError> {
    let copied = tokio::task::spawn_blocking(move || find(&txn, &tree, &key, usize::MAX)).await;
    match copied {
        Ok(Ok(Found::Small(entry))) => Ok(Some(entry)),
        Ok(Ok(Found::Missing | Found::Large)) => {
            unreachable!("a snapshot shows what it showed, and no limit was given")
        }
        Ok(Err(error)) => Err(scan::read_failed(&error)),
        Err(_) => Err(TxnError::not_committed(reason::STORAGE, "the read broke off inside the node; see its log")),
    }
}

impl KvService {
    async fn get_one(&self, request: GetRequest) -> Result<GetResponse, TxnError> {
        let consistency = consistency(request.consistency)?;
        scan::check_tree_name(&request.tree)?;
        scan::check_key(&request.key)?;
        let (txn, read_point) = self.node.read_at_least(consistency, request.at_least.unwrap_or_default()).await?;
        let found = find(&txn, &request.tree, &request.key, INLINE_BYTES);
        let entry = match found.map_err(|error| scan::read_failed(&error))? {
            Found::Small(entry) => Some(entry),
            Found::Large => copy_large(txn, request.tree, request.key).await?,
            Found::Missing => {
                if txn.tree(&request.tree).map_err(|error| scan::read_failed(&error))?.is_none() {
                    return Err(scan::no_such_tree(&request.tree));
                }
                None
            }
        };
        Ok(GetResponse { entry, read_point: Some(read_point) })
    }

    async fn trees(&self, request: ListTreesRequest) -> Result<ListTreesResponse, TxnError> {
        let seen = request.at_least.unwrap_or_default();
        let (txn, read_point) = self.node.read_at_least(consistency(request.consistency)?, seen).await?;
        let trees = txn
            .trees()
            .map_err(|error| scan::read_failed(&error))?
            .into_iter()
            .filter(|(name, _)| request.include_system || !name.starts_with('$'))
            .map(|(name, state)| TreeInfo { name, entries: state.entries, pages: state.pages })
            .collect();
        Ok(ListTreesResponse { trees, read_point: Some(read_point) })
    }
}

#[cfg(test)]
mod tests {
    use calamus_engine::Database;

    use super::*;

    #[tokio::test]
    async fn a_large_value_is_known_before_it_is_copied() {
        let temp = tempfile::tempdir().unwrap();
        let database = Database::open(temp.path()).unwrap();
        let put_both = |txn: &mut calamus_engine::Batch| {
            txn.create_tree("t")?;
            txn.put("t", b"small", &vec![1; INLINE_BYTES])?;
            txn.put("t", b"large", &vec![2; INLINE_BYTES + 1])
        };
        database.write(put_both).unwrap();
        let look = |key: &'static str| find(&database.read(), "t", &Bytes::from(key), INLINE_BYTES).unwrap();
        assert!(matches!(look("small"), Found::Small(entry) if entry.value.len() == INLINE_BYTES));
        assert!(matches!(look("none"), Found::Missing));
        assert!(matches!(look("large"), Found::Large));
        let copied = copy_large(database.read(), "t".to_owned(), "large".into()).await.unwrap().unwrap();
        assert!(copied.value == vec![2; INLINE_BYTES + 1] && copied.version == 1);
    }
}
