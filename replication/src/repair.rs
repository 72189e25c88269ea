//! Getting from the other nodes what is damaged here.
//!
//! The engine knows what is damaged, and which bytes it takes ([`calamus_engine::scrub`]): so whoever is asked need not be
//! believed, and need not be at the same entry. All members are asked, in turn, for what they have of a page (their
//! versions, and what their data file holds) or for the frame; the checksum decides. A page changes on its way through
//! the log, and a member that is ahead may not have the content any more that is needed here: then it is asked again
//! later, since this node goes on as well.
//!
//! Meanwhile nothing wrong is served: a read of a damaged page fails. What the consensus itself needs waits for the
//! repair, for [`PATIENCE`]: an entry that changes a damaged page, and a damaged frame that a follower is to be sent.
//! When it is over the node stops its part in the consensus, as after any damage that it cannot go on with, and says
//! what to do: to remove its directory and join again, which fills it anew.
//!
//! Nobody repairs a state of which only the sum is wrong, or a block of the journal that is no frame: the log says what
//! to do about those.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use calamus_engine::Engine;
use calamus_engine::damage::DamagedPart;
use calamus_engine::error::StorageError;
use calamus_engine::ids::{LogId, LogIndex, PageNumber, RaftId};
use calamus_engine::scrub::RepairError;
use calamus_proto::raft::v1 as wire;
use tokio::time::Instant;
use tonic::Status;

use crate::core::Core;
use crate::network::convert;
use crate::network::peers::{Lane, Peers};

/// How long the consensus waits for the repair of what it needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the engine's damage; when nobody could help, longer and longer.
const LOOK: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// How long a member may take to answer.
const ASK: Duration = Duration::from_secs(5);

/// Runs until the core stops.
pub(crate) async fn run(engine: Engine, core: Core, peers: Arc<Peers>) {
    let (mut wait, mut round) = (LOOK, 0_usize);
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = core.stopped() => return,
        }
        if engine.damage_counts().open == 0 {
            wait = LOOK;
            continue;
        }
        round = round.wrapping_add(1);
        let mut repaired = false;
        for damage in engine.damaged() {
            let mut members: Vec<RaftId> = core
                .membership()
                .membership()
                .nodes()
                .map(|(id, _)| RaftId(*id))
                .filter(|id| *id != peers.this())
                .collect();
            let first = round % members.len().max(1);
            members.rotate_left(first);
            let asked = Asked { engine: &engine, peers: &peers, members, round };
            repaired |= match damage.part {
                DamagedPart::Page(number) => asked.page(number).await,
                DamagedPart::Frame(log_id) => asked.frame(log_id).await,
                _ => false,
            };
        }
        wait = if repaired { LOOK } else { (wait * 2).min(LONGEST) };
    }
}

/// Those who may have it.
struct Asked<'a> {
    engine: &'a Engine,
    peers: &'a Peers,
    members: Vec<RaftId>,
    round: usize,
}

impl Asked<'_> {
    async fn page(&self, number: PageNumber) -> bool {
        for member in &self.members {
            let mut copies = match self.copies(*member, number).await {
                Ok(copies) => copies,
                Err(error) => {
                    tracing::warn!(member = %member.0, page = %number, error = error.message(), "has no copy of a page for us");
                    continue;
                }
            };
            // Where several pages are right or wrong together, another choice of each in every round.
            let first = self.round.wrapping_mul(number.0 as usize + 1) % copies.len().max(1);
            copies.rotate_left(first);
            for copy in copies {
                let engine = self.engine.clone();
                let offered = tokio::task::spawn_blocking(move || engine.repair_page(number, &copy)).await;
                match offered {
                    Ok(Ok(())) => {
                        tracing::warn!(page = %number, from = %member.0, "a damaged page is repaired");
                        return true;
                    }
                    Ok(Err(RepairError::NotDamaged(_))) => return true,
                    Ok(Err(RepairError::NotKnownYet(_))) => {
                        self.engine.hurry_scrub();
                        return false;
                    }
                    // The others are offered next; then it is seen.
                    Ok(Err(RepairError::Kept(_))) => return false,
                    Ok(Err(error)) => {
                        tracing::info!(page = %number, from = %member.0, %error, "not the page that is needed")
                    }
                    Err(panic) => tracing::error!(page = %number, %panic, "a repair panicked"),
                }
            }
        }
        false
    }

    async fn copies(&self, member: RaftId, number: PageNumber) -> Result<Vec<Bytes>, Status> {
        let mut client =
            self.peers.client(member, Lane::Data).map_err(|error| Status::unavailable(error.to_string()))?;
        let request = wire::FetchPageRequest { envelope: self.peers.envelope(member), page: number.0 };
        Ok(in_time(client.fetch_page(request)).await?.into_inner().copies)
    }

    async fn frame(&self, log_id: LogId) -> bool {
        for member in &self.members {
            let raw = match self.raw_frame(*member, log_id).await {
                Ok(Some(raw)) => raw,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(member = %member.0, frame = %log_id, error = error.message(), "has no frame for us");
                    continue;
                }
            };
            let Ok(frame) = convert::frame_from_wire(raw) else { continue };
            let engine = self.engine.clone();
            match tokio::task::spawn_blocking(move || engine.repair_frame(&frame)).await {
                Ok(Ok(())) => {
                    tracing::warn!(frame = %log_id, from = %member.0, "a damaged frame is repaired");
                    return true;
                }
                Ok(Err(RepairError::NotDamaged(_))) => return true,
                Ok(Err(error)) => {
                    tracing::warn!(frame = %log_id, from = %member.0, %error, "not the frame that is needed")
                }
                Err(panic) => tracing::error!(frame = %log_id, %panic, "a repair panicked"),
            }
        }
        false
    }

    async fn raw_frame(&self, member: RaftId, log_id: LogId) -> Result<Option<wire::RawFrame>, Status> {
        let mut client =
            self.peers.client(member, Lane::Data).map_err(|error| Status::unavailable(error.to_string()))?;
        let log_id = Some(convert::plain_log_id_to_wire(log_id));
        let request = wire::FetchFrameRequest { envelope: self.peers.envelope(member), log_id };
        Ok(in_time(client.fetch_frame(request)).await?.into_inner().frame)
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(ASK, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

/// What this node has of a page, for one whose own is damaged.
pub(crate) async fn copies_of_page(engine: Engine, number: PageNumber) -> Result<Vec<Bytes>, Status> {
    let copies = tokio::task::spawn_blocking(move || engine.copies_of_page(number)).await;
    let copies = copies.map_err(|panic| Status::internal(panic.to_string()))?;
    let copies = copies.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(copies.iter().map(|page| Bytes::copy_from_slice(page.bytes())).collect())
}

/// A frame, for one whose own is damaged; `None` if it is not here.
pub(crate) async fn frame(engine: Engine, log_id: LogId) -> Result<Option<wire::RawFrame>, Status> {
    if engine.log_id(log_id.index) != Some(log_id) {
        return Ok(None);
    }
    let read = move || engine.read_frames(log_id.index, LogIndex(log_id.index.0.saturating_add(1)), 1);
    let frames = tokio::task::spawn_blocking(read).await.map_err(|panic| Status::internal(panic.to_string()))?;
    let frames = frames.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(frames.first().filter(|frame| frame.log_id() == log_id).map(convert::frame_to_wire))
}

/// Does `work` again, for [`PATIENCE`], as long as it fails for damage that may be repaired.
pub(crate) async fn when_repaired<T, E>(
    work: impl Fn() -> Result<T, E>,
    damage: impl Fn(&E) -> Option<StorageError>,
) -> Result<T, E> {
    when_repaired_within(PATIENCE, work, damage).await
}

async fn when_repaired_within<T, E>(
    patience: Duration,
    work: impl Fn() -> Result<T, E>,
    damage: impl Fn(&E) -> Option<StorageError>,
) -> Result<T, E> {
    let end = Instant::now() + patience;
    loop {
        let error = match work() {
            Err(error) => error,
            done => return done,
        };
        let repairable =
            matches!(damage(&error), Some(StorageError::DamagedPage { .. } | StorageError::DamagedFrame { .. }));
        if !repairable || Instant::now() >= end {
            return Err(error);
        }
        drop(error);
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn damaged() -> StorageError {
        StorageError::DamagedPage { file: "data".into(), offset: 0, page: PageNumber(0), what: "rot".into() }
    }

    /// How it ends, and after how many tries, when try number `repaired` works.
    async fn tried(patience: Duration, repaired: u32, error: StorageError) -> (Result<(), StorageError>, u32) {
        let tries = Cell::new(0);
        let work = || {
            tries.set(tries.get() + 1);
            if tries.get() == repaired { Ok(()) } else { Err(error.clone()) }
        };
        let ended = when_repaired_within(patience, work, |error: &StorageError| Some(error.clone())).await;
        (ended, tries.get())
    }

    #[tokio::test]
    async fn what_needs_damaged_bytes_waits_for_the_repair_and_not_for_ever() {
        let (ended, tries) = tried(PATIENCE, 3, damaged()).await;
        assert!(ended.is_ok() && tries == 3);
        let (ended, tries) = tried(2 * LOOK, u32::MAX, damaged()).await;
        assert!(matches!(ended, Err(StorageError::DamagedPage { .. })) && tries > 1);
        let (ended, tries) = tried(PATIENCE, u32::MAX, StorageError::Poisoned("gone".into())).await;
        assert!(ended.is_err() && tries == 1, "what nobody repairs is not waited for");
    }
}
