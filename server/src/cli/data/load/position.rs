//! How far a load came, in a file that is replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The version of the file's form.
const FORMAT: u32 = 1;
/// So much of the input's beginning is hashed.
const HASHED_BYTES: u64 = 64 << 10;

/// Everything before `offset` is acknowledged. The rest says of which load this is true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    format: u32,
    pub file_bytes: u64,
    /// FNV-1a of the first 64 KiB of the input.
    beginning_hash: String,
    tree: String,
    key: String,
    cluster_id: String,
    /// The byte at which the first line begins that is not known to be acknowledged.
    pub offset: u64,
    /// How many lines are before it.
    pub lines: u64,
}

impl Position {
    /// The beginning of a load of this file.
    pub fn of(mut input: &File, tree: &str, key: &str, cluster_id: &str) -> io::Result<Position> {
        let metadata = input.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut beginning = Vec::new();
        input.seek(SeekFrom::Start(0))?;
        input.take(HASHED_BYTES).read_to_end(&mut beginning)?;
        let (beginning_hash, file_bytes) = (format!("{:016x}", fnv1a(&beginning)), metadata.len());
        let (tree, key, cluster_id) = (tree.to_owned(), key.to_owned(), cluster_id.to_owned());
        Ok(Position { format: FORMAT, file_bytes, beginning_hash, tree, key, cluster_id, offset: 0, lines: 0 })
    }

    /// The position in this file, if it is of the load that `begin` begins; `begin` if there is no file.
    pub fn resume(path: &Path, begin: Position) -> Result<Position, String> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(begin),
            Err(e) => return Err(e.to_string()),
        };
        let found: Position = serde_json::from_slice(&bytes).map_err(|e| format!("it is damaged: {e}"))?;
        let expected = Position { offset: found.offset, lines: found.lines, ..begin };
        let differs = |what: &str, was: &str, is: &str| Err(format!("{what} was {was} then and is {is} now"));
        if found.format != expected.format {
            return differs("its format", &found.format.to_string(), &expected.format.to_string());
        }
        if found.file_bytes != expected.file_bytes {
            return differs("the input's size", &found.file_bytes.to_string(), &expected.file_bytes.to_string());
        }
        if found.beginning_hash != expected.beginning_hash {
            return differs("the hash of the input's beginning", &found.beginning_hash, &expected.beginning_hash);
        }
        if (&found.tree, &found.key) != (&expected.tree, &expected.key) {
            let (was, is) =
                (format!("{} by {}", found.tree, found.key), format!("{} by {}", expected.tree, expected.key));
            return differs("the target", &was, &is);
        }
        if found.cluster_id != expected.cluster_id {
            return differs("the cluster", &found.cluster_id, &expected.cluster_id);
        }
        if found.offset > found.file_bytes {
            return Err(format!("it is damaged: offset {} is after the end of the input", found.offset));
        }
        Ok(found)
    }

    /// Replaces the file: written beside, synced, renamed.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let beside = path.with_file_name(name);
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(self).expect("numbers and strings encode"))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): to notice another file, not an enemy.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_position_is_taken_up_only_by_the_load_that_left_it() {
        let dir = tempfile::tempdir().unwrap();
        let (input, path) = (dir.path().join("in"), dir.path().join("position"));
        fs::write(&input, "{}\n{}\n").unwrap();
        let of = |tree, key, cluster| Position::of(&File::open(&input).unwrap(), tree, key, cluster).unwrap();
        let begin = of("t", "id", "c");
        assert_eq!(Position::resume(&path, begin.clone()).unwrap(), begin);
        let half = Position { offset: 3, lines: 1, ..begin.clone() };
        half.save(&path).unwrap();
        assert_eq!(Position::resume(&path, begin.clone()).unwrap(), half);
        for (other, named) in
            [(of("u", "id", "c"), "target"), (of("t", "k", "c"), "target"), (of("t", "id", "d"), "cluster")]
        {
            let why = Position::resume(&path, other).unwrap_err();
            assert!(why.contains(named), "{why}");
        }
        fs::write(&input, "{ }\n{}").unwrap();
        assert!(Position::resume(&path, of("t", "id", "c")).unwrap_err().contains("hash"));
        fs::write(&input, "{}\n{}\n{}\n").unwrap();
        assert!(Position::resume(&path, of("t", "id", "c")).unwrap_err().contains("size was 6 then and is 9 now"));
        for bad in ["", "{}", "[", "{\"format\":1}"] {
            fs::write(&path, bad).unwrap();
            assert!(Position::resume(&path, begin.clone()).unwrap_err().contains("damaged"), "{bad}");
        }
        Position { offset: 7, ..begin.clone() }.save(&path).unwrap();
        assert!(Position::resume(&path, begin).unwrap_err().contains("after the end"));
    }
}
