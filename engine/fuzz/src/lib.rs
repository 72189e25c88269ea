//! What the fuzz targets do with their inputs. Each `fuzz_targets/NAME.rs` is one line that calls [`NAME::run`](page::run),
//! so that all of it is an ordinary library, with tests.
//!
//! | target | the input is | what must hold |
//! | --- | --- | --- |
//! | [`page`] | changes to the pages of a sound database | reading ends, with an error or not; through the engine, no answer is wrong |
//! | [`journal`] | changes to the segments of a sound journal, forged blocks and headers among them | what is read was written; what opens goes on working |
//! | [`slots`] | bytes of `node.meta` and `vote`, or payloads with sums that fit | a directory opens or says why not; what is read encodes to the same bytes |
//! | [`record`] | bytes of a record, or a record with sums that fit | it is refused, or it is applied and the state can still be read, written and checked |
//! | [`operations`] | what a program does with a database: transactions, readers, checkpoints, reopenings, power cuts | a map in memory says the same |
//!
//! A panic is a finding, whatever it says: bytes are never a reason for one.
//!
//! Sums guard everything on disk, and a fuzzer does not guess one. So the inputs are changes to something sound
//! ([`sound`]), and in each target a part of them is given sums that fit again: as from a hostile peer, or as a mistake
//! of the engine's would leave them.

mod damage;
pub mod journal;
mod many;
pub mod operations;
pub mod page;
pub mod record;
pub mod slots;
pub mod sound;
