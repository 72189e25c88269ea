//! Backups as a source: the pages of a full one and the frames of its increments, to the end of a chain. The frames behind it
//! come from a node.

use std::ops::ControlFlow;

use calamus_engine::Engine;
use calamus_engine::backup::{Backups, RestoreError};
use calamus_engine::ids::{ClusterId, DatabaseId};
use calamus_engine::seed::{SeedChunk, SeedResume};

/// A place with backups of this cluster.
pub struct SeedArchive {
    name: String,
    backups: Backups,
    database_id: DatabaseId,
    cluster_id: ClusterId,
}

impl SeedArchive {
    /// The backups of a place, for a node of the cluster that they are of.
    #[must_use]
    pub fn new(name: impl Into<String>, backups: Backups, node: &Engine) -> Self {
        let (database_id, cluster_id) = (node.database_id(), node.identity().cluster_id);
        Self { name: name.into(), backups, database_id, cluster_id }
    }

    /// What it is called, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hands the newest chain to `on_piece`, or what comes behind `received` of it: see [`Backups::seed`]. Blocks.
    ///
    /// # Errors
    /// When it cannot be reached, its newest chain is not of this cluster, or what was received is of something else.
    pub fn seed(
        &self,
        received: Option<&SeedResume>,
        on_piece: &mut dyn FnMut(SeedChunk) -> ControlFlow<()>,
    ) -> Result<(), RestoreError> {
        self.backups.seed(self.database_id, self.cluster_id, received, on_piece)
    }
}
