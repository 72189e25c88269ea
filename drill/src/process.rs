//! Child processes that never outlive whoever started them.
//!
//! Three things end a child: its [`Process`] is dropped (also by a panic, also if it is stopped: SIGKILL needs no
//! cooperation); this process dies (a node of Calamus asks the system for that, see `CALAMUS_PARENT`; other programs do not); or
//! it ends by itself. The system counts the *thread* that forked as the parent, so all children are forked by one thread that lives
//! as long as this process does.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Ends the child when this process is gone; `calamus serve` reads it.
const PARENT_VARIABLE: &str = "CALAMUS_PARENT";
/// How much of a log is shown when something fails, in bytes.
const TAIL_BYTES: usize = 6 << 10;
/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(5);
/// A signal that stops a process takes effect within this.
const STOPS: Duration = Duration::from_secs(5);

type Forked = io::Result<Child>;

static FORKER: LazyLock<mpsc::Sender<(Command, mpsc::Sender<Forked>)>> = LazyLock::new(|| {
    let (sender, orders) = mpsc::channel::<(Command, mpsc::Sender<Forked>)>();
    let run = move || {
        for (mut command, answer) in orders {
            // Nobody waits for the answer any more only if all is over; then the child must go too.
            if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    };
    std::thread::Builder::new().name("forker".into()).spawn(run).expect("the system has room for a thread");
    sender
});

fn fork(command: Command) -> Forked {
    let (answer, child) = mpsc::channel();
    FORKER.send((command, answer)).expect("the forking thread lives as long as this process");
    child.recv().expect("the forking thread answers")
}

/// A running child.
pub struct Process {
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `binary` with `arguments` and `environment`, and nothing of ours that begins with `CALAMUS_`; what it
    /// writes is appended to `log`.
    ///
    /// # Errors
    /// When it cannot be started, or the log cannot be written.
    pub fn start(
        binary: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> io::Result<Self> {
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CALAMUS_") {
                command.env_remove(name);
            }
        }
        let output = File::options().create(true).append(true).open(log)?;
        command
            .args(arguments)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in a terminal is for this process, which then ends its children.
            .process_group(0);
        Ok(Self { child: fork(command)?, log: log.to_path_buf(), ended: None })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("not 0");
        Ok(kill_process(pid, signal)?)
    }

    /// As if the power failed: SIGKILL, and the process is gone when this returns.
    pub fn kill(&mut self) {
        if self.try_wait().is_none() {
            self.child.kill().expect("a child of ours can be killed");
            self.ended = Some(self.child.wait().expect("a child can be waited for"));
        }
    }

    /// Stops it in its tracks; it is stopped when this returns.
    ///
    /// # Errors
    /// When there is no such process any more, or it does not stop.
    pub async fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        self.is_frozen().await
    }

    /// Waits until it is stopped, after SIGSTOP.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn is_frozen(&self) -> io::Result<()> {
        let end = Instant::now() + STOPS;
        while self.state() != Some('T') {
            if Instant::now() >= end {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {} does not stop", self.id())));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended after `limit`.
    pub async fn end(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait() {
                return Ok(status);
            }
            if Instant::now() >= end {
                let what = format!("process {} has not ended after {} s", self.id(), limit.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        // The name in brackets may hold anything.
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// The end of what it wrote.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

/// The anonymous memory of a process, in bytes; 0 where there is no such process.
#[must_use]
pub fn anonymous_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or(0, |kib| kib << 10)
}

/// The end of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(&text[from..]).into_owned()
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
