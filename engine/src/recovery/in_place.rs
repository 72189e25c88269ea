//! Putting the page bytes of a record in place, over whatever the pages are.
//!
//! # What freed runs may cost
//!
//! A run of freed pages costs a record 8 bytes, and may say four billion pages. Apply refuses a run behind the end of the
//! state that the record builds on ([`Record::check_freed`]) before it looks at one of them. Here the same is asked
//! wherever that end is known; and where it is not, a run costs no more than what is there to be freed.
//!
//! - *Known* it is where page 0, as replay has it, carries its checksum and is of the transaction that the record builds
//!   on. All of page 0 behind its fields is zero in every version, and the fields are in one sector: torn or not, it is
//!   whole in the file, but of a version that may be newer than the record. Diffs over a newer version end in a mixture,
//!   which may even name the right transaction, and beside it a page count of another one. The checksum tells.
//! - *Unknown* it is for the records below that newer version only. This node, or the one that the pages came from,
//!   applied those, and so asked. A page that neither stands in the file nor was put in place before reads as free
//!   already: nothing is kept of it. So the memory is bounded by the file's length, whatever the journal says.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::StorageError;
use crate::ids::PageNumber;
use crate::page::superblock::Superblock;
use crate::page::{PAGE_BYTES, Page, checksum};
use crate::store::{DataFile, image_at};
use crate::txn::record::{Record, RecordError};
use crate::versions::Image;

/// Why a record's bytes could not be put in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    /// The data file could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The record says what cannot be; nothing of it was put in place.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Puts a record's page bytes in place: what a page is from now on stands in `images`, the others are as `data` has them.
pub(crate) fn put_in_place(
    data: &DataFile,
    images: &mut BTreeMap<PageNumber, Image>,
    record: &Record,
    bytes: &[u8],
) -> Result<(), PutError> {
    if !record.freed.is_empty() {
        if let Some(page_count) = page_count_before(data, images, record)? {
            record.check_freed(page_count)?;
        }
        free_runs(data, images, &record.freed)?;
    }
    for (number, start) in &record.full {
        let page = image_at(bytes, *start).clone();
        images.insert(*number, Image::Page(Arc::new(page)));
    }
    for diff in &record.diffs {
        let page = match images.remove(&diff.page) {
            Some(Image::Page(page)) => Some(page),
            Some(Image::Free) => None,
            None => data.read_unverified(diff.page)?.map(Arc::from),
        };
        let mut page = page.unwrap_or_else(Page::shared_zeroed);
        let target = Arc::make_mut(&mut page).bytes_mut();
        for (offset, place) in &diff.ranges {
            target[*offset..offset + place.len()].copy_from_slice(&bytes[place.clone()]);
        }
        images.insert(diff.page, Image::Page(page));
    }
    Ok(())
}

/// How many pages the state has that the record builds on, where that is known.
fn page_count_before(
    data: &DataFile,
    images: &BTreeMap<PageNumber, Image>,
    record: &Record,
) -> Result<Option<u32>, StorageError> {
    let number = PageNumber(0);
    let decode = |page: &Page| checksum::verify(number, page).then(|| Superblock::decode(page).ok()).flatten();
    let superblock = match images.get(&number) {
        Some(Image::Page(page)) => decode(page),
        Some(Image::Free) => None,
        None => data.read_unverified(number)?.and_then(|page| decode(&page)),
    };
    let before = superblock.filter(|superblock| superblock.txn_id == record.header.builds_on);
    Ok(before.map(|superblock| superblock.page_count))
}

/// Frees what is there of the runs.
fn free_runs(
    data: &DataFile,
    images: &mut BTreeMap<PageNumber, Image>,
    runs: &[(PageNumber, u32)],
) -> Result<(), StorageError> {
    let end_of_file = u32::try_from(data.bytes()?.div_ceil(PAGE_BYTES as u64)).unwrap_or(u32::MAX);
    for (first, count) in runs {
        let (first, end) = (first.0, first.0 + count);
        let beyond = first.max(end_of_file);
        if beyond < end {
            let gone: Vec<PageNumber> =
                images.range(PageNumber(beyond)..PageNumber(end)).map(|(number, _)| *number).collect();
            for number in gone {
                images.remove(&number);
            }
        }
        for number in first..end.min(end_of_file) {
            images.insert(PageNumber(number), Image::Free);
        }
    }
    Ok(())
}
