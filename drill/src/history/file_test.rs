use super::file::{AnyHistory, ReadHistoryError, read, write};
use super::*;

const HEADER: &str = "{\"calamus_history\":1,\"kind\":\"keys\"}\n";

fn keys() -> KeyHistory {
    let recorder = Recorder::new(Clock::new());
    let call = |action| KeyCall { key: Key(7), action };
    let invoke = |action| recorder.invoke(ClientId(3), call(action));
    invoke(KeyAction::Write(Value(u64::MAX))).complete(Outcome::Ok(KeyResult::Done));
    invoke(KeyAction::Read).complete(Outcome::Ok(KeyResult::Value(None)));
    invoke(KeyAction::Cas { expected: None, new: Value(1) }).complete(Outcome::Ok(KeyResult::Swapped(false)));
    invoke(KeyAction::Delete).complete(Outcome::Failed);
    drop(invoke(KeyAction::Cas { expected: Some(Value(2)), new: Value(1) }));
    recorder.history()
}

fn transactions() -> TransactionHistory {
    let recorder = Recorder::new(Clock::new());
    let steps = vec![Step::Append(Key(1), Element(5)), Step::Read(Key(1)), Step::Read(Key(2))];
    let lists = vec![vec![Element(5)], vec![]];
    let invoke = || recorder.invoke(ClientId(1), TransactionCall { steps: steps.clone() });
    invoke().complete(Outcome::Ok(TransactionResult { txn_id: Some(TxnId(9)), lists: lists.clone() }));
    invoke().complete(Outcome::Ok(TransactionResult { txn_id: None, lists }));
    invoke().complete(Outcome::Unknown);
    recorder.history()
}

#[test]
fn a_history_of_either_kind_is_read_back_as_it_was() {
    let history = keys();
    let mut file = Vec::new();
    write(&history, &mut file).expect("memory takes all");
    assert!(file.starts_with(HEADER.as_bytes()));
    assert_eq!(read(&file[..]).expect("it was just written"), AnyHistory::Keys(history));

    let history = transactions();
    let mut file = Vec::new();
    write(&history, &mut file).expect("memory takes all");
    assert_eq!(read(&file[..]).expect("it was just written"), AnyHistory::Transactions(history));
}

#[test]
fn a_line_is_written_as_the_documentation_says() {
    let documented = "{\"client\":3,\"invoked\":1200,\"ended\":1900,\"call\":{\"key\":7,\"action\":{\"write\":41}},\
                      \"outcome\":{\"ok\":\"done\"}}\n\
                      {\"client\":1,\"invoked\":2000,\"ended\":null,\"call\":{\"key\":7,\"action\":\"delete\"},\
                      \"outcome\":\"unknown\"}\n";
    let text = format!("{HEADER}{documented}");
    let AnyHistory::Keys(history) = read(text.as_bytes()).expect("it is as documented") else { panic!("kind") };
    let mut again = Vec::new();
    write(&history, &mut again).expect("memory takes all");
    assert_eq!(String::from_utf8(again).expect("JSON is text"), text);
}

#[test]
fn what_is_not_a_history_is_refused_with_its_line() {
    let good = "{\"client\":1,\"invoked\":10,\"ended\":20,\"call\":{\"key\":1,\"action\":\"read\"},\"outcome\":{\"ok\":{\"value\":null}}}\n";
    let refusal = |text: String| read(text.as_bytes()).expect_err("it is not a history");
    assert!(matches!(refusal(String::new()), ReadHistoryError::Header { .. }));
    assert!(matches!(refusal(good.to_string()), ReadHistoryError::Header { .. }));
    assert!(matches!(refusal(HEADER.replace('1', "2")), ReadHistoryError::Header { .. }));
    assert!(matches!(refusal(HEADER.replace("keys", "locks")), ReadHistoryError::Header { .. }));
    assert!(matches!(refusal(format!("{HEADER}{good}\n")), ReadHistoryError::Syntax { line: 3, .. }));
    assert!(matches!(refusal(format!("{HEADER}{}", &good[..30])), ReadHistoryError::Syntax { line: 2, .. }));
    assert!(matches!(refusal(format!("{HEADER}{good}{good}")), ReadHistoryError::SameMoment { line: 3, .. }));
    let malformed = |from: &str, to: &str| refusal(format!("{HEADER}{}", good.replace(from, to)));
    for (from, to) in [("20", "9"), ("20", "null"), ("{\"value\":null}", "\"done\"")] {
        assert!(matches!(malformed(from, to), ReadHistoryError::Malformed { line: 2, .. }), "{from} -> {to}");
    }
}
