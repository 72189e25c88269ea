//! Many lives: how many, and from which seed on, the environment says.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::life::{Life, Tally};

/// A small share of what the long run does: about 20 seconds of one core, not optimised.
const DEFAULT_CASES: u64 = 60;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?} and should be a number")),
        Err(_) => default,
    }
}

/// Lives one life; a panic is a failure like any other.
fn live(seed: u64) -> Result<Tally, String> {
    let mut life = Life::begin(seed).map_err(|stop| stop.to_string())?;
    let lived = catch_unwind(AssertUnwindSafe(|| life.run()));
    let what = match lived {
        Ok(Ok(())) => return Ok(life.tally),
        Ok(Err(stop)) => stop.to_string(),
        Err(panic) => calamus_tests::panic_message(&*panic),
    };
    let trace = std::mem::take(&mut life.trace);
    let last = &trace[trace.len().saturating_sub(30)..];
    Err(format!("{what}\nthe last steps were: {last:#?}"))
}

#[test]
fn lives_agree_with_a_plain_map() {
    let (first, cases) = (number("CALAMUS_SEED", 1), number("CALAMUS_CASES", DEFAULT_CASES));
    let started = std::time::Instant::now();
    let mut total = Tally::default();
    for seed in first..first + cases {
        match live(seed) {
            Ok(tally) => total += tally,
            Err(what) => panic!(
                "the life of seed {seed} failed: {what}\nrun it again: CALAMUS_SEED={seed} CALAMUS_CASES=1 \
                 cargo test -p calamus-tests --test model lives_agree"
            ),
        }
    }
    println!("model: {cases} cases from seed {first} agree, in {:.1?}: {total:?}", started.elapsed());
}
