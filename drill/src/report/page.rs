//! The page: verdicts as a table, then each scenario with its plot, its marks and what is wrong.

use std::fmt::Write;

use super::html::{escape, time};
use super::{plot, style};
use crate::timeline::Recorded;
use crate::verdict::{Run, Verdict};

/// What is said of the drill as a whole.
#[derive(Clone, Debug)]
pub struct About {
    /// The program that was drilled, and its version.
    pub program: String,
    /// When it began, for people.
    pub began: String,
    /// The command that runs it again.
    pub command: String,
}

/// More marks than this are not listed one by one.
const MOST_MARKS: usize = 60;

/// One self-contained page of HTML.
pub fn page(about: &About, runs: &[Run]) -> String {
    let good = runs.iter().filter(|run| run.verdict.is_good()).count();
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let _ = write!(
        out,
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Calamus drill: {good} of {} \
         good</title><style>{}</style></head><body>",
        runs.len(),
        style::CSS
    );
    let (class, word) = if good == runs.len() { ("good", "All verdicts are good") } else { ("bad", "Not all is good") };
    let _ = write!(
        out,
        "<h1>Calamus drill</h1><p class=\"verdict {class}\" id=\"verdict\">{word}: {good} of {} scenarios.</p>\
         <p class=\"soft\">{}, {}. Again: <code>{}</code></p>",
        runs.len(),
        escape(&about.program),
        escape(&about.began),
        escape(&about.command)
    );
    table(&mut out, runs);
    out.push_str(LEGEND);
    for run in runs {
        section(&mut out, run);
    }
    out.push_str("</body></html>\n");
    out
}

const LEGEND: &str = "<p class=\"legend\"><span style=\"--c:var(--write)\">writes, and half of the latencies</span>\
<span style=\"--c:var(--read)\">reads</span><span style=\"--c:var(--slow)\">the longest latency</span>\
<span style=\"--c:var(--failed)\">refused, or unknown</span><span style=\"--c:var(--fault)\">fault</span>\
<span style=\"--c:var(--repair)\">repair</span><span style=\"--c:var(--whole)\">all nodes are there again</span>\
<span style=\"--c:var(--leader)\">leads</span><span style=\"--c:var(--follower)\">follows</span>\
<span style=\"--c:var(--candidate)\">stands for election</span><span style=\"--c:var(--learner)\">does not vote</span>\
<span style=\"--c:var(--silent)\">does not answer</span></p>";

fn table(out: &mut String, runs: &[Run]) {
    out.push_str(
        "<div class=\"scroll\"><table id=\"verdicts\"><thead><tr><th>scenario</th><th>verdict</th><th>faults</th>\
         <th>acknowledged</th><th>unknown</th><th>lost</th><th>doubled</th><th>linearizable</th><th>writes' gap p50</th>\
         <th>max</th><th>reads' gap p50</th><th>max</th><th>full redundancy p50</th><th>max</th><th>replicas equal</th></tr>\
         </thead><tbody>",
    );
    for Run { verdict, .. } in runs {
        let (class, word) = if verdict.is_good() { ("good", "good") } else { ("bad", "BAD") };
        let name = escape(&verdict.scenario);
        let _ = write!(
            out,
            "<tr><td><a href=\"#{name}\">{name}</a></td><td class=\"verdict {class}\">{word}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
            verdict.faults,
            verdict.acknowledged,
            verdict.unknown,
            verdict.lost,
            verdict.doubled,
            verdict.linearizable().word()
        );
        for gap in [verdict.write_gap, verdict.read_gap, verdict.redundancy] {
            let _ = write!(out, "<td>{}</td><td>{}</td>", time(gap.p50_us), time(gap.max_us));
        }
        let _ = write!(out, "<td>{}</td></tr>", verdict.identical.word());
    }
    out.push_str("</tbody></table></div>");
}

fn section(out: &mut String, run: &Run) {
    let Run { about, verdict, timeline } = run;
    let name = escape(&verdict.scenario);
    let (class, word) = if verdict.is_good() { ("good", "good") } else { ("bad", "BAD") };
    let _ = write!(
        out,
        "<section id=\"{name}\"><h2>{name} <span class=\"verdict {class}\">{word}</span></h2><p>{}. <span class=\"soft\">\
         {} in all, seed {}.</span></p>",
        escape(&sentence(about)),
        time(verdict.took_ms * 1_000),
        verdict.seed
    );
    let _ = write!(out, "<figure>{}</figure>", plot::svg(timeline, &format!("What happened in {}", verdict.scenario)));
    marks(out, timeline);
    for note in &verdict.notes {
        let _ = write!(out, "<p class=\"soft\">{}</p>", escape(note));
    }
    wrong(out, verdict);
    out.push_str("</section>");
}

fn marks(out: &mut String, timeline: &Recorded) {
    out.push_str("<ol class=\"marks\">");
    for mark in timeline.marks.iter().take(MOST_MARKS) {
        let class = plot::kind(mark.kind);
        let _ = write!(out, "<li class=\"{class}-text\">{}: {}</li>", time(mark.at_us), escape(&mark.what));
    }
    out.push_str("</ol>");
    if let Some(more) = timeline.marks.len().checked_sub(MOST_MARKS).filter(|more| *more > 0) {
        let _ = write!(out, "<p class=\"soft\">and {more} more; the plot shows each.</p>");
    }
}

fn wrong(out: &mut String, verdict: &Verdict) {
    for complaint in verdict.complaints() {
        let _ = write!(out, "<pre>{}</pre>", escape(&complaint));
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
