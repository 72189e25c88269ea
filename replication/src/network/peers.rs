//! The connections to the other nodes.
//!
//! A connection is looked up by raft id and lane each time it is needed, and made again when the node's address has
//! changed: memberships change addresses while replication streams live on.

use std::collections::HashMap;
use std::time::Duration;

use calamus_engine::ids::{ClusterId, LogId, RaftId};
use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::raft::v1 as wire;
use calamus_proto::raft::v1::raft_client::RaftClient;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::convert;
use super::credit::Credit;
use super::ends::Ends;
use super::heard::Heard;
use super::reach::Reach;
use crate::seeding::order::Answers;
use crate::silence::Silence;
use crate::space::Spaces;
use crate::types::{Membership, NodeInfo};

/// Which of the connections to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Heartbeats, votes, read indexes, hand-overs: small and urgent.
    Control,
    /// Frames and pages: large.
    Data,
}

/// HTTP/2 windows of a data connection, in bytes: a frame of 16 MiB must not wait for window updates in the middle.
const DATA_WINDOW_BYTES: u32 = 8 << 20;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nobody has said where the node is.
    #[error("no address is known of raft id {:016x}", .0.0)]
    Unknown(RaftId),
    /// The address is not one.
    #[error("the address {address:?} of raft id {:016x} is not usable: {why}", id.0)]
    BadAddress {
        /// Whose.
        id: RaftId,
        /// What stands in the membership.
        address: String,
        /// What is wrong with it.
        why: String,
    },
}

struct Connection {
    address: String,
    channel: Channel,
}

/// The connections of this node.
pub struct Peers {
    cluster: ClusterId,
    this: RaftId,
    connect_limit: Duration,
    reach: Reach,
    addresses: Mutex<HashMap<RaftId, String>>,
    connections: Mutex<HashMap<(RaftId, Lane), Connection>>,
    told_removed: watch::Sender<Option<LogId>>,
    members: Mutex<Vec<(RaftId, NodeInfo)>>,
    /// How far the others are, for a leader.
    pub(crate) answers: Answers,
    /// What they have promised to this node.
    pub(crate) heard: Heard,
    /// Where their logs ended when they voted for this node.
    pub(crate) ends: Ends,
    /// What this node answered for them.
    pub(crate) credit: Credit,
    /// How short of space this node and the others are.
    pub(crate) spaces: Spaces,
    /// Whether this node keeps silent towards them, as a leader that they do not answer.
    pub(crate) silence: Silence,
}

impl Peers {
    /// No connections yet.
    #[must_use]
    pub fn new(cluster: ClusterId, this: RaftId, connect_limit: Duration, reach: Reach) -> Self {
        Self {
            cluster,
            this,
            connect_limit,
            reach,
            addresses: Mutex::default(),
            connections: Mutex::default(),
            told_removed: watch::Sender::new(None),
            members: Mutex::default(),
            answers: Answers::default(),
            heard: Heard::default(),
            ends: Ends::default(),
            credit: Credit::default(),
            spaces: Spaces::default(),
            silence: Silence::default(),
        }
    }

    /// This node's raft id.
    #[must_use]
    pub fn this(&self) -> RaftId {
        self.this
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The envelope of a message to `to`.
    #[must_use]
    pub fn envelope(&self, to: RaftId) -> Option<wire::Envelope> {
        Some(convert::envelope(self.cluster, self.this, to))
    }

    /// Takes note of a refusal, if it says that this node is not a member any more.
    pub fn note_refusal(&self, status: &Status) {
        if let Some(as_of) = convert::removed_as_of(status) {
            self.told_removed.send_replace(Some(as_of));
        }
    }

    /// As of which log id this node was last told not to be a member.
    pub(crate) fn told_removed(&self) -> watch::Receiver<Option<LogId>> {
        self.told_removed.subscribe()
    }

    /// Takes over where the members are.
    pub fn learn(&self, membership: &Membership) {
        let mut addresses = self.addresses.lock();
        for (id, node) in membership.nodes() {
            addresses.insert(RaftId(*id), self.address_of(node).to_owned());
        }
        let gone: Vec<RaftId> = addresses.keys().copied().filter(|id| membership.get_node(&id.0).is_none()).collect();
        drop(addresses);
        *self.members.lock() = membership.nodes().map(|(id, node)| (RaftId(*id), node.clone())).collect();
        let mut connections = self.connections.lock();
        connections.retain(|(id, _), _| !gone.contains(id));
    }

    /// Whom `target` may be seeded from, best first, with this node as the leader. What was heard before `since` does
    /// not count.
    pub(crate) fn seed_sources(&self, target: RaftId, at_least: LogId, since: Instant) -> Vec<wire::SeedSource> {
        self.answers.sources(&self.members.lock(), self.this, target, at_least, since)
    }

    /// Where this node reaches another.
    #[must_use]
    pub fn address_of<'a>(&'a self, node: &'a NodeInfo) -> &'a str {
        self.reach.address(&node.name, &node.address)
    }

    /// Takes note of where a node is, if nothing is known of it.
    pub fn note_address(&self, id: RaftId, node: &NodeInfo) {
        self.addresses.lock().entry(id).or_insert_with(|| self.address_of(node).to_owned());
    }

    /// Whom to speak with for `id`. Connects when it is first used.
    ///
    /// # Errors
    /// When there is no usable address.
    pub fn client(&self, id: RaftId, lane: Lane) -> Result<RaftClient<Channel>, PeerError> {
        let address = self.addresses.lock().get(&id).cloned().ok_or(PeerError::Unknown(id))?;
        let mut connections = self.connections.lock();
        if let Some(connection) = connections.get(&(id, lane))
            && connection.address == address
        {
            return Ok(client_on(connection.channel.clone()));
        }
        let channel = connect(&address, lane, self.connect_limit).map_err(|why| PeerError::BadAddress {
            id,
            address: address.clone(),
            why,
        })?;
        connections.insert((id, lane), Connection { address, channel: channel.clone() });
        Ok(client_on(channel))
    }
}

/// A client for the address of a source of a seeding, which a leader named.
///
/// # Errors
/// What is wrong with the address.
pub fn client_at(address: &str, connect_limit: Duration) -> Result<RaftClient<Channel>, String> {
    connect(address, Lane::Data, connect_limit).map(client_on)
}

fn connect(address: &str, lane: Lane, limit: Duration) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .connect_timeout(limit)
        .tcp_nodelay(true)
        // Finds a peer whose machine is gone without a word; our own limits find it sooner while something is asked.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5));
    let endpoint = match lane {
        Lane::Control => endpoint,
        Lane::Data => {
            endpoint.initial_stream_window_size(DATA_WINDOW_BYTES).initial_connection_window_size(DATA_WINDOW_BYTES * 2)
        }
    };
    Ok(endpoint.connect_lazy())
}

fn client_on(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
}
