//! The door to where backups are: named objects that never change once they can be seen.
//!
//! A directory is one such place ([`super::DirectoryStore`]), a bucket another. So the door asks for no more than a bucket
//! has: no append, no rename, no lock. An object appears whole under its name or not at all; a reader never sees half of
//! one. Parts are streamed, in pieces of a few MiB at most, and their size is bounded; manifests are small and put whole.
//! A manifest may be put again under its name: a reader sees the old one or the new one.
//!
//! Names are parts of lower case letters, digits and the signs `-` and `.`, joined by `/`. Who calls keeps to that.

use crate::error::StorageError;

/// An object, as it is listed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// Why a place for backups did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No object has this name.
    #[error("there is no object {name:?} where the backups are")]
    NotFound {
        /// The name.
        name: String,
    },
    /// A directory's disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A place of another kind.
    #[error("{operation} of {name:?} failed: {message}")]
    Other {
        /// What was asked.
        operation: &'static str,
        /// Of which object, or of which beginning of names.
        name: String,
        /// What the place says.
        message: String,
    },
}

/// A place for backups. One writer at a time writes under one beginning of names; any number read.
pub trait BackupStore: Send + Sync {
    /// Begins an object, which is seen once [`ObjectWriter::finish`] has returned; it then replaces one of that name.
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError>;

    /// Puts a small object, whole; it replaces one of that name. Durable when this returns.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Reads up to `length` bytes from `offset` on; fewer only at the end of the object.
    fn read(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError>;

    /// The objects whose names begin so, sorted by name.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError>;

    /// Removes an object, and what an unfinished one of that name left; none is fine. Durable when this returns.
    fn delete(&self, name: &str) -> Result<(), StoreError>;
}

/// An object that is being written. Dropped before it is finished, it is never seen.
pub trait ObjectWriter: Send {
    /// Adds bytes behind those written so far.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Shows it under its name. Durable when this returns.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;
}
