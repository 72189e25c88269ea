//! One page of a stopped node's data file, taken apart.
//!
//! The page is shown as it stands in the file, without the journal over it: it is what rotted or did not. While a
//! checkpoint was under way at the end, the file may be any mixture of two states, and a page that does not match its
//! checksum is then what recovery is there for: [`PageReport::checkpoint_under_way`] says so.

use std::path::Path;
use std::sync::Arc;

use crate::alloc::{PAGES_PER_GROUP, is_set};
use crate::btree::multi::payload::Values;
use crate::btree::node::{Damage, Node, Payload};
use crate::engine::{OpenError, Paths, read_meta, take_lock};
use crate::env::{Disk, OpenMode};
use crate::ids::{PageNumber, TxnId};
use crate::page::superblock::Superblock;
use crate::page::{Page, PageKind, checksum};
use crate::store::{DataFile, offset_of};

/// A page, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PageReport {
    /// Its number.
    pub number: PageNumber,
    /// Where it begins in the data file, in bytes.
    pub offset: u64,
    /// What it holds; `None` for a kind that does not exist.
    pub kind: Option<PageKind>,
    /// The checksum that it carries.
    pub checksum: u64,
    /// The checksum that its bytes have; 0 for a free page.
    pub computed: u64,
    /// Whether a checkpoint was under way, so that the page may be a mixture that recovery would make whole.
    pub checkpoint_under_way: bool,
    /// What is in it, as far as it can be read.
    pub content: PageContent,
    /// What is wrong with its structure, where reading ended.
    pub damage: Option<String>,
}

/// What is in a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PageContent {
    /// Page 0.
    Superblock(Superblock),
    /// So many pages are set as allocated.
    Bitmap(u32),
    /// The entries of a leaf, in slot order.
    Leaf(Vec<LeafEntry>),
    /// The key and the child of each slot; the key of the first is empty.
    Branch(Vec<(Vec<u8>, PageNumber)>),
    /// Free, a part of a large value, or nothing that can be read.
    Opaque,
}

/// An entry of a leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LeafEntry {
    /// Its key.
    pub key: Vec<u8>,
    /// The transaction that wrote it.
    pub version: TxnId,
    /// The length of its value, in bytes.
    pub value_bytes: u32,
    /// The first page of its value's run, if the value is not in the leaf.
    pub run: Option<PageNumber>,
    /// What it is if the leaf is one of a multi-value tree, which a page does not say: how many values stand under the key.
    pub many: Option<u64>,
    /// The root of the tree of values, if it is one.
    pub many_root: Option<PageNumber>,
}

impl PageReport {
    /// Whether the page carries its checksum (or is free and all zeros), and its structure can be read to the end.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.checksum == self.computed && self.damage.is_none()
    }

    fn of(number: PageNumber, page: &Page, checkpoint_under_way: bool) -> Self {
        let kind = page.kind();
        let computed = if page.is_zero() { 0 } else { checksum::compute(number, page) };
        let mut content = PageContent::Opaque;
        let read = match kind {
            Some(PageKind::Superblock) => {
                Superblock::decode(page).map(|found| content = PageContent::Superblock(found))
            }
            Some(PageKind::Bitmap) => {
                content = PageContent::Bitmap(allocated(number, page));
                Ok(())
            }
            Some(PageKind::Leaf) => {
                let mut entries = Vec::new();
                let read = leaf(page, &mut entries);
                content = PageContent::Leaf(entries);
                read.map_err(|damage| damage.0)
            }
            Some(PageKind::Branch) => {
                let mut children = Vec::new();
                let read = branch(page, &mut children);
                content = PageContent::Branch(children);
                read.map_err(|damage| damage.0)
            }
            Some(PageKind::Overflow | PageKind::Free) => Ok(()),
            None => Err("it is of no known kind"),
        };
        let (checksum, damage) = (page.checksum(), read.err().map(str::to_owned));
        Self { number, offset: offset_of(number), kind, checksum, computed, checkpoint_under_way, content, damage }
    }
}

/// How many pages a bitmap says are allocated.
fn allocated(number: PageNumber, page: &Page) -> u32 {
    let start = number.0 / PAGES_PER_GROUP * PAGES_PER_GROUP;
    let group = start..start.saturating_add(PAGES_PER_GROUP);
    group.map(|page_number| u32::from(is_set(page, PageNumber(page_number)))).sum()
}

fn leaf(page: &Page, entries: &mut Vec<LeafEntry>) -> Result<(), Damage> {
    let node = Node::leaf(page)?;
    for slot in 0..node.count() {
        let cell = node.leaf_cell(slot)?;
        let (value_bytes, run) = match cell.payload {
            Payload::Inline(value) => (u32::try_from(value.len()).expect("shorter than a page"), None),
            Payload::Overflow(first, length) => (length, Some(first)),
        };
        let many = cell.multi_values().ok();
        let many_root = match many {
            Some(Values::Tree(tree)) => tree.root,
            _ => None,
        };
        let (key, many) = (cell.key.to_vec(), many.map(|values| values.count()));
        entries.push(LeafEntry { key, version: cell.version, value_bytes, run, many, many_root });
    }
    Ok(())
}

fn branch(page: &Page, children: &mut Vec<(Vec<u8>, PageNumber)>) -> Result<(), Damage> {
    let node = Node::branch(page)?;
    for slot in 0..node.count() {
        children.push((node.key(slot)?.to_vec(), node.child(slot)?));
    }
    Ok(())
}

/// Takes a page of a directory's data file apart; `None` if the file ends before it. Changes nothing.
///
/// # Errors
/// [`OpenError::Locked`] while a node runs on it; `node.meta` or the data file that cannot be read.
pub fn inspect_page(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    number: PageNumber,
) -> Result<Option<PageReport>, OpenError> {
    let _lock = take_lock(&**disk, directory)?;
    let meta = read_meta(&**disk, directory)?;
    let home = Paths::generation(directory, meta.generation);
    let data = DataFile::open(&**disk, &Paths::data(&home), OpenMode::Read, 1 << 40)?;
    let under_way = meta.checkpoint.log_id != meta.target.log_id;
    Ok(data.read_unverified(number)?.map(|page| PageReport::of(number, &page, under_way)))
}
