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
}

impl Setup {
    /// Three nodes on real disks, which keep little space in reserve: a losing disk has to write all of it.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let environment = vec![("CALAMUS_RESERVE_MIB".to_owned(), "8".to_owned())];
        Self { binary: binary.into(), nodes: 3, flags: Vec::new(), environment }
    }

    /// On disks that forget what was not synced when their process is killed: `kill -9` alone proves nothing about
    /// syncs, because the kernel keeps what a killed process wrote.
    #[must_use]
    pub fn losing(self) -> Self {
        self.environment("CALAMUS_DISK", "losing")
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
