//! Child processes, and what the kernel says of them. A child is killed and waited for when its handle is dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The unit of CPU times in /proc on Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// A node of a system under test.
#[derive(Debug)]
pub struct Process {
    pub name: String,
    pub dir: PathBuf,
    pub address: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it says goes to a file beside its directory.
    pub fn start(name: &str, dir: &Path, address: &str, mut command: Command) -> anyhow::Result<Process> {
        let log = dir.with_extension("log");
        let out = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let (name, dir, address) = (name.to_owned(), dir.to_owned(), address.to_owned());
        Ok(Process { name, dir, address, child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); the end of its log:\n{}", self.name, self.log_end()),
        }
    }

    pub fn log_end(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(3000)..]).into_owned()
    }

    /// Asks it to end, and waits; how it ended and after how long.
    pub fn terminate(mut self, wait: Duration) -> anyhow::Result<(ExitStatus, Duration)> {
        self.end(wait)
    }

    /// The same, where its name and directory are needed afterwards.
    pub fn end(&mut self, wait: Duration) -> anyhow::Result<(ExitStatus, Duration)> {
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, begun.elapsed()));
            }
            if begun.elapsed() > wait {
                bail!("{} did not end within {wait:?} of SIGTERM:\n{}", self.name, self.log_end());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So many ports that are free now.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    // All are held until all are found, so that they differ.
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_seconds: f64,
    /// As /proc/PID/io says: where the page cache holds a file in large folios (a preallocated journal), the kernel counts a whole
    /// folio for each small write, many times what reaches the device (seen: 2.1 GB counted, 0.2 GB on the device).
    pub written_bytes: u64,
}

/// CPU time and bytes written of a process since it began.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    Ok(Usage {
        cpu_seconds: parse_cpu_seconds(&stat).with_context(|| format!("/proc/{pid}/stat is not understood"))?,
        written_bytes: parse_field(&io, "write_bytes:").with_context(|| format!("/proc/{pid}/io is not understood"))?,
    })
}

/// Anonymous memory of a process now, in bytes.
pub fn rss_anon(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = parse_field(&status, "RssAnon:").with_context(|| format!("/proc/{pid}/status has no RssAnon"))?;
    Ok(kib << 10)
}

/// Fields 14 and 15 of /proc/PID/stat; field 2 is the name, in parentheses, and may hold anything.
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) as f64 / TICKS_A_SECOND)
}

fn parse_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}

/// The space that files take on the disk, by the folder (or file) that `kind` names for a path within `dir`.
pub fn disk_usage(dir: &Path, kind: fn(&Path) -> String) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        // Files come and go while the system runs.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if let Ok(path) = entry.path().strip_prefix(dir) {
                *sizes.entry(kind(path)).or_default() += metadata.blocks() * 512;
            }
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(parse_cpu_seconds(stat), Some(3.0));
        assert_eq!(parse_cpu_seconds("12 (a"), None);
        assert_eq!(parse_field("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n", "write_bytes:"), Some(4096));
        let own = std::process::id();
        assert!(rss_anon(own).unwrap() > 0);
        usage(own).unwrap();
    }

    #[test]
    fn a_child_is_gone_when_its_handle_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let process = Process::start("s", &dir.path().join("s"), "", command).unwrap();
        let pid = process.pid();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn disk_usage_is_by_kind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/x"), vec![1; 10_000]).unwrap();
        fs::write(dir.path().join("b"), vec![1; 10]).unwrap();
        let sizes =
            disk_usage(dir.path(), |path| path.components().next().unwrap().as_os_str().to_string_lossy().into());
        assert!(sizes["a"] >= 10_000 && sizes["b"] >= 10 && sizes.len() == 2, "{sizes:?}");
    }
}
