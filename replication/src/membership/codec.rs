//! A membership as bytes: the payload of a membership frame. Every replica holds these bytes, so they are ours and
//! fixed, whatever openraft's own types become.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     4  magic "CMB1"
//!      4     2  voter sets (1, or 2 in a joint membership; 0 only for the empty membership)
//!      6     2  nodes
//!      8        for each voter set:  u16 count, then u64 raft ids, ascending
//!               for each node:       u64 raft id, ascending
//!                                    u8 flags: bit 0 observer, bit 1 learner until promoted (not both),
//!                                              bit 2 replaces a node
//!                                    u16 bytes of the name, the name (UTF-8)
//!                                    u16 bytes of the address, the address (UTF-8)
//!                                    with bit 2: u64 raft id of the node that it replaces
//! ```
//! Nothing follows. The frame around it carries the checksums.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::{Aim, Membership, NodeInfo};

const MAGIC: [u8; 4] = *b"CMB1";
const OBSERVER: u8 = 1;
const LEARNER: u8 = 1 << 1;
const REPLACES: u8 = 1 << 2;
/// The longest name or address, in bytes.
pub const MAX_TEXT_BYTES: usize = 255;

/// Why bytes are not a membership.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad membership at byte {offset}: {what}")]
pub struct MembershipError {
    /// Where in the payload, in bytes.
    pub offset: usize,
    /// What is wrong.
    pub what: String,
}

/// The bytes of a membership.
///
/// # Panics
/// When a name or address is longer than [`MAX_TEXT_BYTES`], or there are more than 65,535 nodes: [`super`] refuses
/// such requests.
#[must_use]
pub fn encode(membership: &Membership) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    let count = |n: usize| u16::try_from(n).expect("bounded by whoever changes a membership");
    out.put_slice(&MAGIC);
    let sets = membership.get_joint_config();
    out.put_u16_le(count(sets.len()));
    out.put_u16_le(count(membership.nodes().count()));
    for set in sets {
        out.put_u16_le(count(set.len()));
        set.iter().for_each(|id| out.put_u64_le(*id));
    }
    for (id, node) in membership.nodes() {
        out.put_u64_le(*id);
        out.put_u8(flags(node));
        for text in [&node.name, &node.address] {
            assert!(text.len() <= MAX_TEXT_BYTES, "a name or address of {} bytes", text.len());
            out.put_u16_le(count(text.len()));
            out.put_slice(text.as_bytes());
        }
        node.replaces.iter().for_each(|id| out.put_u64_le(*id));
    }
    out.freeze()
}

fn flags(node: &NodeInfo) -> u8 {
    let aim = match node.aim {
        Aim::Voter => 0,
        Aim::Learner => LEARNER,
        Aim::Observer => OBSERVER,
    };
    if node.replaces.is_some() { aim | REPLACES } else { aim }
}

fn aim_of(flags: u8) -> Option<Aim> {
    match flags & !REPLACES {
        0 => Some(Aim::Voter),
        LEARNER => Some(Aim::Learner),
        OBSERVER => Some(Aim::Observer),
        _ => None,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Reader<'_> {
    fn error(&self, what: impl Into<String>) -> MembershipError {
        MembershipError { offset: self.offset, what: what.into() }
    }

    fn take(&mut self, length: usize) -> Result<&[u8], MembershipError> {
        let end = self.offset.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.error(format!("{length} bytes needed, {} left", self.bytes.len() - self.offset)));
        };
        let part = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(part)
    }

    fn u16(&mut self) -> Result<u16, MembershipError> {
        Ok(u16::from_le_bytes(self.take(2)?.try_into().expect("2 bytes")))
    }

    fn u64(&mut self) -> Result<u64, MembershipError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("8 bytes")))
    }

    fn text(&mut self) -> Result<String, MembershipError> {
        let length = usize::from(self.u16()?);
        if length > MAX_TEXT_BYTES {
            return Err(self.error(format!("a text of {length} bytes")));
        }
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.error("a text that is not UTF-8"))
    }
}

/// Reads a membership.
///
/// # Errors
/// When the bytes are not one, exactly and to the end.
pub fn decode(bytes: &[u8]) -> Result<Membership, MembershipError> {
    let mut reader = Reader { bytes, offset: 0 };
    if reader.take(4)? != MAGIC {
        return Err(MembershipError { offset: 0, what: "no membership magic".to_owned() });
    }
    let (sets, nodes) = (reader.u16()?, reader.u16()?);
    if sets > 2 {
        return Err(reader.error(format!("{sets} voter sets")));
    }
    let mut configs = Vec::with_capacity(usize::from(sets));
    for _ in 0..sets {
        let mut set = BTreeSet::new();
        for _ in 0..reader.u16()? {
            let id = reader.u64()?;
            if set.last().is_some_and(|last| *last >= id) {
                return Err(reader.error("voters out of order"));
            }
            set.insert(id);
        }
        configs.push(set);
    }
    let mut infos = BTreeMap::new();
    for _ in 0..nodes {
        let id = reader.u64()?;
        if infos.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(reader.error("nodes out of order"));
        }
        let flags = reader.take(1)?[0];
        let Some(aim) = aim_of(flags) else { return Err(reader.error(format!("unknown flags {flags:#04x}"))) };
        let (name, address) = (reader.text()?, reader.text()?);
        let replaces = if flags & REPLACES != 0 { Some(reader.u64()?) } else { None };
        infos.insert(id, NodeInfo { name, address, aim, replaces });
    }
    if reader.offset != bytes.len() {
        return Err(reader.error(format!("{} bytes too many", bytes.len() - reader.offset)));
    }
    Membership::new(configs, infos).map_err(|error| reader.error(error.to_string()))
}

#[cfg(test)]
mod codec_test;
