//! What a node is to be seeded from, as its operator says it: `--seed-from WHAT`.
//!
//! | WHAT | source |
//! | --- | --- |
//! | `any` | the follower that lags least, or whoever the leader names next; the default |
//! | `leader` | the leader |
//! | `node:NAME` | that node |
//! | `backup:TARGET` | the newest backups in a target of this node's configuration, then any node |
//! | `backup:PLACE` | the same in a directory or a bucket; only as a flag of `serve`, for a client names targets, never places |
//!
//! It is a wish: where that source fails, the others that the leader names remain. It holds until the node was seeded, and
//! stands in `DIR/seed-from` until then, so that a start of the node in the middle goes on as it was told to.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use calamus_engine::backup::{BackupOptions, Backups};
use calamus_engine::env::Disk;
use calamus_engine::error::StorageError;
use calamus_replication::Node;
use calamus_replication::seeding::SeedFrom;
use calamus_replication::seeding::archive::SeedArchive;
use tracing::{info, warn};

use crate::backup::place::PlaceUrl;
use crate::backup::targets::Targets;
use crate::config::node_name;
use crate::failure::Failure;
use crate::small_file;

/// The name of the file.
const FILE: &str = "seed-from";

/// What a node is to be seeded from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum SeedWish {
    /// Whom the leader names first.
    #[default]
    Any,
    /// The leader.
    Leader,
    /// The node of this name.
    Node(String),
    /// The backups in a target of the configuration.
    Target(String),
    /// The backups in a place.
    Place(PlaceUrl),
}

impl std::fmt::Display for SeedWish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => write!(f, "any"),
            Self::Leader => write!(f, "leader"),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Target(name) => write!(f, "backup:{name}"),
            Self::Place(place) => write!(f, "backup:{place}"),
        }
    }
}

impl FromStr for SeedWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "any" => Ok(Self::Any),
            None if text == "leader" => Ok(Self::Leader),
            Some(("node", name)) => Ok(Self::Node(node_name(name)?)),
            // Targets are named as nodes are; a place has a slash.
            Some(("backup", place)) if place.contains('/') => Ok(Self::Place(place.parse()?)),
            Some(("backup", name)) => Ok(Self::Target(node_name(name)?)),
            _ => Err(format!(
                "`{text}` is nothing that a node can be seeded from; it is `any`, `leader`, `node:NAME`, or `backup:TARGET` \
                 with a target of the node's configuration"
            )),
        }
    }
}

/// Where the wishes of a node are kept.
#[derive(Clone)]
pub struct Wishes {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    targets: Targets,
}

impl Wishes {
    /// Those of the node in `dir`.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, targets: Targets) -> Self {
        Self { disk, dir: dir.to_owned(), targets }
    }

    /// Takes the wish of the flags, or else the one that was not fulfilled before.
    ///
    /// # Errors
    /// When the flags name a target that the configuration does not have; those of the disk.
    pub fn at_start(&self, node: &Node, given: Option<&SeedWish>) -> Result<(), Failure> {
        let unusable = |error: &dyn std::fmt::Display| {
            Failure::new(
                "cannot use what this node is to be seeded from",
                error,
                "give --seed-from any, leader, node:NAME or backup:TARGET",
            )
        };
        if let Some(given) = given {
            return self.take(node, given).map_err(|error| unusable(&error));
        }
        let Some(bytes) = small_file::read(&*self.disk, &self.dir, FILE).map_err(|error| unusable(&error))? else {
            return Ok(());
        };
        let wish = String::from_utf8_lossy(&bytes).trim().to_owned();
        // It may be of long ago, and the configuration another one: no reason to keep a member from starting.
        if let Err(why) = wish.parse().and_then(|wish| self.take(node, &wish)) {
            warn!(wish, why, "what the file `{FILE}` wishes cannot be; any node will do");
        }
        Ok(())
    }

    /// Takes a wish.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub fn take(&self, node: &Node, wish: &SeedWish) -> Result<(), String> {
        let from = match wish {
            SeedWish::Any => SeedFrom::Any,
            SeedWish::Leader => SeedFrom::Leader,
            SeedWish::Node(name) => SeedFrom::Node(name.clone()),
            SeedWish::Target(name) => {
                let place = self.targets.place(name).map_err(|error| error.to_string())?;
                self.archive(node, wish, place)?
            }
            SeedWish::Place(place) => self.archive(node, wish, place)?,
        };
        self.note(wish).map_err(|error| error.to_string())?;
        info!(from = %wish, "this node is to be seeded from there, if it has to be seeded");
        let wishes = self.clone();
        node.seed_from(from, Box::new(move || wishes.fulfilled()));
        Ok(())
    }

    fn archive(&self, node: &Node, wish: &SeedWish, place: &PlaceUrl) -> Result<SeedFrom, String> {
        let store = place.open().map_err(|failure| failure.to_string())?;
        let backups = Backups::new(store, BackupOptions::default());
        Ok(SeedFrom::Archive(Arc::new(SeedArchive::new(wish.to_string(), backups, node.engine()))))
    }

    fn note(&self, wish: &SeedWish) -> Result<(), StorageError> {
        match wish {
            SeedWish::Any => small_file::remove(&*self.disk, &self.dir, FILE),
            wish => small_file::write(&*self.disk, &self.dir, FILE, format!("{wish}\n").as_bytes()),
        }
    }

    fn fulfilled(&self) {
        // Left there, it would only be wished for once more.
        if let Err(error) = small_file::remove(&*self.disk, &self.dir, FILE) {
            warn!(%error, "the file `{FILE}` is left, although this node was seeded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wished_is_read_and_written() {
        for (text, wish) in [
            ("any", SeedWish::Any),
            ("leader", SeedWish::Leader),
            ("node:n2", SeedWish::Node("n2".to_owned())),
            ("node:leader", SeedWish::Node("leader".to_owned())),
            ("backup:cold", SeedWish::Target("cold".to_owned())),
            ("backup:/var/backups", SeedWish::Place("/var/backups".parse().expect("a place"))),
            ("backup:s3://cold/a", SeedWish::Place("s3://cold/a".parse().expect("a place"))),
        ] {
            assert_eq!(text.parse::<SeedWish>().as_ref(), Ok(&wish));
            assert_eq!(wish.to_string(), text);
        }
        for bad in ["", "n2", "node:", "node:a b", "backup:", "backup:gs://x/y", "follower"] {
            assert!(bad.parse::<SeedWish>().is_err(), "{bad}");
        }
    }
}
