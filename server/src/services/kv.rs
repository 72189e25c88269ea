//! `calamus.v1.Kv`: transactions and reads, on any node.

use std::pin::Pin;

use bytes::Bytes;
use calamus_engine::ReadTxn;
use calamus_engine::btree::ReadError;
use calamus_proto::v1::kv_server::Kv;
use calamus_proto::v1::{
    Consistency, Entry, GetRequest, GetResponse, ListTreesRequest, ListTreesResponse, ScanRequest, ScanResponse,
    TreeInfo, TxnRequest, TxnResponse,
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

fn copy_entry(txn: &ReadTxn, tree: &str, key: &Bytes) -> Result<Option<Entry>, ReadError> {
    let Some(found) = txn.get(tree, key)? else { return Ok(None) };
    Ok(Some(Entry { key: key.clone(), value: found.value.to_vec()?.into(), version: found.version.0 }))
}

impl KvService {
    async fn get_one(&self, request: GetRequest) -> Result<GetResponse, TxnError> {
        let consistency = consistency(request.consistency)?;
        scan::check_tree_name(&request.tree)?;
        scan::check_key(&request.key)?;
        let (txn, read_point) = self.node.read(consistency).await?;
        let entry = copy_entry(&txn, &request.tree, &request.key).map_err(|error| scan::read_failed(&error))?;
        if entry.is_none() && txn.tree(&request.tree).map_err(|error| scan::read_failed(&error))?.is_none() {
            return Err(scan::no_such_tree(&request.tree));
        }
        Ok(GetResponse { entry, read_point: Some(read_point) })
    }

    async fn trees(&self, request: ListTreesRequest) -> Result<ListTreesResponse, TxnError> {
        let (txn, read_point) = self.node.read(consistency(request.consistency)?).await?;
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
