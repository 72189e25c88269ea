//! Why a drill could not go on: not a verdict on the cluster, but on the attempt.

use std::fmt;

/// What kept a drill from going on, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble(String);

impl Trouble {
    /// With these words.
    pub fn new(what: impl Into<String>) -> Trouble {
        Trouble(what.into())
    }

    /// What was being done when an error came.
    pub fn during(what: impl fmt::Display, error: impl fmt::Display) -> Trouble {
        Trouble(format!("{what}: {error}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        Trouble(error.to_string())
    }
}
