use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{PageContent, inspect_page};
use crate::engine::OpenError;
use crate::engine::rig_test::{commit, create};
use crate::env::{Disk, RealDisk};
use crate::ids::PageNumber;
use crate::page::{PAGE_BYTES, PageKind};

#[test]
fn every_page_is_taken_apart_and_a_flipped_byte_is_seen() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    commit(&engine, |batch| {
        batch.create_tree("t").expect("works");
        for key in 0..100_u32 {
            batch.put("t", &key.to_be_bytes(), &[7; 900]).expect("fits");
        }
        batch.put("t", b"large", &[9; 20_000]).expect("fits");
        batch.create_multi_tree("m").expect("works");
        for value in 0..400_u32 {
            batch.add("m", b"tree", &value.to_be_bytes()).expect("fits");
            batch.add("m", b"list", &(value % 5).to_be_bytes()).expect("fits");
        }
    });
    engine.checkpoint().expect("works");
    assert!(matches!(inspect_page(&disk, home.path(), PageNumber(0)), Err(OpenError::Locked(_))));
    drop(engine);

    let mut many = Vec::new();
    let (mut large, mut plain, mut children, mut leaf, mut count) = (0, 0, 0, None, 0);
    while let Some(report) = inspect_page(&disk, home.path(), PageNumber(count)).expect("readable") {
        assert!(report.is_clean() && !report.checkpoint_under_way, "{report:?}");
        match (&report.content, count) {
            (PageContent::Superblock(superblock), 0) => assert_eq!(superblock.txn_id.0, 1),
            (PageContent::Bitmap(allocated), 1) => assert!(*allocated > 10, "{allocated}"),
            (PageContent::Leaf(entries), _) => {
                for entry in entries {
                    large += u32::from(entry.key == b"large" && entry.value_bytes == 20_000 && entry.run.is_some());
                    plain += u32::from(entry.value_bytes == 900 && entry.run.is_none());
                }
                let of_many = entries.iter().filter(|entry| [&b"list"[..], b"tree"].contains(&&*entry.key));
                many.extend(of_many.map(|entry| (entry.many, entry.many_root.is_some())));
                leaf = Some(report.number);
            }
            (PageContent::Branch(found), _) => children += found.len(),
            (PageContent::Opaque, _) => assert!(matches!(report.kind, Some(PageKind::Overflow | PageKind::Free))),
            (other, _) => panic!("page {count} holds {other:?}"),
        }
        count += 1;
    }
    assert_eq!((large, plain), (1, 100));
    assert_eq!(many, [(Some(5), false), (Some(400), true)]);
    assert!(children >= 10, "{children}");

    let leaf = leaf.expect("there are leaves");
    let file = std::fs::File::options().write(true).open(home.path().join("g1/data")).expect("there");
    // The number of slots: the checksum does not fit, and slots and cells overlap.
    file.write_all_at(&[0xff, 0xff], u64::from(leaf.0) * PAGE_BYTES as u64 + 10).expect("writable");
    let report = inspect_page(&disk, home.path(), leaf).expect("readable").expect("there");
    assert_ne!(report.checksum, report.computed);
    assert_eq!(report.damage.as_deref(), Some("slots and cells overlap"));
}
