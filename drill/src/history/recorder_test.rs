use std::collections::HashSet;
use std::sync::mpsc;
use std::thread;

use super::*;

fn write(value: u64) -> KeyCall {
    KeyCall { key: Key(1), action: KeyAction::Write(Value(value)) }
}

#[test]
fn an_operation_that_nobody_completes_stays_unknown() {
    let recorder = Recorder::new(Clock::new());
    recorder.invoke(ClientId(1), write(1)).complete(Outcome::Ok(KeyResult::Done));
    drop(recorder.invoke(ClientId(1), write(2)));
    let under_way = recorder.invoke(ClientId(2), write(3));
    let history = recorder.history();
    let outcomes: Vec<_> = history.operations().iter().map(|operation| operation.outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok(KeyResult::Done), Outcome::Unknown, Outcome::Unknown]);
    under_way.complete(Outcome::Failed);
    assert_eq!(recorder.history().operations()[2].outcome, Outcome::Failed);
}

#[test]
fn moments_are_unique_however_many_threads_ask() {
    let clock = Clock::new();
    let ask = |clock: Clock| (0..20_000).map(|_| clock.now()).collect::<Vec<_>>();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn({
                let clock = clock.clone();
                move || ask(clock)
            })
        })
        .collect();
    let mut all = HashSet::new();
    for thread in threads {
        let moments = thread.join().expect("a thread that only asks does not panic");
        assert!(moments.is_sorted_by(|earlier, later| earlier < later));
        all.extend(moments);
    }
    assert_eq!(all.len(), 80_000);
}

#[test]
fn what_ended_before_another_thread_began_has_the_smaller_moment() {
    let recorder = Recorder::new(Clock::new());
    let (sender, receiver) = mpsc::sync_channel(0);
    let other = thread::spawn({
        let recorder = recorder.clone();
        move || {
            for value in receiver {
                recorder.invoke(ClientId(2), write(value)).complete(Outcome::Ok(KeyResult::Done));
            }
        }
    });
    for value in 0..1000 {
        recorder.invoke(ClientId(1), write(value)).complete(Outcome::Ok(KeyResult::Done));
        sender.send(1000 + value).expect("the other thread receives all");
    }
    drop(sender);
    other.join().expect("the other thread does not panic");
    let history = recorder.history();
    let find = |value: u64| {
        history.operations().iter().find(|operation| operation.call == write(value)).expect("each was noted")
    };
    for value in 0..1000 {
        assert!(find(value).ended.expect("it was completed") < find(1000 + value).invoked);
    }
}

#[test]
#[should_panic(expected = "the load noted a malformed operation")]
fn a_result_of_another_call_is_refused() {
    let recorder = Recorder::new(Clock::new());
    recorder.invoke(ClientId(1), write(1)).complete(Outcome::Ok(KeyResult::Swapped(true)));
}
