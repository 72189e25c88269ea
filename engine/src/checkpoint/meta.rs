//! `node.meta`: who this node is, and how far its data file is. One value in two slots.
//!
//! ```text
//! payload of a slot (little endian), see [`crate::slots`] for what is around it
//!   u32 format version (1), u32 zero
//!   u64 generation
//!   u128 cluster id, u64 raft id
//!   string node name, string listen address, string advertised address      (string: u16 length, bytes)
//!   state finished checkpoint
//!   state target of the newest checkpoint, without membership; equal to the checkpoint when none is running
//!   u8 + log id: purge point
//!   u64 segment bytes
//! state: u8 + log id, u64 txn id, u128 digest, u64 chain, u64 wall time, u8 + (log id, u32 length, bytes) membership
//! log id: u64 term, u64 index; the u8 before an optional part is 1 if it is there, else 0
//! ```

use bytes::Bytes;

use crate::ids::{ClusterId, Digest, Generation, LogId, LogIndex, NEVER_REACHED, RaftId, Term, TxnId};
use crate::slots::room_bytes;
use crate::store::AppliedState;

/// The size of a slot of `node.meta`, in bytes.
pub const SLOT_BYTES: u64 = 16 << 10;
/// The largest membership that fits, in bytes.
pub const MAX_MEMBERSHIP_BYTES: usize = 12 << 10;
// What is left is for everything else: names and addresses are short.
const _: () = assert!(MAX_MEMBERSHIP_BYTES + (2 << 10) <= room_bytes(SLOT_BYTES));

const FORMAT_VERSION: u32 = 1;

/// Who a node is. Exhaustive: whoever makes a node must fill in all of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeIdentity {
    /// The cluster that it belongs to.
    pub cluster_id: ClusterId,
    /// Its identity in the consensus, drawn when the directory was made.
    pub raft_id: RaftId,
    /// What the operator calls it.
    pub name: String,
    /// Where it listens: HOST:PORT.
    pub listen: String,
    /// Where others reach it: HOST:PORT.
    pub advertise: String,
}

/// The content of `node.meta`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeMeta {
    /// The `gN` that is in use.
    pub generation: Generation,
    /// Who the node is.
    pub identity: NodeIdentity,
    /// The finished checkpoint.
    pub checkpoint: AppliedState,
    /// How far the data file may have been written.
    pub target: AppliedState,
    /// Frames up to here may be gone.
    pub purged: Option<LogId>,
    /// The size of a journal segment, in bytes; fixed for a directory.
    pub segment_bytes: u64,
}

struct Writer(Vec<u8>);

impl Writer {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.0.extend_from_slice(&bytes);
    }

    fn string(&mut self, text: &str) {
        self.put(u16::try_from(text.len()).expect("names and addresses are short").to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn log_id(&mut self, log_id: Option<LogId>) {
        self.put([u8::from(log_id.is_some())]);
        if let Some(log_id) = log_id {
            self.put(log_id.term.0.to_le_bytes());
            self.put(log_id.index.0.to_le_bytes());
        }
    }

    fn state(&mut self, state: &AppliedState) {
        self.log_id(state.log_id);
        self.put(state.txn_id.0.to_le_bytes());
        self.put(state.digest.0.to_le_bytes());
        self.put(state.chain.to_le_bytes());
        self.put(state.wall_time_micros.to_le_bytes());
        self.log_id(state.membership.as_ref().map(|(log_id, _)| *log_id));
        if let Some((_, bytes)) = &state.membership {
            assert!(bytes.len() <= MAX_MEMBERSHIP_BYTES, "a membership of {} bytes", bytes.len());
            self.put(u32::try_from(bytes.len()).expect("bounded").to_le_bytes());
            self.0.extend_from_slice(bytes);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (part, rest) = self.0.split_at_checked(count).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        Ok(self.take(N)?.try_into().expect("as many as asked for"))
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn counter(&mut self) -> Result<u64, &'static str> {
        Some(self.u64()?).filter(|number| *number < NEVER_REACHED).ok_or("a term, an index or a txn id out of reach")
    }

    fn flag(&mut self) -> Result<bool, &'static str> {
        match self.array::<1>()?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a mark that is neither 0 nor 1"),
        }
    }

    fn string(&mut self) -> Result<String, &'static str> {
        let length = u16::from_le_bytes(self.array()?);
        let bytes = self.take(usize::from(length))?.to_vec();
        String::from_utf8(bytes).map_err(|_| "text that is not UTF-8")
    }

    fn log_id(&mut self) -> Result<Option<LogId>, &'static str> {
        if !self.flag()? {
            return Ok(None);
        }
        Ok(Some(LogId { term: Term(self.counter()?), index: LogIndex(self.counter()?) }))
    }

    fn state(&mut self) -> Result<AppliedState, &'static str> {
        let log_id = self.log_id()?;
        let txn_id = TxnId(self.counter()?);
        let digest = Digest(u128::from_le_bytes(self.array()?));
        let chain = self.u64()?;
        let wall_time_micros = self.u64()?;
        let membership = match self.log_id()? {
            Some(log_id) => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                Some((log_id, Bytes::copy_from_slice(self.take(length)?)))
            }
            None => None,
        };
        Ok(AppliedState { log_id, txn_id, digest, chain, membership, wall_time_micros })
    }
}

/// A state as `node.meta` has it.
#[must_use]
pub fn encode_state(state: &AppliedState) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(128));
    out.state(state);
    out.0
}

/// Reads what [`encode_state`] wrote.
pub fn decode_state(bytes: &[u8]) -> Result<AppliedState, &'static str> {
    let mut reader = Reader(bytes);
    let state = reader.state()?;
    if reader.0.is_empty() { Ok(state) } else { Err("bytes behind its end") }
}

impl NodeMeta {
    /// The payload of a slot.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(512));
        out.put(FORMAT_VERSION.to_le_bytes());
        out.put([0; 4]);
        out.put(self.generation.0.to_le_bytes());
        out.put(self.identity.cluster_id.0.to_le_bytes());
        out.put(self.identity.raft_id.0.to_le_bytes());
        out.string(&self.identity.name);
        out.string(&self.identity.listen);
        out.string(&self.identity.advertise);
        out.state(&self.checkpoint);
        out.state(&AppliedState { membership: None, ..self.target.clone() });
        out.log_id(self.purged);
        out.put(self.segment_bytes.to_le_bytes());
        out.0
    }

    /// Reads the payload of a slot.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader(bytes);
        if u32::from_le_bytes(reader.array()?) != FORMAT_VERSION {
            return Err("a format version that this program does not know; use the program that wrote it");
        }
        reader.take(4)?;
        let meta = Self {
            generation: Generation(reader.u64()?),
            identity: NodeIdentity {
                cluster_id: ClusterId(u128::from_le_bytes(reader.array()?)),
                raft_id: RaftId(reader.u64()?),
                name: reader.string()?,
                listen: reader.string()?,
                advertise: reader.string()?,
            },
            checkpoint: reader.state()?,
            target: reader.state()?,
            purged: reader.log_id()?,
            segment_bytes: reader.u64()?,
        };
        if !reader.0.is_empty() {
            return Err("bytes behind its end");
        }
        Ok(meta)
    }

    /// Whether a checkpoint was started and not finished.
    #[must_use]
    pub fn checkpoint_running(&self) -> bool {
        self.target.log_id != self.checkpoint.log_id
    }
}
