//! `--session FILE` against a node over a plain map.

use std::fs;
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

async fn run(fake: &Fake, file: &Path, line: &[&str]) -> Result<Exit, Failure> {
    let options = ["--session", file.to_str().unwrap(), "--endpoints", &fake.address, "--timeout", "0.6"];
    match Line::try_parse_from([&["calamus"], line, &options].concat()).unwrap().command {
        DataCommand::Put(args) => put::run(args).await,
        DataCommand::Del(args) => del::run(args).await,
        DataCommand::Txn(args) => txn::run(args).await,
        other => panic!("takes no session: {other:?}"),
    }
}

fn exit(result: Result<Exit, Failure>) -> Exit {
    result.unwrap_or_else(|failure| failure.exit)
}

fn content(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn unanswered(file: &Path) -> usize {
    content(file)["session"]["unanswered"].as_array().unwrap().len()
}

fn value(fake: &Fake, key: &'static str) -> Option<u64> {
    let state = fake.state.lock().unwrap();
    state.map.get(&("t".to_owned(), key.into())).map(|(_, version)| *version)
}

/// All that is sent from here on ends so, and what the client makes of it is unknown.
fn lose(fake: &Fake, end: End) {
    fake.state.lock().unwrap().ends.extend((0..200).map(|_| Some(end)));
}

fn answer_again(fake: &Fake) {
    fake.state.lock().unwrap().ends.clear();
}

#[tokio::test]
async fn a_command_that_is_run_again_after_a_lost_answer_runs_once() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("session");
    lose(&fake, End::UnknownButDone);
    let failure = run(&fake, &file, &["put", "t", "k", "v"]).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unknown);
    assert!(failure.to_string().contains("run the same command again"), "{failure}");
    assert_eq!(unanswered(&file), 1);
    let first = value(&fake, "k").expect("it ran");

    let other = run(&fake, &file, &["put", "t", "k", "other"]).await.unwrap_err();
    assert!(other.to_string().contains("another command"), "{other}");
    answer_again(&fake);
    assert_eq!(exit(run(&fake, &file, &["put", "t", "k", "v"]).await), Exit::Done);
    assert_eq!((value(&fake, "k"), unanswered(&file)), (Some(first), 0), "it did not run again");
    // It was printed: the same command is a new transaction from here on.
    assert_eq!(exit(run(&fake, &file, &["put", "t", "k", "v"]).await), Exit::Done);
    assert!(value(&fake, "k").unwrap() > first);
    assert_eq!(exit(run(&fake, &file, &["del", "t", "k"]).await), Exit::Done);
    assert_eq!(exit(run(&fake, &file, &["del", "t", "k"]).await), Exit::No);
    assert_eq!(fake.state.lock().unwrap().sessions, 1, "the session is used again");
}

#[tokio::test]
async fn an_answer_that_was_not_printed_is_printed_and_nothing_is_sent() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("session");
    lose(&fake, End::UnknownAndNotDone);
    assert_eq!(exit(run(&fake, &file, &["put", "t", "k", "v"]).await), Exit::Unknown);
    answer_again(&fake);
    // As if the process had been killed between noting the answer and printing it.
    let mut noted = content(&file);
    noted["answer"] = json!({ "text": "as noted\n", "txn_id": 5, "exit": 4 });
    fs::write(&file, noted.to_string()).unwrap();
    let before = fake.state.lock().unwrap().txns;
    assert_eq!(exit(run(&fake, &file, &["put", "t", "k", "v"]).await), Exit::No);
    assert_eq!((fake.state.lock().unwrap().txns, unanswered(&file)), (before, 0));
    assert_eq!((value(&fake, "k"), &content(&file)["answer"]), (None, &Value::Null));
}

#[tokio::test]
async fn a_session_that_expired_is_replaced_unless_something_is_unanswered() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("session");
    assert_eq!(exit(run(&fake, &file, &["put", "t", "k", "v"]).await), Exit::Done);
    fake.state.lock().unwrap().expired = 1;
    assert_eq!(exit(run(&fake, &file, &["put", "t", "k", "w"]).await), Exit::Done);
    assert_eq!(fake.state.lock().unwrap().sessions, 2);
    lose(&fake, End::UnknownAndNotDone);
    assert_eq!(exit(run(&fake, &file, &["put", "t", "k", "x"]).await), Exit::Unknown);
    answer_again(&fake);
    fake.state.lock().unwrap().expired = 2;
    let failure = run(&fake, &file, &["put", "t", "k", "x"]).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unknown);
    assert!(failure.to_string().contains("cannot be told any more"), "{failure}");
}

#[tokio::test]
async fn a_file_that_is_no_session_or_in_use_is_refused() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("session");
    for bad in ["", "{}", "{\"format\": 2, \"session\": {}, \"answer\": null}"] {
        fs::write(&file, bad).unwrap();
        let failure = run(&fake, &file, &["put", "t", "k", "v"]).await.unwrap_err();
        assert!(failure.to_string().contains("cannot be used"), "{failure}");
    }
    fs::remove_file(&file).unwrap();
    let lock = std::fs::File::create(dir.path().join("session.lock")).unwrap();
    lock.lock().unwrap();
    let failure = run(&fake, &file, &["put", "t", "k", "v"]).await.unwrap_err();
    assert!(failure.to_string().contains("another command uses it"), "{failure}");
    assert_eq!(fake.state.lock().unwrap().txns, 0);
}

async fn close(fake: &Fake, file: &Path, more: &[&str]) -> Result<Exit, Failure> {
    let line =
        ["calamus", "session", "close", file.to_str().unwrap(), "--endpoints", &fake.address, "--timeout", "0.6"];
    match Line::try_parse_from([&line, more].concat()).unwrap().command {
        DataCommand::Session(args) => session::close::run(args).await,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_is_closed_with_its_file_but_not_with_a_transaction_whose_answer_nobody_saw() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("session");
    let missing = close(&fake, &file, &[]).await.unwrap_err();
    assert!(
        missing.to_string().contains("no such file") && fs::read_dir(dir.path()).unwrap().count() == 0,
        "{missing}"
    );
    lose(&fake, End::UnknownButDone);
    assert_eq!(exit(run(&fake, &file, &["put", "t", "k", "v"]).await), Exit::Unknown);
    answer_again(&fake);
    let refused = close(&fake, &file, &[]).await.unwrap_err();
    assert!(refused.to_string().contains("was not printed"), "{refused}");
    assert_eq!((unanswered(&file), fake.state.lock().unwrap().expired), (1, 0), "nothing was changed");
    assert_eq!(exit(run(&fake, &file, &["put", "t", "k", "v"]).await), Exit::Done);
    assert_eq!(exit(close(&fake, &file, &[]).await), Exit::Done);
    assert!(!file.exists() && fake.state.lock().unwrap().expired == 1);
    // The next command opens another one; one that holds an answer is given up by name.
    lose(&fake, End::UnknownAndNotDone);
    assert_eq!(exit(run(&fake, &file, &["put", "t", "k", "w"]).await), Exit::Unknown);
    answer_again(&fake);
    assert_eq!(exit(close(&fake, &file, &["--abandon"]).await), Exit::Done);
    assert!(!file.exists() && fake.state.lock().unwrap().expired == 2);
}
