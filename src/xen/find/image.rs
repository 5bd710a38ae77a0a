//! Xen's image and the root of its page tables, by shape.

use crate::bytes::words;
use crate::source::MachineMemory;
use crate::units::{MachineAddr, Mfn, PAGE_BYTES, PTE_FRAME_MASK, Page, VirtAddr};
use crate::xen::notes::CpuNote;
use crate::xen::paging::{AddressSpace, PRESENT, frame};
use crate::xen::syms::XenSyms;

/// XEN_VIRT_START and FRAMETABLE_VIRT_START: 4.14 and later, 4.4, 4.3, 4.0.
const LAYOUTS: [(u64, u64); 4] = [
    (0xffff_82d0_4000_0000, 0xffff_82e0_0000_0000),
    (0xffff_82d0_8000_0000, 0xffff_82e0_0000_0000),
    (0xffff_82c4_c000_0000, 0xffff_82e0_0000_0000),
    (0xffff_82c4_8000_0000, 0xffff_82f6_0000_0000),
];
/// The image begins 1 MiB (up to 4.8) or 2 MiB behind XEN_VIRT_START.
const IMAGE_AT: [u64; 2] = [0x10_0000, 0x20_0000];
/// No image is larger.
const MOST_IMAGE: u64 = 64 << 20;
/// LINEAR_PT_VIRT_START: this slot of each root table that maps all of Xen leads back to the table.
const LINEAR_SLOT: usize = 258;
/// Xen's image, and `idle_pg_table` in it, lie below 4 GiB.
const LOW: u64 = 1 << 32;
/// Tables that map themselves but no Xen, before the search is given up.
const MOST_TRIES: usize = 1024;

/// Where Xen is.
pub(super) struct Image<'a> {
    /// Below `idle_pg_table`.
    pub(super) space: AddressSpace<'a>,
    /// XEN_VIRT_START.
    pub(super) base: u64,
    /// FRAMETABLE_VIRT_START that goes with it.
    pub(super) frame_table: u64,
    /// xen_phys_start: what `base` would be mapped to.
    pub(super) phys_start: MachineAddr,
    /// `idle_pg_table`.
    pub(super) root: VirtAddr,
}

/// Looks below the CPUs' CR3 first, then at all memory below 4 GiB.
pub(super) fn find<'a>(mem: &'a MachineMemory<'a>, cpus: &[CpuNote], syms: Option<&XenSyms>) -> Option<Image<'a>> {
    // xen-syms may be of a layout that is not listed.
    let own = syms.and_then(XenSyms::base).into_iter().filter(|b| LAYOUTS.iter().all(|l| l.0 != *b));
    let layouts: Vec<(u64, u64)> = LAYOUTS.into_iter().chain(own.map(|b| (b, LAYOUTS[0].1))).collect();
    let of_cpus = cpus.iter().filter_map(|c| c.cr3).map(|cr3| MachineAddr(cr3 & PTE_FRAME_MASK).mfn());
    let all = mem.map().ranges().flat_map(|(start, end)| start.0.div_ceil(PAGE_BYTES)..end.0.min(LOW) / PAGE_BYTES);
    let tables = of_cpus.chain(all.map(Mfn)).filter(|mfn| leads_back(mem, *mfn)).take(MOST_TRIES);
    tables.flat_map(|root| layouts.iter().map(move |l| (root, *l))).find_map(|(root, layout)| {
        let space = AddressSpace::new(mem, root);
        let start = IMAGE_AT.into_iter().find_map(|into| {
            let at = space.translate(VirtAddr(layout.0 + into)).ok()?.addr;
            at.0.checked_sub(into).filter(|s| s % PAGE_BYTES == 0)
        })?;
        idle_table(mem, layout, start)
    })
}

/// Whether the frame is a root table that maps itself in slot 258.
fn leads_back(mem: &MachineMemory<'_>, mfn: Mfn) -> bool {
    let mut entry = [0; 8];
    let at = mfn.addr().and_then(|a| a.checked_add(LINEAR_SLOT as u64 * 8));
    if at.is_none_or(|at| mem.read(at, &mut entry).is_err()) {
        return false;
    }
    let entry = u64::from_le_bytes(entry);
    entry & PRESENT != 0 && frame(entry) == mfn
}

/// The root table in the image: it maps itself where the image has it, and of the lower half the start at most (Xen's own
/// identity map of low memory, which real machines keep).
fn idle_table<'a>(mem: &'a MachineMemory<'a>, (base, frame_table): (u64, u64), start: u64) -> Option<Image<'a>> {
    (0..MOST_IMAGE).step_by(PAGE_BYTES as usize).find_map(|into| {
        let at = MachineAddr(start.checked_add(into)?);
        if !leads_back(mem, at.mfn()) {
            return None;
        }
        let mut page: Page = [0; PAGE_BYTES as usize];
        mem.read(at, &mut page).ok()?;
        let root = VirtAddr(base + into);
        let space = AddressSpace::new(mem, at.mfn());
        let sound = words(&page).take(256).skip(1).all(|e| e & PRESENT == 0)
            && space.translate(root).is_ok_and(|m| m.addr == at);
        sound.then_some(Image { space, base, frame_table, phys_start: MachineAddr(start), root })
    })
}
