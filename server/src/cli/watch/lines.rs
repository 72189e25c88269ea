//! A transaction as text for people, a line a change, or as one line of JSON.

use std::fmt::Write;

use calamus_client::WatchedTxn;
use calamus_client::proto::watch_change::Kind;
use calamus_client::proto::{KeyBounds, WatchChange};
use serde_json::{Map, Value, json};

use crate::cli::data::bytes::{escape, set_json, to_hex};

/// `TXN  TREE  what  key  value`, separated by tabs.
pub(super) fn text(txn: &WatchedTxn, hex: bool, keys_only: bool) -> String {
    let show = if hex { to_hex } else { escape };
    let bounds = |range: &Option<KeyBounds>| {
        let range = range.clone().unwrap_or_default();
        let start = format!("{}{}", if range.start_excluded { "(" } else { "[" }, show(&range.start));
        let end = range.end.as_deref().map(show).unwrap_or_default();
        format!("{start}, {end}{}", if range.end_included { "]" } else { ")" })
    };
    let mut text = String::new();
    for (tree, WatchChange { kind, .. }) in &txn.changes {
        let what = match kind {
            Some(Kind::Put(put)) if keys_only => format!("put\t{}", show(&put.key)),
            Some(Kind::Put(put)) => format!("put\t{}\t{}", show(&put.key), show(&put.value)),
            Some(Kind::Delete(delete)) => format!("delete\t{}", show(&delete.key)),
            Some(Kind::DeleteRange(deleted)) => format!("delete range\t{}", bounds(&deleted.range)),
            Some(Kind::TreeCreated(_)) => "create tree".to_owned(),
            Some(Kind::TreeDropped(_)) => "drop tree".to_owned(),
            Some(Kind::TreeRenamed(renamed)) => format!("rename tree\t{}", renamed.new_name),
            Some(Kind::ValueAdded(added)) => format!("add value\t{}\t{}", show(&added.key), show(&added.value)),
            Some(Kind::ValueRemoved(gone)) => format!("remove value\t{}\t{}", show(&gone.key), show(&gone.value)),
            Some(Kind::ValuesRemoved(gone)) => format!("remove values\t{}\t{}", show(&gone.key), bounds(&gone.range)),
            None => "a change that this version does not know".to_owned(),
        };
        writeln!(text, "{}\t{tree}\t{what}", txn.txn_id).expect("a string takes all");
    }
    text
}

/// `{"txn_id":..,"wall_time_micros":..,"changes":[{"tree":..,"op":..,"key":..,"value":..}]}`
pub(super) fn json(txn: &WatchedTxn, hex: bool) -> String {
    let changes: Vec<Value> = txn.changes.iter().map(|(tree, change)| object(tree, change, hex)).collect();
    let line = json!({ "txn_id": txn.txn_id, "wall_time_micros": txn.wall_time_micros, "changes": changes });
    format!("{line}\n")
}

fn object(tree: &str, change: &WatchChange, hex: bool) -> Value {
    let mut object = Map::new();
    object.insert("tree".to_owned(), tree.into());
    let mut set = |op: &str, fields: &[(&str, &[u8])]| {
        object.insert("op".to_owned(), op.into());
        for (name, bytes) in fields {
            set_json(&mut object, name, bytes, hex);
        }
    };
    match &change.kind {
        Some(Kind::Put(put)) => set("put", &[("key", &put.key), ("value", &put.value)]),
        Some(Kind::Delete(delete)) => set("delete", &[("key", &delete.key)]),
        Some(Kind::DeleteRange(deleted)) => {
            set("delete_range", &[]);
            set_bounds(&mut object, &deleted.range, hex);
        }
        Some(Kind::TreeCreated(created)) => {
            set("create_tree", &[]);
            object.insert("many_values".to_owned(), created.many_values.into());
        }
        Some(Kind::TreeDropped(_)) => set("drop_tree", &[]),
        Some(Kind::TreeRenamed(renamed)) => {
            set("rename_tree", &[]);
            object.insert("new_name".to_owned(), renamed.new_name.clone().into());
        }
        Some(Kind::ValueAdded(added)) => set("add_value", &[("key", &added.key), ("value", &added.value)]),
        Some(Kind::ValueRemoved(gone)) => set("remove_value", &[("key", &gone.key), ("value", &gone.value)]),
        Some(Kind::ValuesRemoved(gone)) => {
            set("remove_values", &[("key", &gone.key)]);
            set_bounds(&mut object, &gone.range, hex);
        }
        None => set("unknown", &[]),
    }
    Value::Object(object)
}

fn set_bounds(object: &mut Map<String, Value>, range: &Option<KeyBounds>, hex: bool) {
    let range = range.clone().unwrap_or_default();
    set_json(object, "start", &range.start, hex);
    object.insert("start_excluded".to_owned(), range.start_excluded.into());
    if let Some(end) = &range.end {
        set_json(object, "end", end, hex);
        object.insert("end_included".to_owned(), range.end_included.into());
    }
}
