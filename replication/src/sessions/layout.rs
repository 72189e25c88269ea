//! The tree `$sessions`: its keys and values.
//!
//! ```text
//! key                                     value
//! 00                                      the counter: how many sessions were opened, 8 bytes
//! 01 | session, 8 bytes                   the session:   version 1 | ttl 8, ms | opened 8, us since 1970
//! 02 | session, 8 bytes | sequence, 8     an outcome:    version 1 | kind 1 | lowest unanswered 8 | fingerprint 8 | answer
//! ```
//!
//! In keys numbers are big endian, so the outcomes of a session stand together in the order of their sequences, and to
//! drop all below one is one range delete. In values they are little endian.
//!
//! A session's number is, from the top: 24 bits that stand for the timeline, 40 bits of the counter. So no number is used
//! again, not on a timeline that begins behind a restore either, where the counter is an older one.
//!
//! The kinds of outcomes: 1, committed: the answer is a `TxnResponse` as protobuf. 2, not committed and never to be:
//! there is no answer. The fingerprint is xxh3 over what the transaction asks for; 0 where that is not known.

use calamus_engine::ids::Timeline;
use calamus_proto::v1::{TxnRequest, TxnResponse};
use prost::Message;
use xxhash_rust::xxh3::Xxh3;

/// The tree.
pub const TREE: &str = "$sessions";

/// The version that stands before each value.
const VERSION: u8 = 1;
/// The bytes of a session's value.
const SESSION_BYTES: usize = 17;
/// The bytes of an outcome before its answer.
const OUTCOME_BYTES: usize = 18;
const COMMITTED: u8 = 1;
const NEVER: u8 = 2;
/// How many bits of a session's number count the sessions.
const COUNTER_BITS: u32 = 40;

/// The key of the counter.
pub const COUNTER_KEY: [u8; 1] = [0];
/// The first key of sessions.
pub const FIRST_SESSION_KEY: [u8; 1] = [1];

/// A session's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The session that is opened as number `count` on a timeline.
    #[must_use]
    pub fn new(timeline: Timeline, count: u64) -> Self {
        assert!(count >> COUNTER_BITS == 0, "a million million sessions are enough for any database");
        Self(u64::from(timeline_bits(timeline)) << COUNTER_BITS | count)
    }

    /// Whether it was opened on this timeline.
    #[must_use]
    pub fn is_of(self, timeline: Timeline) -> bool {
        self.0 >> COUNTER_BITS == u64::from(timeline_bits(timeline))
    }

    /// Its key.
    #[must_use]
    pub fn key(self) -> [u8; 9] {
        let mut key = [1; 9];
        key[1..].copy_from_slice(&self.0.to_be_bytes());
        key
    }

    /// The key of the outcome of its transaction `sequence`.
    #[must_use]
    pub fn outcome_key(self, sequence: u64) -> [u8; 17] {
        let mut key = [2; 17];
        key[1..9].copy_from_slice(&self.0.to_be_bytes());
        key[9..].copy_from_slice(&sequence.to_be_bytes());
        key
    }

    /// The session whose key this is.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        match key {
            [1, id @ ..] => Some(Self(u64::from_be_bytes(id.try_into().ok()?))),
            _ => None,
        }
    }

    /// The sequence, if this is the key of one of its outcomes.
    #[must_use]
    pub fn sequence_of(self, key: &[u8]) -> Option<u64> {
        let rest = key.strip_prefix(&self.outcome_key(0)[..9])?;
        Some(u64::from_be_bytes(rest.try_into().ok()?))
    }
}

/// Drawn timelines are 64 random bits; the first one is 1.
fn timeline_bits(timeline: Timeline) -> u32 {
    let folded = timeline.0 ^ (timeline.0 >> 24) ^ (timeline.0 >> 48);
    (folded & 0x00ff_ffff) as u32
}

/// A session, as it stands in the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionRecord {
    /// How long it lives without being used, in milliseconds.
    pub ttl_millis: u64,
    /// When it was opened, in microseconds since 1970.
    pub opened_micros: u64,
}

impl SessionRecord {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SESSION_BYTES] {
        let mut bytes = [VERSION; SESSION_BYTES];
        bytes[1..9].copy_from_slice(&self.ttl_millis.to_le_bytes());
        bytes[9..].copy_from_slice(&self.opened_micros.to_le_bytes());
        bytes
    }

    /// From its bytes.
    ///
    /// # Errors
    /// When they are not a session of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() != SESSION_BYTES || bytes[0] != VERSION {
            return Err(format!("a session has {} bytes and is of version {:?}", bytes.len(), bytes.first()));
        }
        Ok(Self { ttl_millis: u64_at(bytes, 1), opened_micros: u64_at(bytes, 9) })
    }
}

/// What became of a transaction of a session, for ever.
#[derive(Clone, PartialEq, Debug)]
pub enum Final {
    /// It is committed, and this is its answer.
    Committed(TxnResponse),
    /// It is not, and never will be.
    Never,
}

/// An outcome, as it stands in the tree.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredOutcome {
    /// The highest that the client had said to be the lowest sequence without an answer: all below may be dropped.
    pub lowest_unanswered: u64,
    /// Of the transaction; 0 if it is not known.
    pub fingerprint: u64,
    /// The outcome.
    pub outcome: Final,
}

impl StoredOutcome {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, answer) = match &self.outcome {
            Final::Committed(answer) => (COMMITTED, Some(answer)),
            Final::Never => (NEVER, None),
        };
        let mut bytes = Vec::with_capacity(OUTCOME_BYTES + answer.map_or(0, Message::encoded_len));
        bytes.extend([VERSION, kind]);
        bytes.extend(self.lowest_unanswered.to_le_bytes());
        bytes.extend(self.fingerprint.to_le_bytes());
        if let Some(answer) = answer {
            answer.encode(&mut bytes).expect("a vector has room");
        }
        bytes
    }

    /// From its bytes.
    ///
    /// # Errors
    /// When they are not an outcome of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let lowest_unanswered = Self::lowest_unanswered(bytes)?;
        let outcome = match bytes[1] {
            COMMITTED => {
                let answer = TxnResponse::decode(&bytes[OUTCOME_BYTES..]);
                Final::Committed(answer.map_err(|error| format!("the answer in an outcome is none: {error}"))?)
            }
            NEVER if bytes.len() == OUTCOME_BYTES => Final::Never,
            kind => return Err(format!("an outcome is of kind {kind} and has {} bytes", bytes.len())),
        };
        Ok(Self { lowest_unanswered, fingerprint: u64_at(bytes, 10), outcome })
    }

    /// What an outcome says of lower sequences, without its answer being looked at.
    ///
    /// # Errors
    /// When the bytes are not an outcome of this version.
    pub fn lowest_unanswered(bytes: &[u8]) -> Result<u64, String> {
        if bytes.len() < OUTCOME_BYTES || bytes[0] != VERSION {
            return Err(format!("an outcome has {} bytes and is of version {:?}", bytes.len(), bytes.first()));
        }
        Ok(u64_at(bytes, 2))
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// A hash of what a transaction asks for: not of how long it may take, or as what it was sent.
#[must_use]
pub fn fingerprint(request: &TxnRequest) -> u64 {
    let mut hash = Xxh3::new();
    let mut buffer = Vec::new();
    let mut take = |tag: u8, buffer: &[u8]| {
        hash.update(&[tag]);
        hash.update(&(buffer.len() as u64).to_le_bytes());
        hash.update(buffer);
    };
    for guard in &request.guards {
        buffer.clear();
        guard.encode(&mut buffer).expect("a vector has room");
        take(1, &buffer);
    }
    for (tag, operations) in [(2, &request.operations), (3, &request.otherwise)] {
        for operation in operations {
            buffer.clear();
            operation.encode(&mut buffer).expect("a vector has room");
            take(tag, &buffer);
        }
    }
    // 0 stands for one that is not known.
    hash.digest().max(1)
}

#[cfg(test)]
#[path = "layout_test.rs"]
mod layout_test;
