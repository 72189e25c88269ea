//! What tests plant in a node, in builds with the feature `fault-door`. Builds without it do not look at the environment.
//! (Planted disks are in [`crate::disk`]; the faults that `CALAMUS_MUTANTS` names are those of `calamus_replication`.)
//!
//! | variable | meaning |
//! | --- | --- |
//! | `CALAMUS_PLANTED_KV=shut` | the node answers no call of the service `Kv`; its peers, and all else, it does |
//! | `CALAMUS_PLANTED_RAFT_ID=kept` | a new directory takes the raft id that the cluster has for its name |
//! | `CALAMUS_PLANTED_SPLIT_PERCENT=N` | where this node leads, it splits pages so that the left one keeps N percent |

/// The value of a variable, if this build looks at it.
fn planted(name: &str) -> Option<String> {
    if cfg!(feature = "fault-door") { std::env::var(name).ok() } else { None }
}

/// Whether the service `Kv` is shut.
#[must_use]
pub fn kv_is_shut() -> bool {
    planted("CALAMUS_PLANTED_KV").as_deref() == Some("shut")
}

/// Whether a node whose directory was lost comes back under its old raft id.
#[must_use]
pub fn raft_id_is_kept() -> bool {
    planted("CALAMUS_PLANTED_RAFT_ID").as_deref() == Some("kept")
}

/// How full the left page of a split gets, in percent.
///
/// # Panics
/// When it is planted and not a number from 10 to 90: a test must not run with less than it asked for.
#[must_use]
pub fn split_percent() -> Option<u8> {
    let text = planted("CALAMUS_PLANTED_SPLIT_PERCENT")?;
    let percent = text.parse().ok().filter(|percent| (10..=90).contains(percent));
    Some(percent.unwrap_or_else(|| panic!("CALAMUS_PLANTED_SPLIT_PERCENT=`{text}` is not a number from 10 to 90")))
}
