//! Backups by schedule: which node makes the next one is agreed in the log, not guessed.
//!
//! Every node whose configuration gives a target a schedule looks once a second at what was agreed about that target: its
//! [record](record::Record) in the tree `$backup`. If a backup is due and nobody makes one, it claims it, by a transaction that holds only
//! if the record is still the one that it has read. So of several that try at once one gets it, whoever leads.
//!
//! | the record says | this node | and then |
//! | --- | --- | --- |
//! | nobody makes one, none is due | any | waits |
//! | nobody makes one, one is due | follows, or is the only voter | claims it |
//! | nobody makes one, one is due | leads others | claims it if nobody has for [`LEADER_PATIENCE`]: followers have more time |
//! | another node makes one | any | claims it if the record has not changed for [`LEASE`]: that node is gone |
//! | this node makes one, and it does not | any | claims it: it was started anew |
//!
//! Who makes one renews its claim every [`RENEW`], and stops the run when it could not for [`GIVE_UP`], counted from
//! before the last renewal that was committed. Others count from after they have seen it, and longer: so by then it has
//! stopped, without a common clock. (A request to the place that is under way at that moment may still arrive; a backup that was
//! changed by somebody else is noticed, `calamus_engine::backup`.)
//!
//! A backup that fails is tried again after [`RETRY`], by whoever is first. A run that an operator has asked a node for is not
//! disturbed: that node does not claim meanwhile. Records carry the cluster's id: what a restored database remembers of the
//! old cluster's backups counts for nothing.
//!
//! | file | what |
//! | --- | --- |
//! | `record` | what is agreed, read and changed |
//! | `due` | the table above, as a function |
//! | `turn` | one backup, from its claim to its result |

mod due;
pub mod record;
mod turn;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use calamus_replication::{Leadership, Node};
use tokio::time::Instant;
use tracing::{info, warn};

use self::due::{Standing, is_ours, kind_due};
use self::record::{Known, now_micros};
use self::turn::Turn;
use super::runs::Runs;
use super::targets::Targets;
use crate::settings::{BackupSettings, ScheduleSettings};

/// How often a node looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a leader of others leaves a backup that is due to them.
pub const LEADER_PATIENCE: Duration = Duration::from_secs(10);
/// A claim that has not changed for so long is abandoned.
pub const LEASE: Duration = Duration::from_secs(60);
/// How often a claim is renewed.
pub const RENEW: Duration = Duration::from_secs(5);
/// A run is stopped when its claim could not be renewed for so long.
pub const GIVE_UP: Duration = Duration::from_secs(30);
// Half of the time is for a run that is on its way to notice.
const _: () = assert!(GIVE_UP.as_secs() * 2 <= LEASE.as_secs() && RENEW.as_secs() * 4 <= GIVE_UP.as_secs());

/// How long after a failure a backup is tried again.
pub const RETRY: Duration = Duration::from_secs(60);

/// What a node remembers of a target between two looks.
struct Seen {
    version: u64,
    /// Since when the record is this version, as far as this node knows.
    since: Instant,
    /// Since when a backup is due that nobody makes.
    due_since: Option<Instant>,
}

/// Makes backups by schedule for as long as the node runs.
pub async fn keep(node: &Node, settings: &BackupSettings, targets: &Targets, runs: &Runs) -> Infallible {
    let scheduled: Vec<(&String, ScheduleSettings)> = settings
        .targets
        .iter()
        .map(|(name, target)| (name, target.schedule()))
        .filter(|(_, schedule)| schedule.is_set())
        .collect();
    if scheduled.is_empty() {
        return std::future::pending().await;
    }
    let mut seen: BTreeMap<&String, Seen> = BTreeMap::new();
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for (target, schedule) in &scheduled {
            let Some(known) = Known::read(node, target).await else { continue };
            let Some(kind) = look(node, *schedule, &known, seen.entry(*target)) else { continue };
            if runs.now().is_some() {
                continue;
            }
            let Some(turn) = Turn::claim(node, target, kind, schedule.bytes_per_second, known).await else { continue };
            info!(target, kind = kind.as_str_name(), "a scheduled backup begins");
            match turn.take(node, targets, runs).await {
                Ok(()) => info!(target, "the scheduled backup has ended"),
                Err(error) => warn!(target, why = %error, "the scheduled backup has failed"),
            }
        }
    }
}

/// Whether a backup is this node's to make now, and which.
fn look(
    node: &Node,
    schedule: ScheduleSettings,
    known: &Known,
    seen: std::collections::btree_map::Entry<'_, &String, Seen>,
) -> Option<calamus_proto::v1::RunKind> {
    let now = Instant::now();
    let seen = seen.or_insert_with(|| Seen { version: known.version, since: now, due_since: None });
    if seen.version != known.version {
        *seen = Seen { version: known.version, since: now, due_since: None };
    }
    let due = kind_due(schedule, &known.record, now_micros())?;
    let due_for = now - *seen.due_since.get_or_insert(now);
    let standing = Standing {
        raft_id: node.engine().identity().raft_id.0,
        leads_others: matches!(*node.leadership().borrow(), Leadership::Leading { .. }) && node.members().len() > 1,
        unchanged_for: now - seen.since,
        due_for,
    };
    is_ours(&known.record, standing).then_some(due)
}
