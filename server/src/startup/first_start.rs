//! What a directory still has to do before its node is a member: the file `DIR/first-start`.
//!
//! It is written before the database is made, and removed once the node is a member of a cluster. So a first start
//! that was cut off at any point goes on with `calamus serve --dir DIR` alone. Cut off between the two, the node is a
//! member and does not know it yet: so both ways of becoming one, to bootstrap and to be added, may be gone twice.

use std::path::Path;

use calamus_engine::env::Disk;
use calamus_engine::error::StorageError;
use serde::{Deserialize, Serialize};

use crate::config::JoinAs;
use crate::small_file;

/// The name of the file.
pub const FILE: &str = "first-start";

/// The flags of the first start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstStart {
    /// The node's name.
    pub name: String,
    /// Where it listens: HOST:PORT, the port not 0.
    pub listen: String,
    /// Where others reach it: HOST:PORT.
    pub advertise: String,
    /// Which cluster.
    pub how: How,
    /// What it is to be in the cluster that it joins.
    #[serde(default)]
    pub join_as: Option<JoinAs>,
}

/// Which cluster a new node is to be in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// A new one, of itself alone.
    Bootstrap,
    /// The cluster of the node at this address.
    Join(String),
}

impl FirstStart {
    /// What `DIR/first-start` says, or `None` if it is not there.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<FirstStart>, StorageError> {
        let Some(bytes) = small_file::read(disk, directory, FILE)? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(found) => Ok(Some(found)),
            Err(error) => Err(StorageError::corrupted(directory.join(FILE), 0, error.to_string())),
        }
    }

    /// Writes it, durably.
    pub fn write(&self, disk: &dyn Disk, directory: &Path) -> Result<(), StorageError> {
        let bytes = serde_json::to_vec_pretty(self).expect("strings are always JSON");
        small_file::write(disk, directory, FILE, &bytes)
    }

    /// Removes it: the node is a member.
    pub fn remove(disk: &dyn Disk, directory: &Path) -> Result<(), StorageError> {
        small_file::remove(disk, directory, FILE)
    }
}
