//! Steps 3 and 4 of a checkpoint: the pages.

use std::cell::Cell;
use std::sync::Arc;

use crate::engine::Faults;
use crate::error::StorageError;
use crate::ids::{PageNumber, TxnId};
use crate::page::Page;
use crate::store::Store;
use crate::versions::Image;

/// How far the pages of a checkpoint are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Pages written or zeroed.
    pub(crate) written: usize,
    /// Pages that there are to write or to zero.
    pub(crate) all: usize,
}

/// Called after each piece of what is written.
type Pause<'a> = &'a dyn Fn(Progress) -> Result<(), StorageError>;

/// Writes the pages of `snapshot` into the data file, in page order, gives the file its length, and syncs. `pause` runs
/// between writes. Returns the pages that were written
/// or zeroed, each with the checksum that it has now.
///
/// The caller holds a registration of the snapshot, below which there is no reader.
pub(crate) fn write_pages(
    store: &Store,
    snapshot: TxnId,
    page_count: u32,
    faults: &Faults,
    pause: Pause<'_>,
) -> Result<Vec<(PageNumber, u64)>, StorageError> {
    let images = store.versions.collect_at(snapshot);
    // What lies beyond the end of the file is cut with it.
    let within = &images[..images.partition_point(|(number, _)| number.0 < page_count)];
    let (written, all) = (Cell::new(0), within.len());
    let wrote = |pages: usize| {
        written.set(written.get() + pages);
        pause(Progress { written: written.get(), all })
    };
    let mut run: Vec<Arc<Page>> = Vec::new();
    let mut run_start = PageNumber(0);
    let mut free: Option<(PageNumber, u32)> = None;
    for (number, image) in within {
        if run_start.0 as usize + run.len() != number.0 as usize || matches!(image, Image::Free) {
            store.data.write_run(run_start, &run, &wrote)?;
            run.clear();
            run_start = *number;
        }
        match image {
            Image::Page(page) => run.push(page.clone()),
            Image::Free => {
                run_start = PageNumber(number.0 + 1);
                free = match free {
                    Some((first, count)) if first.0 + count == number.0 => Some((first, count + 1)),
                    other => {
                        zero(store, other, faults, &wrote)?;
                        Some((*number, 1))
                    }
                };
            }
        }
    }
    store.data.write_run(run_start, &run, &wrote)?;
    zero(store, free, faults, &wrote)?;
    if Faults::planted(faults.pages_freed_early) {
        for (number, image) in store.versions.collect_at(TxnId(u64::MAX)) {
            if matches!(image, Image::Free) && number.0 < page_count {
                store.data.zero_run(number, 1)?;
            }
        }
    }
    store.data.set_page_count(page_count)?;
    if !Faults::planted(faults.no_data_sync) {
        store.data.sync()?;
    }
    // What lies beyond the end is as free as what is zeroed.
    let checksum = |number: PageNumber, image: &Image| if number.0 < page_count { image.checksum() } else { 0 };
    Ok(images.into_iter().map(|(number, image)| (number, checksum(number, &image))).collect())
}

fn zero(
    store: &Store,
    run: Option<(PageNumber, u32)>,
    faults: &Faults,
    wrote: &dyn Fn(usize) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    match run {
        Some(_) if Faults::planted(faults.free_pages_not_zeroed) => Ok(()),
        Some((first, count)) => {
            store.data.zero_run(first, count)?;
            wrote(count as usize)
        }
        None => Ok(()),
    }
}
