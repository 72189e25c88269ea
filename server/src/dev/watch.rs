//! Asking the nodes how they are, and telling what has changed.
//!
//! An address says nothing about who answers there: another `dev` may run on the same ports with nodes of the same names.
//! So an answer counts only if it comes from a child of this process, or, once the children have said which cluster
//! theirs is, from a node of that cluster: such a one was started by hand. Nothing is ever done to anybody else.

use std::time::Duration;

use calamus_proto::v1::{NodeStatus, Role};
use futures::future::join_all;
use serde::Serialize;

use super::child::Children;
use super::event::Event;
use super::layout::Layout;
use crate::cli::table::role_word;
use crate::peer;

/// How long a node may take to answer before it counts as silent.
const ANSWER: Duration = Duration::from_millis(1000);

/// A node as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// n1, n2, ...
    pub name: String,
    /// HOST:PORT.
    pub address: String,
    /// "leader", "follower", ...; "down" or "silent" if it does not answer.
    pub role: String,
    /// 0 if it was never seen.
    pub process_id: u64,
    /// Whether that process is no child of this one.
    #[serde(skip)]
    by_hand: bool,
}

/// What is known of all nodes.
pub struct Watch {
    layout: Layout,
    nodes: Vec<Seen>,
    /// The cluster, once the children have said it.
    cluster_id: Option<String>,
    /// The leader that was told last: its name and term.
    leader: Option<(String, u64)>,
    /// How many looks in a row found no leader.
    leaderless: u32,
}

/// So many looks in a row must find no leader before that is news: an election takes a moment.
const LEADERLESS_LOOKS: u32 = 4;

/// What a node answered.
pub enum Answer {
    /// Its status.
    Status(Box<NodeStatus>),
    /// Nobody listens there.
    Down,
    /// Somebody listens and does not answer.
    Silent,
    /// Somebody answers who is not of this cluster.
    Stranger,
}

impl Watch {
    /// Nothing is known yet.
    pub fn new(layout: Layout) -> Watch {
        let nodes = layout.nodes.iter();
        let nodes = nodes.map(|node| Seen {
            name: node.name.clone(),
            address: node.address.clone(),
            role: "down".to_owned(),
            process_id: 0,
            by_hand: false,
        });
        Watch { nodes: nodes.collect(), layout, cluster_id: None, leader: None, leaderless: 0 }
    }

    /// The nodes as they were seen last, in order of name.
    pub fn nodes(&self) -> &[Seen] {
        &self.nodes
    }

    /// Takes the cluster of these answers, which children gave, for the one of this directory.
    pub fn learn_cluster(&mut self, answers: &[Answer]) {
        self.cluster_id = answers.iter().find_map(|answer| match answer {
            Answer::Status(status) => Some(status.cluster_id.clone()),
            _ => None,
        });
    }

    /// Asks all nodes.
    pub async fn ask(&self, children: &Children) -> Vec<Answer> {
        join_all(self.layout.nodes.iter().map(|node| async {
            match peer::status(&node.address, false, ANSWER).await {
                Ok(answer) => match answer.node {
                    Some(status) if self.is_ours(&status, &node.name, children) => Answer::Status(Box::new(status)),
                    Some(_) => Answer::Stranger,
                    None => Answer::Silent,
                },
                Err(error) if error.code() == tonic::Code::DeadlineExceeded => Answer::Silent,
                Err(_) => Answer::Down,
            }
        }))
        .await
    }

    fn is_ours(&self, status: &NodeStatus, name: &str, children: &Children) -> bool {
        let child = children.pid(name).is_some_and(|pid| pid.as_raw_nonzero().get() as u64 == status.process_id);
        let of_cluster = self.cluster_id.as_ref().is_some_and(|ours| *ours == status.cluster_id);
        status.name == name && (child || of_cluster)
    }

    /// Asks all nodes, and tells what has changed since the last time.
    pub async fn look(&mut self, children: &Children) -> Vec<Event> {
        let answers = self.ask(children).await;
        let mut events = Vec::new();
        for (seen, answer) in self.nodes.iter_mut().zip(&answers) {
            let was_silent = seen.role == "silent";
            match answer {
                Answer::Status(status) => {
                    if seen.process_id != status.process_id && seen.process_id != 0 {
                        events.push(Event::Back { name: seen.name.clone(), process_id: status.process_id });
                    } else if was_silent {
                        events.push(Event::Answers { name: seen.name.clone() });
                    }
                    seen.process_id = status.process_id;
                    seen.by_hand = children.pid(&seen.name).is_none();
                    seen.role = role_word(status.role()).to_owned();
                }
                Answer::Down | Answer::Stranger => {
                    // The end of a child is told by the system, which knows how it ended.
                    if seen.by_hand && seen.role != "down" {
                        let again = self.layout.again(&seen.name);
                        events.push(Event::Gone { name: seen.name.clone(), again });
                    }
                    seen.role = "down".to_owned();
                }
                Answer::Silent => {
                    if !was_silent {
                        events.push(Event::Silent { name: seen.name.clone() });
                    }
                    seen.role = "silent".to_owned();
                }
            }
        }
        events.extend(self.leader_news(&answers));
        events
    }

    /// The leader of the highest term counts: one that was cut off may not know yet that it leads no more.
    fn leader_news(&mut self, answers: &[Answer]) -> Option<Event> {
        let leads = answers.iter().filter_map(|answer| match answer {
            Answer::Status(status) if status.role() == Role::Leader => Some((status.name.clone(), status.term)),
            _ => None,
        });
        let Some(leader) = leads.max_by_key(|(_, term)| *term) else {
            self.leaderless += 1;
            let news = self.leaderless == LEADERLESS_LOOKS;
            if news {
                self.leader = None;
            }
            return news.then_some(Event::NoLeader);
        };
        self.leaderless = 0;
        let news = self.leader.as_ref() != Some(&leader);
        self.leader = Some(leader.clone());
        news.then_some(Event::Leader { name: leader.0, term: leader.1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str, role: Role, term: u64) -> Answer {
        Answer::Status(Box::new(NodeStatus { name: name.to_owned(), role: role.into(), term, ..Default::default() }))
    }

    #[test]
    fn a_leader_of_an_older_term_does_not_count_and_a_short_gap_is_no_news() {
        let mut watch = Watch::new(Layout { dir: "x".into(), nodes: Vec::new() });
        let leader = |name: &str, term| Some(Event::Leader { name: name.to_owned(), term });
        assert_eq!(watch.leader_news(&[answer("a", Role::Leader, 1), answer("b", Role::Follower, 1)]), leader("a", 1));
        assert_eq!(watch.leader_news(&[answer("a", Role::Leader, 1), answer("b", Role::Leader, 2)]), leader("b", 2));
        for _ in 1..LEADERLESS_LOOKS {
            assert_eq!(watch.leader_news(&[answer("a", Role::Candidate, 2), Answer::Down]), None);
        }
        assert_eq!(watch.leader_news(&[Answer::Down, Answer::Silent]), Some(Event::NoLeader));
        assert_eq!(watch.leader_news(&[Answer::Down]), None);
        assert_eq!(watch.leader_news(&[answer("b", Role::Leader, 2)]), leader("b", 2));
    }
}
