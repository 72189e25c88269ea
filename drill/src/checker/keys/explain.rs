//! A violation of linearizability, for a person.

use std::fmt;

use super::entry::{Effect, Entry, State};
use super::search::Blocked;
use crate::history::{Key, KeyAction, KeyCall, Operation, Outcome, Value};

/// How many operations that wrote the value in question are shown.
const SHOWN_WRITERS: usize = 4;

/// A key whose history no order of its operations explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyViolation {
    /// The key.
    pub key: Key,
    /// The operation that cannot be placed: up to its end the history cannot be explained, and up to the end before it can.
    pub culprit: Operation<KeyCall>,
    /// How many operations the longest order that was found has placed before that end.
    pub placed: usize,
    /// The last of them, in that order.
    pub last_placed: Vec<Operation<KeyCall>>,
    /// The value of the key after them.
    pub value: Option<Value>,
    /// What might have come next, and why it could not.
    pub stuck: Vec<Stuck>,
    /// Who wrote the value that the culprit saw, if it saw one: none, or operations that were of no help.
    pub writers: Vec<Operation<KeyCall>>,
    /// Whether the culprit saw a value, so that `writers` says something.
    saw_a_value: bool,
}

/// An operation that was under way where the search went no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The operation.
    pub operation: Operation<KeyCall>,
    /// Whether its answer would be right at this place; then what follows cannot be explained with it, in any order.
    pub right_here: bool,
}

impl KeyViolation {
    pub(super) fn new(
        key: Key,
        operations: &[Operation<KeyCall>],
        entries: &[Entry],
        blocked: &Blocked,
    ) -> KeyViolation {
        let operation = |number: &u32| operations[entries[*number as usize].source].clone();
        let culprit = &entries[blocked.entry as usize];
        let stuck = |number: &u32| Stuck {
            operation: operation(number),
            right_here: entries[*number as usize].effect.after(blocked.state).is_some(),
        };
        let saw = match culprit.effect {
            Effect::Is(state) | Effect::Swap(state, _) => state,
            Effect::IsNot(_) | Effect::Set(_) => None,
        };
        let wrote = |operation: &&Operation<KeyCall>| saw.is_some() && written(operation.call.action) == saw;
        KeyViolation {
            key,
            culprit: operations[culprit.source].clone(),
            placed: blocked.placed,
            last_placed: blocked.last_placed.iter().map(operation).collect(),
            value: blocked.state,
            stuck: blocked.open.iter().map(stuck).collect(),
            writers: operations.iter().filter(wrote).cloned().collect(),
            saw_a_value: saw.is_some(),
        }
    }
}

fn written(action: KeyAction) -> State {
    match action {
        KeyAction::Write(value) | KeyAction::Cas { new: value, .. } => Some(value),
        KeyAction::Read | KeyAction::Delete => None,
    }
}

impl fmt::Display for KeyViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order of the operations on {} explains this one:", self.key)?;
        writeln!(f, "    {}", self.culprit)?;
        let value = crate::history::shown_value(self.value);
        writeln!(
            f,
            "Up to there, {} operations can be put in order, after which the value is {value}; the last are:",
            self.placed
        )?;
        for operation in &self.last_placed {
            writeln!(f, "    {operation}")?;
        }
        writeln!(f, "Of the operations that were under way, none leads on:")?;
        for stuck in &self.stuck {
            let why = if stuck.right_here { "possible here, but then the rest is not" } else { "not with this value" };
            writeln!(f, "    {}: {why}", stuck.operation)?;
        }
        self.fmt_writers(f)
    }
}

impl KeyViolation {
    fn fmt_writers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.saw_a_value {
            return Ok(());
        }
        if self.writers.is_empty() {
            return writeln!(f, "Nobody ever wrote the value that it saw.");
        }
        if self.writers.iter().all(|writer| writer.outcome == Outcome::Failed) {
            writeln!(f, "The value that it saw is only that of operations that failed:")?;
        } else {
            writeln!(f, "The value that it saw is that of:")?;
        }
        for writer in self.writers.iter().take(SHOWN_WRITERS) {
            writeln!(f, "    {writer}")?;
        }
        Ok(())
    }
}
