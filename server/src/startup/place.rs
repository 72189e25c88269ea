//! What stands in a directory before a node is started on it. Looking changes nothing.
//!
//! | node.meta | first-start | other names | decision |
//! | --- | --- | --- | --- |
//! | there | - | - | `Database`: open it |
//! | missing | there | - | `Unfinished`: make the database again with what `first-start` says |
//! | missing | missing | none | `New` |
//! | missing | missing | `restoring` | refused: a restore into it was cut off |
//! | missing | missing | some | refused: it is something else's directory |

use std::path::Path;

use calamus_engine::Engine;
use calamus_engine::env::Disk;
use calamus_engine::error::StorageError;

use super::first_start::{self, FirstStart};
use crate::failure::Failure;

/// What stands in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A database.
    Database,
    /// Nothing: the directory is missing or empty.
    New,
    /// A first start was cut off before the database was whole.
    Unfinished(FirstStart),
}

/// Names that a fresh directory may hold: what a file system or a first moment of ours leaves there.
const HARMLESS: [&str; 4] = ["lock", "lost+found", "pid", "first-start.new"];

/// The mark that a restore puts into a directory before anything else.
const RESTORING: &str = "restoring";

/// Looks at a directory.
pub fn look(disk: &dyn Disk, directory: &Path) -> Result<Place, Failure> {
    let cannot = |error: StorageError| {
        Failure::new(
            format!("cannot look into the directory {}", directory.display()),
            error,
            "check the path given to --dir, and its permissions",
        )
    };
    if !disk.exists(directory).map_err(cannot)? {
        return Ok(Place::New);
    }
    // A file in place of a directory fails here.
    let names = disk.list_dir(directory).map_err(cannot)?;
    if Engine::exists(disk, directory).map_err(cannot)? {
        return Ok(Place::Database);
    }
    if names.iter().any(|name| name == first_start::FILE) {
        let found = FirstStart::read(disk, directory).map_err(cannot)?;
        return Ok(found.map_or(Place::New, Place::Unfinished));
    }
    if names.iter().any(|name| name == RESTORING) {
        return Err(Failure::new(
            format!("the restore of a backup into {} was cut off", directory.display()),
            "it has no node.meta yet, and holds the mark of a restore that has not ended",
            "run the same `calamus restore` again: it begins anew",
        ));
    }
    match names.iter().find(|name| !HARMLESS.contains(&name.as_str())) {
        None => Ok(Place::New),
        Some(name) => Err(Failure::new(
            format!("{} is not a directory of Calamus", directory.display()),
            format!("it has no node.meta, and holds `{name}`"),
            "give --dir an empty or a new directory; if this was a node's directory, its node.meta is lost: start the \
             node in a new directory with its old --name and --join, and it is filled from its peers",
        )),
    }
}

/// Removes what an unfinished first start left, so that it can be made again. Nothing in there was ever promised to
/// anybody: without node.meta the node has not voted and not acknowledged.
pub fn clear_unfinished(disk: &dyn Disk, directory: &Path) -> Result<(), StorageError> {
    for name in disk.list_dir(directory)? {
        let path = directory.join(&name);
        let generation = name.strip_prefix('g').is_some_and(|rest| rest.parse::<u64>().is_ok());
        if generation {
            disk.remove_dir_all(&path)?;
        } else if name == "vote" || name.ends_with(".new") {
            disk.remove_file(&path)?;
        }
    }
    disk.sync_dir(directory)
}
