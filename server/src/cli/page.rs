//! `calamus page DIR NUMBER`: one page of a stopped node's data file.

use std::path::PathBuf;
use std::sync::Arc;

use calamus_engine::Engine;
use calamus_engine::env::{Disk, RealDisk};
use calamus_engine::ids::PageNumber;
use calamus_engine::offline::{PageContent, PageReport, inspect_page};
use calamus_engine::page::PageKind;
use clap::Args;
use serde_json::{Value, json};

use super::common::print;
use super::{Exit, Failure};

/// Keys are shown up to this length, in bytes.
const SHOWN_KEY_BYTES: usize = 32;

/// Shows a page of a node's data file while the node is stopped: kind, checksum, cells. Changes nothing.
#[derive(Debug, Args)]
pub struct PageArgs {
    /// The directory of a node.
    dir: PathBuf,
    /// The number of the page; its offset in the data file is 8192 times that.
    number: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &PageArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let what = format!("cannot show page {} of {}", args.number, args.dir.display());
    let next = "give the directory of a stopped node, the one with node.meta in it";
    // Taking the lock of a directory that is not ours would leave a file in it.
    match Engine::exists(&*disk, &args.dir) {
        Ok(true) => {}
        Ok(false) => return Err(Failure::new(what, "it holds no node.meta", next)),
        Err(error) => return Err(Failure::new(what, error, next)),
    }
    let report = match inspect_page(&disk, &args.dir, PageNumber(args.number)) {
        Ok(Some(report)) => report,
        Ok(None) => return Err(Failure::new(what, "the data file ends before it", "give a smaller number")),
        Err(error) => return Err(Failure::new(what, error, next)),
    };
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&to_json(&report)).expect("a value is always JSON"))
    } else {
        words(&report)
    };
    print(&text, if report.is_clean() { Exit::Done } else { Exit::No })
}

fn kind_word(kind: Option<PageKind>) -> &'static str {
    match kind {
        Some(PageKind::Free) => "free",
        Some(PageKind::Superblock) => "superblock",
        Some(PageKind::Bitmap) => "bitmap",
        Some(PageKind::Leaf) => "leaf",
        Some(PageKind::Branch) => "branch",
        Some(PageKind::Overflow) => "overflow",
        None => "unknown",
    }
}

/// A key as text, with what is not printable escaped, and cut short.
fn short(key: &[u8]) -> String {
    let shown = key[..key.len().min(SHOWN_KEY_BYTES)].escape_ascii();
    if key.len() > SHOWN_KEY_BYTES { format!("{shown}... ({} bytes)", key.len()) } else { shown.to_string() }
}

fn words(report: &PageReport) -> String {
    let fits = if report.checksum == report.computed { "fits" } else { "DOES NOT FIT" };
    let mut lines = vec![
        format!("page {} at offset {}, {}", report.number, report.offset, kind_word(report.kind)),
        format!("checksum {:016x} {fits} (computed {:016x})", report.checksum, report.computed),
    ];
    if report.checkpoint_under_way {
        lines
            .push("a checkpoint was under way: the page may be a mixture, which the next start makes whole".to_owned());
    }
    match &report.content {
        PageContent::Superblock(block) => {
            lines.push(format!("txn {}, {} pages, timeline {}", block.txn_id, block.page_count, block.timeline.0));
        }
        PageContent::Bitmap(allocated) => lines.push(format!("{allocated} pages allocated")),
        PageContent::Leaf(entries) => lines.extend(entries.iter().enumerate().map(|(slot, entry)| {
            let run = entry.run.map_or_else(String::new, |first| format!(" from page {first}"));
            let many = entry.many.map_or_else(String::new, |count| match entry.many_root {
                Some(root) => format!(" (of a multi-value tree: {count} values, in a tree from page {root})"),
                None => format!(" (of a multi-value tree: {count} values)"),
            });
            format!("{slot:>4}  {}  txn {}, {} bytes{run}{many}", short(&entry.key), entry.version, entry.value_bytes)
        })),
        PageContent::Branch(children) => {
            let slots = children.iter().enumerate();
            lines.extend(slots.map(|(slot, (key, child))| format!("{slot:>4}  {}  page {child}", short(key))));
        }
        PageContent::Opaque => {}
    }
    lines.extend(report.damage.iter().map(|what| format!("DAMAGE {what}")));
    lines.join("\n") + "\n"
}

fn to_json(report: &PageReport) -> Value {
    let cells: Vec<Value> = match &report.content {
        PageContent::Leaf(entries) => entries
            .iter()
            .map(|entry| {
                json!({ "key": short(&entry.key), "version": entry.version.0, "value_bytes": entry.value_bytes,
                "run": entry.run.map(|first| first.0), "many": entry.many,
                "many_root": entry.many_root.map(|root| root.0) })
            })
            .collect(),
        PageContent::Branch(children) => {
            children.iter().map(|(key, child)| json!({ "key": short(key), "child": child.0 })).collect()
        }
        PageContent::Superblock(_) | PageContent::Bitmap(_) | PageContent::Opaque => Vec::new(),
    };
    json!({
        "page": report.number.0, "offset": report.offset, "kind": kind_word(report.kind),
        "checksum": format!("{:016x}", report.checksum), "computed": format!("{:016x}", report.computed),
        "checksum_fits": report.checksum == report.computed, "checkpoint_under_way": report.checkpoint_under_way,
        "damage": report.damage, "cells": cells,
    })
}
