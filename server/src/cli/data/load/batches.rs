//! Cuts a file of JSON lines into batches, streaming: one batch is held, never the file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use bytes::Bytes;
use calamus_engine::btree::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use serde_json::Value;

use super::Stopped;
use super::position::Position;

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub documents: usize,
    /// Keys and values together. A single document may be larger.
    pub bytes: usize,
}

impl Default for Limits {
    /// Half of the largest value: a frame of 4 MiB is as good as a larger one, and a transaction stays far from its limit.
    fn default() -> Self {
        Limits { documents: 100, bytes: 4 << 20 }
    }
}

/// Consecutive documents of the file.
#[derive(Debug)]
pub(super) struct Batch {
    /// Counts from 0 in this run.
    pub number: u64,
    pub first_line: u64,
    /// How many lines are in it and before it.
    pub lines: u64,
    /// The byte after it.
    pub end: u64,
    pub documents: Vec<(Bytes, Bytes)>,
    pub bytes: u64,
}

/// The batches of a file from a position on.
#[derive(Debug)]
pub(super) struct Batches {
    input: BufReader<File>,
    field: String,
    limits: Limits,
    number: u64,
    offset: u64,
    lines: u64,
    /// The document that did not fit into the batch before.
    kept: Option<(Bytes, Bytes, u64)>,
    ended: bool,
}

impl Batches {
    pub fn new(mut input: File, from: &Position, field: String, limits: Limits) -> io::Result<Batches> {
        assert!(limits.documents > 0, "a batch of no documents never ends");
        input.seek(SeekFrom::Start(from.offset))?;
        let input = BufReader::with_capacity(1 << 20, input);
        let (offset, lines) = (from.offset, from.lines);
        Ok(Batches { input, field, limits, number: 0, offset, lines, kept: None, ended: false })
    }

    /// The next document and the length of its line; `None` at the end of the file. Blank lines are passed over.
    fn document(&mut self) -> Result<Option<(Bytes, Bytes, u64)>, Stopped> {
        loop {
            let number = self.lines + 1;
            let mut line = Vec::new();
            // A line end and one byte more than may be: a larger line is refused without reading it whole.
            let most = MAX_VALUE_BYTES as u64 + 3;
            let read = (&mut self.input).take(most).read_until(b'\n', &mut line);
            let length = read.map_err(|error| Stopped::Io { doing: format!("read line {number}"), error })? as u64;
            if length == 0 {
                return Ok(None);
            }
            while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                line.pop();
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                let key = self.key(&line).map_err(|why| Stopped::Line { line: number, why })?;
                return Ok(Some((key, line.into(), length)));
            }
            self.offset += length;
            self.lines += 1;
        }
    }

    fn key(&self, line: &[u8]) -> Result<Bytes, String> {
        if line.len() > MAX_VALUE_BYTES {
            return Err(format!("the document has more than {MAX_VALUE_BYTES} bytes, the limit of a value"));
        }
        let document: Value = serde_json::from_slice(line).map_err(|e| format!("not JSON: {e}"))?;
        let Value::Object(fields) = &document else { return Err("not a JSON object".to_owned()) };
        let field = &self.field;
        let key = match fields.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
            Some(other) => return Err(format!("field `{field}` is {}, not a string or an integer", kind(other))),
            None => return Err(format!("there is no field `{field}`")),
        };
        match key.len() {
            0 => Err(format!("field `{field}` is empty")),
            length if length > MAX_KEY_BYTES => {
                Err(format!("field `{field}` has {length} bytes, the limit of a key is {MAX_KEY_BYTES}"))
            }
            _ => Ok(key.into()),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number with a fraction",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, Stopped>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let (mut documents, mut bytes, mut first_line) = (Vec::new(), 0, 0);
        while documents.len() < self.limits.documents {
            let next = match self.kept.take() {
                Some(kept) => Ok(Some(kept)),
                None => self.document(),
            };
            let (key, value, length) = match next {
                Ok(Some(document)) => document,
                Ok(None) => {
                    self.ended = true;
                    break;
                }
                Err(stopped) => {
                    self.ended = true;
                    return Some(Err(stopped));
                }
            };
            let size = key.len() + value.len();
            if !documents.is_empty() && bytes + size > self.limits.bytes {
                self.kept = Some((key, value, length));
                break;
            }
            if documents.is_empty() {
                first_line = self.lines + 1;
            }
            self.offset += length;
            self.lines += 1;
            bytes += size;
            documents.push((key, value));
        }
        if documents.is_empty() {
            return None;
        }
        let (number, lines, end) = (self.number, self.lines, self.offset);
        self.number += 1;
        Some(Ok(Batch { number, first_line, lines, end, documents, bytes: bytes as u64 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn cut(text: &[u8], limits: Limits) -> (Vec<Batch>, Option<Stopped>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        fs::write(&path, text).unwrap();
        let file = File::open(&path).unwrap();
        let begin = Position::of(&file, "t", "id", "c").unwrap();
        let mut batches = Vec::new();
        for batch in Batches::new(file, &begin, "id".into(), limits).unwrap() {
            match batch {
                Ok(batch) => batches.push(batch),
                Err(stopped) => return (batches, Some(stopped)),
            }
        }
        (batches, None)
    }

    fn limits(documents: usize, bytes: usize) -> Limits {
        Limits { documents, bytes }
    }

    #[test]
    fn lines_are_cut_by_count_and_every_byte_is_accounted_for() {
        let text = b"{\"id\":\"a\"}\n\n{\"id\":2}\r\n{\"id\":\"c\", \"x\":[1]}\n \n{\"id\":\"d\"}";
        let (batches, stopped) = cut(text, limits(3, 1 << 20));
        assert!(stopped.is_none());
        let keys: Vec<Vec<&[u8]>> =
            batches.iter().map(|batch| batch.documents.iter().map(|(key, _)| &key[..]).collect()).collect();
        assert_eq!(keys, [vec![&b"a"[..], b"2", b"c"], vec![b"d"]]);
        assert_eq!(batches[0].documents[1].1, "{\"id\":2}");
        assert_eq!(batches[1].end, text.len() as u64);
        let places: Vec<_> = batches.iter().map(|b| (b.number, b.first_line, b.lines)).collect();
        assert_eq!(places, [(0, 1, 4), (1, 6, 6)]);
    }

    #[test]
    fn a_batch_is_cut_before_it_is_too_large_and_its_end_is_where_the_next_begins() {
        let line = b"{\"id\":\"a\"}\n";
        let (batches, stopped) = cut(&line.repeat(7), limits(100, 25));
        assert!(stopped.is_none());
        assert_eq!(batches.iter().map(|b| b.documents.len()).collect::<Vec<_>>(), [2, 2, 2, 1]);
        assert_eq!(batches.iter().map(|b| b.end).collect::<Vec<_>>(), [22, 44, 66, 77]);
        let (batches, _) = cut(&line.repeat(2), limits(100, 1));
        assert_eq!(batches.len(), 2, "a document larger than the bound goes alone");
    }

    #[test]
    fn a_bad_line_is_named_and_its_batch_is_not_there() {
        let long = format!("{{\"id\":\"{}\"}}", "k".repeat(MAX_KEY_BYTES + 1));
        let bad = [
            "{",
            "[1]",
            "7",
            "{\"x\":1}",
            "{\"id\":null}",
            "{\"id\":1.5}",
            "{\"id\":\"\"}",
            "\u{0}",
            &long,
            "{\"id\":\"a\"}x",
        ];
        for bad in bad {
            let text = format!("{{\"id\":1}}\n{{\"id\":2}}\n{{\"id\":3}}\n{bad}\n{{\"id\":5}}\n");
            let (batches, stopped) = cut(text.as_bytes(), limits(2, 1 << 20));
            assert_eq!(batches.len(), 1, "{bad}");
            assert!(matches!(stopped, Some(Stopped::Line { line: 4, .. })), "{bad}: {stopped:?}");
            // The batch before a bad line is whole and goes.
            assert_eq!(cut(text.as_bytes(), limits(3, 1 << 20)).0.len(), 1, "{bad}");
        }
        let (_, stopped) = cut(b"\xff\xfe\n", limits(2, 100));
        assert!(matches!(stopped, Some(Stopped::Line { line: 1, .. })));
    }

    #[test]
    fn a_line_over_the_limit_of_a_value_is_named_and_not_read_whole() {
        let mut text = b"{\"id\":\"a\",\"x\":\"".to_vec();
        text.resize(MAX_VALUE_BYTES - 2, b'x');
        text.extend_from_slice(b"\"}\n");
        assert_eq!(cut(&text, Limits::default()).0[0].documents[0].1.len(), MAX_VALUE_BYTES);
        text.insert(20, b'x');
        let (_, stopped) = cut(&text, Limits::default());
        assert!(matches!(&stopped, Some(Stopped::Line { why, .. }) if why.contains("limit")), "{stopped:?}");
    }
}
