//! What sessions may be at most, with the reasons.

use std::time::Duration;

/// The bounds of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// How many there may be. A leader goes through all of them when its term begins, and once a second.
    pub sessions: usize,
    /// How long a session lives that does not say it.
    pub default_ttl: Duration,
    /// The shortest life: a leader looks once a second.
    pub least_ttl: Duration,
    /// The longest: what nobody asks for any more must not stand in the database for ever.
    pub most_ttl: Duration,
    /// An answer of more bytes is stored without its results: whoever asks again learns that it is committed, as which
    /// transaction, and whether its guards held.
    pub answer_bytes: usize,
    /// The bytes of outcomes that a session may have stored and not said that they arrived.
    pub stored_bytes: usize,
    /// How many answers without an entry a leader remembers, of all sessions together.
    pub remembered: usize,
    /// The most bytes of results of such an answer that are remembered with it.
    pub remembered_bytes: usize,
    /// So many outcomes that the client has are kept before they are dropped, all at once: a range delete costs as much
    /// as several puts.
    pub drop_every: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            sessions: 10_000,
            default_ttl: Duration::from_secs(3_600),
            least_ttl: Duration::from_secs(1),
            most_ttl: Duration::from_secs(30 * 86_400),
            answer_bytes: 64 << 10,
            stored_bytes: 1 << 20,
            remembered: 100_000,
            remembered_bytes: 1 << 10,
            drop_every: 32,
        }
    }
}

/// How far a sequence may be above the lowest that is unanswered. It bounds what is stored and remembered of a session.
pub const MAX_AHEAD: u64 = 255;
