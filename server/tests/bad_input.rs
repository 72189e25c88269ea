//! What a malformed command line, a wrong directory or a taken port gets: an error that names it and says what to do,
//! the documented exit code, and nothing changed.

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use common::{Node, content, run, stderr};
use rustix::process::Signal;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// Runs the binary; its exit code must be `code` and its stderr hold every one of `words`.
#[track_caller]
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = run(arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?} does not say `{word}`: {text}");
    }
    assert!(!text.contains("panicked"), "{arguments:?}: {text}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

#[test]
fn malformed_command_lines() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("n1");
    let dir = text(&dir);
    let long_name = "x".repeat(65);
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["Usage"]),
        (&["srve"], &["srve"]),
        (&["serve"], &["--dir"]),
        (&["serve", "--dir", dir, "--listen", "7001"], &["--listen", "HOST:PORT", "127.0.0.1:7001"]),
        (&["serve", "--dir", dir, "--listen", "h:99999"], &["--listen", "65535"]),
        (&["serve", "--dir", dir, "--advertise", ":1"], &["--advertise", "host is empty"]),
        (&["serve", "--dir", dir, "--join", "http://a:1"], &["--join", "HOST:PORT"]),
        (&["serve", "--dir", dir, "--name", "a/b"], &["--name", "letters"]),
        (&["serve", "--dir", dir, "--name", &long_name], &["--name", "64"]),
        (&["serve", "--dir", dir, "--bootstrap", "--join", "a:1"], &["--bootstrap", "--join"]),
        (&["serve", "--dir", dir, "--workers", "0"], &["--workers"]),
        (&["serve", "--dir", dir, "--log", "=="], &["--log", "=="]),
        (&["serve", "--dir", dir, "--election-timeout-ms", "1"], &["--election-timeout-ms"]),
        (&["dev", "--nodes", "0"], &["--nodes"]),
        (&["dev", "--nodes", "10"], &["--nodes"]),
        (&["cluster"], &["status"]),
        (&["cluster", "status", "--endpoints", "x"], &["--endpoints", "HOST:PORT"]),
        (&["cluster", "add", "x"], &["ADDRESS", "HOST:PORT"]),
        (&["check"], &["DIR"]),
        (&["journal", dir, "--from", "-1"], &["-1"]),
    ];
    for (arguments, words) in cases {
        refused(arguments, USAGE, words);
    }
    assert_eq!(content(temp.path()), [], "a malformed command line leaves nothing behind");
}

#[test]
fn marks_of_free_space_that_contradict_each_other_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("n1");
    let start = ["serve", "--dir", text(&dir), "--bootstrap", "--name", "n1", "--listen", "127.0.0.1:0"];
    let marks = ["--space-low-mib", "200", "--space-high-mib", "100"];
    refused(&[&start[..], &marks[..]].concat(), FAILED, &["--space-high-mib", "100 MiB", "200 MiB", "next:"]);
    assert_eq!(content(temp.path()), [], "a start that is refused leaves nothing behind");
}

#[test]
fn a_first_start_needs_its_flags_and_makes_nothing_without_them() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("n1");
    let at = text(&dir);
    refused(&["serve", "--dir", at], FAILED, &["--bootstrap or --join", at, "first start"]);
    refused(&["serve", "--dir", at, "--bootstrap", "--listen", "127.0.0.1:0"], FAILED, &["--name is missing"]);
    refused(&["serve", "--dir", at, "--bootstrap", "--name", "n1"], FAILED, &["--listen is missing"]);
    let everywhere = ["serve", "--dir", at, "--bootstrap", "--name", "n1", "--listen", "0.0.0.0:0"];
    refused(&everywhere, FAILED, &["--advertise"]);
    let nowhere = ["serve", "--dir", at, "--bootstrap", "--name", "n1", "--listen", "no.such.host.invalid:1"];
    refused(&nowhere, FAILED, &["no.such.host.invalid"]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let join =
        ["serve", "--dir", at, "--name", "n1", "--listen", "127.0.0.1:0", "--join", &nobody, "--join-wait-s", "0"];
    refused(&join, FAILED, &[&nobody, "check the address after --join"]);
    assert!(!dir.exists(), "no directory was made");
}

#[test]
fn wrong_directories() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, "x").unwrap();
    let foreign = temp.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("holiday.jpg"), "x").unwrap();
    let before = content(temp.path());
    for (dir, words) in [(&file, "file"), (&foreign, "holiday.jpg")] {
        let start = ["serve", "--dir", text(dir), "--name", "n1", "--listen", "127.0.0.1:0", "--bootstrap"];
        refused(&start, FAILED, &[text(dir), words, "next:"]);
        refused(&["check", text(dir)], FAILED, &[text(dir), "next:"]);
        refused(&["journal", text(dir)], FAILED, &[text(dir), "next:"]);
    }
    let missing = temp.path().join("missing");
    refused(&["check", text(&missing)], FAILED, &[text(&missing)]);
    refused(&["journal", text(&missing)], FAILED, &[text(&missing)]);
    assert_eq!(content(temp.path()), before);
}

#[test]
fn a_port_in_use() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("n1");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let start = ["serve", "--dir", text(&dir), "--name", "n1", "--listen", &address, "--bootstrap"];
    refused(&start, FAILED, &[&address, "another process has port", "--listen"]);
    assert!(!dir.exists(), "no directory was made");
}

#[test]
fn nobody_at_the_endpoints() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    refused(&["cluster", "status", "--endpoints", &nobody], FAILED, &[&nobody, "--endpoints"]);
    refused(&["cluster", "remove", "n1", "--endpoints", &nobody], FAILED, &["n1", &nobody]);
}

#[test]
fn one_process_and_one_name_and_one_cluster_for_a_directory() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, other) = (temp.path().join("n1"), temp.path().join("other"));
    let mut node = Node::bootstrap(&dir, "n1");
    let mut second = Node::bootstrap(&other, "n1");

    let pid = node.process.id().to_string();
    refused(&["serve", "--dir", text(&dir)], FAILED, &[text(&dir), "another process", "pid"]);
    assert_eq!(fs::read_to_string(dir.join("pid")).unwrap().trim(), pid, "the first one's process id stands");
    refused(&["dev", "--dir", text(&dir)], FAILED, &["single node"]);
    let twin = temp.path().join("twin");
    let taken = ["serve", "--dir", text(&twin), "--name", "n1", "--listen", "127.0.0.1:0", "--join", &node.address];
    refused(&taken, FAILED, &["name n1 is taken", &node.address]);
    assert!(!twin.exists(), "no directory was made");
    assert_eq!(run(&["cluster", "status", "--endpoints", &node.address]).status.code(), Some(DONE));

    assert_eq!(node.process.end(Signal::TERM).code(), Some(DONE));
    refused(&["serve", "--dir", text(&dir), "--name", "n2"], FAILED, &["n1", "n2", "--name"]);
    let wrong = ["serve", "--dir", text(&dir), "--join", &second.address];
    refused(&wrong, FAILED, &["another cluster", &second.address, "--join"]);
    assert_eq!(second.process.end(Signal::TERM).code(), Some(DONE));
    // It is still what it was.
    let mut again = Node::start(&dir, &[]);
    assert_eq!(again.address, node.address);
    assert_eq!(again.process.end(Signal::TERM).code(), Some(DONE));
}

#[test]
fn a_damaged_directory() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("n1");
    let mut node = Node::bootstrap(&dir, "n1");
    assert_eq!(node.process.end(Signal::TERM).code(), Some(DONE));
    let meta = dir.join("node.meta");
    let good = fs::read(&meta).unwrap();
    let mut bad = good.clone();
    // One bit of every 16 bytes: both slots are damaged wherever they are.
    bad.iter_mut().step_by(16).for_each(|byte| *byte ^= 0x40);
    fs::write(&meta, &bad).unwrap();
    let before = content(&dir);
    refused(&["serve", "--dir", text(&dir)], FAILED, &["node.meta", "--join"]);
    assert_eq!(content(&dir), before, "nothing was changed");
    fs::write(&meta, &good).unwrap();
    let mut node = Node::start(&dir, &[]);
    assert_eq!(node.process.end(Signal::TERM).code(), Some(DONE));
}
