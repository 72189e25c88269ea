//! A sector of a slot: see [`super`].

const MAGIC: [u8; 4] = *b"CSLT";
const FORMAT_VERSION: u16 = 3;
/// The size of a part, in bytes: what a disk writes whole or not at all.
pub(super) const PART_BYTES: usize = 512;
pub(super) const PART_HEADER_BYTES: usize = 28;
/// How much of a payload a part holds, in bytes.
pub(super) const PART_PAYLOAD_BYTES: usize = PART_BYTES - PART_HEADER_BYTES;
const CRC_OFFSET: usize = 24;
const _: () = assert!(CRC_OFFSET + 4 == PART_HEADER_BYTES);

/// What a part says of the write that it belongs to: equal in all parts of one write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) sequence: u64,
    pub(super) payload_bytes: u32,
    pub(super) payload_crc: u32,
}

impl Part {
    pub(super) const NEVER_WRITTEN: Self = Self { sequence: 0, payload_bytes: 0, payload_crc: 0 };

    pub(super) fn encode(&self, number: u16, payload: &[u8]) -> [u8; PART_BYTES] {
        let mut bytes = [0; PART_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[PART_HEADER_BYTES..PART_HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let crc = part_crc(&bytes);
        bytes[CRC_OFFSET..PART_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8], number: u16) -> Result<Self, &'static str> {
        let Some(bytes) = bytes.first_chunk::<PART_BYTES>() else { return Err("the file ends too early") };
        let u32_at = |offset: usize| u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 bytes"));
        if bytes[0..4] != MAGIC {
            return Err("no slot magic");
        }
        if u16::from_le_bytes([bytes[4], bytes[5]]) != FORMAT_VERSION {
            return Err("unknown format version");
        }
        if part_crc(bytes) != u32_at(CRC_OFFSET) {
            return Err("it does not match its checksum");
        }
        if u16::from_le_bytes([bytes[6], bytes[7]]) != number {
            return Err("it belongs elsewhere");
        }
        let sequence = u64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes"));
        Ok(Self { sequence, payload_bytes: u32_at(16), payload_crc: u32_at(20) })
    }
}

fn part_crc(bytes: &[u8; PART_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_OFFSET]);
    hasher.update(&bytes[PART_HEADER_BYTES..]);
    hasher.finalize()
}

/// The parts of a payload, one behind the other; one part at least. The first has this number.
pub(super) fn encode(first_number: u16, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let payload_bytes = u32::try_from(payload.len()).expect("slots are small");
    let part = Part { sequence, payload_bytes, payload_crc: crc32fast::hash(payload) };
    if payload.is_empty() {
        return part.encode(first_number, payload).to_vec();
    }
    let pieces = (first_number..).zip(payload.chunks(PART_PAYLOAD_BYTES));
    pieces.flat_map(|(number, piece)| part.encode(number, piece)).collect()
}
