//! What a damage came to: found, or harmless; else it is a failure.

use std::any::Any;
use std::cell::Cell;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use calamus_engine::env::{CrashChoice, SimDisk};
use calamus_engine::ids::{LogId, RaftId, Term, TxnId};
use calamus_engine::journal::frame::{Frame, FrameKind};
use calamus_engine::offline::check_directory;
use calamus_engine::{Batch, BatchError, Engine, ReadTxn, TreeInfo, TreeKind};

use super::base::{Base, Contents, contents, door, open, place};

/// How a damage ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// The directory does not open, and says why.
    Refused,
    /// A read ended with an error.
    AtRead,
    /// All reads were right, and the check finds it.
    ByCheck,
    /// A read was wrong, as it may be with a stale block, and the check finds it.
    StaleByCheck,
    /// All is right, and nothing that is in use was changed.
    Harmless,
}

/// All verdicts, in the order of the table.
pub const VERDICTS: [Verdict; 5] =
    [Verdict::Refused, Verdict::AtRead, Verdict::ByCheck, Verdict::StaleByCheck, Verdict::Harmless];

/// A verdict, and whether an assertion ended the changes that were tried afterwards.
pub struct Judgement {
    pub verdict: Verdict,
    pub asserted: Option<String>,
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs what may panic; a panic comes back as its message, and prints nothing.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    result.map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// Looks at a damaged disk.
///
/// # Errors
/// What must not be: a wrong read, an acknowledged write that is missing without a word, a panic.
pub fn judge(base: &Base, disk: &SimDisk, may_be_stale: bool) -> Result<Judgement, String> {
    let copy = || disk.crash(CrashChoice::KeepAll);
    let checked = caught(|| check_directory(&door(&copy()), place(), &mut |_| {}));
    let checked = checked.map_err(|panic| format!("the check panics: {panic}"))?;
    let sound = checked.as_ref().is_ok_and(calamus_engine::offline::DirectoryReport::is_clean);
    let live = copy();
    let opened = caught(|| open(&live)).map_err(|panic| format!("opening panics: {panic}"))?;
    let without_assertion = |verdict| Ok(Judgement { verdict, asserted: None });
    let engine = match opened {
        Err(error) if sound => return Err(format!("the check finds nothing, and it does not open: {error}")),
        Err(_) => return without_assertion(Verdict::Refused),
        Ok(engine) => engine,
    };
    let read = caught(|| reads(&engine)).map_err(|panic| format!("reading panics: {panic}"))?;
    let verdict = match read {
        Err(error) if sound => return Err(format!("the check finds nothing, and a read fails: {error}")),
        Err(_) => Verdict::AtRead,
        Ok(found) => {
            let wrong = difference(&base.contents, &found).or_else(|| vote_lost(base, &engine));
            match (wrong, sound) {
                (None, true) => Verdict::Harmless,
                (None, false) => Verdict::ByCheck,
                (Some(_), false) if may_be_stale => Verdict::StaleByCheck,
                (Some(what), sound) => return Err(format!("{what}; the check finds it: {}", !sound)),
            }
        }
    };
    let asserted = caught(|| go_on(&engine)).err();
    // An assertion that names what is broken is how a stale page ends a change. All else is a bug.
    match &asserted {
        Some(panic) if is_unnamed(panic) || verdict == Verdict::Harmless => Err(format!("going on panics: {panic}")),
        _ => Ok(Judgement { verdict, asserted }),
    }
}

/// Whether a panic is one of the language, and not an assertion of the engine's.
fn is_unnamed(panic: &str) -> bool {
    let signs = ["attempt to ", "index out of", "out of range", "`Option::unwrap()`", "slice index", "unreachable"];
    signs.iter().any(|sign| panic.contains(sign))
}

/// Reads everything, in every way.
fn reads(engine: &Engine) -> Result<Contents, String> {
    let snapshot = engine.read();
    let text = |error: calamus_engine::ReadError| error.to_string();
    let all = contents(&snapshot).map_err(text)?;
    for (tree, entries) in &all {
        let mut back = snapshot.keys(tree).map_err(text)?.ok_or("a tree that was listed is not there")?;
        let mut left = entries.iter().rev();
        while back.previous().map_err(text)? {
            let next = left.next().ok_or("more entries on the way back")?;
            if (back.key(), back.version()) != (next.0.as_slice(), next.1.0) {
                return Err("other entries on the way back".into());
            }
        }
        let info = snapshot.tree_info(tree).map_err(text)?.ok_or("a tree that was listed is not there")?;
        let step = if info.kind == TreeKind::Plain { 7 } else { 1 };
        for (key, (version, values)) in entries.iter().step_by(step) {
            match info.kind {
                TreeKind::Plain => read_entry(&snapshot, tree, key, *version, &values[0])?,
                TreeKind::Multi => read_values(&snapshot, tree, key, values)?,
            }
        }
        snapshot.count_range(tree, Bound::Unbounded, Bound::Unbounded).map_err(text)?;
    }
    Ok(all)
}

fn read_entry(snapshot: &ReadTxn, tree: &str, key: &[u8], version: TxnId, value: &[u8]) -> Result<(), String> {
    let text = |error: calamus_engine::ReadError| error.to_string();
    let found = snapshot.get(tree, key).map_err(text)?.ok_or("a key of the tree is not found")?;
    if found.version == version && found.value.to_vec().map_err(text)? == value {
        Ok(())
    } else {
        Err("a key has another value than its entry".into())
    }
}

/// Reads the values of a key backwards, by themselves, and as a number. A stale page may well have another number of them.
fn read_values(snapshot: &ReadTxn, tree: &str, key: &[u8], values: &[Vec<u8>]) -> Result<(), String> {
    let text = |error: calamus_engine::ReadError| error.to_string();
    let mut back = snapshot.values(tree, key).map_err(text)?;
    let mut left = values.iter().rev();
    while back.previous().map_err(text)? {
        if left.next().is_none_or(|value| value != back.value()) {
            return Err("other values on the way back".into());
        }
    }
    for value in values.iter().step_by(3) {
        if !snapshot.contains(tree, key, value).map_err(text)? {
            return Err("a value of the key is not found".into());
        }
    }
    snapshot.count_values(tree, key).map(drop).map_err(text)
}

fn difference(expected: &Contents, found: &Contents) -> Option<String> {
    let names = |all: &Contents| all.keys().cloned().collect::<Vec<_>>();
    if names(expected) != names(found) {
        return Some(format!("the trees are {:?}, not {:?}", names(found), names(expected)));
    }
    expected.iter().find_map(|(tree, entries)| {
        let other = &found[tree];
        let key = entries.keys().chain(other.keys()).find(|key| entries.get(*key) != other.get(*key))?;
        Some(format!("tree {tree:?} differs at key \"{}\"", key.escape_ascii()))
    })
}

/// Whether the node has forgotten a vote. That a quorum has granted it may be forgotten: it votes for nobody else.
fn vote_lost(base: &Base, engine: &Engine) -> Option<String> {
    let who = |vote: Option<calamus_engine::Vote>| vote.map(|vote| (vote.term, vote.node));
    let (found, expected): (Option<(Term, Option<RaftId>)>, _) = (who(engine.vote()), who(base.vote));
    (found != expected).then(|| format!("the vote is {found:?}, not {expected:?}"))
}

/// Changes everything there is. Errors are fine: what cannot be read cannot be changed.
fn go_on(engine: &Engine) {
    let trees = engine.read().list_trees().unwrap_or_default();
    for tree in &trees {
        let _ = change(engine, |batch| (0..60_u32).try_for_each(|number| add(batch, tree, number)));
    }
    let _ = engine.checkpoint();
    for TreeInfo { name, kind, .. } in &trees {
        let keys: Vec<Vec<u8>> = match engine.read().keys(name) {
            Ok(Some(mut keys)) => {
                std::iter::from_fn(|| keys.next().ok()?.then(|| keys.key().to_vec())).take(1_000).collect()
            }
            _ => Vec::new(),
        };
        if *kind == TreeKind::Multi {
            // Some lists; the trees of values stand behind them.
            let own = || keys.iter().filter(|key| key.starts_with(b"key "));
            own().step_by(100).chain(own().rev().take(3)).for_each(|key| change_values(engine, name, key));
        }
        let _ = change(engine, |batch| {
            keys.iter().step_by(2).take(100).try_for_each(|key| batch.delete(name, key).map(drop))
        });
        let _ = change(engine, |batch| batch.delete_range(name, Bound::Unbounded, Bound::Included(b"l")).map(drop));
        let _ = change(engine, |batch| batch.drop_tree(name).map(drop));
    }
    let _ = engine.checkpoint();
}

/// Puts something new into a tree, here and there.
fn add(batch: &mut Batch, tree: &TreeInfo, number: u32) -> Result<(), BatchError> {
    let anywhere = number.wrapping_mul(0x9e37_79b9).to_be_bytes();
    match tree.kind {
        TreeKind::Plain => batch.put(&tree.name, &anywhere, &[1; 300]).map(drop),
        TreeKind::Multi => batch.add(&tree.name, &anywhere[..1], &anywhere).map(drop),
    }
}

/// Adds values to a key, among those that it has, and takes every second one of those out.
fn change_values(engine: &Engine, tree: &str, key: &[u8]) {
    let values: Vec<Vec<u8>> = match engine.read().values(tree, key) {
        Ok(mut cursor) => std::iter::from_fn(|| cursor.next().ok()?.then(|| cursor.value().to_vec())).collect(),
        Err(_) => Vec::new(),
    };
    let near = |value: &Vec<u8>| [&value[..value.len().min(100)], b"+"].concat();
    let _ = change(engine, |batch| {
        values.iter().step_by(4).try_for_each(|value| batch.add(tree, key, &near(value)).map(drop))
    });
    let _ = change(engine, |batch| {
        values.iter().step_by(2).try_for_each(|value| batch.remove_value(tree, key, value).map(drop))
    });
}

/// Runs a transaction and commits it, if it comes so far.
fn change(engine: &Engine, work: impl FnOnce(&mut Batch) -> Result<(), BatchError>) -> Option<()> {
    let mut batch = engine.begin_batch().ok()?;
    batch.begin_txn();
    if work(&mut batch).is_err() {
        batch.rollback_txn();
        return None;
    }
    batch.commit_txn();
    let staged = batch.seal(1).ok()??;
    let last = engine.log_state().last?;
    let commit = engine.applied().log_id.map(|log_id| log_id.index);
    let log_id = LogId { term: last.term, index: last.index.next() };
    let frame = Frame::encode(FrameKind::Record, log_id, commit, engine.last_chain(), staged.payload);
    engine.append(vec![frame.clone()], Box::new(|_| ())).ok()?;
    engine.apply(&frame).ok().map(drop)
}
