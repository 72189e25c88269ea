//! Ranges of keys as clients name them, as bounds that the engine understands. Also of use for scans outside of
//! transactions.
//!
//! A range is `start <= k < end`, an empty `end` meaning no upper bound; or all keys with a prefix, and then `start`
//! and `end` must be empty. A range from a key to the same key is well formed and holds nothing.

use std::ops::Bound;

use bytes::Bytes;
use calamus_engine::btree::MAX_KEY_BYTES;
use calamus_proto::v1::Range;

use crate::error::reason;

/// A range whose bounds are known to be well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    start: Bytes,
    end: Option<Bytes>,
}

/// Why a range is none: a stable word, and what is wrong.
pub type RangeFault = (&'static str, String);

impl KeyRange {
    /// All keys.
    #[must_use]
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    /// The range that a message means; an absent one is all keys.
    pub fn from_message(range: Option<&Range>) -> Result<Self, RangeFault> {
        let Some(range) = range else { return Ok(Self::all()) };
        for (what, bytes) in [("start", &range.start), ("end", &range.end), ("prefix", &range.prefix)] {
            if bytes.len() > MAX_KEY_BYTES {
                let text = format!(
                    "its {what} has {} bytes, and no key has more than {MAX_KEY_BYTES}; shorten it",
                    bytes.len()
                );
                return Err((reason::KEY_TOO_LONG, text));
            }
        }
        if !range.prefix.is_empty() {
            if !range.start.is_empty() || !range.end.is_empty() {
                let text = "it has a prefix and a start or end too; give either a prefix, or start and end";
                return Err((reason::BAD_RANGE, text.to_owned()));
            }
            return Ok(Self { start: range.prefix.clone(), end: after_prefix(&range.prefix) });
        }
        if !range.end.is_empty() && range.start > range.end {
            let text = "its start lies behind its end; swap them, and use the reverse flag to walk backwards";
            return Err((reason::BAD_RANGE, text.to_owned()));
        }
        Ok(Self { start: range.start.clone(), end: (!range.end.is_empty()).then(|| range.end.clone()) })
    }

    /// The first key that may lie in the range.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The first key behind the range, if there is one.
    #[must_use]
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// The range as bounds.
    #[must_use]
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let start = if self.start.is_empty() { Bound::Unbounded } else { Bound::Included(&self.start[..]) };
        (start, self.end().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// Whether no key lies in the range, whatever the tree.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether a key lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end().is_none_or(|end| key < end)
    }
}

/// The first key behind all keys with this prefix; `None` if it is all `0xff`.
fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(Bytes::from(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static [u8], end: &'static [u8], prefix: &'static [u8]) -> Range {
        Range { start: Bytes::from_static(start), end: Bytes::from_static(end), prefix: Bytes::from_static(prefix) }
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        let cases: [(&'static [u8], Option<&'static [u8]>); 4] =
            [(b"a", Some(b"b")), (b"a\xff", Some(b"b")), (b"\xff\xff", None), (b"a\xff\xfe\xff", Some(b"a\xff\xff"))];
        for (prefix, end) in cases {
            let range = KeyRange::from_message(Some(&range(b"", b"", prefix))).unwrap();
            assert_eq!((range.start(), range.end()), (prefix, end));
            assert!(range.contains(prefix) && range.contains(&[prefix, b"\xff\xff\xff"].concat()));
            assert!(!end.is_some_and(|end| range.contains(end)));
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        let long: &'static [u8] = Vec::leak(vec![1; MAX_KEY_BYTES + 1]);
        for (bad, word) in [
            (range(b"b", b"a", b""), reason::BAD_RANGE),
            (range(b"b", b"", b"p"), reason::BAD_RANGE),
            (range(b"", b"b", b"p"), reason::BAD_RANGE),
            (range(long, b"", b""), reason::KEY_TOO_LONG),
            (range(b"", long, b""), reason::KEY_TOO_LONG),
            (range(b"", b"", long), reason::KEY_TOO_LONG),
        ] {
            assert_eq!(KeyRange::from_message(Some(&bad)).unwrap_err().0, word);
        }
    }

    #[test]
    fn a_range_of_one_key_to_itself_is_empty() {
        let empty = KeyRange::from_message(Some(&range(b"b", b"b", b""))).unwrap();
        assert!(empty.is_empty() && !empty.contains(b"b"));
        assert!(!KeyRange::all().is_empty());
        assert_eq!(KeyRange::all().bounds(), (Bound::Unbounded, Bound::Unbounded));
    }
}
