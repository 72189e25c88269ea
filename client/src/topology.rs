//! The last known nodes of a cluster in a file, so that a client that is started when the addresses it was given are gone
//! still finds the cluster.
//!
//! The file is JSON. It is replaced as a whole: written beside, synced, renamed. It is a hint and never more: what a node says
//! is believed over it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The version of the file's form.
const FORMAT: u32 = 1;

/// What is known of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    format: u32,
    /// The cluster; empty if no node has said it yet.
    pub cluster_id: String,
    /// Its nodes in order of name.
    pub nodes: Vec<KnownNode>,
    /// The address of the leader last heard of.
    pub leader: Option<String>,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KnownNode {
    /// What the operator calls it.
    pub name: String,
    /// HOST:PORT.
    pub address: String,
    /// Whether it has a vote.
    pub voter: bool,
}

/// Why the file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The file system refused.
    #[error("topology file {}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The bytes are not a topology.
    #[error("topology file {}: {what}; remove the file, it is only a hint", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        what: String,
    },
}

impl Topology {
    /// What was learnt of a cluster.
    pub fn new(cluster_id: String, nodes: Vec<KnownNode>, leader: Option<String>) -> Topology {
        Topology { format: FORMAT, cluster_id, nodes, leader }
    }

    /// Reads the file; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be read, or does not hold a topology.
    pub fn load(path: &Path) -> Result<Option<Topology>, TopologyError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TopologyError::Io { path: path.to_owned(), doing: "read it", source }),
        };
        let malformed = |what: String| TopologyError::Malformed { path: path.to_owned(), what };
        let topology: Topology = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        if topology.format != FORMAT {
            return Err(malformed(format!("format {} is not known to this client", topology.format)));
        }
        Ok(Some(topology))
    }

    /// Replaces the file: a reader sees the old or the new one, also after a crash.
    ///
    /// # Errors
    /// If a file cannot be written, synced or renamed; the old one is then still there.
    pub fn save(&self, path: &Path) -> Result<(), TopologyError> {
        let failed = |doing| move |source| TopologyError::Io { path: path.to_owned(), doing, source };
        let mut name = path.file_name().unwrap_or_default().to_owned();
        // Two processes may share the file: each writes beside it under a name of its own.
        name.push(format!(".{}.new", std::process::id()));
        let beside = path.with_file_name(name);
        let text = serde_json::to_vec_pretty(self).expect("strings and booleans encode");
        let mut file = File::create(&beside).map_err(failed("make a new one beside"))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed("write a new one beside"))?;
        fs::rename(&beside, path).map_err(failed("put the new one in place"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("topology.json");
        assert!(Topology::load(&path).unwrap().is_none());
        let node = KnownNode { name: "n1".into(), address: "127.0.0.1:7001".into(), voter: true };
        for leader in [None, Some("127.0.0.1:7001".to_owned())] {
            let topology = Topology::new("c1".into(), vec![node.clone()], leader);
            topology.save(&path).unwrap();
            assert_eq!(Topology::load(&path).unwrap(), Some(topology));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn bad_bytes_are_named_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("topology.json");
        let good = serde_json::to_string(&Topology::new("c".into(), vec![], None)).unwrap();
        for bad in ["", "{", "[]", "\u{0}\u{1}", &good.replace("\"format\":1", "\"format\":9")] {
            fs::write(&path, bad).unwrap();
            let error = Topology::load(&path).unwrap_err();
            assert!(matches!(error, TopologyError::Malformed { .. }), "{bad:?}: {error}");
            assert!(error.to_string().contains("topology.json"), "{error}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = Topology::default().save(&dir.path().join("no/such/t.json")).unwrap_err();
        assert!(error.to_string().contains("no/such/t.json"), "{error}");
    }
}
