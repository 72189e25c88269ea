//! Which disk a node is opened on: the real one, or, in builds with the feature `fault-door`, one that the environment
//! asks for.

use std::sync::Arc;

use calamus_engine::env::{Disk, RealDisk};

use crate::failure::Failure;

/// The disk for this process.
pub fn from_environment() -> Result<Arc<dyn Disk>, Failure> {
    Ok(Arc::new(RealDisk::new()))
}
