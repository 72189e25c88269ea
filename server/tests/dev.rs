//! `calamus dev`: three nodes, a kill, a restart by hand, an end in order, equal files, and no process left over.

mod common;

use std::path::Path;

use calamus_proto::v1::kv_client::KvClient;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::{Operation, Put, TxnRequest};
use common::{Process, calamus, is_alive, run, stderr, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A running `dev` on free ports, and its nodes.
struct Dev {
    process: Process,
    started: Value,
    /// Events that came before one that was waited for.
    passed: Vec<Value>,
}

impl Dev {
    fn start(dir: &Path) -> Dev {
        let dir_text = dir.to_str().expect("temporary paths are UTF-8");
        let log = dir.with_extension("log");
        let mut process = Process::start(&["dev", "--dir", dir_text, "--first-port", "0", "--json"], &log);
        let started = process.line("all nodes up", |line| event(line, "started"));
        Dev { process, started, passed: Vec::new() }
    }

    /// The next event of this name; those that come before it may be asked for later.
    fn event(&mut self, name: &str) -> Value {
        if let Some(at) = self.passed.iter().position(|event| event["event"] == name) {
            return self.passed.remove(at);
        }
        loop {
            let next: Value = self.process.line(name, |line| Some(serde_json::from_str(line).expect("JSON")));
            if next["event"] == name {
                return next;
            }
            self.passed.push(next);
        }
    }

    /// What `cluster status` says of all nodes, once they have these roles and all of them answer.
    fn nodes(&self, roles: &[&str]) -> Vec<Value> {
        wait_for("all nodes in their roles", || {
            let output = run(&["cluster", "status", "--json", "--endpoints", self.endpoints()]);
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            let nodes = status["nodes"].as_array()?.clone();
            let mut found: Vec<_> = nodes.iter().map(|node| node["role"].as_str().unwrap_or_default()).collect();
            found.sort_unstable();
            let good = nodes.iter().all(|node| node["unreachable"] == false && node["voter"] == true);
            (good && found == roles).then_some(nodes)
        })
    }

    /// Every one of these was acknowledged, so it is there.
    fn assert_there(&self, keys: &[String]) {
        for key in keys {
            let output = run(&["get", "t", key, "--endpoints", self.endpoints()]);
            assert!(output.status.code() == Some(0) && output.stdout == [5; 2000], "{key}: {}", stderr(&output));
        }
    }

    fn endpoints(&self) -> &str {
        self.started["endpoints"].as_str().expect("text")
    }

    fn field(&self, node: usize, field: &str) -> &Value {
        &self.started["nodes"][node][field]
    }

    fn pids(&self) -> Vec<u32> {
        let nodes = self.started["nodes"].as_array().expect("a list");
        nodes.iter().map(|node| node["process_id"].as_u64().expect("a number") as u32).collect()
    }
}

fn event(line: &str, name: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    (value["event"] == name).then_some(value)
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).expect("positive"), signal).expect("the process is there");
}

/// Puts through the node at `address`, trying on while there is no leader.
async fn put(address: &str, key: &str) {
    let mut last = None;
    let until = std::time::Instant::now() + common::LIMIT;
    while std::time::Instant::now() < until {
        if let Ok(mut client) = KvClient::connect(format!("http://{address}")).await {
            let (tree, key, value) = ("t".to_owned(), key.to_owned().into(), vec![5; 2000].into());
            let put = Kind::Put(Put { tree, key, value, tree_must_exist: false });
            let request = TxnRequest { operations: vec![Operation { kind: Some(put) }], ..TxnRequest::default() };
            match client.txn(request).await {
                Ok(_) => return,
                Err(error) => last = Some(error),
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no put of {key} through {address}: {last:?}");
}

fn assert_equal_and_clean(dir: &Path, names: &[&str]) {
    let data = |name: &str| std::fs::read(dir.join(name).join("g1/data")).expect("a data file");
    let first = data(names[0]);
    for name in names {
        assert!(data(name) == first, "the data files of {} and {name} differ", names[0]);
        let output = run(&["check", dir.join(name).to_str().expect("UTF-8")]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{name}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            stderr(&output)
        );
    }
}

/// For each frame of a node: its index and hash.
fn frames(dir: &Path, name: &str) -> std::collections::BTreeMap<u64, String> {
    let output = run(&["journal", dir.join(name).to_str().expect("UTF-8"), "--frames", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let frame = |line: &str| -> (u64, String) {
        let value: Value = serde_json::from_str(line).expect("JSON");
        (value["index"].as_u64().expect("a number"), value["hash"].as_str().expect("text").to_owned())
    };
    lines.lines().map(frame).collect()
}

#[tokio::test]
async fn a_cluster_comes_up_loses_a_node_gets_it_back_and_ends_equal() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cluster");
    let mut dev = Dev::start(&dir);
    let mut keys = Vec::new();
    for node in 0..3 {
        keys.push(format!("before-{node}"));
        put(dev.field(node, "address").as_str().unwrap(), &keys[node]).await;
    }

    // Kill the leader; the others go on, and the killed one comes back by the command that is shown.
    let roles = dev.nodes(&["follower", "follower", "leader"]);
    let leader = roles.iter().position(|node| node["role"] == "leader").unwrap();
    let name = dev.field(leader, "name").as_str().unwrap().to_owned();
    let pid_file = std::fs::read_to_string(dir.join(&name).join("pid")).unwrap();
    assert_eq!(pid_file.trim(), dev.pids()[leader].to_string());
    kill(dev.pids()[leader], Signal::KILL);
    let exited = dev.event("exited");
    assert_eq!((&exited["name"], &exited["how"]), (&Value::from(name.as_str()), &Value::from("killed by signal 9")));
    let other = dev.field((leader + 1) % 3, "address").as_str().unwrap().to_owned();
    put(&other, "while-one-is-down").await;
    keys.push("while-one-is-down".to_owned());
    dev.event("leader");
    let command: Vec<String> = exited["again"].as_str().unwrap().split(' ').map(str::to_owned).collect();
    let arguments: Vec<&str> = command[1..].iter().map(String::as_str).collect();
    let mut by_hand = Process::start(&arguments, &temp.path().join("by-hand.log"));
    assert_eq!(dev.event("back")["name"], name.as_str());
    put(dev.field(leader, "address").as_str().unwrap(), "after").await;
    keys.push("after".to_owned());
    dev.nodes(&["follower", "follower", "leader"]);
    dev.assert_there(&keys);

    assert_eq!(dev.process.end(Signal::TERM).code(), Some(0), "{}", dev.process.read_log());
    assert_eq!(dev.event("equal")["nodes"], 3);
    dev.event("ended");
    assert_eq!(by_hand.wait().code(), Some(0), "{}", by_hand.read_log());
    assert!(dev.pids().iter().all(|pid| !is_alive(*pid)), "every child has ended");
    assert_equal_and_clean(&dir, &["n1", "n2", "n3"]);
    let [one, two, three] = ["n1", "n2", "n3"].map(|name| frames(&dir, name));
    assert!(one.len() > 5 && one == two && two == three, "{one:?}\n{two:?}\n{three:?}");

    // It goes on where it was, at the same addresses.
    let mut again = Dev::start(&dir);
    assert_eq!(again.endpoints(), dev.endpoints());
    put(again.field(0, "address").as_str().unwrap(), "another day").await;
    again.assert_there(&keys);
    assert_eq!(again.process.end(Signal::INT).code(), Some(0), "{}", again.process.read_log());
    assert_equal_and_clean(&dir, &["n1", "n2", "n3"]);
}

#[tokio::test]
async fn a_cluster_that_runs_on_the_same_ports_is_not_taken_for_ones_own_and_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let [dir, other] = ["mine", "other"].map(|name| temp.path().join(name));
    let mut mine = Dev::start(&dir);
    assert_eq!(mine.process.end(Signal::TERM).code(), Some(0), "{}", mine.process.read_log());
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(dir.join("dev.json"), other.join("dev.json")).unwrap();
    let mut other = Dev::start(&other);
    assert_eq!(other.endpoints(), mine.endpoints());

    let log = temp.path().join("second.log");
    let mut second = Process::start(&["dev", "--dir", dir.to_str().unwrap(), "--json"], &log);
    assert_eq!(second.wait().code(), Some(1), "{}", second.read_log());
    let text = second.read_log();
    let named = (0..3).any(|node| text.contains(other.field(node, "address").as_str().unwrap()));
    assert!(named && text.contains("another process has port"), "{text}");

    assert!(other.pids().iter().all(|pid| is_alive(*pid)));
    put(other.field(0, "address").as_str().unwrap(), "not frozen").await;
    assert_eq!(other.process.end(Signal::TERM).code(), Some(0), "{}", other.process.read_log());
}

#[tokio::test]
async fn a_node_whose_directory_was_removed_takes_its_own_place() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cluster");
    let mut dev = Dev::start(&dir);
    put(dev.field(0, "address").as_str().unwrap(), "old").await;
    assert_eq!(dev.process.end(Signal::TERM).code(), Some(0), "{}", dev.process.read_log());
    std::fs::remove_dir_all(dir.join("n2")).unwrap();

    let mut dev = Dev::start(&dir);
    put(dev.field(1, "address").as_str().unwrap(), "new").await;
    // The old self is gone: three, and all answer.
    dev.nodes(&["follower", "follower", "leader"]);
    dev.assert_there(&["old".to_owned(), "new".to_owned()]);
    assert_eq!(dev.process.end(Signal::TERM).code(), Some(0), "{}", dev.process.read_log());
    let data: Vec<_> = ["n1", "n2", "n3"].map(|name| data_file(&dir.join(name))).into();
    assert!(data[0] == data[1] && data[1] == data[2], "the data files differ");
}

/// The one data file of a node: seeding makes a new generation.
fn data_file(dir: &Path) -> Vec<u8> {
    let mut generations: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("data"))
        .filter(|path| path.exists())
        .collect();
    assert_eq!(generations.len(), 1, "{generations:?}");
    std::fs::read(generations.remove(0)).unwrap()
}

#[test]
fn no_node_outlives_a_dev_that_is_killed() {
    let temp = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(&temp.path().join("cluster"));
    let pids = dev.pids();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    assert_eq!(dev.process.end(Signal::KILL).code(), None);
    wait_for("the end of all nodes", || pids.iter().all(|pid| !is_running(*pid)).then_some(()));
}

/// Like `is_alive`, but an orphan that waits to be reaped by the system counts as gone.
fn is_running(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    is_alive(pid) && !state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[test]
fn a_port_taken_by_another_process_is_told_and_no_node_is_left() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cluster");
    let mut dev = Dev::start(&dir);
    let address = dev.field(2, "address").as_str().unwrap().to_owned();
    assert_eq!(dev.process.end(Signal::TERM).code(), Some(0), "{}", dev.process.read_log());
    let _taken = std::net::TcpListener::bind(&address).unwrap();
    let output = calamus(&["dev", "--dir", dir.to_str().unwrap()]).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("n3 ended") && text.contains(&address) && text.contains("another process has port"),
        "{text}"
    );
    assert_eq!(processes_of(&dir), [] as [u32; 0], "no node is left");
}

/// The processes that were started on a directory below this one.
fn processes_of(dir: &Path) -> Vec<u32> {
    let own = |entry: std::io::Result<std::fs::DirEntry>| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(dir.to_str()?).then_some(pid)
    };
    std::fs::read_dir("/proc").expect("Linux").filter_map(own).collect()
}

#[test]
fn nodes_started_by_hand_are_shown_when_they_end_and_do_not_outlive_the_cluster_when_they_hang() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cluster");
    for asked_twice in [false, true] {
        let mut dev = Dev::start(&dir);
        kill(dev.pids()[1], Signal::KILL);
        assert_eq!(dev.event("exited")["name"], "n2");
        let n2 = dir.join("n2");
        let by_hand = || Process::start(&["serve", "--dir", n2.to_str().unwrap()], &temp.path().join("by-hand.log"));
        let mut first = by_hand();
        assert_eq!(dev.event("back")["name"], "n2");
        assert_eq!(first.end(Signal::KILL).code(), None);
        assert_eq!(dev.event("gone")["name"], "n2");
        let mut second = by_hand();
        assert_eq!(dev.event("back")["name"], "n2");
        second.signal(Signal::STOP);
        assert_eq!(dev.event("silent")["name"], "n2");
        dev.process.signal(Signal::TERM);
        dev.event("ending");
        if asked_twice {
            dev.process.signal(Signal::TERM);
        }
        assert_eq!(dev.process.wait().code(), Some(1));
        let said = dev.process.read_log();
        assert!(said.contains(if asked_twice { "asked twice" } else { "in good order: n2" }), "{said}");
        assert_eq!(second.wait().code(), None, "it was killed");
        assert_eq!(processes_of(&dir), [] as [u32; 0], "no node is left");
    }
}
