//! Whom a leader names as sources of a seeding, and in which order a node asks them.
//!
//! A leader names every member but the one that is to be seeded: of those that answered it lately and have what is asked
//! for, the one that lags least first; those that are about as far share the load by chance of their ids; then itself;
//! then the others, which may come to it. So the leader, which does the most, is spared, and a follower that died is not in
//! the way. The node that is seeded puts first what its operator wishes.

use std::collections::HashMap;
use std::sync::Arc;

use calamus_engine::ids::{LogId, RaftId};
use calamus_proto::raft::v1 as wire;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::archive::SeedArchive;
use crate::types::NodeInfo;

/// So many entries more or less make no difference.
const ABOUT_AS_FAR: u64 = 256;

/// How far the peers of a leader are, as they answered last.
#[derive(Default)]
pub(crate) struct Answers(Mutex<HashMap<RaftId, Answer>>);

#[derive(Clone, Copy)]
struct Answer {
    matching: Option<LogId>,
    at: Instant,
}

impl Answers {
    /// A peer had everything up to `matching` at that time.
    pub(crate) fn heard(&self, peer: RaftId, matching: Option<LogId>, at: Instant) {
        self.0.lock().insert(peer, Answer { matching, at });
    }

    /// The sources for `target`, best first, of a cluster of `members` led by `this`. What was heard before
    /// `since` does not count.
    pub(crate) fn sources(
        &self,
        members: &[(RaftId, NodeInfo)],
        this: RaftId,
        target: RaftId,
        at_least: LogId,
        since: Instant,
    ) -> Vec<wire::SeedSource> {
        let answers = self.0.lock();
        let reached = |id: RaftId| {
            let answer = answers.get(&id).filter(|answer| answer.at >= since)?;
            answer.matching.filter(|matching| matching.index >= at_least.index)
        };
        let furthest = members.iter().filter_map(|(id, _)| reached(*id)).map(|matching| matching.index.0).max();
        let rank = |id: RaftId| {
            // Any mixture of both ids will do, as long as different targets get different ones.
            let share = (id.0 ^ target.0.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            match (reached(id), furthest) {
                (Some(matching), Some(furthest)) => (0, (furthest - matching.index.0) / ABOUT_AS_FAR, share),
                _ if id == this => (1, 0, 0),
                _ => (2, 0, share),
            }
        };
        let mut sources: Vec<&(RaftId, NodeInfo)> = members.iter().filter(|(id, _)| *id != target).collect();
        sources.sort_by_key(|(id, _)| rank(*id));
        let source = |(id, node): &(RaftId, NodeInfo)| wire::SeedSource {
            raft_id: id.0,
            name: node.name.clone(),
            address: node.address.clone(),
        };
        sources.into_iter().map(source).collect()
    }
}

/// What a node is to be seeded from, if its operator says so.
#[derive(Clone, Default)]
pub enum SeedFrom {
    /// Whom the leader names first.
    #[default]
    Any,
    /// The leader.
    Leader,
    /// The node of this name.
    Node(String),
    /// Backups.
    Archive(Arc<SeedArchive>),
}

impl std::fmt::Debug for SeedFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => write!(f, "any node"),
            Self::Leader => write!(f, "the leader"),
            Self::Node(name) => write!(f, "{name}"),
            Self::Archive(archive) => write!(f, "{}", archive.name()),
        }
    }
}

/// What is asked, one after the other.
#[derive(Clone)]
pub(crate) enum Origin {
    Node(wire::SeedSource),
    Archive(Arc<SeedArchive>),
}

impl Origin {
    /// The raft id of a node.
    pub(crate) fn raft_id(&self) -> Option<u64> {
        match self {
            Self::Node(source) => Some(source.raft_id),
            Self::Archive(_) => None,
        }
    }

    /// What it is called, for people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Node(source) => source.name.clone(),
            Self::Archive(archive) => archive.name().to_owned(),
        }
    }
}

/// The sources that a leader named, in the order that this node asks them.
pub(crate) fn origins(named: &[wire::SeedSource], leader: RaftId, wished: &SeedFrom) -> Vec<Origin> {
    let first = |source: &wire::SeedSource| match wished {
        SeedFrom::Leader => source.raft_id == leader.0,
        SeedFrom::Node(name) => source.name == *name,
        SeedFrom::Any | SeedFrom::Archive(_) => false,
    };
    let (wanted, others): (Vec<_>, Vec<_>) = named.iter().cloned().partition(first);
    if let (SeedFrom::Node(name), true) = (wished, wanted.is_empty()) {
        tracing::warn!(
            name,
            "the node that this one is to be seeded from is no member, or is this one: another is taken"
        );
    }
    let archive = match wished {
        SeedFrom::Archive(archive) => Some(Origin::Archive(Arc::clone(archive))),
        _ => None,
    };
    archive.into_iter().chain(wanted.into_iter().chain(others).map(Origin::Node)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn node(name: &str) -> NodeInfo {
        NodeInfo { name: name.to_owned(), address: format!("{name}:1"), ..NodeInfo::default() }
    }

    fn names(sources: &[wire::SeedSource]) -> Vec<&str> {
        sources.iter().map(|source| source.name.as_str()).collect()
    }

    #[test]
    fn the_follower_that_lags_least_comes_first_and_the_leader_behind_all_that_are_able() {
        let answers = Answers::default();
        let members: Vec<_> = ["lead", "near", "far", "dead", "new", "joins"]
            .into_iter()
            .zip(1..)
            .map(|(n, id)| (RaftId(id), node(n)))
            .collect();
        let since = Instant::now();
        answers.heard(RaftId(2), Some(LogId::new(1, 9_000)), since);
        answers.heard(RaftId(3), Some(LogId::new(1, 5_000)), since);
        answers.heard(RaftId(4), Some(LogId::new(1, 9_999)), since - Duration::from_secs(1));
        answers.heard(RaftId(5), Some(LogId::new(1, 10)), since);
        let sources = |target| {
            let sources = answers.sources(&members, RaftId(1), RaftId(target), LogId::new(1, 4_000), since);
            names(&sources).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(sources(6)[..3], ["near", "far", "lead"]);
        let mut rest = sources(6)[3..].to_vec();
        rest.sort();
        assert_eq!(rest, ["dead", "new"]);
        assert_eq!(sources(2)[..2], ["far", "lead"]);
    }

    #[test]
    fn those_that_are_about_as_far_share_the_load() {
        let answers = Answers::default();
        let members: Vec<_> = (1..=5).map(|id| (RaftId(id << 40 | 77), node(&format!("n{id}")))).collect();
        let since = Instant::now();
        for (id, _) in &members[1..] {
            answers.heard(*id, Some(LogId::new(1, 9_000 + id.0 % 100)), since);
        }
        let first = |target: u64| {
            let at_least = LogId::new(1, 1);
            answers.sources(&members, members[0].0, RaftId(target), at_least, since).remove(0).name
        };
        let chosen: std::collections::BTreeSet<String> = (0..40).map(|n| first(0xfeed_0000_0000 + n * 7919)).collect();
        assert!(chosen.len() >= 3, "{chosen:?}");
    }

    #[test]
    fn what_the_operator_wishes_comes_first_and_the_others_remain() {
        let named: Vec<_> = [(1, "n1"), (2, "n2"), (3, "n3")]
            .map(|(raft_id, name)| wire::SeedSource { raft_id, name: name.to_owned(), address: String::new() })
            .into();
        let order = |wished: &SeedFrom| {
            let name = |origin| match origin {
                Origin::Node(source) => source.name,
                Origin::Archive(archive) => archive.name().to_owned(),
            };
            origins(&named, RaftId(3), wished).into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(order(&SeedFrom::Any), ["n1", "n2", "n3"]);
        assert_eq!(order(&SeedFrom::Leader), ["n3", "n1", "n2"]);
        assert_eq!(order(&SeedFrom::Node("n2".to_owned())), ["n2", "n1", "n3"]);
        assert_eq!(order(&SeedFrom::Node("n9".to_owned())), ["n1", "n2", "n3"]);
    }
}
