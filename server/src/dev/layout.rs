//! Names, directories and addresses of the nodes, kept in `DIR/dev.json`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use calamus_engine::Engine;
use calamus_engine::env::{Disk, RealDisk};
use serde::{Deserialize, Serialize};

use super::DevOptions;
use crate::failure::Failure;
use crate::small_file;

/// Where the first node of a new cluster listens, if it can.
pub const DEFAULT_FIRST_PORT: u16 = 7001;
/// How many blocks of ports are tried before any free ports are taken.
const BLOCKS: u16 = 10;
const BLOCK_STEP: u16 = 100;
const FILE: &str = "dev.json";
/// How many nodes there are if nothing says otherwise.
const DEFAULT_NODES: u8 = 3;

/// The cluster as it lies on disk.
#[derive(Clone, Debug)]
pub struct Layout {
    /// DIR.
    pub dir: PathBuf,
    /// In order of name.
    pub nodes: Vec<Place>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// n1, n2, ...
    pub name: String,
    /// HOST:PORT.
    pub address: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    nodes: Vec<Place>,
}

impl Layout {
    /// The directory of a node.
    pub fn node_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where a node's output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// The command that starts a node again by hand.
    pub fn again(&self, name: &str) -> String {
        format!("{} serve --dir {}", program(), self.node_dir(name).display())
    }

    /// Whether a node has a database, so that it starts again by its directory alone.
    pub fn has_database(&self, name: &str) -> bool {
        Engine::exists(&RealDisk::new(), &self.node_dir(name)).unwrap_or(false)
    }

    /// All addresses, separated by commas, as `--endpoints` takes them.
    pub fn endpoints(&self) -> String {
        self.nodes.iter().map(|node| node.address.as_str()).collect::<Vec<_>>().join(",")
    }
}

/// How this program was called, for commands to copy.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "calamus".to_owned())
}

/// The lock of DIR; freed when dropped.
pub type Lock = Box<dyn Send + Sync>;

/// Reads the layout of DIR, or makes one with free ports and keeps it.
pub fn load_or_plan(options: &DevOptions) -> Result<(Layout, Lock), Failure> {
    let dir = &options.dir;
    let disk = RealDisk::new();
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot use the directory {}", dir.display()), error, "give another one with --dir")
    };
    if Engine::exists(&disk, dir).map_err(|error| cannot(&error))? {
        return Err(Failure::new(
            format!("{} is the directory of a single node", dir.display()),
            "`dev` keeps a directory for each of its nodes in one of its own",
            format!("give another --dir, or start that node with `calamus serve --dir {}`", dir.display()),
        ));
    }
    disk.create_dir_all(dir).map_err(|error| cannot(&error))?;
    let lock = disk.lock(dir).map_err(|error| cannot(&error))?.ok_or_else(|| {
        Failure::new(
            format!("{} is in use", dir.display()),
            "another `calamus dev` runs on it",
            "end that one, or give another --dir",
        )
    })?;
    let kept = match small_file::read(&disk, dir, FILE).map_err(|error| cannot(&error))? {
        None => Vec::new(),
        Some(bytes) => {
            let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| cannot(&format!("{FILE}: {error}")))?;
            check(&kept.nodes).map_err(|why| cannot(&format!("{FILE}: {why}")))?;
            kept.nodes
        }
    };
    let nodes = grow(kept.clone(), options)?;
    if nodes != kept {
        let bytes = serde_json::to_vec_pretty(&Kept { nodes: nodes.clone() }).expect("strings are always JSON");
        small_file::write(&disk, dir, FILE, &bytes).map_err(|error| cannot(&error))?;
    }
    Ok((Layout { dir: dir.clone(), nodes }, lock))
}

/// The file may have been edited: a name becomes a path.
fn check(nodes: &[Place]) -> Result<(), String> {
    for node in nodes {
        crate::config::node_name(&node.name)?;
        node.address.parse::<crate::endpoint::Endpoint>()?;
    }
    Ok(())
}

fn grow(mut nodes: Vec<Place>, options: &DevOptions) -> Result<Vec<Place>, Failure> {
    let had = nodes.len();
    let wanted = options.nodes.map_or(if had == 0 { usize::from(DEFAULT_NODES) } else { had }, usize::from);
    if wanted < had {
        return Err(Failure::new(
            format!("{} has {had} nodes, not {wanted}", options.dir.display()),
            "a node does not leave a cluster by not being started",
            format!("start all with --nodes {had} and use `calamus cluster remove NAME`, or give another --dir"),
        ));
    }
    let ports = free_ports(options.first_port, had, wanted - had)
        .map_err(|error| Failure::new("cannot find free ports on 127.0.0.1", error, "end what uses them"))?;
    nodes.extend(
        ports
            .into_iter()
            .enumerate()
            .map(|(at, port)| Place { name: format!("n{}", had + at + 1), address: format!("127.0.0.1:{port}") }),
    );
    Ok(nodes)
}

/// `count` free ports: first + skip and those that follow, or the same in the next blocks, or any.
fn free_ports(first: u16, skip: usize, count: usize) -> std::io::Result<Vec<u16>> {
    let take = |port: u16| TcpListener::bind(("127.0.0.1", port));
    if first != 0 {
        for block in 0..BLOCKS {
            let Some(start) = (u32::from(first) + u32::from(block * BLOCK_STEP)).checked_add(skip as u32) else {
                break;
            };
            let ports: Option<Vec<u16>> = (start..start + count as u32).map(|port| u16::try_from(port).ok()).collect();
            let Some(ports) = ports else { break };
            // Held together, so that no port is counted twice.
            let held: Vec<_> = ports.iter().map_while(|port| take(*port).ok()).collect();
            if held.len() == count {
                return Ok(ports);
            }
        }
    }
    let held = (0..count).map(|_| take(0)).collect::<std::io::Result<Vec<_>>>()?;
    held.iter().map(|socket| Ok(socket.local_addr()?.port())).collect()
}

/// Makes a path short to read: relative to the current directory where it lies below it.
pub fn short(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &Path, nodes: Option<u8>) -> DevOptions {
        DevOptions { nodes, dir: dir.to_path_buf(), first_port: 0, log: String::new(), json: false }
    }

    #[test]
    fn a_layout_is_kept_grows_and_never_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let (first, lock) = load_or_plan(&options(dir.path(), None)).unwrap();
        assert_eq!(first.nodes.len(), 3);
        let second = load_or_plan(&options(dir.path(), None)).err().unwrap().to_string();
        assert!(second.contains("another `calamus dev`"), "{second}");
        drop(lock);
        let (grown, lock) = load_or_plan(&options(dir.path(), Some(5))).unwrap();
        assert_eq!(grown.nodes[..3], first.nodes[..]);
        assert_eq!(grown.nodes[4].name, "n5");
        drop(lock);
        let (again, lock) = load_or_plan(&options(dir.path(), None)).unwrap();
        assert_eq!(again.nodes, grown.nodes);
        drop(lock);
        let fewer = load_or_plan(&options(dir.path(), Some(2))).err().unwrap().to_string();
        assert!(fewer.contains("has 5 nodes"), "{fewer}");
    }

    #[test]
    fn ports_that_are_taken_are_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let found = free_ports(port, 0, 2).unwrap();
        assert_eq!(found.len(), 2);
        assert!(!found.contains(&port));
    }
}
