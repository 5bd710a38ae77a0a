//! Dom0: a PV Linux with its pseudo-physical memory, P2M tree, start_info, shared info and VMCOREINFO.

use super::build::World;
use super::generation::Gen;
use super::kernel::{KERNEL_PAGES, KERNEL_PFN, KernelImage, SWAPPER};
use super::mem::{Frame, Owner, ZERO_PAGE, pattern_page};
use super::vmcoreinfo::{linux_text, note};
use super::{Defect, NotePlace, OwnList, tables};
use std::collections::{BTreeMap, BTreeSet};

/// P2M entry flags and the invalid entry of asm/xen/page.h.
pub const FOREIGN: u64 = 1 << 63;
pub const IDENTITY: u64 = 1 << 62;
pub const INVALID: u64 = u64::MAX;

/// From the end of low RAM to 1 MiB dom0's map is machine 1:1.
pub const ISA_HOLE: (u64, u64) = (0x9f, 0x100);
/// Ballooned-out PFNs; the first of them have foreign frames in their place.
pub const BALLOON: (u64, u64) = (0x480, 0x498);
pub const FOREIGN_PFNS: u64 = 4;

pub const START_INFO: u64 = 0x250;
const START_INFO_DECOY: u64 = 0x252;
const STACK_DECOY: u64 = 0x253;
const INFO_DATA: u64 = 0x29f;
const INFO_NOTE: u64 = 0x2a8;
pub const MEM_SECTION: u64 = 0x2b0;
pub const STALE_TABLE: u64 = 0x130;
/// PFNs that defects may use: plain data, nothing else.
const VICTIMS: (u64, u64) = (0x141, 0x142);
pub const P2M_VADDR: u64 = 0xffff_c900_0000_0000;

pub struct Guest {
    pub pfns: BTreeMap<u64, u64>,
    /// P2M entries as the guest has them.
    pub p2m: Vec<u64>,
    pub image: KernelImage,
    /// PFNs that may still be taken for tables, highest last.
    pool: Vec<u64>,
    pub special: BTreeSet<u64>,
    /// MFNs of the P2M leaf that each 512 PFNs have.
    pub leaves: Vec<u64>,
    pub grants: Vec<u64>,
    /// One more than the last PFN below the memory far up.
    pub dense: u64,
    /// Entries of the P2M far up, and the MFNs of its leaves by their first PFN.
    pub far: BTreeMap<u64, u64>,
    pub far_leaves: BTreeMap<u64, u64>,
    /// Pages of struct pages, by the first PFN that each tells of.
    pub vmemmap: BTreeMap<u64, u64>,
    /// Processes' L4 tables, each with the one for user mode if it has one.
    pub pgds: Vec<(u64, Option<u64>)>,
    /// Tables that Xen does not know of: level by PFN.
    pub unpinned: BTreeMap<u64, u64>,
}

impl Guest {
    pub fn mfn(&self, pfn: u64) -> u64 {
        self.pfns[&pfn]
    }

    /// A zeroed page from the top of RAM, where Linux's early allocator takes them.
    pub fn take(&mut self, w: &mut World) -> u64 {
        let pfn = self.pool.pop().expect("dom0 has too few pages");
        self.special.insert(pfn);
        *w.mem.page_mut(self.mfn(pfn)) = ZERO_PAGE;
        pfn
    }

    /// Writes at a pseudo-physical address, over PFNs.
    pub fn write(&self, w: &mut World, pa: u64, bytes: &[u8]) {
        for (i, &b) in bytes.iter().enumerate() {
            let at = pa + i as u64;
            w.mem.page_mut(self.mfn(at >> 12))[(at & 0xfff) as usize] = b;
        }
    }

    pub fn w64(&self, w: &mut World, pa: u64, v: u64) {
        self.write(w, pa, &v.to_le_bytes());
    }

    fn blank(&mut self, w: &mut World, pfn: u64) {
        self.special.insert(pfn);
        *w.mem.page_mut(self.mfn(pfn)) = ZERO_PAGE;
    }
}

pub fn create(w: &mut World) {
    let mut g = layout(w);
    contents(w, &g);
    tables::reserve(w, &mut g);
    vmcoreinfo(w, &mut g);
    start_info(w, &mut g);
    grant_frames(w, &mut g);
    p2m_tree(w, &mut g);
    tables::fill(w, &mut g);
    write_p2m(w, &g);
    frames(w, &g);
    w.t.system_map = g.image.system_map();
    if w.o.log_absent {
        w.dropped.insert(g.mfn(KERNEL_PFN + super::log::ABSENT));
    }
    w.t.log.clone_from(&g.image.log);
    w.t.kernel_base = g.image.base;
    w.t.dom0.clone_from(&g.pfns);
    w.domains[0].tot_pages = g.pfns.len() as u32;
}

/// Which PFNs have which MFNs.
fn layout(w: &mut World) -> Guest {
    let mut g = Guest {
        pfns: BTreeMap::new(),
        p2m: Vec::new(),
        image: KernelImage::new(&w.o),
        pool: Vec::new(),
        special: BTreeSet::new(),
        leaves: Vec::new(),
        grants: Vec::new(),
        dense: 0,
        far: BTreeMap::new(),
        far_leaves: BTreeMap::new(),
        vmemmap: BTreeMap::new(),
        pgds: Vec::new(),
        unpinned: BTreeMap::new(),
    };
    assert!(w.o.dom0_pages >= 1300, "dom0 needs 1300 pages for what it shows");
    let mut pfn = 0;
    while (g.pfns.len() as u64) < w.o.dom0_pages {
        if !(ISA_HOLE.0..ISA_HOLE.1).contains(&pfn) && !(BALLOON.0..BALLOON.1).contains(&pfn) {
            let mfn = w.domain_page();
            g.pfns.insert(pfn, mfn);
        }
        pfn += 1;
    }
    (w.t.max_pfn, g.dense) = (pfn, pfn);
    // A note that runs over two PFNs must not be readable as one run of machine memory.
    let split = match w.o.note_place {
        NotePlace::StaticArray => Some(KERNEL_PFN + 0x29),
        NotePlace::TwoPages => Some(INFO_NOTE + 1),
        _ => None,
    };
    if let Some(second) = split.filter(|s| g.mfn(s - 1) + 1 == g.mfn(*s)) {
        let (a, b) = (g.mfn(second), g.mfn(0x150));
        g.pfns.insert(second, b);
        g.pfns.insert(0x150, a);
    }
    g.p2m = (0..pfn)
        .map(|p| match g.pfns.get(&p) {
            Some(&mfn) => mfn,
            None if p < ISA_HOLE.1 => IDENTITY | p,
            None => INVALID,
        })
        .collect();
    w.t.identity = (ISA_HOLE.0..ISA_HOLE.1).collect();
    if w.o.domus > 0 {
        for i in 0..FOREIGN_PFNS {
            let mfn = w.domu_pages[0][20 + i as usize];
            g.p2m[(BALLOON.0 + i) as usize] = FOREIGN | mfn;
            w.t.foreign.insert(BALLOON.0 + i, mfn);
            // The granter's page has one more reference.
            w.frames.get_mut(&mfn).unwrap().count += 1;
        }
    }
    w.t.ballooned = (BALLOON.0..BALLOON.1).filter(|p| g.p2m[*p as usize] == INVALID).collect();
    p2m_defects(w, &mut g);
    g.pool = g.pfns.keys().copied().filter(|&p| p >= BALLOON.1).collect();
    super::far::layout(w, &mut g);
    for (&pfn, &mfn) in &g.pfns {
        w.m2p.insert(mfn, pfn);
    }
    if w.o.has(Defect::M2pDisagrees) {
        w.m2p.insert(g.mfn(VICTIMS.0), VICTIMS.0 + 7);
        w.t.defect_pfns.push(VICTIMS.0);
    }
    g
}

fn p2m_defects(w: &mut World, g: &mut Guest) {
    let (first, second) = VICTIMS;
    if w.o.has(Defect::P2mForeignPlain) {
        g.p2m[second as usize] = w.domu_pages[0][50];
        g.pfns.remove(&second);
        w.t.defect_pfns = vec![second];
    }
    if w.o.has(Defect::P2mDuplicate) {
        g.p2m[second as usize] = g.mfn(first);
        g.pfns.remove(&second);
        w.t.defect_pfns = vec![first, second];
    }
}

fn contents(w: &mut World, g: &Guest) {
    let percent = w.o.zero_percent;
    for (&pfn, &mfn) in &g.pfns {
        let zero = pfn.wrapping_mul(0x9e37_79b9) >> 7 & 0x3ff;
        if zero * 100 >= percent * 1024 {
            *w.mem.page_mut(mfn) = pattern_page(0, pfn);
        }
    }
    // Live pages of the kind that a zero or pattern test must not miss: one byte set, at either end.
    for (pfn, at) in [(0x151, 0), (0x152, 4095)] {
        let page = w.mem.page_mut(g.mfn(pfn));
        *page = ZERO_PAGE;
        page[at] = 1;
    }
}

fn vmcoreinfo(w: &mut World, g: &mut Guest) {
    let generation = Gen::of(w.o.kernel);
    (0..generation.roots() * 8 / 4096).for_each(|i| g.blank(w, MEM_SECTION + i));
    let direct = generation.static_sections() || w.o.mem_section_by_address;
    let mem_section = if direct { g.image.va("mem_section") } else { w.o.page_offset + (MEM_SECTION << 12) };
    let text = linux_text(&w.o, &g.image, "5ad41e9d0c0ffee5", mem_section);
    w.t.vmcoreinfo.clone_from(&text);
    w.t.release.clone_from(&g.image.release);
    if w.o.note_place == NotePlace::None {
        return;
    }
    g.blank(w, INFO_DATA);
    g.write(w, INFO_DATA << 12, text.as_bytes());
    let bytes = note("VMCOREINFO", 0, text.as_bytes());
    let var = g.image.va("vmcoreinfo_note");
    if w.o.note_place == NotePlace::StaticArray {
        g.image.put(var, &bytes);
        w.t.note_at = Some(g.image.place(var));
    } else {
        g.blank(w, INFO_NOTE);
        g.blank(w, INFO_NOTE + 1);
        g.write(w, INFO_NOTE << 12, &bytes);
        let va = w.o.page_offset + (INFO_NOTE << 12);
        g.image.put(var, &va.to_le_bytes());
        w.t.note_at = Some((INFO_NOTE, 0));
    }
    let data = g.image.va("vmcoreinfo_data");
    g.image.put(data, &(w.o.page_offset + (INFO_DATA << 12)).to_le_bytes());
}

fn start_info(w: &mut World, g: &mut Guest) {
    let shared_ma = w.domains[0].shared_info << 12;
    for (pfn, shared) in [(START_INFO, shared_ma), (START_INFO_DECOY, 0xdead_b000)] {
        g.blank(w, pfn);
        g.write(w, pfn << 12, b"xen-3.0-x86_64");
        g.w64(w, (pfn << 12) + 0x20, w.o.dom0_pages);
        g.w64(w, (pfn << 12) + 0x28, shared);
        // SIF_PRIVILEGED | SIF_INITDOMAIN | SIF_MOD_START_PFN and power management bits, as seen.
        g.w64(w, (pfn << 12) + 0x30, 0x30b);
        g.w64(w, (pfn << 12) + 0x58, w.o.page_offset + ((KERNEL_PFN + KERNEL_PAGES) << 12));
        g.w64(w, (pfn << 12) + 0x60, 0x15);
        g.w64(w, (pfn << 12) + 0x68, w.o.p2m_vaddr);
        g.write(w, (pfn << 12) + 0x80, b"console=hvc0 earlyprintk=xen loglevel=7");
    }
    let value = w.o.page_offset + (START_INFO << 12);
    let var = g.image.va("xen_start_info");
    g.image.put(var, &value.to_le_bytes());
    let decoy = w.o.page_offset + (START_INFO_DECOY << 12);
    g.image.put(g.image.va("xen_start_info_decoy"), &decoy.to_le_bytes());
    if w.o.ambiguous_start_info {
        g.image.put(g.image.va("xen_start_info_copy"), &value.to_le_bytes());
    }
    // The same value on a kernel stack: outside the image.
    g.blank(w, STACK_DECOY);
    g.w64(w, (STACK_DECOY << 12) + 0xe40, value);
    w.t.xen_start_info_va = var;
    w.t.xen_start_info_at = g.image.place(var);
    (w.t.start_info_pfn, w.t.start_info_va) = (START_INFO, value);
    if g.image.has("pv_init_ops") {
        w.t.pv_init_ops = Some(g.image.place(g.image.va("pv_init_ops")));
        w.t.xen_patch_va = Some(g.image.va("xen_patch"));
    }
    (w.t.kernel_pfn, w.t.kernel_pages) = (KERNEL_PFN, KERNEL_PAGES);
    (w.t.swapper_va, w.t.swapper_pfn) = (g.image.va("swapper_pg_dir"), KERNEL_PFN + SWAPPER);
    w.t.page_offset = w.o.page_offset;
}

/// Frame list list, lists and leaves: where they stand. Unused entries lead to a shared page of ~0.
fn p2m_tree(w: &mut World, g: &mut Guest) {
    let pages = g.dense.div_ceil(512);
    assert!(pages <= 512);
    let missing_pfn = g.take(w);
    let mid_missing_pfn = g.take(w);
    let list_pfn = g.take(w);
    let top_pfn = g.take(w);
    let (missing, mid_missing) = (g.mfn(missing_pfn), g.mfn(mid_missing_pfn));
    w.mem.page_mut(missing).fill(0xff);
    let mut leaves: Vec<u64> = (0..pages).map(|_| g.take(w)).collect();
    w.t.p2m_pages.extend(&leaves);
    if w.o.own_list == OwnList::XenLinux {
        leaves.reverse();
        assert!(leaves.windows(2).all(|two| two[0] + 1 == two[1]), "the array is in one piece");
    }
    g.leaves = leaves.iter().map(|pfn| g.mfn(*pfn)).collect();
    let told_end = w.o.list_end(w.t.max_pfn);
    let own = match w.o.own_list {
        OwnList::None => None,
        OwnList::Linear => Some(("xen_p2m_addr", w.o.p2m_vaddr, "xen_p2m_size", told_end)),
        OwnList::XenLinux => {
            Some(("phys_to_machine_mapping", w.o.page_offset + (leaves[0] << 12), "max_pfn", w.t.max_pfn))
        }
    };
    if let Some((base, va, end, count)) = own {
        for (name, value) in [(base, va), (end, w.o.told_own_end.unwrap_or(count))] {
            g.image.put(g.image.va(name), &value.to_le_bytes());
        }
    }
    let (list, top) = (g.mfn(list_pfn), g.mfn(top_pfn));
    for i in 0..512 {
        w.mem.w64((mid_missing << 12) + i * 8, missing);
        let tail = |entry: u64| if w.o.classic_p2m { 0 } else { entry };
        let leaf = g.leaves.get(i as usize).copied().unwrap_or(tail(missing));
        w.mem.w64((list << 12) + i * 8, leaf);
        let entry = if i == 0 { list } else { tail(mid_missing) };
        w.mem.w64((top << 12) + i * 8, entry);
    }
    super::far::leaves(w, g, top, missing);
    let mut told = told_end;
    if w.o.shared_identity {
        let pfn = g.take(w);
        let shared = g.mfn(pfn);
        (0..512).for_each(|k| w.mem.w64((shared << 12) + k * 8, IDENTITY | k));
        (pages..pages + 64).for_each(|i| w.mem.w64((list << 12) + i * 8, shared));
        told = (pages + 64) * 512;
        w.t.p2m_pages.insert(pfn);
    }
    if w.o.has(Defect::MaxPfnHuge) {
        told = 1 << 40;
    }
    w.t.p2m_pages.extend([missing_pfn, mid_missing_pfn, list_pfn, top_pfn]);
    let swapper = g.mfn(KERNEL_PFN + SWAPPER);
    (w.t.p2m_cr3, w.t.p2m_vaddr) = if w.o.tells_list() { (swapper << 12, w.o.p2m_vaddr) } else { (0, 0) };
    let alien = w.domu_pages.first().map_or(0, |p| p[60]);
    w.t.frame_list_list = match w.o.defects.iter().find(|d| {
        matches!(
            d,
            Defect::FrameListListInvalid
                | Defect::FrameListListZero
                | Defect::FrameListListOutside
                | Defect::FrameListListForeign
        )
    }) {
        Some(Defect::FrameListListInvalid) => u64::MAX,
        Some(Defect::FrameListListZero) => 0,
        Some(Defect::FrameListListOutside) => 0x7fff_0000,
        Some(_) => alien,
        None => top,
    };
    if w.o.has(Defect::ListPageAbsent) {
        w.dropped.insert(list);
    }
    if w.o.has(Defect::LeafPageAbsent) {
        w.dropped.insert(g.leaves[1]);
    }
    if w.o.has(Defect::LeafTwice) {
        w.mem.w64(list << 12, g.leaves[1]);
    }
    if w.o.has(Defect::LeafForeign) {
        w.mem.w64((list << 12) + 8, alien);
    }
    let shared = w.domains[0].shared_info << 12;
    w.mem.w64(shared + 0xc00, 0x6b02_fded_0000_000c);
    for (off, value) in [
        (0xc10, told),
        (0xc18, w.t.frame_list_list),
        (0xc28, w.t.p2m_cr3),
        (0xc30, w.o.told_vaddr.unwrap_or(w.t.p2m_vaddr)),
        (0xc38, w.o.p2m_generation),
    ] {
        w.mem.w64(shared + off, value);
    }
    for i in 0..w.o.dom0_vcpus as u64 {
        w.mem.w64(shared + 64 * i + 32, 0x12 + i);
    }
}

/// Leaf pages; behind max_pfn the last leaf is identity, as seen on 4.17 and 4.20.
fn write_p2m(w: &mut World, g: &Guest) {
    for (i, &leaf) in g.leaves.iter().enumerate() {
        for k in 0..512 {
            let pfn = i as u64 * 512 + k;
            // XenLinux's array ends there.
            let behind = if w.o.own_list == OwnList::XenLinux { 0 } else { IDENTITY | pfn };
            let entry = g.p2m.get(pfn as usize).copied().unwrap_or(behind);
            w.mem.w64((leaf << 12) + k * 8, entry);
        }
    }
}

fn grant_frames(w: &mut World, g: &mut Guest) {
    for i in 0..2 {
        let mfn = w.heap_page();
        w.frames.insert(mfn, Frame::shared(Owner::Dom(0)));
        *w.mem.page_mut(mfn) = pattern_page(0xff, i);
        g.grants.push(mfn);
    }
    w.t.xen_heap = std::iter::once(w.domains[0].shared_info).chain(g.grants.iter().copied()).collect();
}

/// Frame table entries of dom0's pages.
fn frames(w: &mut World, g: &Guest) {
    for (&pfn, &mfn) in &g.pfns {
        let mut frame = match w.tables.get(&mfn) {
            Some(&(level, pinned)) => Frame::table(Owner::Dom(0), level, pinned),
            None => Frame::data(Owner::Dom(0)),
        };
        if pfn % 5 == 2 && frame.kind == 7 {
            // Mapped read-only at the moment: still of type writable, count 0 (0xe400000000000000).
            frame.type_count = 0;
        }
        if pfn == STALE_TABLE {
            // The type of its last use stays until the page gets another one.
            frame = Frame { kind: 1, validated: false, type_count: 0, count: 1, ..frame };
        }
        // Some pages are cached otherwise, were shadowed, or do not count for the domain.
        frame.other = if pfn % 13 == 4 { u64::MAX } else { 0 };
        w.frames.insert(mfn, frame);
    }
}
