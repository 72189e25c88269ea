//! Single keys, written, read, and compared and set.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use calamus_client::{Client, Session, Txn};
use rand::Rng;
use rand::rngs::SmallRng;

use super::{Shared, Told, sender};
use crate::history::{ClientId, Key, KeyAction, KeyCall, KeyResult, Outcome, Value};
use crate::timeline::Call;
use crate::trouble::Trouble;

/// The tree of the registers.
pub const TREE: &str = "drill-registers";
/// So many keys are in use at a time.
const KEYS: u64 = 12;
/// After so many values, other keys are used.
const VALUES: u64 = 2_400;

pub(super) async fn run(
    client: Client,
    session: Session,
    shared: Arc<Shared>,
    id: ClientId,
    mut rng: SmallRng,
) -> Result<(), Trouble> {
    // What this client saw last: what it compares with, so that comparing often holds.
    let mut seen = (Key(0), None);
    while !shared.stopped() {
        let began = tokio::time::Instant::now();
        let generation = shared.next.load(Ordering::Relaxed) / VALUES;
        let key = Key(generation * KEYS + rng.random_range(0..KEYS));
        let action = match rng.random_range(0..10) {
            0..4 => KeyAction::Write(Value(shared.fresh())),
            4..6 if seen.0 == key => KeyAction::Cas { expected: seen.1, new: Value(shared.fresh()) },
            _ => KeyAction::Read,
        };
        if let Some(value) = call((&client, &session), &shared, id, key, action).await? {
            seen = (key, value);
        }
        shared.pace(began).await;
    }
    Ok(())
}

/// One call. Returns what is known of the key then.
async fn call(
    (client, session): (&Client, &Session),
    shared: &Shared,
    id: ClientId,
    key: Key,
    action: KeyAction,
) -> Result<Option<Option<Value>>, Trouble> {
    let began_us = shared.timeline.now_us();
    let invoked = shared.registers.invoke(id, KeyCall { key, action });
    let name = Bytes::from(format!("{:012}", key.0));
    let value = |value: Value| Bytes::copy_from_slice(&value.0.to_be_bytes());
    let (kind, result) = match action {
        KeyAction::Read => {
            // A read changes nothing: one that failed says nothing either.
            let read = client.get(TREE, name).await.map_err(|_| Told::NotDone);
            let read = match read {
                Ok(entry) => Ok(KeyResult::Value(entry.map(|entry| number(&entry.value)).transpose()?)),
                Err(told) => Err(told),
            };
            (Call::Read, read)
        }
        KeyAction::Write(new) => {
            let sent = sender::send(session, Txn::new().put(TREE, name, value(new))).await;
            (Call::Write, sent.map(|_| KeyResult::Done))
        }
        KeyAction::Cas { expected, new } => {
            let txn = match expected {
                Some(expected) => Txn::new().guard_value(TREE, name.clone(), value(expected)),
                None => Txn::new().guard_missing(TREE, name.clone()),
            };
            let sent = sender::send(session, txn.put(TREE, name, value(new))).await;
            (Call::Write, sent.map(|committed| KeyResult::Swapped(committed.guards_held)))
        }
        KeyAction::Delete => {
            let sent = sender::send(session, Txn::new().delete(TREE, name)).await;
            (Call::Write, sent.map(|_| KeyResult::Done))
        }
    };
    shared.timeline.answered(kind, sender::ending(&result), began_us);
    let known = match (action, &result) {
        (_, Ok(KeyResult::Value(value))) => Some(*value),
        (KeyAction::Write(new) | KeyAction::Cas { new, .. }, Ok(KeyResult::Done | KeyResult::Swapped(true))) => {
            Some(Some(new))
        }
        _ => None,
    };
    invoked.complete(match result {
        Ok(result) => Outcome::Ok(result),
        Err(Told::NotDone) => Outcome::Failed,
        Err(Told::Unknown | Told::Done) => Outcome::Unknown,
    });
    Ok(known)
}

/// A value as a number.
fn number(value: &[u8]) -> Result<Value, Trouble> {
    let bytes = value.try_into();
    let bytes = bytes.map_err(|_| Trouble::new(format!("a register of {TREE} holds {} bytes, not 8", value.len())))?;
    Ok(Value(u64::from_be_bytes(bytes)))
}
