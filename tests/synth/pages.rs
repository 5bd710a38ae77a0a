//! Dom0's struct pages: what each page is used for, and how the kernel's own structure says so.

use super::Machine;
use super::generation::{COMPOUND_DTOR, Compound, Gen, HUGETLB_DTOR, Hugetlb};
use super::kernel::KERNEL_MAP;
use std::collections::BTreeMap;

/// Where struct pages are in every PV kernel: no 5-level paging, no randomisation.
pub const VMEMMAP: u64 = 0xffff_ea00_0000_0000;
/// Node, zone and last CPU, as on a machine with one node.
const UPPER_FLAGS: u64 = 0x0017_ffff_c000_0000;
/// A kernel pointer that `mapping` holds, its low bits free for flags.
const POINTER: u64 = 0xffff_8880_0123_4560;

/// What a page is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// A live page table.
    Table,
    /// Tree of the P2M, VMCOREINFO note, start_info: stays, whatever its struct page says.
    Protected,
    /// The kernel's own data, slabs included, and all that looks like something else without being it.
    Kernel,
    Reserved,
    Free,
    Cache,
    PrivateCache,
    /// Anonymous, KSM and HugeTLB memory.
    User,
    Poisoned,
    Offline,
    /// The struct page cannot be read or was never written.
    Unknown,
}

impl PageKind {
    /// The levels' bits of which any one drops the page.
    pub fn dropped_by(self) -> u8 {
        match self {
            Self::Free | Self::Offline => 16,
            Self::Cache => 2 | 4,
            Self::PrivateCache => 4,
            Self::User => 8,
            Self::Poisoned => 31,
            Self::Table | Self::Protected | Self::Kernel | Self::Reserved | Self::Unknown => 0,
        }
    }
}

/// Fields by meaning.
#[derive(Clone, Copy, Debug)]
pub struct StructPage {
    pub flags: u64,
    /// lru, or what shares its place: compound_head, destructor, order.
    pub lru: [u64; 2],
    pub mapping: u64,
    pub index: u64,
    pub private: u64,
    pub mapcount: u32,
    pub refcount: u32,
    /// Never initialised: all ones.
    pub unwritten: bool,
}

impl StructPage {
    const PLAIN: StructPage = StructPage {
        flags: UPPER_FLAGS,
        lru: [0xdead_0000_0000_0100, 0xdead_0000_0000_0122],
        mapping: 0,
        index: 0,
        private: 0,
        mapcount: u32::MAX,
        refcount: 1,
        unwritten: false,
    };

    pub fn bytes(&self, generation: &Gen) -> [u8; 64] {
        if self.unwritten {
            return [0xff; 64];
        }
        let counts = u64::from(self.mapcount) | u64::from(self.refcount) << 32;
        let words = if generation.old_layout {
            [self.flags, self.mapping, self.index, counts, self.lru[0], self.lru[1], self.private, 0]
        } else {
            [self.flags, self.lru[0], self.lru[1], self.mapping, self.index, self.private, counts, 0]
        };
        let mut out = [0; 64];
        out.chunks_exact_mut(8).zip(words).for_each(|(b, w)| b.copy_from_slice(&w.to_le_bytes()));
        out
    }
}

/// What a compound page is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    Anon,
    Cache,
    PrivateCache,
    Slab,
    Hugetlb,
    Kernel,
}

/// All struct pages under construction.
pub struct Pages<'a> {
    o: &'a Machine,
    pub generation: Gen,
    pub all: Vec<StructPage>,
    pub kinds: BTreeMap<u64, PageKind>,
}

impl<'a> Pages<'a> {
    pub fn new(o: &'a Machine, count: u64) -> Self {
        Pages {
            o,
            generation: Gen::of(o.kernel),
            all: vec![StructPage::PLAIN; count as usize],
            kinds: (0..count).map(|pfn| (pfn, PageKind::Kernel)).collect(),
        }
    }

    pub fn set(&mut self, pfn: u64, kind: PageKind, change: impl FnOnce(&Gen, &mut StructPage)) {
        let page = &mut self.all[pfn as usize];
        *page = StructPage::PLAIN;
        change(&self.generation, page);
        self.kinds.insert(pfn, kind);
    }

    /// A single page with these flags, `low` the low bits of its mapping.
    fn mapped(&mut self, pfn: u64, kind: PageKind, flags: &str, low: u64) {
        self.set(pfn, kind, |g, p| {
            p.flags |= g.mask(flags);
            (p.mapping, p.index, p.refcount) = (POINTER + low, pfn % 97, 2);
        });
        if low & 1 == 1 {
            self.all[pfn as usize].mapcount = (pfn % 3) as u32;
        }
    }

    pub fn kernel(&mut self, pfn: u64) {
        self.set(pfn, PageKind::Kernel, |_, _| ());
    }

    pub fn reserved(&mut self, pfn: u64) {
        self.set(pfn, PageKind::Reserved, |g, p| p.flags |= g.mask("reserved"));
    }

    pub fn table(&mut self, pfn: u64, level: u64, reserved: bool) {
        self.set(pfn, PageKind::Table, |g, p| {
            // PG_pinned.
            p.flags |= g.mask("owner_priv_1") | if reserved { g.mask("reserved") } else { 0 };
            if g.typed_table(level) {
                p.mapcount = g.page_type("table").unwrap_or(u32::MAX);
            }
        });
    }

    pub fn cache(&mut self, pfn: u64) {
        self.mapped(pfn, PageKind::Cache, "uptodate lru active referenced", 0);
    }

    pub fn private_cache(&mut self, pfn: u64) {
        self.mapped(pfn, PageKind::PrivateCache, "uptodate lru private dirty", 0);
        self.all[pfn as usize].private = POINTER;
    }

    pub fn shmem(&mut self, pfn: u64) {
        self.mapped(pfn, PageKind::Cache, "uptodate lru swapbacked dirty", 0);
    }

    /// Shared memory on its way to swap, not on a list at the moment.
    pub fn shmem_in_swap(&mut self, pfn: u64) {
        self.mapped(pfn, PageKind::Cache, "uptodate swapbacked swapcache", 0);
        self.all[pfn as usize].private = pfn << 8;
    }

    pub fn swap_cache(&mut self, pfn: u64) {
        self.mapped(pfn, PageKind::User, "uptodate lru swapbacked swapcache", 1);
        self.all[pfn as usize].private = pfn << 8;
    }

    /// On a list (`on_lru`) or isolated; some with a waiter, whose flag is bit 7 from 4.10 on.
    pub fn anon(&mut self, pfn: u64, flags: &str) {
        self.mapped(pfn, PageKind::User, &format!("uptodate swapbacked {flags}"), 1);
    }

    pub fn ksm(&mut self, pfn: u64) {
        self.mapped(pfn, PageKind::User, "uptodate lru swapbacked", 3);
    }

    /// Kernel memory whose mapping says "movable".
    pub fn movable(&mut self, pfn: u64) {
        self.mapped(pfn, PageKind::Kernel, "", 2);
    }

    /// Marked for its owner's use (PG_checked), not swap cache for want of PG_swapbacked.
    pub fn checked(&mut self, pfn: u64) {
        self.mapped(pfn, PageKind::Kernel, "uptodate owner_priv_1", 0);
    }

    /// An order 0 slab. What stands in the place of mapping is its own and may be odd.
    pub fn slab(&mut self, pfn: u64) {
        self.mapped(pfn, PageKind::Kernel, "slab", 1);
        self.type_as(pfn, "slab", 3);
    }

    /// Gives the type, if there is such; `owner` are the bits below it, which are free for use.
    fn type_as(&mut self, pfn: u64, name: &str, owner: u32) {
        let page = &mut self.all[pfn as usize];
        page.mapcount = match self.generation.page_type(name) {
            Some(t) if self.generation.type_bytes() => t | owner,
            Some(t) => t,
            None => u32::MAX,
        };
    }

    pub fn offline(&mut self, pfn: u64) {
        let known = self.generation.page_type("offline").is_some();
        let told = known && self.o.tells("NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)");
        self.set(pfn, if told { PageKind::Offline } else { PageKind::Kernel }, |_, _| ());
        self.type_as(pfn, "offline", (pfn & 1) as u32);
    }

    pub fn poison(&mut self, pfn: u64) {
        self.all[pfn as usize].flags |= self.generation.mask("hwpoison");
        if self.o.tells("NUMBER(PG_hwpoison)") {
            self.kinds.insert(pfn, PageKind::Poisoned);
        }
    }

    /// Memory that nobody initialised a struct page for.
    pub fn unwritten(&mut self, pfn: u64) {
        self.set(pfn, PageKind::Unknown, |_, p| p.unwritten = true);
    }

    /// Says "head of a free block" of whatever page.
    pub fn claim_buddy(&mut self, pfn: u64, order: u64) {
        let value = self.generation.page_type("buddy").unwrap();
        let page = &mut self.all[pfn as usize];
        (page.mapcount, page.private, page.refcount) = (value, order, 0);
    }

    pub fn claim_cache(&mut self, pfn: u64) {
        let lru = self.generation.mask("lru uptodate swapbacked");
        let page = &mut self.all[pfn as usize];
        (page.flags, page.mapping) = (page.flags | lru, POINTER);
    }

    pub fn claim_anon(&mut self, pfn: u64) {
        let page = &mut self.all[pfn as usize];
        (page.mapping, page.mapcount) = (POINTER | 1, 0);
    }

    /// A free block: only its head says so.
    pub fn buddy(&mut self, pfn: u64, order: u64) {
        assert_eq!(pfn & ((1 << order) - 1), 0);
        for p in pfn..pfn + (1 << order) {
            self.set(p, PageKind::Free, |_, p| p.refcount = 0);
        }
        self.claim_buddy(pfn, order);
    }

    /// A head whose order cannot be: the page stays.
    pub fn bad_buddy(&mut self, pfn: u64, order: u64) {
        self.kernel(pfn);
        self.claim_buddy(pfn, order);
    }

    pub fn compound(&mut self, pfn: u64, order: u64, whole: Whole) {
        assert_eq!(pfn & ((1 << order) - 1), 0);
        let known = self.generation.hugetlb != Hugetlb::Unknown;
        let kind = match whole {
            Whole::Anon => PageKind::User,
            Whole::Cache => PageKind::Cache,
            Whole::PrivateCache => PageKind::PrivateCache,
            Whole::Hugetlb if known => PageKind::User,
            Whole::Slab | Whole::Kernel | Whole::Hugetlb => PageKind::Kernel,
        };
        self.claim_compound(pfn, 1 << order, order, whole);
        (pfn..pfn + (1 << order)).for_each(|p| _ = self.kinds.insert(p, kind));
    }

    /// Writes head and tails; `order` is what the first tail says.
    pub fn claim_compound(&mut self, pfn: u64, pages: u64, order: u64, whole: Whole) {
        let (flags, low) = match whole {
            Whole::Anon => ("lru swapbacked uptodate", 1),
            Whole::Cache => ("lru swapbacked uptodate", 0),
            Whole::PrivateCache => ("lru uptodate private", 0),
            Whole::Slab => ("slab", 1),
            Whole::Hugetlb => ("uptodate", 0),
            Whole::Kernel => ("", 0),
        };
        self.mapped(pfn, PageKind::Kernel, &format!("head {flags}"), low);
        self.all[pfn as usize].mapcount = u32::MAX;
        match whole {
            Whole::Kernel => self.all[pfn as usize].mapping = 0,
            Whole::Slab => self.type_as(pfn, "slab", 0),
            Whole::Hugetlb => self.type_as(pfn, "hugetlb", 5),
            _ => {}
        }
        for p in pfn + 1..pfn + pages {
            self.set(p, PageKind::Kernel, |_, p| p.refcount = 0);
            self.tail(p, pfn, order);
        }
        self.first_tail(pfn + 1, order, whole);
    }

    fn tail(&mut self, pfn: u64, head: u64, order: u64) {
        let (flag, head_va) = (self.generation.mask("tail"), VMEMMAP + head * 64);
        let page = &mut self.all[pfn as usize];
        if self.generation.compound == Compound::Lru {
            // first_page shares the place of private.
            (page.flags, page.private) = (page.flags | flag, head_va);
            return;
        }
        // 7.1: a mask that leads from a tail's address to the head's.
        let mask = self.o.kernel >= super::Kernel::V7_1;
        page.lru[0] = if mask { u64::MAX << (6 + order.min(20)) | 1 } else { head_va | 1 };
        // TAIL_MAPPING.
        page.mapping = 0xdead_0000_0000_0400;
    }

    /// Order and kind, each where this kernel has it.
    fn first_tail(&mut self, pfn: u64, order: u64, whole: Whole) {
        let generation = self.generation;
        let hugetlb = whole == Whole::Hugetlb;
        let page = &mut self.all[pfn as usize];
        let dtor = if hugetlb { HUGETLB_DTOR } else { COMPOUND_DTOR };
        match generation.compound {
            Compound::Lru => {
                // free_huge_page, or free_compound_page next to it.
                let text = KERNEL_MAP + (super::kernel::KERNEL_PFN << 12) + 0x1180;
                page.lru = [if hugetlb { text } else { text + 0x40 }, order];
            }
            // What follows the two is other counters.
            Compound::Halves => page.lru[1] = dtor | order << 16 | 0xffff_ffff << 32,
            Compound::Bytes => page.lru[1] = dtor | (order & 0xff) << 8 | 0xffff_ffff << 32,
            Compound::Flags => {
                let mark = if hugetlb { generation.mask("hugetlb") } else { 0 };
                page.flags |= order & 0xff | mark;
            }
        }
        if !generation.old_layout {
            // Counters of a folio stand where a head has its mapping: an odd number says nothing of a tail.
            page.mapping = 0xffff_ffff;
        }
    }
}
