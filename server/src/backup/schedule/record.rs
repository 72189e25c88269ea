//! What the nodes have agreed on about a target: an entry of the tree `$backup`, under the target's name.
//!
//! ```text
//! JSON (see [`Record`], whose fields stand in it by their names)
//! ```
//!
//! It is changed only by transactions that hold if it is still the version that was read, so nobody overwrites what he has not
//! seen. A node of an earlier version ignores what it does not know; a later one has defaults for what is missing.

use std::time::{SystemTime, UNIX_EPOCH};

use calamus_proto::v1::guard::Condition;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::version_compare::Operator;
use calamus_proto::v1::{Consistency, Guard, Operation, Put, ScheduledBackup, TxnRequest, VersionCompare};
use calamus_replication::Node;
use calamus_replication::error::TxnError;
use serde::{Deserialize, Serialize};

/// The tree.
const TREE: &str = "$backup";

/// What is agreed about one target. Times are the wall clock of the node that wrote them, in microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The cluster that it is about.
    pub cluster_id: String,
    /// Who makes a backup now.
    pub running: Option<Running>,
    /// When the newest full backup began.
    pub full_micros: Option<u64>,
    /// When the newest backup began.
    pub success_micros: Option<u64>,
    /// The node that made it.
    pub made_by: String,
    /// When the last attempt failed; 0 if it did not.
    pub failed_micros: u64,
    /// Why it did.
    pub error: String,
}

/// Who makes a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Running {
    /// Its raft id.
    pub raft_id: u64,
    /// Its name.
    pub name: String,
    /// How often the claim was renewed: others see that the record changes.
    pub renewed: u64,
}

/// A record, and the version of the entry that it was read from: 0 if there was none.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What is agreed.
    pub record: Record,
    /// The txn id that wrote it last.
    pub version: u64,
}

impl Known {
    /// What this node knows of a target; `None` while it cannot be read.
    pub async fn read(node: &Node, target: &str) -> Option<Known> {
        let (txn, _) = node.read(Consistency::Local).await.ok()?;
        let cluster_id = node.engine().identity().cluster_id.to_string();
        let entry = txn.get(TREE, target.as_bytes()).ok()?;
        let Some(entry) = entry else { return Some(Known { record: fresh(cluster_id), version: 0 }) };
        let version = entry.version.0;
        let record = decode(&entry.value.to_vec().ok()?).filter(|record| record.cluster_id == cluster_id);
        Some(Known { record: record.unwrap_or_else(|| fresh(cluster_id)), version })
    }

    /// Replaces the record, if it is still this one. Returns what is known then; `None` if somebody else has changed it.
    ///
    /// # Errors
    /// Not committed, or unknown: whoever reads next finds out.
    pub async fn replace(&self, node: &Node, target: &str, record: Record) -> Result<Option<Known>, TxnError> {
        let key = bytes::Bytes::copy_from_slice(target.as_bytes());
        let unchanged = VersionCompare { operator: Operator::Equal.into(), version: self.version };
        let guard = Guard { tree: TREE.to_owned(), key: key.clone(), condition: Some(Condition::Version(unchanged)) };
        let value = serde_json::to_vec(&record).expect("strings and numbers are always JSON").into();
        let put = Put { tree: TREE.to_owned(), key, value, tree_must_exist: false };
        let request = TxnRequest {
            guards: vec![guard],
            operations: vec![Operation { kind: Some(Kind::Put(put)) }],
            ..TxnRequest::default()
        };
        let answer = node.system_txn(request).await?;
        Ok(answer.guards_held.then_some(Known { record, version: answer.txn_id }))
    }
}

fn fresh(cluster_id: String) -> Record {
    Record { cluster_id, ..Record::default() }
}

fn decode(bytes: &[u8]) -> Option<Record> {
    serde_json::from_slice(bytes).ok()
}

/// What is agreed about all targets, for the status of the cluster; nothing while it cannot be read.
pub async fn all(node: &Node) -> Vec<ScheduledBackup> {
    let Ok((txn, _)) = node.read(Consistency::Local).await else { return Vec::new() };
    let cluster_id = node.engine().identity().cluster_id.to_string();
    let mut found = Vec::new();
    let Ok(Some(mut cursor)) = txn.cursor(TREE) else { return found };
    let mut at_entry = cursor.first();
    while let Ok(true) = at_entry {
        let record = cursor.value().to_vec().ok().and_then(|value| decode(&value));
        if let Some(record) = record.filter(|record| record.cluster_id == cluster_id) {
            found.push(told(String::from_utf8_lossy(cursor.key()).into_owned(), record));
        }
        at_entry = cursor.next();
    }
    found
}

fn told(target: String, record: Record) -> ScheduledBackup {
    let seconds = |micros: u64| micros / 1_000_000;
    let age = |since: u64| seconds(now_micros().saturating_sub(since));
    ScheduledBackup {
        target,
        running_on: record.running.map(|running| running.name).unwrap_or_default(),
        last_success_at: record.success_micros.map(seconds),
        age_seconds: record.success_micros.map(age),
        last_full_at: record.full_micros.map(seconds),
        made_by: record.made_by,
        error: record.error,
    }
}

/// Now, by this node's wall clock, in microseconds since 1970.
pub(super) fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_what_is_missing_or_new() {
        let record = Record {
            cluster_id: "c".to_owned(),
            running: Some(Running { raft_id: 7, name: "n2".to_owned(), renewed: 3 }),
            success_micros: Some(5),
            ..Record::default()
        };
        let text = r#"{"cluster_id":"c","running":{"raft_id":7,"name":"n2","renewed":3},"full_micros":null,"success_micros":5,"made_by":"","failed_micros":0,"error":""}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(decode(text.as_bytes()), Some(record));
        let other = decode(br#"{"cluster_id":"c","running":{"raft_id":7},"to_come":1}"#).unwrap();
        assert_eq!(other.running.map(|running| running.raft_id), Some(7));
        assert_eq!(decode(b"{"), None);
    }
}
