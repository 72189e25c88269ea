//! By how much openraft's signs of life may be too new.
//!
//! It takes the time at which a request was sent for the time at which whoever answers it was alive. Where this node answers in
//! a peer's stead ([`super::client`]'s `search`), the peer was so when it was asked, and that was before.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When an answer was last given for a peer, and how long before that the peer had been asked at most.
#[derive(Default)]
pub(crate) struct Credit(Mutex<Option<(Instant, Duration)>>);

impl Credit {
    /// An answer is given `now` for a peer that was asked at `asked`.
    pub(crate) fn give(&self, asked: Instant, now: Instant) {
        let mut last = self.0.lock();
        let age = now - asked;
        let others = last.filter(|(given, _)| now - *given <= age).map_or(Duration::ZERO, |(_, others)| others);
        *last = Some((now, age.max(others)));
    }

    /// How much earlier the peers were asked than at `seen`, the newest time at which openraft takes a quorum to have been alive.
    pub(crate) fn before(&self, seen: Instant) -> Duration {
        self.0.lock().filter(|(given, _)| seen <= *given).map_or(Duration::ZERO, |(_, age)| age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_here_counts_as_of_when_the_peer_was_asked_and_nothing_else_does() {
        let (credit, start) = (Credit::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let before = |millis| credit.before(at(millis)).as_millis();
        assert_eq!(before(50), 0);
        credit.give(at(0), at(40));
        credit.give(at(30), at(45));
        assert_eq!(
            (before(41), before(45), before(46)),
            (40, 40, 0),
            "the one asked first, until another sign of life"
        );
        credit.give(at(5_000), at(5_003));
        assert_eq!((before(5_003), before(5_004)), (3, 0), "of another leadership");
    }
}
