//! Bytes of a node's directory change behind its back. See `docs/testing.md`.

mod base;
mod change;
mod every_damage;
mod judge;
mod tally;
