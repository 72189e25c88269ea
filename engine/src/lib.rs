//! Calamus' storage engine.
pub mod alloc;
pub mod btree;
pub mod env;
pub mod error;
pub mod ids;
pub mod journal;
pub mod page;
mod raw;
pub mod slots;
#[cfg(test)]
mod slots_test;
pub mod verify;
