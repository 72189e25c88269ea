//! `calamus.v1.Watch`: committed changes as a stream, on any node. See [`crate::watch`].

use calamus_proto::v1::WatchRequest;
use calamus_proto::v1::watch_server::Watch;
use calamus_replication::Node;
use tonic::{Request, Response, Status};

use crate::status::of_txn_error;
use crate::watch::{WatchStream, Watches};

/// The service of one node.
pub struct WatchService {
    watches: Watches,
}

impl WatchService {
    /// Serves what `node` commits.
    pub fn new(node: Node) -> WatchService {
        WatchService { watches: Watches::new(node) }
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = WatchStream;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<WatchStream>, Status> {
        let started = self.watches.start(request.into_inner()).await;
        started.map(Response::new).map_err(|error| of_txn_error(&error))
    }
}
