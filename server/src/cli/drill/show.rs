//! The verdicts for people and for programs.

use std::path::Path;

use calamus_drill::scenario;
use calamus_drill::timeline::Gap;
use calamus_drill::verdict::Run;
use serde_json::{Value, json};

use crate::cli::table;

/// The scenarios that there are.
pub(super) fn list(as_json: bool) -> String {
    if as_json {
        let all: Vec<Value> = scenario::all()
            .iter()
            .map(|s| json!({ "scenario": s.name, "standard": s.standard, "rounds": s.rounds, "about": s.about }))
            .collect();
        return format!("{}\n", Value::from(all));
    }
    let mut table = table::new(&["scenario", "standard", "rounds", "what is done"]);
    for scenario in scenario::all() {
        let standard = if scenario.standard { "yes" } else { "no" };
        table.add_row([scenario.name, standard, &scenario.rounds.to_string(), scenario.about]);
    }
    format!("{table}\n")
}

/// One document a scenario: its verdict, without the timeline.
pub(super) fn json(runs: &[Run], rival: Option<Gap>) -> String {
    let document = |run: &Run| {
        let mut value = serde_json::to_value(&run.verdict).expect("a verdict is JSON");
        value["good"] = run.verdict.is_good().into();
        if let Some(gap) = rival {
            value["etcd_write_gap"] = serde_json::to_value(gap).expect("a gap is JSON");
        }
        format!("{value}\n")
    };
    runs.iter().map(document).collect()
}

/// A table, and what is wrong below it.
pub(super) fn table(runs: &[Run], rival: Option<Gap>, report: Option<&Path>) -> String {
    let mut table = table::new(&[
        "scenario",
        "verdict",
        "faults",
        "acknowledged",
        "unknown",
        "lost",
        "doubled",
        "linearizable",
        "write gap p50",
        "p99",
        "max",
        "read gap p50",
        "max",
        "redundant p50",
        "max",
        "equal",
    ]);
    for run in runs {
        let v = &run.verdict;
        let mut row = vec![
            v.scenario.clone(),
            if v.is_good() { "good".to_owned() } else { "BAD".to_owned() },
            v.faults.to_string(),
            v.acknowledged.to_string(),
            v.unknown.to_string(),
            v.lost.to_string(),
            v.doubled.to_string(),
            v.linearizable().word().to_owned(),
        ];
        let millis = |us: u64| format!("{:.1} ms", us as f64 / 1e3);
        let Gap { p50_us, p99_us, max_us, .. } = v.write_gap;
        row.extend([p50_us, p99_us, max_us, v.read_gap.p50_us, v.read_gap.max_us].map(millis));
        row.extend([v.redundancy.p50_us, v.redundancy.max_us].map(millis));
        row.push(v.identical.word().to_owned());
        table.add_row(row);
    }
    let mut text = format!("{table}\n");
    for run in runs {
        for note in &run.verdict.notes {
            text += &format!("{}: {note}\n", run.verdict.scenario);
        }
        for complaint in run.verdict.complaints() {
            text += &format!("{} is BAD: {complaint}\n", run.verdict.scenario);
        }
    }
    if let (Some(etcd), Some(run)) = (rival, runs.first()) {
        text += &against(run.verdict.write_gap, etcd);
    }
    if let Some(file) = report {
        text += &format!("the report is in {}\n", file.display());
    }
    text
}

/// How the gaps of two systems compare.
fn against(ours: Gap, etcd: Gap) -> String {
    let mut table = table::new(&["write gap", "kills", "p50", "p99", "max"]);
    let millis = |us: u64| format!("{:.1} ms", us as f64 / 1e3);
    for (name, gap) in [("calamus", ours), ("etcd", etcd)] {
        table.add_row([
            name.to_owned(),
            gap.faults.to_string(),
            millis(gap.p50_us),
            millis(gap.p99_us),
            millis(gap.max_us),
        ]);
    }
    let ratio = |ours: u64, theirs: u64| format!("{:.3}", ours as f64 / theirs.max(1) as f64);
    table.add_row([
        "ratio".to_owned(),
        String::new(),
        ratio(ours.p50_us, etcd.p50_us),
        ratio(ours.p99_us, etcd.p99_us),
        ratio(ours.max_us, etcd.max_us),
    ]);
    format!("\n{table}\n")
}
