//! One operation, whatever is called, and its outcome.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Moment;

/// A client: it has at most one operation open, unless earlier ones ended with an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u32);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}

/// What a client asks for.
pub trait Call: Clone + Eq + fmt::Debug + fmt::Display + Serialize + DeserializeOwned + Send + 'static {
    /// What it is told when the call took effect.
    type Returned: Clone + Eq + fmt::Debug + Serialize + DeserializeOwned + Send + 'static;
    /// What the history of such calls is named in a file.
    const KIND: &'static str;

    /// Whether this can be a result of this call, whatever the state is: its kind and its length.
    fn fits(&self, returned: &Self::Returned) -> bool;

    /// Writes the result, for a person.
    fn describe(&self, returned: &Self::Returned) -> String;
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<R> {
    /// It took effect between its beginning and its end, with this result.
    Ok(R),
    /// It has not taken effect and never will.
    Failed,
    /// It may take effect once, at any moment after its beginning, or never.
    Unknown,
}

/// One operation of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(bound(serialize = "C: Serialize, C::Returned: Serialize"))]
#[serde(bound(deserialize = "C: DeserializeOwned, C::Returned: DeserializeOwned"))]
pub struct Operation<C: Call> {
    /// Who asked.
    pub client: ClientId,
    /// Before the request left.
    pub invoked: Moment,
    /// After the answer came, or when the client gave up. Nothing, if the client has not said.
    pub ended: Option<Moment>,
    /// What was asked for.
    pub call: C,
    /// What became of it.
    pub outcome: Outcome<C::Returned>,
}

/// An operation that says two things at once.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MalformedOperation {
    /// Time ran backwards.
    #[error("it ends at {ended}, not after its beginning at {invoked}")]
    EndsBeforeItBegins { invoked: Moment, ended: Moment },
    /// A result without the moment that it came at.
    #[error("it has a result and no end, so nothing can be said of what came after it")]
    ResultWithoutEnd,
    /// The result of another kind of call.
    #[error("the result cannot be one of this call: {call} gave {returned}")]
    ResultOfAnotherCall { call: String, returned: String },
}

impl<C: Call> Operation<C> {
    /// Whether its parts agree with each other.
    ///
    /// # Errors
    /// What does not agree.
    pub fn validate(&self) -> Result<(), MalformedOperation> {
        if let Some(ended) = self.ended
            && ended <= self.invoked
        {
            return Err(MalformedOperation::EndsBeforeItBegins { invoked: self.invoked, ended });
        }
        let Outcome::Ok(returned) = &self.outcome else { return Ok(()) };
        if self.ended.is_none() {
            return Err(MalformedOperation::ResultWithoutEnd);
        }
        if !self.call.fits(returned) {
            let (call, returned) = (self.call.to_string(), format!("{returned:?}"));
            return Err(MalformedOperation::ResultOfAnotherCall { call, returned });
        }
        Ok(())
    }
}

impl<C: Call> fmt::Display for Operation<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.client, self.call)?;
        match &self.outcome {
            Outcome::Ok(returned) => write!(f, " -> {}", self.call.describe(returned))?,
            Outcome::Failed => write!(f, " -> failed")?,
            Outcome::Unknown => write!(f, " -> unknown")?,
        }
        match (&self.outcome, self.ended) {
            (Outcome::Unknown, _) | (_, None) => write!(f, " [{} ..)", self.invoked),
            (_, Some(ended)) => write!(f, " [{} .. {ended}]", self.invoked),
        }
    }
}

/// Operations, in the order of their beginnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<C: Call> {
    operations: Vec<Operation<C>>,
}

impl<C: Call> History<C> {
    /// Puts operations into the order of their beginnings.
    ///
    /// # Panics
    /// If one of them is malformed ([`Operation::validate`]). What comes from a file is checked before.
    pub fn new(mut operations: Vec<Operation<C>>) -> History<C> {
        for operation in &operations {
            if let Err(why) = operation.validate() {
                panic!("a history must not hold a malformed operation: {why}");
            }
        }
        operations.sort_by_key(|operation| operation.invoked);
        History { operations }
    }

    /// The operations, in the order of their beginnings.
    pub fn operations(&self) -> &[Operation<C>] {
        &self.operations
    }
}
