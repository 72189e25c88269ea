//! The places that a node may write backups to.

use std::collections::BTreeMap;

use calamus_engine::backup::{BackupOptions, Backups};

use super::error::RunError;
use super::place::PlaceUrl;
use crate::settings::BackupSettings;

/// Places by name, as the node's configuration says.
#[derive(Clone, Debug, Default)]
pub struct Targets(BTreeMap<String, PlaceUrl>);

impl Targets {
    /// Those of a configuration.
    #[must_use]
    pub fn new(settings: &BackupSettings) -> Self {
        Self(settings.targets.iter().map(|(name, target)| (name.clone(), target.url.clone())).collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &PlaceUrl)> {
        self.0.iter()
    }

    /// Refuses a name that the configuration does not have.
    ///
    /// # Errors
    /// [`RunError::NoTarget`].
    pub fn place(&self, name: &str) -> Result<&PlaceUrl, RunError> {
        let known = || self.0.keys().cloned().collect();
        self.0.get(name).ok_or_else(|| RunError::NoTarget { name: name.to_owned(), known: known() })
    }

    /// The backups in a target.
    ///
    /// # Errors
    /// As [`Self::place`]; when the environment does not say how to reach it.
    pub fn open(&self, name: &str, bytes_per_second: Option<u64>) -> Result<Backups, RunError> {
        let store = self.place(name)?.open().map_err(RunError::Place)?;
        let mut options = BackupOptions::default();
        options.bytes_per_second = bytes_per_second;
        Ok(Backups::new(store, options))
    }
}
