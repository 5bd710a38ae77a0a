//! Struct pages as a filter sees them, for the self-test: knows the file and VMCOREINFO's keys alone.

use super::reader::{Core, le};
use std::collections::BTreeMap;

/// A kernel's mem_map.
pub struct MemMap<'a> {
    core: &'a Core<'a>,
    root: u64,
    keys: BTreeMap<String, i64>,
    /// Whether the kernel is older than 4.4, where keys alone do not tell.
    pub old: bool,
    /// Coded section_mem_map by number, of sections that have struct pages.
    pub sections: BTreeMap<u64, u64>,
}

impl<'a> MemMap<'a> {
    /// `root` is the machine address of swapper_pg_dir.
    pub fn open(core: &'a Core<'a>, root: u64, text: &str) -> Self {
        let mut keys = BTreeMap::new();
        let mut old = false;
        for (key, value) in text.lines().filter_map(|l| l.split_once('=')) {
            let number = if key.starts_with("SYMBOL") {
                u64::from_str_radix(value, 16).ok().map(|v| v as i64)
            } else {
                value.parse().ok()
            };
            if key == "OSRELEASE" {
                let mut parts = value.split(['.', '-']).map(|p| p.parse::<u32>().unwrap_or(0));
                old = (parts.next(), parts.next()) < (Some(4), Some(4));
            }
            keys.extend(number.map(|n| (key.to_owned(), n)));
        }
        let mut map = MemMap { core, root, keys, old, sections: BTreeMap::new() };
        let array = map.key("SYMBOL(mem_section)").unwrap() as u64;
        map.sections = map.read_sections(array);
        if map.sections.is_empty()
            && let Some(array) = map.u64(array)
        {
            map.sections = map.read_sections(array);
        }
        map
    }

    pub fn key(&self, key: &str) -> Option<i64> {
        self.keys.get(key).copied()
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.key(&format!("NUMBER({name})")).map(|n| n as u32)
    }

    pub fn read(&self, va: u64, n: usize) -> Option<&'a [u8]> {
        self.core.read(self.core.walk(self.root, va)?, n)
    }

    pub fn u64(&self, va: u64) -> Option<u64> {
        self.read(va, 8).map(|b| le(b, 0, 8))
    }

    fn read_sections(&self, array: u64) -> BTreeMap<u64, u64> {
        let size = self.key("SIZE(mem_section)").unwrap() as u64;
        let per_root = 4096 / size;
        let mut out = BTreeMap::new();
        for r in 0..self.key("LENGTH(mem_section)").unwrap() as u64 {
            let root = self.u64(array + 8 * r).filter(|&p| p != 0);
            for i in (0..per_root).filter(|_| root.is_some()) {
                let map = self.u64(root.unwrap() + i * size).unwrap_or(0);
                if map & 3 == 3 {
                    out.insert(r * per_root + i, map & !0xfff);
                }
            }
        }
        out
    }

    /// The address of a struct page.
    pub fn page_va(&self, pfn: u64) -> Option<u64> {
        let bits = self.key("NUMBER(SECTION_SIZE_BITS)").unwrap_or(27) - 12;
        Some(self.sections.get(&(pfn >> bits))? + pfn * 64)
    }

    fn page(&self, pfn: u64) -> Option<&'a [u8]> {
        self.read(self.page_va(pfn)?, 64)
    }

    fn field(&self, page: &[u8], name: &str, n: usize) -> u64 {
        le(page, self.key(&format!("OFFSET(page.{name})")).unwrap() as usize, n)
    }

    fn is_type(&self, page: &[u8], name: &str) -> bool {
        let Some(value) = self.number(&format!("PAGE_{name}_MAPCOUNT_VALUE")) else { return false };
        let found = self.field(page, "_mapcount", 4) as u32;
        if value & 0xff_ffff == 0 { found >> 24 == value >> 24 } else { found == value }
    }

    fn flag(&self, page: &[u8], name: &str) -> bool {
        self.number(name).is_some_and(|n| self.field(page, "flags", 8) >> n & 1 == 1)
    }

    /// For each PFN below `end` the levels' bits that drop it. `has_memory` PFNs only are looked at, but a block or
    /// compound page counts as a whole.
    pub fn classify(&self, end: u64, has_memory: impl Fn(u64) -> bool) -> BTreeMap<u64, u8> {
        let mut out = BTreeMap::new();
        let mut pfn = 0;
        while pfn < end {
            let (bits, pages) = match self.page(pfn) {
                Some(page) if has_memory(pfn) => self.decide(pfn, page),
                _ => (0, 1),
            };
            for p in pfn..pfn + pages {
                let tail_poisoned = self.page(p).is_some_and(|page| self.poisoned(page));
                out.insert(p, if tail_poisoned { 31 } else { bits });
            }
            pfn += pages;
        }
        out
    }

    fn poisoned(&self, page: &[u8]) -> bool {
        self.field(page, "flags", 8) != u64::MAX && self.flag(page, "PG_hwpoison")
    }

    fn decide(&self, pfn: u64, page: &[u8]) -> (u8, u64) {
        let flags = self.field(page, "flags", 8);
        if flags == u64::MAX || self.is_tail(page) {
            return (0, 1);
        }
        let slab = if self.number("PAGE_SLAB_MAPCOUNT_VALUE").is_some() {
            self.is_type(page, "SLAB")
        } else {
            self.flag(page, "PG_slab")
        };
        let aligned = |order: u64| order < 64 && pfn.trailing_zeros() >= order as u32;
        if !slab && self.is_type(page, "BUDDY") {
            let order = self.field(page, "private", 8);
            let good = order < self.key("LENGTH(zone.free_area)").unwrap() as u64 && aligned(order);
            return if good { (16, 1 << order) } else { (0, 1) };
        }
        let head_mask = self.key("NUMBER(PG_head_mask)").map_or(1 << 14, |m| m as u64);
        let (mut pages, mut hugetlb) = (1, false);
        if flags & head_mask != 0
            && let Some(tail) = self.page(pfn + 1)
        {
            let order;
            (order, hugetlb) = self.compound(page, tail);
            pages = if aligned(order) { 1 << order } else { 1 };
        }
        let anon = !slab && self.field(page, "mapping", 8) & 1 == 1;
        let swapbacked = self.number("PG_swapbacked").is_none() || self.flag(page, "PG_swapbacked");
        let cache = self.flag(page, "PG_lru") || self.flag(page, "PG_swapcache") && swapbacked;
        let bits = match () {
            () if slab => 0,
            () if anon || hugetlb => 8,
            () if cache && self.flag(page, "PG_private") => 4,
            () if cache => 6,
            () if self.is_type(page, "OFFLINE") => 16,
            () => 0,
        };
        (bits, pages)
    }

    fn is_tail(&self, page: &[u8]) -> bool {
        let word = ["head", "info"].iter().find_map(|n| self.key(&format!("OFFSET(page.compound_{n})")));
        match word {
            Some(at) => page[at as usize] & 1 == 1,
            None => le(page, 0, 8) >> 15 & 1 == 1,
        }
    }

    /// Order, and whether it is HugeTLB's.
    fn compound(&self, head: &[u8], tail: &[u8]) -> (u64, bool) {
        let offset = |name: &str| self.key(&format!("OFFSET({name})")).map(|v| v as usize);
        let dtor = |found: u64| self.number("HUGETLB_PAGE_DTOR").is_some_and(|n| u64::from(n) == found);
        if self.old {
            let lru = offset("page.lru").unwrap();
            let free = self.key("SYMBOL(free_huge_page)").map(|v| v as u64);
            return (le(tail, lru + 8, 8), free == Some(le(tail, lru, 8)));
        }
        if let Some(at) = offset("folio._folio_order") {
            return (le(tail, at - 64, 1), dtor(le(tail, offset("folio._folio_dtor").unwrap() - 64, 1)));
        }
        if let Some(at) = offset("page.compound_order") {
            let wide = if self.key("OFFSET(page.compound_dtor)").unwrap() + 2 == at as i64 { 2 } else { 1 };
            return (le(tail, at, wide), dtor(le(tail, at - wide, wide)));
        }
        (le(tail, 0, 1), self.is_type(head, "HUGETLB") || self.flag(tail, "PG_hugetlb"))
    }
}
