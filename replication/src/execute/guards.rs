//! Guards: what must hold of the newest staged state for a transaction's operations to run.
//!
//! A key that is not there has version 0 and equals no value. A tree that is not there has no keys.

use calamus_engine::btree::ReadError;
use calamus_engine::txn::Batch;
use calamus_proto::v1::guard::Condition;
use calamus_proto::v1::version_compare::Operator;
use calamus_proto::v1::{Guard, VersionCompare};

use super::fault::{Fault, from_batch};

/// Whether all guards hold.
pub(super) fn all_hold(batch: &Batch, guards: &[Guard]) -> Result<bool, Fault> {
    for (at, guard) in guards.iter().enumerate() {
        if !holds(batch, guard).map_err(|fault| fault.at_guard(at))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(batch: &Batch, guard: &Guard) -> Result<bool, Fault> {
    let entry = batch.get(&guard.tree, &guard.key).map_err(from_batch)?;
    match guard.condition.as_ref().expect("validated") {
        Condition::Exists(exists) => Ok(entry.is_some() == *exists),
        Condition::Version(compare) => Ok(version_holds(entry.map_or(0, |entry| entry.version.0), *compare)),
        Condition::ValueEquals(expected) => match entry {
            None => Ok(false),
            Some(entry) => equals(&entry.value, expected).map_err(|error| from_batch(error.into())),
        },
    }
}

fn version_holds(version: u64, compare: VersionCompare) -> bool {
    match Operator::try_from(compare.operator).expect("validated") {
        Operator::Unspecified => unreachable!("validated"),
        Operator::Equal => version == compare.version,
        Operator::NotEqual => version != compare.version,
        Operator::Less => version < compare.version,
        Operator::Greater => version > compare.version,
    }
}

/// Compares a value where it stands.
fn equals(value: &calamus_engine::btree::Value<'_>, expected: &[u8]) -> Result<bool, ReadError> {
    if value.len() != expected.len() {
        return Ok(false);
    }
    let mut rest = expected;
    for chunk in value.chunks() {
        let chunk = chunk?;
        let (head, tail) = rest.split_at(chunk.len());
        if *chunk != *head {
            return Ok(false);
        }
        rest = tail;
    }
    Ok(true)
}
