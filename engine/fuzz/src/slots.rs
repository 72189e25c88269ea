//! `node.meta` and `vote` that are not what was written, or that were written with nonsense.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use calamus_engine::checkpoint::NodeMeta;
use calamus_engine::checkpoint::meta::SLOT_BYTES;
use calamus_engine::env::{Disk, SimDisk};
use calamus_engine::ids::{Digest, Generation, LogId, LogIndex, Term, TxnId};
use calamus_engine::slots::{SlotFile, room_bytes};
use calamus_engine::{AppliedState, Database};

use crate::sound::{DIRECTORY, Sound, door, options, read_file, write_file};

/// The size of a slot of `vote`, in bytes.
const VOTE_SLOT_BYTES: u64 = 4096;

/// An input.
#[derive(Arbitrary, Debug)]
pub struct Input {
    file: File,
    change: Change,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum File {
    Meta,
    Vote,
}

#[derive(Arbitrary, Debug)]
enum Change {
    /// Bytes of the file.
    Bytes(Vec<Edit>),
    /// The file, all of it.
    Whole(Vec<u8>),
    /// Bytes of the payload, in a file whose sums fit.
    Payload(Vec<Edit>),
    /// A payload of these bytes, in a file whose sums fit.
    NewPayload(Vec<u8>),
    /// A `node.meta` that says something else.
    Fields(Box<Fields>),
}

#[derive(Arbitrary, Debug)]
struct Edit {
    at: u16,
    bytes: Vec<u8>,
}

/// Numbers move by this much.
#[derive(Arbitrary, Debug)]
struct Fields {
    generation: i8,
    name: String,
    checkpoint: State,
    target: State,
    purged: Option<(u64, u64)>,
    segment_bytes: i64,
}

#[derive(Arbitrary, Debug)]
struct State {
    no_log_id: bool,
    log_id: (i8, i64),
    txn_id: i64,
    digest: u128,
    chain: u64,
    wall_time: i64,
    /// How long the membership is, in bytes.
    membership: Option<u16>,
}

impl State {
    fn apply(&self, state: &mut AppliedState) {
        let log_id = state.log_id.unwrap_or_default();
        state.log_id = (!self.no_log_id).then(|| LogId {
            term: Term(log_id.term.0.wrapping_add_signed(self.log_id.0.into())),
            index: LogIndex(log_id.index.0.wrapping_add_signed(self.log_id.1)),
        });
        state.txn_id = TxnId(state.txn_id.0.wrapping_add_signed(self.txn_id));
        state.digest = Digest(state.digest.0 ^ self.digest);
        state.chain ^= self.chain;
        state.wall_time_micros = state.wall_time_micros.wrapping_add_signed(self.wall_time);
        if let Some(bytes) = self.membership {
            let bytes = usize::from(bytes) % calamus_engine::checkpoint::meta::MAX_MEMBERSHIP_BYTES;
            state.membership = Some((log_id, vec![1; bytes].into()));
        }
    }
}

impl File {
    fn path(self) -> PathBuf {
        Path::new(DIRECTORY).join(match self {
            Self::Meta => "node.meta",
            Self::Vote => "vote",
        })
    }

    fn slot_bytes(self) -> u64 {
        match self {
            Self::Meta => SLOT_BYTES,
            Self::Vote => VOTE_SLOT_BYTES,
        }
    }

    /// The sound payload.
    fn payload(self) -> &'static [u8] {
        static PAYLOADS: [OnceLock<Vec<u8>>; 2] = [OnceLock::new(), OnceLock::new()];
        PAYLOADS[self as usize]
            .get_or_init(|| SlotFile::read(&Sound::get().disk(), &self.path(), self.slot_bytes()).expect("it is sound"))
    }
}

fn put(into: &mut [u8], edits: &[Edit]) {
    for edit in edits {
        let at = usize::from(edit.at) % into.len().max(1);
        for (to, from) in into[at..].iter_mut().zip(&edit.bytes) {
            *to = *from;
        }
    }
}

/// Runs an input.
pub fn run(input: &Input) {
    let disk = Sound::get().disk();
    let (file, path) = (input.file, input.file.path());
    match &input.change {
        Change::Bytes(edits) => {
            let mut bytes = read_file(&disk, &path);
            put(&mut bytes, edits);
            write_file(&disk, &path, &bytes);
        }
        Change::Whole(bytes) => write_file(&disk, &path, bytes),
        Change::Payload(edits) => {
            let mut payload = file.payload().to_vec();
            put(&mut payload, edits);
            replace(&disk, file, &payload);
        }
        Change::NewPayload(payload) => {
            replace(&disk, file, &payload[..payload.len().min(room_bytes(file.slot_bytes()))])
        }
        Change::Fields(fields) => replace(&disk, File::Meta, &meta(fields).encode()),
    }
    read(&disk, file);
    open(&disk);
}

fn meta(fields: &Fields) -> NodeMeta {
    let mut meta = NodeMeta::decode(File::Meta.payload()).expect("it is sound");
    meta.generation = Generation(meta.generation.0.wrapping_add_signed(fields.generation.into()));
    meta.identity.name = fields.name.chars().take(200).collect();
    fields.checkpoint.apply(&mut meta.checkpoint);
    fields.target.apply(&mut meta.target);
    meta.target.membership = None;
    meta.purged = fields.purged.map(|(term, index)| LogId::new(term, index));
    meta.segment_bytes = meta.segment_bytes.wrapping_add_signed(fields.segment_bytes);
    let read = NodeMeta::decode(&meta.encode());
    assert!(
        read == Ok(meta.clone()) || read.is_err_and(|what| what.contains("out of reach")),
        "what was written is read"
    );
    meta
}

fn replace(disk: &SimDisk, file: File, payload: &[u8]) {
    disk.remove_file(&file.path()).expect("it is there");
    SlotFile::create(disk, &file.path(), file.slot_bytes(), payload).expect("there is room");
}

/// Looking and opening agree, twice; and what decodes encodes to the same bytes.
fn read(disk: &SimDisk, file: File) {
    let looked = SlotFile::read(disk, &file.path(), file.slot_bytes());
    let opened = SlotFile::open(disk, &file.path(), file.slot_bytes());
    assert_eq!(looked.is_ok(), opened.is_ok());
    let (Ok(looked), Ok((slots, payload))) = (looked, opened) else { return };
    assert_eq!(looked, payload);
    let sequence = slots.sequence();
    drop(slots);
    let (slots, again) = SlotFile::open(disk, &file.path(), file.slot_bytes()).expect("it opened before");
    assert_eq!((slots.sequence(), &again), (sequence, &payload));
    if let (File::Meta, Ok(meta)) = (file, NodeMeta::decode(&payload)) {
        let target_has_membership = meta.target.membership.is_some();
        // Four bytes behind the version are not looked at.
        let encoded = meta.encode();
        assert!(target_has_membership || encoded[8..] == payload[8..], "what is read is written again as it was");
    }
}

/// The directory opens or says why not; if it opens, it is used and opened once more.
fn open(disk: &SimDisk) {
    let Ok(database) = Database::open_with(door(disk), Path::new(DIRECTORY), options()) else { return };
    let used = database.write(|batch| batch.put("small", b"key", b"value").map(drop)).is_ok()
        && database.engine().checkpoint().is_ok();
    drop(database);
    let again = Database::open_with(door(disk), Path::new(DIRECTORY), options());
    assert!(!used || again.is_ok(), "it took a write and does not open again: {:?}", again.err());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_files_are_sound() {
        for file in [File::Meta, File::Vote] {
            run(&Input { file, change: Change::Bytes(Vec::new()) });
            run(&Input { file, change: Change::Payload(Vec::new()) });
        }
        let disk = Sound::get().disk();
        replace(&disk, File::Vote, File::Vote.payload());
        let database = Database::open_with(door(&disk), Path::new(DIRECTORY), options()).unwrap();
        assert_eq!(crate::sound::contents(&database.read()), Sound::get().contents);
    }
}
