//! An inverted index: texts, found by their words, the best ones first.
//!
//!     cargo run -p calamus-engine --example search_index [NEW DIRECTORY]
//!
//! ```text
//! texts      document id      -> the text
//! postings   word             -> many of: document, how often the word is in its text, how many words that text has
//! totals     "texts", "words" -> how many there are
//! ```
//!
//! `postings` is a multi-value tree. What stands under a word is sorted by document, and counted, so a search reads the
//! values of each of its words, and knows how rare a word is without a look at them. A word that few texts have takes a few
//! bytes in a page with others; one that all have becomes a tree of its own. A text is put, replaced or removed in one
//! transaction with all that it changes of the other trees. Ranks are by BM25 (Robertson, Walker, Jones, Hancock-Beaulieu,
//! Gatford: Okapi at TREC-3, 1994).

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use calamus_engine::{Batch, BatchError, Database, OpenError, ReadError, ReadTxn, WriteError};

const TREES: [&str; 3] = [TEXTS, POSTINGS, TOTALS];
const TEXTS: &str = "texts";
const POSTINGS: &str = "postings";
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

/// That a word is in a text: the document first, so that postings are sorted by it. The numbers behind it are what the
/// rank needs.
#[derive(Clone, Copy)]
struct Posting {
    document: u64,
    /// How often the word is in the text.
    count: u64,
    /// How many words the text has.
    length: u64,
}

impl Posting {
    fn encode(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.document.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let document = u64::from_be_bytes(bytes[..8].try_into().expect("a number has 8 bytes"));
        Self { document, count: number(&bytes[8..16]), length: number(&bytes[16..]) }
    }
}

/// The postings of a text, by word.
fn postings(document: u64, text: &str) -> BTreeMap<String, Posting> {
    let words = words(text);
    let length = words.values().sum();
    words.into_iter().map(|(word, count)| (word, Posting { document, count, length })).collect()
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
            txn.create_tree(TEXTS)?;
            txn.create_tree(TOTALS)?;
            txn.create_multi_tree(POSTINGS)?;
            Self::take_out(txn, document)?;
            txn.put(TEXTS, &document.to_be_bytes(), text.as_bytes())?;
            let mut length = 0;
            for (word, posting) in postings(document, text) {
                txn.add(POSTINGS, word.as_bytes(), &posting.encode())?;
                length = posting.length;
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
        let mut length = 0;
        for (word, posting) in postings(document, &String::from_utf8_lossy(&text)) {
            txn.remove_value(POSTINGS, word.as_bytes(), &posting.encode())?;
            length = posting.length;
        }
        txn.delete(TEXTS, &document.to_be_bytes())?;
        add(txn, TOTALS, "texts", -1)?;
        add(txn, TOTALS, "words", -(length as i64))
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
            let mut postings = snapshot.values(POSTINGS, word.as_bytes())?;
            let holders = postings.count() as f64;
            let rarity = (1.0_f64 + (texts - holders + 0.5) / (holders + 0.5)).ln();
            while postings.next()? {
                let Posting { document, count, length } = Posting::decode(postings.value());
                let (count, length) = (count as f64, length as f64);
                // How fast a word's weight is used up by being repeated, and how much a text's length counts.
                const SATURATION: f64 = 1.2;
                const LENGTH: f64 = 0.75;
                let norm = 1.0 - LENGTH + LENGTH * length * texts / all_words;
                *scores.entry(document).or_default() +=
                    rarity * count * (SATURATION + 1.0) / (count + SATURATION * norm);
            }
        }
        let mut hits: Vec<Hit> = scores.into_iter().map(|(document, score)| Hit { document, score }).collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.document.cmp(&b.document)));
        hits.truncate(limit);
        Ok(hits)
    }

    /// How many keys and pages a tree has, without a walk over it.
    fn size(&self, tree: &str) -> Result<(u64, u64), ReadError> {
        Ok(self.database.read().tree_info(tree)?.map_or((0, 0), |tree| (tree.entries, tree.pages)))
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
    assert!(documents(&index.search("plough", 10)?).is_empty(), "the old text is not found any more");
    assert!(documents(&index.search("heron", 10)?).contains(&5));

    // A word that every text has takes pages of its own, until it is rare again.
    let common = 100..500;
    for document in common.clone() {
        index.put(document, &format!("Feather number {document}"))?;
    }
    let (_, pages) = index.size(POSTINGS)?;
    assert!(pages > 4, "{pages} pages of postings");
    assert_eq!(index.search("feather", 1000)?.len(), common.clone().count());
    assert_eq!(documents(&index.search("feather 321", 1)?), [321], "the rare word decides");
    for document in common {
        index.remove(document)?;
    }
    assert!(index.size(POSTINGS)?.1 < pages);

    drop(index);
    let index = Index::open(directory)?;
    assert_eq!(documents(&index.search("heron water", 1)?), [1], "it is the same after reopening");
    for (document, _) in BIRDS {
        index.remove(document)?;
    }
    for tree in TREES {
        assert_eq!(index.size(tree)?, (0, 0), "nothing is left in {tree}");
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
