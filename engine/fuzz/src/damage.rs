//! What reading may say of pages that are not what was written.

use calamus_engine::btree::ReadError;
use calamus_engine::error::StorageError;

/// What was read; `None` if it is said to be damaged.
///
/// # Panics
/// When it says anything else.
pub fn only_damage<T>(result: Result<T, ReadError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(ReadError::Storage(StorageError::Corrupted { .. } | StorageError::DamagedPage { .. })) => None,
        Err(error) => panic!("not reported as damage: {error}"),
    }
}
