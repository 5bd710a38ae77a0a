//! Dom0's page tables: Linux's own layout, machine frame numbers in every entry.

use super::build::{RESERVED, World};
use super::dom0::{BALLOON, Guest, STALE_TABLE};
use super::far;
use super::kernel::{
    KERNEL_MAP, KERNEL_PAGES, KERNEL_PFN, KernelImage, LEVEL1_FIXMAP, LEVEL2_FIXMAP, LEVEL2_KERNEL, LEVEL3_KERNEL,
    SWAPPER,
};
use super::mem::{PTE_FRAME, ZERO_PAGE};
use super::memmap;

/// Xen's _PAGE_GUEST_KERNEL, seen in every kernel PTE of a PV guest.
const GUEST_KERNEL: u64 = 1 << 52;
const NX: u64 = 1 << 63;
pub const KERNEL_DATA: u64 = NX | GUEST_KERNEL | 0x63;
/// Level 2 slot 506 of the fixmap's level 3 slot 511.
const FIXMAP: u64 = 0xffff_ffff_ff40_0000;
const ECAM: u64 = 0xffff_c900_1000_0000;
const GRANTS: u64 = 0xffff_c900_2000_0000;
const USER: u64 = 0x40_0000;

/// Maps one page in the tree under the L4 `root`; new tables come from dom0's RAM. Answers where the
/// entry stands: PFN of the L1, index.
pub fn put(w: &mut World, g: &mut Guest, root: u64, va: u64, entry: u64) -> (u64, usize) {
    put_at(w, g, root, 1, va, entry)
}

/// The same in a table of level `last`.
pub fn put_at(w: &mut World, g: &mut Guest, root: u64, last: u64, va: u64, entry: u64) -> (u64, usize) {
    let mut table = root;
    for level in (last + 1..=4).rev() {
        let index = va >> (12 + 9 * (level - 1)) & 511;
        let at = (g.mfn(table) << 12) + index * 8;
        let old = w.mem.r64(at);
        table = if old & 1 == 1 {
            w.m2p[&((old & PTE_FRAME) >> 12)]
        } else {
            let new = g.take(w);
            // Linux pins the direct map's L1s one by one at boot, the others through their L4.
            w.tables.insert(g.mfn(new), (level - 1, level == 2 && va >> 63 == 1));
            w.mem.w64(at, g.mfn(new) << 12 | 0x67);
            new
        };
    }
    let index = va >> (12 + 9 * (last - 1)) & 511;
    w.mem.w64((g.mfn(table) << 12) + index * 8, entry);
    (table, index as usize)
}

fn named(w: &mut World, g: &mut Guest, root: u64, name: &str, va: u64, entry: u64) {
    let at = put(w, g, root, va, entry);
    w.t.named.insert(name.to_owned(), at);
}

/// Blanks the image's own tables and links them, before anything else takes PFNs.
pub fn reserve(w: &mut World, g: &mut Guest) {
    for (page, level) in [(SWAPPER, 4), (LEVEL3_KERNEL, 3), (LEVEL2_KERNEL, 2), (LEVEL2_FIXMAP, 2), (LEVEL1_FIXMAP, 1)]
    {
        let mfn = g.mfn(KERNEL_PFN + page);
        *w.mem.page_mut(mfn) = ZERO_PAGE;
        w.tables.insert(mfn, (level, level == 4));
    }
    let ma = |page: u64| g.mfn(KERNEL_PFN + page) << 12;
    for (table, index, to) in [
        (SWAPPER, 511, LEVEL3_KERNEL),
        (LEVEL3_KERNEL, 510, LEVEL2_KERNEL),
        (LEVEL3_KERNEL, 511, LEVEL2_FIXMAP),
        (LEVEL2_FIXMAP, 506, LEVEL1_FIXMAP),
    ] {
        w.mem.w64(ma(table) + index * 8, ma(to) | 0x67);
    }
}

pub fn fill(w: &mut World, g: &mut Guest) {
    let root = KERNEL_PFN + SWAPPER;
    memmap::reserve(w, g, root);
    write_image(w, g);
    devices(w, g, root);
    linear_list(w, g, root);
    far::list(w, g, root);
    far::direct_map(w, g, root);
    // Tables of the direct map first: its entries' flags depend on which pages are tables.
    for pfn in (0..g.dense).step_by(512) {
        put(w, g, root, w.o.page_offset + (pfn << 12), 0);
    }
    stale(w, g);
    process(w, g, root);
    if w.o.unpinned_mm {
        unpinned(w, g, root);
    }
    kernel_image_map(w, g, root);
    direct_map(w, g, root);
    xen_slots(w, g.mfn(root));
    memmap::fill(w, g);
}

fn write_image(w: &mut World, g: &Guest) {
    for page in (0..KERNEL_PAGES).filter(|&p| !KernelImage::is_table(p)) {
        let from = page as usize * 4096;
        w.mem.page_mut(g.mfn(KERNEL_PFN + page)).copy_from_slice(&g.image.bytes[from..from + 4096]);
    }
}

fn kernel_image_map(w: &mut World, g: &mut Guest, root: u64) {
    for page in 0..KERNEL_PAGES {
        let va = KERNEL_MAP + ((KERNEL_PFN + page) << 12);
        let mfn = g.mfn(KERNEL_PFN + page);
        let flags = match page {
            0..8 => GUEST_KERNEL | 0x25,
            p if KernelImage::is_table(p) => NX | GUEST_KERNEL | 0x25,
            _ => NX | GUEST_KERNEL | 0x67,
        };
        put(w, g, root, va, mfn << 12 | flags);
    }
}

/// Shared info, local APIC, VGA, PCI config space, grant table.
fn devices(w: &mut World, g: &mut Guest, root: u64) {
    // MMIO: P|RW|US|PWT|PCD|A|D.
    let mmio = NX | GUEST_KERNEL | 0x7f;
    let shared = w.domains[0].shared_info;
    named(w, g, root, "shared_info", FIXMAP + 380 * 4096, shared << 12 | NX | GUEST_KERNEL | 0x67);
    named(w, g, root, "lapic", FIXMAP + 300 * 4096, 0xfee0_0000 | mmio);
    // Identity in dom0's P2M: no RAM of dom0 has this PFN.
    named(w, g, root, "vga", FIXMAP + 301 * 4096, 0xb_8000 | mmio);
    // ACPI tables in a hole of machine RAM, whose number is the PFN of some page of dom0.
    named(w, g, root, "mmio_on_ram_pfn", FIXMAP + 302 * 4096, (RESERVED.0 + 2) << 12 | mmio);
    for i in 0..64 {
        let at = put(w, g, root, ECAM + i * 4096, (0xb_0000 + i) << 12 | mmio);
        if i == 0 {
            w.t.named.insert("ecam".to_owned(), at);
        }
    }
    for (i, mfn) in g.grants.clone().into_iter().enumerate() {
        let name = format!("grant_frame_{i}");
        named(w, g, root, &name, GRANTS + i as u64 * 4096, mfn << 12 | NX | GUEST_KERNEL | 0x67);
    }
    // vmalloc'ed page, then a guard page.
    let mfn = g.mfn(0x160);
    named(w, g, root, "vmalloc", GRANTS + 0x10_0000, mfn << 12 | NX | GUEST_KERNEL | 0x63);
}

/// xen_p2m_addr: the leaves again, by virtual address (Linux 3.19 on).
fn linear_list(w: &mut World, g: &mut Guest, root: u64) {
    if w.o.has_list() {
        for (i, leaf) in g.leaves.clone().into_iter().enumerate() {
            put(w, g, root, w.o.p2m_vaddr + i as u64 * 4096, leaf << 12 | NX | GUEST_KERNEL | 0x63);
        }
    }
}

/// Kernel direct map: read-only for tables, other domains' frames at the PFNs of grant mappings, nothing
/// where memory was ballooned out.
fn direct_map(w: &mut World, g: &mut Guest, root: u64) {
    for pfn in 0..g.dense {
        let va = w.o.page_offset + (pfn << 12);
        let (mfn, flags) = match (g.pfns.get(&pfn), w.t.foreign.get(&pfn)) {
            (Some(&mfn), _) if w.tables.contains_key(&mfn) => (mfn, NX | GUEST_KERNEL | 0x25),
            (Some(&mfn), _) if (KERNEL_PFN..KERNEL_PFN + 8).contains(&pfn) => (mfn, NX | GUEST_KERNEL | 0x25),
            (Some(&mfn), _) => (mfn, NX | GUEST_KERNEL | 0x27 | (pfn & 1) << 6),
            (None, Some(&mfn)) => (mfn, NX | GUEST_KERNEL | 0x67),
            // Two PFNs with one frame: 3.12 keeps a read-only mapping of the scratch page.
            (None, None) if w.t.defect_pfns.len() == 2 && w.t.defect_pfns[1] == pfn => {
                (g.p2m[pfn as usize], NX | GUEST_KERNEL | 0x25)
            }
            _ => continue,
        };
        let at = put(w, g, root, va, mfn << 12 | flags);
        let name = match pfn {
            0 => "direct_map_first",
            p if p == BALLOON.0 => "direct_map_foreign",
            STALE_TABLE => "direct_map_stale_table",
            _ => continue,
        };
        w.t.named.insert(name.to_owned(), at);
    }
    // Ballooned out: __xenmem_reservation_va_mapping_reset leaves 0.
    let at = put(w, g, root, w.o.page_offset + ((BALLOON.1 - 1) << 12), 0);
    w.t.named.insert("direct_map_ballooned".to_owned(), at);
}

/// A page whose table type is stale.
fn stale(w: &mut World, g: &Guest) {
    let mfn = g.mfn(STALE_TABLE);
    for i in 0..512 {
        let of = g.mfn(0x110 + i % 16);
        w.mem.w64((mfn << 12) + i * 8, of << 12 | 0x67);
    }
    w.t.stale_tables.push(STALE_TABLE);
}

/// A process that is being made or torn down: a whole tree of tables that Xen takes for data, MFNs in its entries all
/// the same. Its L4 has the kernel's slots, but nothing in Xen's.
fn unpinned(w: &mut World, g: &mut Guest, root: u64) {
    let pfns: Vec<u64> = (0..5).map(|_| g.take(w)).collect();
    let entry = |w: &mut World, table: usize, index: u64, value: u64| {
        w.mem.w64((g.pfns[&pfns[table]] << 12) + index * 8, value);
    };
    let own = |pfn: u64| g.pfns[&pfn] << 12;
    for (table, index, to) in [(0, 0, 1), (1, 2, 2), (2, 3, 3), (2, 511, 4)] {
        entry(w, table, index, own(pfns[to]) | 0x67);
    }
    for slot in 272..512 {
        let value = w.mem.r64(own(root) + slot * 8);
        entry(w, 0, slot, value);
    }
    for i in 0..8 {
        entry(w, 3, i, own(0x161 + i) | NX | 0x67);
        // Software bits, protection keys and PAT survive.
        entry(w, 4, 504 + i, own(0x169 + i) | 0xfc00_0000_0000_02e7);
    }
    // Swap, PROT_NONE, MMIO; a number that is no frame of dom0's.
    let others = [0x3ff0_0000_0000_0002, own(0x124) | NX | 0x160, 0xb_0000_u64 << 12 | NX | 0x7f];
    let domu = w.domu_pages.first().map(|p| [p[22], p[66]].map(|mfn| mfn << 12 | NX | 0x267));
    for (i, value) in others.into_iter().chain(domu.into_iter().flatten()).enumerate() {
        entry(w, 3, 16 + i as u64, value);
    }
    g.pgds.push((pfns[0], None));
    g.unpinned = pfns.iter().copied().zip([4, 3, 2, 1, 1]).collect();
    for (&pfn, &level) in &g.unpinned {
        w.unpinned.insert(g.mfn(pfn), level);
    }
    // L1 first.
    w.t.unpinned_tables = pfns.into_iter().rev().collect();
}

/// A process: pinned L4 with the kernel's slots, and the second L4 that PV Linux keeps for user mode.
fn process(w: &mut World, g: &mut Guest, root: u64) {
    let l4 = g.take(w);
    w.tables.insert(g.mfn(l4), (4, true));
    let own = |pfn: u64| g.mfn(pfn) << 12;
    let mut entries = vec![
        ("user_data", own(0x120) | NX | 0x167),
        // Software and protection-key bits must survive.
        ("user_high_bits", own(0x121) | 0xfc00_0000_0000_0267),
        // Bit 7 is PAT in an L1, not PSE.
        ("user_pat", own(0x122) | NX | 0x1e7),
        // Swap and PROT_NONE entries hold no MFN, whatever their frame bits look like.
        ("user_swap", own(0x123) | 0x3ff0_0000_0000_0002),
        ("user_prot_none", own(0x124) | NX | 0x160),
        ("user_zero_frame", 0x67),
        ("user_mmio", 0xb_0000_u64 << 12 | NX | 0x7f),
        ("user_mmio_on_ram_pfn", (RESERVED.0 + 3) << 12 | NX | 0x7f),
        ("user_shared_info", w.domains[0].shared_info << 12 | NX | 0x267),
    ];
    if let Some(domu) = w.domu_pages.first().cloned() {
        let foreign = |name, mfn: u64| (name, mfn << 12 | NX | 0x267);
        // gntdev: the frame has a FOREIGN P2M entry; privcmd: it has none.
        entries.push(foreign("user_foreign", domu[21]));
        let rest = &domu[64..];
        if let Some(&mfn) = rest.iter().find(|m| !g.pfns.contains_key(m)) {
            entries.push(foreign("user_foreign_unknown", mfn));
        }
        if let Some(&mfn) = rest.iter().find(|m| g.pfns.contains_key(m)) {
            entries.push(foreign("user_foreign_on_ram_pfn", mfn));
        }
    }
    for (i, (name, entry)) in entries.into_iter().enumerate() {
        named(w, g, l4, name, USER + i as u64 * 4096, entry);
    }
    let user_l4 = g.take(w);
    w.tables.insert(g.mfn(user_l4), (4, true));
    let (mm, user, kernel) = (g.mfn(l4) << 12, g.mfn(user_l4) << 12, g.mfn(root) << 12);
    let low = w.mem.r64(mm);
    w.mem.w64(user, low);
    for slot in 272..512 {
        let entry = w.mem.r64(kernel + slot * 8);
        w.mem.w64(mm + slot * 8, entry);
    }
    xen_slots(w, mm >> 12);
    xen_slots(w, user >> 12);
    g.pgds.push((l4, Some(user_l4)));
    w.t.named.insert("xen_slot".to_owned(), (l4, 261));
}

/// Slots 256-271 belong to Xen; what stands there are its own frames.
fn xen_slots(w: &mut World, l4: u64) {
    for slot in 256..272u64 {
        let entry = match slot {
            256 | 257 | 260 | 261 | 262 => (w.root + slot - 250) << 12 | 0x63,
            258 => l4 << 12 | NX | 0x63,
            263 => 0x1_2340_0000,
            _ => 0,
        };
        w.mem.w64((l4 << 12) + slot * 8, entry);
    }
}
