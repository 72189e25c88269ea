//! How a command ends: exit codes, and errors for people.

use std::fmt;
use std::process::ExitCode;

/// The exit codes of `calamus`. Documented in `--help` and in `docs/operations/running.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed; the command changed nothing.
    Failed = 1,
    /// The command line is malformed (clap's own code).
    Usage = 2,
    /// The outcome is unknown: it may have been committed, or may still be.
    Unknown = 3,
    /// It worked, and the answer is no: the key is not there, the guards did not hold, the check found damage.
    No = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command failed, in three parts: what happened, why, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    what: String,
    why: String,
    next: String,
}

impl Failure {
    /// A failure that changed nothing.
    pub fn new(what: impl Into<String>, why: impl fmt::Display, next: impl Into<String>) -> Failure {
        Failure { exit: Exit::Failed, what: what.into(), why: why.to_string(), next: next.into() }
    }

    /// The same failure with another advice.
    #[must_use]
    pub fn with_next(self, next: impl Into<String>) -> Failure {
        Failure { next: next.into(), ..self }
    }

    /// The same failure with another exit code.
    pub fn with_exit(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "calamus: {}", self.what)?;
        if !self.why.is_empty() {
            write!(f, "\n  why:  {}", self.why)?;
        }
        if !self.next.is_empty() {
            write!(f, "\n  next: {}", self.next)?;
        }
        Ok(())
    }
}
