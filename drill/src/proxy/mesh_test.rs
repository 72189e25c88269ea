use std::collections::BTreeSet;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::test_peers::*;
use super::*;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Three nodes, and two connections for each pair of them: one that each has opened.
struct Nodes {
    mesh: ProxyMesh,
    targets: Vec<Target>,
    /// Who opened it, to whom, and the sockets of both.
    connections: Vec<(usize, usize, TcpStream, TcpStream)>,
}

impl Nodes {
    async fn start(at_heal: AtHeal) -> Nodes {
        let targets = [Target::start().await, Target::start().await, Target::start().await];
        let addresses: Vec<String> = targets.iter().map(|target| target.address.to_string()).collect();
        let nodes: Vec<(&str, &str)> = NAMES.into_iter().zip(addresses.iter().map(String::as_str)).collect();
        let mesh = ProxyMesh::start(&nodes, at_heal).await.expect("there are free ports");
        let mut nodes = Nodes { mesh, targets: targets.into(), connections: Vec::new() };
        nodes.connect().await;
        nodes
    }

    async fn connect(&mut self) {
        self.connections.clear();
        for (from, to) in pairs() {
            let address = self.mesh.address(NAMES[from], NAMES[to]);
            let (client, server) = connected(address, &self.targets[to]).await;
            self.connections.push((from, to, client, server));
        }
    }

    /// Nothing arrives from the first to the second of these pairs, on any connection, and all arrives between others; and after
    /// the cut is healed, all arrives that was sent.
    async fn assert_cut(&mut self, cut: &[(usize, usize)]) {
        let cut: BTreeSet<_> = cut.iter().copied().collect();
        for (opener, other, client, server) in &mut self.connections {
            arrives_or_not(client, server, cut.contains(&(*opener, *other))).await;
            arrives_or_not(server, client, cut.contains(&(*other, *opener))).await;
        }
        self.mesh.heal().await.expect("healed");
        for (opener, other, client, server) in &mut self.connections {
            for (pair, receiver) in [((*opener, *other), server), ((*other, *opener), client)] {
                if cut.contains(&pair) {
                    receives(receiver, b"sent while cut").await;
                }
            }
        }
    }
}

async fn arrives_or_not(from: &mut TcpStream, to: &mut TcpStream, is_cut: bool) {
    send(from, b"sent while cut").await;
    if is_cut {
        receives_nothing(to).await;
    } else {
        receives(to, b"sent while cut").await;
    }
}

fn pairs() -> Vec<(usize, usize)> {
    let all = (0..3).flat_map(|from| (0..3).map(move |to| (from, to)));
    all.filter(|(from, to)| from != to).collect()
}

#[tokio::test]
async fn each_ordered_pair_has_a_proxy_of_its_own() {
    let nodes = Nodes::start(AtHeal::Deliver).await;
    let addresses: BTreeSet<SocketAddr> =
        pairs().into_iter().map(|(from, to)| nodes.mesh.address(NAMES[from], NAMES[to])).collect();
    assert_eq!(addresses.len(), 6);
    for (from, to) in pairs() {
        assert_eq!(nodes.mesh.proxy(NAMES[from], NAMES[to]).counters().connections, 1);
    }
}

#[tokio::test]
async fn a_cut_holds_two_nodes_apart_both_ways() {
    let mut nodes = Nodes::start(AtHeal::Deliver).await;
    nodes.mesh.cut("n1", "n3").await.expect("cut");
    nodes.assert_cut(&[(0, 2), (2, 0)]).await;
}

#[tokio::test]
async fn a_one_way_cut_holds_packets_on_connections_that_either_opened() {
    let mut nodes = Nodes::start(AtHeal::Deliver).await;
    nodes.mesh.cut_one_way("n1", "n2").await.expect("cut");
    nodes.assert_cut(&[(0, 1)]).await;
    // Two of them make a cut, and add up with others.
    nodes.mesh.cut_one_way("n1", "n2").await.expect("cut");
    nodes.mesh.cut_one_way("n2", "n1").await.expect("cut");
    nodes.mesh.cut_one_way("n2", "n3").await.expect("cut");
    nodes.assert_cut(&[(0, 1), (1, 0), (1, 2)]).await;
}

#[tokio::test]
async fn an_isolated_node_reaches_nobody_and_the_others_each_other() {
    let mut nodes = Nodes::start(AtHeal::Deliver).await;
    nodes.mesh.isolate("n2").await.expect("cut");
    nodes.assert_cut(&[(0, 1), (1, 0), (1, 2), (2, 1)]).await;
}

#[tokio::test]
async fn a_split_cuts_groups_from_each_other() {
    let mut nodes = Nodes::start(AtHeal::Deliver).await;
    nodes.mesh.split(&[&["n1", "n2"], &["n3"]]).await.expect("cut");
    nodes.assert_cut(&[(0, 2), (2, 0), (1, 2), (2, 1)]).await;
}

#[tokio::test]
async fn a_mesh_can_reset_what_a_cut_has_held_and_only_that() {
    let mut nodes = Nodes::start(AtHeal::Reset).await;
    nodes.mesh.cut("n1", "n2").await.expect("cut");
    nodes.mesh.heal().await.expect("healed");
    for (from, to, client, server) in &mut nodes.connections {
        if *from + *to == 1 {
            is_reset(client).await;
            is_reset(server).await;
        } else {
            passes(client, server).await;
        }
    }
    nodes.connect().await;
}

#[tokio::test]
#[should_panic(expected = "a node is in no group")]
async fn a_split_that_forgets_a_node_is_refused() {
    let nodes = Nodes::start(AtHeal::Deliver).await;
    nodes.mesh.split(&[&["n1"], &["n3"]]).await.expect("never returns");
}
