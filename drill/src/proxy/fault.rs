//! What can be wrong with a network.

use std::num::NonZeroU64;
use std::time::Duration;

/// What happens to bytes that go one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They are passed on.
    #[default]
    Pass,
    /// They are kept back, and nothing tells the sender.
    Hold,
    /// They arrive later, in order: by `delay`, and up to `jitter` more or less.
    Delay {
        /// How much later.
        delay: Duration,
        /// The most that it is more or less, for each piece that was read at once.
        jitter: Duration,
    },
    /// All connections together get so many bytes a second.
    Throttle {
        /// Bytes a second.
        bytes_per_second: NonZeroU64,
    },
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connections {
    /// They are accepted.
    #[default]
    Accept,
    /// They are accepted and reset at once, and so are those that exist.
    Reset,
    /// Nobody listens, and those that exist are reset.
    Refuse,
}

/// What happens to the connections of a held direction when it is let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtHeal {
    /// What was kept back is delivered: the wire was frozen.
    #[default]
    Deliver,
    /// They are reset, and what was kept back is lost.
    Reset,
}

/// One direction or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directions {
    /// Both.
    Both,
    /// From client to target.
    ToTarget,
    /// From target to client.
    ToClient,
}

/// The state of a network between clients and a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// From client to target.
    pub to_target: Flow,
    /// From target to client.
    pub to_client: Flow,
    /// What happens to connections.
    pub connections: Connections,
    /// What happens when a held direction is let go.
    pub at_heal: AtHeal,
    /// How often the oldest connection is reset; never, if nothing.
    pub flap: Option<Duration>,
}

impl Fault {
    /// No fault.
    pub fn pass() -> Fault {
        Fault::default()
    }

    /// Connections are reset, and new ones are reset or refused.
    pub fn cut(connections: Connections) -> Fault {
        Fault { connections, ..Fault::pass() }
    }

    /// Nothing arrives, and nobody is told.
    pub fn blackhole(directions: Directions, at_heal: AtHeal) -> Fault {
        Fault { at_heal, ..Fault::flowing(directions, Flow::Hold) }
    }

    /// All arrives later, both ways.
    pub fn delay(delay: Duration, jitter: Duration) -> Fault {
        Fault::flowing(Directions::Both, Flow::Delay { delay, jitter })
    }

    /// So many bytes a second, each way.
    pub fn throttle(bytes_per_second: NonZeroU64) -> Fault {
        Fault::flowing(Directions::Both, Flow::Throttle { bytes_per_second })
    }

    /// The oldest connection is reset every so often.
    ///
    /// # Panics
    /// If that is no time at all.
    pub fn flap(every: Duration) -> Fault {
        assert!(!every.is_zero(), "a connection must live for some time");
        Fault { flap: Some(every), ..Fault::pass() }
    }

    /// One flow in these directions.
    pub fn flowing(directions: Directions, flow: Flow) -> Fault {
        let mut fault = Fault::pass();
        if directions != Directions::ToClient {
            fault.to_target = flow;
        }
        if directions != Directions::ToTarget {
            fault.to_client = flow;
        }
        fault
    }

    /// Whether a direction that is held now is let go by the next fault, and its connections must not live on.
    pub(super) fn resets_before(&self, next: &Fault) -> bool {
        let let_go = |now: Flow, then: Flow| now == Flow::Hold && then != Flow::Hold;
        self.at_heal == AtHeal::Reset
            && (let_go(self.to_target, next.to_target) || let_go(self.to_client, next.to_client))
    }
}
