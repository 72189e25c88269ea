//! What the tests of this crate share.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`oracle`] | the plain model of the engine, and its log |
//! | [`engine_driver`] | engines driven as a consensus drives them, beside the model, through power cuts |
//! | [`boundary_disk`] | a door with a hook before every operation that changes something |

pub mod boundary_disk;
pub mod engine_driver;
pub mod oracle;

/// What a caught panic said.
#[must_use]
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "a panic".into())
}
