//! What a joining node is filled from, as its operator says.

mod common;
mod s3;

use std::path::{Path, PathBuf};

use common::{Node, Process, run, stderr, wait_for};
use rustix::process::Signal;
use s3::{BUCKET, S3Server};
use serde_json::Value;

/// Little journal, so that a node that joins has to be filled.
const FLAGS: [&str; 6] = ["--checkpoint-mib", "1", "--retention-mib", "0", "--reserve-mib", "8"];

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Runs a command that must succeed.
fn good(arguments: &[&str]) -> String {
    let output = run(arguments);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}{}", stderr(&output));
    told
}

/// A cluster of one, with backups in a target that is called `near`, and with commits behind them.
struct Bed {
    temp: tempfile::TempDir,
    config: PathBuf,
    environment: Vec<(&'static str, String)>,
    first: Option<Node>,
}

impl Bed {
    fn new(place: impl FnOnce(&Path) -> String, environment: Vec<(&'static str, String)>) -> Bed {
        let temp = tempfile::tempdir().unwrap();
        let config = temp.path().join("node.toml");
        let place = place(temp.path());
        std::fs::write(&config, format!("[backup.targets.near]\nurl = \"{place}\"\n")).unwrap();
        let mut bed = Bed { temp, config, environment, first: None };
        let mut first = bed.start("n1", &["--bootstrap"]);
        first.ready();
        bed.first = Some(first);
        for number in 0..40 {
            bed.put(number);
        }
        good(&["backup", "full", "--target", "near", "--node", bed.address()]);
        bed.put(40);
        good(&["backup", "incremental", "--target", "near", "--node", bed.address()]);
        bed.put(41);
        bed
    }

    fn in_a_directory() -> Bed {
        Bed::new(|temp| format!("file://{}", text(&temp.join("backups"))), Vec::new())
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn address(&self) -> &str {
        &self.first.as_ref().expect("it runs as long as the test").address
    }

    fn put(&self, number: u32) {
        let value = format!("{number:08}").repeat(15_000);
        good(&["put", "t", &format!("key{number}"), &value, "--endpoints", self.address()]);
    }

    /// A node that listens; it may not be ready yet.
    fn start(&self, name: &str, more: &[&str]) -> Node {
        let (dir, log) = (self.dir(name), self.dir(&format!("{name}.log")));
        let begin =
            ["serve", "--dir", text(&dir), "--name", name, "--listen", "127.0.0.1:0", "--config", text(&self.config)];
        let arguments = [&begin[..], &FLAGS, more].concat();
        let mut process = Process::start_with(&arguments, &log, &self.environment);
        let address = process.line("its address", |line| line.split_once(" listens on ").map(|(_, at)| at.to_owned()));
        Node { process, address }
    }

    /// What the cluster says of a node.
    fn status(&self, name: &str) -> Option<Value> {
        let output = run(&["cluster", "status", "--json", "--endpoints", self.address()]);
        let all: Value = serde_json::from_slice(&output.stdout).ok()?;
        let nodes = all["nodes"].as_array()?;
        nodes.iter().find(|node| node["name"] == name && node["unreachable"] == false).cloned()
    }

    /// Waits until a node votes, and has applied what the first one has. Returns what it says.
    fn is_member(&self, name: &str) -> Value {
        wait_for(&format!("{name} is a voter with all that there is"), || {
            let (first, found) = (self.status("n1")?, self.status(name)?);
            let same = found["digest"] == first["digest"] && found["applied"] == first["applied"];
            (found["voter"] == true && same).then_some(found)
        })
    }
}

/// Fills a node from the backups of `bed`, and compares it with the first one.
fn is_filled_from_backups(bed: &Bed, wish: &str) {
    let mut node = bed.start("n2", &["--join", bed.address(), "--seed-from", wish]);
    node.ready();
    let found = bed.is_member("n2");
    assert_eq!(found["seedings_begun"], 0, "pages came from a node: {found}");
    assert!(found["seedings_resumed"].as_u64() > Some(0) && found["generation"].as_u64() > Some(1), "{found}");
    assert!(!bed.dir("n2/seed-from").exists(), "the wish was fulfilled");
    let scan = |address: &str| good(&["scan", "t", "--endpoints", address]);
    assert_eq!(scan(&node.address), scan(bed.address()));
}

#[test]
fn a_node_is_filled_from_a_backup_target_of_its_configuration() {
    is_filled_from_backups(&Bed::in_a_directory(), "backup:near");
}

#[test]
fn a_node_is_filled_from_a_place_with_backups() {
    let bed = Bed::in_a_directory();
    let place = format!("backup:{}", text(&bed.dir("backups")));
    is_filled_from_backups(&bed, &place);
}

/// One answer in ten of the bucket fails, or is cut.
#[test]
fn a_node_is_filled_from_a_bucket() {
    let server = S3Server::start(11);
    let bed = Bed::new(|_| format!("s3://{BUCKET}/calamus"), server.environment());
    server.go_wrong(10);
    is_filled_from_backups(&bed, "backup:near");
}

/// Where the wish cannot be met, the node is filled all the same.
#[test]
fn backups_that_are_not_there_are_passed_over() {
    let bed = Bed::in_a_directory();
    std::fs::remove_dir_all(bed.dir("backups")).expect("it was made");
    let mut node = bed.start("n2", &["--join", bed.address(), "--seed-from", "backup:near"]);
    node.ready();
    let found = bed.is_member("n2");
    assert_eq!(found["seedings_begun"], 1, "{found}");
}

#[test]
fn what_cannot_be_meant_is_refused_and_changes_nothing() {
    let bed = Bed::in_a_directory();
    let dir = bed.dir("n9");
    for (wish, why) in [("follower", "`leader`"), ("node:a b", "node name"), ("backup:gs://x/y", "`gs`")] {
        let output = run(&["serve", "--dir", text(&dir), "--join", bed.address(), "--seed-from", wish]);
        assert!(!output.status.success() && stderr(&output).contains(why), "{wish}: {}", stderr(&output));
        assert!(!dir.exists(), "{wish}");
    }
    let mut node = bed.start("n2", &["--join", bed.address()]);
    node.ready();
    bed.is_member("n2");
    let wished = bed.dir("n2/seed-from");
    let add = |wish: &str| run(&["cluster", "add", &node.address, "--seed-from", wish, "--endpoints", bed.address()]);
    for (wish, why) in [("backup:far", "near"), ("backup:/etc", "serve --seed-from")] {
        let output = add(wish);
        assert!(!output.status.success() && stderr(&output).contains(why), "{wish}: {}", stderr(&output));
        assert!(!wished.exists(), "{wish}");
    }
    // A wish for the next time is kept; the last one counts.
    for wish in ["backup:near", "node:n1", "leader"] {
        let output = add(wish);
        assert!(output.status.success(), "{wish}: {}", stderr(&output));
        assert_eq!(std::fs::read_to_string(&wished).expect("it is noted").trim(), wish);
    }
    assert!(add("any").status.success() && !wished.exists());
    // One of another time, which the configuration does not know any more, keeps nobody from starting.
    assert_eq!(node.process.end(Signal::TERM).code(), Some(0));
    std::fs::write(&wished, "backup:gone\n").expect("it may be written");
    bed.start("n2", &[]).ready();
}
