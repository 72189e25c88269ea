//! What happened in a drill, and when: answers, faults, and who led.
//!
//! Times are microseconds since the timeline began, by the monotonic clock of this process. Everything that a verdict says
//! of gaps, and that a report draws, is read off it.

mod gaps;
mod roles;

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

pub use gaps::{Gap, gaps};
pub use roles::{RoleChange, Seen};

/// What kind of call was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// It changed something.
    Write,
    /// It did not.
    Read,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// As it should.
    Done,
    /// It was certainly not done.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A call that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// When it ended.
    pub at_us: u64,
    /// How long it took, with all attempts.
    pub took_us: u64,
    /// Of which kind it was.
    pub call: Call,
    /// How it ended.
    pub ending: Ending,
}

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// Something was broken.
    Fault,
    /// It was put right again.
    Repair,
    /// All copies are there again.
    Whole,
    /// Else.
    Note,
}

/// Something that the drill did or saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// When.
    pub at_us: u64,
    /// What it stands for.
    pub kind: MarkKind,
    /// In words.
    pub what: String,
}

/// All of it.
#[derive(Debug)]
pub struct Timeline {
    began: Instant,
    answers: Mutex<Vec<Answer>>,
    marks: Mutex<Vec<Mark>>,
    roles: Mutex<Vec<RoleChange>>,
}

/// All of it, after the end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recorded {
    /// How long it took.
    pub length_us: u64,
    /// In order of their ends.
    pub answers: Vec<Answer>,
    /// In order.
    pub marks: Vec<Mark>,
    /// In order.
    pub roles: Vec<RoleChange>,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline { began: Instant::now(), answers: Mutex::default(), marks: Mutex::default(), roles: Mutex::default() }
    }
}

impl Timeline {
    /// Microseconds since it began.
    pub fn now_us(&self) -> u64 {
        micros(self.began.elapsed())
    }

    /// A call that began at `began_us` has ended now.
    pub fn answered(&self, call: Call, ending: Ending, began_us: u64) {
        let at_us = self.now_us();
        self.answers.lock().push(Answer { at_us, took_us: at_us.saturating_sub(began_us), call, ending });
    }

    /// Notes something. Returns when that was.
    pub fn mark(&self, kind: MarkKind, what: impl Into<String>) -> u64 {
        let mut marks = self.marks.lock();
        let at_us = self.now_us();
        marks.push(Mark { at_us, kind, what: what.into() });
        at_us
    }

    /// Notes what was seen of a node, if it is another thing than before.
    pub fn saw(&self, node: &str, seen: Seen) {
        let mut roles = self.roles.lock();
        let last = roles.iter().rev().find(|change| change.node == node).map(|change| change.seen);
        if last != Some(seen) {
            roles.push(RoleChange { at_us: self.now_us(), node: node.to_owned(), seen });
        }
    }

    /// What was seen last of each node, in order of name.
    pub fn roles_now(&self) -> Vec<(String, Seen)> {
        let mut now = std::collections::BTreeMap::new();
        for change in &*self.roles.lock() {
            now.insert(change.node.clone(), change.seen);
        }
        now.into_iter().collect()
    }

    /// How many calls of this kind were done since `since_us`, and the last words.
    pub fn so_far(&self, since_us: u64) -> SoFar {
        let answers = self.answers.lock();
        let recent = answers.iter().rev().take_while(|answer| answer.at_us >= since_us);
        let mut so_far = SoFar::default();
        for answer in recent {
            match (answer.ending, answer.call) {
                (Ending::Done, Call::Write) => so_far.writes += 1,
                (Ending::Done, Call::Read) => so_far.reads += 1,
                (Ending::Refused, _) => so_far.refused += 1,
                (Ending::Unknown, _) => so_far.unknown += 1,
            }
            so_far.slowest_us = so_far.slowest_us.max(answer.took_us);
        }
        drop(answers);
        so_far.last_mark = self.marks.lock().last().cloned();
        so_far
    }

    /// Whether a write was acknowledged that ended after `since_us`, and began after it, too.
    pub fn wrote_since(&self, since_us: u64) -> bool {
        let answers = self.answers.lock();
        let mut recent = answers.iter().rev().take_while(|answer| answer.at_us >= since_us);
        recent.any(|a| a.call == Call::Write && a.ending == Ending::Done && a.at_us - a.took_us >= since_us)
    }

    /// All that was noted, in order.
    pub fn recorded(&self) -> Recorded {
        let mut answers = self.answers.lock().clone();
        answers.sort_by_key(|answer| answer.at_us);
        Recorded {
            length_us: self.now_us(),
            answers,
            marks: self.marks.lock().clone(),
            roles: self.roles.lock().clone(),
        }
    }
}

/// What a live view shows.
#[derive(Clone, Debug, Default)]
pub struct SoFar {
    /// Acknowledged.
    pub writes: u64,
    /// Answered.
    pub reads: u64,
    /// Certainly not done.
    pub refused: u64,
    /// Nobody knows.
    pub unknown: u64,
    /// The longest that one of them took.
    pub slowest_us: u64,
    /// The last mark.
    pub last_mark: Option<Mark>,
}

/// In microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
