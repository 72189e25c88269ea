//! What came of the damages, by file and kind.

use std::collections::BTreeMap;
use std::fmt::Write;

use calamus_engine::env::FileClass;

use super::change::Change;
use super::judge::{Judgement, VERDICTS, Verdict};

/// Counts by file and kind.
#[derive(Default)]
pub struct Tally {
    rows: BTreeMap<(String, String), BTreeMap<Verdict, u64>>,
    /// How many assertions ended changes after a stale block was read, by their first words.
    asserted: BTreeMap<String, u64>,
}

impl Tally {
    pub fn add(&mut self, change: &Change, judgement: &Judgement) {
        let file = format!("{:?}", FileClass::of(&change.file)).to_lowercase();
        let row = self.rows.entry((file, format!("{:?}", change.kind).to_lowercase())).or_default();
        *row.entry(judgement.verdict).or_default() += 1;
        if let Some(words) = &judgement.asserted {
            let first: String = words.chars().take_while(|letter| !letter.is_ascii_digit()).take(48).collect();
            *self.asserted.entry(first).or_default() += 1;
        }
    }

    pub fn count(&self) -> u64 {
        self.rows.values().flat_map(BTreeMap::values).sum()
    }

    /// How many ended so.
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.rows.values().filter_map(|row| row.get(&verdict)).sum()
    }

    /// A table for people, and for `docs/testing.md`.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| file | damage | refused | error at read | check only | stale read, check | harmless |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: |\n",
        );
        let mut line = |file: &str, kind: &str, count: &dyn Fn(Verdict) -> u64| {
            let counts: Vec<String> = VERDICTS.iter().map(|verdict| count(*verdict).to_string()).collect();
            writeln!(table, "| {file} | {kind} | {} |", counts.join(" | ")).expect("memory");
        };
        for ((file, kind), row) in &self.rows {
            line(file, kind, &|verdict| row.get(&verdict).copied().unwrap_or(0));
        }
        line("all", "", &|verdict| self.of(verdict));
        for (words, count) in &self.asserted {
            writeln!(table, "{count} changes behind a stale block ended at the assertion {words:?}").expect("memory");
        }
        table
    }
}
