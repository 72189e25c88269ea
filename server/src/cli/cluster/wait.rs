//! `calamus cluster wait`: until the cluster is as it should be.

use std::time::Instant;

use calamus_proto::v1::{Role, StatusResponse};
use clap::Args;
use serde_json::json;

use super::status::{ask, last_index, leader};
use super::{LOOK, Patience};
use crate::cli::common::print;
use crate::cli::{ClientArgs, Exit, Failure};

/// What is waited for; all of it must hold at once.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Until {
    /// A leader is known.
    #[arg(long)]
    leader: bool,
    /// All members answer and are ready.
    #[arg(long)]
    ready: bool,
    /// There are so many voters, and all of them answer.
    #[arg(long, value_name = "N")]
    voters: Option<usize>,
    /// This node is a voter. Several times for several nodes.
    #[arg(long, value_name = "NAME")]
    voter: Vec<String>,
    /// This node has all that the leader had when the wait began. Several times for several nodes.
    #[arg(long, value_name = "NAME")]
    caught_up: Vec<String>,
    /// No member is called so. Several times for several nodes.
    #[arg(long, value_name = "NAME")]
    gone: Vec<String>,
}

impl Until {
    /// What is waited for if nothing was said.
    fn or_default(&self) -> Until {
        let Until { leader, ready, voters, voter, caught_up, gone } = self;
        let nothing =
            !leader && !ready && voters.is_none() && [voter, caught_up, gone].iter().all(|names| names.is_empty());
        if nothing { Until { leader: true, ready: true, ..Until::default() } } else { self.clone() }
    }

    /// What is not so yet, in words. `had` is what the leader had when it was first seen: its last index. While writes go on,
    /// nobody ever has all that it has now.
    fn missing(&self, found: &StatusResponse, had: &mut Option<u64>) -> Vec<String> {
        let members = &found.members;
        let called = |name: &String| members.iter().filter(|node| node.name == *name).collect::<Vec<_>>();
        let mut missing = Vec::new();
        if self.leader && !members.iter().any(|node| node.role() == Role::Leader && node.state == "ready") {
            missing.push("no leader is ready".to_owned());
        }
        if self.ready {
            let late = members.iter().filter(|node| node.unreachable || node.state != "ready");
            missing.extend(late.map(|node| format!("{}: {}", node.name, node.state)));
        }
        if let Some(wanted) = self.voters {
            let there = members.iter().filter(|node| node.voter);
            let (all, answer) = (there.clone().count(), there.filter(|node| !node.unreachable).count());
            if (all, answer) != (wanted, wanted) {
                missing.push(format!("{all} voters, of whom {answer} answer, in place of {wanted}"));
            }
        }
        for name in &self.voter {
            let nodes = called(name);
            // While one of two of the same name replaces the other, the new one does not vote yet.
            if nodes.is_empty() || !nodes.iter().all(|node| node.voter) {
                missing.push(format!("{name} is no voter"));
            }
        }
        *had = had.or_else(|| leader(members).map(last_index));
        for name in &self.caught_up {
            match called(name)[..] {
                [node] if node.unreachable => missing.push(format!("{name} does not answer")),
                [node] => match had.map(|had| had.saturating_sub(last_index(node))) {
                    Some(0) => {}
                    Some(lag) => missing.push(format!("{name} lacks {lag} entries")),
                    None => missing.push("no leader answers".to_owned()),
                },
                ref nodes => missing.push(format!("{} members are called {name}", nodes.len())),
            }
        }
        let there = self.gone.iter().filter(|name| !called(name).is_empty());
        missing.extend(there.map(|name| format!("{name} is a member")));
        missing
    }
}

/// Waits. The exit code says whether it came so: 0, or 4.
///
/// # Errors
/// When it did not, with what is missing.
pub(super) async fn wait(client: &ClientArgs, until: &Until, patience: &Patience) -> Result<Exit, Failure> {
    let until = until.or_default();
    let end = Instant::now() + patience.limit();
    let mut had = None;
    loop {
        let missing = match ask(client).await {
            Ok(found) => until.missing(&found, &mut had),
            Err(error) => vec![format!("nobody answers: {}", error.message())],
        };
        if missing.is_empty() {
            let text =
                if client.json { json!({ "met": true, "missing": [] }).to_string() } else { "it is so".to_owned() };
            return print(format!("{text}\n"), Exit::Done);
        }
        if Instant::now() >= end {
            client.tell(&json!({ "met": false, "missing": missing }));
            let what = format!("waited {} s in vain", patience.patience);
            return Err(
                Failure::new(what, missing.join("; "), "`calamus cluster status` shows more").with_exit(Exit::No)
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use calamus_proto::v1::{NodeStatus, Position};

    use super::*;

    fn node(name: &str, role: Role, voter: bool, index: u64) -> NodeStatus {
        let last_log = Some(Position { term: 1, index });
        NodeStatus {
            name: name.into(),
            role: role.into(),
            voter,
            last_log,
            state: "ready".into(),
            ..NodeStatus::default()
        }
    }

    fn met(until: &Until, members: &[NodeStatus]) -> bool {
        met_since(until, members, &mut None)
    }

    fn met_since(until: &Until, members: &[NodeStatus], had: &mut Option<u64>) -> bool {
        let found = StatusResponse { members: members.to_vec(), ..StatusResponse::default() };
        until.or_default().missing(&found, had).is_empty()
    }

    #[test]
    fn a_node_is_caught_up_with_what_there_was_and_not_with_what_still_comes() {
        let until = Until { caught_up: vec!["n2".to_owned()], ..Until::default() };
        let at =
            |leader, follower| [node("n1", Role::Leader, true, leader), node("n2", Role::Follower, true, follower)];
        let mut had = None;
        assert!(!met_since(&until, &at(9, 5)[1..], &mut had), "nobody knows how much there is");
        assert!(!met_since(&until, &at(9, 5), &mut had));
        assert!(!met_since(&until, &at(20, 8), &mut had));
        assert!(met_since(&until, &at(30, 9), &mut had), "writes go on meanwhile");
        let mut silent = at(30, 9);
        silent[1].unreachable = true;
        assert!(!met_since(&until, &silent, &mut had));
    }

    #[test]
    fn each_condition_is_met_by_what_it_names_and_by_nothing_less() {
        let good = [
            node("n1", Role::Leader, true, 9),
            node("n2", Role::Follower, true, 9),
            node("n3", Role::Learner, false, 7),
        ];
        let silent = |at: usize| {
            let mut members = good.to_vec();
            members[at] = NodeStatus { unreachable: true, state: "no answer".into(), ..members[at].clone() };
            members
        };
        let name = |name: &str| vec![name.to_owned()];
        let default = Until::default();
        assert!(met(&default, &good) && !met(&default, &silent(1)) && !met(&default, &good[1..]));
        let leader = Until { leader: true, ..Until::default() };
        assert!(met(&leader, &silent(1)) && !met(&leader, &good[1..]));
        let voters = |voters| Until { voters: Some(voters), ..Until::default() };
        assert!(
            met(&voters(2), &good)
                && !met(&voters(3), &good)
                && !met(&voters(1), &good)
                && !met(&voters(2), &silent(1))
        );
        let voter = |of: &str| Until { voter: name(of), ..Until::default() };
        assert!(met(&voter("n2"), &good) && !met(&voter("n3"), &good) && !met(&voter("n4"), &good));
        let replaced = [good.to_vec(), vec![node("n2", Role::Learner, false, 9)]].concat();
        assert!(!met(&voter("n2"), &replaced), "its successor does not vote yet");
        let caught_up = |of: &str| Until { caught_up: name(of), ..Until::default() };
        assert!(met(&caught_up("n2"), &good) && !met(&caught_up("n3"), &good) && !met(&caught_up("n4"), &good));
        let gone = |of: &str| Until { gone: name(of), ..Until::default() };
        assert!(met(&gone("n4"), &good) && !met(&gone("n3"), &good));
    }
}
