//! A disk that hangs or fails.
//!
//! A disk that hangs must not keep a leader in office: nothing it is given would become durable, while its heartbeats,
//! which need no disk, keep the others from electing.
//!
//! | the oldest sync under way | what happens |
//! | --- | --- |
//! | younger than the longest election timeout | nothing |
//! | older | proposals are refused, leadership is handed to a voter that answers |
//! | older, and this node still leads a quorum ten such timeouts later | the consensus stops; local reads go on |
//! | older than thirty, whoever leads | the same |
//! | done before that | proposals are taken again |
//!
//! Why not earlier: on a disk that is only slow, or that all nodes share, syncs of several hundred milliseconds come and
//! go. Nothing is lost by them, since a quorum commits without this node's disk; but handing over at half an election
//! timeout moved leadership from one slow disk to the next, and stopping one timeout later left nodes stopped for good
//! that were slow for a second. See `docs/decisions/0007`.
//!
//! Whether it leads is not asked of the core alone. Once another node asks for its vote, the core waits for the disk with
//! that, and until then goes on showing what it was: elected. So this node only counts as leading while a quorum has
//! answered it within an election timeout. Where another leads, a disk that comes back finds its node a follower. One
//! that does not come back is no use to anybody: linearizable reads wait for a core that waits for it. After thirty
//! timeouts the node says so, whatever its core shows.
//!
//! A sync of the journal that *fails* ends the consensus by itself: the journal is poisoned and openraft gets the error.
//! A checkpoint that fails reaches openraft in no way: the node would go on appending and applying, and keep in memory
//! what it cannot write any more. So the engine's status is looked at: once it says that storage has failed, this node
//! takes no more proposals, hands leadership over if it has it, and stops its consensus whether or not that worked; it
//! serves local reads. That the disk has no space is no failure: the engine tries again, and a leader that is short of
//! space hands leadership over to a voter that is not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use calamus_engine::{Engine, SpaceLevel};
use tokio::time::Instant;

use crate::core::Core;

/// A leader that cannot hand over stops after so many election timeouts.
const STOP_AFTER: u32 = 10;
/// A disk that has not answered for so many election timeouts is given up, whoever leads.
const GIVE_UP_AFTER: u32 = 30;

/// What to do about the age of the oldest sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    HandOver,
    Recovered,
    Stop,
}

/// When leadership should have moved since.
#[derive(Debug, Default)]
struct Watchdog {
    since: Option<Instant>,
}

impl Watchdog {
    fn step(&mut self, now: Instant, pending: Option<Duration>, leads: bool, election: Duration) -> Step {
        let hangs = pending.is_some_and(|age| age > election);
        if pending.is_some_and(|age| age > election * GIVE_UP_AFTER) {
            return Step::Stop;
        }
        match (hangs, self.since) {
            (false, None) => Step::Nothing,
            (false, Some(_)) => {
                self.since = None;
                Step::Recovered
            }
            (true, _) if !leads => Step::Nothing,
            (true, None) => {
                self.since = Some(now);
                Step::HandOver
            }
            (true, Some(since)) if now - since > election * STOP_AFTER => Step::Stop,
            (true, Some(_)) => Step::Nothing,
        }
    }
}

/// Moves leadership from a node that is short of space.
#[derive(Debug, Default)]
struct Room {
    tried: Option<Instant>,
}

impl Room {
    /// Hands leadership to a voter that has room, if there is one: not again and again if that does not work.
    fn move_leadership(&mut self, core: &Core, election: Duration) {
        if self.tried.is_some_and(|tried| tried.elapsed() < election * STOP_AFTER) {
            return;
        }
        let Some(to) = core.successor_with_room() else { return };
        tracing::warn!("this node is short of space and another voter is not: it hands leadership over");
        self.tried = Some(Instant::now());
        hand_over(core, to, election);
    }
}

fn hand_over(core: &Core, to: u64, election: Duration) {
    let core = core.clone();
    tokio::spawn(async move {
        if let Err(error) = core.transfer(to, election).await {
            tracing::warn!(error, "leadership did not move");
        }
    });
}

/// Runs until the core stops.
pub(crate) async fn run(engine: Engine, core: Core) {
    let election = core.config.election_timeout.end;
    let (mut watchdog, mut room) = (Watchdog::default(), Room::default());
    let mut tick = tokio::time::interval((election / 10).max(Duration::from_millis(5)));
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = core.stopped() => return,
        }
        let status = engine.status();
        core.peers.spaces.set_own(status.space);
        if let Some(why) = status.failed {
            give_up(&core, election, &why).await;
            return;
        }
        let leads = core.leads_a_quorum();
        if leads && status.space.level != SpaceLevel::Normal {
            room.move_leadership(&core, election);
        }
        // A journal that waits for space has no sync under way, however old what it has to write is.
        let pending = status.pending_sync_age.filter(|_| !status.starved);
        match watchdog.step(Instant::now(), pending, leads, election) {
            Step::Nothing => {}
            Step::Recovered => {
                tracing::warn!("the disk answers again");
                core.refuse.store(false, Ordering::Release);
                core.doubt.notify_one();
            }
            Step::HandOver => {
                tracing::error!("a sync hangs: this node takes no proposals and hands leadership over");
                core.refuse.store(true, Ordering::Release);
                core.doubt.notify_one();
                if let Some(to) = core.successor() {
                    hand_over(&core, to, election);
                }
            }
            Step::Stop => {
                core.shutdown("a sync hangs, and the disk has not come back: local reads only").await;
                return;
            }
        }
    }
}

async fn give_up(core: &Core, election: Duration, why: &str) {
    tracing::error!(why, "storage has failed: this node stops its part in the consensus");
    core.refuse.store(true, Ordering::Release);
    core.doubt.notify_one();
    if core.leads_a_quorum()
        && let Some(to) = core.successor()
        && let Err(error) = core.transfer(to, election).await
    {
        tracing::warn!(error, "leadership did not move");
    }
    core.shutdown(&format!("storage has failed: {why}. Local reads only, until the node is started again")).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: Duration = Duration::from_millis(500);

    fn pending(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    #[test]
    fn a_short_sync_is_nothing_and_a_long_one_moves_leadership_then_stops() {
        let (mut dog, start) = (Watchdog::default(), Instant::now());
        assert_eq!(dog.step(start, None, true, ELECTION), Step::Nothing);
        assert_eq!(dog.step(start, pending(499), true, ELECTION), Step::Nothing);
        assert_eq!(dog.step(start, pending(501), true, ELECTION), Step::HandOver);
        assert_eq!(dog.step(start + ELECTION * 10, pending(5501), true, ELECTION), Step::Nothing);
        let later = start + ELECTION * 10 + Duration::from_millis(1);
        assert_eq!(dog.step(later, pending(5502), true, ELECTION), Step::Stop);
    }

    #[test]
    fn what_recovers_is_let_on_and_a_follower_is_left_alone() {
        let (mut dog, start) = (Watchdog::default(), Instant::now());
        assert_eq!(dog.step(start, pending(900), false, ELECTION), Step::Nothing);
        assert_eq!(dog.step(start, pending(900), true, ELECTION), Step::HandOver);
        assert_eq!(dog.step(start, pending(1), true, ELECTION), Step::Recovered);
        assert_eq!(dog.step(start, pending(1), true, ELECTION), Step::Nothing);
    }

    #[test]
    fn a_disk_that_never_comes_back_is_given_up_whoever_leads() {
        let (mut dog, start) = (Watchdog::default(), Instant::now());
        assert_eq!(dog.step(start, pending(15_000), false, ELECTION), Step::Nothing);
        assert_eq!(dog.step(start, pending(15_001), false, ELECTION), Step::Stop);
    }

    #[test]
    fn a_node_that_moved_leadership_is_let_on_only_when_its_disk_is() {
        let (mut dog, start) = (Watchdog::default(), Instant::now());
        assert_eq!(dog.step(start, pending(900), true, ELECTION), Step::HandOver);
        assert_eq!(dog.step(start + ELECTION * 3, pending(2400), false, ELECTION), Step::Nothing);
        assert_eq!(dog.step(start + ELECTION * 4, None, false, ELECTION), Step::Recovered);
    }
}
