//! Backups by schedule, by real processes: one node makes them, a follower where there is one, and another when it is gone, also
//! when it goes in the midst of one.

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{LIMIT, Node, run, stderr, wait_for};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use serde_json::Value;

/// Between two questions that take a process each.
const LOOK: Duration = Duration::from_millis(200);

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn json(arguments: &[&str]) -> Option<Value> {
    let output = run(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).ok()
}

/// Asks for longer than [`wait_for`]: a claim that is abandoned is waited for, and then a backup that is made slowly.
fn wait_for_a_turn<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + 4 * LIMIT;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long: {what}");
        std::thread::sleep(LOOK);
    }
}

fn status(node: &Node) -> Option<Value> {
    json(&["cluster", "status", "--endpoints", &node.address])
}

fn put(node: &Node, key: &str) {
    let output = run(&["put", "t", key, "v", "--endpoints", &node.address]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// A cluster whose nodes all have the same configuration.
struct Bed {
    temp: tempfile::TempDir,
    config: PathBuf,
    place: String,
}

impl Bed {
    fn new(schedule: &str) -> Bed {
        let temp = tempfile::tempdir().unwrap();
        let place = format!("file://{}", text(&temp.path().join("backups")));
        let config = temp.path().join("node.toml");
        let bed = Bed { temp, config, place };
        bed.schedule(schedule);
        bed
    }

    /// What nodes that are started from now on are told.
    fn schedule(&self, schedule: &str) {
        std::fs::write(&self.config, format!("[backup.targets.near]\nurl = \"{}\"\n{schedule}", self.place)).unwrap();
    }

    fn node(&self, name: &str, more: &[&str]) -> Node {
        let flags = ["--name", name, "--listen", "127.0.0.1:0", "--config", text(&self.config)];
        Node::start(&self.temp.path().join(name), &[&flags, more].concat())
    }

    /// Three nodes that all vote, called n1, n2 and n3.
    fn three(&self) -> Vec<Node> {
        let first = self.node("n1", &["--bootstrap"]);
        let others = ["n2", "n3"].map(|name| self.node(name, &["--join", &first.address]));
        let mut nodes = Vec::from([first]);
        nodes.extend(others);
        wait_for("all vote", || {
            let told = status(&nodes[0])?;
            (told["nodes"].as_array()?.iter().filter(|node| node["voter"] == true).count() == 3).then_some(())
        });
        nodes
    }

    fn listed(&self) -> Value {
        json(&["backup", "list", "--at", &self.place]).expect("a place can be listed at any moment")
    }

    /// Whether a part of a backup is being written: some of it is there, and not all.
    fn part_is_under_way(&self) -> bool {
        let Ok(backups) = std::fs::read_dir(self.temp.path().join("backups")) else { return false };
        let parts =
            backups.flatten().flat_map(|backup| std::fs::read_dir(backup.path()).into_iter().flatten().flatten());
        let mut open = parts.filter(|part| part.file_name().to_string_lossy().starts_with("part-"));
        open.any(|part| {
            part.path().extension().is_some_and(|end| end == "partial")
                && part.metadata().is_ok_and(|found| found.len() > 0)
        })
    }

    /// The txn id up to which everything is in the newest chain, once that is sound and has at least this one.
    fn archived(&self, txn: u64) {
        wait_for("it is archived", || {
            let listed = json(&["backup", "list", "--at", &self.place])?;
            let newest = listed["chains"].as_array()?.last()?.as_array()?.last()?["end_txn"].as_u64()?;
            (newest >= txn).then_some(())
        });
    }
}

fn applied(node: &Node) -> u64 {
    let status = status(node).expect("it answers");
    status["nodes"].as_array().unwrap().iter().map(|node| node["applied_txn"].as_u64().unwrap_or(0)).max().unwrap()
}

#[test]
fn a_lone_node_makes_its_own_and_says_so() {
    let bed = Bed::new("incremental_every = \"1s\"\n");
    let node = bed.node("n1", &["--bootstrap"]);
    put(&node, "a");
    bed.archived(applied(&node));
    put(&node, "b");
    bed.archived(applied(&node));
    let told = wait_for("it is noted", || status(&node).filter(|told| told["backups"][0]["made_by"] == "n1"));
    assert!(told["backups"][0]["age_seconds"].as_u64().is_some_and(|age| age < 60), "{told}");
    assert!(told["backups"][0]["last_full_at"].is_u64() && told["backups"][0]["error"].is_null(), "{told}");
    let words = run(&["cluster", "status", "--endpoints", &node.address]);
    assert!(String::from_utf8_lossy(&words.stdout).contains("backups to near: the newest"), "{words:?}");
    let refused = run(&["put", "$backup", "near", "x", "--endpoints", &node.address]);
    assert!(stderr(&refused).contains("system"), "what is agreed is not the clients': {}", stderr(&refused));
    let verified = run(&["backup", "verify", "--at", &bed.place]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}

#[test]
fn a_follower_makes_them_and_another_node_when_that_is_gone() {
    let bed = Bed::new("full_every = \"1h\"\nincremental_every = \"1s\"\n");
    let mut nodes = bed.three();
    // Who led alone may have made the first ones; from now on it leaves them to the others.
    let made_by = |nodes: &[Node], not: &[&str]| -> String {
        // A node that is killed while it makes one is waited for: a minute.
        let until = Instant::now() + 3 * LIMIT;
        for number in 0.. {
            put(&nodes[0], &format!("k{number}"));
            let told = status(&nodes[0]).unwrap_or_default();
            let made_by = told["backups"][0]["made_by"].as_str().unwrap_or_default().to_owned();
            if made_by != told["leader"].as_str().unwrap_or(&made_by) && !not.contains(&made_by.as_str()) {
                return made_by;
            }
            assert!(Instant::now() < until, "no other node makes them: {told}");
        }
        unreachable!("it ends by the limit")
    };
    let maker = made_by(&nodes, &[]);
    let place = ["n1", "n2", "n3"].iter().position(|name| *name == maker).expect("a member");
    let mut gone = nodes.remove(place);
    gone.process.end(Signal::KILL);
    // The other follower, whoever leads now.
    let next = made_by(&nodes, &[&maker]);
    assert_ne!(next, maker);
    put(&nodes[0], "last");
    bed.archived(applied(&nodes[0]));
    let verified = run(&["backup", "verify", "--at", &bed.place, "--deep"]);
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// The documents of the test below: with the bound of its schedule a backup of them takes this many seconds.
const MIB: usize = 16;

/// The node that makes the backup is killed while a part of it is half written. Nobody can tell, so its claim has to run out;
/// then another node makes one. What the dead one left is in nobody's way, and is never listed as a backup.
#[test]
fn another_node_makes_the_backup_whose_maker_was_killed_in_the_midst_of_it() {
    let bed = Bed::new("");
    let nodes = bed.three();
    let documents = bed.temp.path().join("documents.jsonl");
    // Letters by chance: what can be made short fits into what is not written yet when the maker is killed.
    let mut random = StdRng::seed_from_u64(7);
    let mut letters = || (0..256 << 10).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect::<String>();
    let line = |number: usize| format!("{{\"id\":{number},\"letters\":\"{}\"}}\n", letters());
    std::fs::write(&documents, (0..4 * MIB).map(line).collect::<String>()).unwrap();
    let loaded = run(&["load", text(&documents), "--tree", "t", "--key", "id", "--endpoints", &nodes[0].address]);
    assert_eq!(loaded.status.code(), Some(0), "{}", stderr(&loaded));
    let txn = applied(&nodes[0]);

    // Only now there is a schedule, so the first backup is one of all documents.
    for mut node in nodes {
        assert_eq!(node.process.end(Signal::TERM).code(), Some(0));
    }
    bed.schedule("full_every = \"1h\"\nlimit_mib_s = 1\n");
    let config = ["--config", text(&bed.config)];
    let mut nodes = ["n1", "n2", "n3"].map(|name| Node::spawn(&bed.temp.path().join(name), &config)).map(Some);
    nodes.iter_mut().flatten().for_each(Node::ready);
    wait_for("a part is half written", || bed.part_is_under_way().then_some(()));
    let told = wait_for("it is told who makes it", || {
        status(nodes[0].as_ref()?).filter(|told| told["backups"][0]["running_on"].is_string())
    });
    let maker = told["backups"][0]["running_on"].as_str().expect("asked").to_owned();
    let place = ["n1", "n2", "n3"].iter().position(|name| *name == maker).expect("a member");
    nodes[place].take().expect("it runs").process.end(Signal::KILL);
    let killed = Instant::now();
    assert!(bed.part_is_under_way(), "it was killed in the midst of it");
    assert_eq!(bed.listed()["chains"], Value::Array(Vec::new()), "half a backup is none");

    let asked = nodes.iter().flatten().next().expect("two are left");
    let told = wait_for_a_turn("another node makes it", || {
        assert_eq!(bed.listed()["chains"], Value::Array(Vec::new()), "half a backup is none");
        let told = status(asked)?;
        assert!(told["backups"][0]["last_success_at"].is_null(), "nobody has made one: {told}");
        told["backups"][0]["running_on"].as_str().is_some_and(|name| name != maker).then_some(told)
    });
    // A maker that lives and cannot renew its claim stops within 30 s: nobody may be sooner than that.
    assert!(killed.elapsed() > Duration::from_secs(30), "after {:?}: {told}", killed.elapsed());
    let next = told["backups"][0]["running_on"].as_str().expect("asked").to_owned();

    let told = wait_for_a_turn("it is made", || {
        let told = status(asked)?;
        assert!(told["backups"][0]["error"].is_null(), "{told}");
        told["backups"][0]["last_success_at"].is_u64().then_some(told)
    });
    assert_eq!(told["backups"][0]["made_by"], next.as_str(), "{told}");
    assert!(told["backups"][0]["running_on"].is_null() && told["backups"][0]["age_seconds"].is_u64(), "{told}");
    let listed = bed.listed();
    let chain = listed["chains"][0].as_array().expect("one chain");
    assert!(listed["chains"].as_array().map(Vec::len) == Some(1) && chain.len() == 1, "{listed}");
    assert!(chain[0]["kind"] == "full" && chain[0]["end_txn"].as_u64() >= Some(txn), "{listed}");
    assert_eq!(listed["problems"], Value::Array(Vec::new()), "{listed}");
    let verified = run(&["backup", "verify", "--at", &bed.place, "--deep"]);
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn what_fails_is_said_in_the_status() {
    let bed = Bed::new("full_every = \"1h\"\n");
    std::fs::write(bed.temp.path().join("backups"), "a file where a directory should be").unwrap();
    let node = bed.node("n1", &["--bootstrap"]);
    let told = wait_for("it failed", || status(&node).filter(|told| told["backups"][0]["error"].is_string()));
    assert!(told["backups"][0]["last_success_at"].is_null(), "{told}");
    let words = run(&["cluster", "status", "--endpoints", &node.address]);
    assert!(String::from_utf8_lossy(&words.stdout).contains("the last attempt failed"), "{words:?}");
}
