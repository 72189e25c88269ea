//! Backups by real processes: made by a node, looked after without one, and restored into a directory that leads a new cluster.

mod common;
mod s3;

use std::path::{Path, PathBuf};
use std::process::Output;

use common::{Node, Process, calamus, content, run, stderr, wait_for};
use rustix::process::Signal;
use s3::{BUCKET, S3Server};
use serde_json::Value;

const DONE: Option<i32> = Some(0);
const FAILED: Option<i32> = Some(1);
const NO: Option<i32> = Some(4);

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that must succeed.
fn good(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), DONE, "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

fn good_json(arguments: &[&str]) -> Value {
    let told = good(&[arguments, &["--json"]].concat());
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {told}"))
}

/// A folder of a test, with a configuration that names one target in it.
struct Bed {
    temp: tempfile::TempDir,
    config: PathBuf,
    place: String,
}

impl Bed {
    fn new() -> Bed {
        let temp = tempfile::tempdir().unwrap();
        let place = format!("file://{}", text(&temp.path().join("backups")));
        let config = temp.path().join("node.toml");
        std::fs::write(&config, format!("[backup.targets.near]\nurl = \"{place}\"\n")).unwrap();
        Bed { temp, config, place }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn bootstrap(&self, name: &str) -> Node {
        self.node(name, &["--bootstrap"])
    }

    fn node(&self, name: &str, more: &[&str]) -> Node {
        let flags = ["--name", name, "--listen", "127.0.0.1:0", "--config", text(&self.config)];
        Node::start(&self.dir(name), &[&flags, more].concat())
    }
}

fn put(node: &Node, key: &str, value: &str) {
    good(&["put", "t", key, value, "--endpoints", &node.address]);
}

fn scan(node: &Node) -> String {
    good(&["scan", "t", "--endpoints", &node.address])
}

fn backup(node: &Node, kind: &str) -> Value {
    good_json(&["backup", kind, "--target", "near", "--node", &node.address])
}

/// The newest backup of a list.
fn newest(listed: &Value) -> &Value {
    listed["chains"].as_array().and_then(|chains| chains.last()?.as_array()?.last()).expect("there is a backup")
}

fn voters(node: &Node) -> usize {
    let output = run(&["cluster", "status", "--json", "--endpoints", &node.address]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().filter(|node| node["voter"] == true && node["unreachable"] == false).count()
}

#[test]
fn what_was_backed_up_is_restored_as_a_cluster_that_others_join() {
    let bed = Bed::new();
    let mut old = bed.bootstrap("n1");
    put(&old, "first", "of the full one");
    let full = backup(&old, "full");
    assert_eq!((full["backup"]["kind"].as_str(), full["backup"]["end_txn"].as_u64()), (Some("full"), Some(1)));
    put(&old, "second", "of the increment");
    let between = scan(&old);
    let increment = backup(&old, "incremental");
    assert_eq!(increment["backup"]["parent"], full["backup"]["id"]);
    assert_eq!(backup(&old, "incremental")["backup"], Value::Null, "nothing was committed since");
    put(&old, "third", "of none");

    let listed = good_json(&["backup", "list", "--at", &bed.place]);
    assert_eq!(listed["chains"][0].as_array().map(Vec::len), Some(2), "{listed}");
    assert!(good(&["backup", "list", "--at", &bed.place]).contains(full["backup"]["id"].as_str().unwrap()));
    assert!(good(&["backup", "verify", "--at", &bed.place, "--deep"]).contains("sound"));

    let [to_end, to_first] = ["end", "first"].map(|name| bed.dir(name));
    let made = good_json(&["restore", "--from", &bed.place, "--to", text(&to_end), "--name", "r1"]);
    assert_eq!(made["txn_id"], 2);
    let to_txn_1 = ["restore", "--from", &bed.place, "--to", text(&to_first), "--to-txn", "1"];
    assert!(good(&to_txn_1).contains("serve --dir"));
    assert!(good(&["check", text(&to_end)]).contains("clean"));

    // The old cluster goes on beside the new one; they have nothing to do with each other.
    let restored = Node::start(&to_end, &["--config", text(&bed.config)]);
    assert_eq!(scan(&restored), between);
    put(&restored, "fourth", "of the new cluster");
    put(&old, "fourth", "of the old cluster");
    let joined = Node::start(&bed.dir("r2"), &["--name", "r2", "--listen", "127.0.0.1:0", "--join", &restored.address]);
    wait_for("the other is a voter", || (voters(&restored) == 2).then_some(()));
    assert_eq!(scan(&joined), scan(&restored));
    assert!(scan(&joined).contains("of the new cluster") && !scan(&joined).contains("of the old cluster"));
    let first = Node::start(&to_first, &[]);
    assert!(scan(&first).contains("first") && !scan(&first).contains("second"));

    // What the new cluster would add to the old one's backups is refused, and changes nothing there.
    let before = content(&bed.dir("backups"));
    let mixed = run(&["backup", "incremental", "--target", "near", "--node", &restored.address]);
    assert_eq!(mixed.status.code(), FAILED);
    assert!(stderr(&mixed).contains("of its own"), "{}", stderr(&mixed));
    assert!(content(&bed.dir("backups")) == before);
    put(&old, "fifth", "of the old cluster");
    assert_eq!(old.process.end(Signal::TERM).code(), DONE);
}

#[test]
fn a_restore_replaces_only_what_it_is_told_to_and_only_by_what_is_sound() {
    let bed = Bed::new();
    let mut node = bed.bootstrap("n1");
    put(&node, "a", "backed up");
    backup(&node, "full");
    put(&node, "a", "newer");
    let dir = bed.dir("n1");
    let restore = |more: &[&str]| run(&[&["restore", "--from", &bed.place, "--to", text(&dir)], more].concat());
    let runs = restore(&["--replace"]);
    assert_eq!(runs.status.code(), FAILED);
    assert!(stderr(&runs).contains("stop the node"), "{}", stderr(&runs));
    assert_eq!(node.process.end(Signal::TERM).code(), DONE);

    let before = content(&dir);
    let refused = restore(&[]);
    assert!(refused.status.code() == FAILED && stderr(&refused).contains("--replace"), "{}", stderr(&refused));
    for (point, why) in [(["--to-txn", "99"], "txn 99"), (["--to-time", "1999-01-01T00:00:00Z"], "begins with")] {
        let refused = restore(&[&point[..], &["--replace"]].concat());
        assert!(refused.status.code() == FAILED && stderr(&refused).contains(why), "{}", stderr(&refused));
    }
    let part = content(&bed.dir("backups")).into_iter().find(|(path, _)| text(path).ends_with("part-000001"));
    let (part, sound) = part.expect("a full backup has a part");
    let mut rotten = sound.clone();
    *rotten.last_mut().unwrap() ^= 1;
    std::fs::write(&part, &rotten).unwrap();
    let refused = restore(&["--replace"]);
    assert!(refused.status.code() == NO && stderr(&refused).contains("part-000001"), "{}", stderr(&refused));
    let verified = run(&["backup", "verify", "--at", &bed.place]);
    assert!(verified.status.code() == NO && stdout(&verified).contains("part-000001"), "{}", stdout(&verified));
    let mut after = content(&dir);
    after.retain(|(path, _)| !path.ends_with("restoring"));
    assert!(after == before, "whatever was refused has changed nothing, but for the mark that one was begun");

    std::fs::write(&part, &sound).unwrap();
    // A first start that was cut off must not lead the restored node into the old cluster.
    let first_start =
        r#"{"name": "n1", "listen": "127.0.0.1:1", "advertise": "127.0.0.1:1", "how": {"join": "127.0.0.1:1"}}"#;
    std::fs::write(dir.join("first-start"), first_start).unwrap();
    let restored = restore(&["--replace"]);
    assert_eq!(restored.status.code(), DONE, "{}", stderr(&restored));
    let node = Node::start(&dir, &[]);
    assert!(scan(&node).contains("backed up"));
}

#[test]
fn chains_expire_and_a_dry_run_removes_nothing() {
    let bed = Bed::new();
    let node = bed.bootstrap("n1");
    for round in ["1", "2", "3"] {
        put(&node, "a", round);
        backup(&node, "full");
    }
    let before = content(&bed.dir("backups"));
    let expire = ["backup", "expire", "--at", &bed.place, "--keep-chains", "2"];
    let would = good_json(&[&expire[..], &["--dry-run"]].concat());
    assert!(content(&bed.dir("backups")) == before);
    let did = good_json(&expire);
    assert_eq!((&would["removed"], did["removed"].as_array().map(Vec::len)), (&did["removed"], Some(1)));
    assert_eq!(good_json(&["backup", "list", "--at", &bed.place])["chains"].as_array().map(Vec::len), Some(2));
    assert_eq!(run(&["backup", "expire", "--at", &bed.place]).status.code(), Some(2), "no bound, no removal");
    assert!(good(&["backup", "expire", "--at", &bed.place, "--keep-days", "0"]).contains("1 chains stay"));
    assert!(good(&["backup", "verify", "--at", &bed.place]).contains("sound"));
}

#[test]
fn a_follower_makes_backups_and_what_is_asked_wrongly_is_refused() {
    let bed = Bed::new();
    let leader = bed.bootstrap("n1");
    let follower = bed.node("n2", &["--join", &leader.address]);
    wait_for("both vote", || (voters(&leader) == 2).then_some(()));
    put(&leader, "a", "b");
    let written = scan(&leader);
    assert_eq!(scan(&follower), written, "a linearizable read: the follower has it");
    backup(&follower, "full");
    let status = good_json(&["backup", "status", "--node", &follower.address]);
    assert_eq!((&status["node"], &status["targets"][0]["newest"]["end_txn"]), (&"n2".into(), &1.into()), "{status}");
    assert_eq!((&status["running"], &status["last"]["error"]), (&Value::Null, &Value::Null), "{status}");
    assert!(good(&["backup", "status", "--node", &leader.address]).contains("nothing runs"));
    let of_place = good_json(&["backup", "list", "--at", &bed.place]);
    assert_eq!(good_json(&["backup", "list", "--target", "near", "--node", &leader.address]), of_place);

    let asked = run(&["backup", "full", "--target", "far", "--node", &leader.address]);
    assert!(asked.status.code() == FAILED && stderr(&asked).contains("it has near"), "{}", stderr(&asked));
    let elsewhere = run(&["backup", "list", "--at", "ftp://elsewhere/a"]);
    assert!(elsewhere.status.code() == Some(2) && stderr(&elsewhere).contains("s3://BUCKET"), "{}", stderr(&elsewhere));
    let restored = bed.dir("r1");
    good(&["restore", "--from", &bed.place, "--to", text(&restored)]);
    assert_eq!(scan(&Node::start(&restored, &[])), written);
}

#[test]
fn a_run_that_follows_archives_what_is_committed_and_ends_with_its_client() {
    let bed = Bed::new();
    let node = bed.bootstrap("n1");
    put(&node, "a", "1");
    let line = ["backup", "follow", "--target", "near", "--node", &node.address, "--every", "1", "--json"];
    let mut client = Process::start(&line, &bed.dir("follow.log"));
    client.line("the full one that it begins with", |line| line.contains("\"full\"").then_some(()));
    put(&node, "b", "2");
    let saved = |client: &mut Process, txn: u64| {
        client.line("an archived txn", |line| {
            let saved: Value = serde_json::from_str(line).ok()?;
            (saved["saved_txn"].as_u64()? >= txn).then_some(())
        });
    };
    saved(&mut client, 2);
    let second = run(&["backup", "full", "--target", "near", "--node", &node.address]);
    assert!(second.status.code() == FAILED && stderr(&second).contains("one runs at a time"), "{}", stderr(&second));
    put(&node, "c", "3");
    saved(&mut client, 3);
    client.end(Signal::KILL);
    let status = || good_json(&["backup", "status", "--node", &node.address]);
    wait_for("the run has ended with its client", || status()["running"].is_null().then_some(()));
    let listed = good_json(&["backup", "list", "--at", &bed.place]);
    assert_eq!((&newest(&listed)["end_txn"], &newest(&listed)["sealed"]), (&3.into(), &true.into()), "{listed}");
    let restored = bed.dir("r1");
    good(&["restore", "--from", &bed.place, "--to", text(&restored), "--to-txn", "2"]);
    let restored = scan(&Node::start(&restored, &[]));
    assert!(restored.contains('b') && !restored.contains('c'), "{restored}");
}

#[test]
fn a_full_backup_whose_client_goes_away_stops_and_goes_on_with_the_next() {
    let bed = Bed::new();
    let node = bed.bootstrap("n1");
    for number in 0..40 {
        put(&node, &format!("k{number}"), &format!("{number}{}", "v".repeat(100_000)));
    }
    let status = || good_json(&["backup", "status", "--node", &node.address]);
    let line = ["backup", "full", "--target", "near", "--node", &node.address, "--limit-mib-s", "1"];
    let mut client = Process::start(&line, &bed.dir("full.log"));
    wait_for("it is under way", || status()["running"]["done_bytes"].as_u64().filter(|done| *done > 0));
    client.end(Signal::KILL);
    let stopped =
        wait_for("the run has ended with its client", || Some(status()).filter(|now| now["running"].is_null()));
    assert!(stopped["last"]["error"].as_str().is_some_and(|why| why.contains("was stopped")), "{stopped}");
    let listed = good_json(&["backup", "list", "--at", &bed.place]);
    assert_eq!(
        (listed["chains"].as_array().map(Vec::len), listed["leftovers"].as_array().map(Vec::len)),
        (Some(0), Some(1))
    );
    let id = listed["leftovers"][0]["id"].clone();
    let done = backup(&node, "full");
    assert_eq!((&done["resumed"], &done["backup"]["id"]), (&true.into(), &id), "{done}");
    assert!(good(&["backup", "verify", "--at", &bed.place, "--deep"]).contains("sound"));
}

#[test]
fn a_node_that_ends_saves_what_its_backup_has_read() {
    let bed = Bed::new();
    let mut node = bed.bootstrap("n1");
    put(&node, "a", "1");
    let line = ["backup", "follow", "--target", "near", "--node", &node.address, "--every", "3600", "--json"];
    let mut client = Process::start(&line, &bed.dir("follow.log"));
    client.line("the full one that it begins with", |line| line.contains("\"full\"").then_some(()));
    put(&node, "b", "2");
    // Nothing is due for an hour; the end saves what was committed before it all the same.
    assert_eq!(node.process.end(Signal::TERM).code(), DONE);
    client.wait();
    let listed = good_json(&["backup", "list", "--at", &bed.place]);
    assert_eq!(newest(&listed)["end_txn"], 2, "{listed}");
    assert!(good(&["backup", "verify", "--at", &bed.place]).contains("sound"));
}

#[test]
fn a_bucket_is_a_target_and_a_place_to_restore_from() {
    let server = S3Server::start(7);
    let temp = tempfile::tempdir().unwrap();
    let place = format!("s3://{BUCKET}/calamus/eu-1");
    let config = temp.path().join("node.toml");
    std::fs::write(&config, format!("[backup.targets.near]\nurl = \"{place}\"\n")).unwrap();
    let with_bucket = |arguments: &[&str]| {
        let output = calamus(arguments).envs(server.environment()).output().unwrap();
        assert_eq!(output.status.code(), DONE, "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        stdout(&output)
    };
    let dir = temp.path().join("n1");
    let flags = ["serve", "--name", "n1", "--listen", "127.0.0.1:0", "--bootstrap", "--config", text(&config)];
    let arguments = [&flags[..], &["--dir", text(&dir)]].concat();
    let mut process = Process::start_with(&arguments, &temp.path().join("n1.log"), &server.environment());
    let address = process.line("its address", |line| line.split_once(" listens on ").map(|(_, at)| at.to_owned()));
    let mut node = Node { process, address };
    node.ready();
    put(&node, "a", "1");
    server.go_wrong(10);
    for (kind, value) in [("full", "2"), ("incremental", "3")] {
        put(&node, "a", value);
        wait_for("a backup gets through", || {
            let output = run(&["backup", kind, "--target", "near", "--node", &node.address]);
            (output.status.code() == DONE).then_some(())
        });
    }
    let written = scan(&node);
    server.go_wrong(0);
    assert!(with_bucket(&["backup", "verify", "--at", &place, "--deep"]).contains("sound"));
    let restored = temp.path().join("r1");
    with_bucket(&["restore", "--from", &place, "--to", text(&restored)]);
    assert_eq!(scan(&Node::start(&restored, &[])), written);
}
