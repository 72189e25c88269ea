//! What a checker says, and its bounds.

use std::fmt;
use std::time::{Duration, Instant};

use crate::history::Key;

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<V> {
    /// An order exists that explains every answer.
    Ok,
    /// None exists.
    Violation(Box<V>),
    /// A bound was reached, or the history does not allow an answer. Never to be counted as good.
    Undecided(Undecided),
}

impl<V> Verdict<V> {
    /// Whether the history was found good.
    pub fn is_ok(&self) -> bool {
        matches!(self, Verdict::Ok)
    }
}

impl<V: fmt::Display> fmt::Display for Verdict<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ok => write!(f, "ok"),
            Verdict::Violation(violation) => write!(f, "violation: {violation}"),
            Verdict::Undecided(why) => write!(f, "undecided: {why}"),
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// The search of a key took longer than allowed.
    Time { key: Key, allowed: Duration },
    /// The search of a key would have remembered more than allowed.
    Memory { key: Key, allowed_bytes: usize },
    /// An element was appended to a key by two transactions, so a list does not say who made it.
    SameElementTwice { key: Key, element: u64 },
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Undecided::Time { key, allowed } => {
                write!(f, "{key} was not searched to the end within {allowed:?}; give more time, or check less of it")
            }
            Undecided::Memory { key, allowed_bytes } => write!(
                f,
                "the search of {key} would remember more than {} MiB; allow more, or check less of it",
                allowed_bytes >> 20
            ),
            Undecided::SameElementTwice { key, element } => write!(
                f,
                "the load appended {element} to {key} in two transactions, so a list does not say who made it; \
                 the load must draw unique elements"
            ),
        }
    }
}

/// How far a search may go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For all keys together.
    pub time: Duration,
    /// What the search of one key may remember, in bytes; it is let go before the next key.
    pub memory_bytes: usize,
}

impl Default for Bounds {
    /// A minute and 1 GiB.
    fn default() -> Bounds {
        Bounds { time: Duration::from_secs(60), memory_bytes: 1 << 30 }
    }
}

impl Bounds {
    /// When a check that begins now must end; nothing, if that is never.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.time)
    }
}
