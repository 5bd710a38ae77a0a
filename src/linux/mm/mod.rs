//! What the kernel uses each of its pages for, as its struct pages tell: read through its own page tables, with nothing
//! but its VMCOREINFO.
//!
//! The way is makedumpfile's (makedumpfile.c: __exclude_unnecessary_pages), whose levels users know, with its mistakes
//! left out: what cannot be read or makes no sense is kept, and each rule goes by what the kernel tells of itself.

pub mod layout;
pub mod page;
pub mod scan;
pub mod sections;

use super::Kernel;
use crate::units::{PAGE_SIZE, Pfn, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;
use layout::Layout;
use page::{StructPage, Verdict};
use sections::{Section, Sections};
use std::fmt;

/// What a page can be left out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Free, in the buddy allocator.
    Free,
    /// Given back to Xen, or never populated (PageOffline).
    Offline,
    /// Of the page cache, without private data.
    Cache,
    /// Of the page cache, with private data such as buffers.
    CachePrivate,
    /// Anonymous memory of processes, and hugetlb pages.
    User,
    /// With bad memory, not to be read.
    HwPoison,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Free, Self::Offline, Self::Cache, Self::CachePrivate, Self::User, Self::HwPoison];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "free",
            Self::Offline => "offline",
            Self::Cache => "cache",
            Self::CachePrivate => "cache-private",
            Self::User => "user",
            Self::HwPoison => "hwpoison",
        })
    }
}

/// The struct pages of a kernel.
#[derive(Debug)]
pub struct MemMap<'a> {
    kernel: &'a Kernel<'a>,
    /// What they look like.
    pub layout: Layout,
    /// Where they stand.
    pub sections: Sections,
    /// The different bases of sections: one, with a virtual memory map.
    bases: Vec<VirtAddr>,
}

/// MAX_ORDER of every x86_64 kernel that nobody changed.
const USUAL_ORDERS: u64 = 11;
/// The flags proper, below zone, node and section (Linux: include/linux/page-flags-layout.h): no kernel has more.
const PAGE_FLAGS: u64 = (1 << 24) - 1;
/// Bases that are tried to find the PFN of a struct page.
const MOST_BASES: usize = 16;

impl<'a> MemMap<'a> {
    /// Finds them.
    ///
    /// # Errors
    /// What is missing.
    pub fn open(kernel: &'a Kernel<'a>, info: &Vmcoreinfo, free_huge_page: Option<VirtAddr>) -> Result<Self, String> {
        let mut layout = Layout::new(info, free_huge_page)?;
        let sections = Sections::read(kernel, info)?;
        layout.orders = layout.orders.min(u64::from(sections.shift + 1).max(USUAL_ORDERS));
        let mut bases: Vec<VirtAddr> = sections.iter().map(|s| s.base).collect();
        bases.sort_unstable();
        bases.dedup();
        bases.truncate(MOST_BASES);
        let mut map = Self { kernel, layout, sections, bases };
        map.layout.reserved = map.reserved(info);
        Ok(map)
    }

    /// The flag PG_reserved, whose number no kernel tells: the only one that pages of the kernel's code have.
    fn reserved(&self, info: &Vmcoreinfo) -> Option<u64> {
        let pfn = self.kernel.pfn(info.symbol("_stext")?)?;
        let section = self.sections.get(pfn.0 >> self.sections.shift)?;
        let into = pfn.0.checked_mul(self.layout.size as u64)?.checked_add(self.layout.flags as u64)?;
        let flags = self.kernel.space.read_u64("a struct page", section.base.checked_add(into)?).ok()?;
        Some(flags & PAGE_FLAGS).filter(|flag| flag.is_power_of_two())
    }

    /// Where the struct pages of all PFNs below `end` are, in whole sections.
    pub fn areas(&self, end: Pfn) -> Vec<std::ops::Range<u64>> {
        let len = end.0.next_multiple_of(1 << self.sections.shift).saturating_mul(self.layout.size as u64);
        self.bases.iter().map(|base| base.0..base.0.saturating_add(len)).collect()
    }

    /// The PFN whose struct page begins at `va`.
    pub fn pfn(&self, va: VirtAddr) -> Option<Pfn> {
        self.bases.iter().find_map(|base| {
            let into = va.0.checked_sub(base.0)?;
            let size = self.layout.size as u64;
            let pfn = Pfn(into / size);
            let section = self.sections.get(pfn.0 >> self.sections.shift).filter(|s| s.base == *base);
            section.filter(|_| into.is_multiple_of(size)).map(|_| pfn)
        })
    }

    /// `private` of the struct page of `pfn`.
    pub fn private(&self, pfn: Pfn) -> Option<u64> {
        let section = self.sections.get(pfn.0 >> self.sections.shift)?;
        let into = pfn.0.checked_mul(self.layout.size as u64)?.checked_add(self.layout.private as u64)?;
        self.kernel.space.read_u64("a struct page", section.base.checked_add(into)?).ok()
    }

    /// What the struct page of `pfn` says; `None` if it cannot be read.
    pub fn verdict(&self, pfn: Pfn) -> Option<Verdict> {
        let section = self.sections.get(pfn.0 >> self.sections.shift)?;
        let mut bytes = vec![0; 2 * self.layout.size];
        let readable = self.load(section, pfn, &mut bytes);
        let page = StructPage::new(&self.layout, &bytes).filter(|_| readable.covers(0, self.layout.size))?;
        Some(page.verdict(pfn))
    }

    /// Reads struct pages from that of `first` on, and says which bytes of the buffer could be read; the others are 0.
    fn load(&self, section: Section, first: Pfn, bytes: &mut [u8]) -> Readable {
        let mut gaps = Vec::new();
        let start = first.0.checked_mul(self.layout.size as u64).and_then(|n| section.base.checked_add(n));
        let Some(start) = start else {
            bytes.fill(0);
            return Readable { gaps: vec![(0, bytes.len())] };
        };
        let mut at = 0;
        while at < bytes.len() {
            let va = VirtAddr(start.0.wrapping_add(at as u64));
            let end = (at + PAGE_SIZE - va.in_page()).min(bytes.len());
            let part = bytes.get_mut(at..end).unwrap_or_default();
            if self.kernel.read("struct pages", va, part).is_err() {
                part.fill(0);
                gaps.push((at, end));
            }
            at = end;
        }
        Readable { gaps }
    }
}

/// Which bytes of a buffer could be read.
#[derive(Debug)]
struct Readable {
    /// Start and end of what could not.
    gaps: Vec<(usize, usize)>,
}

impl Readable {
    fn covers(&self, from: usize, to: usize) -> bool {
        self.gaps.iter().all(|(start, end)| to <= *start || *end <= from)
    }
}
