//! What a seed stream is of.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     8  magic "CALSEED1"
//!      8    16  database id
//!     24     4  page count of the checkpoint
//!     28     4  zero
//!     32        the finished checkpoint that the pages start from: a state as in `node.meta`
//!     ..     8  XXH3-64 of all before
//! ```

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::SeedError;
use crate::checkpoint::meta;
use crate::ids::DatabaseId;
use crate::store::AppliedState;

const MAGIC: &[u8; 8] = b"CALSEED1";
const FIXED_BYTES: usize = 32;

/// What a seed stream is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedManifest {
    /// The database.
    pub database_id: DatabaseId,
    /// The length of the data file at the checkpoint, in pages.
    pub page_count: u32,
    /// The finished checkpoint that the pages start from.
    pub checkpoint: AppliedState,
}

impl SeedManifest {
    /// The first piece of the stream.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.database_id.0.to_le_bytes());
        bytes.extend_from_slice(&self.page_count.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&meta::encode_state(&self.checkpoint));
        let sum = xxh3_64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.into()
    }

    /// Reads the first piece of a stream.
    pub fn decode(bytes: &[u8]) -> Result<Self, SeedError> {
        let bad = |what: &str| SeedError::Stream(format!("bad manifest: {what}"));
        let Some((body, sum)) = bytes.split_last_chunk::<8>() else { return Err(bad("it ends too early")) };
        if xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err(bad("it does not match its checksum"));
        }
        let Some((fixed, state)) = body.split_first_chunk::<FIXED_BYTES>() else { return Err(bad("too short")) };
        if &fixed[..8] != MAGIC {
            return Err(bad("no magic, or of a version that this program does not know"));
        }
        Ok(Self {
            database_id: DatabaseId(u128::from_le_bytes(fixed[8..24].try_into().expect("16 bytes"))),
            page_count: u32::from_le_bytes(fixed[24..28].try_into().expect("4 bytes")),
            checkpoint: meta::decode_state(state).map_err(bad)?,
        })
    }
}
