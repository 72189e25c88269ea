//! Lines, ratios, and the marks to reach.

use std::collections::BTreeMap;

use serde_json::json;

use crate::process::Usage;
use crate::workload::{Measured, Workload};

/// The most anonymous memory that a node may take, in bytes.
const RSS_ANON_MARK: u64 = 512 << 20;

/// One load on one system, all rounds together.
#[derive(Clone, Debug)]
pub struct Line {
    pub system: &'static str,
    pub workload: Workload,
    pub rounds: u32,
    pub measured: Measured,
    /// By node.
    pub usage: Vec<Usage>,
    /// Finished on all nodes together; `None` if the system has none.
    pub checkpoints: Option<u64>,
    /// Terms that began.
    pub elections: u64,
    /// Space on the disk by kind of file at the end, all nodes together.
    pub files: BTreeMap<String, u64>,
    /// The most that any node had, in bytes.
    pub rss_anon_most: u64,
}

impl Line {
    /// Adds a later round of the same load.
    pub fn add(&mut self, later: Line) {
        self.rounds += later.rounds;
        self.measured.add(&later.measured);
        for (all, one) in self.usage.iter_mut().zip(&later.usage) {
            all.cpu_seconds += one.cpu_seconds;
            all.written_bytes += one.written_bytes;
        }
        self.checkpoints = self.checkpoints.zip(later.checkpoints).map(|(all, one)| all + one);
        self.elections += later.elections;
        self.files = later.files;
        self.rss_anon_most = self.rss_anon_most.max(later.rss_anon_most);
    }

    fn text(&self) -> String {
        let m = &self.measured;
        let cpu: Vec<String> = self.usage.iter().map(|usage| format!("{:.1}", usage.cpu_seconds)).collect();
        let written: Vec<String> = self.usage.iter().map(|usage| mb(usage.written_bytes)).collect();
        let files: Vec<String> = self.files.iter().map(|(kind, bytes)| format!("{kind} {}", mb(*bytes))).collect();
        let checkpoints = self.checkpoints.map_or("-".to_owned(), |count| count.to_string());
        let mut text = format!(
            "{:<8} {:<23} {:>9.0} op/s   p50 {:>8.2} ms   p99 {:>8.2} ms\n         keys {}, checkpoints {checkpoints}, \
             elections {}, written MB by node {}, on disk MB {}, CPU s by node {}, RssAnon MB most {}",
            self.system,
            self.workload.name,
            m.operations_a_second(),
            m.quantile(0.5),
            m.quantile(0.99),
            self.workload.keys,
            self.elections,
            written.join(" "),
            files.join(", "),
            cpu.join(" "),
            mb(self.rss_anon_most),
        );
        if let Some(error) = &m.first_error {
            text.push_str(&format!("\n         {} ERRORS, the first: {error}", m.errors));
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let m = &self.measured;
        json!({
            "system": self.system, "workload": self.workload.name, "clients": self.workload.clients,
            "value_bytes": self.workload.value_bytes, "keys": self.workload.keys, "rounds": self.rounds,
            "seconds": m.seconds, "operations_a_second": m.operations_a_second(), "p50_ms": m.quantile(0.5),
            "p99_ms": m.quantile(0.99), "errors": m.errors, "checkpoints": self.checkpoints, "elections": self.elections,
            "written_bytes": self.usage.iter().map(|usage| usage.written_bytes).collect::<Vec<_>>(),
            "cpu_seconds": self.usage.iter().map(|usage| usage.cpu_seconds).collect::<Vec<_>>(),
            "files": self.files, "rss_anon_most": self.rss_anon_most,
        })
    }
}

fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// A mark, and what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub what: String,
    pub found: f64,
    /// At least (or else at most) this.
    pub at_least: bool,
    pub bound: f64,
}

impl Mark {
    pub fn reached(&self) -> bool {
        if self.at_least { self.found >= self.bound } else { self.found <= self.bound }
    }

    pub fn text(&self) -> String {
        let (word, sense) =
            (if self.reached() { "reached" } else { "MISSED " }, if self.at_least { "least" } else { "most" });
        format!("{word}  {}: {:.2}, to be at {sense} {}", self.what, self.found, self.bound)
    }

    pub fn json(&self) -> serde_json::Value {
        json!({ "mark": self.what, "found": self.found, "bound": self.bound, "reached": self.reached() })
    }
}

/// What is printed, as it comes.
pub struct Report {
    json: bool,
    ratios: Vec<String>,
    marks: Vec<Mark>,
}

impl Report {
    pub fn new(json: bool) -> Report {
        Report { json, ratios: Vec::new(), marks: Vec::new() }
    }

    /// Prints a load's lines, and keeps the ratio.
    pub fn workload(&mut self, ours: Option<Line>, theirs: Option<Line>) {
        for line in [&ours, &theirs].into_iter().flatten() {
            if self.json {
                println!("{}", line.json());
            } else {
                println!("{}", line.text());
            }
        }
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return };
        let rate = ours.measured.operations_a_second() / theirs.measured.operations_a_second();
        let p50 = ours.measured.quantile(0.5) / theirs.measured.quantile(0.5);
        let p99 = ours.measured.quantile(0.99) / theirs.measured.quantile(0.99);
        let workload = ours.workload;
        if self.json {
            println!(
                "{}",
                json!({ "workload": workload.name, "rate_ratio": rate, "p50_ratio": p50, "p99_ratio": p99 })
            );
        }
        self.ratios.push(format!("{:<23} op/s x {rate:.2}   p50 x {p50:.2}   p99 x {p99:.2}", workload.name));
        self.marks.extend(mark(&workload, rate, p50));
    }

    /// Prints ratios and marks.
    pub fn end(mut self, rss_anon_most: Option<u64>) {
        if let Some(bytes) = rss_anon_most {
            let what = "RssAnon of a node, MiB, throughout".to_owned();
            let (found, bound) = (bytes as f64 / f64::from(1 << 20), (RSS_ANON_MARK >> 20) as f64);
            self.marks.push(Mark { what, found, at_least: false, bound });
        }
        if self.json {
            for mark in &self.marks {
                println!("{}", mark.json());
            }
            return;
        }
        if !self.ratios.is_empty() {
            println!("\nCalamus against the rival\n  {}", self.ratios.join("\n  "));
        }
        let marks: Vec<String> = self.marks.iter().map(Mark::text).collect();
        println!("\nMarks\n  {}", marks.join("\n  "));
    }
}

/// The mark of a load, if it has one.
fn mark(workload: &Workload, rate: f64, p50: f64) -> Option<Mark> {
    let at_least = |bound| {
        Some(Mark { what: format!("{}, op/s against the rival", workload.name), found: rate, at_least: true, bound })
    };
    match workload.name {
        "put 256 B, 1 client" => {
            let what = format!("{}, p50 against the rival", workload.name);
            Some(Mark { what, found: p50, at_least: false, bound: 0.8 })
        }
        "put 256 B, 256 clients" => at_least(1.0),
        "put 64 KiB, 64 clients" => at_least(4.0),
        "get 256 B, 64 clients" => at_least(1.5),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::WORKLOADS;

    #[test]
    fn every_mark_belongs_to_a_load_and_is_judged_in_its_sense() {
        let marks: Vec<Mark> = WORKLOADS.iter().filter_map(|workload| mark(workload, 1.2, 0.9)).collect();
        let reached: Vec<bool> = marks.iter().map(Mark::reached).collect();
        assert_eq!(reached, [false, true, false, false]);
        let marks: Vec<Mark> = WORKLOADS.iter().filter_map(|workload| mark(workload, 4.0, 0.8)).collect();
        assert!(marks.len() == 4 && marks.iter().all(Mark::reached), "{marks:?}");
    }

    #[test]
    fn rounds_add_up() {
        let line = |count: u64| {
            let mut measured = Measured::new();
            (0..count).for_each(|_| measured.latency.record(1000).unwrap());
            measured.seconds = 1.0;
            let usage = vec![Usage { cpu_seconds: 1.0, written_bytes: 10 }];
            let files = BTreeMap::new();
            Line {
                system: "x",
                workload: WORKLOADS[0],
                rounds: 1,
                measured,
                usage,
                checkpoints: Some(2),
                elections: 1,
                files,
                rss_anon_most: count,
            }
        };
        let mut all = line(10);
        all.add(line(30));
        assert_eq!(all.measured.operations_a_second(), 20.0);
        assert_eq!((all.rounds, all.checkpoints, all.elections, all.rss_anon_most), (2, Some(4), 2, 30));
        assert_eq!(all.usage[0], Usage { cpu_seconds: 2.0, written_bytes: 20 });
        assert!(all.text().contains("20 op/s") && all.text().contains("p50     1.00 ms"), "{}", all.text());
    }
}
