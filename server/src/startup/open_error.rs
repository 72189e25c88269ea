//! The engine's reasons for not opening a directory, for an operator.

use std::path::Path;

use calamus_engine::OpenError;

use crate::failure::Failure;
use crate::serve::PID_FILE;

/// What to do about a directory that cannot be trusted any more.
const REFILL: &str = "if the node is part of a cluster: keep a copy of the directory, remove it, and start the node \
with its old --name and --join; it is filled from its peers. `calamus check DIR` says what is damaged";

/// What happened, why, and what to do next.
pub fn explain(dir: &Path, error: &OpenError) -> Failure {
    let what = format!("cannot open the directory {}", dir.display());
    match error {
        OpenError::Locked(_) => Failure::new(
            what,
            "another process has it open: a directory is for one process at a time",
            format!("stop that process (its id is in {}), or give another --dir", dir.join(PID_FILE).display()),
        ),
        OpenError::Missing(_) | OpenError::Exists(_) | OpenError::Options(_) => {
            Failure::new(what, error, "check the path given to --dir")
        }
        OpenError::Storage(inner) if inner.is_no_space() => {
            Failure::new(what, error, "make room on that file system, and start again")
        }
        OpenError::Storage(calamus_engine::error::StorageError::Io { .. }) => {
            Failure::new(what, error, "check the permissions and the disk, and start again")
        }
        _ => Failure::new(what, error, REFILL),
    }
}
