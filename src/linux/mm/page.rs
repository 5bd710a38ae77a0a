//! One `struct page`: what the kernel uses a page for.

use super::Class;
use super::layout::{Hugetlb, Layout, Order, Slab, Tail};
use crate::bytes::{u32_at, u64_at};
use crate::units::{PAGE_SHIFT, Pfn};

/// `PAGE_MAPPING_ANON`: the low bit of `mapping`. KSM pages have it, and the next one.
const ANON: u64 = 1;
/// A struct page that was never initialised (PAGE_POISON_PATTERN).
const POISON: u64 = u64::MAX;
/// 1 GiB, the largest hugetlb page of x86_64.
const MOST_HUGETLB_ORDER: u32 = 30 - PAGE_SHIFT;

/// A struct page, with the one behind it.
#[derive(Clone, Copy, Debug)]
pub struct StructPage<'a> {
    layout: &'a Layout,
    /// From the start of the struct, to the end of the next one if that can be read.
    bytes: &'a [u8],
    flags: u64,
    mapcount: u32,
}

/// What a struct page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// So many pages from this one on are of this class.
    Block(Class, u64),
    /// Of none of the classes: the kernel's own, or not told.
    Kept,
    /// A page of the compound page whose head stands before it.
    Tail,
    /// Makes no sense: never initialised, or a free block of an order or at a place that cannot be.
    Odd,
}

impl<'a> StructPage<'a> {
    /// The struct at the start of `bytes`; `None` if they are too few.
    pub fn new(layout: &'a Layout, bytes: &'a [u8]) -> Option<Self> {
        let bytes = bytes.get(..2 * layout.size).unwrap_or(bytes);
        let flags = u64_at(bytes, layout.flags)?;
        let mapcount = u32_at(bytes, layout.mapcount)?;
        (bytes.len() >= layout.size).then_some(Self { layout, bytes, flags, mapcount })
    }

    /// What the page at `pfn` is. Decided in makedumpfile's order: free, cache, user.
    pub fn verdict(&self, pfn: Pfn) -> Verdict {
        if self.flags == POISON {
            return Verdict::Odd;
        }
        if self.is_tail() {
            return Verdict::Tail;
        }
        let slab = self.is_slab();
        if !slab && self.layout.buddy.is_some_and(|t| t.is(self.mapcount)) {
            let order = self.word(self.layout.private).filter(|o| *o < self.layout.orders);
            let pages = order.map(|o| 1_u64 << o).filter(|n| pfn.0.is_multiple_of(*n));
            return pages.map_or(Verdict::Odd, |n| Verdict::Block(Class::Free, n));
        }
        if !slab && self.layout.offline.is_some_and(|t| t.is(self.mapcount)) {
            return Verdict::Block(Class::Offline, 1);
        }
        let anon = !slab && self.word(self.layout.mapping).is_some_and(|m| m & ANON != 0);
        if anon && self.layout.slab == Slab::Untold {
            return Verdict::Kept;
        }
        let hugetlb = self.is_hugetlb();
        if self.is_cache() && !anon {
            let private = self.flags & self.layout.private_flag != 0;
            let class = if private { Class::CachePrivate } else { Class::Cache };
            return Verdict::Block(class, self.pages(pfn, hugetlb));
        }
        if anon || hugetlb {
            return Verdict::Block(Class::User, self.pages(pfn, hugetlb));
        }
        Verdict::Kept
    }

    /// Whether the kernel has had it since boot: its image, and what was allocated before there was an allocator.
    pub fn is_reserved(&self) -> bool {
        self.flags != POISON && !self.is_tail() && self.layout.reserved.is_some_and(|flag| self.flags & flag != 0)
    }

    /// Whether its memory is bad; each page of a compound one says it for itself.
    pub fn is_poisoned(&self) -> bool {
        self.flags != POISON && self.layout.hwpoison.is_some_and(|flag| self.flags & flag != 0)
    }

    fn is_tail(&self) -> bool {
        match self.layout.tail {
            Tail::Word(at) => self.word(at).is_some_and(|w| w & 1 != 0),
            Tail::Flag(flag) => self.flags & flag != 0,
            Tail::Untold => false,
        }
    }

    fn is_slab(&self) -> bool {
        match self.layout.slab {
            Slab::Type(kind) => kind.is(self.mapcount),
            Slab::Flag(flag) => self.flags & flag != 0,
            Slab::Untold => false,
        }
    }

    /// On a list of the page cache or of anonymous memory, or in the swap cache.
    fn is_cache(&self) -> bool {
        let l = self.layout;
        let swapcache = self.flags & l.swapcache != 0 && self.flags & l.swapbacked == l.swapbacked;
        self.flags & l.lru_flag != 0 || swapcache
    }

    /// Whether it says that it is the first of a compound page.
    pub fn is_head(&self) -> bool {
        self.flags & self.layout.head != 0
    }

    fn is_hugetlb(&self) -> bool {
        self.is_head()
            && match self.layout.hugetlb {
                Hugetlb::Type(kind) => kind.is(self.mapcount),
                Hugetlb::SecondFlag(flag) => self.second().is_some_and(|s| s.flags & flag != 0),
                Hugetlb::Byte(at, number) => self.second().is_some() && self.bytes.get(at) == Some(&number),
                Hugetlb::Pointer(at, function) => self.second().is_some() && self.word(at) == Some(function.0),
                Hugetlb::Untold => false,
            }
    }

    /// Pages of the compound page whose head this is: 1 if it is none, or one of an order that cannot be.
    fn pages(&self, pfn: Pfn, hugetlb: bool) -> u64 {
        let order = self.second().filter(|_| self.is_head()).and_then(|second| match self.layout.order {
            Order::SecondFlags => Some(second.flags as u8),
            Order::Byte(at) => self.bytes.get(at).copied(),
            Order::Untold => None,
        });
        let order = u32::from(order.unwrap_or(0));
        let possible = u64::from(order) < self.layout.orders || (hugetlb && order <= MOST_HUGETLB_ORDER);
        let pages = if possible { 1 << order } else { 1 };
        if pfn.0.is_multiple_of(pages) { pages } else { 1 }
    }

    /// The struct behind a head, if it is a tail as it must be.
    fn second(&self) -> Option<Self> {
        let second = Self::new(self.layout, self.bytes.get(self.layout.size..)?)?;
        (second.is_tail() || self.layout.tail == Tail::Untold).then_some(second)
    }

    fn word(&self, at: usize) -> Option<u64> {
        u64_at(self.bytes, at)
    }
}
