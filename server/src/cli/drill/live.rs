//! What is shown in the terminal while a drill runs: a line for what happens now, and one for each scenario that ended.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use calamus_drill::scenario::Scenario;
use calamus_drill::timeline::Timeline;
use calamus_drill::verdict::Run;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

/// How often the view changes.
const EVERY: Duration = Duration::from_millis(200);
/// Rates are those of so much time.
const RECENT_US: u64 = 1_000_000;

/// The view. Where stderr is no terminal, only a line a scenario that ended is written.
pub(super) struct Live {
    wanted: bool,
    all: MultiProgress,
    head: ProgressBar,
    now: ProgressBar,
    nodes: ProgressBar,
    ticking: Mutex<Option<JoinHandle<()>>>,
}

impl Live {
    pub(super) fn new(wanted: bool, scenarios: usize) -> Live {
        let all = MultiProgress::new();
        let shown = wanted && std::io::stderr().is_terminal();
        let line = |length: u64, template: &str| {
            let bar = if shown { all.add(ProgressBar::new(length)) } else { ProgressBar::hidden() };
            bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
            bar
        };
        let head = line(scenarios as u64, "drill [{bar:24}] {pos}/{len}  {elapsed} gone  {msg}");
        let now = line(0, "  {spinner} {msg}");
        let nodes = line(0, "    {msg}");
        Live { wanted, all, head, now, nodes, ticking: Mutex::new(None) }
    }

    pub(super) fn begin(&self, scenario: &Scenario, rounds: u32) {
        let times = if rounds == 1 { String::new() } else { format!(", {rounds} times") };
        self.head.set_message(format!("{}: {}{times}", scenario.name, scenario.about));
        self.now.set_message("a scratch cluster is made");
    }

    /// Shows these words in place of a scenario.
    pub(super) fn say(&self, words: &'static str) {
        self.head.set_message(words);
    }

    /// Shows what happens, until the scenario ends.
    pub(super) fn watch(&self, timeline: &Arc<Timeline>) {
        let (timeline, now, nodes) = (Arc::clone(timeline), self.now.clone(), self.nodes.clone());
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            loop {
                tick.tick().await;
                let at = timeline.now_us();
                let so_far = timeline.so_far(at.saturating_sub(RECENT_US));
                let mark = so_far.last_mark.map_or_else(|| "steady load".to_owned(), |mark| mark.what);
                now.set_message(format!(
                    "{:>5} writes/s {:>5} reads/s, slowest {:>6.1} ms, {} refused, {} unknown | {mark}",
                    so_far.writes,
                    so_far.reads,
                    so_far.slowest_us as f64 / 1e3,
                    so_far.refused,
                    so_far.unknown
                ));
                now.tick();
                let seen = timeline.roles_now();
                let words = seen.into_iter().map(|(node, seen)| format!("{node} {}", seen.word()));
                nodes.set_message(words.collect::<Vec<_>>().join("   "));
            }
        });
        if let Some(before) = self.ticking.lock().replace(task) {
            before.abort();
        }
    }

    pub(super) fn end(&self, run: &Run) {
        if let Some(task) = self.ticking.lock().take() {
            task.abort();
        }
        if self.wanted {
            self.all.suspend(|| eprintln!("{}, {:.1} s", run.verdict, run.verdict.took_ms as f64 / 1e3));
        }
        self.head.inc(1);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(task) = self.ticking.lock().take() {
            task.abort();
        }
        for line in [&self.head, &self.now, &self.nodes] {
            line.finish_and_clear();
        }
    }
}
