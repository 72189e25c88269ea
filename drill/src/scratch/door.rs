//! What goes wrong on a node's disk, while it runs: by the test-only door of `serve`, told by a control file. The file is
//! read four times a second.

use std::path::PathBuf;

use crate::trouble::Trouble;

/// What goes wrong on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskTrouble {
    /// Every sync takes this much longer, in milliseconds.
    pub sync_delay_ms: u64,
    /// Files may grow by this many bytes together.
    pub space_limit: Option<u64>,
    /// Syncs do not return.
    pub hang_syncs: bool,
}

/// The control file of one node.
pub(super) struct Door(PathBuf);

impl Door {
    pub(super) fn new(file: PathBuf) -> Result<Door, Trouble> {
        let door = Door(file);
        door.set(DiskTrouble::default())?;
        Ok(door)
    }

    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let file = self.0.display().to_string();
        vec![("CALAMUS_DISK".to_owned(), "losing".to_owned()), ("CALAMUS_DISK_CONTROL".to_owned(), file)]
    }

    pub(super) fn set(&self, trouble: DiskTrouble) -> Result<(), Trouble> {
        let mut text = String::new();
        if trouble.sync_delay_ms > 0 {
            text += &format!("sync_delay_ms {}\n", trouble.sync_delay_ms);
        }
        if let Some(bytes) = trouble.space_limit {
            text += &format!("space_limit {bytes}\n");
        }
        if trouble.hang_syncs {
            text += "hang_syncs\n";
        }
        // Renamed into place: the node never reads half of it.
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, text)
            .and_then(|()| std::fs::rename(&fresh, &self.0))
            .map_err(|error| Trouble::during(format!("cannot write {}", self.0.display()), error))
    }
}
