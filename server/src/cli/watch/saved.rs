//! The position of a watch in a file that is replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use calamus_client::Position;

use crate::cli::Failure;

/// The position in this file; `None` if it is not there.
pub(super) fn load(path: &Path) -> Result<Option<Position>, Failure> {
    let next = "remove it to begin anew, or name another file with --position";
    let failed = |why: &dyn std::fmt::Display| {
        Err(Failure::new(format!("cannot go on from the position in {}", path.display()), why, next))
    };
    match fs::read_to_string(path) {
        Ok(text) => match text.parse() {
            Ok(position) => Ok(Some(position)),
            Err(error) => failed(&error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => failed(&error),
    }
}

/// Replaces the file: written beside, synced, renamed.
pub(super) fn save(path: &Path, position: &Position) -> Result<(), Failure> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let saved = File::create(&beside).and_then(|mut file| {
        writeln!(file, "{position}")?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    saved.map_err(|error| {
        let what = format!("{position} was printed, and cannot be saved in {}", path.display());
        Failure::new(what, error, "check the place of --position; the next run prints it again")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_replaced_as_a_whole_and_what_is_none_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("position");
        assert_eq!(load(&path).unwrap(), None);
        for txn_id in [3, 12_345] {
            save(&path, &Position::after_txn(txn_id)).unwrap();
            assert_eq!(load(&path).unwrap(), Some(Position::after_txn(txn_id)));
        }
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::write(&path, "7").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("position"));
    }
}
