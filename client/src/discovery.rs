//! Which nodes there are, who leads, and whom to ask next.
//!
//! What nodes say is believed over what the topology file says, a higher term over a lower one. A node that failed is not
//! asked first for [`SUSPECT_FOR`]; if all failed, they are asked in turn. Many callers that lost the leader at once share one
//! round of questions.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use calamus_proto::v1::{NodeStatus, StatusRequest, StatusResponse};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::SeedableRng;
use tokio::time::{Instant, timeout};

use crate::client::{Options, ReadFrom};
use crate::nodes::Nodes;
use crate::retry::Refusal;
use crate::topology::{KnownNode, Topology, TopologyError};

/// How long a node that failed is passed over: about an election.
const SUSPECT_FOR: Duration = Duration::from_secs(1);
/// How long a node may take to say who leads.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a node may take to ask all others.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(3);
/// How old the knowledge of who leads may get while nothing fails (after a transfer the old leader forwards: slower, not wrong).
const FRESH_FOR: Duration = Duration::from_secs(5);

/// Why a client could not start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address was given, and the topology file knows none.
    #[error("no address of a node was given, and there is no topology file that names one")]
    NoEndpoints,
    /// An address is malformed.
    #[error("`{endpoint}` is not HOST:PORT: {what}; an example: 127.0.0.1:7001")]
    BadEndpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The topology file is damaged, and no address was given.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// None of the nodes answered in time.
    #[error("no node answered within {} ms: {}", waited.as_millis(), tried.join("; "))]
    Unreachable {
        /// How long was waited.
        waited: Duration,
        /// For each address, why it did not answer.
        tried: Vec<String>,
    },
}

#[derive(Debug)]
struct State {
    topology: Topology,
    /// Whether a node (and not only the file) has named the cluster.
    confirmed: bool,
    /// Whether the nodes are those that a node (or the file, of this cluster) listed, not only one that answered.
    members_known: bool,
    term: u64,
    suspects: HashMap<String, Instant>,
    rounds: u64,
    asked: Instant,
}

#[derive(Debug)]
pub(crate) struct Discovery {
    pub nodes: Nodes,
    seeds: Vec<String>,
    file: Option<PathBuf>,
    turn: AtomicUsize,
    state: Mutex<State>,
    refreshing: tokio::sync::Mutex<()>,
    saving: tokio::sync::Mutex<()>,
}

impl Discovery {
    /// Finds the cluster from any one address that answers.
    pub async fn start(seeds: Vec<String>, options: &Options) -> Result<Arc<Discovery>, ConnectError> {
        let seeds = seeds.iter().map(|seed| check_endpoint(seed)).collect::<Result<Vec<_>, _>>()?;
        let topology = match options.topology_file.as_deref().map(Topology::load) {
            None | Some(Ok(None)) => Topology::default(),
            Some(Ok(Some(topology))) => topology,
            Some(Err(error)) if seeds.is_empty() => return Err(error.into()),
            Some(Err(error)) => {
                tracing::warn!(%error, "going on without the topology file");
                Topology::default()
            }
        };
        if seeds.is_empty() && topology.nodes.is_empty() {
            return Err(ConnectError::NoEndpoints);
        }
        let (now, suspects) = (Instant::now(), HashMap::new());
        let members_known = !topology.nodes.is_empty();
        let state = State { topology, confirmed: false, members_known, term: 0, suspects, rounds: 0, asked: now };
        let discovery = Arc::new(Discovery {
            nodes: Nodes::new(options.connect_timeout, options.connections_per_node),
            seeds,
            file: options.topology_file.clone(),
            turn: AtomicUsize::new(0),
            state: Mutex::new(state),
            refreshing: tokio::sync::Mutex::new(()),
            saving: tokio::sync::Mutex::new(()),
        });
        discovery.find(options).await?;
        Ok(discovery)
    }

    async fn find(self: &Arc<Self>, options: &Options) -> Result<(), ConnectError> {
        let begun = Instant::now();
        let mut rng = rand::rngs::SmallRng::from_os_rng();
        for failures in 1.. {
            let tried = self.refresh().await;
            if self.state().confirmed {
                return Ok(());
            }
            let wait = options.backoff.wait(failures, &mut rng);
            if begun.elapsed() + wait >= options.deadline {
                return Err(ConnectError::Unreachable { waited: begun.elapsed(), tried });
            }
            tokio::time::sleep(wait).await;
        }
        unreachable!("the loop only ends by returning")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// What is known now.
    pub fn topology(&self) -> Topology {
        self.state().topology.clone()
    }

    /// All addresses worth asking: the members first, then those the caller named.
    fn addresses(&self, state: &State, seeds_first: bool) -> Vec<String> {
        let members = state.topology.nodes.iter().map(|node| node.address.clone());
        let seeds = self.seeds.iter().cloned();
        let all: Vec<_> = if seeds_first { seeds.chain(members).collect() } else { members.chain(seeds).collect() };
        let mut distinct = Vec::with_capacity(all.len());
        for address in all {
            if !distinct.contains(&address) {
                distinct.push(address);
            }
        }
        distinct
    }

    /// The address to ask next; `failed` is the one that just failed.
    pub fn pick(&self, from: ReadFrom, failed: Option<&str>) -> String {
        let state = self.state();
        let usable = |address: &str| {
            failed != Some(address) && state.suspects.get(address).is_none_or(|at| at.elapsed() >= SUSPECT_FOR)
        };
        if from == ReadFrom::Leader
            && let Some(leader) = state.topology.leader.as_deref().filter(|leader| usable(leader))
        {
            return leader.to_owned();
        }
        let all = self.addresses(&state, from == ReadFrom::Endpoints);
        let good: Vec<&String> = all.iter().filter(|address| usable(address)).collect();
        if from == ReadFrom::Endpoints && !good.is_empty() {
            return good[0].clone();
        }
        let members = state.topology.nodes.len();
        let good: Vec<&String> = match good.len() {
            0 => all.iter().collect(),
            // Other names of the same nodes must not make some of them answer more than others.
            _ if members > 0 && good.len() > members => good[..members].to_vec(),
            _ => good,
        };
        good[self.turn.fetch_add(1, Ordering::Relaxed) % good.len()].clone()
    }

    /// A member to ask that is none of `asked`, one that did not fail lately if there is one. `None` also as long as no answer
    /// has excluded anybody.
    pub fn pick_but_not(&self, asked: &[String]) -> Option<String> {
        if asked.is_empty() {
            return None;
        }
        let state = self.state();
        // Other names of the same nodes would be asked twice, so the members alone count.
        let left = |node: &&KnownNode| !asked.contains(&node.address);
        let suspect =
            |node: &&KnownNode| state.suspects.get(&node.address).is_some_and(|at| at.elapsed() < SUSPECT_FOR);
        state.topology.nodes.iter().filter(left).min_by_key(suspect).map(|node| node.address.clone())
    }

    /// Takes note that a node failed.
    pub fn failed(&self, address: &str) {
        let mut state = self.state();
        state.suspects.insert(address.to_owned(), Instant::now());
        if state.topology.leader.as_deref() == Some(address) {
            state.topology.leader = None;
        }
    }

    /// Takes note of whom a node named as the leader while it refused something.
    pub fn hint(&self, leader: &str) {
        match check_endpoint(leader) {
            Ok(leader) => self.state().topology.leader = Some(leader),
            Err(error) => tracing::warn!(%error, "a node named a leader that is no address"),
        }
    }

    /// Begins a round of questions in the background if the last one is long ago.
    pub fn keep_fresh(self: &Arc<Self>) {
        let stale = {
            let mut state = self.state();
            let stale = state.asked.elapsed() >= FRESH_FOR;
            if stale {
                state.asked = Instant::now();
            }
            stale
        };
        if stale {
            let discovery = self.clone();
            tokio::spawn(async move { discovery.refresh().await });
        }
    }

    /// Asks all known nodes who leads, until one says it. Returns why those did not answer that did not. A caller that waited
    /// while another one's round ran takes that round's result.
    pub async fn refresh(self: &Arc<Self>) -> Vec<String> {
        let before = self.state().rounds;
        let _one_at_a_time = self.refreshing.lock().await;
        let addresses = {
            let mut state = self.state();
            if state.rounds != before {
                return Vec::new();
            }
            state.asked = Instant::now();
            self.addresses(&state, false)
        };
        let mut probes: FuturesUnordered<_> = addresses.into_iter().map(|address| self.probe(address)).collect();
        let mut tried = Vec::new();
        let (mut answered, mut leader_found) = (None, false);
        while let Some((address, result)) = probes.next().await {
            match result.and_then(|status| self.learn(&address, status).map_err(|why| (address.clone(), why))) {
                Ok(names_leader) => {
                    answered.get_or_insert(address);
                    leader_found = names_leader;
                }
                Err((address, why)) => {
                    tracing::debug!(address, why, "a node did not say who leads");
                    tried.push(why);
                }
            }
            if leader_found {
                break;
            }
        }
        drop(probes);
        self.state().rounds += 1;
        match answered {
            // The members are needed before anything is returned only if none are known.
            Some(address) if !self.state().members_known => self.learn_members(&address).await,
            Some(address) => {
                let discovery = self.clone();
                tokio::spawn(async move { discovery.learn_members(&address).await });
            }
            None => {}
        }
        tried
    }

    async fn probe(&self, address: String) -> (String, Result<NodeStatus, (String, String)>) {
        let result = match timeout(PROBE_TIMEOUT, self.status(&address, false)).await {
            Ok(Ok(StatusResponse { node: Some(status), .. })) => Ok(status),
            Ok(Ok(_)) => Err(format!("node {address}: its status is empty")),
            Ok(Err(refusal)) => Err(refusal.failure.message),
            Err(_) => Err(Refusal::silent(&address, PROBE_TIMEOUT).failure.message),
        };
        let result = result.map_err(|why| (address.clone(), why));
        (address, result)
    }

    async fn status(&self, address: &str, all_nodes: bool) -> Result<StatusResponse, Refusal> {
        let node = self.nodes.connect(address).await?;
        let answer = node.cluster().status(StatusRequest { all_nodes }).await;
        answer.map(tonic::Response::into_inner).map_err(|status| {
            let refusal = Refusal::of(&status, address);
            if refusal.broken {
                self.nodes.forget(&node);
            }
            refusal
        })
    }

    /// Takes what a node said of itself; whether it named a leader that is to be believed.
    fn learn(&self, address: &str, status: NodeStatus) -> Result<bool, String> {
        let mut state = self.state();
        if state.confirmed && !status.cluster_id.is_empty() && state.topology.cluster_id != status.cluster_id {
            state.suspects.insert(address.to_owned(), Instant::now());
            let ours = &state.topology.cluster_id;
            return Err(format!("node {address} is of cluster {}, not {ours}: it is left aside", status.cluster_id));
        }
        if !status.cluster_id.is_empty() {
            if state.topology.cluster_id != status.cluster_id {
                // The file spoke of another cluster. This node stands in for all until they are listed: with none, and
                // no address from the caller, there would be nobody left to ask.
                let this = KnownNode { name: status.name, address: address.to_owned(), voter: status.voter };
                state.topology = Topology::new(status.cluster_id, vec![this], None);
                state.members_known = false;
            }
            state.confirmed = true;
        }
        let leader = status.leader_address;
        let suspect = state.suspects.get(&leader).is_some_and(|at| at.elapsed() < SUSPECT_FOR);
        // Who did not answer a call is not believed to lead on, not if it says so itself: one that is cut off from the others
        // answers questions, and calls never. If it leads, the others forward to it.
        let elected = leader == address && status.term > state.term;
        let believed = !leader.is_empty() && status.term >= state.term && (!suspect || elected);
        if believed {
            state.term = status.term;
            state.suspects.remove(&leader);
            state.topology.leader = Some(leader);
        }
        Ok(believed)
    }

    /// Asks a node for all members, and keeps them (in the file too).
    async fn learn_members(&self, address: &str) {
        let members = match timeout(MEMBERS_TIMEOUT, self.status(address, true)).await {
            Ok(Ok(StatusResponse { members, .. })) if !members.is_empty() => members,
            _ => return,
        };
        let ours = self.state().topology.cluster_id.clone();
        let mut nodes: Vec<KnownNode> = members
            .into_iter()
            .filter(|member| !member.address.is_empty() && (member.cluster_id.is_empty() || member.cluster_id == ours))
            .map(|member| KnownNode { name: member.name, address: member.address, voter: member.voter })
            .collect();
        if nodes.is_empty() {
            return;
        }
        nodes.sort();
        {
            let mut state = self.state();
            (state.topology.nodes, state.members_known) = (nodes, true);
        }
        self.save().await;
    }

    /// Replaces the topology file if it says something else. A failure is told, and changes nothing else: it is a hint.
    async fn save(&self) {
        let Some(path) = self.file.clone() else { return };
        let _one_at_a_time = self.saving.lock().await;
        let topology = self.topology();
        let saved = tokio::task::spawn_blocking(move || match Topology::load(&path) {
            Ok(Some(old)) if old == topology => Ok(()),
            _ => topology.save(&path),
        });
        if let Ok(Err(error)) = saved.await {
            tracing::warn!(%error, "the topology is not kept");
        }
    }
}

/// HOST:PORT, with or without `http://` before it.
fn check_endpoint(endpoint: &str) -> Result<String, ConnectError> {
    let bad = |what| ConnectError::BadEndpoint { endpoint: endpoint.to_owned(), what };
    let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("there is no colon"))?;
    if host.is_empty() {
        return Err(bad("the host is empty"));
    }
    if port.parse::<u16>().is_err() {
        return Err(bad("the port is not a number from 0 to 65535"));
    }
    match address.parse::<tonic::codegen::http::uri::Authority>() {
        Ok(_) => Ok(address.to_owned()),
        Err(_) => Err(bad("the host holds what no host may")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked() {
        for (good, address) in [("127.0.0.1:7001", "127.0.0.1:7001"), ("http://db:1/", "db:1"), ("[::1]:7", "[::1]:7")]
        {
            assert_eq!(check_endpoint(good).unwrap(), address);
        }
        for bad in ["", "db", ":1", "db:x", "db:70000", "a b:1", "https://db:1", "db/x:1"] {
            assert!(check_endpoint(bad).unwrap_err().to_string().contains("HOST:PORT"), "{bad}");
        }
    }
}
