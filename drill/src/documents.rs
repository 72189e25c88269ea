//! JSON documents of 1 KiB to 4 MiB from a seed.
//!
//! Contract: the document with a number is a function of seed and number alone: the same on every machine and in every run,
//! whatever was generated before it. So a reader can check a value that it finds without having kept it. Sizes are exact to the
//! byte and roughly log-normal, as those of stored documents are: about half of them below 9 KiB, one in a few hundred above 1 MiB.
//!
//! No generator of a crate is used, whose stream may change with its version, and no function of the C library, which may
//! differ in the last bit between machines: only integers, and additions and products of floats.

/// The least size of a document, in bytes.
pub const LEAST_BYTES: usize = 1 << 10;
/// The greatest size of a document, in bytes.
pub const MOST_BYTES: usize = 4 << 20;
/// log2 of the median size.
const MEDIAN_LOG2: f64 = 13.0;
/// The standard deviation of log2 of the size.
const SPREAD_LOG2: f64 = 2.5;

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its number, from 0.
    pub number: u64,
    /// Its key: also its field `id`. In order of the numbers.
    pub id: String,
    /// One JSON object without line ends.
    pub bytes: Vec<u8>,
}

/// All documents of a seed in order, without end; only the one that is asked for is made.
#[derive(Clone, Debug)]
pub struct Documents {
    seed: u64,
    next: u64,
}

impl Documents {
    /// From document 0 on.
    pub fn new(seed: u64) -> Documents {
        Documents { seed, next: 0 }
    }

    /// From this document on.
    pub fn starting_at(seed: u64, number: u64) -> Documents {
        Documents { seed, next: number }
    }
}

impl Iterator for Documents {
    type Item = Document;

    fn next(&mut self) -> Option<Document> {
        let document = document(self.seed, self.next);
        self.next += 1;
        Some(document)
    }
}

/// The key of the document with this number.
pub fn id(number: u64) -> String {
    format!("doc-{number:012}")
}

/// The size of the document with this number, in bytes, without making it.
pub fn size(seed: u64, number: u64) -> usize {
    draw_size(&mut Random::new(seed, number))
}

/// The document with this number.
pub fn document(seed: u64, number: u64) -> Document {
    let mut random = Random::new(seed, number);
    let size = draw_size(&mut random);
    let id = id(number);
    let mut text = String::with_capacity(size);
    let (kind, priority) = (KINDS[random.below(KINDS.len())], random.below(5));
    text.push_str(&format!(r#"{{"id":"{id}","kind":"{kind}","priority":{priority},"seed":{seed},"#));
    text.push_str(&format!(r#""author":"{}","tags":["#, AUTHORS[random.below(AUTHORS.len())]));
    for tag in 0..1 + random.below(6) {
        let comma = if tag == 0 { "" } else { "," };
        text.push_str(&format!(r#"{comma}"{}""#, WORDS[random.below(WORDS.len())]));
    }
    text.push_str(r#"],"body":""#);
    const END: &str = "\"}";
    assert!(text.len() + END.len() <= LEAST_BYTES, "the fixed part must fit into the least document");
    fill(&mut text, size - END.len(), &mut random);
    text.push_str(END);
    assert_eq!(text.len(), size, "sizes are exact");
    Document { number, id, bytes: text.into_bytes() }
}

/// Words up to this length in bytes; the last one may be cut (they are ASCII).
fn fill(text: &mut String, length: usize, random: &mut Random) {
    while text.len() < length {
        // One draw gives several words: megabytes of text must not cost seconds.
        let mut draw = random.next();
        for _ in 0..10 {
            text.push_str(WORDS[(draw % WORDS.len() as u64) as usize]);
            text.push(' ');
            draw /= WORDS.len() as u64;
        }
        if random.below(16) == 0 {
            text.push_str(&format!("{:016x} ", random.next()));
        }
    }
    text.truncate(length);
}

fn draw_size(random: &mut Random) -> usize {
    loop {
        // The sum of twelve uniform numbers is nearly normal, with mean 6 and variance 1 (Irwin and Hall).
        let normal = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
        let log2 = MEDIAN_LOG2 + SPREAD_LOG2 * normal;
        if !(10.0..22.0).contains(&log2) {
            continue;
        }
        // 2 to the power of log2, with a straight line between whole powers.
        let whole = log2 as u32;
        let size = (1_u64 << whole) as f64 * (1.0 + (log2 - f64::from(whole)));
        let size = size as usize;
        assert!((LEAST_BYTES..=MOST_BYTES).contains(&size), "{size} is out of bounds");
        return size;
    }
}

const KINDS: [&str; 6] = ["order", "invoice", "message", "profile", "report", "page"];
const AUTHORS: [&str; 8] = ["Ana", "Björn", "Chloé", "Дарья", "Ελένη", "Fatima", "健太", "Zoë"];
/// 64 of them: so ten fit into one draw of 64 bits.
const WORDS: [&str; 64] = [
    "about", "after", "again", "along", "amber", "angle", "apple", "badge", "basin", "beach", "birch", "board",
    "bread", "brick", "brook", "cabin", "candle", "carbon", "cedar", "chalk", "cloud", "coast", "copper", "cotton",
    "crane", "delta", "drift", "ember", "engine", "fable", "feather", "fern", "field", "flint", "forest", "garden",
    "glass", "grain", "harbour", "hazel", "island", "jacket", "kettle", "ladder", "lantern", "maple", "meadow",
    "mirror", "needle", "ocean", "orchard", "paper", "pebble", "quarry", "quill", "ribbon", "river", "saddle",
    "silver", "stone", "timber", "valley", "willow", "window",
];

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Random(u64);

impl Random {
    fn new(seed: u64, number: u64) -> Random {
        // Mixed twice, so that neighbouring seeds and numbers share no stream.
        let mut mixed = Random(seed);
        let seed = mixed.next();
        Random(seed ^ Random(number).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// At least 0 and below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_is_the_published_one() {
        let mut random = Random(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_document_depends_on_seed_and_number_only() {
        let forward: Vec<Document> = Documents::new(7).take(20).collect();
        for document in &forward {
            assert_eq!(*document, super::document(7, document.number));
            assert_eq!(document.bytes.len(), size(7, document.number));
        }
        assert_eq!(Documents::starting_at(7, 12).next().unwrap(), forward[12]);
        assert_ne!(super::document(8, 3).bytes, forward[3].bytes);
        assert_ne!(forward[3].bytes, forward[4].bytes);
    }

    #[test]
    fn the_bytes_of_a_seed_never_change() {
        // FNV-1a over the first documents: a change here breaks whoever kept a seed.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in Documents::new(42).take(50).flat_map(|document| document.bytes) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        assert_eq!(format!("{hash:016x}"), "f80cc8930614058c");
    }

    #[test]
    fn sizes_are_a_realistic_mix_within_the_bounds() {
        let mut sizes: Vec<usize> = (0..20_000).map(|number| size(1, number)).collect();
        sizes.sort_unstable();
        assert!(sizes[0] >= LEAST_BYTES && sizes[0] < 1100 && *sizes.last().unwrap() <= MOST_BYTES);
        let median = sizes[sizes.len() / 2];
        assert!((7_000..12_000).contains(&median), "{median}");
        let large = sizes.iter().filter(|size| **size > 1 << 20).count();
        assert!((20..200).contains(&large), "{large} of 20,000 above 1 MiB");
        assert!(*sizes.last().unwrap() > 3 << 20, "the largest of 20,000 is near the bound");
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!(mean > 2 * median, "the tail carries the weight: mean {mean}, median {median}");
    }

    #[test]
    fn documents_are_json_with_their_id_and_keys_are_in_order() {
        let largest = (0..5_000).max_by_key(|number| size(3, *number)).unwrap();
        let numbers = (0..100).chain([largest, u64::MAX]);
        for document in numbers.map(|number| super::document(3, number)) {
            let parsed: serde_json::Value = serde_json::from_slice(&document.bytes).unwrap();
            assert_eq!(parsed["id"], document.id.as_str());
            assert!(!document.bytes.contains(&b'\n'));
        }
        assert!(id(9) < id(10) && id(99_999) < id(100_000));
    }
}
