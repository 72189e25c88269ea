//! Real processes of the binary, each ended with its test.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Nothing in these tests takes longer, on a slow machine either.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The binary, without what the environment of the tests may say to it.
pub fn calamus(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calamus"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CALAMUS_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Output {
    let output = calamus(arguments).stdin(Stdio::null()).output().expect("the binary runs");
    assert!(output.status.code().is_some(), "{arguments:?} was killed: {output:?}");
    output
}

/// What a command wrote to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asks until there is an answer; panics with `what` when it takes too long.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process of this id is there.
pub fn is_alive(pid: u32) -> bool {
    test_kill_process(Pid::from_raw(pid as i32).expect("a process id is positive")).is_ok()
}

/// A running process; killed when dropped.
pub struct Process {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    log: PathBuf,
    ended: bool,
}

impl Process {
    /// Starts the binary; what it logs goes to the file `log`.
    pub fn start(arguments: &[&str], log: &Path) -> Process {
        Process::start_with(arguments, log, &[])
    }

    /// The same, with more in its environment.
    pub fn start_with(arguments: &[&str], log: &Path, environment: &[(&str, String)]) -> Process {
        let log_file = File::options().create(true).append(true).open(log).expect("a log can be written");
        let mut child = calamus(arguments)
            // A process of the tests that is killed takes its nodes along. The system counts the thread as the parent:
            // a test ends what it started on the thread that started it.
            .env("CALAMUS_PARENT", std::process::id().to_string())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .expect("the binary starts");
        let lines = read_lines(child.stdout.take().expect("stdout is a pipe"));
        Process { child, lines, log: log.to_path_buf(), ended: false }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of stdout that `pick` takes.
    pub fn line<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        let until = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(found) = pick(&line) {
                        return found;
                    }
                }
                Err(error) => panic!("no line with {what} ({error}); its log:\n{}", self.read_log()),
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).expect("a process id is positive"), signal)
            .expect("the process is there");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for("the end of a process", || self.child.try_wait().expect("a child can be waited for"));
        self.ended = true;
        status
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    /// What it has logged.
    pub fn read_log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- log of process {} ----\n{}", self.child.id(), self.read_log());
        }
    }
}

/// Reads lines on a thread, so that a test can wait for one with a time limit.
fn read_lines(stdout: ChildStdout) -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A node of its own, in a directory of the test.
pub struct Node {
    /// The process.
    pub process: Process,
    /// HOST:PORT.
    pub address: String,
}

impl Node {
    /// Starts a node and waits until it is ready.
    pub fn start(dir: &Path, more: &[&str]) -> Node {
        let mut node = Node::spawn(dir, more);
        node.ready();
        node
    }

    /// Waits until it is ready.
    pub fn ready(&mut self) {
        self.process.line("readiness", |line| line.contains(" is ready").then_some(()));
    }

    /// Starts a node that may not become ready; it listens.
    pub fn spawn(dir: &Path, more: &[&str]) -> Node {
        let dir_text = dir.to_str().expect("temporary paths are UTF-8");
        let mut arguments = vec!["serve", "--dir", dir_text];
        arguments.extend(more);
        let log = dir.with_extension("log");
        let mut process = Process::start(&arguments, &log);
        let address = process.line("its address", |line| line.split_once(" listens on ").map(|(_, at)| at.to_owned()));
        Node { process, address }
    }

    /// Starts the first node of a cluster, on a free port.
    pub fn bootstrap(dir: &Path, name: &str) -> Node {
        Node::start(dir, &["--name", name, "--listen", "127.0.0.1:0", "--bootstrap"])
    }
}

/// All files below a directory with their bytes, in order of name; for "nothing changed".
pub fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return found };
    for entry in entries {
        let path = entry.expect("a directory can be listed").path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).expect("a file can be read")));
        }
    }
    found.sort();
    found
}
