//! Which kind of cycle there is, and a short one of it.

use std::collections::{HashMap, HashSet, VecDeque};

use super::anomaly::{Anomaly, CycleEdge, CycleKind};
use super::components::components;
use super::facts::Facts;
use super::graph::{Edge, Graph, Node, kinds};

/// How many nodes, or edges, of a component a cycle is searched from: the shortest one found is shown.
const STARTS: usize = 64;

/// Kinds of edges in the order in which cycles of them are looked for: what needs fewer kinds is worse, and easier to see.
const LEVELS: [(u8, CycleKind); 3] = [
    (kinds::WRITE_WRITE, CycleKind::Writes),
    (kinds::WRITE_WRITE | kinds::WRITE_READ, CycleKind::Information),
    (kinds::WRITE_WRITE | kinds::WRITE_READ | kinds::READ_WRITE, CycleKind::AntiDependencies),
];

/// A cycle of the worst kind that there is; nothing, if there is none.
pub(super) fn find(facts: &Facts<'_>, graph: &Graph) -> Option<Anomaly> {
    if components(graph, kinds::ALL).is_empty() {
        return None;
    }
    for real_time in [false, true] {
        for (level, kind) in LEVELS {
            let allowed = level | kinds::BEHIND | if real_time { kinds::REAL_TIME } else { 0 };
            let components = components(graph, allowed);
            let Some(smallest) = components.into_iter().min_by_key(Vec::len) else { continue };
            let members: HashSet<Node> = smallest.iter().copied().collect();
            let search = Search { graph, members, allowed };
            let (cycle, kind) = match kind {
                CycleKind::AntiDependencies => search.cycle_with_few_anti_dependencies(),
                kind => (search.short_cycle(), kind),
            };
            return Some(Anomaly::Cycle { kind, real_time, edges: told(facts, graph, &cycle) });
        }
    }
    panic!("a component by edges of all kinds is one of the last level")
}

/// The cycle by its transactions: what goes behind the end of a list and on from there is one dependency, and so is real time
/// that goes through others.
fn told(facts: &Facts<'_>, graph: &Graph, cycle: &[Edge]) -> Vec<CycleEdge> {
    let before = |place: usize| cycle[(place + cycle.len() - 1) % cycle.len()];
    let goes_on = |place: usize| cycle[place].kind == kinds::REAL_TIME && before(place).kind == kinds::REAL_TIME;
    let kept = (0..cycle.len()).filter(|place| graph.is_transaction(cycle[*place].from) && !goes_on(*place));
    let told = |edge: Edge| CycleEdge { from: facts.transaction(edge.from), dependency: edge.dependency() };
    kept.map(|place| told(cycle[place])).collect()
}

/// A search for cycles within a component.
struct Search<'a> {
    graph: &'a Graph,
    members: HashSet<Node>,
    allowed: u8,
}

impl Search<'_> {
    /// A short cycle, by any edges that are allowed.
    fn short_cycle(&self) -> Vec<Edge> {
        let mut starts: Vec<Node> = self.members.iter().copied().collect();
        starts.sort_unstable();
        let cycles = starts.into_iter().take(STARTS).filter_map(|start| self.path(start, start, self.allowed));
        cycles.min_by_key(Vec::len).expect("each node of a component is on a cycle")
    }

    /// A cycle with one anti-dependency, if one is found, else one with several.
    fn cycle_with_few_anti_dependencies(&self) -> (Vec<Edge>, CycleKind) {
        let anti = |edge: &&Edge| edge.kind == kinds::READ_WRITE;
        let within = |edge: &&Edge| self.members.contains(&edge.from) && self.members.contains(&edge.to);
        let closed = |edge: &Edge| {
            let back = self.path(edge.to, edge.from, self.allowed & !kinds::READ_WRITE)?;
            Some([&[*edge], &back[..]].concat())
        };
        let cycles = self.graph.edges().iter().filter(anti).filter(within).take(STARTS).filter_map(closed);
        if let Some(cycle) = cycles.min_by_key(Vec::len) {
            return (cycle, CycleKind::OneAntiDependency);
        }
        let cycle = self.short_cycle();
        let kind = match cycle.iter().filter(anti).count() {
            1 => CycleKind::OneAntiDependency,
            _ => CycleKind::AntiDependencies,
        };
        (cycle, kind)
    }

    /// The shortest path of at least one edge, in breadth.
    fn path(&self, from: Node, to: Node, allowed: u8) -> Option<Vec<Edge>> {
        let mut reached_by: HashMap<Node, Edge> = HashMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            for edge in self.graph.from(node) {
                let usable = edge.kind & allowed != 0 && self.members.contains(&edge.to);
                if !usable || reached_by.contains_key(&edge.to) {
                    continue;
                }
                reached_by.insert(edge.to, *edge);
                if edge.to == to {
                    return Some(path_back(&reached_by, from, to));
                }
                queue.push_back(edge.to);
            }
        }
        None
    }
}

fn path_back(reached_by: &HashMap<Node, Edge>, from: Node, to: Node) -> Vec<Edge> {
    let mut path = vec![reached_by[&to]];
    while path[path.len() - 1].from != from {
        path.push(reached_by[&path[path.len() - 1].from]);
    }
    path.reverse();
    path
}
