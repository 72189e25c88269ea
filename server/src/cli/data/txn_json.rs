//! A transaction as JSON, and its answer.

use bytes::Bytes;
use calamus_client::proto::guard::Condition;
use calamus_client::proto::operation::Kind;
use calamus_client::proto::operation_result::Kind as ResultKind;
use calamus_client::proto::version_compare::Operator;
use calamus_client::proto::{self, Guard, Operation, OperationResult, TxnRequest};
use calamus_client::{Committed, Entry, Range, Txn};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::bytes::{from_hex, set_json};

/// Shown by `calamus txn --help`; the same in docs/operations/txn.md.
pub(super) const HELP: &str = r#"The transaction is one JSON object. If all guards hold, `operations` run, else `otherwise`:

  {"guards":     [{"tree": "t", "key": "a", "exists": true},
                  {"tree": "t", "key": "a", "value": "old"},
                  {"tree": "t", "key": "a", "version": {"equal": 7}}],
   "operations": [{"put": {"tree": "t", "key": "a", "value": "new"}},
                  {"get": {"tree": "t", "key": "a"}}],
   "otherwise":  [{"get": {"tree": "t", "key": "a"}}]}

Versions compare with equal, not_equal, less or greater; a missing key has version 0.
Operations: put {tree, key, value, tree_must_exist?}; delete {tree, key}; delete_range {tree, RANGE}; get {tree, key};
scan {tree, RANGE, limit?, reverse?}; add {tree, key, amount}; put_next {tree, prefix, value}; create_tree {tree};
drop_tree {tree}; rename_tree {tree, new_name}. RANGE is prefix, or start and end, each optional.
Bytes that are no text go under the name with _hex: "key_hex": "00ff".
The answer is JSON. Exit code 4 says that a guard did not hold. With --idempotent, guards that do not hold after an attempt
whose outcome is unknown are outcome unknown (exit code 3): that attempt may have run."#;

/// What is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    #[serde(default)]
    guards: Vec<GuardForm>,
    #[serde(default)]
    operations: Vec<OperationForm>,
    #[serde(default)]
    otherwise: Vec<OperationForm>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuardForm {
    tree: String,
    key: Option<String>,
    key_hex: Option<String>,
    exists: Option<bool>,
    value: Option<String>,
    value_hex: Option<String>,
    version: Option<VersionForm>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum VersionForm {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    Greater(u64),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OperationForm {
    Put(KeyForm),
    Delete(KeyForm),
    DeleteRange(RangeForm),
    Get(KeyForm),
    Scan(RangeForm),
    Add(KeyForm),
    PutNext(RangeForm),
    CreateTree(TreeForm),
    DropTree(TreeForm),
    RenameTree(TreeForm),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    tree: String,
    key: Option<String>,
    key_hex: Option<String>,
    value: Option<String>,
    value_hex: Option<String>,
    amount: Option<i64>,
    tree_must_exist: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeForm {
    tree: String,
    start: Option<String>,
    start_hex: Option<String>,
    end: Option<String>,
    end_hex: Option<String>,
    prefix: Option<String>,
    prefix_hex: Option<String>,
    limit: Option<u32>,
    reverse: Option<bool>,
    value: Option<String>,
    value_hex: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeForm {
    tree: String,
    new_name: Option<String>,
}

/// Text, or hex digits, but not both; `None` for neither.
fn optional(name: &str, text: Option<String>, hex: Option<String>) -> Result<Option<Bytes>, String> {
    match (text, hex) {
        (Some(_), Some(_)) => Err(format!("`{name}` and `{name}_hex` exclude each other")),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(hex)) => from_hex(&hex).map(|b| Some(b.into())).map_err(|why| format!("`{name}_hex`: {why}")),
        (None, None) => Ok(None),
    }
}

fn required(name: &str, text: Option<String>, hex: Option<String>) -> Result<Bytes, String> {
    optional(name, text, hex)?.ok_or_else(|| format!("`{name}` (or `{name}_hex`) is missing"))
}

/// Refuses what is set and has no meaning here: it would be lost silently.
fn only(operation: &str, extra: &[(&str, bool)]) -> Result<(), String> {
    match extra.iter().find(|(_, is_set)| *is_set) {
        Some((name, _)) => Err(format!("`{operation}` takes no `{name}`")),
        None => Ok(()),
    }
}

impl Description {
    pub fn into_txn(self) -> Result<Txn, String> {
        let each = |list: &str, operations: Vec<OperationForm>| -> Result<Vec<Operation>, String> {
            let place =
                |(n, form): (usize, OperationForm)| form.into_kind().map_err(|why| format!("{list}[{n}]: {why}"));
            let kinds = operations.into_iter().enumerate().map(place);
            kinds.map(|kind| Ok(Operation { kind: Some(kind?) })).collect()
        };
        let place = |(n, form): (usize, GuardForm)| form.into_guard().map_err(|why| format!("guards[{n}]: {why}"));
        let guards = self.guards.into_iter().enumerate().map(place).collect::<Result<_, _>>()?;
        let operations = each("operations", self.operations)?;
        let otherwise = each("otherwise", self.otherwise)?;
        Ok(Txn::from_request(TxnRequest { guards, operations, otherwise, ..TxnRequest::default() }))
    }
}

impl GuardForm {
    fn into_guard(self) -> Result<Guard, String> {
        let key = required("key", self.key, self.key_hex)?;
        let value = optional("value", self.value, self.value_hex)?;
        let version = self.version.map(|version| match version {
            VersionForm::Equal(v) => (Operator::Equal, v),
            VersionForm::NotEqual(v) => (Operator::NotEqual, v),
            VersionForm::Less(v) => (Operator::Less, v),
            VersionForm::Greater(v) => (Operator::Greater, v),
        });
        let condition = match (self.exists, value, version) {
            (Some(exists), None, None) => Condition::Exists(exists),
            (None, Some(value), None) => Condition::ValueEquals(value),
            (None, None, Some((operator, version))) => {
                Condition::Version(proto::VersionCompare { operator: operator.into(), version })
            }
            _ => return Err("exactly one of `exists`, `value` and `version` says what must hold".to_owned()),
        };
        Ok(Guard { tree: self.tree, key, condition: Some(condition) })
    }
}

impl OperationForm {
    fn into_kind(self) -> Result<Kind, String> {
        Ok(match self {
            OperationForm::Put(form) => {
                only("put", &[("amount", form.amount.is_some())])?;
                let (key, value) = (form.key()?, required("value", form.value, form.value_hex)?);
                let tree_must_exist = form.tree_must_exist.unwrap_or(false);
                Kind::Put(proto::Put { tree: form.tree, key, value, tree_must_exist })
            }
            OperationForm::Delete(form) => {
                form.only_key("delete")?;
                Kind::Delete(proto::Delete { key: form.key()?, tree: form.tree })
            }
            OperationForm::Get(form) => {
                form.only_key("get")?;
                Kind::Get(proto::GetOperation { key: form.key()?, tree: form.tree })
            }
            OperationForm::Add(form) => {
                only("add", &[("value", form.has_value()), ("tree_must_exist", form.tree_must_exist.is_some())])?;
                let amount = form.amount.ok_or("`amount` is missing")?;
                Kind::Add(proto::Add { key: form.key()?, tree: form.tree, amount })
            }
            OperationForm::DeleteRange(form) => {
                only("delete_range", &[("limit", form.limit.is_some()), ("reverse", form.reverse.is_some())])?;
                let (tree, range) = form.range("delete_range")?;
                Kind::DeleteRange(proto::DeleteRange { tree, range })
            }
            OperationForm::Scan(form) => {
                let (limit, reverse) = (form.limit.unwrap_or(0), form.reverse.unwrap_or(false));
                let (tree, range) = form.range("scan")?;
                Kind::Scan(proto::ScanOperation { tree, range, limit, reverse })
            }
            OperationForm::PutNext(form) => form.put_next()?,
            OperationForm::CreateTree(form) => {
                Kind::CreateTree(proto::CreateTree { tree: form.only_tree("create_tree")? })
            }
            OperationForm::DropTree(form) => Kind::DropTree(proto::DropTree { tree: form.only_tree("drop_tree")? }),
            OperationForm::RenameTree(form) => {
                let new_name = form.new_name.ok_or("`new_name` is missing")?;
                Kind::RenameTree(proto::RenameTree { tree: form.tree, new_name })
            }
        })
    }
}

impl KeyForm {
    fn key(&self) -> Result<Bytes, String> {
        required("key", self.key.clone(), self.key_hex.clone())
    }

    fn has_value(&self) -> bool {
        self.value.is_some() || self.value_hex.is_some()
    }

    fn only_key(&self, operation: &str) -> Result<(), String> {
        let tree_must_exist = ("tree_must_exist", self.tree_must_exist.is_some());
        only(operation, &[("value", self.has_value()), ("amount", self.amount.is_some()), tree_must_exist])
    }
}

impl RangeForm {
    fn range(self, operation: &str) -> Result<(String, Option<Range>), String> {
        only(operation, &[("value", self.value.is_some() || self.value_hex.is_some())])?;
        let start = optional("start", self.start, self.start_hex)?.unwrap_or_default();
        let end = optional("end", self.end, self.end_hex)?.unwrap_or_default();
        let prefix = optional("prefix", self.prefix, self.prefix_hex)?.unwrap_or_default();
        let bounded = !start.is_empty() || !end.is_empty();
        if bounded && !prefix.is_empty() {
            return Err("`prefix` excludes `start` and `end`".to_owned());
        }
        Ok((self.tree, Some(Range { start, end, prefix })))
    }

    fn put_next(self) -> Result<Kind, String> {
        let bounds = [&self.start, &self.start_hex, &self.end, &self.end_hex].iter().any(|bound| bound.is_some());
        let extra = [("start` or `end", bounds), ("limit", self.limit.is_some()), ("reverse", self.reverse.is_some())];
        only("put_next", &extra)?;
        let prefix = required("prefix", self.prefix, self.prefix_hex)?;
        let value = required("value", self.value, self.value_hex)?;
        Ok(Kind::PutNext(proto::PutNext { tree: self.tree, prefix, value }))
    }
}

impl TreeForm {
    fn only_tree(self, operation: &str) -> Result<String, String> {
        only(operation, &[("new_name", self.new_name.is_some())])?;
        Ok(self.tree)
    }
}

/// What is printed.
pub(super) fn answer(done: &Committed, hex: bool) -> Value {
    let results: Vec<Value> = done.results.iter().map(|one| result(one, hex)).collect();
    let mut document = json!({
        "outcome": "committed", "txn_id": done.txn_id, "guards_held": done.guards_held, "results": results,
        "attempts": done.attempts, "unknown_attempts": done.unknown_attempts,
    });
    if done.results_dropped {
        document["results_dropped"] = true.into();
    }
    document
}

fn result(result: &OperationResult, hex: bool) -> Value {
    match &result.kind {
        None => Value::Null,
        Some(ResultKind::Put(put)) => json!({ "put": { "previous_version": put.previous_version } }),
        Some(ResultKind::Delete(del)) => json!({ "delete": { "previous_version": del.previous_version } }),
        Some(ResultKind::DeleteRange(del)) => json!({ "delete_range": { "deleted": del.deleted } }),
        Some(ResultKind::Get(get)) => json!({ "get": get.entry.as_ref().map(|one| entry(one, hex)) }),
        Some(ResultKind::Scan(scan)) => {
            let entries: Vec<Value> = scan.entries.iter().map(|one| entry(one, hex)).collect();
            json!({ "scan": { "entries": entries, "more": scan.more } })
        }
        Some(ResultKind::Add(add)) => json!({ "add": { "value": add.value } }),
        Some(ResultKind::PutNext(next)) => {
            let mut object = Map::new();
            set_json(&mut object, "key", &next.key, hex);
            object.insert("number".to_owned(), next.number.into());
            json!({ "put_next": object })
        }
        // Of the nodes alone.
        Some(ResultKind::Session(_)) => Value::Null,
        Some(ResultKind::Tree(tree)) => json!({ "tree": { "changed": tree.changed } }),
    }
}

fn entry(entry: &Entry, hex: bool) -> Value {
    let mut object = Map::new();
    set_json(&mut object, "key", &entry.key, hex);
    set_json(&mut object, "value", &entry.value, hex);
    object.insert("version".to_owned(), entry.version.into());
    Value::Object(object)
}
