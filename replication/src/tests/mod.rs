//! Tests of the binding as a whole, on real files and loopback.

mod suite;
pub(crate) mod support;
