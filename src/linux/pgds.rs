//! Page tables that Xen does not know as such: those of processes that were being made, or ended, when the machine died.
//!
//! Linux pins a process's tables, upon which Xen types them, when the process first runs, and unpins them before it takes
//! them apart (Linux: arch/x86/xen/mmu_pv.c: xen_enter_mmap, xen_exit_mmap). Before and after they are ordinary pages to
//! Xen, but hold machine frames like all others; those that were pinned once have Xen's slots too. Each process's L4 table
//! is on `pgd_list` (arch/x86/mm/pgtable.c: pgd_ctor), linked by its struct page.

use super::Kernel;
use super::mm::MemMap;
use super::mm::page::Verdict;
use crate::units::{Mfn, Pfn, VirtAddr};
use crate::xen::paging::{PSE, frame};
use std::collections::{BTreeMap, BTreeSet};

/// Processes that are looked at, at most.
const MOST_PGDS: usize = 1 << 20;
/// Pages that may be tables which are looked at, at most: those of processes that are being made are few.
const MOST_PAGES: usize = 1 << 20;
/// L4 slots of a process's own half.
const USER_SLOTS: u64 = 256;

/// Finds them: `list` is the address of `pgd_list`, `known` has the tables that Xen knows, by PFN.
pub fn unpinned(kernel: &Kernel<'_>, map: &MemMap<'_>, list: VirtAddr, known: &[(Pfn, u8)]) -> Unpinned {
    let is_known = |pfn: Pfn| known.binary_search_by_key(&pfn, |t| t.0).is_ok();
    let mut found = Unpinned::default();
    let mut seen = BTreeSet::new();
    let mut node = list;
    loop {
        let Ok(next) = kernel.space.read_u64("pgd_list", node).map(VirtAddr) else {
            found.broken = true;
            break;
        };
        if next == list {
            break;
        }
        let page = next.0.checked_sub(map.layout.lru as u64).map(VirtAddr);
        let Some(pfn) = page.and_then(|va| map.pfn(va)) else {
            found.broken = true;
            break;
        };
        if !seen.insert(pfn) || seen.len() > MOST_PGDS {
            found.broken = true;
            break;
        }
        if !is_known(pfn) {
            found.add(kernel, map, &is_known, pfn, 4);
        }
        // Its twin for user mode, which only Xen uses (mmu_pv.c: xen_pgd_alloc).
        let user = map.private(pfn).map(VirtAddr).filter(|va| va.in_page() == 0).and_then(|va| kernel.pfn(va));
        let is_table = is_known(pfn) || found.tables.contains_key(&pfn);
        if let Some(user) = user.filter(|user| is_table && !is_known(*user)) {
            found.add(kernel, map, &is_known, user, 4);
        }
        node = next;
    }
    found.processes = seen.len() as u64;
    found
}

/// Tables that Xen does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpinned {
    /// Level, 1 to 4, by PFN.
    pub tables: BTreeMap<Pfn, u8>,
    /// L4 tables on the list, known ones included.
    pub processes: u64,
    /// Whether the list ended where it should not.
    pub broken: bool,
    /// Pages that were looked at.
    looked: BTreeSet<Pfn>,
}

impl Unpinned {
    fn add(&mut self, kernel: &Kernel<'_>, map: &MemMap<'_>, is_known: &impl Fn(Pfn) -> bool, pfn: Pfn, level: u8) {
        if self.looked.len() >= MOST_PAGES || !self.looked.insert(pfn) {
            return;
        }
        // A table is the kernel's own page: what is free, cache or a process's was something else by now.
        let kept = |_: &Mfn| matches!(map.verdict(pfn), Some(Verdict::Kept));
        let Some(mfn) = kernel.p2m().mfn(pfn).filter(kept) else { return };
        self.tables.insert(pfn, level);
        if level == 1 {
            return;
        }
        for (index, entry) in kernel.space.entries(mfn) {
            // The kernel's half is shared, and known.
            if (level == 4 && index >= USER_SLOTS) || entry & PSE != 0 {
                continue;
            }
            let below = kernel.p2m().pfn(frame(entry)).filter(|pfn| !is_known(*pfn));
            if let Some(below) = below {
                self.add(kernel, map, is_known, below, level - 1);
            }
        }
    }
}
