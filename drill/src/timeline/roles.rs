//! Who led when, as the nodes say themselves.

use calamus_proto::v1::Role;
use serde::Serialize;

/// What was seen of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// It says that it leads.
    Leader,
    /// It says that it follows.
    Follower,
    /// It says that it stands for election.
    Candidate,
    /// It says that it does not vote.
    Learner,
    /// It says that it is no member.
    Outside,
    /// It does not answer.
    Silent,
}

impl Seen {
    /// What a node says, or that it says nothing.
    pub fn of(role: Option<Role>) -> Seen {
        match role {
            Some(Role::Leader) => Seen::Leader,
            Some(Role::Follower) => Seen::Follower,
            Some(Role::Candidate) => Seen::Candidate,
            Some(Role::Learner) => Seen::Learner,
            Some(Role::Outside | Role::Unspecified) => Seen::Outside,
            None => Seen::Silent,
        }
    }

    /// As a word.
    pub fn word(self) -> &'static str {
        match self {
            Seen::Leader => "leader",
            Seen::Follower => "follower",
            Seen::Candidate => "candidate",
            Seen::Learner => "learner",
            Seen::Outside => "outside",
            Seen::Silent => "no answer",
        }
    }
}

/// From here on something else was seen of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoleChange {
    /// When.
    pub at_us: u64,
    /// Its name.
    pub node: String,
    /// What.
    pub seen: Seen,
}
