//! Operations on single keys.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Call;

/// A key, by a number that the load turns into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub u64);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.0)
    }
}

/// A value, by a number that the load turns into bytes. Histories in which each write has a value of its own say most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Value(pub u64);

/// What is done to a key. All keys are absent when a history begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyAction {
    /// Read its value.
    Read,
    /// Give it this value.
    Write(Value),
    /// Give it a new value if it has the expected one (or is absent, if nothing is expected).
    Cas {
        /// What it must have.
        expected: Option<Value>,
        /// What it gets.
        new: Value,
    },
    /// Make it absent, also if it is.
    Delete,
}

/// An operation on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCall {
    /// The key.
    pub key: Key,
    /// What is done to it.
    pub action: KeyAction,
}

/// What an operation on a key returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyResult {
    /// Of a read: the value, or nothing if the key is absent.
    Value(Option<Value>),
    /// Of a write or a delete.
    Done,
    /// Of a compare-and-swap: whether the key had the expected value, and so has the new one.
    Swapped(bool),
}

impl Call for KeyCall {
    type Returned = KeyResult;
    const KIND: &'static str = "keys";

    fn fits(&self, returned: &KeyResult) -> bool {
        match self.action {
            KeyAction::Read => matches!(returned, KeyResult::Value(_)),
            KeyAction::Write(_) | KeyAction::Delete => matches!(returned, KeyResult::Done),
            KeyAction::Cas { .. } => matches!(returned, KeyResult::Swapped(_)),
        }
    }

    fn describe(&self, returned: &KeyResult) -> String {
        match returned {
            KeyResult::Value(value) => shown(*value),
            KeyResult::Done => "done".to_string(),
            KeyResult::Swapped(true) => "swapped".to_string(),
            KeyResult::Swapped(false) => "not as expected".to_string(),
        }
    }
}

impl fmt::Display for KeyCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            KeyAction::Read => write!(f, "read {}", self.key),
            KeyAction::Write(value) => write!(f, "write {} = {}", self.key, value.0),
            KeyAction::Cas { expected, new } => {
                write!(f, "swap {} from {} to {}", self.key, shown(expected), new.0)
            }
            KeyAction::Delete => write!(f, "delete {}", self.key),
        }
    }
}

/// The value of a key, for a person.
pub(crate) fn shown(value: Option<Value>) -> String {
    value.map_or_else(|| "absent".to_string(), |value| value.0.to_string())
}
