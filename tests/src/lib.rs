//! What the tests of this crate share.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`oracle`] | the plain model of the engine, and its log |
//! | [`engine_driver`] | engines driven as a consensus drives them, beside the model, through power cuts |
//! | [`boundary_disk`] | a door with a hook before every operation that changes something |
//! | [`gate`] | a gate in the way of a disk's operations |
//! | [`wait`] | asking until something is true; the default share and the long run |
//! | [`cluster`] | nodes as processes: start, kill, freeze, wipe; the closing act of every cluster test |
//! | [`acknowledged`] | what clients were told: a load that records it, and the comparison with what nodes hold |
//! | [`compare`] | directories of stopped nodes against each other |

pub mod acknowledged;
pub mod boundary_disk;
pub mod cluster;
pub mod compare;
pub mod engine_driver;
pub mod gate;
pub mod oracle;
pub mod wait;

pub use calamus_drill::process;

/// What a caught panic said.
#[must_use]
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "a panic".into())
}
