//! `check`, `journal` and `salvage` on directories as they were left, sound and damaged.

mod common;

use std::fs;
use std::path::Path;

use calamus_engine::Database;
use common::{content, run, stderr};
use serde_json::Value;

/// A database of two trees, with long values, closed.
fn make(dir: &Path) -> Database {
    let database = Database::open(dir).expect("a new directory");
    for round in 0..6u8 {
        let written = database.write(|txn| {
            txn.create_tree("birds")?;
            txn.create_tree("fish")?;
            for key in 0..60u8 {
                txn.put("birds", &[b'a' + round, key], &[key; 600])?;
            }
            txn.put("fish", &[b'k', round], &vec![round; 30_000])?;
            txn.delete("birds", &[b'a' + round, 7]).map(drop)
        });
        written.expect("the disk works");
        if round == 3 {
            database.engine().checkpoint().expect("the disk works");
        }
    }
    database
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Runs a command that must leave the directory as it is, and end with this exit code.
#[track_caller]
fn looks(dir: &Path, arguments: &[&str], code: i32) -> String {
    let before = content(dir);
    let output = run(&[&[arguments[0], text(dir)], &arguments[1..]].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    assert!(content(dir) == before, "{arguments:?} changed the directory");
    stdout(&output)
}

fn flip(file: &Path, offset: usize) {
    let mut bytes = fs::read(file).expect("there");
    bytes[offset] ^= 0x10;
    fs::write(file, bytes).expect("writable");
}

#[test]
fn a_check_changes_nothing_and_lists_every_trouble() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("db");
    let database = make(&dir);
    let output = run(&["check", text(&dir)]);
    assert_eq!(output.status.code(), Some(1), "it is open: {}", stdout(&output));
    assert!(stderr(&output).contains("in use") && stderr(&output).contains("next:"), "{}", stderr(&output));
    drop(database);
    assert!(looks(&dir, &["check"], 0).ends_with("clean\n"));
    let sound: Value = serde_json::from_str(&looks(&dir, &["check", "--json"], 0)).expect("JSON");
    assert_eq!((&sound["clean"], &sound["frames"], &sound["state"]["trees"]), (&true.into(), &6.into(), &2.into()));

    flip(&dir.join("g1/data"), 8192 * 3 + 100);
    flip(&dir.join("vote"), 30);
    flip(&dir.join("g1/journal/00000000000000000001.seg"), 4096 + 64 + 300);
    let found: Value = serde_json::from_str(&looks(&dir, &["check", "--json"], 4)).expect("JSON");
    let findings = found["findings"].as_array().expect("a list");
    for (kind, file) in [("page", "data"), ("one_slot", "vote"), ("journal", ".seg")] {
        let of = |finding: &&Value| finding["kind"] == kind && finding["file"].as_str().expect("text").ends_with(file);
        let finding = findings.iter().find(of).unwrap_or_else(|| panic!("no {kind} of {file}: {found}"));
        assert!(["what", "consequence", "next"].iter().all(|part| finding[part].is_string()), "{finding}");
    }
    let words = looks(&dir, &["check"], 4);
    assert!(words.contains("(page 3)") && words.contains("next: ") && words.ends_with("NOT clean\n"), "{words}");
}

#[test]
fn a_journal_is_shown_as_segments_as_frames_and_as_operations() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("db");
    drop(make(&dir));
    let overview = looks(&dir, &["journal"], 0);
    assert!(overview.contains("frames: 6, the last is 1.5") && overview.contains("attested to the end"), "{overview}");
    let document: Value = serde_json::from_str(&looks(&dir, &["journal", "--json"], 0)).expect("JSON");
    assert_eq!((&document["frames"], &document["end"]), (&6.into(), &document["attested"]));
    assert_eq!(document["segments"][0]["last"]["index"], 5);

    assert_eq!(looks(&dir, &["journal", "--frames"], 0).lines().count(), 2 + 6, "a path, a head and the frames");
    let frames = looks(&dir, &["journal", "--frames", "--json", "--from", "4"], 0);
    let frames: Vec<Value> = frames.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(frames.iter().map(|frame| &frame["index"]).collect::<Vec<_>>(), [4, 5]);
    assert_eq!((&frames[1]["record"]["first_txn"], &frames[1]["kind"]), (&6.into(), &"record".into()));

    let operations = looks(&dir, &["journal", "--operations"], 0);
    for line in ["txn 1: create tree \"birds\"", "txn 1: put \"fish\" \"k\\x00\" 29.3 KiB", "txn 3: delete \"birds\""] {
        assert!(operations.contains(line), "{line} is not in\n{operations}");
    }
    let last = looks(&dir, &["journal", "--operations", "--json", "--from", "5"], 0);
    let last: Value = serde_json::from_str(&last).expect("one frame");
    let all = last["operations"].as_array().expect("a list");
    assert_eq!(all.len() as u64, last["record"]["operations"].as_u64().expect("a number"));
    assert!(all.iter().any(|one| one["kind"] == "put" && one["tree"] == "fish" && one["value_bytes"] == 30_000));

    flip(&dir.join("g1/journal/00000000000000000001.seg"), 4096 + 64 + 300);
    let overview = looks(&dir, &["journal"], 4);
    assert!(overview.contains("DAMAGE") && overview.contains("5 frames can be read"), "{overview}");
    assert_eq!(looks(&dir, &["journal", "--frames"], 4).lines().count(), 2 + 5, "it reads on behind the damage");
}

fn entries(dir: &Path) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let database = Database::open(dir).expect("a database");
    let read = database.read();
    let mut found = Vec::new();
    for (name, _) in read.trees().expect("sound") {
        let mut cursor = read.cursor(&name).expect("sound").expect("listed");
        while cursor.next().expect("sound") {
            found.push((name.clone(), cursor.key().to_vec(), cursor.value().to_vec().expect("sound")));
        }
    }
    found
}

#[test]
fn what_is_left_is_saved_and_what_is_not_is_listed() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, to) = (temp.path().join("db"), temp.path().join("saved"));
    let database = make(&dir);
    database.engine().checkpoint().expect("the disk works");
    drop(database);
    let all = entries(&dir);
    let words = looks(&dir, &["salvage", text(&to)], 0);
    assert!(words.contains("everything was copied"), "{words}");
    assert!(entries(&to) == all);
    looks(&to, &["check"], 0);
    let output = run(&["salvage", text(&dir), text(&to)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not empty") && stderr(&output).contains("next:"), "{}", stderr(&output));

    // A leaf in the middle of the larger tree.
    let page = (2..100).find(|page: &u32| {
        let output = run(&["page", text(&dir), &page.to_string(), "--json"]);
        stdout(&output).contains("leaf") && stdout(&output).contains("600")
    });
    let page = page.expect("a leaf");
    flip(&dir.join("g1/data"), page as usize * 8192 + 5000);
    let second = temp.path().join("second");
    let found: Value = serde_json::from_str(&looks(&dir, &["salvage", text(&second), "--json"], 4)).expect("JSON");
    assert_eq!((&found["complete"], &found["mixture"]), (&false.into(), &false.into()), "{found}");
    assert_eq!((&found["lost"][0]["tree"], &found["lost"][0]["page"]), (&"birds".into(), &page.into()), "{found}");
    let saved = entries(&second);
    assert!(saved.len() < all.len() && saved.len() > all.len() / 2 && saved.iter().all(|entry| all.contains(entry)));
    let third = temp.path().join("third");
    let words = looks(&dir, &["salvage", text(&third)], 4);
    assert!(words.contains("LOST birds") && words.contains(&format!("(page {page})")), "{words}");
    assert_eq!(run(&["salvage", text(temp.path()), text(&third)]).status.code(), Some(1), "no node's directory");
}
