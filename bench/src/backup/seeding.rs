//! A node that fills a new one, as real processes, beside the same bytes through a connection; and what it does to those who write
//! meanwhile.
//!
//! The node that seeds is a restored one: so its directory is filled by the engine, and no server has to take all of it by
//! transactions first. A seeding is measured from the start of the new node's process until that says of itself that it has
//! applied what the other had: with its start, its asking to be a member, and the verification of every page.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use calamus_engine::backup::{BackupOptions, Backups, DirectoryStore};
use calamus_engine::env::RealDisk;

use super::clients::Clients;
use super::memory::Peak;
use super::node::{Node, free_address, take_out};
use super::{BackupArgs, Took, data, fill_apart, growth_mark, line, tcp, writers};
use crate::report::Mark;

/// How long writers are measured without a seeding.
const ALONE: Duration = Duration::from_secs(5);

/// One seeding, as its receiver sees it, and what it took of its source.
struct Seeded {
    took: Took,
    source_growth: u64,
}

struct Bed<'b> {
    binary: &'b Path,
    home: &'b Path,
    source: Node,
}

/// Measures within `home`, and adds the marks.
pub async fn run(args: &BackupArgs, home: &Path, binary: &Path, marks: &mut Vec<Mark>) -> Result<()> {
    let (directory, address) = (home.join("n1"), free_address()?);
    let entries = fill(args, home, binary, &directory, &address)?;
    let source = Node::start(binary, &directory, "n1", &address, &[])?;
    let mut bed = Bed { binary, home, source };
    bed.source.leads().await?;
    println!("{} MB of data to seed a node with", data::file_bytes(&directory)? / 1_000_000);

    let (mut copies, mut seedings, mut source_growths) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        copies.push(bed.copy().await?);
        let seeded = bed.seed().await?;
        seedings.push(seeded.took);
        source_growths.push(seeded.source_growth);
    }
    let copy = line("copy through TCP, and sync", &mut copies);
    let found = line("seeding, verified", &mut seedings) / copy;
    println!(
        "{:<30} RssAnon grew by at most {} MB",
        "its source",
        source_growths.iter().max().unwrap_or(&0) / 1_000_000
    );
    marks.push(Mark { what: "seeding, MB/s against TCP".to_owned(), found, at_least: true, bound: 0.6 });
    marks.push(growth_mark("the receiver of a seeding", seedings.iter().map(|took| took.rss_growth)));
    marks.push(growth_mark("the source of a seeding", source_growths.into_iter()));
    if args.writers > 0 {
        let clients = Clients { count: args.writers, entries, value_bytes: args.value_bytes };
        beside_clients(args, bed, clients, marks).await?;
    }
    Ok(())
}

/// Makes the directory of a node that leads a cluster of its own, with the data in it. Returns how many entries it has.
fn fill(args: &BackupArgs, home: &Path, binary: &Path, directory: &Path, address: &str) -> Result<u64> {
    let (database, place) = (home.join("filled"), home.join("place"));
    fill_apart(args, &database)?;
    let filled = data::Data::open(&database, args.data_mib << 20, args.value_bytes)?;
    let mut options = BackupOptions::default();
    options.compress = false;
    let store = Arc::new(DirectoryStore::new(Arc::new(RealDisk::new()), &place));
    let go_on = &mut |_| std::ops::ControlFlow::Continue(());
    Backups::new(store, options).full(filled.database.engine(), go_on)?;
    let entries = filled.entries;
    drop(filled);
    std::fs::remove_dir_all(&database)?;
    let mut restore = Command::new(binary);
    restore.arg("restore").arg("--from").arg(&place).arg("--to").arg(directory);
    let restored = restore.args(["--name", "n1", "--listen", address, "--json"]).output()?;
    let words = String::from_utf8_lossy(&restored.stderr);
    ensure!(restored.status.success(), "the directory of the node that seeds cannot be made: {words}");
    std::fs::remove_dir_all(&place)?;
    Ok(entries)
}

impl Bed<'_> {
    /// The data file's bytes, through a connection to another file in the same folder.
    async fn copy(&self) -> Result<Took> {
        let (from, to) = (data::data_file(&self.source.process.dir)?, self.home.join("copy"));
        tokio::task::spawn_blocking(move || {
            let peak = Peak::of(std::process::id())?;
            let began = Instant::now();
            let bytes = tcp::copy(&from, &to)?;
            let seconds = began.elapsed().as_secs_f64();
            std::fs::remove_file(&to)?;
            Ok(Took { bytes, seconds, rss_growth: peak.growth() })
        })
        .await?
    }

    /// Adds a node, waits until it has all that there is, and takes it out again.
    async fn seed(&mut self) -> Result<Seeded> {
        let (node, seeded) = self.add().await?;
        take_out(node, self.source.address()).await?;
        Ok(seeded)
    }

    async fn add(&mut self) -> Result<(Node, Seeded)> {
        self.source.process.check()?;
        let (directory, address) = (self.home.join("n2"), free_address()?);
        let source_memory = Peak::of(self.source.process.pid())?;
        let began = Instant::now();
        let mut node = Node::start(self.binary, &directory, "n2", &address, &["--join", self.source.address()])?;
        node.listens().await?;
        let memory = Peak::of(node.process.pid())?;
        let status = node.catches_up(async || self.source.status().await).await?;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(status.generation > 1, "the new node was filled by the journal alone, not by pages: {status:?}");
        let took = Took { bytes: data::file_bytes(&directory)?, seconds, rss_growth: memory.growth() };
        Ok((node, Seeded { took, source_growth: source_memory.growth() }))
    }

    /// Starts the node that seeds anew, with a limit.
    async fn restart_limited(&mut self, mib_s: u64) -> Result<()> {
        let (directory, address) = (self.source.process.dir.clone(), self.source.address().to_owned());
        self.source.process.end(super::node::LIMIT)?;
        self.source = Node::start(self.binary, &directory, "n1", &address, &["--seed-mib-s", &mib_s.to_string()])?;
        self.source.leads().await
    }
}

/// Clients alone, beside a seeding at full speed, beside the node that was filled so, and beside a seeding that is limited.
async fn beside_clients(args: &BackupArgs, mut bed: Bed<'_>, clients: Clients, marks: &mut Vec<Mark>) -> Result<()> {
    let address = bed.source.address().to_owned();
    let (alone, ()) = clients.beside(&address, pause()).await?;
    alone.print("clients alone");
    let (unlimited, _, node) = beside_one(&mut bed, clients, &address).await?;
    unlimited.print("beside a seeding");
    // What the new node costs from then on has nothing to do with how it was filled.
    let (following, ()) = clients.beside(&address, pause()).await?;
    following.print("beside a node that follows");
    take_out(node, &address).await?;
    let Some(limit) = args.seed_limit_mib_s else { return Ok(()) };
    bed.restart_limited(limit).await?;
    let (limited, took, node) = beside_one(&mut bed, clients, &address).await?;
    take_out(node, &address).await?;
    let name = format!("beside a seeding of {limit} MiB/s");
    limited.print(&name);
    ensure!(took.mb_a_second() <= (limit << 20) as f64 / 1e6, "the limit of {limit} MiB/s is not kept");
    for (than, other) in [("alone", &alone), ("beside a node that follows", &following)] {
        let what = format!("clients {name}, commits against {than}");
        marks.push(Mark { what, found: limited.a_second() / other.a_second(), at_least: true, bound: 0.8 });
    }
    Ok(())
}

/// As long as clients alone are measured.
async fn pause() -> Result<()> {
    tokio::time::sleep(ALONE).await;
    Ok(())
}

/// Clients until the new node has what there was when it was asked last.
async fn beside_one(bed: &mut Bed<'_>, clients: Clients, address: &str) -> Result<(writers::Written, Took, Node)> {
    let (written, (node, seeded)) = clients.beside(address, bed.add()).await?;
    Ok((written, seeded.took, node))
}
