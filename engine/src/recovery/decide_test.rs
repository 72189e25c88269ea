use super::decide::{Damage, Decision, Entries, Observed, decide};

/// Every combination of five positions out of 0..5 and the two chain findings: 5^5 * 9 cases, each against the promises
/// that recovery makes, not against the table's own words.
#[test]
fn every_observation_keeps_the_promises() {
    let mut cases = 0_u32;
    let positions = || (0..5).map(Entries);
    let findings = [None, Some(false), Some(true)];
    for checkpoint in positions() {
        for target in positions() {
            for journal_start in positions() {
                for journal_end in positions() {
                    for committed in positions() {
                        for chain_fits_checkpoint in findings {
                            for chain_fits_target in findings {
                                cases += 1;
                                check(&Observed {
                                    checkpoint,
                                    target,
                                    journal_start,
                                    journal_end,
                                    committed,
                                    chain_fits_checkpoint,
                                    chain_fits_target,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cases, 5_u32.pow(5) * 9);
}

fn check(observed: &Observed) {
    let decision = decide(observed);
    let replayable = observed.journal_start <= observed.checkpoint && observed.target <= observed.journal_end;
    let one_history = observed.chain_fits_checkpoint != Some(false) && observed.chain_fits_target != Some(false);
    let served = !matches!(decision, Decision::Damaged(_));
    assert_eq!(served, replayable && one_history && observed.checkpoint <= observed.target, "{observed:?}");
    match decision {
        Decision::Clean { commit } => {
            assert_eq!(observed.target, observed.checkpoint);
            check_commit(observed, commit);
        }
        Decision::FinishCheckpoint { target, commit } => {
            assert!(target > observed.checkpoint && target == observed.target, "{observed:?}");
            check_commit(observed, commit);
        }
        Decision::Damaged(damage) => {
            // The reason is one that is there.
            assert!(match damage {
                Damage::TargetBeforeCheckpoint => observed.target < observed.checkpoint,
                Damage::JournalStartsLate => observed.journal_start > observed.checkpoint,
                Damage::JournalEndsEarly => observed.journal_end < observed.target,
                Damage::OtherHistory => !one_history,
            });
        }
    }
}

/// Never before the target, never beyond the journal, and beyond the target only what is known committed.
fn check_commit(observed: &Observed, commit: Entries) {
    assert!(commit >= observed.target && commit <= observed.journal_end, "{observed:?}");
    assert!(commit == observed.target || commit <= observed.committed, "{observed:?}");
    assert!(commit >= observed.committed.min(observed.journal_end), "{observed:?}");
}
