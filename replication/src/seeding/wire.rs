//! Pieces of the stream, and where it goes on, as messages. What comes is read as whatever bytes came.

use calamus_engine::Engine;
use calamus_engine::ids::{PageNumber, TxnId};
use calamus_engine::seed::{SeedChunk, SeedManifest, SeedResume};
use calamus_proto::raft::v1 as wire;

use super::SeedingError;
use crate::network::convert::{
    frame_from_wire, frame_to_wire, plain_log_id_from_wire as log_id_from_wire, plain_log_id_to_wire as log_id_to_wire,
};

/// A piece for the wire.
pub(super) fn to_wire(chunk: SeedChunk) -> wire::SeedChunk {
    use wire::seed_chunk::Kind;
    let kind = match chunk {
        SeedChunk::Manifest(manifest) => Kind::Manifest(wire::SeedManifest { manifest }),
        SeedChunk::Pages { first, bytes, target } => {
            Kind::Pages(wire::SeedPages { first: first.0, bytes, target: target.map(log_id_to_wire) })
        }
        SeedChunk::PagesDone { target, target_txn, pages_sent } => Kind::PagesDone(wire::SeedPagesDone {
            target: target.map(log_id_to_wire),
            target_txn: target_txn.0,
            pages_sent,
        }),
        SeedChunk::Frames(frames) => {
            Kind::Frames(wire::SeedFrames { frames: frames.iter().map(frame_to_wire).collect() })
        }
        SeedChunk::Done { last, chain } => Kind::Done(wire::SeedDone { last: last.map(log_id_to_wire), chain }),
    };
    wire::SeedChunk { kind: Some(kind) }
}

/// A piece from the wire.
pub(crate) fn from_wire(chunk: wire::SeedChunk) -> Result<SeedChunk, SeedingError> {
    use wire::seed_chunk::Kind;
    let unusable = |what: String| SeedingError::Unusable(what);
    Ok(match chunk.kind.ok_or_else(|| unusable("a chunk of no kind".to_owned()))? {
        Kind::Manifest(manifest) => SeedChunk::Manifest(manifest.manifest),
        Kind::Pages(pages) => SeedChunk::Pages {
            first: PageNumber(pages.first),
            bytes: pages.bytes,
            target: pages.target.map(log_id_from_wire),
        },
        Kind::PagesDone(done) => SeedChunk::PagesDone {
            target: done.target.map(log_id_from_wire),
            target_txn: TxnId(done.target_txn),
            pages_sent: done.pages_sent,
        },
        Kind::Frames(frames) => {
            let frames = frames.frames.into_iter().map(frame_from_wire).collect::<Result<Vec<_>, _>>();
            SeedChunk::Frames(frames.map_err(|error| unusable(error.to_string()))?)
        }
        Kind::Done(done) => SeedChunk::Done { last: done.last.map(log_id_from_wire), chain: done.chain },
    })
}

/// Where a stream to `engine` goes on, for the wire.
pub(crate) fn resume_to_wire(engine: &Engine, resume: &SeedResume) -> wire::SeedResume {
    let (page_count, checkpoint) = (resume.page_count, resume.checkpoint.clone());
    let manifest = SeedManifest { database_id: engine.database_id(), page_count, checkpoint };
    wire::SeedResume {
        manifest: manifest.encode(),
        next_page: resume.next_page.0,
        pages_sent: resume.pages_sent,
        target: resume.target.map(log_id_to_wire),
        last: resume.last.map(log_id_to_wire),
        chain: resume.chain,
    }
}

/// Where a stream of `engine` goes on, from the wire.
///
/// # Errors
/// What is wrong with it.
pub(super) fn resume_from_wire(engine: &Engine, resume: &wire::SeedResume) -> Result<SeedResume, String> {
    let manifest = SeedManifest::decode(&resume.manifest).map_err(|error| error.to_string())?;
    if manifest.database_id != engine.database_id() {
        return Err(format!("it is of database {}, and this node's is {}", manifest.database_id, engine.database_id()));
    }
    Ok(SeedResume {
        checkpoint: manifest.checkpoint,
        page_count: manifest.page_count,
        next_page: PageNumber(resume.next_page),
        pages_sent: resume.pages_sent,
        target: resume.target.map(log_id_from_wire),
        last: resume.last.map(log_id_from_wire),
        chain: resume.chain,
    })
}
