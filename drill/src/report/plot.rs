//! A timeline as SVG: throughput, latency on a logarithmic scale, who led, and the faults as lines through all of it.

use std::fmt::Write;

use super::html::{escape, time};
use super::series::Series;
use crate::timeline::{MarkKind, Recorded, Seen};

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
/// Room for the numbers of marks.
const TOP: f64 = 22.0;
const RATES: f64 = 120.0;
const LATENCIES: f64 = 110.0;
const BETWEEN: f64 = 22.0;
const ROLE: f64 = 16.0;
const ROLE_STEP: f64 = 22.0;
/// Room for the numbers of the time axis.
const BOTTOM: f64 = 26.0;
/// Latencies below are drawn as this one, in microseconds.
const LEAST_US: f64 = 100.0;
/// More marks than this are drawn without their numbers, which would cover each other.
const NUMBERED: usize = 60;

struct Plot<'r> {
    recorded: &'r Recorded,
    series: Series,
    nodes: Vec<&'r str>,
    out: String,
}

/// The SVG of a timeline.
pub(super) fn svg(recorded: &Recorded, title: &str) -> String {
    let mut nodes: Vec<&str> = Vec::new();
    for change in &recorded.roles {
        if !nodes.contains(&change.node.as_str()) {
            nodes.push(&change.node);
        }
    }
    nodes.sort_unstable();
    let mut plot = Plot { recorded, series: Series::of(recorded), nodes, out: String::new() };
    let height = plot.bottom() + BOTTOM;
    let _ = write!(
        plot.out,
        r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}"><title>{}</title>"#,
        escape(title),
        escape(title)
    );
    plot.rates();
    plot.latencies();
    plot.roles();
    plot.marks();
    plot.time_axis();
    plot.out.push_str("</svg>");
    plot.out
}

impl Plot<'_> {
    fn x(&self, us: u64) -> f64 {
        let share = us as f64 / self.recorded.length_us.max(1) as f64;
        LEFT + share.min(1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn bottom(&self) -> f64 {
        TOP + RATES + BETWEEN + LATENCIES + BETWEEN + self.nodes.len() as f64 * ROLE_STEP
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escape(text);
        let _ = write!(self.out, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{text}</text>"#);
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(self.out, r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#);
    }

    /// A curve through what is there; where nothing is, it breaks off.
    fn curve(&mut self, class: &str, y: impl Fn(&Series, usize) -> Option<f64>) {
        let (mut path, mut pen_down) = (String::new(), false);
        for place in 0..self.series.slices.len() {
            let Some(y) = y(&self.series, place) else {
                pen_down = false;
                continue;
            };
            let command = if pen_down { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {y:.1}", self.x(self.series.middle(place)));
            pen_down = true;
        }
        let _ = write!(self.out, r#"<path class="curve {class}" d="{path}"/>"#);
    }

    fn rates(&mut self) {
        let most = self.series.slices.iter().map(|s| s.writes.max(s.reads)).max().unwrap_or(0).max(1);
        let (bottom, scale) = (TOP + RATES, RATES / f64::from(most));
        self.line((LEFT, bottom), (WIDTH - RIGHT, bottom), "axis");
        self.line((LEFT, TOP), (WIDTH - RIGHT, TOP), "axis");
        let top = format!("{:.0}/s", self.series.rate(most));
        self.text(LEFT - 6.0, TOP + 10.0, "end", "", &top);
        self.text(LEFT - 6.0, bottom, "end", "", "0");
        self.text(4.0, TOP + RATES / 2.0, "start", "name", "answers");
        self.curve("read", |series, place| Some(bottom - f64::from(series.slices[place].reads) * scale));
        self.curve("write", |series, place| Some(bottom - f64::from(series.slices[place].writes) * scale));
        for place in 0..self.series.slices.len() {
            let failed = self.series.slices[place].failed;
            if failed > 0 {
                let x = self.x(self.series.middle(place));
                let height = (f64::from(failed) * scale).clamp(2.0, RATES);
                let y = bottom - height;
                let _ = write!(
                    self.out,
                    r#"<rect class="failed" x="{:.1}" y="{y:.1}" width="2" height="{height:.1}"><title>{failed} refused or unknown</title></rect>"#,
                    x - 1.0
                );
            }
        }
    }

    fn latencies(&mut self) {
        let top = TOP + RATES + BETWEEN;
        let bottom = top + LATENCIES;
        let most = self.series.slices.iter().map(|slice| slice.max_us).max().unwrap_or(0).max(10_000) as f64;
        let decades = (most / LEAST_US).log10().ceil();
        let y = move |us: u64| bottom - ((us as f64).max(LEAST_US) / LEAST_US).log10() / decades * LATENCIES;
        // Above the numbers of the axis, of which there may be one anywhere below.
        self.text(4.0, top - 9.0, "start", "name", "latency");
        for decade in 0..=decades as u32 {
            let us = 100 * 10_u64.pow(decade);
            self.line((LEFT, y(us)), (WIDTH - RIGHT, y(us)), "axis");
            self.text(LEFT - 6.0, y(us) + 4.0, "end", "", &time(us));
        }
        self.curve("slow", |series, place| {
            let slice = &series.slices[place];
            (slice.max_us > 0).then(|| y(slice.max_us))
        });
        self.curve("half", |series, place| {
            let slice = &series.slices[place];
            (slice.max_us > 0).then(|| y(slice.p50_us))
        });
    }

    fn roles(&mut self) {
        let first = TOP + RATES + BETWEEN + LATENCIES + BETWEEN;
        for (row, node) in self.nodes.clone().into_iter().enumerate() {
            let y = first + row as f64 * ROLE_STEP;
            self.text(LEFT - 6.0, y + 12.0, "end", "name", node);
            let changes: Vec<_> = self.recorded.roles.iter().filter(|change| change.node == node).collect();
            for (place, change) in changes.iter().enumerate() {
                let until = changes.get(place + 1).map_or(self.recorded.length_us, |next| next.at_us);
                let (from, to) = (self.x(change.at_us), self.x(until));
                let class = class(change.seen);
                let _ = write!(
                    self.out,
                    r#"<rect class="{class}" x="{from:.1}" y="{y:.1}" width="{:.1}" height="{ROLE}"><title>{}: {} from {} to {}</title></rect>"#,
                    (to - from).max(0.5),
                    escape(node),
                    change.seen.word(),
                    time(change.at_us),
                    time(until)
                );
            }
        }
    }

    fn marks(&mut self) {
        let bottom = self.bottom();
        let numbered = self.recorded.marks.len() <= NUMBERED;
        for (number, mark) in self.recorded.marks.iter().enumerate() {
            let (x, class) = (self.x(mark.at_us), kind(mark.kind));
            let _ = write!(
                self.out,
                r#"<g><title>{}: {}</title><line class="mark {class}" x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{bottom:.1}"/></g>"#,
                time(mark.at_us),
                escape(&mark.what)
            );
            if numbered {
                // Neighbours stand in two rows.
                let y = if number % 2 == 0 { 9.0 } else { 19.0 };
                self.text(x, y, "middle", &format!("tag {class}"), &(number + 1).to_string());
            }
        }
    }

    fn time_axis(&mut self) {
        let y = self.bottom();
        self.line((LEFT, y), (WIDTH - RIGHT, y), "axis");
        let seconds = self.recorded.length_us / 1_000_000;
        let step =
            [1, 2, 5, 10, 20, 30, 60, 120, 300, 600].into_iter().find(|step| seconds / step <= 12).unwrap_or(1200);
        for second in (0..=seconds).step_by(usize::try_from(step).unwrap_or(1)) {
            self.text(self.x(second * 1_000_000), y + 16.0, "middle", "", &format!("{second} s"));
        }
    }
}

/// The class of a role.
pub(super) fn class(seen: Seen) -> &'static str {
    match seen {
        Seen::Leader => "leader",
        Seen::Follower => "follower",
        Seen::Candidate => "candidate",
        Seen::Learner => "learner",
        Seen::Outside => "outside",
        Seen::Silent => "silent",
    }
}

/// The class of a mark.
pub(super) fn kind(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Fault => "fault",
        MarkKind::Repair => "repair",
        MarkKind::Whole => "whole",
        MarkKind::Note => "note",
    }
}
