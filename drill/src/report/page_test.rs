//! The page shows all that there is, and takes nothing for markup.

use super::{About, page};
use crate::timeline::{Answer, Call, Ending, Gap, Mark, MarkKind, Recorded, RoleChange, Seen};
use crate::verdict::{Judgement, Run, Verdict};

fn run(scenario: &str, lost: u64) -> Run {
    let verdict = Verdict {
        scenario: scenario.to_owned(),
        seed: 7,
        faults: 1,
        acknowledged: 1_234,
        refused: 0,
        unknown: 3,
        reads: 900,
        lost,
        doubled: 0,
        risen: 0,
        registers: Judgement::Good,
        transactions: Judgement::Good,
        write_gap: Gap { faults: 1, p50_us: 31_000, p99_us: 31_000, max_us: 31_000 },
        read_gap: Gap::default(),
        redundancy: Gap::default(),
        identical: Judgement::Good,
        findings: Vec::new(),
        notes: vec!["a note".to_owned()],
        took_ms: 4_000,
    };
    let answers = (1..400)
        .map(|n| Answer {
            at_us: n * 10_000,
            took_us: 500 + n,
            call: if n % 2 == 0 { Call::Read } else { Call::Write },
            ending: if n % 90 == 0 { Ending::Unknown } else { Ending::Done },
        })
        .collect();
    let mark = |at_us, kind, what: &str| Mark { at_us, kind, what: what.to_owned() };
    let role = |at_us, node: &str, seen| RoleChange { at_us, node: node.to_owned(), seen };
    Run {
        about: "the <leader> is killed".to_owned(),
        verdict,
        timeline: Recorded {
            length_us: 4_000_000,
            answers,
            marks: vec![
                mark(1_000_000, MarkKind::Fault, "kill -9 \"n1\" & <all>"),
                mark(1_500_000, MarkKind::Repair, "n1 is started again"),
                mark(2_000_000, MarkKind::Whole, "all are there"),
            ],
            roles: vec![
                role(0, "n1", Seen::Leader),
                role(0, "n2", Seen::Follower),
                role(1_000_000, "n1", Seen::Silent),
                role(1_040_000, "n2", Seen::Leader),
            ],
        },
    }
}

fn about() -> About {
    About { program: "calamus 0".to_owned(), began: "today".to_owned(), command: "calamus drill".to_owned() }
}

#[test]
fn a_page_shows_each_scenario_mark_and_node_and_needs_nothing_else() {
    let html = page(&about(), &[run("kill-leader", 0), run("cut-leader", 0)]);
    for wanted in ["All verdicts are good", "kill-leader", "cut-leader", "1234", "31 ms", ">n1</text>", "a note"] {
        assert!(html.contains(wanted), "{wanted}");
    }
    assert_eq!(html.matches("<svg").count(), 2);
    assert_eq!(html.matches("class=\"mark fault\"").count(), 2);
    assert!(html.contains("kill -9 &quot;n1&quot; &amp; &lt;all&gt;"), "escaped in the list and the plot");
    assert!(!html.contains("<all>"));
    for foreign in ["http://", "https://", "<script", "@import", "url("] {
        assert!(!html.contains(foreign), "{foreign}: a page needs nothing but itself");
    }
}

#[test]
fn what_is_wrong_is_said_first_and_where_it_was_seen() {
    let html = page(&about(), &[run("kill-leader", 0), run("kill-all", 2)]);
    assert!(html.contains("Not all is good: 1 of 2"));
    assert!(html.contains("2 writes are lost"));
}
