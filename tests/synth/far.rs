//! Dom0's memory far up: a P2M of which only the linear list (Linux 3.19 on) can hold all, built as
//! `xen_rebuild_p2m_list` of arch/x86/xen/p2m.c does: leaves of its own where there is memory, elsewhere two shared pages
//! of ~0 in shared tables.

use super::build::World;
use super::dom0::{BALLOON, FOREIGN, Guest, IDENTITY, INVALID};
use super::mem::{ZERO_PAGE, pattern_page};
use super::tables::{KERNEL_DATA, put, put_at};
use super::{Kernel, Machine, OwnList};
use std::collections::BTreeMap;

/// PFNs that a table of the list's addresses tells of: 512 leaves.
pub const SLOT: u64 = 1 << 18;
/// PFNs that the frame list can hold.
const TREE: u64 = 1 << 27;
/// Read-only kernel data.
const SHARED: u64 = KERNEL_DATA & !2;

/// Which entry on the way to an entry of the list is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmapped {
    /// Of a table of this level, 1 to 3.
    pub level: u64,
    pub pfn: u64,
}

impl Machine {
    /// Whether dom0 tells Xen of its linear list.
    pub fn tells_list(&self) -> bool {
        self.linear_p2m.unwrap_or(self.kernel >= Kernel::V4_4)
    }

    /// Whether it has one.
    pub fn has_list(&self) -> bool {
        self.tells_list() || self.own_list == OwnList::Linear
    }

    /// One more than the last PFN that dom0's list has: it ends with a table.
    pub fn list_end(&self, max_pfn: u64) -> u64 {
        if self.far.is_empty() { max_pfn } else { max_pfn.next_multiple_of(SLOT) }
    }
}

/// Takes the pages; one foreign frame is mapped behind each range.
pub fn layout(w: &mut World, g: &mut Guest) {
    let ranges = w.o.far.clone();
    assert!(ranges.is_empty() || !w.o.mem_map, "memory far up has no struct pages");
    for (i, (first, count)) in (0..).zip(ranges) {
        assert!(first >= w.t.max_pfn && w.t.max_pfn >= g.dense);
        for pfn in first..first + count {
            let mfn = w.domain_page();
            g.pfns.insert(pfn, mfn);
            g.far.insert(pfn, mfn);
            // One in three is zero.
            *w.mem.page_mut(mfn) = if pfn % 3 == 1 { ZERO_PAGE } else { pattern_page(0, pfn) };
        }
        w.t.max_pfn = first + count;
        if w.o.domus > 0 && i > 0 {
            let mfn = w.domu_pages[0][30 + i];
            g.far.insert(first - 1, FOREIGN | mfn);
            w.t.foreign.insert(first - 1, mfn);
            w.frames.get_mut(&mfn).unwrap().count += 1;
        }
    }
}

/// Leaves, and their place in the frame list as far as that goes.
pub fn leaves(w: &mut World, g: &mut Guest, top: u64, missing: u64) {
    let firsts: Vec<u64> = g.far.keys().map(|pfn| pfn & !511).collect();
    let mut middles = BTreeMap::from([(0, w.mem.r64(top << 12))]);
    for first in firsts {
        if g.far_leaves.contains_key(&first) {
            continue;
        }
        let leaf = g.take(w);
        w.t.p2m_pages.insert(leaf);
        let mfn = g.mfn(leaf);
        g.far_leaves.insert(first, mfn);
        for k in 0..512 {
            // What lies behind the memory is I/O space.
            let identity = if first + k >= w.t.max_pfn { IDENTITY | (first + k) } else { INVALID };
            let entry = g.far.get(&(first + k)).copied().unwrap_or(identity);
            w.mem.w64((mfn << 12) + k * 8, entry);
        }
        if first < TREE {
            let middle = *middles.entry(first / SLOT).or_insert_with(|| {
                let pfn = g.take(w);
                w.t.p2m_pages.insert(pfn);
                (0..512).for_each(|k| w.mem.w64((g.mfn(pfn) << 12) + k * 8, missing));
                w.mem.w64((top << 12) + first / SLOT * 8, g.mfn(pfn));
                g.mfn(pfn)
            });
            w.mem.w64((middle << 12) + first / 512 % 512 * 8, mfn);
        }
    }
}

/// Maps the list from behind the dense leaves to its end, but for what is unmapped.
pub fn list(w: &mut World, g: &mut Guest, root: u64) {
    if w.o.far.is_empty() || !w.o.has_list() {
        return;
    }
    let base = w.o.p2m_vaddr;
    let at = |pfn: u64| base + pfn * 8;
    // A page of ~0 each for what is missing and what is identity, and a table full of each.
    let shared: Vec<(u64, u64)> = (0..2).map(|_| shared_pages(w, g)).collect();
    let dense = g.leaves.len() as u64 * 512;
    let kind = |slot: u64| shared[usize::from(slot % 7 == 3)];
    for slot in 0..w.o.list_end(w.t.max_pfn) / SLOT {
        let (page, table) = kind(slot);
        let pfns = slot * SLOT..(slot + 1) * SLOT;
        if slot > 0 && g.far_leaves.range(pfns.clone()).next().is_none() {
            put_at(w, g, root, 2, at(slot * SLOT), table << 12 | 0x67);
            continue;
        }
        for first in pfns.step_by(512).filter(|first| *first >= dense) {
            let own = g.far_leaves.get(&first).map(|leaf| leaf << 12 | KERNEL_DATA);
            put(w, g, root, at(first), own.unwrap_or(page << 12 | SHARED));
        }
    }
    for Unmapped { level, pfn } in w.o.unmapped.clone() {
        put_at(w, g, root, level, at(pfn), 0);
    }
}

fn shared_pages(w: &mut World, g: &mut Guest) -> (u64, u64) {
    let (page_pfn, table_pfn) = (g.take(w), g.take(w));
    let (page, table) = (g.mfn(page_pfn), g.mfn(table_pfn));
    w.mem.page_mut(page).fill(0xff);
    (0..512).for_each(|k| w.mem.w64((table << 12) + k * 8, page << 12 | SHARED));
    w.tables.insert(table, (1, true));
    w.t.p2m_pages.insert(page_pfn);
    w.t.shared_leaves.push(page);
    (page, table)
}

/// The direct map of all of it: tables first, since a process shares those of level 3.
pub fn direct_map(w: &mut World, g: &mut Guest, root: u64) {
    assert!(BALLOON.1 < g.dense);
    let entries: Vec<(u64, u64)> = g.far.iter().map(|(pfn, entry)| (*pfn, *entry)).collect();
    for (pfn, entry) in entries {
        put(w, g, root, w.o.page_offset + (pfn << 12), (entry & !FOREIGN) << 12 | KERNEL_DATA);
    }
}
