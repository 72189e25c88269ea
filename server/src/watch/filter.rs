//! What of a frame a watcher wants, as messages.

use std::collections::HashMap;
use std::ops::Bound;

use bytes::Bytes;
use calamus_engine::feed::{Change, ChangeKind, ChangedValue, FrameChanges, KeyBounds as Bounds};
use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::watch_change::Kind;
use calamus_proto::v1::{
    DeleteChange, DeleteRangeChange, KeyBounds, PutChange, TreeCreated, TreeDropped, TreeRenamed, ValueChange,
    ValuesRemoved, WatchChange, WatchTransaction,
};
use calamus_replication::execute::range::KeyRange;
use prost::Message;

/// Changes of one message take no more than this, if they are more than one, in bytes: with all that wraps them they
/// are below what clients take. A value has 8 MiB at most.
const CHANGES_BYTES: usize = MAX_MESSAGE_BYTES - (512 << 10);

/// What a watcher wants.
pub struct Filter {
    /// The tree; `None` for all.
    pub tree: Option<String>,
    /// The keys.
    pub range: KeyRange,
    /// Leave the values out.
    pub keys_only: bool,
    /// With all trees, those of the system too.
    pub include_system: bool,
}

impl Filter {
    /// The messages of a frame for a watcher that stands at txn `follows`. `new` are its changes that count.
    pub fn messages(&self, frame: &FrameChanges, new: &[Change], follows: u64) -> Vec<WatchTransaction> {
        let mut messages: Vec<WatchTransaction> = Vec::new();
        let mut stands_at = follows;
        for of_txn in new.chunk_by(|a, b| a.txn == b.txn) {
            let wanted: Vec<&Change> = of_txn.iter().filter(|change| self.wants(frame, change)).collect();
            if wanted.is_empty() {
                continue;
            }
            let txn_id = of_txn[0].txn.0;
            let begun = WatchTransaction {
                txn_id,
                follows: stands_at,
                wall_time_micros: frame.wall_time_micros(),
                ..WatchTransaction::default()
            };
            self.fill(begun, &wanted, frame, CHANGES_BYTES, &mut messages);
            stands_at = txn_id;
        }
        messages
    }

    /// Puts changes into as few messages as they fit into.
    fn fill(
        &self,
        begun: WatchTransaction,
        wanted: &[&Change],
        frame: &FrameChanges,
        most_bytes: usize,
        messages: &mut Vec<WatchTransaction>,
    ) {
        let mut message = begun.clone();
        let (mut places, mut bytes) = (HashMap::new(), 0);
        for change in wanted {
            let name = &frame.trees()[usize::from(change.tree)];
            let next = places.len();
            let tree = *places.entry(change.tree).or_insert(next);
            let change = WatchChange { tree: tree as u32, kind: Some(self.kind(&change.kind)) };
            // Its tag, the length before it, and its tree's name once more.
            let size = change.encoded_len() + 8 + name.len();
            if bytes + size > most_bytes && !message.changes.is_empty() {
                message.more = true;
                messages.push(std::mem::replace(&mut message, begun.clone()));
                bytes = 0;
                // Names are told again: each message can be read alone.
                message.trees.clone_from(&messages.last().expect("pushed just now").trees);
            }
            bytes += size;
            if tree == message.trees.len() {
                message.trees.push(name.clone());
            }
            message.changes.push(change);
        }
        messages.push(message);
    }

    fn wants(&self, frame: &FrameChanges, change: &Change) -> bool {
        let name = frame.trees()[usize::from(change.tree)].as_str();
        let wants_tree = |name: &str| match &self.tree {
            Some(tree) => tree == name,
            None => self.include_system || !name.starts_with('$'),
        };
        match &change.kind {
            // Also where it is the new name that is watched.
            ChangeKind::RenameTree { new_name } => wants_tree(name) || wants_tree(new_name),
            _ if !wants_tree(name) => false,
            ChangeKind::CreateTree { .. } | ChangeKind::DropTree => true,
            ChangeKind::DeleteRange { range } => self.touches(range),
            ChangeKind::Put { key, .. }
            | ChangeKind::Delete { key }
            | ChangeKind::AddValue { key, .. }
            | ChangeKind::RemoveValue { key, .. }
            | ChangeKind::RemoveValues { key, .. } => self.range.contains(key),
        }
    }

    /// Whether a deleted range may have had keys that are watched.
    fn touches(&self, deleted: &Bounds) -> bool {
        let begins_before_the_end = match (&deleted.start, self.range.end()) {
            (Bound::Included(start) | Bound::Excluded(start), Some(end)) => &start[..] < end,
            _ => true,
        };
        let ends_behind_the_start = match &deleted.end {
            Bound::Included(end) => &end[..] >= self.range.start(),
            Bound::Excluded(end) => &end[..] > self.range.start(),
            Bound::Unbounded => true,
        };
        begins_before_the_end && ends_behind_the_start && !self.range.is_empty()
    }

    fn kind(&self, kind: &ChangeKind) -> Kind {
        let value_of = |value: &ChangedValue| if self.keys_only { Bytes::new() } else { value.to_bytes() };
        // The values of a key with many are what was added or removed, as its key is.
        let member = |key: &Bytes, value: &ChangedValue| ValueChange { key: key.clone(), value: value.to_bytes() };
        match kind {
            ChangeKind::Put { key, value } => Kind::Put(PutChange { key: key.clone(), value: value_of(value) }),
            ChangeKind::Delete { key } => Kind::Delete(DeleteChange { key: key.clone() }),
            ChangeKind::DeleteRange { range } => Kind::DeleteRange(DeleteRangeChange { range: Some(bounds(range)) }),
            ChangeKind::CreateTree { multi } => Kind::TreeCreated(TreeCreated { many_values: *multi }),
            ChangeKind::DropTree => Kind::TreeDropped(TreeDropped {}),
            ChangeKind::RenameTree { new_name } => Kind::TreeRenamed(TreeRenamed { new_name: new_name.clone() }),
            ChangeKind::AddValue { key, value } => Kind::ValueAdded(member(key, value)),
            ChangeKind::RemoveValue { key, value } => Kind::ValueRemoved(member(key, value)),
            ChangeKind::RemoveValues { key, range } => {
                Kind::ValuesRemoved(ValuesRemoved { key: key.clone(), range: Some(bounds(range)) })
            }
        }
    }
}

fn bounds(range: &Bounds) -> KeyBounds {
    let (start, start_excluded) = match &range.start {
        Bound::Included(start) => (start.clone(), false),
        Bound::Excluded(start) => (start.clone(), true),
        Bound::Unbounded => (Bytes::new(), false),
    };
    let (end, end_included) = match &range.end {
        Bound::Included(end) => (Some(end.clone()), true),
        Bound::Excluded(end) => (Some(end.clone()), false),
        Bound::Unbounded => (None, false),
    };
    KeyBounds { start, start_excluded, end, end_included }
}

#[cfg(test)]
mod filter_test;
