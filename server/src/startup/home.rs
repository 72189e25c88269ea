//! Which directory this is to the file system: the file `DIR/home`, so that a copy does not run as its original.
//!
//! A directory holds a vote and a log that others rely on, under a raft id that is in no other. Two directories with one
//! raft id could vote twice in a term; one that was put back from an older copy could deny what it acknowledged and vote
//! for a leader that lacks it. Either loses committed writes, and nothing within the directory can tell: all of it was
//! copied. So the directory remembers what a copy does not take along:
//!
//! - the inode number and the time of birth of DIR itself. Both stay through renames, reboots and everything that is
//!   written in DIR; a copy, an archive that is unpacked and a backup that is put back get others. (A number alone may be
//!   given again.)
//! - where the file system knows no time of birth, the device number in its place. It may change at a reboot on some
//!   systems, and then the operator has to speak.
//!
//! | `home` | DIR | operator | decision |
//! | --- | --- | --- | --- |
//! | missing | - | - | start, and write it: the directory is of an earlier version |
//! | says so | the same | - | start |
//! | says so | another | silent | refuse |
//! | says so | another | `--directory-was-moved` | start, and write it anew |
//!
//! What it cannot see is a whole file system that is put back: an image of a disk, a virtual machine.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use calamus_engine::env::Disk;
use calamus_engine::error::StorageError;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::small_file;

/// The name of the file.
pub const FILE: &str = "home";

/// What the file system calls a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    inode: u64,
    /// In nanoseconds since 1970; `None` where the file system does not know it.
    born: Option<u64>,
    device: u64,
}

impl Home {
    /// What the file system says of `directory` now. The one question that does not go through the door to the disk: it
    /// is about no content, and no other disk could answer it.
    pub fn of(directory: &Path) -> std::io::Result<Home> {
        let found = std::fs::metadata(directory)?;
        let born = found.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Ok(Home { inode: found.ino(), born, device: found.dev() })
    }

    fn is_same(&self, other: &Home) -> bool {
        let born = match (self.born, other.born) {
            (Some(one), Some(other)) => one == other,
            _ => self.device == other.device,
        };
        self.inode == other.inode && born
    }

    /// What `DIR/home` says, or `None` if it is not there.
    fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Home>, StorageError> {
        let Some(bytes) = small_file::read(disk, directory, FILE)? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(found) => Ok(Some(found)),
            Err(error) => Err(StorageError::corrupted(directory.join(FILE), 0, error.to_string())),
        }
    }
}

fn cannot(directory: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        format!("cannot tell whether {} is a copy", directory.display()),
        error,
        "check the permissions and the disk; `--directory-was-moved` says that it is none",
    )
}

/// Refuses a directory that is not where it was, unless `moved`. Changes nothing.
pub fn check(disk: &dyn Disk, directory: &Path, moved: bool) -> Result<(), Failure> {
    if moved {
        return Ok(());
    }
    let now = Home::of(directory).map_err(|error| cannot(directory, &error))?;
    match Home::read(disk, directory).map_err(|error| cannot(directory, &error))? {
        Some(then) if !then.is_same(&now) => Err(Failure::new(
            format!("{} was copied or restored, or moved to another disk", directory.display()),
            "it is not the directory in which its node ran: two of them could vote as one node, and an older one could \
             deny what the node has acknowledged",
            "start the node in a new directory with its --name and --join HOST:PORT of a living node, and it is filled \
             from its peers; if this one was moved on purpose, and its original neither runs nor ever ran since, say \
             --directory-was-moved, once",
        )),
        _ => Ok(()),
    }
}

/// Writes where the directory is, if it does not say so already.
pub fn remember(disk: &dyn Disk, directory: &Path) -> Result<(), Failure> {
    let now = Home::of(directory).map_err(|error| cannot(directory, &error))?;
    // What cannot be read was passed over on the word of the operator.
    if Home::read(disk, directory).ok().flatten().as_ref() == Some(&now) {
        return Ok(());
    }
    let bytes = serde_json::to_vec(&now).expect("numbers are always JSON");
    small_file::write(disk, directory, FILE, &bytes).map_err(|error| cannot(directory, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use calamus_engine::env::RealDisk;

    #[test]
    fn a_rename_and_new_content_keep_a_directory_at_home_and_a_copy_is_away() {
        let temp = tempfile::tempdir().unwrap();
        let [dir, renamed, copy] = ["a", "b", "c"].map(|name| temp.path().join(name));
        let disk = RealDisk::new();
        std::fs::create_dir(&dir).unwrap();
        check(&disk, &dir, false).unwrap();
        remember(&disk, &dir).unwrap();
        std::fs::write(dir.join("more"), "x").unwrap();
        std::fs::rename(&dir, &renamed).unwrap();
        check(&disk, &renamed, false).unwrap();
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(renamed.join(FILE), copy.join(FILE)).unwrap();
        assert!(check(&disk, &copy, false).unwrap_err().to_string().contains("--directory-was-moved"));
        check(&disk, &copy, true).unwrap();
        remember(&disk, &copy).unwrap();
        check(&disk, &copy, false).unwrap();
        std::fs::write(copy.join(FILE), "{").unwrap();
        assert!(check(&disk, &copy, false).unwrap_err().to_string().contains("home"));
    }

    #[test]
    fn the_time_of_birth_counts_where_it_is_known_and_the_device_where_it_is_not() {
        let home = |inode, born, device| Home { inode, born, device };
        assert!(home(1, Some(5), 7).is_same(&home(1, Some(5), 8)), "another number of the same disk");
        assert!(!home(1, Some(5), 7).is_same(&home(1, Some(6), 7)), "a number that was given again");
        assert!(!home(1, Some(5), 7).is_same(&home(2, Some(5), 7)));
        assert!(home(1, None, 7).is_same(&home(1, Some(5), 7)));
        assert!(!home(1, None, 7).is_same(&home(1, None, 8)));
    }
}
