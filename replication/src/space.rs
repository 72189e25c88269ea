//! Which transactions a leader takes when disks are short of space.
//!
//! A transaction is committed by a quorum, so it needs room on each node of one. Each node says with every answer how short
//! of space it is ([`SpaceLevel`]); the leader takes the quorum that is best off, and the worst level in it is the level
//! of the cluster. This node, which leads and writes everything, is in every quorum.
//!
//! - One node of three that is full holds nothing up: the other two are a quorum. It stays behind until it has room.
//! - A node that has not answered of late is in no quorum, whatever it last said. Where too few have answered for a
//!   quorum, space is not what is wrong, and nothing is refused for want of it: so a new leader, who has heard of nobody,
//!   does not begin with refusals.
//! - A leader that is short of space where another voter is not hands leadership over (`watchdog`): then it is
//!   the one node of three.
//!
//! What the leader does not know, because what a node said is older than what happened there, the node itself refuses: it
//! asks for room before the consensus has a frame (`network::service`), and ends the stream with an error if there is
//! none. openraft takes that for a peer that cannot be reached, and tries again, until there is room. Behind the service
//! nothing is refused: an entry that openraft has is on its way to the journal, whose errors would end the node.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use calamus_engine::{Space, SpaceLevel};
use parking_lot::Mutex;

/// How long no frames are sent to a node that had no room for them.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// The level of a quorum, and who makes it so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuorumSpace {
    /// Which transactions are taken.
    pub level: SpaceLevel,
    /// The node that is so short of space, by its name; none while the level is normal.
    pub node: String,
}

/// What a node last said.
#[derive(Clone, Copy)]
struct Said {
    level: SpaceLevel,
    at: Instant,
}

/// How short of space this node and its peers are.
#[derive(Default)]
pub(crate) struct Spaces {
    own: Mutex<Space>,
    said: Mutex<HashMap<u64, Said>>,
    refused: Mutex<HashMap<u64, Instant>>,
}

/// A level as a message has it. One that is not known is of a later version: nothing is sent into the unknown.
pub(crate) fn level_of(number: u32) -> SpaceLevel {
    let known = usize::try_from(number).ok().and_then(|number| SpaceLevel::ALL.get(number).copied());
    known.unwrap_or(SpaceLevel::Full)
}

/// The number of a level in a message.
pub(crate) fn number_of(level: SpaceLevel) -> u32 {
    SpaceLevel::ALL.iter().zip(0..).find(|(known, _)| **known == level).expect("all of them are there").1
}

impl Spaces {
    /// Notes how this node is.
    pub(crate) fn set_own(&self, space: Space) {
        *self.own.lock() = space;
    }

    /// How this node was when it last looked.
    pub(crate) fn own(&self) -> Space {
        *self.own.lock()
    }

    /// Notes what a node says.
    pub(crate) fn heard(&self, id: u64, level: SpaceLevel) {
        self.heard_at(id, level, Instant::now());
    }

    fn heard_at(&self, id: u64, level: SpaceLevel, at: Instant) {
        self.said.lock().insert(id, Said { level, at });
    }

    /// Notes that a node had no room for frames.
    pub(crate) fn refused(&self, id: u64) {
        self.refused.lock().insert(id, Instant::now());
        self.heard(id, SpaceLevel::Full);
    }

    /// How long no frames are to be sent to a node.
    pub(crate) fn pause(&self, id: u64) -> Duration {
        self.refused.lock().get(&id).map_or(Duration::ZERO, |at| REFUSED_PAUSE.saturating_sub(at.elapsed()))
    }

    /// What a node said, if that was not longer ago than `fresh`.
    pub(crate) fn level(&self, id: u64, fresh: Duration) -> Option<SpaceLevel> {
        self.said.lock().get(&id).filter(|said| said.at.elapsed() <= fresh).map(|said| said.level)
    }

    /// The worst level in the quorum that is best off, of each of `voter_sets`, and a node that has it.
    pub(crate) fn of_quorum(&self, this: u64, voter_sets: &[BTreeSet<u64>], fresh: Duration) -> (SpaceLevel, u64) {
        let own = (self.own().level, this);
        let of_set = |voters: &BTreeSet<u64>| {
            let level = |id: u64| if id == this { Some(own.0) } else { self.level(id, fresh) };
            let mut answered: Vec<_> = voters.iter().filter_map(|id| Some((level(*id)?, *id))).collect();
            answered.sort_unstable();
            answered.get(voters.len() / 2).copied()
        };
        voter_sets.iter().filter_map(of_set).fold(own, Ord::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(60);

    fn spaces(own: SpaceLevel, others: &[(u64, SpaceLevel)]) -> Spaces {
        let spaces = Spaces::default();
        let mut space = Space::default();
        space.level = own;
        spaces.set_own(space);
        others.iter().for_each(|(id, level)| spaces.heard(*id, *level));
        spaces
    }

    fn of_three(own: SpaceLevel, others: &[(u64, SpaceLevel)]) -> (SpaceLevel, u64) {
        spaces(own, others).of_quorum(1, &[[1, 2, 3].into()], FRESH)
    }

    #[test]
    fn the_best_quorum_counts_and_this_node_is_in_it() {
        use SpaceLevel::{DeletesOnly, Full, NoGrowth, Normal};
        assert_eq!(of_three(Normal, &[(2, Normal), (3, Normal)]).0, Normal);
        assert_eq!(of_three(Normal, &[(2, Full), (3, Normal)]).0, Normal, "one of three is not needed");
        assert_eq!(of_three(Normal, &[(2, Full), (3, NoGrowth)]), (NoGrowth, 3));
        assert_eq!(of_three(DeletesOnly, &[(2, Normal), (3, Normal)]), (DeletesOnly, 1));
        assert_eq!(of_three(Normal, &[(2, DeletesOnly)]), (DeletesOnly, 2), "the third does not answer");
        assert_eq!(of_three(Normal, &[]).0, Normal, "without a quorum it is no matter of space");
        assert_eq!(of_three(Full, &[]), (Full, 1));
        let joint = [[1, 2, 3].into(), [1, 4].into()];
        let spaces = spaces(Normal, &[(2, Normal), (3, Normal), (4, Full)]);
        assert_eq!(spaces.of_quorum(1, &joint, FRESH), (Full, 4), "a joint membership needs both");
    }

    #[test]
    fn who_is_silent_is_in_no_quorum() {
        let spaces = spaces(SpaceLevel::Normal, &[(3, SpaceLevel::Full)]);
        spaces.heard_at(2, SpaceLevel::Normal, Instant::now() - FRESH * 2);
        assert_eq!(spaces.of_quorum(1, &[[1, 2, 3].into()], FRESH), (SpaceLevel::Full, 3));
    }

    #[test]
    fn a_node_that_had_no_room_is_left_alone_for_a_moment() {
        let spaces = Spaces::default();
        assert_eq!(spaces.pause(2), Duration::ZERO);
        spaces.refused(2);
        assert!(spaces.pause(2) > Duration::ZERO && spaces.pause(3).is_zero());
        assert_eq!(spaces.level(2, FRESH), Some(SpaceLevel::Full));
        spaces.refused.lock().insert(2, Instant::now() - REFUSED_PAUSE);
        assert_eq!(spaces.pause(2), Duration::ZERO);
    }

    #[test]
    fn levels_survive_the_wire() {
        for level in SpaceLevel::ALL {
            assert_eq!(level_of(number_of(level)), level);
        }
        assert_eq!((level_of(0), level_of(9)), (SpaceLevel::Normal, SpaceLevel::Full));
    }
}
