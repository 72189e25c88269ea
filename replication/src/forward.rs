//! Transactions that arrive at a node which does not lead: sent on to the leader, named with its term.
//!
//! The leader runs a forwarded transaction in the named term only, so a copy that is delayed somewhere is refused by
//! every later leader. (A node that holds a transaction *before* it forwards it, because it is frozen, names the term that it
//! knows when it goes on. What that leads to is no matter of forwarding: see `sessions`.) What the sender makes of an error:
//!
//! | error | outcome |
//! | --- | --- |
//! | the leader answered with an outcome | that |
//! | no connection could be made: nothing was sent | not committed, retryable |
//! | anything else: reset, time-out, an answer that is not understood | unknown |

use std::error::Error;
use std::time::Duration;

use calamus_engine::ids::{ClusterId, RaftId, Term};
use calamus_proto::raft::v1::raft_client::RaftClient;
use calamus_proto::raft::v1::{Envelope, ForwardRequest};
use calamus_proto::v1::{ErrorDetail, TxnRequest, TxnResponse};
use calamus_proto::{ERROR_DETAIL_METADATA, MAX_MESSAGE_BYTES};
use parking_lot::Mutex;
use prost::Message;
use tokio::time::timeout;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Status};

use crate::error::{Outcome, TxnError, reason};
use crate::merger::Merger;
use crate::network::reach::Reach;
use crate::seam::LeaderInfo;

/// HTTP/2 windows, in bytes: a transaction of 16 MiB must not wait for window updates all the way.
const WINDOW_BYTES: u32 = 4 << 20;

/// Sends transactions to the leader, over one connection of its own: megabytes of frames do not stand before them.
pub struct Forwarding {
    cluster: ClusterId,
    this: RaftId,
    connect_limit: Duration,
    default_timeout: Duration,
    reach: Reach,
    connection: Mutex<Option<(String, RaftClient<Channel>)>>,
}

impl Forwarding {
    /// Makes no connection yet.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        this: RaftId,
        connect_limit: Duration,
        default_timeout: Duration,
        reach: Reach,
    ) -> Self {
        Self { cluster, this, connect_limit, default_timeout, reach, connection: Mutex::new(None) }
    }

    /// Runs a transaction on the leader, in the leader's term.
    pub async fn forward(&self, leader: &LeaderInfo, txn: TxnRequest) -> Result<TxnResponse, TxnError> {
        self.send(leader, txn, false).await
    }

    /// The same for a transaction of this node itself, which may name the trees of the system.
    pub async fn forward_system(&self, leader: &LeaderInfo, txn: TxnRequest) -> Result<TxnResponse, TxnError> {
        self.send(leader, txn, true).await
    }

    async fn send(&self, leader: &LeaderInfo, txn: TxnRequest, system: bool) -> Result<TxnResponse, TxnError> {
        let wait = match txn.timeout_ms {
            0 => self.default_timeout,
            millis => Duration::from_millis(millis.into()),
        };
        let mut client = self.client(leader)?;
        let request = ForwardRequest {
            envelope: Some(Envelope {
                cluster_id: self.cluster.0.to_be_bytes().to_vec().into(),
                from: self.this.0,
                to: leader.raft_id.0,
            }),
            term: leader.term.0,
            txn: Some(txn),
            system,
        };
        match timeout(wait, client.forward(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(from_status(&status, leader)),
            Err(_) => Err(TxnError::unknown(
                reason::TIMEOUT,
                format!(
                    "the leader {} at {} has not answered within {} ms; the transaction may still be committed: read to \
                     find out",
                    leader.name,
                    leader.address,
                    wait.as_millis()
                ),
            )
            .with_leader(Some(leader))),
        }
    }

    fn client(&self, leader: &LeaderInfo) -> Result<RaftClient<Channel>, TxnError> {
        let wanted = self.reach.address(&leader.name, &leader.address);
        let mut connection = self.connection.lock();
        if let Some((address, client)) = &*connection
            && address == wanted
        {
            return Ok(client.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{wanted}")).map_err(|error| {
            TxnError::not_committed(
                reason::UNREACHABLE,
                format!("the address {:?} of the leader {} is not usable: {error}", leader.address, leader.name),
            )
        })?;
        let channel = endpoint
            .connect_timeout(self.connect_limit)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect_lazy();
        let client = RaftClient::new(channel)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        *connection = Some((wanted.to_owned(), client.clone()));
        Ok(client)
    }
}

/// Runs a transaction that another node forwarded. The envelope has been checked.
pub async fn serve(merger: &Merger, request: ForwardRequest) -> Result<TxnResponse, Status> {
    let Some(txn) = request.txn else {
        return Err(to_status(&TxnError::invalid(reason::BAD_OPERATION, "the forwarded message holds no transaction")));
    };
    let term = Some(Term(request.term));
    let answer = if request.system { merger.submit_system(txn, term).await } else { merger.submit(txn, term).await };
    answer.map_err(|error| to_status(&error))
}

/// An error as it travels between nodes. The code is for people who look at the wire; only the detail counts.
fn to_status(error: &TxnError) -> Status {
    let code = match error.outcome {
        Outcome::NotCommitted => Code::FailedPrecondition,
        Outcome::Unknown => Code::Unknown,
    };
    let mut metadata = MetadataMap::new();
    let detail = MetadataValue::from_bytes(&error.to_detail().encode_to_vec());
    metadata.insert_bin(ERROR_DETAIL_METADATA, detail);
    Status::with_metadata(code, error.message.clone(), metadata)
}

/// What a status from the leader, or of the way to it, means for the transaction.
fn from_status(status: &Status, leader: &LeaderInfo) -> TxnError {
    let detail = status
        .metadata()
        .get_bin(ERROR_DETAIL_METADATA)
        .and_then(|value| value.to_bytes().ok())
        .and_then(|bytes| ErrorDetail::decode(bytes).ok());
    if let Some(detail) = detail {
        return TxnError::from_detail(detail);
    }
    if never_sent(status) {
        return TxnError::not_committed(
            reason::UNREACHABLE,
            format!(
                "the leader {} at {} cannot be reached: {}; nothing was sent to it, send the transaction again",
                leader.name,
                leader.address,
                status.message()
            ),
        )
        .with_leader(Some(leader));
    }
    TxnError::unknown(
        reason::LEADER_LOST,
        format!(
            "the leader {} at {} was lost before it answered ({}: {}); the transaction may be committed: read to find out",
            leader.name,
            leader.address,
            status.code(),
            status.message()
        ),
    )
    .with_leader(Some(leader))
}

/// Whether the request never left this node: there was no connection to send it on.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    fn leader(address: String) -> LeaderInfo {
        LeaderInfo { raft_id: RaftId(2), name: "n2".to_owned(), address, term: Term(7) }
    }

    fn forwarding() -> Forwarding {
        Forwarding::new(ClusterId(1), RaftId(1), Duration::from_secs(5), Duration::from_secs(20), Reach::default())
    }

    #[test]
    fn outcomes_survive_the_way_back() {
        let leader = leader("127.0.0.1:1".to_owned());
        for error in [
            TxnError::invalid(reason::KEY_TOO_LONG, "the key is too long"),
            TxnError::not_committed(reason::NOT_LEADER, "not I").with_leader(Some(&leader)),
            TxnError::unknown(reason::TIMEOUT, "late"),
        ] {
            assert_eq!(from_status(&to_status(&error), &leader), error);
        }
    }

    #[test]
    fn a_status_without_an_outcome_is_unknown_whatever_its_code() {
        let leader = leader("127.0.0.1:1".to_owned());
        for code in [Code::Unavailable, Code::InvalidArgument, Code::Internal, Code::ResourceExhausted, Code::NotFound]
        {
            let error = from_status(&Status::new(code, "words"), &leader);
            assert_eq!((error.outcome, error.retryable), (Outcome::Unknown, false), "{code:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_not_committed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = forwarding().forward(&leader(address.clone()), TxnRequest::default()).await.unwrap_err();
        assert_eq!((error.outcome, error.reason, error.retryable), (Outcome::NotCommitted, reason::UNREACHABLE, true));
        assert_eq!(error.leader, Some(address));
    }

    #[tokio::test]
    async fn a_connection_lost_after_sending_is_unknown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The connection is made; it breaks without an answer, after something of it has been read.
            let mut bytes = [0; 64];
            stream.read_exact(&mut bytes).await.unwrap();
        });
        let error = forwarding().forward(&leader(address), TxnRequest::default()).await.unwrap_err();
        assert_eq!((error.outcome, error.reason), (Outcome::Unknown, reason::LEADER_LOST), "{error}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_leader_that_does_not_answer_in_time_is_unknown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let request = TxnRequest { timeout_ms: 30, ..TxnRequest::default() };
        let error = forwarding().forward(&leader(address), request).await.unwrap_err();
        assert_eq!((error.outcome, error.reason), (Outcome::Unknown, reason::TIMEOUT), "{error}");
    }
}
