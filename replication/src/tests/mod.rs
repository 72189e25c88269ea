//! Tests of the binding as a whole, on real files and loopback.

mod cluster;
mod disk;
mod full_disk;
mod membership;
mod refusals;
mod replication;
mod restoring;
mod rounds;
mod scripted;
mod search;
mod seeding;
mod sessions;
mod sources;
mod suite;
pub(crate) mod support;
mod votes;
