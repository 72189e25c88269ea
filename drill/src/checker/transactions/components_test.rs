use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::components::components;
use super::graph::{Edge, Graph, Node, kinds};
use crate::history::Key;

fn graph(nodes: u32, edges: &[(Node, Node)]) -> Graph {
    let edge = |(from, to): &(Node, Node)| Edge { from: *from, to: *to, kind: kinds::WRITE_WRITE, key: Key(0) };
    Graph::from_edges(nodes, nodes, edges.iter().map(edge).collect())
}

fn found(graph: &Graph) -> BTreeSet<Vec<Node>> {
    let sorted = |mut component: Vec<Node>| {
        component.sort_unstable();
        component
    };
    components(graph, kinds::ALL).into_iter().map(sorted).collect()
}

/// By who reaches whom.
fn expected(nodes: u32, edges: &[(Node, Node)]) -> BTreeSet<Vec<Node>> {
    let count = nodes as usize;
    let mut reaches = vec![vec![false; count]; count];
    for (from, to) in edges {
        reaches[*from as usize][*to as usize] = true;
    }
    for by in 0..count {
        for from in 0..count {
            for to in 0..count {
                reaches[from][to] |= reaches[from][by] && reaches[by][to];
            }
        }
    }
    let both = |a: usize, b: usize| a == b || (reaches[a][b] && reaches[b][a]);
    let of = |node: usize| (0..nodes).filter(|other| both(node, *other as usize)).collect::<Vec<_>>();
    (0..count).map(of).filter(|component| component.len() > 1).collect()
}

#[test]
fn components_are_those_that_reach_each_other() {
    for seed in 0..2_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let nodes = random.random_range(1..9);
        let count = random.random_range(0..14);
        let edges: Vec<_> =
            (0..count).map(|_| (random.random_range(0..nodes), random.random_range(0..nodes))).collect();
        assert_eq!(found(&graph(nodes, &edges)), expected(nodes, &edges), "seed {seed}: {edges:?}");
    }
}

#[test]
fn a_path_as_long_as_a_history_needs_no_deep_stack() {
    let nodes = 1_000_000;
    let mut edges: Vec<_> = (1..nodes).map(|node| (node - 1, node)).collect();
    assert!(found(&graph(nodes, &edges)).is_empty());
    edges.push((nodes - 1, 0));
    assert_eq!(found(&graph(nodes, &edges)).first().map(Vec::len), Some(nodes as usize));
}

#[test]
fn edges_of_other_kinds_are_passed_over() {
    let graph = graph(2, &[(0, 1), (1, 0)]);
    assert!(components(&graph, kinds::READ_WRITE).is_empty());
    assert_eq!(components(&graph, kinds::READ_WRITE | kinds::WRITE_WRITE).len(), 1);
}
