//! One damage at a time, at a random place: each is found, or harms nothing.
//!
//! `CALAMUS_DAMAGES` says how many, `CALAMUS_DAMAGE_SEED` the seed of the first. Without a number it is a share, for CI.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use calamus_engine::env::CrashChoice;
use parking_lot::Mutex;
use rand::prelude::*;

use super::base::{Base, Contents, contents, open};
use super::change::Change;
use super::judge::{Verdict, judge};
use super::tally::Tally;

const SHARE: u64 = 500;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?} and should be a number")))
}

/// One damage of one directory.
fn run(bases: &[Base], seed: u64, tally: &Mutex<Tally>) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let base = bases.choose(&mut random).expect("there are some");
    let change = Change::draw(&mut random, base);
    let disk = base.disk();
    change.make(&disk);
    let judgement = judge(base, &disk, change.kind.may_be_stale())
        .map_err(|what| format!("seed {seed}, directory {:?}, {change}: {what}", base.name))?;
    tally.lock().add(&change, &judgement);
    Ok(())
}

#[test]
fn every_damage_is_found_or_harmless() {
    let started = Instant::now();
    let (count, first) = (number("CALAMUS_DAMAGES").unwrap_or(SHARE), number("CALAMUS_DAMAGE_SEED").unwrap_or(0));
    let bases = Base::all();
    let (next, tally, failures) = (AtomicU64::new(first), Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    if let Err(what) = run(&bases, seed, &tally) {
                        failures.lock().push(what);
                    }
                }
            });
        }
    });
    let (tally, failures) = (tally.into_inner(), failures.into_inner());
    println!("{}damage: {count} from seed {first}, in {:.1?}", tally.table(), started.elapsed());
    let seed = failures.first().map(|_| "CALAMUS_DAMAGES=1 CALAMUS_DAMAGE_SEED=<seed>").unwrap_or_default();
    assert!(
        failures.is_empty(),
        "{} failures; run one again: {seed} cargo test -p calamus-tests --test damage every_damage -- --nocapture\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert_eq!(tally.count(), count);
    if count >= SHARE {
        for verdict in [Verdict::Refused, Verdict::AtRead, Verdict::ByCheck, Verdict::Harmless] {
            assert!(tally.of(verdict) > 0, "no damage was {verdict:?}");
        }
    }
}

fn base_contents(base: &Base) -> Contents {
    contents(&open(&base.disk()).expect("sound").read()).expect("sound")
}

/// The judge finds a wrong read, a lost tree and a lost vote, where the directory is not what it is said to be.
#[test]
fn what_is_missing_without_a_word_is_a_failure() {
    for base in Base::all() {
        let judged = |base: &Base| judge(base, &base.disk().crash(CrashChoice::KeepAll), true);
        assert_eq!(judged(&base).map(|sound| sound.verdict), Ok(Verdict::Harmless), "{}", base.name);
        let mut other = Base { contents: base.contents.clone(), ..base };
        other.contents.get_mut("small").expect("there").pop_first();
        assert!(judged(&other).is_err_and(|what| what.contains("\"small\" differs")));
        other.contents = base_contents(&other);
        let many = other.contents.get_mut("many").expect("there");
        many.get_mut(&b"key of many"[..]).expect("there").1.pop();
        assert!(judged(&other).is_err_and(|what| what.contains("\"many\" differs")));
        other.contents.remove("small");
        assert!(judged(&other).is_err_and(|what| what.contains("the trees are")));
        let contents = base_contents(&other);
        let vote = other.vote.map(|vote| calamus_engine::Vote { term: vote.term.next(), ..vote });
        let forgetful = Base { contents, vote, ..other };
        assert!(judged(&forgetful).is_err_and(|what| what.contains("the vote is")));
    }
}
