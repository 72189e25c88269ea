//! Calamus' storage engine: B+trees over memory-mapped pages, many versions of a page at a time, and one sequential
//! journal, which can be the log of a consensus. It knows nothing of Raft, tokio or gRPC, and is a database alone.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use calamus_engine::Database;
//!
//! let directory = tempfile::tempdir()?;
//! let database = Database::open(directory.path())?; // makes one where there is none
//!
//! // Write. What `write` has returned from is on disk, all of it.
//! database.write(|txn| {
//!     txn.create_tree("birds")?;
//!     txn.put("birds", b"heron", b"grey")?;
//!     txn.put("birds", b"robin", b"red")?;
//!     txn.put("birds", b"swift", b"black").map(drop)
//! })?;
//!
//! // Read, from a snapshot: what is written meanwhile does not show.
//! let snapshot = database.read();
//! let robin = snapshot.get("birds", b"robin")?.expect("it was put");
//! assert_eq!(robin.value.to_vec()?, b"red");
//!
//! // Back out: an error undoes the whole transaction.
//! let refused = database.write(|txn| {
//!     txn.delete("birds", b"robin")?;
//!     txn.put("fish", b"perch", b"green").map(drop) // there is no such tree
//! });
//! assert_eq!(refused.err().expect("refused").to_string(), "there is no tree named \"fish\"; create it first");
//!
//! // Iterate, from any key, in both directions.
//! let mut cursor = snapshot.cursor("birds")?.expect("the tree is there");
//! let mut found = Vec::new();
//! let mut there = cursor.seek(b"i")?;
//! while there {
//!     found.push(String::from_utf8(cursor.key().to_vec())?);
//!     there = cursor.next()?;
//! }
//! assert_eq!(found, ["robin", "swift"]);
//!
//! // Close, by dropping all that was opened; and open again.
//! drop(cursor);
//! drop(robin);
//! drop(snapshot);
//! drop(database);
//! assert!(Database::open(directory.path())?.read().get("birds", b"swift")?.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! # Using it
//!
//! [`Database`] is all that most programs need: transactions that write ([`Batch`]), snapshots that read ([`ReadTxn`]),
//! and cursors of both ([`Cursor`]). `engine/examples` has three small programs: counters that threads add to, a time
//! series with rollups, an index of texts with ranked search.
//!
//! - Keys are 1 to [`MAX_KEY_BYTES`] bytes, in the order of their bytes; values up to [`MAX_VALUE_BYTES`]; names of trees up
//!   to [`MAX_NAME_BYTES`]. An entry says which transaction wrote it.
//! - A tree made by [`Batch::create_multi_tree`] has many values under a key, sorted, each of them there once; they are as
//!   long as keys at most. [`ValuesCursor`] walks over them in both directions, [`Keys`] over the keys.
//! - One transaction writes at a time. Any number of snapshots read meanwhile, on any thread, and wait for nobody. A snapshot
//!   that is kept for long keeps old pages in memory: past a bound it is expired, and says so.
//! - Every operation has its own error: [`OpenError`], [`WriteError`], [`BatchError`] within a transaction,
//!   [`ReadError`]. Bytes that are not what was written are an error, wherever they are met, and never
//!   served. A panic is a mistake in the program, or in this one.
//! - One process opens a directory at a time. [`check_directory`] proves a closed one sound, byte by byte, and [`salvage()`]
//!   copies what can be read of one that is not.
//! - [`Database::open_with`] takes [`EngineOptions`], and any [`Disk`]. [`Engine`] and what it is driven with are for a
//!   consensus.
//!
//! # What is stable
//!
//! Versions follow semver, as cargo reads it: from 0.1 to 0.2 things may break, from 0.1.0 to 0.1.1 nothing does. The
//! promise covers the structs, enums, traits, functions, constants and type aliases that this page lists, under the paths
//! that they have here (`calamus_engine::TxnId`): their public methods, fields and variants, and what their documentation
//! says of them.
//!
//! It does not cover
//! - paths through a module: `calamus_engine::ids::TxnId` may move. What else is in the modules is for tools and tests that
//!   look at the disk, and may change in any version; modules that are not shown are for this workspace alone;
//! - bounds and implementations with a trait that is not listed: [`btree::PageSource`]. Methods and fields with a type that is
//!   not listed are hidden: replicas and tools need those;
//! - what is hidden from these pages, the feature `mutants`, the words of errors and logs, and the values of the defaults.
//!
//! Errors, and the structs and enums that may grow, are `non_exhaustive`: options are made by `default` and set field by
//! field, and a `match` has an arm for what is new. Of an enum that needs no such arm the documentation says why. New
//! methods of [`Disk`] and [`DiskFile`] come with a body. [`Payload`] takes `Bytes` of the crate `bytes` 1: another major
//! version of that is one of this crate too. A newer Rust is asked for in a minor version at the earliest.
//!
//! What stands on disk has versions of its own: see `docs/formats.md`.
//!
//! # The map
//!
//! | module | what it is |
//! | --- | --- |
//! | [`ids`], [`error`] | the words, and what the disk can do to us |
//! | [`mod@env`] | the one door to the disk: the real one, one that forgets what was not synced, a simulated one |
//! | [`space`] | the reserve, and what is taken when the disk is nearly full |
//! | [`page`] | a page, its checksum, the digest, the superblock |
//! | [`damage`] | what is known to be damaged |
//! | [`btree`] | trees over pages, wherever those come from |
//! | `alloc` | which pages are free |
//! | [`journal`] | frames on disk, in order |
//! | `slots` | a small value in two slots |
//! | `versions` | which content of a page a reader sees |
//! | `store` | one generation: data file, versions, journal; applied and staged |
//! | [`txn`] | batches that write, snapshots that read, records |
//! | `checkpoint` | copying applied pages into the data file; `node.meta` |
//! | `recovery` | from what a crash left to a state that may be served |
//! | [`feed`] | what was committed, as changes, from any transaction on that the journal still holds |
//! | [`seed`] | a whole database as a stream |
//! | [`engine`], [`scrub`] | a directory, open: what a consensus drives; what reads all of it, compares and repairs |
//! | [`database`] | the engine alone, as an embedded database: merged commits of many threads, durable at once or later |
//! | [`offline`] | a directory that no node has open: checked without a change, salvaged |
//! | [`backup`] | copies that are the journal: full and incremental, restored to any point |
//! | [`verify`] | the whole-file check |
//!
//! Dependencies go from the bottom of that table to the top. What has no link is inside, and its files say what it promises.
//!
//! # The write path
//!
//! 1. [`Engine::begin_batch`] opens a [`Batch`] on the newest staged state; transactions run in it, one after the other.
//! 2. [`Batch::seal`] makes a record of the changed pages and stages their versions.
//! 3. The record becomes a [`Frame`] as soon as its log id is known, and
//!    [`Engine::append`] queues it: one write and one sync for all that wait. A [`Database`] writes and syncs on the thread
//!    that commits.
//! 4. When the frame is committed (for a database alone: when it is durable), [`Engine::apply`] publishes the staged
//!    versions, or, on a follower, puts the frame's page bytes in place.
//! 5. The checkpointer copies applied versions into the data file, in the background.

#![warn(missing_docs)]

#[doc(hidden)]
pub mod alloc;
pub mod backup;
pub mod btree;
#[doc(hidden)]
pub mod checkpoint;
pub mod damage;
pub mod database;
pub mod engine;
pub mod env;
pub mod error;
pub mod feed;
pub mod ids;
pub mod journal;
pub mod offline;
pub mod page;
mod raw;
#[doc(hidden)]
pub mod recovery;
pub mod scrub;
pub mod seed;
#[doc(hidden)]
pub mod slots;
#[cfg(test)]
mod slots_test;
pub mod space;
#[doc(hidden)]
pub mod store;
pub mod txn;
pub mod verify;
#[cfg(test)]
mod verify_test;
#[doc(hidden)]
pub mod versions;

// What is stable: these names, under these paths.
#[doc(inline)]
pub use btree::multi::{Keys, ValuesCursor};
#[doc(inline)]
pub use btree::{Chunks, Cursor, Entry, MAX_KEY_BYTES, MAX_VALUE_BYTES, Range, ReadError, TreeKind, Value, ValueChunk};
#[doc(inline)]
pub use checkpoint::meta::NodeIdentity;
#[doc(inline)]
pub use damage::{Damage, DamageCounts, DamagedPart, FoundBy};
#[doc(inline)]
pub use database::{Committed, Database, Durability, WriteError, WriteTxn};
#[doc(inline)]
pub use engine::{
    CheckpointReport, Engine, EngineOptions, EngineStatus, JournalTail, LogState, OpenError, Pin, PinError, PinInfo,
    RecoveryReport, TailCloser, TailError, TailNext, Vote,
};
#[doc(inline)]
pub use env::{BLOCK_BYTES, Disk, DiskFile, FileMap, OpenMode, RealDisk};
#[doc(inline)]
pub use error::StorageError;
#[doc(inline)]
pub use ids::{
    ClusterId, DatabaseId, Digest, Generation, JournalPosition, LogId, LogIndex, PageNumber, RaftId, Term, Timeline,
    TxnId,
};
#[doc(inline)]
pub use journal::frame::{CHAIN_START, Frame, FrameError, FrameHeader, FrameKind, MAX_PAYLOAD_BYTES, Payload};
#[doc(inline)]
pub use journal::{Done, JournalMode, JournalOptions};
#[doc(inline)]
pub use offline::{
    DirectoryReport, Finding, FindingKind, Lost, SalvageError, SalvageReport, Salvaged, check_directory, salvage,
};
#[doc(inline)]
pub use recovery::Damage as DirectoryDamage;
#[doc(inline)]
pub use scrub::{RepairError, ScrubReport, ScrubStatus};
#[doc(inline)]
pub use slots::SlotDamage;
#[doc(inline)]
pub use space::{DiskFull, Footprint, Space, SpaceLevel, SpaceOptions};
#[doc(inline)]
pub use store::{Applied, AppliedState, ApplyError, BatchId, Published, StagedState};
#[doc(inline)]
pub use txn::ops::{OperationKind, OperationView, ValueAt};
#[doc(inline)]
pub use txn::record::{PageDiff, Record, RecordError, RecordHeader};
#[doc(inline)]
pub use txn::{
    Batch, BatchError, BatchPages, DropProgress, MAX_NAME_BYTES, ReadTxn, Reserved, Savepoint, Staged, TreeInfo,
    TreeView, WriteCursor,
};
#[doc(inline)]
pub use verify::{CheckReport, Problem, ProblemKind, Progress};
#[doc(inline)]
pub use versions::ReaderInfo;
