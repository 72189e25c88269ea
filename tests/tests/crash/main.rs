//! The power goes at every operation of the disk. See `docs/testing.md`.

mod enumerate;
mod lives;
mod mutants;
mod recovery;
mod replay;
mod workloads;
