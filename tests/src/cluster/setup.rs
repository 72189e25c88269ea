//! How the nodes of a cluster are started.

use std::path::PathBuf;

/// How the nodes of a cluster are started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The binary: `env!("CARGO_BIN_EXE_calamus-fault")`.
    pub binary: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// More flags of `serve`, at every start.
    pub flags: Vec<String>,
    /// The environment of every node.
    pub environment: Vec<(String, String)>,
    /// The nodes advertise addresses at which nobody is, and are told by `--reach` where the others are.
    pub hidden: bool,
}

impl Setup {
    /// Three nodes on real disks, which keep little space in reserve: a losing disk has to write all of it.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let environment = vec![("CALAMUS_RESERVE_MIB".to_owned(), "8".to_owned())];
        Self { binary: binary.into(), nodes: 3, flags: Vec::new(), environment, hidden: false }
    }

    /// On disks that forget what was not synced when their process is killed: `kill -9` alone proves nothing about
    /// syncs, because the kernel keeps what a killed process wrote.
    #[must_use]
    pub fn losing(self) -> Self {
        self.environment("CALAMUS_DISK", "losing")
    }

    /// Where no node finds another by the address that it advertises: only by what `--reach` says.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// With this flag of `serve`.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// With this variable in the environment of every node.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}
