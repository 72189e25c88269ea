//! What the engine is at, by name: from the operation, the file, and what the node was asked to do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use calamus_engine::env::FileClass;

/// Follows the operations of a disk.
#[derive(Default)]
pub struct Steps {
    /// Spares that were made and are no recycled segments.
    fresh: BTreeSet<PathBuf>,
    /// Slots of `node.meta` that checkpoints have written: two with the target, then two with its end.
    slots_written: u32,
    /// The step of the operation before.
    last: &'static str,
}

impl Steps {
    /// The step that this operation is of.
    pub fn next(&mut self, operation: &str, path: &Path, doing: &str) -> &'static str {
        self.last = match (doing, FileClass::of(path)) {
            ("create", _) => "create",
            ("seed", FileClass::Meta) => "generation-switch",
            ("seed", _) if operation == "remove directory" => "generation-drop",
            ("seed", _) => "generation-build",
            (_, FileClass::Vote) => "vote",
            ("checkpoint" | "purge", FileClass::Meta) => self.meta(operation),
            (_, FileClass::Meta) => "meta",
            ("open", FileClass::Data) => "recovery-pages",
            ("open", FileClass::Journal) => "recovery-journal",
            (_, FileClass::Data) => match operation {
                "grow" | "extend" => "file-grow",
                "shrink" => "file-shrink",
                "sync" => "checkpoint-sync",
                _ => "checkpoint-pages",
            },
            (_, FileClass::Journal) if operation == "rename" || operation == "remove" => "purge",
            ("append", FileClass::Journal) => "append-group",
            ("cut", FileClass::Journal) => "cut",
            ("close", FileClass::Journal) => "attest",
            (_, FileClass::Journal) => "journal",
            (_, FileClass::Spare) => self.spare(operation, path),
            // Directories are synced for the sake of what was done just before.
            (_, FileClass::Other) if self.last.is_empty() => "start",
            (_, FileClass::Other) => self.last,
        };
        self.last
    }

    fn meta(&mut self, operation: &str) -> &'static str {
        if operation != "sync" {
            self.slots_written += 1;
        }
        if matches!(self.slots_written % 4, 1 | 2) { "checkpoint-target" } else { "checkpoint-finish" }
    }

    fn spare(&mut self, operation: &str, path: &Path) -> &'static str {
        if operation == "create" {
            self.fresh.insert(path.to_path_buf());
        }
        if operation == "rename" && !self.fresh.remove(path) { "segment-recycle" } else { "segment-new" }
    }
}

#[test]
fn steps_have_names() {
    let mut steps = Steps::default();
    let mut name = |operation, path: &str, doing| steps.next(operation, Path::new(path), doing);
    let (meta, data) = ("/db/node.meta", "/db/g1/data");
    assert_eq!(name("write", meta, "checkpoint"), "checkpoint-target");
    assert_eq!(name("sync", meta, "checkpoint"), "checkpoint-target");
    assert_eq!(name("write", meta, "checkpoint"), "checkpoint-target");
    assert_eq!(name("write", data, "checkpoint"), "checkpoint-pages");
    assert_eq!(name("extend", data, "checkpoint"), "file-grow");
    assert_eq!(name("sync", data, "checkpoint"), "checkpoint-sync");
    assert_eq!(name("write", meta, "checkpoint"), "checkpoint-finish");
    let (segment, spare) = ("/db/g1/journal/00000000000000000001.seg", "/db/g1/journal/spare-1");
    assert_eq!(name("rename", segment, "checkpoint"), "purge");
    assert_eq!(name("sync directory", "/db/g1/journal", "checkpoint"), "purge");
    assert_eq!(name("rename", spare, "append"), "segment-recycle");
    assert_eq!(name("create", spare, "append"), "segment-new");
    assert_eq!(name("rename", spare, "append"), "segment-new");
    assert_eq!(name("write", segment, "append"), "append-group");
}
