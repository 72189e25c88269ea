//! Data files of nodes that stopped at the same entry: they are the same, to the last byte.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// How much is compared at a time, in bytes: a page.
const PAGE_BYTES: usize = 8 << 10;

/// The first difference between two files, in words; `None` if there is none.
///
/// # Errors
/// When one cannot be read.
pub fn difference(one: &Path, other: &Path) -> std::io::Result<Option<String>> {
    let (first, second) = (File::open(one)?, File::open(other)?);
    let (long, short) = (first.metadata()?.len(), second.metadata()?.len());
    let (mut left, mut right) = (BufReader::with_capacity(1 << 20, first), BufReader::with_capacity(1 << 20, second));
    let pages = long.min(short) / PAGE_BYTES as u64;
    let (mut a, mut b) = (vec![0; PAGE_BYTES], vec![0; PAGE_BYTES]);
    for number in 0..pages {
        left.read_exact(&mut a)?;
        right.read_exact(&mut b)?;
        if let Some(offset) = (0..PAGE_BYTES).find(|offset| a[*offset] != b[*offset]) {
            return Ok(Some(format!(
                "{} and {} differ in page {number} from byte {offset} on",
                one.display(),
                other.display()
            )));
        }
    }
    Ok((long != short).then(|| format!("{} has {long} bytes, {} has {short}", one.display(), other.display())))
}

/// The data file of a node's directory: of the newest generation that there is.
///
/// # Errors
/// When the directory cannot be read, or holds no generation.
pub fn data_file(directory: &Path) -> std::io::Result<PathBuf> {
    let mut newest = None;
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix('g')?.parse::<u64>().ok());
        newest = newest.max(number);
    }
    let newest = newest.ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::NotFound, format!("{} holds no generation", directory.display()))
    })?;
    Ok(directory.join(format!("g{newest}")).join("data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_or_one_page_of_difference_is_found() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            std::fs::create_dir_all(home.path().join(name).join("g3")).unwrap();
            std::fs::create_dir_all(home.path().join(name).join("g12")).unwrap();
            std::fs::write(home.path().join(name).join("g12/data"), bytes).unwrap();
            data_file(&home.path().join(name)).unwrap()
        };
        let mut bytes = vec![7; 3 * PAGE_BYTES];
        let (one, same) = (file("one", &bytes), file("same", &bytes));
        assert_eq!(difference(&one, &same).unwrap(), None);
        bytes[PAGE_BYTES + 5] = 8;
        let found = difference(&one, &file("byte", &bytes)).unwrap().unwrap();
        assert!(found.contains("in page 1 from byte 5"), "{found}");
        let longer = file("longer", &vec![7; 4 * PAGE_BYTES]);
        assert!(difference(&one, &longer).unwrap().unwrap().contains("bytes"));
    }
}
