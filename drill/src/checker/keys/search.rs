//! The search for an order of the operations on one key. See the module for why its rules lose nothing.

use std::collections::HashSet;
use std::time::Instant;

use super::entry::{Entry, State};
use super::placed::Placed;
use super::timeline::{Event, Timeline};

/// What a remembered key costs beside its words, in bytes: its place in the table, and what the allocator adds.
const REMEMBERED_BYTES: usize = 48;
/// How often the clock is looked at, in states.
const STATES_BETWEEN_LOOKS: u64 = 1024;
/// How many of the last placed operations are kept for an explanation.
const LAST_PLACED: usize = 8;

/// How a search ended.
#[derive(Debug)]
pub(super) enum Found {
    /// An order explains all.
    Order,
    /// None does. This is where the search got furthest.
    None(Blocked),
    /// The deadline passed.
    TimeIsUp,
    /// There was no memory to remember what was tried.
    MemoryIsFull,
}

/// A place where the search went no further.
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    /// The node of the end that could not be passed.
    node: u32,
    /// The entry that ends there.
    pub(super) entry: u32,
    pub(super) state: State,
    /// How many operations were placed, and the last of them.
    pub(super) placed: usize,
    pub(super) last_placed: Vec<u32>,
    /// The open operations.
    pub(super) open: Vec<u32>,
}

/// A state of the search: how it was reached, and what is still to be tried from it.
struct Level {
    /// What was placed to reach it, and after that what changes nothing; from here on in `order`.
    order_from: usize,
    state: State,
    /// What to try, the next one last.
    untried: Vec<u32>,
}

/// A search.
pub(super) struct Search<'a> {
    entries: &'a [Entry],
    timeline: Timeline,
    placed: Placed,
    /// The placed operations, in order.
    order: Vec<u32>,
    tried: HashSet<Box<[u64]>>,
    tried_bytes: usize,
    memory_bytes: usize,
    deadline: Option<Instant>,
    states: u64,
    furthest: Option<Blocked>,
}

impl<'a> Search<'a> {
    /// A search among these entries, in the order of their beginnings.
    pub(super) fn new(entries: &'a [Entry], memory_bytes: usize, deadline: Option<Instant>) -> Search<'a> {
        Search {
            entries,
            timeline: Timeline::new(entries),
            placed: Placed::none(entries),
            order: Vec::new(),
            tried: HashSet::new(),
            tried_bytes: 0,
            memory_bytes,
            deadline,
            states: 0,
            furthest: None,
        }
    }

    /// Searches until there is an answer, or a bound is reached.
    pub(super) fn run(mut self) -> Found {
        let mut levels = vec![self.enter(None, None)];
        while let Some(level) = levels.last_mut() {
            if self.placed.missing() == 0 {
                return Found::Order;
            }
            if self.tried_bytes > self.memory_bytes {
                return Found::MemoryIsFull;
            }
            self.states += 1;
            if self.states.is_multiple_of(STATES_BETWEEN_LOOKS)
                && self.deadline.is_some_and(|deadline| Instant::now() > deadline)
            {
                return Found::TimeIsUp;
            }
            let state = level.state;
            if let Some(entry) = level.untried.pop() {
                let level = self.enter(Some(entry), state);
                levels.push(level);
            } else {
                let order_from = level.order_from;
                self.take_back(order_from);
                levels.pop();
            }
        }
        Found::None(self.furthest.expect("a search that found no order was blocked somewhere"))
    }

    /// Places an entry, and all that changes nothing after it; then sees what could come next.
    fn enter(&mut self, entry: Option<u32>, before: State) -> Level {
        let order_from = self.order.len();
        let mut state = before;
        if let Some(entry) = entry {
            state = self.entries[entry as usize].effect.after(before).expect("only what is right is tried");
            self.place(entry);
        }
        let (open, blocked) = self.place_what_changes_nothing(state);
        if let Some((node, entry)) = blocked {
            self.note_blocked(node, entry, state, &open);
        }
        let untried = if self.remember(state) { self.candidates(&open, state) } else { Vec::new() };
        Level { order_from, state, untried }
    }

    /// Places each open entry that changes nothing. The entries that stay open, and the end that bounds them.
    fn place_what_changes_nothing(&mut self, state: State) -> (Vec<u32>, Option<(u32, u32)>) {
        let mut open = Vec::new();
        let mut node = self.timeline.first();
        // The state stays the same, so what was not right before this node will not be right behind it: one walk is enough.
        while let Some(event) = self.timeline.event(node) {
            match event {
                Event::End(entry) => return (open, Some((node, entry))),
                Event::Begin(number) => {
                    let entry = &self.entries[number as usize];
                    let right = entry.effect.after(state).is_some();
                    if right && entry.ended.is_some() && entry.effect.never_changes() {
                        self.place(number);
                    } else {
                        open.push(number);
                    }
                }
            }
            node = self.timeline.after(node);
        }
        (open, None)
    }

    /// What to try from a state, the first one last.
    fn candidates(&self, open: &[u32], state: State) -> Vec<u32> {
        let entry = |number: &u32| &self.entries[*number as usize];
        let needed = |by: u32, state: State| {
            let looks_and_is_right = |other: &Entry| other.effect.looks() && other.effect.after(state).is_some();
            open.iter().any(|number| *number != by && looks_and_is_right(entry(number)))
        };
        let worth_trying = |number: &&u32| match entry(number).effect.after(state) {
            Some(after) if entry(number).ended.is_none() => after != state && needed(**number, after),
            after => after.is_some(),
        };
        let mut candidates: Vec<u32> = open.iter().filter(worth_trying).copied().collect();
        // Unknown ones, which have no end, go to the front, where they are tried last.
        candidates.sort_by_key(|number| std::cmp::Reverse(entry(number).ended.map_or((1, None), |end| (0, Some(end)))));
        candidates
    }

    /// Whether this set of placed operations is new in this state.
    fn remember(&mut self, state: State) -> bool {
        let key = self.placed.key(state);
        let bytes = REMEMBERED_BYTES + size_of_val(&*key);
        let new = self.tried.insert(key);
        if new {
            self.tried_bytes += bytes;
        }
        new
    }

    fn note_blocked(&mut self, node: u32, entry: u32, state: State, open: &[u32]) {
        if self.furthest.as_ref().is_some_and(|furthest| furthest.node >= node) {
            return;
        }
        let last_placed = self.order[self.order.len().saturating_sub(LAST_PLACED)..].to_vec();
        let placed = self.order.len();
        self.furthest = Some(Blocked { node, entry, state, placed, last_placed, open: open.to_vec() });
    }

    fn place(&mut self, entry: u32) {
        self.timeline.take_out(entry);
        self.placed.insert(entry);
        self.order.push(entry);
    }

    fn take_back(&mut self, from: usize) {
        while self.order.len() > from {
            let entry = self.order.pop().expect("there are more than `from`");
            self.placed.remove(entry);
            self.timeline.put_back(entry);
        }
    }
}
