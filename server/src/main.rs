//! The binary `calamus`; everything is in the library, so that tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    calamus_server::cli::main()
}
