//! Bytes that went to the disk.
//!
//! Counted at the block device below the folder, whole: the kernel's count for a process (`/proc/self/io`) takes the whole
//! folio for written where a few bytes of it were, which is up to 2 MiB for 4 KiB. So nothing else should write to that
//! device meanwhile. Where the device cannot be found (a file system over several of them), the process's count is taken.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::usage;

const SECTOR_BYTES: u64 = 512;

/// Counts what is written to the device that a folder is on.
pub struct Written {
    folder: fs::File,
    stat: Option<PathBuf>,
}

impl Written {
    pub fn below(folder: &Path) -> Result<Self> {
        let device = fs::metadata(folder)?.dev();
        let stat = format!("/sys/dev/block/{}:{}/stat", rustix::fs::major(device), rustix::fs::minor(device));
        let stat = Some(PathBuf::from(stat)).filter(|path| path.exists());
        Ok(Self { folder: fs::File::open(folder)?, stat })
    }

    /// Bytes so far; what is still in the page cache is written first.
    pub fn bytes(&self) -> Result<u64> {
        rustix::fs::syncfs(&self.folder)?;
        let Some(stat) = &self.stat else { return Ok(usage(std::process::id())?.written_bytes) };
        let text = fs::read_to_string(stat)?;
        sectors_written(&text).map(|sectors| sectors * SECTOR_BYTES).context("the device's counters are not understood")
    }
}

/// The seventh field of a block device's `stat`.
fn sectors_written(text: &str) -> Option<u64> {
    text.split_whitespace().nth(6)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_understood() {
        assert_eq!(sectors_written("  1 2 3 4 5 6 700 8 9 10 11 12 13 14 15 16 17\n"), Some(700));
        assert_eq!(sectors_written("1 2 3"), None);
    }

    #[test]
    fn what_is_written_is_counted() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let written = Written::below(dir.path()).unwrap();
        let before = written.bytes().unwrap();
        fs::write(dir.path().join("x"), vec![1; 1 << 20]).unwrap();
        assert!(written.bytes().unwrap() >= before + (1 << 20));
    }
}
