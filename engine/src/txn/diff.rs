//! Which bytes of a page a batch set.

use std::ops::Range;

use crate::page::{PAGE_BYTES, Page};

/// Two changed places closer than this become one range: a range costs four bytes of header.
const JOIN_BYTES: usize = 8;

/// The ranges in which `new` differs from `old`, ascending, never overlapping, and covering each of `must` whole.
/// Adjacent ranges are joined.
#[must_use]
pub fn set_bytes(old: &Page, new: &Page, must: &mut Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut ranges = differing(old.bytes(), new.bytes());
    if must.is_empty() {
        return ranges;
    }
    ranges.append(must);
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end + JOIN_BYTES => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

fn differing(old: &[u8; PAGE_BYTES], new: &[u8; PAGE_BYTES]) -> Vec<Range<usize>> {
    const WORD: usize = 32;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    // Of a fixed size, they are compared in registers.
    let ((old_words, []), (new_words, [])) = (old.as_chunks::<WORD>(), new.as_chunks::<WORD>()) else {
        unreachable!("a page is whole words");
    };
    for (place, (old, new)) in old_words.iter().zip(new_words).enumerate() {
        if old == new {
            continue;
        }
        for offset in 0..WORD {
            if old[offset] == new[offset] {
                continue;
            }
            let at = place * WORD + offset;
            match ranges.last_mut() {
                Some(last) if at <= last.end + JOIN_BYTES => last.end = at + 1,
                _ => ranges.push(at..at + 1),
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_diff_makes_the_new_page_of_any_mixture(
            edits in prop::collection::vec((0..PAGE_BYTES, any::<u8>()), 0..200),
            must in prop::collection::vec((0..PAGE_BYTES - 100, 1..100usize), 0..5),
            torn in any::<u64>(),
        ) {
            let old = Page::zeroed();
            let mut new = old.clone();
            for (place, byte) in &edits {
                new.bytes_mut()[*place] = *byte;
            }
            let must: Vec<_> = must.into_iter().map(|(start, length)| start..start + length).collect();
            let ranges = set_bytes(&old, &new, &mut must.clone());
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(must.iter().all(|m| ranges.iter().any(|r| r.start <= m.start && m.end <= r.end)));
            // Any mixture of old and new sectors, as a torn write leaves them.
            let mut mixed = old.clone();
            for sector in 0..16 {
                if torn >> sector & 1 == 1 {
                    let place = sector * 512..(sector + 1) * 512;
                    mixed.bytes_mut()[place.clone()].copy_from_slice(&new.bytes()[place]);
                }
            }
            for range in ranges {
                mixed.bytes_mut()[range.clone()].copy_from_slice(&new.bytes()[range]);
            }
            prop_assert!(mixed == new);
        }
    }
}
