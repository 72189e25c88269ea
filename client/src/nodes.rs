//! Connections to nodes: made when first needed, kept, and dropped when they proved bad.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::cluster_client::ClusterClient;
use calamus_proto::v1::kv_client::KvClient;
use calamus_proto::v1::watch_client::WatchClient;
use tokio::sync::OnceCell;
use tonic::transport::{Channel, Endpoint};

use crate::retry::Refusal;

/// Pings on a connection find a node that hangs or is cut off; a node under full load still answers in this time.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Flow-control windows, so that a value of megabytes does not wait for window updates.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// One connection to one node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub address: String,
    channel: Channel,
    slot: Arc<OnceCell<Channel>>,
}

impl Node {
    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// The connections of a client, by address.
#[derive(Debug)]
pub(crate) struct Nodes {
    connect_timeout: Duration,
    per_node: usize,
    next: AtomicUsize,
    open: Mutex<HashMap<String, Vec<Arc<OnceCell<Channel>>>>>,
}

impl Nodes {
    /// # Panics
    /// If `per_node` is 0.
    pub fn new(connect_timeout: Duration, per_node: usize) -> Nodes {
        assert!(per_node > 0, "a node needs at least one connection");
        Nodes { connect_timeout, per_node, next: AtomicUsize::new(0), open: Mutex::new(HashMap::new()) }
    }

    /// A connection to the node at this address (HOST:PORT). Callers that wait for the same connection share one attempt.
    pub async fn connect(&self, address: &str) -> Result<Node, Refusal> {
        let slot = {
            let mut open = self.open.lock().expect("no panic while held");
            let slots = open.entry(address.to_owned()).or_default();
            slots.resize_with(self.per_node, Arc::default);
            slots[self.next.fetch_add(1, Ordering::Relaxed) % self.per_node].clone()
        };
        let channel = slot.get_or_try_init(|| self.dial(address)).await?.clone();
        Ok(Node { address: address.to_owned(), channel, slot })
    }

    /// A client on a connection that nobody shares: for a stream that is taken as slowly as may be. It ends with its last
    /// stream.
    pub async fn connect_apart(&self, address: &str) -> Result<WatchClient<Channel>, Refusal> {
        Ok(WatchClient::new(self.dial(address).await?).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    async fn dial(&self, address: &str) -> Result<Channel, Refusal> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| Refusal::unreachable(address, &e))?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        // Connected here and not at the first call: so a failure is known to be one in which nothing was sent.
        endpoint.connect().await.map_err(|e| Refusal::unreachable(address, &e))
    }

    /// Forgets a connection that proved bad; one that was made since is kept.
    pub fn forget(&self, node: &Node) {
        let mut open = self.open.lock().expect("no panic while held");
        if let Some(slots) = open.get_mut(&node.address) {
            for slot in slots.iter_mut().filter(|slot| Arc::ptr_eq(slot, &node.slot)) {
                *slot = Arc::default();
            }
        }
    }
}
