use std::sync::Arc;

use super::{Image, Readers, VersionTable};
use crate::ids::{PageNumber, TxnId};
use crate::page::Page;

fn image(mark: u8) -> Image {
    let mut page = Page::zeroed();
    page.bytes_mut()[100] = mark;
    Image::Page(Arc::from(page))
}

fn mark(image: Option<Image>) -> Option<u8> {
    image.map(|image| match image {
        Image::Page(page) => page.bytes()[100],
        Image::Free => 0,
    })
}

const P: PageNumber = PageNumber(70_000);

#[test]
fn a_snapshot_sees_the_newest_version_not_above_it() {
    let table = VersionTable::default();
    assert_eq!(mark(table.newest_at(P, TxnId(9))), None);
    table.push(P, TxnId(3), image(3));
    table.push(P, TxnId(7), image(7));
    for (snapshot, seen) in [(2, None), (3, Some(3)), (6, Some(3)), (7, Some(7)), (100, Some(7))] {
        assert_eq!(mark(table.newest_at(P, TxnId(snapshot))), seen, "snapshot {snapshot}");
    }
}

#[test]
fn pruning_keeps_what_a_snapshot_or_the_future_needs() {
    // Every set of snapshots over versions 2, 4, 6 with 4 applied and 6 staged.
    for bits in 0_u32..128 {
        let snapshots: Vec<TxnId> = (0..5_u32).filter(|n| bits >> n & 1 == 1).map(|n| TxnId(u64::from(n))).collect();
        let table = VersionTable::default();
        for txn in [2_u8, 4, 6] {
            table.push(P, TxnId(u64::from(txn)), image(txn));
        }
        table.prune(P, TxnId(4), &snapshots);
        for snapshot in snapshots.iter().copied().chain([TxnId(4), TxnId(6)]) {
            let expected = match snapshot.0 {
                0 | 1 => None,
                2 | 3 => Some(2),
                4 | 5 => Some(4),
                _ => Some(6),
            };
            assert_eq!(mark(table.newest_at(P, snapshot)), expected, "{snapshots:?}");
        }
        let needs_two = snapshots.iter().any(|snapshot| (2..4).contains(&snapshot.0));
        assert_eq!(mark(table.newest_at(P, TxnId(3))).is_some(), needs_two, "{snapshots:?}");
    }
}

#[test]
fn bytes_go_back_to_nothing() {
    let table = VersionTable::default();
    table.push(P, TxnId(1), image(1));
    table.push(P, TxnId(2), Image::Free);
    assert!(table.bytes() > 8192);
    table.drop_version(P, TxnId(2));
    table.drop_up_to(P, TxnId(1));
    assert_eq!(table.bytes(), 0);
    assert!(table.is_empty());
}

#[test]
fn the_checkpointer_goes_no_further_than_the_oldest_reader() {
    let readers = Readers::new(TxnId(1), Arc::new(1));
    let old = readers.open();
    readers.publish(TxnId(2), Arc::new(2));
    let young = readers.open();
    let snapshots = readers.publish(TxnId(3), Arc::new(3));
    assert_eq!(snapshots, [TxnId(1), TxnId(2)]);
    let goes_to = || readers.open_for_checkpoint().map(|registration| **registration.state());
    assert_eq!(goes_to(), Some(1));
    assert!(readers.in_the_way(TxnId(0)).is_none(), "a checkpoint may still go to its snapshot");
    assert!(readers.expire_in_the_way(TxnId(0)).is_empty());
    let holder = readers.in_the_way(TxnId(1)).expect("the old one");
    assert_eq!((holder.txn_id, holder.expired, holder.place.file()), (TxnId(1), false, file!()));
    assert_eq!(readers.expire_in_the_way(TxnId(1)).len(), 1);
    assert!(readers.in_the_way(TxnId(1)).is_some_and(|holder| holder.expired));
    assert!(old.is_expired() && !young.is_expired());
    // Expired, but it may still hold a slice of the map; and its versions are gone.
    assert_eq!(goes_to(), None);
    drop(old);
    assert_eq!(goes_to(), Some(2));
    drop(young);
    assert_eq!(goes_to(), Some(3));
    assert_eq!(readers.count(), 0);
}
