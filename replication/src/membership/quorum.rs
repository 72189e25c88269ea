//! Whether voters may stop to vote, by who answers.
//!
//! A change is an entry of the log, and counts only once a quorum of the old voters *and* one of the new have it. So
//! what would leave fewer live voters than a quorum of the new set is never committed: it would stand in the log, and
//! everything behind it would wait for those that are gone. Nothing can force that. What can be forced is the change
//! that takes out those that do not answer as well: then the new voters are the live ones that are left, of whom all
//! answer. It is Raft's own change, by a quorum of the old voters: nothing committed is lost, nobody else can lead. What it
//! costs is redundancy, and that those that were taken out must be wiped before they come back.
//!
//! | voters that answer | of those that are left | decision |
//! | --- | --- | --- |
//! | no quorum | - | `NoQuorum`: nothing can be committed |
//! | a quorum | there are none left | `NobodyLeft` |
//! | a quorum | a quorum answers | `Good` |
//! | a quorum | some answer | `WithoutTheDead`: only if it is forced, with those that do not answer |
//! | a quorum | none answers | `NoneAnswers` |

use std::collections::BTreeSet;

/// What is to be done about voters that are to stop to vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// These have to go too.
    WithoutTheDead(BTreeSet<u64>),
    NobodyLeft,
    NoneAnswers,
    NoQuorum,
}

/// Whether those who answer are a quorum of the voters.
fn is_quorum(voters: &BTreeSet<u64>, live: &BTreeSet<u64>) -> bool {
    voters.intersection(live).count() > voters.len() / 2
}

/// Decides for `voters` of whom those in `live` answer, if those in `out` are to stop.
pub(super) fn decide(voters: &BTreeSet<u64>, live: &BTreeSet<u64>, out: &BTreeSet<u64>) -> Verdict {
    if !is_quorum(voters, live) {
        return Verdict::NoQuorum;
    }
    let left: BTreeSet<u64> = voters.difference(out).copied().collect();
    if left.is_empty() {
        return Verdict::NobodyLeft;
    }
    if is_quorum(&left, live) {
        return Verdict::Good;
    }
    let dead: BTreeSet<u64> = left.difference(live).copied().collect();
    if dead.len() == left.len() { Verdict::NoneAnswers } else { Verdict::WithoutTheDead(dead) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bits: u32) -> BTreeSet<u64> {
        (0..5).filter(|bit| bits & (1 << bit) != 0).collect()
    }

    /// All sets of up to five voters, of who answers and of who goes.
    #[test]
    fn a_change_is_let_through_exactly_if_it_can_be_committed() {
        let mut seen = [0; 5];
        for (voters, live, out) in (1..32).flat_map(|v| (0..32).flat_map(move |l| (0..32).map(move |o| (v, l, o)))) {
            let (voters, live, out) = (set(voters), set(live), set(out));
            let left: BTreeSet<u64> = voters.difference(&out).copied().collect();
            let committed = |left: &BTreeSet<u64>| is_quorum(&voters, &live) && is_quorum(left, &live);
            let case = format!("{voters:?}, of whom {live:?} answer, without {out:?}");
            match decide(&voters, &live, &out) {
                Verdict::Good => {
                    assert!(committed(&left), "{case}");
                    seen[0] += 1;
                }
                Verdict::WithoutTheDead(dead) => {
                    let rest: BTreeSet<u64> = left.difference(&dead).copied().collect();
                    assert!(!committed(&left) && committed(&rest) && rest.is_subset(&live), "{case}");
                    assert!(!dead.is_empty() && dead.is_disjoint(&live) && dead.is_subset(&left), "{case}");
                    seen[1] += 1;
                }
                Verdict::NobodyLeft => {
                    assert!(left.is_empty(), "{case}");
                    seen[2] += 1;
                }
                Verdict::NoneAnswers => {
                    assert!(!left.is_empty() && left.is_disjoint(&live), "{case}");
                    seen[3] += 1;
                }
                Verdict::NoQuorum => {
                    assert!(!is_quorum(&voters, &live), "{case}");
                    seen[4] += 1;
                }
            }
        }
        assert!(seen.iter().all(|count| *count > 0), "a case was never met: {seen:?}");
    }
}
