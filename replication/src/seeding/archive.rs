//! Backups as a source: the pages of a full one and the frames of its increments, to the end of a chain. The frames behind it
//! come from a node.

use std::ops::ControlFlow;

use calamus_engine::seed::{SeedChunk, SeedResume};

/// A place with backups of this cluster.
pub trait SeedArchive: Send + Sync {
    /// What it is called, for people.
    fn name(&self) -> String;

    /// Hands the newest chain to `on_piece`, or what comes behind `received` of it, as
    /// [`Backups::seed`](calamus_engine::backup::Backups::seed) does. Blocks.
    ///
    /// # Errors
    /// When it cannot be reached, has no backup of this cluster, or what was received is of something else.
    fn seed(
        &self,
        received: Option<&SeedResume>,
        on_piece: &mut dyn FnMut(SeedChunk) -> ControlFlow<()>,
    ) -> Result<(), String>;
}
