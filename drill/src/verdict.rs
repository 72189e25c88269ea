//! What a drill says of the cluster at its end.

use std::fmt;

use serde::Serialize;

use crate::timeline::{Gap, Recorded};

/// What a check of a history came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "judgement", content = "why", rename_all = "snake_case")]
pub enum Judgement {
    /// It is as it should be.
    Good,
    /// It is not, and here is why.
    Bad(String),
    /// It could not be found out within the bounds of time and memory. Never counted as good.
    Undecided(String),
    /// It was not looked at, because of this.
    Skipped(String),
}

impl Judgement {
    /// Whether it is as it should be.
    pub fn is_good(&self) -> bool {
        *self == Judgement::Good
    }

    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Judgement::Good => "yes",
            Judgement::Bad(_) => "NO",
            Judgement::Undecided(_) => "undecided",
            Judgement::Skipped(_) => "not checked",
        }
    }
}

/// The verdict on one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Its name.
    pub scenario: String,
    /// What was drawn by chance comes from this.
    pub seed: u64,
    /// How many faults were made.
    pub faults: usize,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were certainly not done.
    pub refused: u64,
    /// Writes of which nobody knows.
    pub unknown: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Acknowledged writes that are not there at the end. Must be 0.
    pub lost: u64,
    /// Writes that are there more than once. Must be 0.
    pub doubled: u64,
    /// Writes that are there although their clients were told that they were not done. Must be 0.
    pub risen: u64,
    /// Whether there is one order of all that single keys were asked, as real time went.
    pub registers: Judgement,
    /// Whether there is one order of all transactions over several keys, as real time went.
    pub transactions: Judgement,
    /// How long no write was acknowledged, by fault.
    pub write_gap: Gap,
    /// How long no read was answered, by fault.
    pub read_gap: Gap,
    /// How long it took, by fault, until every node was there again, voted and had caught up.
    pub redundancy: Gap,
    /// Whether the replicas' files are equal to the last byte.
    pub identical: Judgement,
    /// What was seen beside, and should not be: a node that ended by itself, say.
    pub findings: Vec<String>,
    /// What the scenario adds.
    pub notes: Vec<String>,
    /// How long all of it took.
    pub took_ms: u64,
}

impl Verdict {
    /// Whether all is as it should be.
    pub fn is_good(&self) -> bool {
        self.lost == 0
            && self.doubled == 0
            && self.risen == 0
            && self.acknowledged > 0
            && self.reads > 0
            && self.registers.is_good()
            && self.transactions.is_good()
            && (self.identical.is_good() || matches!(self.identical, Judgement::Skipped(_)))
            && self.findings.is_empty()
    }

    /// Whether there is one order of all that was asked.
    pub fn linearizable(&self) -> &Judgement {
        if self.registers.is_good() { &self.transactions } else { &self.registers }
    }

    /// What is wrong, in words.
    pub fn complaints(&self) -> Vec<String> {
        let mut all = self.findings.clone();
        for (what, count) in
            [("lost", self.lost), ("doubled", self.doubled), ("not committed, and there all the same", self.risen)]
        {
            if count > 0 {
                all.push(format!("{count} writes are {what}"));
            }
        }
        if self.acknowledged == 0 {
            all.push("no write was acknowledged: nothing was tried".to_owned());
        }
        if self.reads == 0 {
            all.push("no read was answered: the histories say nothing".to_owned());
        }
        for (what, judgement) in [
            ("the history of single keys", &self.registers),
            ("the history of transactions", &self.transactions),
            ("the comparison of the replicas", &self.identical),
        ] {
            match judgement {
                Judgement::Bad(why) => all.push(format!("{what}: {why}")),
                Judgement::Undecided(why) => all.push(format!("{what} is undecided: {why}")),
                Judgement::Good | Judgement::Skipped(_) => {}
            }
        }
        all
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_good() { "good" } else { "BAD" };
        write!(f, "{}: {word}; {} acknowledged, {} lost", self.scenario, self.acknowledged, self.lost)?;
        write!(f, ", {} doubled, linearizable: {}", self.doubled, self.linearizable().word())
    }
}

/// A scenario that ran: what is said of it, and what happened.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What the scenario is, in words.
    pub about: String,
    /// What is said of the cluster.
    pub verdict: Verdict,
    /// What happened.
    pub timeline: Recorded,
}
