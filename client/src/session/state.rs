//! A session's state, for the process that goes on with it.
//!
//! ```text
//! {"format": 1, "cluster_id": "...", "session_id": 1099511627777, "ttl_ms": 3600000, "next_sequence": 8,
//!  "unanswered": [{"sequence": 5, "request": "12..."}]}
//! ```
//!
//! `request` is the `calamus.v1.TxnRequest`, as protobuf, in hex digits. Copies of what is unanswered count as under way: the
//! process that left the state may have sent them.

use std::collections::BTreeMap;
use std::time::Duration;

use calamus_proto::v1::TxnRequest;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{Sequences, Session, Unanswered};

/// The version of the form.
const FORMAT: u32 = 1;

/// What another process needs to go on with a session; a serde type, of the form that the module shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    format: u32,
    cluster_id: String,
    session_id: u64,
    ttl_ms: u64,
    next_sequence: u64,
    unanswered: Vec<UnansweredState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct UnansweredState {
    sequence: u64,
    request: String,
}

/// Why a session cannot be resumed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// It is a session of another cluster: a restore begins a new one.
    #[error("the session is of cluster {session}, and this is cluster {found}; open a new one")]
    OtherCluster {
        /// That cluster.
        session: String,
        /// The one that answers.
        found: String,
    },
    /// The state is of another version, or damaged.
    #[error("the state of the session is not understood: {0}")]
    Malformed(String),
}

impl SessionState {
    pub(super) fn of(session: &Session) -> SessionState {
        let sequences = session.sequences();
        let unanswered = sequences.unanswered.iter().map(|(sequence, unanswered)| UnansweredState {
            sequence: *sequence,
            request: hex::encode(unanswered.request.encode_to_vec()),
        });
        SessionState {
            format: FORMAT,
            cluster_id: session.inner.client.topology().cluster_id,
            session_id: session.id(),
            ttl_ms: u64::try_from(session.ttl().as_millis()).unwrap_or(u64::MAX),
            next_sequence: sequences.next,
            unanswered: unanswered.collect(),
        }
    }

    pub(super) fn session_id(&self) -> u64 {
        self.session_id
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    pub(super) fn sequences(&self, cluster_id: &str) -> Result<Sequences, ResumeError> {
        if self.format != FORMAT {
            let what = format!("it is of format {}, this program knows {FORMAT}", self.format);
            return Err(ResumeError::Malformed(what));
        }
        let other = !self.cluster_id.is_empty() && !cluster_id.is_empty() && self.cluster_id != cluster_id;
        if other {
            return Err(ResumeError::OtherCluster { session: self.cluster_id.clone(), found: cluster_id.to_owned() });
        }
        let mut unanswered = BTreeMap::new();
        for UnansweredState { sequence, request } in &self.unanswered {
            let malformed = |what: String| ResumeError::Malformed(format!("sequence {sequence}: {what}"));
            if *sequence == 0 || *sequence >= self.next_sequence {
                return Err(malformed(format!("it is not below {}, the next one", self.next_sequence)));
            }
            let bytes = hex::decode(request).map_err(|error| malformed(error.to_string()))?;
            let request = TxnRequest::decode(&bytes[..]).map_err(|error| malformed(error.to_string()))?;
            unanswered.insert(*sequence, Unanswered { request, lost: true, runs: 0 });
        }
        if self.next_sequence == 0 {
            return Err(ResumeError::Malformed("the first sequence is 1".to_owned()));
        }
        Ok(Sequences { next: self.next_sequence, unanswered })
    }
}
