//! A proxy for each ordered pair of nodes.
//!
//! What node A asks of node B goes through the proxy (A, B), and so does B's answer. So packets from A to B go through two
//! proxies: to the target on connections that A opened, through (A, B); to the client on those that B opened, through (B, A).
//! A one-way cut holds both of these directions.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;

use tokio::sync::Mutex;

use super::FaultProxy;
use super::fault::{AtHeal, Fault, Flow};

/// Proxies between named nodes. Cuts add up until they are healed; they replace what was set on a single proxy.
#[derive(Debug)]
pub struct ProxyMesh {
    nodes: Vec<String>,
    proxies: BTreeMap<(usize, usize), FaultProxy>,
    at_heal: AtHeal,
    /// From whom to whom nothing arrives.
    cut: Mutex<BTreeSet<(usize, usize)>>,
}

impl ProxyMesh {
    /// Proxies between these nodes, given by name and address (`HOST:PORT`). `at_heal` says what becomes of connections that a
    /// cut has held.
    ///
    /// # Errors
    /// If a port cannot be listened on.
    ///
    /// # Panics
    /// If two nodes have one name.
    pub async fn start(nodes: &[(&str, &str)], at_heal: AtHeal) -> io::Result<ProxyMesh> {
        let names: BTreeSet<&str> = nodes.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), nodes.len(), "two nodes have one name: {nodes:?}");
        let mut proxies = BTreeMap::new();
        for from in 0..nodes.len() {
            for (to, (_, target)) in nodes.iter().enumerate().filter(|(to, _)| *to != from) {
                proxies.insert((from, to), FaultProxy::start(target).await?);
            }
        }
        let nodes = nodes.iter().map(|(name, _)| name.to_string()).collect();
        Ok(ProxyMesh { nodes, proxies, at_heal, cut: Mutex::default() })
    }

    /// The proxy that one node reaches another one through.
    ///
    /// # Panics
    /// If there are no such nodes, or it is one node.
    pub fn proxy(&self, from: &str, to: &str) -> &FaultProxy {
        let pair = (self.number(from), self.number(to));
        self.proxies.get(&pair).unwrap_or_else(|| panic!("a node needs no proxy to reach itself: {from:?}"))
    }

    /// Where one node reaches another one.
    ///
    /// # Panics
    /// As [`Self::proxy`].
    pub fn address(&self, from: &str, to: &str) -> SocketAddr {
        self.proxy(from, to).address()
    }

    /// Cuts two nodes from each other.
    ///
    /// # Errors
    /// As [`FaultProxy::set`]; and so do all others below.
    ///
    /// # Panics
    /// If there is no such node; and so do all others below.
    pub async fn cut(&self, one: &str, other: &str) -> io::Result<()> {
        let (one, other) = (self.number(one), self.number(other));
        self.add([(one, other), (other, one)]).await
    }

    /// Nothing that `from` sends arrives at `to`, on connections that either has opened.
    pub async fn cut_one_way(&self, from: &str, to: &str) -> io::Result<()> {
        self.add([(self.number(from), self.number(to))]).await
    }

    /// Cuts a node from all others.
    pub async fn isolate(&self, node: &str) -> io::Result<()> {
        let node = self.number(node);
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        self.add(others.flat_map(|other| [(node, other), (other, node)])).await
    }

    /// Cuts nodes of different groups from each other.
    ///
    /// # Panics
    /// Also if a node is not in exactly one of the groups.
    pub async fn split(&self, groups: &[&[&str]]) -> io::Result<()> {
        let mut group_of = vec![None; self.nodes.len()];
        for (group, members) in groups.iter().enumerate() {
            for member in *members {
                let before = group_of[self.number(member)].replace(group);
                assert_eq!(before, None, "a node is in two groups: {member:?}");
            }
        }
        assert!(group_of.iter().all(Option::is_some), "a node is in no group: {groups:?} of {:?}", self.nodes);
        let apart = |pair: &(usize, usize)| group_of[pair.0] != group_of[pair.1];
        self.add(self.proxies.keys().copied().filter(apart)).await
    }

    /// Ends all cuts, and all that was set on single proxies.
    pub async fn heal(&self) -> io::Result<()> {
        let mut cut = self.cut.lock().await;
        cut.clear();
        for proxy in self.proxies.values() {
            proxy.set(Fault::pass()).await?;
        }
        Ok(())
    }

    async fn add(&self, pairs: impl IntoIterator<Item = (usize, usize)>) -> io::Result<()> {
        let mut cut = self.cut.lock().await;
        let new: Vec<_> = pairs.into_iter().collect();
        cut.extend(&new);
        // A cut concerns the proxies both ways; others keep what was set on them.
        let concerned: BTreeSet<_> = new.iter().flat_map(|(from, to)| [(*from, *to), (*to, *from)]).collect();
        for (from, to) in concerned {
            let flow = |pair| if cut.contains(&pair) { Flow::Hold } else { Flow::Pass };
            let (to_target, to_client) = (flow((from, to)), flow((to, from)));
            let fault = Fault { to_target, to_client, at_heal: self.at_heal, ..Fault::pass() };
            let proxy = self.proxies.get(&(from, to)).expect("a node cannot be cut from itself");
            proxy.set(fault).await?;
        }
        Ok(())
    }

    fn number(&self, name: &str) -> usize {
        let found = self.nodes.iter().position(|node| node == name);
        found.unwrap_or_else(|| panic!("there is no node {name:?}; there are {:?}", self.nodes))
    }
}
