//! The power goes at every operation of the disk. See `docs/testing.md`.

mod enumerate;
mod every_image;
mod faults;
mod images;
mod lives;
mod mutants;
mod recovery;
mod replay;
mod steps;
mod tally;
mod workloads;
