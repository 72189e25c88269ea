//! The pages that a batch freed, as runs: a record lists runs, and a large tree is few of them.

use std::collections::BTreeMap;

use crate::ids::PageNumber;

/// A set of pages. No two runs touch.
#[derive(Default)]
pub(super) struct FreedPages {
    /// First page to the page behind the last.
    runs: BTreeMap<u32, u32>,
    pages: u64,
}

impl FreedPages {
    /// How many pages there are.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// How many runs they make.
    pub(super) fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// The runs, ascending: first page and count.
    pub(super) fn runs(&self) -> impl Iterator<Item = (PageNumber, u32)> + '_ {
        self.runs.iter().map(|(first, end)| (PageNumber(*first), end - first))
    }

    /// The pages, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageNumber> + '_ {
        self.runs.iter().flat_map(|(first, end)| (*first..*end).map(PageNumber))
    }

    /// The run that a page lies in.
    fn run_of(&self, number: u32) -> Option<(u32, u32)> {
        self.runs.range(..=number).next_back().map(|(first, end)| (*first, *end)).filter(|(_, end)| number < *end)
    }

    /// Adds a page; `false` if it was there.
    pub(super) fn insert(&mut self, number: PageNumber) -> bool {
        let PageNumber(number) = number;
        if self.run_of(number).is_some() {
            return false;
        }
        let first = number.checked_sub(1).and_then(|before| self.run_of(before)).map_or(number, |(first, _)| first);
        let end = self.runs.remove(&(number + 1)).unwrap_or(number + 1);
        self.runs.insert(first, end);
        self.pages += 1;
        true
    }

    /// Takes a page out; `false` if it was not there.
    pub(super) fn remove(&mut self, number: PageNumber) -> bool {
        let PageNumber(number) = number;
        let Some((first, end)) = self.run_of(number) else { return false };
        self.runs.remove(&first);
        if first < number {
            self.runs.insert(first, number);
        }
        if number + 1 < end {
            self.runs.insert(number + 1, end);
        }
        self.pages -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_set(changes in prop::collection::vec((any::<bool>(), 0..40_u32), 0..200)) {
            let (mut found, mut model) = (FreedPages::default(), BTreeSet::new());
            for (insert, number) in changes {
                let number = PageNumber(number);
                if insert {
                    prop_assert_eq!(found.insert(number), model.insert(number));
                } else {
                    prop_assert_eq!(found.remove(number), model.remove(&number));
                }
                prop_assert!(found.iter().eq(model.iter().copied()));
                let runs: Vec<_> = found.runs().collect();
                prop_assert!(runs.windows(2).all(|pair| pair[0].0.0 + pair[0].1 < pair[1].0.0), "{:?}", runs);
                prop_assert_eq!((found.pages(), found.run_count()), (model.len() as u64, runs.len()));
            }
        }
    }
}
