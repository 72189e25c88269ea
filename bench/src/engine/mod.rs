//! The engine alone, beside LMDB, redb and fjall (and RocksDB, if it was built in): the same work in one run, in turns, on
//! one file system.
//!
//! ```text
//! rows     what is measured, and the marks
//! window   one row on one engine, in a process of its own
//! store    what every engine is asked to do
//! data     keys and values
//! device   bytes that went to the disk
//! calamus, lmdb, redb, fjall, rocksdb
//! ```

mod calamus;
mod data;
mod device;
mod fjall;
mod lmdb;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod rows;
mod store;
mod window;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};

use crate::report::Mark;
use rows::{Dataset, ROWS, Row, Work};
use store::Rival;
use window::Measured;
pub use window::{WindowArgs, run as run_window};

#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// The folder for data; a new one within it is used and removed. By default the build's target folder: it is on a disk, as
    /// /tmp may not be.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only rows whose name has one of these in it.
    #[arg(long, value_delimiter = ';')]
    only: Vec<String>,
    /// The engines.
    #[arg(long, value_delimiter = ',')]
    rivals: Vec<Rival>,
    /// How often each row is measured; medians are reported.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// The length of a window.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Entries of 256 B that are there before; of 4 KiB a tenth of that, of 256 KiB one in 500.
    #[arg(long, default_value_t = 500_000)]
    entries: u64,
    /// A line of JSON for each window instead of tables.
    #[arg(long)]
    json: bool,
}

struct Bench {
    args: EngineArgs,
    rivals: Vec<Rival>,
    dir: tempfile::TempDir,
    program: PathBuf,
}

pub fn run(args: EngineArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.seconds > 0.0 && args.entries > 0, "rounds, seconds and entries are above 0");
    let within = args.dir.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"));
    refuse_memory(&within)?;
    let rivals = if args.rivals.is_empty() { Rival::value_variants().to_vec() } else { args.rivals.clone() };
    let dir = tempfile::Builder::new().prefix("calamus-bench-").tempdir_in(&within)?;
    let bench = Bench { args, rivals, dir, program: std::env::current_exe()? };
    let rows: Vec<Row> = ROWS.into_iter().filter(|row| bench.wants(row)).collect();
    ensure!(!rows.is_empty(), "no row has such a name; there are: {}", ROWS.map(|row| row.name).join("; "));
    let mut marks = bench.load(&rows)?;
    for row in rows {
        let measured = bench.measure(&row)?;
        marks.extend(rows::marks(&row, &|rival| measured.get(&rival).cloned()));
    }
    for mark in &marks {
        if bench.args.json { println!("{}", mark.json()) } else { println!("{}", mark.text()) }
    }
    Ok(())
}

/// A file system in memory makes every sync free.
fn refuse_memory(dir: &Path) -> Result<()> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let kind = rustix::fs::statfs(dir).with_context(|| format!("{} cannot be looked at", dir.display()))?.f_type;
    ensure!(
        kind as u64 != TMPFS_MAGIC,
        "{} is in memory, where a sync costs nothing; name a folder on a disk with --dir",
        dir.display()
    );
    Ok(())
}

impl Bench {
    fn wants(&self, row: &Row) -> bool {
        self.args.only.is_empty() || self.args.only.iter().any(|part| row.name.contains(part.as_str()))
    }

    fn folder(&self, dataset: Dataset, rival: Rival) -> PathBuf {
        self.dir.path().join(dataset.name).join(rival.name())
    }

    /// Runs a window, or a fill, in a process of its own, and returns what it printed.
    fn child(&self, rival: Rival, dir: &Path, seed: u64, more: [&str; 2]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(["engine-window", "--rival", rival.to_possible_value().context("a name")?.get_name()])
            .arg("--dir")
            .arg(dir)
            .args(["--entries", &self.args.entries.to_string(), "--seconds", &self.args.seconds.to_string()])
            .args(["--seed", &seed.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "{} ended with {}", rival.name(), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Fills every data set that the rows need, for every engine. Says how large the files are.
    fn load(&self, rows: &[Row]) -> Result<Vec<Mark>> {
        let mut marks = Vec::new();
        for dataset in rows::DATASETS {
            if !rows.iter().any(|row| row.dataset == dataset && row.work != Work::BulkLoad) {
                continue;
            }
            let mut sizes = BTreeMap::new();
            for rival in &self.rivals {
                let dir = self.folder(dataset, *rival);
                self.child(*rival, &dir, 1, ["--fill", dataset.name])?;
                sizes.insert(*rival, rival.data_bytes(&dir));
            }
            if !self.args.json {
                let text: Vec<String> =
                    sizes.iter().map(|(rival, bytes)| format!("{} {:.1}", rival.name(), *bytes as f64 / 1e6)).collect();
                println!("{} loaded, MB of data on the disk: {}", dataset.name, text.join(", "));
            }
            if let Some((ours, lmdb)) = sizes.get(&Rival::Calamus).zip(sizes.get(&Rival::Lmdb)) {
                marks.extend(rows::size_mark(dataset, *ours, *lmdb));
            }
        }
        Ok(marks)
    }

    /// Medians of all rounds, in which the engines take turns.
    fn measure(&self, row: &Row) -> Result<BTreeMap<Rival, Measured>> {
        let mut rounds: BTreeMap<Rival, Vec<Measured>> = BTreeMap::new();
        for round in 0..self.args.rounds {
            for rival in &self.rivals {
                let measured = self.window(row, *rival, round)?;
                if self.args.json {
                    let (row, rival) = (row.name, rival.name());
                    println!(
                        "{}",
                        serde_json::json!({ "row": row, "engine": rival, "measured": format!("{measured:?}") })
                    );
                }
                rounds.entry(*rival).or_default().push(measured);
            }
        }
        let medians: BTreeMap<Rival, Measured> =
            rounds.into_iter().map(|(rival, measured)| (rival, median(&measured))).collect();
        if !self.args.json {
            println!("\n{}\n{}", row.name, table(&medians));
        }
        Ok(medians)
    }

    fn window(&self, row: &Row, rival: Rival, round: u64) -> Result<Measured> {
        let loaded = self.folder(row.dataset, rival);
        let scratch = self.dir.path().join("scratch");
        let fresh = row.work == Work::BulkLoad || (rival == Rival::Lmdb && row.work.writes());
        if fresh && row.work != Work::BulkLoad {
            copy_synced(&loaded, &scratch)?;
        }
        let dir = if fresh { &scratch } else { &loaded };
        let printed = self.child(rival, dir, round + 2, ["--row", row.name])?;
        if fresh {
            fs::remove_dir_all(&scratch)?;
        }
        Measured::from_json(printed.trim()).with_context(|| format!("{} printed {printed:?}", rival.name()))
    }
}

fn copy_synced(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        fs::copy(entry.path(), &copy)?;
        File::open(copy)?.sync_all()?;
    }
    Ok(())
}

fn median(rounds: &[Measured]) -> Measured {
    let of = |value: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Measured {
        operations_a_second: of(|m| m.operations_a_second),
        p50: of(|m| m.p50),
        p99: of(|m| m.p99),
        written_per_user_byte: of(|m| m.written_per_user_byte),
        checkpoints: rounds.iter().map(|m| m.checkpoints).min().flatten(),
    }
}

fn table(medians: &BTreeMap<Rival, Measured>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["engine", "op/s", "p50 us", "p99 us", "written/user", "checkpoints", "calamus is x"]);
    let ours = medians.get(&Rival::Calamus).map(|m| m.operations_a_second);
    for (rival, m) in medians {
        let or_none = |value: f64, text: String| if value == 0.0 { "-".to_owned() } else { text };
        table.add_row([
            rival.name().to_owned(),
            format!("{:.0}", m.operations_a_second),
            or_none(m.p50, format!("{:.1}", m.p50)),
            or_none(m.p99, format!("{:.1}", m.p99)),
            or_none(m.written_per_user_byte, format!("{:.2}", m.written_per_user_byte)),
            m.checkpoints.map_or("-".to_owned(), |count| count.to_string()),
            ours.map_or("-".to_owned(), |ours| format!("{:.2}", ours / m.operations_a_second)),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_each_number_by_itself() {
        let one = |operations_a_second, p50, checkpoints| Measured {
            operations_a_second,
            p50,
            checkpoints,
            ..Measured::default()
        };
        let all = median(&[one(1.0, 9.0, Some(4)), one(3.0, 7.0, Some(3)), one(2.0, 8.0, Some(5))]);
        assert_eq!((all.operations_a_second, all.p50, all.checkpoints), (2.0, 8.0, Some(3)));
    }
}
