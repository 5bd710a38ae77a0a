//! What differs between kernels in `struct page`, and the VMCOREINFO keys that tell of it.

use super::{Kernel, Machine};
use std::fmt::Write;

/// `enum pageflags` in its own order, each bit named without its prefix.
const V3: &str = "locked error referenced uptodate dirty lru active slab owner_priv_1 arch_1 reserved private private_2 \
                  writeback head tail swapcache mappedtodisk reclaim swapbacked unevictable mlocked uncached hwpoison";
const V4_4: &str = "locked error referenced uptodate dirty lru active slab owner_priv_1 arch_1 reserved private \
                    private_2 writeback head swapcache mappedtodisk reclaim swapbacked unevictable mlocked uncached \
                    hwpoison young idle";
/// From 4.10 on PG_swapcache is PG_owner_priv_1.
const V4_19: &str = "locked error referenced uptodate dirty lru active waiters slab owner_priv_1 arch_1 reserved private \
                     private_2 writeback head mappedtodisk reclaim swapbacked unevictable mlocked uncached hwpoison \
                     young idle";
const V5_4: &str = "locked referenced uptodate dirty lru active workingset waiters error slab owner_priv_1 arch_1 \
                    reserved private private_2 writeback head mappedtodisk reclaim swapbacked unevictable mlocked \
                    uncached hwpoison young idle";
/// The low byte of a first tail's flags has become the order, so nothing that such a tail needs stands there.
const V6_6: &str = "locked writeback referenced uptodate dirty lru head waiters active workingset error slab \
                    owner_priv_1 arch_1 reserved private private_2 mappedtodisk reclaim swapbacked unevictable mlocked \
                    uncached hwpoison";
const V6_10: &str = "locked writeback referenced uptodate dirty lru head waiters active workingset error owner_priv_1 \
                     arch_1 reserved private private_2 mappedtodisk reclaim swapbacked unevictable mlocked uncached \
                     hwpoison";
const V6_12: &str = "locked writeback referenced uptodate dirty lru head waiters active workingset owner_priv_1 owner_2 \
                     arch_1 reserved private private_2 reclaim swapbacked unevictable mlocked hwpoison";

/// Where a compound page keeps its order and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compound {
    /// Before 4.4: destructor's address and order in page[1].lru.
    Lru,
    /// Two u16 in page[1].
    Halves,
    /// Two u8 in page[1]; since 6.3 they have names of their own in struct folio.
    Bytes,
    /// The order in the low byte of page[1].flags.
    Flags,
}

/// How a HugeTLB head is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hugetlb {
    /// No key tells.
    Unknown,
    /// page[1].lru.next is SYMBOL(free_huge_page).
    Address,
    /// The destructor's number.
    Number,
    /// PG_hugetlb in page[1].flags.
    Flag,
    /// The page type.
    Type,
}

/// One kernel's `struct page`.
#[derive(Clone, Copy, Debug)]
pub struct Gen {
    pub kernel: Kernel,
    pub compound: Compound,
    pub hugetlb: Hugetlb,
    /// mapping 8, _mapcount 24, lru 32, private 48 (up to 4.17); since then lru 8, mapping 24, private 40, _mapcount 48.
    pub old_layout: bool,
    flags: &'static str,
}

/// HUGETLB_PAGE_DTOR of enum compound_dtor_id.
pub const HUGETLB_DTOR: u64 = 2;
/// COMPOUND_PAGE_DTOR.
pub const COMPOUND_DTOR: u64 = 1;

impl Gen {
    pub fn of(kernel: Kernel) -> Self {
        use Kernel as K;
        let flags = match kernel {
            K::V3_10 | K::V3_12 | K::V3_18 => V3,
            K::V4_4 => V4_4,
            K::V4_19 => V4_19,
            K::V5_4 | K::V5_10 | K::V6_1 | K::V6_4 => V5_4,
            K::V6_6 => V6_6,
            K::V6_10 => V6_10,
            K::V6_12 | K::V7_1 => V6_12,
        };
        let (compound, hugetlb) = match kernel {
            K::V3_12 => (Compound::Lru, Hugetlb::Unknown),
            K::V3_10 | K::V3_18 => (Compound::Lru, Hugetlb::Address),
            K::V4_4 => (Compound::Halves, Hugetlb::Number),
            k if k < K::V6_6 => (Compound::Bytes, Hugetlb::Number),
            K::V6_6 => (Compound::Flags, Hugetlb::Flag),
            _ => (Compound::Flags, Hugetlb::Type),
        };
        Gen { kernel, compound, hugetlb, old_layout: kernel < K::V4_19, flags }
    }

    /// The number of a flag that this kernel has.
    pub fn number(&self, name: &str) -> Option<u32> {
        let name = match name {
            "swapcache" if self.kernel >= Kernel::V4_19 => "owner_priv_1",
            "hugetlb" => return (self.kernel == Kernel::V6_6).then(|| self.number("active")).flatten(),
            name => name,
        };
        self.flags.split_whitespace().position(|f| f == name).map(|n| n as u32)
    }

    /// The mask of flags; those that this kernel has not are left out.
    pub fn mask(&self, names: &str) -> u64 {
        names.split_whitespace().filter_map(|n| self.number(n)).fold(0, |m, n| m | 1 << n)
    }

    /// What `_mapcount` of a page of a type is.
    pub fn page_type(&self, name: &str) -> Option<u32> {
        let k = self.kernel;
        let (since, inverted, byte) = match name {
            "buddy" if k < Kernel::V4_19 => return Some(-128_i32 as u32),
            "buddy" => (Kernel::V4_19, 0x80, 0xf0),
            "offline" => (Kernel::V5_4, 0x100, 0xf1),
            "table" if k == Kernel::V4_19 => (Kernel::V4_19, 0x400, 0),
            "table" => (Kernel::V5_4, 0x200, 0xf2),
            "hugetlb" => (Kernel::V6_10, 0x800, 0xf4),
            "slab" => (Kernel::V6_10, 0x1000, 0xf5),
            "unaccepted" => (Kernel::V7_1, 0, 0xf7),
            _ => return None,
        };
        (k >= since).then(|| if self.type_bytes() { byte << 24 } else { !inverted })
    }

    /// Whether the type is the top byte of `_mapcount` and the rest belongs to the page's owner.
    pub fn type_bytes(&self) -> bool {
        self.kernel >= Kernel::V6_12
    }

    /// Levels of page tables that Linux types as such.
    pub fn typed_table(&self, level: u64) -> bool {
        let highest = match self.kernel {
            k if k < Kernel::V4_19 => 0,
            Kernel::V4_19 => 1,
            k if k < Kernel::V6_12 => 2,
            _ => 3,
        };
        level <= highest
    }

    /// struct mem_section grows by a pointer to page_ext, and then to a power of two.
    pub fn section_size(&self) -> u64 {
        if self.kernel == Kernel::V6_1 { 32 } else { 16 }
    }

    pub fn roots(&self) -> u64 {
        self.section_size() * 128
    }

    /// Flags of a section that is there since boot.
    pub fn section_flags(&self) -> u64 {
        let mut flags = 3;
        for (since, bit) in [(Kernel::V4_19, 4), (Kernel::V5_4, 8), (Kernel::V7_1, 0x20)] {
            if self.kernel >= since {
                flags |= bit;
            }
        }
        flags
    }

    /// `struct mem_section *mem_section[NR_SECTION_ROOTS]` in bss, up to 4.14.
    pub fn static_sections(&self) -> bool {
        self.kernel < Kernel::V4_19
    }

    /// The lines about memory that `arch_crash_save_vmcoreinfo` and friends write.
    pub fn keys(&self, o: &Machine, mem_section: u64, free_huge_page: Option<u64>) -> String {
        use Kernel as K;
        let mut t = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| writeln!(t, "{key}={value}").unwrap();
        line("SYMBOL(mem_section)", &format!("{mem_section:x}"));
        line("LENGTH(mem_section)", &self.roots());
        line("SIZE(mem_section)", &self.section_size());
        line("OFFSET(mem_section.section_mem_map)", &0);
        if self.kernel >= K::V6_10 {
            line("NUMBER(VMALLOC_START)", &"0xffffc90000000000");
            line("SYMBOL(vmemmap)", &"ffffea0000000000");
        }
        if self.kernel >= K::V6_1 {
            line("NUMBER(SECTION_SIZE_BITS)", &o.section_bits);
        }
        if self.kernel >= K::V5_10 {
            line("NUMBER(MAX_PHYSMEM_BITS)", &(o.section_bits + 19));
        }
        let (lru, mapping, private, mapcount, count) =
            if self.old_layout { (32, 8, 48, 24, 28) } else { (8, 24, 40, 48, 52) };
        for (key, value) in [
            ("SIZE(page)", 64),
            ("SIZE(pglist_data)", 5184),
            ("SIZE(zone)", 1408),
            ("SIZE(free_area)", 88),
            ("SIZE(list_head)", 16),
            ("SIZE(nodemask_t)", 8),
            ("OFFSET(page.flags)", 0),
            (if self.kernel < K::V4_19 { "OFFSET(page._count)" } else { "OFFSET(page._refcount)" }, count),
            ("OFFSET(page.mapping)", mapping),
            ("OFFSET(page.lru)", lru),
            ("OFFSET(page._mapcount)", mapcount),
            ("OFFSET(page.private)", private),
            ("OFFSET(pglist_data.node_zones)", 0),
            ("OFFSET(pglist_data.nr_zones)", 4288),
            ("OFFSET(zone.free_area)", 192),
            ("OFFSET(zone.vm_stat)", 1280),
            ("OFFSET(zone.spanned_pages)", 136),
            ("OFFSET(free_area.free_list)", 0),
            ("OFFSET(list_head.next)", 0),
            ("OFFSET(list_head.prev)", 8),
            ("LENGTH(zone.free_area)", 11),
            ("LENGTH(free_area.free_list)", 5),
            ("NUMBER(NR_FREE_PAGES)", 0),
        ] {
            line(key, &value);
        }
        match self.kernel {
            k if k < K::V4_4 => {}
            K::V7_1 => line("OFFSET(page.compound_info)", &lru),
            _ => line("OFFSET(page.compound_head)", &lru),
        }
        let (dtor, order, at) = match self.compound {
            Compound::Halves => ("page.compound_dtor", "page.compound_order", [40, 42]),
            Compound::Bytes if self.kernel == K::V6_4 => ("folio._folio_dtor", "folio._folio_order", [80, 81]),
            Compound::Bytes => ("page.compound_dtor", "page.compound_order", [16, 17]),
            Compound::Lru | Compound::Flags => ("", "", [0, 0]),
        };
        for (key, value) in [(dtor, at[0]), (order, at[1])].into_iter().filter(|k| !k.0.is_empty()) {
            line(&format!("OFFSET({key})"), &value);
        }
        let number = |name: &str| self.number(name).unwrap();
        for name in ["lru", "private", "swapcache", "hwpoison"] {
            line(&format!("NUMBER(PG_{name})"), &number(name));
        }
        if self.kernel >= K::V4_19 {
            line("NUMBER(PG_swapbacked)", &number("swapbacked"));
        }
        if self.kernel >= K::V3_18 || self.kernel == K::V3_10 {
            line("NUMBER(PG_head_mask)", &(1_u64 << number("head")));
        }
        if let Some(slab) = self.number("slab") {
            line("NUMBER(PG_slab)", &slab);
        }
        for name in ["buddy", "offline", "hugetlb", "slab", "unaccepted"] {
            if let Some(value) = self.page_type(name) {
                line(&format!("NUMBER(PAGE_{}_MAPCOUNT_VALUE)", name.to_uppercase()), &(value as i32));
            }
        }
        match self.hugetlb {
            Hugetlb::Address => line("SYMBOL(free_huge_page)", &format!("{:x}", free_huge_page.unwrap())),
            Hugetlb::Number => line("NUMBER(HUGETLB_PAGE_DTOR)", &HUGETLB_DTOR),
            Hugetlb::Flag => line("NUMBER(PG_hugetlb)", &number("hugetlb")),
            Hugetlb::Type | Hugetlb::Unknown => {}
        }
        t
    }
}
