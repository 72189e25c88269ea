//! A new database from a chain of backups: as of its end, of a txn id or of a time.
//!
//! # What it becomes
//!
//! The restored database has the old one's id, and is otherwise nobody that anybody has met: a new cluster id, a new raft id,
//! a new timeline. Its log goes on where the restored state's ends, so that no index means two things on one history:
//!
//! ```text
//! ... L    the last restored entry                  in no journal
//!     M    the membership: this node alone          in no journal; `node.meta` has it. Only where there is a consensus
//!     F    the first record of the new timeline     the journal's first frame; already in the data file
//! ```
//!
//! - F says which timeline it comes from and where it forked, as an entry of the tree `$timelines`; it sets the timeline in
//!   page 0. On the state before it, it is void, as any record of another timeline is. So nobody but this directory ever
//!   has the state behind it by replaying, and nothing of the old cluster can lead there.
//! - The journal begins behind M, as if all before had been purged: a node that joins with an empty log gets pages, never a
//!   log that begins with a state that it does not have.
//! - The consensus finds a log that is not empty and whose membership is itself: it is bootstrapped already. M and F are of
//!   the highest term that the restored log or the directory's vote has seen, and so is the vote, if it was lower.
//!
//! # What a crash leaves
//!
//! The new generation is built beside whatever stands in the directory, and is verified there. Then, in this order:
//! 1. the vote, where it is of a lower term than the new log, or cannot be read: for the old database, should it be started
//!    once more, a higher term is no promise taken back;
//! 2. `node.meta`, by one rename: before it the directory is what it was, behind it the restored database;
//! 3. the old generations go, and the mark that a restore is under way. What a crash leaves of them, the next start removes.
//!
//! What was built and not switched in is removed by the next restore, or by the next start of the node: `place.rs` has the table.

mod build;
mod fork;
mod lineage;
mod place;
pub(super) mod plan;
mod survivor;

pub use self::survivor::{RecoverReport, SurvivorReport, examine, recover};

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub use lineage::ForkPoint;

use super::Backups;
use super::error::RestoreError;
use super::id::BackupId;
use super::manifest::Position;
use super::progress::{Meter, OnProgress, Stopped};
use super::surroundings::Surroundings;
use crate::checkpoint::meta::NodeIdentity;
use crate::engine::EngineOptions;
use crate::env::Disk;
use crate::ids::{ClusterId, RaftId, Timeline, TxnId};
use crate::store::AppliedState;

impl From<Stopped> for RestoreError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// A new timeline: small enough for every reader of JSON, and not one that a database begins with.
fn draw_timeline(surroundings: &dyn Surroundings) -> Timeline {
    Timeline((surroundings.draw() as u64 >> 11).max(2))
}

/// Which state is restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum RestorePoint {
    /// The newest that the backups have.
    #[default]
    End,
    /// The end of the last frame without a transaction above this one.
    Txn(TxnId),
    /// The end of the last frame that was made at this moment or before, in microseconds since 1970.
    Time(u64),
}

/// What is restored, and how.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Which state.
    pub point: RestorePoint,
    /// From this backup and those that it needs, whatever else there is. Else from the newest chain that has the point.
    pub upto: Option<BackupId>,
    /// Replaces what stands in the directory, once the new state was verified.
    pub replace: bool,
    /// The new directory's.
    pub engine: EngineOptions,
}

/// Who the restored node is. Cluster id and raft id are drawn.
#[derive(Clone, Copy)]
pub struct NewNode<'n> {
    /// What the operator calls it.
    pub name: &'n str,
    /// Where it listens: HOST:PORT.
    pub listen: &'n str,
    /// Where others reach it: HOST:PORT.
    pub advertise: &'n str,
    /// The membership of a cluster that is this node alone, as its consensus writes it; `None` where there is none.
    pub membership: Option<&'n dyn Fn(&NodeIdentity) -> Bytes>,
}

/// What was restored.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// Who the node is.
    pub identity: NodeIdentity,
    /// The backups that were read.
    pub backups: Vec<BackupId>,
    /// The state of the old cluster that was restored and verified.
    pub restored: Position,
    /// The timeline that it is of.
    pub forked_from: Timeline,
    /// The new timeline.
    pub timeline: Timeline,
    /// The state of the new database: the restored one, and the first record of its timeline.
    pub applied: AppliedState,
}

impl Backups {
    /// Restores into `directory`, which is made if need be.
    ///
    /// # Errors
    /// When the backups cannot be relied on, or do not have the point; when something stands in the directory and is not to
    /// be replaced; when the restored state is not the one that was backed up; those of the disk. The directory is then what
    /// it was.
    pub fn restore(
        &self,
        disk: &Arc<dyn Disk>,
        directory: &Path,
        node: NewNode<'_>,
        options: &RestoreOptions,
        on_progress: OnProgress<'_>,
    ) -> Result<RestoreReport, RestoreError> {
        let catalog = self.list()?;
        let members = plan::members(&catalog, options)?;
        let place = place::Place::take(disk, directory, options.replace)?;
        let stored = members.iter().map(|backup| backup.manifest.stored_bytes).sum();
        let mut meter = Meter::new(&*self.surroundings, None, stored, on_progress);
        let built = build::build(&self.store, &members, options, &place, &mut meter)?;
        let draw = || self.surroundings.draw();
        let identity = NodeIdentity {
            cluster_id: ClusterId(draw()),
            raft_id: RaftId(draw() as u64),
            name: node.name.to_owned(),
            listen: node.listen.to_owned(),
            advertise: node.advertise.to_owned(),
        };
        let forked_from = members[0].manifest.timeline();
        let timeline = draw_timeline(&*self.surroundings);
        let forked = fork::fork(
            &place,
            &built,
            &fork::New {
                identity: &identity,
                membership: node.membership.map(|encode| encode(&identity)),
                forked_from,
                timeline,
                wall_micros: self.surroundings.wall_micros(),
                options: &options.engine,
            },
        )?;
        place.switch(&forked.meta)?;
        Ok(RestoreReport {
            identity,
            backups: members.iter().map(|backup| backup.manifest.backup_id()).collect(),
            restored: Position::of(&built.state),
            forked_from,
            timeline,
            applied: forked.meta.checkpoint,
        })
    }
}
