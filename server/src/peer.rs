//! One-shot calls to the `Cluster` service of another node, each with its time limit.

use std::time::Duration;

use calamus_proto::v1::cluster_client::ClusterClient;
use calamus_proto::v1::{
    AddRequest, AddResponse, FreezeRequest, FreezeResponse, SeedFromRequest, SeedFromResponse, StatusRequest,
    StatusResponse,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// Says that a call has been sent on once already: the node that gets it answers it itself, or refuses.
pub const FORWARDED_METADATA: &str = "calamus-forwarded";

/// How long a connection may take. Loopback and data centres answer in milliseconds.
const CONNECT: Duration = Duration::from_secs(2);

/// A client of the node at `address` (HOST:PORT).
pub async fn connect(address: &str, within: Duration) -> Result<ClusterClient<Channel>, Status> {
    let channel = channel(address, within).await?;
    Ok(ClusterClient::new(channel).max_decoding_message_size(calamus_proto::MAX_MESSAGE_BYTES))
}

/// A connection to the node at `address` (HOST:PORT).
pub async fn channel(address: &str, within: Duration) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Status::invalid_argument(format!("{address} is not HOST:PORT: {error}")))?
        .connect_timeout(within.min(CONNECT))
        .tcp_nodelay(true);
    let connecting = endpoint.connect().await;
    connecting.map_err(|error| Status::unavailable(format!("no connection to {address}: {}", innermost(&error))))
}

/// The last cause in a chain of errors: "Connection refused", not "transport error".
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(deeper) = last.source() {
        last = deeper;
    }
    last.to_string()
}

/// Whether an error of [`connect`] or a call may go away by itself.
#[must_use]
pub fn may_pass(error: &Status) -> bool {
    matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

async fn within<T>(
    limit: Duration,
    address: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("{address} did not answer within {} ms", limit.as_millis()))),
    }
}

/// The status of one node, or of all that it knows.
pub async fn status(address: &str, all_nodes: bool, limit: Duration) -> Result<StatusResponse, Status> {
    within(limit, address, async { connect(address, limit).await?.status(StatusRequest { all_nodes }).await }).await
}

macro_rules! forwarded {
    ($(#[$doc:meta])* $name:ident: $request:ty => $response:ty) => {
        $(#[$doc])*
        pub async fn $name(address: &str, request: $request, limit: Duration) -> Result<$response, Status> {
            within(limit, address, async { connect(address, limit).await?.$name(request).await }).await
        }
    };
}
forwarded!(
    /// Adds a node to the cluster of the node at `address`.
    add: AddRequest => AddResponse
);
forwarded!(
    /// Stops the admission of transactions on the node at `address`, or lets it go on.
    freeze: FreezeRequest => FreezeResponse
);

forwarded!(
    /// Says what the node at `address` is to be seeded from.
    seed_from: SeedFromRequest => SeedFromResponse
);

/// A request that another node sends on to the leader.
pub fn mark_forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED_METADATA, tonic::metadata::MetadataValue::from_static("1"));
    request
}
