//! An inverted index: texts, found by their words, the best ones first.
//!
//!     cargo run -p calamus-engine --example search_index [NEW DIRECTORY]
//!
//! ```text
//! texts      document id                -> the text
//! postings   word, zero byte, document  -> how often it is in that text, and how many words that text has
//! words      word                       -> in how many texts it is
//! totals     "texts", "words"           -> how many there are
//! ```
//!
//! The documents of a word stand together, so a search reads one stretch of `postings` for each of its words. A text is
//! put, replaced or removed in one transaction with all that it changes of the other trees. Ranks are by BM25 (Robertson,
//! Walker, Jones, Hancock-Beaulieu, Gatford: Okapi at TREC-3, 1994).

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use calamus_engine::{Batch, BatchError, Database, OpenError, ReadError, ReadTxn, WriteError};

const TREES: [&str; 4] = [TEXTS, POSTINGS, WORDS, TOTALS];
const TEXTS: &str = "texts";
const POSTINGS: &str = "postings";
const WORDS: &str = "words";
const TOTALS: &str = "totals";

/// Texts in a directory.
struct Index {
    database: Database,
}

/// A text that was found.
#[derive(Debug, PartialEq)]
struct Hit {
    document: u64,
    score: f64,
}

/// The words of a text, in lower case, and how often each is in it.
fn words(text: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *found.entry(word.to_lowercase()).or_default() += 1;
    }
    found
}

fn posting_key(word: &str, document: u64) -> Vec<u8> {
    [word.as_bytes(), &[0], &document.to_be_bytes()].concat()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a number has 8 bytes"))
}

/// Adds to a number in a tree; one that comes to 0 goes.
fn add(txn: &mut Batch, tree: &str, key: &str, change: i64) -> Result<(), BatchError> {
    let before = match txn.get(tree, key.as_bytes())? {
        Some(entry) => number(&entry.value.to_vec()?),
        None => 0,
    };
    match before.checked_add_signed(change).expect("what is taken away was there") {
        0 => txn.delete(tree, key.as_bytes()).map(drop),
        after => txn.put(tree, key.as_bytes(), &after.to_le_bytes()).map(drop),
    }
}

impl Index {
    fn open(directory: &Path) -> Result<Self, OpenError> {
        Ok(Self { database: Database::open(directory)? })
    }

    /// Puts a text, in place of the one that the document had.
    fn put(&self, document: u64, text: &str) -> Result<(), WriteError> {
        let written = self.database.write(|txn| {
            for tree in TREES {
                txn.create_tree(tree)?;
            }
            Self::take_out(txn, document)?;
            txn.put(TEXTS, &document.to_be_bytes(), text.as_bytes())?;
            let words = words(text);
            let length: u64 = words.values().sum();
            for (word, count) in &words {
                let posting = [count.to_le_bytes(), length.to_le_bytes()].concat();
                txn.put(POSTINGS, &posting_key(word, document), &posting)?;
                add(txn, WORDS, word, 1)?;
            }
            add(txn, TOTALS, "texts", 1)?;
            add(txn, TOTALS, "words", length as i64)
        });
        written.map(drop)
    }

    /// Removes a document. One that is not there is fine.
    fn remove(&self, document: u64) -> Result<(), WriteError> {
        self.database.write(|txn| Self::take_out(txn, document)).map(drop)
    }

    fn take_out(txn: &mut Batch, document: u64) -> Result<(), BatchError> {
        let Some(text) = txn.get(TEXTS, &document.to_be_bytes())? else { return Ok(()) };
        let text = text.value.to_vec()?;
        let words = words(&String::from_utf8_lossy(&text));
        for word in words.keys() {
            txn.delete(POSTINGS, &posting_key(word, document))?;
            add(txn, WORDS, word, -1)?;
        }
        txn.delete(TEXTS, &document.to_be_bytes())?;
        add(txn, TOTALS, "texts", -1)?;
        add(txn, TOTALS, "words", -(words.values().sum::<u64>() as i64))
    }

    fn text(&self, document: u64) -> Result<Option<String>, ReadError> {
        let snapshot = self.database.read();
        let Some(entry) = snapshot.get(TEXTS, &document.to_be_bytes())? else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(&entry.value.to_vec()?).into_owned()))
    }

    /// The best texts for a query, the best one first. All of it is read from one snapshot.
    fn search(&self, query: &str, limit: usize) -> Result<Vec<Hit>, ReadError> {
        let snapshot = self.database.read();
        let total = |name: &str| look_up(&snapshot, TOTALS, name);
        let (texts, all_words): (f64, f64) = (total("texts")? as f64, total("words")? as f64);
        let mut scores: BTreeMap<u64, f64> = BTreeMap::new();
        for word in words(query).keys() {
            let holders = look_up(&snapshot, WORDS, word)? as f64;
            let rarity = (1.0_f64 + (texts - holders + 0.5) / (holders + 0.5)).ln();
            let Some(mut postings) = snapshot.cursor(POSTINGS)? else { continue };
            let prefix = [word.as_bytes(), &[0]].concat();
            let mut there = postings.seek(&prefix)?;
            while there && postings.key().starts_with(&prefix) {
                let document = u64::from_be_bytes(*postings.key().last_chunk().expect("a key ends with its document"));
                let posting = postings.value();
                let (count, length) = posting.as_slice().expect("a few bytes stand in a leaf").split_at(8);
                let (count, length) = (number(count) as f64, number(length) as f64);
                // How fast a word's weight is used up by being repeated, and how much a text's length counts.
                const SATURATION: f64 = 1.2;
                const LENGTH: f64 = 0.75;
                let norm = 1.0 - LENGTH + LENGTH * length * texts / all_words;
                *scores.entry(document).or_default() +=
                    rarity * count * (SATURATION + 1.0) / (count + SATURATION * norm);
                there = postings.next()?;
            }
        }
        let mut hits: Vec<Hit> = scores.into_iter().map(|(document, score)| Hit { document, score }).collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.document.cmp(&b.document)));
        hits.truncate(limit);
        Ok(hits)
    }

    /// How many entries a tree has, without a walk over them.
    fn entries(&self, tree: &str) -> Result<u64, ReadError> {
        Ok(self.database.read().tree(tree)?.map_or(0, |tree| tree.entries))
    }
}

fn look_up(snapshot: &ReadTxn, tree: &str, key: &str) -> Result<u64, ReadError> {
    match snapshot.get(tree, key.as_bytes())? {
        Some(entry) => Ok(number(&entry.value.to_vec()?)),
        None => Ok(0),
    }
}

const BIRDS: [(u64, &str); 5] = [
    (1, "The heron is a grey bird. A heron stands in the water and waits."),
    (2, "The swift sleeps on the wing."),
    (3, "A kingfisher dives into the water for fish."),
    (4, "The bittern is a heron of the reeds, heard and rarely seen."),
    (5, "Gulls follow the plough."),
];

fn documents(hits: &[Hit]) -> Vec<u64> {
    hits.iter().map(|hit| hit.document).collect()
}

fn run(directory: &Path) -> Result<(), Box<dyn Error>> {
    let index = Index::open(directory)?;
    for (document, text) in BIRDS {
        index.put(document, text)?;
    }
    let hits = index.search("heron water", 10)?;
    for hit in &hits {
        println!("{:.2}  {}", hit.score, index.text(hit.document)?.expect("it was found"));
    }
    assert_eq!(hits[0].document, 1, "both words, one of them twice");
    assert_eq!(hits.len(), 3);
    assert_eq!(documents(&index.search("KINGFISHER", 10)?), [3]);
    assert_eq!(index.search("ostrich", 10)?, []);

    index.put(5, "Gulls steal from the heron, too.")?;
    assert_eq!(documents(&index.search("plough", 10)?), [], "the old text is not found any more");
    assert!(documents(&index.search("heron", 10)?).contains(&5));

    drop(index);
    let index = Index::open(directory)?;
    assert_eq!(documents(&index.search("heron water", 1)?), [1], "it is the same after reopening");
    for (document, _) in BIRDS {
        index.remove(document)?;
    }
    for tree in TREES {
        assert_eq!(index.entries(tree)?, 0, "nothing is left in {tree}");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(directory) => run(directory.as_ref()),
        None => run(tempfile::tempdir()?.path()),
    }
}

#[test]
fn it_runs() {
    run(tempfile::tempdir().unwrap().path()).unwrap();
}
