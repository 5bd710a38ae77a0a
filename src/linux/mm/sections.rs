//! The memory sections: where the struct pages of a range of PFNs stand (Linux: include/linux/mmzone.h, SPARSEMEM_EXTREME,
//! which x86_64 always has).
//!
//! `mem_section` is an array of pointers to pages full of `struct mem_section`. Its `section_mem_map` holds flags in the
//! low bits, and above them the address at which the struct page of PFN 0 would stand.

use crate::linux::Kernel;
use crate::units::{PAGE_BYTES, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;
use std::collections::BTreeMap;

/// Present, with a memory map. More flags follow; twelve bits are free for them, since the map's address is a multiple of
/// the page size.
const USABLE: u64 = 3;
const FLAGS: u64 = PAGE_BYTES - 1;
/// SECTION_SIZE_BITS that make sense: 27 on x86_64.
const BITS: std::ops::RangeInclusive<u32> = 18..=28;

/// A section's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its number: PFN divided by the section's pages.
    pub number: u64,
    /// Where the struct page of PFN 0 would stand.
    pub base: VirtAddr,
}

/// The sections of a kernel, as far as they have memory.
#[derive(Clone, Debug)]
pub struct Sections {
    /// log2 of a section's pages.
    pub shift: u32,
    by_number: BTreeMap<u64, Section>,
}

/// How to read them.
struct Table {
    roots: u64,
    per_root: u64,
    size: u64,
    map_at: u64,
}

impl Sections {
    /// Reads the sections that hold memory of the domain.
    ///
    /// # Errors
    /// Which key is missing, or that no section could be read.
    pub fn read(kernel: &Kernel<'_>, info: &Vmcoreinfo) -> Result<Self, String> {
        let need = |name: &str, value: Option<u64>| value.ok_or_else(|| format!("{name} is not in VMCOREINFO"));
        let bits = info.number("SECTION_SIZE_BITS").unwrap_or(27);
        let shift = u32::try_from(bits).ok().filter(|b| BITS.contains(b));
        let shift = shift.ok_or_else(|| format!("VMCOREINFO says SECTION_SIZE_BITS={bits}"))? - PAGE_BYTES.ilog2();
        let size = need("SIZE(mem_section)", info.size("mem_section"))?;
        let map_at = need("OFFSET(mem_section.section_mem_map)", info.offset("mem_section.section_mem_map"))?;
        if !(8..=PAGE_BYTES).contains(&size) || map_at > size - 8 {
            return Err(format!("VMCOREINFO says SIZE(mem_section)={size}, section_mem_map at {map_at}"));
        }
        let symbol = info.symbol("mem_section").ok_or("SYMBOL(mem_section) is not in VMCOREINFO")?;
        let roots = info.length("mem_section").unwrap_or(u64::MAX);
        let table = Table { roots, per_root: PAGE_BYTES / size, size, map_at };
        let wanted = wanted(kernel, shift);
        let mut by_number = table.read(kernel, symbol, &wanted);
        // Some kernels around 4.15, and a vmlinux, tell the address of a pointer to the array.
        if by_number.is_empty()
            && let Ok(array) = kernel.space.read_u64("mem_section", symbol)
        {
            by_number = table.read(kernel, VirtAddr(array), &wanted);
        }
        if by_number.is_empty() {
            return Err(format!("no memory section can be read at SYMBOL(mem_section), {symbol}"));
        }
        Ok(Self { shift, by_number })
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = Section> + '_ {
        self.by_number.values().copied()
    }

    /// The one of this number.
    pub fn get(&self, number: u64) -> Option<Section> {
        self.by_number.get(&number).copied()
    }
}

/// Numbers of the sections that the domain has memory in.
fn wanted(kernel: &Kernel<'_>, shift: u32) -> Vec<u64> {
    let mut numbers = Vec::new();
    for run in kernel.p2m().runs() {
        let (first, last) = (run.pfn.0 >> shift, (run.pfn.0 + run.len - 1) >> shift);
        let from = numbers.last().map_or(first, |n| first.max(n + 1));
        numbers.extend(from..=last);
    }
    numbers
}

impl Table {
    fn read(&self, kernel: &Kernel<'_>, array: VirtAddr, wanted: &[u64]) -> BTreeMap<u64, Section> {
        let read = |va: Option<VirtAddr>| kernel.space.read_u64("mem_section", va?).ok();
        let section = |number: u64| {
            let root = number / self.per_root;
            let pointer = read(array.checked_add(root.checked_mul(8)?)).filter(|_| root < self.roots)?;
            let at = number % self.per_root * self.size + self.map_at;
            let map = read(VirtAddr(pointer).checked_add(at)).filter(|m| m & USABLE == USABLE)?;
            let base = VirtAddr(map & !FLAGS);
            // The kernel's half, so that no stray word is taken for a map.
            (base.is_canonical() && base.0 >> 63 == 1).then_some((number, Section { number, base }))
        };
        wanted.iter().filter_map(|n| section(*n)).collect()
    }
}
