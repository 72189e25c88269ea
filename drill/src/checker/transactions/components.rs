//! Strongly connected components (Tarjan, "Depth-First Search and Linear Graph Algorithms", SIAM J. Comput. 1972), with a
//! stack of its own: a path through a history is as long as the history.

use super::graph::{Graph, Node};

/// A number that no node has.
const NONE: u32 = u32::MAX;

/// A node that is being visited, and which of its edges is next.
struct Visit {
    node: Node,
    edge: usize,
}

struct Tarjan<'a> {
    graph: &'a Graph,
    kinds: u8,
    /// In which order nodes were met.
    met: Vec<u32>,
    /// The earliest node that can be reached, as far as known.
    low: Vec<u32>,
    on_stack: Vec<bool>,
    stack: Vec<Node>,
    visits: Vec<Visit>,
    count: u32,
    components: Vec<Vec<Node>>,
}

/// The components of more than one node, by edges of these kinds (`graph::kinds`).
pub(super) fn components(graph: &Graph, kinds: u8) -> Vec<Vec<Node>> {
    let nodes = graph.nodes() as usize;
    let mut tarjan = Tarjan {
        graph,
        kinds,
        met: vec![NONE; nodes],
        low: vec![NONE; nodes],
        on_stack: vec![false; nodes],
        stack: Vec::new(),
        visits: Vec::new(),
        count: 0,
        components: Vec::new(),
    };
    for node in 0..graph.nodes() {
        if tarjan.met[node as usize] == NONE {
            tarjan.visit_from(node);
        }
    }
    tarjan.components
}

impl Tarjan<'_> {
    fn visit_from(&mut self, root: Node) {
        self.meet(root);
        while let Some(visit) = self.visits.last_mut() {
            let node = visit.node;
            let Some(edge) = self.graph.from(node).get(visit.edge) else {
                self.visits.pop();
                self.leave(node);
                continue;
            };
            visit.edge += 1;
            if edge.kind & self.kinds == 0 {
                continue;
            }
            let to = edge.to as usize;
            if self.met[to] == NONE {
                self.meet(edge.to);
            } else if self.on_stack[to] {
                self.low[node as usize] = self.low[node as usize].min(self.met[to]);
            }
        }
    }

    fn meet(&mut self, node: Node) {
        self.met[node as usize] = self.count;
        self.low[node as usize] = self.count;
        self.count += 1;
        self.on_stack[node as usize] = true;
        self.stack.push(node);
        self.visits.push(Visit { node, edge: 0 });
    }

    fn leave(&mut self, node: Node) {
        let low = self.low[node as usize];
        if let Some(parent) = self.visits.last() {
            let parent = parent.node as usize;
            self.low[parent] = self.low[parent].min(low);
        }
        if low != self.met[node as usize] {
            return;
        }
        let from =
            self.stack.iter().rposition(|other| *other == node).expect("a node stays on the stack until it is left");
        let component = self.stack.split_off(from);
        for member in &component {
            self.on_stack[*member as usize] = false;
        }
        if component.len() > 1 {
            self.components.push(component);
        }
    }
}
