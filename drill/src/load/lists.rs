//! Transactions that append to lists and read them: the anomalies of isolation show in what is read, because a list holds
//! the order of all appends before.
//!
//! An element of list *l* stands under the key *l*, a slash, and its number in the list, which the cluster draws. One
//! transaction touches up to three lists.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use calamus_client::{Committed, Entry, Session, Txn, range};
use rand::Rng;
use rand::rngs::SmallRng;

use super::{Shared, Told, sender};
use crate::history::{ClientId, Element, Key, Outcome, Step, TransactionCall, TransactionResult, TxnId};
use crate::timeline::Call;
use crate::trouble::Trouble;

/// The tree of the lists.
pub const TREE: &str = "drill-lists";
/// So many lists are in use at a time.
const LISTS: u64 = 6;
/// After about so many elements per list, others are used.
const ELEMENTS: u64 = 60;
/// The most that one transaction touches.
const MOST_STEPS: usize = 3;

pub(super) async fn run(session: Session, shared: Arc<Shared>, id: ClientId, mut rng: SmallRng) -> Result<(), Trouble> {
    while !shared.stopped() {
        let began = tokio::time::Instant::now();
        let steps = draw(&shared, &mut rng);
        call(&session, &shared, id, steps).await?;
        shared.pace(began).await;
    }
    Ok(())
}

/// The steps of the next transaction.
fn draw(shared: &Shared, rng: &mut SmallRng) -> Vec<Step> {
    let generation = shared.next.load(Ordering::Relaxed) / (LISTS * ELEMENTS);
    let count = rng.random_range(1..=MOST_STEPS);
    (0..count)
        .map(|_| {
            let key = Key(generation * LISTS + rng.random_range(0..LISTS));
            if rng.random_bool(0.5) { Step::Append(key, Element(shared.fresh())) } else { Step::Read(key) }
        })
        .collect()
}

async fn call(session: &Session, shared: &Shared, id: ClientId, steps: Vec<Step>) -> Result<(), Trouble> {
    let mut txn = Txn::new();
    for step in &steps {
        txn = match *step {
            Step::Append(key, element) => {
                txn.put_next(TREE, prefix(key), Bytes::copy_from_slice(&element.0.to_be_bytes()))
            }
            Step::Read(key) => txn.scan(TREE, range::prefix(prefix(key)), 0, false),
        };
    }
    let kind = if steps.iter().any(|step| matches!(step, Step::Append(..))) { Call::Write } else { Call::Read };
    let began_us = shared.timeline.now_us();
    let invoked = shared.transactions.invoke(id, TransactionCall { steps: steps.clone() });
    let result = sender::send(session, txn).await;
    shared.timeline.answered(kind, sender::ending(&result), began_us);
    let told = result.as_ref().map_or_else(|told| *told, |_| Told::Done);
    let mut appends = shared.appends.lock();
    for step in &steps {
        if let Step::Append(_, element) = step {
            appends.insert(element.0, told);
        }
    }
    drop(appends);
    invoked.complete(match &result {
        Ok(committed) => Outcome::Ok(found(&steps, committed)?),
        Err(Told::NotDone) => Outcome::Failed,
        Err(Told::Unknown | Told::Done) => Outcome::Unknown,
    });
    Ok(())
}

/// What the steps found.
fn found(steps: &[Step], committed: &Committed) -> Result<TransactionResult, Trouble> {
    let mut lists = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        if matches!(step, Step::Read(_)) {
            let entries =
                committed.entries(place).ok_or_else(|| Trouble::new("a scan was answered by something else"))?;
            lists.push(entries.iter().map(|entry| element(entry).map(Element)).collect::<Result<Vec<_>, _>>()?);
        }
    }
    Ok(TransactionResult { txn_id: (committed.txn_id > 0).then_some(TxnId(committed.txn_id)), lists })
}

/// The key of a list's elements, without their numbers.
fn prefix(list: Key) -> Bytes {
    format!("{:012}/", list.0).into()
}

/// The element in an entry.
pub(crate) fn element(entry: &Entry) -> Result<u64, Trouble> {
    let bytes: [u8; 8] = entry.value.as_ref().try_into().map_err(|_| {
        Trouble::new(format!(
            "{} bytes stand under {:?} in {TREE}, where elements have 8",
            entry.value.len(),
            entry.key
        ))
    })?;
    Ok(u64::from_be_bytes(bytes))
}

/// The list that an entry belongs to.
pub(crate) fn list(entry: &Entry) -> Result<u64, Trouble> {
    let name = entry.key.get(..12).and_then(|name| std::str::from_utf8(name).ok());
    let number = name.and_then(|name| name.parse().ok());
    number.ok_or_else(|| Trouble::new(format!("{:?} in {TREE} belongs to no list", entry.key)))
}
