//! Beginnings and ends that are not placed yet, in the order of their moments, as a doubly linked list (Lowe 2017): taking
//! an operation out, and putting it back where it was, cost the same however long the history is.
//!
//! Operations are put back in the reverse of the order in which they were taken out; that is what makes the links right.

use super::entry::Entry;
use crate::history::Moment;

/// What happens at a node of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// This entry begins.
    Begin(u32),
    /// This entry, a definite one, ends.
    End(u32),
}

/// The list. Node 0 is before all others, the last node behind them.
#[derive(Debug)]
pub(super) struct Timeline {
    events: Vec<Event>,
    next: Vec<u32>,
    previous: Vec<u32>,
    /// The nodes of each entry: beginning and, if it is definite, end.
    nodes: Vec<(u32, Option<u32>)>,
}

impl Timeline {
    pub(super) fn new(entries: &[Entry]) -> Timeline {
        let mut moments: Vec<(Moment, Event)> = Vec::with_capacity(2 * entries.len());
        for (number, entry) in (0u32..).zip(entries) {
            moments.push((entry.invoked, Event::Begin(number)));
            moments.extend(entry.ended.map(|ended| (ended, Event::End(number))));
        }
        moments.sort_by_key(|(moment, _)| *moment);
        let count = u32::try_from(moments.len() + 2).expect("a history in memory has fewer than 2^31 operations");
        let mut nodes = vec![(0, None); entries.len()];
        for (node, (_, event)) in (1u32..).zip(&moments) {
            match *event {
                Event::Begin(entry) => nodes[entry as usize].0 = node,
                Event::End(entry) => nodes[entry as usize].1 = Some(node),
            }
        }
        Timeline {
            events: moments.into_iter().map(|(_, event)| event).collect(),
            next: (0..count).map(|node| (node + 1).min(count - 1)).collect(),
            previous: (0..count).map(|node| node.saturating_sub(1)).collect(),
            nodes,
        }
    }

    /// The first node that is in the list.
    pub(super) fn first(&self) -> u32 {
        self.next[0]
    }

    /// The node after this one.
    pub(super) fn after(&self, node: u32) -> u32 {
        self.next[node as usize]
    }

    /// What happens at a node; nothing behind the last one.
    pub(super) fn event(&self, node: u32) -> Option<Event> {
        self.events.get(node as usize - 1).copied()
    }

    /// Takes an entry out. The links of its beginning stay, so a walk that stands there goes on.
    pub(super) fn take_out(&mut self, entry: u32) {
        let (begin, end) = self.nodes[entry as usize];
        // The end first: if it is next, the beginning's own link must lead past it.
        if let Some(end) = end {
            self.unlink(end);
        }
        self.unlink(begin);
    }

    /// Puts the entry back that was taken out last.
    pub(super) fn put_back(&mut self, entry: u32) {
        let (begin, end) = self.nodes[entry as usize];
        self.link(begin);
        if let Some(end) = end {
            self.link(end);
        }
    }

    fn unlink(&mut self, node: u32) {
        let (before, after) = (self.previous[node as usize], self.next[node as usize]);
        self.next[before as usize] = after;
        self.previous[after as usize] = before;
    }

    fn link(&mut self, node: u32) {
        let (before, after) = (self.previous[node as usize], self.next[node as usize]);
        self.next[before as usize] = node;
        self.previous[after as usize] = node;
    }
}
