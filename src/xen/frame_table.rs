//! Xen's frame table: one `struct page_info` per PDX.

use super::notes::XenNotes;
use super::page_info::PageInfo;
use super::paging::AddressSpace;
use super::pdx::PdxMap;
use crate::bytes::{u32_at, u64_at};
use crate::error::{Error, Result};
use crate::units::{Mfn, VirtAddr};

/// Entries that a [`Cursor`] holds at a time: a page of the table.
const BLOCK: u64 = 128;

/// The frame table of a host.
#[derive(Clone, Debug)]
pub struct FrameTable<'a> {
    space: AddressSpace<'a>,
    base: VirtAddr,
    /// SIZE(page_info): 32, or 48 in BIGMEM builds.
    size: u64,
    count_at: usize,
    owner_at: usize,
    wide_owner: bool,
    pdx: PdxMap,
    max_page: u64,
    /// Whether there is no table at all.
    unknown: bool,
}

impl<'a> FrameTable<'a> {
    /// A table of which the dump has nothing: every entry is unreadable.
    pub(super) fn unknown(space: AddressSpace<'a>) -> Self {
        Self {
            space,
            base: VirtAddr(0),
            size: 32,
            count_at: 8,
            owner_at: 24,
            wide_owner: false,
            pdx: PdxMap::default(),
            max_page: 0,
            unknown: true,
        }
    }

    /// Finds the table: `SYMBOL(frame_table)` is the address of a pointer to it in every version.
    ///
    /// # Errors
    /// [`Error::Missing`] for absent keys, or what reading them gives.
    pub fn open(space: AddressSpace<'a>, notes: &XenNotes, pdx: PdxMap) -> Result<Self> {
        let info = &notes.info;
        let key = |name: &'static str, value: Option<u64>| {
            value.ok_or_else(|| Error::missing("a key of VMCOREINFO_XEN", format!("{name} is not there")))
        };
        let size = key("SIZE(page_info)", info.size("page_info"))?;
        let count_at = key("OFFSET(page_info.count_info)", info.offset("page_info.count_info"))?;
        let mut owner_at = key("OFFSET(page_info._domain)", info.offset("page_info._domain"))?;
        // Bounded first, so that the sums below cannot wrap.
        let sound = matches!(size, 32 | 48) && count_at < size && owner_at < size;
        if size == 32 && sound && owner_at == count_at + 8 {
            // Xen 3.4 to 4.0.1 print the offset of the union before it (Xen commit 84be7c5af4).
            owner_at += 8;
        }
        let max_page = notes.variable(&space, "max_page")?;
        if !sound || count_at + 16 > owner_at || owner_at + 4 > size {
            let why = format!(
                "SIZE(page_info) {size}, count_info at {count_at}, _domain at {owner_at}; Xen 3.4 or later is needed"
            );
            return Err(Error::damaged("VMCOREINFO_XEN", why));
        }
        Ok(Self {
            base: VirtAddr(notes.variable(&space, "frame_table")?),
            space,
            size,
            count_at: count_at as usize,
            owner_at: owner_at as usize,
            wide_owner: size == 48,
            pdx,
            max_page,
            unknown: false,
        })
    }

    /// One more than the highest MFN.
    pub fn max_page(&self) -> u64 {
        self.max_page
    }

    /// MFN to PDX.
    pub fn pdx(&self) -> &PdxMap {
        &self.pdx
    }

    /// A reader with a memory of one block; each thread has its own.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { table: self, first: None, block: vec![0; (BLOCK * self.size) as usize], unreadable: 0 }
    }

    /// A single entry; use a [`Cursor`] for many.
    pub fn get(&self, mfn: Mfn) -> Option<PageInfo> {
        self.cursor().look(mfn).info()
    }
}

/// What the table says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// This.
    Info(PageInfo),
    /// It has no entry: past max_page, not mapped, or filled with ones (padding and hot-plug slack, which Xen sets so).
    None,
    /// It has one, but the dump does not.
    Unreadable,
}

impl Entry {
    /// The entry, if there is one that can be read.
    pub fn info(self) -> Option<PageInfo> {
        match self {
            Self::Info(info) => Some(info),
            Self::None | Self::Unreadable => None,
        }
    }
}

/// Reads entries, a block at a time.
#[derive(Debug)]
pub struct Cursor<'t> {
    table: &'t FrameTable<'t>,
    /// The first PDX in `block`.
    first: Option<u64>,
    block: Vec<u8>,
    /// A bit for each entry of the block that the dump does not have.
    unreadable: u128,
}

impl Cursor<'_> {
    /// What Xen knows of a frame.
    pub fn look(&mut self, mfn: Mfn) -> Entry {
        let t = self.table;
        if t.unknown {
            return Entry::Unreadable;
        }
        let Some(pdx) = t.pdx.pdx(mfn).filter(|_| mfn.0 < t.max_page) else { return Entry::None };
        let first = pdx.0 - pdx.0 % BLOCK;
        if self.first != Some(first) {
            self.load(first);
        }
        if self.unreadable >> (pdx.0 - first) & 1 == 1 {
            return Entry::Unreadable;
        }
        let at = ((pdx.0 - first) * t.size) as usize;
        let word = |at: usize| u64_at(&self.block, at).unwrap_or(u64::MAX);
        let count = word(at + t.count_at);
        let owner = match t.wide_owner {
            true => word(at + t.owner_at),
            false => u32_at(&self.block, at + t.owner_at).map_or(0, u64::from),
        };
        let info = PageInfo { count, kind: word(at + t.count_at + 8), owner };
        if count == u64::MAX { Entry::None } else { Entry::Info(info) }
    }

    fn load(&mut self, first: u64) {
        let t = self.table;
        (self.first, self.unreadable) = (Some(first), 0);
        let va = |n: u64| first.checked_add(n)?.checked_mul(t.size).and_then(|o| t.base.checked_add(o));
        let read = |va, buf: &mut [u8]| t.space.read("the frame table", va, buf);
        if va(0).is_some_and(|va| read(va, &mut self.block).is_ok()) {
            return;
        }
        // Part of the block may be readable: keep what is.
        for (n, part) in (0..).zip(self.block.chunks_exact_mut(t.size as usize)) {
            match va(n).map(|va| read(va, part)) {
                Some(Ok(())) => {}
                Some(Err(Error::Absent { .. })) => self.unreadable |= 1 << n,
                _ => part.fill(0xff),
            }
        }
    }
}
