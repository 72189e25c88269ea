//! `calamus` with the doors that tests need (feature `fault-door` of the server): see `docs/decisions/0005`.

use std::process::ExitCode;

fn main() -> ExitCode {
    calamus_server::cli::main()
}
