//! A leader that hears no quorum falls silent, so that another can be elected.
//!
//! A leader may be heard and hear nobody: where packets go one way only. Its heartbeats keep the others from electing, and it
//! commits nothing; so a quorum that could go on waits for ever. (Ongaro's thesis, 6.2, lets such a leader step down; openraft
//! has no step that does, and its own `quorum_loss_probe_interval` silences heartbeats alone, while appends and the questions of quorum
//! rounds are heartbeats to whoever gets them, too.)
//!
//! ```text
//! a quorum answers:  speaks
//! none has, for E:   speaks on for E      it may just have been elected, or all may be slow
//!                    is silent for 5/2 E  a follower waits for E, and then up to E more, before it stands
//!                    speaks for E         the others may have been gone, and be back; and so on
//! ```
//! E is the longest election timeout. Why it is safe: nothing is sent that was not sent before; messages that are not sent are
//! messages that are lost. A quorum that was gone and comes back elects by itself, or is spoken to within 5/2 E.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::core::{Core, Standing};

/// Whether this node, as a leader, says nothing to the others.
#[derive(Debug, Default)]
pub(crate) struct Silence(AtomicBool);

impl Silence {
    /// Whether nothing is to be sent that makes others take this node for a living leader.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn keep(&self, silent: bool) {
        if self.0.swap(silent, Ordering::Relaxed) != silent {
            let what = if silent { "falls silent, so that another can be elected" } else { "speaks again" };
            tracing::warn!("no quorum answers this leader: it {what}");
        }
    }
}

/// Since when a leader has been without a quorum.
#[derive(Debug, Default)]
struct Unheard(Option<Instant>);

impl Unheard {
    /// Whether to be silent `now`, as a leader that a quorum `answers` or not; `longest` is the longest election timeout.
    fn is_silent(&mut self, now: Instant, leads: bool, answers: bool, longest: Duration) -> bool {
        if !leads || answers {
            self.0 = None;
            return false;
        }
        let since = now - *self.0.get_or_insert(now);
        let (quiet, loud) = (longest * 5 / 2, longest);
        since.checked_sub(loud).is_some_and(|past| past.as_nanos() % (quiet + loud).as_nanos() < quiet.as_nanos())
    }
}

/// Runs until the core stops.
pub(crate) async fn run(core: Core) {
    let longest = core.config.election_timeout.end;
    let mut unheard = Unheard::default();
    let mut tick = tokio::time::interval((longest / 20).max(Duration::from_millis(5)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = core.stopped() => return,
        }
        let leads = matches!(core.standing(), Standing::Elected { .. });
        core.peers.silence.keep(unheard.is_silent(Instant::now(), leads, core.leads_a_quorum(), longest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(1);

    #[test]
    fn who_hears_no_quorum_is_silent_long_enough_for_an_election_and_then_speaks_for_a_while() {
        let (mut unheard, start) = (Unheard::default(), Instant::now());
        let silent: Vec<bool> =
            (0..9).map(|half| unheard.is_silent(start + LONGEST / 2 * half, true, false, LONGEST)).collect();
        assert_eq!(silent, [false, false, true, true, true, true, true, false, false]);
        assert!(unheard.is_silent(start + LONGEST * 9 / 2, true, false, LONGEST), "and again");
    }

    #[test]
    fn who_is_answered_or_does_not_lead_speaks_at_once_and_begins_anew() {
        let (mut unheard, start) = (Unheard::default(), Instant::now());
        for (leads, answers) in [(true, true), (false, false)] {
            unheard.is_silent(start, true, false, LONGEST);
            assert!(unheard.is_silent(start + LONGEST * 2, true, false, LONGEST));
            assert!(!unheard.is_silent(start + LONGEST * 2, leads, answers, LONGEST));
            assert!(!unheard.is_silent(start + LONGEST * 2, true, false, LONGEST), "counted from here");
            unheard = Unheard::default();
        }
    }
}
