//! What an operation does to the state of its key.

use crate::history::{KeyAction, KeyCall, KeyResult, Moment, Operation, Outcome, Value};

/// The state of a key: its value, if it has one.
pub(super) type State = Option<Value>;

/// What an operation needs, and what it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Right in this state alone, which stays.
    Is(State),
    /// Right in every other state, which stays.
    IsNot(State),
    /// Right in every state; this one follows.
    Set(State),
    /// Right in the first state alone; the second follows.
    Swap(State, State),
}

impl Effect {
    /// The state that follows; nothing, if the operation is not right in this one.
    pub(super) fn after(self, state: State) -> Option<State> {
        match self {
            Effect::Is(needed) => (state == needed).then_some(state),
            Effect::IsNot(refused) => (state != refused).then_some(state),
            Effect::Set(new) => Some(new),
            Effect::Swap(needed, new) => (state == needed).then_some(new),
        }
    }

    /// Whether it leaves every state as it is. A write of what is there already does not count: later it may not be there.
    pub(super) fn never_changes(self) -> bool {
        match self {
            Effect::Is(_) | Effect::IsNot(_) => true,
            Effect::Set(_) => false,
            Effect::Swap(needed, new) => needed == new,
        }
    }

    /// Whether it looks at the state.
    pub(super) fn looks(self) -> bool {
        !matches!(self, Effect::Set(_))
    }
}

/// An operation that the search has to place, or may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) effect: Effect,
    pub(super) invoked: Moment,
    /// Nothing, if the outcome is unknown: it may be placed at any later time, or not at all.
    pub(super) ended: Option<Moment>,
    /// Which operation of the key this is.
    pub(super) source: usize,
}

impl Entry {
    /// The entry of an operation; nothing, if it has no effect and says nothing.
    pub(super) fn of(operation: &Operation<KeyCall>, source: usize) -> Option<Entry> {
        let (effect, ended) = match operation.outcome {
            Outcome::Failed => return None,
            Outcome::Unknown => (Entry::effect_if_any(operation.call.action)?, None),
            Outcome::Ok(returned) => (Entry::effect_seen(operation.call.action, returned), operation.ended),
        };
        assert_eq!(ended.is_some(), matches!(operation.outcome, Outcome::Ok(_)), "a result comes with its end");
        Some(Entry { effect, invoked: operation.invoked, ended, source })
    }

    fn effect_if_any(action: KeyAction) -> Option<Effect> {
        match action {
            KeyAction::Read => None,
            KeyAction::Write(value) => Some(Effect::Set(Some(value))),
            // An unknown swap that was refused has no effect, and is as if it were left out.
            KeyAction::Cas { expected, new } => Some(Effect::Swap(expected, Some(new))),
            KeyAction::Delete => Some(Effect::Set(None)),
        }
    }

    fn effect_seen(action: KeyAction, returned: KeyResult) -> Effect {
        match (action, returned) {
            (KeyAction::Read, KeyResult::Value(value)) => Effect::Is(value),
            (KeyAction::Write(value), KeyResult::Done) => Effect::Set(Some(value)),
            (KeyAction::Delete, KeyResult::Done) => Effect::Set(None),
            (KeyAction::Cas { expected, new }, KeyResult::Swapped(true)) => Effect::Swap(expected, Some(new)),
            (KeyAction::Cas { expected, .. }, KeyResult::Swapped(false)) => Effect::IsNot(expected),
            _ => panic!("a history holds no result of another call: {action:?} gave {returned:?}"),
        }
    }
}
