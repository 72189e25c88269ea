//! The data commands against a node over a plain map.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use clap::Parser;
use serde_json::Value;

use super::fake_test::{End, Fake};
use super::*;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: DataCommand,
}

fn parse(line: &[&str]) -> Result<DataCommand, clap::Error> {
    Line::try_parse_from([&["calamus"], line].concat()).map(|line| line.command)
}

async fn run(fake: &Fake, line: &[&str]) -> Result<Exit, Failure> {
    match parse(&[line, &["--endpoints", &fake.address, "--json"]].concat()).unwrap() {
        DataCommand::Get(args) => get::run(args).await,
        DataCommand::Put(args) => put::run(args).await,
        DataCommand::Del(args) => del::run(args).await,
        DataCommand::Scan(args) => scan::run(args).await,
        DataCommand::Txn(args) => txn::run(args).await,
        DataCommand::Load(args) => load::run(args).await,
        DataCommand::Session(args) => session::close::run(args).await,
    }
}

fn exit(result: Result<Exit, Failure>) -> Exit {
    result.unwrap_or_else(|failure| failure.exit)
}

#[tokio::test]
async fn values_go_in_and_come_back_and_the_exit_code_says_how() {
    let fake = Fake::start().await;
    assert_eq!(exit(run(&fake, &["get", "t", "k"]).await), Exit::No);
    assert_eq!(exit(run(&fake, &["put", "t", "k", "-v"]).await), Exit::Done);
    assert_eq!(exit(run(&fake, &["put", "t", "00ff", "ff00", "--hex"]).await), Exit::Done);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("value");
    fs::write(&file, [0, 1, 255]).unwrap();
    assert_eq!(exit(run(&fake, &["put", "t", "file", "--value-file", file.to_str().unwrap()]).await), Exit::Done);
    let values: Vec<Vec<u8>> = fake.state.lock().unwrap().map.values().map(|(value, _)| value.to_vec()).collect();
    assert_eq!(values, [vec![255, 0], vec![0, 1, 255], b"-v".to_vec()]);
    assert_eq!(exit(run(&fake, &["get", "t", "k"]).await), Exit::Done);
    assert_eq!(exit(run(&fake, &["del", "t", "k"]).await), Exit::Done);
    assert_eq!(exit(run(&fake, &["del", "t", "k"]).await), Exit::No);
    assert_eq!(exit(run(&fake, &["get", "t", "0g", "--hex"]).await), Exit::Usage);
    assert_eq!(exit(run(&fake, &["put", "t", "k", "--value-file", "/no/such"]).await), Exit::Failed);
}

#[tokio::test]
async fn not_committed_and_unknown_have_exit_codes_of_their_own_and_unknown_is_not_repeated() {
    let fake = Fake::start().await;
    fake.state.lock().unwrap().ends.push_back(Some(End::Refused { retryable: false }));
    assert_eq!(exit(run(&fake, &["put", "t", "k", "v"]).await), Exit::Failed);
    fake.state.lock().unwrap().ends.push_back(Some(End::UnknownButDone));
    let failure = run(&fake, &["put", "t", "k", "v"]).await.unwrap_err();
    assert!(failure.exit == Exit::Unknown && failure.to_string().contains("read before you try again"), "{failure}");
    assert_eq!(fake.state.lock().unwrap().txns, 2);
}

#[tokio::test]
async fn guards_that_fail_after_an_unknown_attempt_are_no_answer() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("txn.json");
    let text = r#"{"guards": [{"tree": "t", "key": "k", "exists": false}],
                   "operations": [{"put": {"tree": "t", "key": "k", "value": "v"}}]}"#;
    fs::write(&path, text).unwrap();
    // The first attempt is committed and says that it does not know; the second finds what it wrote.
    fake.state.lock().unwrap().ends.push_back(Some(End::UnknownButDone));
    let failure = run(&fake, &["txn", path.to_str().unwrap(), "--idempotent"]).await.unwrap_err();
    assert!(failure.exit == Exit::Unknown && failure.to_string().contains("earlier attempt"), "{failure}");
    assert_eq!(fake.state.lock().unwrap().txns, 2);
}

#[test]
fn malformed_lines_are_refused() {
    let bad: [&[&str]; 8] = [
        &["get", "t"],
        &["put", "t", "k"],
        &["put", "t", "k", "v", "--value-file", "f"],
        &["del", "t"],
        &["del", "t", "k", "--prefix", "p"],
        &["scan", "t", "--prefix", "p", "--from", "a"],
        &["load", "f", "--tree", "t", "--key", "id", "--batch", "0"],
        &["get", "t", "k", "--timeout", "0"],
    ];
    for line in bad {
        assert!(parse(line).is_err(), "{line:?}");
    }
}

#[tokio::test]
async fn a_scan_has_a_line_for_each_entry() {
    let fake = Fake::start().await;
    for (key, value) in [("a1", "00"), ("a2", "6869"), ("b", "ff")] {
        run(&fake, &["put", "t", &bytes::to_hex(key.as_bytes()), value, "--hex"]).await.unwrap();
    }
    let DataCommand::Scan(args) = parse(&["scan", "t", "--endpoints", &fake.address]).unwrap() else { panic!() };
    let client = args_client(&fake).await;
    let mut out = Vec::new();
    assert_eq!(scan::scan(&client, &args, calamus_client::range::all(), &mut out).await.unwrap(), 3);
    assert_eq!(String::from_utf8(out).unwrap(), "a1\t\\x00\na2\thi\nb\t\\xff\n");
    let DataCommand::Scan(args) = parse(&["scan", "t", "--json"]).unwrap() else { panic!() };
    let mut out = Vec::new();
    scan::scan(&client, &args, calamus_client::range::prefix("a2"), &mut out).await.unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "{\"key\":\"a2\",\"value\":\"hi\",\"version\":2}\n");
}

async fn args_client(fake: &Fake) -> Client {
    Client::connect([fake.address.clone()], Options::default()).await.unwrap()
}

#[tokio::test]
async fn a_transaction_from_json_runs_and_says_whether_its_guards_held() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("txn.json");
    let text = r#"{"guards": [{"tree": "t", "key": "k", "exists": false}],
                   "operations": [{"put": {"tree": "t", "key": "k", "value_hex": "ff"}}],
                   "otherwise": [{"get": {"tree": "t", "key": "k"}}]}"#;
    fs::write(&path, text).unwrap();
    let line = ["txn", path.to_str().unwrap()];
    assert_eq!(exit(run(&fake, &line).await), Exit::Done);
    assert_eq!(exit(run(&fake, &line).await), Exit::No);
    let txn = txn::parse("x", text.as_bytes()).unwrap();
    let done = args_client(&fake).await.txn(txn).await.unwrap();
    let answer = txn_json::answer(&done, false).to_string();
    assert!(answer.contains(r#""results":[{"get":{"key":"k","value_hex":"ff","version":1}}]"#), "{answer}");
}

#[test]
fn every_form_of_a_transaction_is_understood_and_bad_ones_are_named() {
    let whole = r#"{"guards": [{"tree":"t","key":"k","value":"v"}, {"tree":"t","key_hex":"00","version":{"less":3}}],
        "operations": [{"put":{"tree":"t","key":"k","value":"v","tree_must_exist":true}}, {"delete":{"tree":"t","key":"k"}},
        {"delete_range":{"tree":"t","prefix":"p"}}, {"get":{"tree":"t","key":"k"}},
        {"scan":{"tree":"t","start":"a","end":"b","limit":3,"reverse":true}}, {"add":{"tree":"t","key":"k","amount":-1}},
        {"put_next":{"tree":"t","prefix":"p","value":"v"}}, {"create_tree":{"tree":"t"}}, {"drop_tree":{"tree":"t"}},
        {"rename_tree":{"tree":"t","new_name":"u"}}]}"#;
    txn::parse("x", whole.as_bytes()).unwrap();
    let bad = [
        ("{", "EOF"),
        (r#"{"operation":[]}"#, "operation"),
        (r#"{"guards":[{"tree":"t","key":"k"}]}"#, "guards[0]"),
        (r#"{"guards":[{"tree":"t","key":"k","exists":true,"value":"v"}]}"#, "exactly one"),
        (r#"{"operations":[{"put":{"tree":"t","key":"k"}}]}"#, "operations[0]: `value`"),
        (r#"{"operations":[{"put":{"tree":"t","key":"k","key_hex":"00","value":""}}]}"#, "exclude"),
        (r#"{"otherwise":[{"get":{"tree":"t","key_hex":"0"}}]}"#, "otherwise[0]: `key_hex`"),
        (r#"{"operations":[{"get":{"tree":"t","key":"k","value":"v"}}]}"#, "`get` takes no `value`"),
        (r#"{"operations":[{"scan":{"tree":"t","prefix":"p","end":"b"}}]}"#, "`prefix` excludes"),
        (r#"{"operations":[{"fly":{"tree":"t"}}]}"#, "fly"),
    ];
    for (text, named) in bad {
        let failure = txn::parse("x.json", text.as_bytes()).unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.to_string().contains(named), "{text}: {failure}");
    }
}

fn documents(path: &Path, count: usize) {
    let lines: String = (0..count).map(|n| format!("{{\"id\":\"k{n:05}\",\"n\":{n}}}\n")).collect();
    fs::write(path, lines).unwrap();
}

fn acknowledged(path: &Path) -> BTreeSet<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// The summary of the load that a command line describes.
async fn load(fake: &Fake, dir: &Path, more: &[&str]) -> Result<Exit, Failure> {
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (input, position, acknowledged) = (file("in"), file("position"), file("acknowledged"));
    let line = ["load", &input, "--tree", "t", "--key", "id", "--position", &position, "--acknowledged", &acknowledged];
    run(fake, &[&line[..], more].concat()).await
}

#[tokio::test]
async fn a_load_resolves_what_is_unknown_and_tries_again_what_was_refused_for_now() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    documents(&dir.path().join("in"), 1000);
    let ends = [Some(End::UnknownButDone), None, Some(End::Refused { retryable: true }), Some(End::UnknownAndNotDone)];
    fake.state.lock().unwrap().ends.extend(ends.iter().cycle().take(24));
    assert_eq!(load(&fake, dir.path(), &["--batch", "10", "--clients", "4"]).await.unwrap(), Exit::Done);
    let state = fake.state.lock().unwrap();
    assert_eq!(state.map.len(), 1000);
    assert_eq!(state.map[&("t".to_owned(), "k00007".into())].0, "{\"id\":\"k00007\",\"n\":7}");
    assert_eq!(state.txns, 100 + 18, "each failure is one more transaction");
    assert_eq!(acknowledged(&dir.path().join("acknowledged")).len(), 1000);
}

#[tokio::test]
async fn a_load_that_was_stopped_goes_on_where_all_before_is_acknowledged() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    documents(&dir.path().join("in"), 500);
    fake.state.lock().unwrap().refuse_after = Some(17);
    let failure = load(&fake, dir.path(), &["--batch", "10", "--clients", "3"]).await.unwrap_err();
    assert!(failure.exit == Exit::Failed && failure.to_string().contains("170 documents"), "{failure}");
    let keys = acknowledged(&dir.path().join("acknowledged"));
    assert_eq!(keys.len(), 170);
    assert!(keys.iter().all(|key| fake.state.lock().unwrap().map.contains_key(&("t".to_owned(), key.clone().into()))));
    let position: Value = serde_json::from_slice(&fs::read(dir.path().join("position")).unwrap()).unwrap();
    let lines = position["lines"].as_u64().unwrap();
    assert!(lines <= 170 && (0..lines).all(|n| keys.contains(&format!("k{n:05}"))), "{position}");
    fake.state.lock().unwrap().refuse_after = None;
    let before = fake.state.lock().unwrap().txns;
    assert_eq!(load(&fake, dir.path(), &["--batch", "10", "--clients", "3"]).await.unwrap(), Exit::Done);
    assert_eq!(fake.state.lock().unwrap().txns - before, (500 - lines) / 10, "what is acknowledged is not sent again");
    assert_eq!(fake.state.lock().unwrap().map.len(), 500);
    // Nothing is left to do.
    assert_eq!(load(&fake, dir.path(), &[]).await.unwrap(), Exit::Done);
    // Another file under the same name is another load.
    documents(&dir.path().join("in"), 501);
    let failure = load(&fake, dir.path(), &[]).await.unwrap_err().to_string();
    assert!(failure.contains("size"), "{failure}");
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_of_its_batch_is_sent() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    documents(&input, 50);
    let text = fs::read_to_string(&input).unwrap().replace("\"id\":\"k00034\"", "\"ID\":\"k00034\"");
    fs::write(&input, text).unwrap();
    let failure = load(&fake, dir.path(), &["--batch", "10"]).await.unwrap_err();
    assert!(failure.to_string().contains("line 35: there is no field `id`"), "{failure}");
    let keys: Vec<_> = fake.state.lock().unwrap().map.keys().map(|(_, key)| key.clone()).collect();
    assert_eq!((keys.len(), &keys[29][..]), (30, &b"k00029"[..]));
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_ends_the_load_as_unknown() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    documents(&dir.path().join("in"), 10);
    fake.state.lock().unwrap().ends.extend(vec![Some(End::UnknownAndNotDone); 100_000]);
    let failure = load(&fake, dir.path(), &["--give-up", "1"]).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unknown, "{failure}");
}

#[tokio::test]
async fn an_input_that_cannot_be_read_is_named() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let failure = load(&fake, dir.path(), &[]).await.unwrap_err();
    assert!(failure.to_string().contains("/in"), "{failure}");
    let folder = dir.path().to_str().unwrap();
    let failure = run(&fake, &["load", folder, "--tree", "t", "--key", "id"]).await.unwrap_err();
    assert!(failure.to_string().contains("regular file"), "{failure}");
    File::create(dir.path().join("in")).unwrap();
    assert_eq!(load(&fake, dir.path(), &[]).await.unwrap(), Exit::Done);
}

#[test]
fn a_transaction_to_wait_for_is_for_local_reads() {
    for command in [&["get", "t", "k"][..], &["scan", "t"]] {
        let with = |flags: &[&str]| parse(&[command, flags].concat()).is_ok();
        assert!(
            with(&["--local", "--at-least-txn", "7"]) && with(&["--local", "--at-least-txn", "7", "--timeline", "1"])
        );
        assert!(!with(&["--at-least-txn", "7"]), "a linearizable read shows it anyway");
        assert!(!with(&["--local", "--timeline", "1"]) && !with(&["--local", "--at-least-txn", "x"]));
    }
}
