//! The commands that read and write data, through the client crate.

use clap::Subcommand;

use super::{Exit, Failure};

/// One variant a command; each command's options and code are in the file of its name.
#[derive(Debug, Subcommand)]
pub enum DataCommand {}

/// Runs one of them.
pub fn run(command: DataCommand) -> Result<Exit, Failure> {
    match command {}
}
