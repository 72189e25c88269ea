//! Steps 3 and 4 of a checkpoint: the pages.

use std::sync::Arc;

use crate::engine::Faults;
use crate::error::StorageError;
use crate::ids::{PageNumber, TxnId};
use crate::page::Page;
use crate::store::Store;
use crate::versions::Image;

/// Writes the pages of `snapshot` into the data file, in page order, gives the file its length, and syncs. `pause` runs
/// between writes. Returns the pages that were written or zeroed.
///
/// The caller holds a registration of the snapshot, below which there is no reader.
pub(crate) fn write_pages(
    store: &Store,
    snapshot: TxnId,
    page_count: u32,
    faults: &Faults,
    pause: &dyn Fn() -> Result<(), StorageError>,
) -> Result<Vec<PageNumber>, StorageError> {
    let images = store.versions.collect_at(snapshot);
    let mut run: Vec<Arc<Page>> = Vec::new();
    let mut run_start = PageNumber(0);
    let mut free: Option<(PageNumber, u32)> = None;
    for (number, image) in &images {
        // What lies beyond the end of the file is cut with it.
        if number.0 >= page_count {
            continue;
        }
        if run_start.0 as usize + run.len() != number.0 as usize || matches!(image, Image::Free) {
            store.data.write_run(run_start, &run, pause)?;
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
                        zero(store, other, faults)?;
                        Some((*number, 1))
                    }
                };
            }
        }
    }
    store.data.write_run(run_start, &run, pause)?;
    zero(store, free, faults)?;
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
    Ok(images.into_iter().map(|(number, _)| number).collect())
}

fn zero(store: &Store, run: Option<(PageNumber, u32)>, faults: &Faults) -> Result<(), StorageError> {
    match run {
        Some(_) if Faults::planted(faults.free_pages_not_zeroed) => Ok(()),
        Some((first, count)) => store.data.zero_run(first, count),
        None => Ok(()),
    }
}
