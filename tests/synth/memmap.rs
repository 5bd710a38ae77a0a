//! Dom0's mem_map: mem_section, the sections' arrays, and struct pages for all of its PFNs in vmemmap.

use super::NotePlace;
use super::build::World;
use super::dom0::{BALLOON, Guest, ISA_HOLE, MEM_SECTION, START_INFO};
use super::generation::Gen;
use super::kernel::{KERNEL_PAGES, KERNEL_PFN, LEVEL1_FIXMAP};
use super::pages::{PageKind, Pages, VMEMMAP, Whole};
use super::tables;

/// Struct pages in a page of vmemmap.
const GROUP: u64 = 64;
/// The struct pages of these PFNs are in a page of vmemmap that is not mapped; or is, but not in the dump.
const UNMAPPED: u64 = 0x380;
const ABSENT: u64 = 0x3c0;
/// Sections (of 64 pages each) that are not present, or have no mem_map.
const NO_SECTION: u64 = 0x340;
const NO_MEM_MAP: u64 = 0x500;

/// Makes the arrays and maps vmemmap, before the image is written and before processes copy the kernel's slots.
pub fn reserve(w: &mut World, g: &mut Guest, root: u64) {
    let generation = Gen::of(w.o.kernel);
    let array_va = w.o.page_offset + (MEM_SECTION << 12);
    let var = g.image.va("mem_section");
    if !generation.static_sections() {
        g.image.put(var, &array_va.to_le_bytes());
    }
    if !w.o.mem_map {
        return;
    }
    assert!(w.o.dom0_pages >= 1500, "dom0 needs 1500 pages for each kind of use");
    for first in (0..w.t.max_pfn).step_by(GROUP as usize).filter(|&first| first != UNMAPPED) {
        let pfn = g.take(w);
        w.mem.page_mut(g.mfn(pfn)).fill(0xff);
        g.vmemmap.insert(first, pfn);
        tables::put(w, g, root, VMEMMAP + first * 64, g.mfn(pfn) << 12 | tables::KERNEL_DATA);
    }
    if w.o.mem_map_absent {
        let pfn = g.vmemmap[&ABSENT];
        w.dropped.insert(g.mfn(pfn));
        w.t.absent.insert(pfn);
    }
    let section_pages = 1 << (w.o.section_bits - 12);
    let per_root = 4096 / generation.section_size();
    let sections = w.t.max_pfn.div_ceil(section_pages);
    for r in 0..sections.div_ceil(per_root) {
        let pfn = g.take(w);
        let value = (w.o.page_offset + (pfn << 12)).to_le_bytes();
        if generation.static_sections() {
            g.image.put(var + 8 * r, &value);
        } else {
            g.write(w, (MEM_SECTION << 12) + 8 * r, &value);
        }
        for i in (0..per_root).filter(|i| r * per_root + i < sections) {
            let at = (pfn << 12) + i * generation.section_size();
            // With vmemmap, mem_map minus the section's first PFN is vmemmap itself.
            let map = match (r * per_root + i) * section_pages {
                NO_SECTION if section_pages == GROUP => 0,
                NO_MEM_MAP if section_pages == GROUP => VMEMMAP | 1,
                _ => VMEMMAP | generation.section_flags(),
            };
            g.w64(w, at, map);
            // usage, or pageblock_flags: a pointer.
            g.w64(w, at + 8, w.o.page_offset + (pfn << 12) + 0x40 * i);
        }
    }
}

/// Writes all struct pages, when it is settled which page is what.
pub fn fill(w: &mut World, g: &Guest) {
    if !w.o.mem_map {
        return;
    }
    let o = w.o.clone();
    let mut pages = Pages::new(&o, w.t.max_pfn);
    uses(w, g, &mut pages);
    shapes(&mut pages);
    assert!(g.special.range(0x2c0..0x500).next().is_none(), "dom0 has too few pages");
    page_tables(w, g, &mut pages);
    protected(w, &mut pages);
    pgd_list(w, g, &mut pages);
    let mut lost = vec![UNMAPPED];
    if o.mem_map_absent {
        lost.push(ABSENT);
    }
    if o.section_bits == 18 {
        lost.extend([NO_SECTION, NO_MEM_MAP]);
    }
    for pfn in lost.into_iter().flat_map(|first| first..first + GROUP) {
        pages.kinds.insert(pfn, PageKind::Unknown);
    }
    for (pfn, page) in (0..).zip(&pages.all) {
        if let Some(&at) = g.vmemmap.get(&(pfn / GROUP * GROUP)) {
            g.write(w, (at << 12) + pfn % GROUP * 64, &page.bytes(&pages.generation));
        }
    }
    w.t.pages = pages.kinds;
}

/// A bit of everything, by PFN.
fn uses(w: &World, g: &Guest, pages: &mut Pages) {
    let image = KERNEL_PFN..KERNEL_PFN + KERNEL_PAGES;
    for pfn in 0..w.t.max_pfn {
        if image.contains(&pfn) || (ISA_HOLE.0..ISA_HOLE.1).contains(&pfn) {
            pages.reserved(pfn);
            continue;
        }
        if !g.pfns.contains_key(&pfn) {
            pages.offline(pfn);
            continue;
        }
        if g.special.contains(&pfn) {
            continue;
        }
        match pfn.wrapping_mul(0x9e37_79b9) >> 9 & 15 {
            0..=3 => pages.kernel(pfn),
            4..=6 => pages.cache(pfn),
            7 => pages.private_cache(pfn),
            8 => pages.shmem(pfn),
            9 => pages.shmem_in_swap(pfn),
            10 => pages.swap_cache(pfn),
            11 | 12 => pages.anon(pfn, "lru active"),
            13 => pages.ksm(pfn),
            14 => pages.slab(pfn),
            _ => pages.anon(pfn, "lru waiters"),
        }
    }
}

/// Blocks, and what only one page at a known place shows.
fn shapes(pages: &mut Pages) {
    pages.buddy(0x2c0, 5);
    pages.buddy(0x2e0, 3);
    pages.buddy(0x2e8, 0);
    pages.buddy(0x2ea, 1);
    pages.buddy(0x2ec, 2);
    // One more than there are orders; not aligned; an order that is 1 if cut to 32 bits.
    pages.bad_buddy(0x2f0, 11);
    pages.bad_buddy(0x2f1, 1);
    pages.bad_buddy(0x2f2, 1 << 32 | 1);
    pages.kernel(0x2f3);
    pages.all[0x2f3].private = 2;
    pages.unwritten(0x2f4);
    pages.movable(0x2f5);
    pages.checked(0x2f6);
    pages.shmem_in_swap(0x2f7);
    pages.kernel(0x2f8);
    pages.poison(0x2f8);
    pages.anon(0x2f9, "lru");
    pages.poison(0x2f9);
    // Offline with memory behind them.
    pages.offline(0x2fa);
    pages.offline(0x2fb);
    pages.anon(0x2fc, "lru waiters");
    pages.anon(0x2fd, "");
    pages.slab(0x2fe);
    pages.ksm(0x2ff);
    pages.compound(0x300, 4, Whole::Anon);
    pages.poison(0x303);
    pages.compound(0x310, 3, Whole::Cache);
    pages.compound(0x318, 2, Whole::PrivateCache);
    pages.compound(0x31c, 2, Whole::Kernel);
    pages.poison(0x31e);
    pages.compound(0x320, 3, Whole::Hugetlb);
    pages.compound(0x328, 3, Whole::Slab);
    // Heads that cannot be of that order count for themselves.
    pages.claim_compound(0x331, 4, 2, Whole::Anon);
    pages.kinds.insert(0x331, PageKind::User);
    pages.claim_compound(0x336, 2, 70, Whole::Cache);
    pages.kinds.insert(0x336, PageKind::Cache);
    pages.compound(0x340, 6, Whole::Anon);
    (UNMAPPED..ABSENT).for_each(|pfn| pages.anon(pfn, "lru"));
    pages.buddy(ABSENT, 6);
    // Around the ballooned PFNs, and over several sections if they are small.
    pages.buddy(0x400, 8);
    assert!((0x400..0x500).contains(&BALLOON.0) && (0x400..0x500).contains(&(BALLOON.1 - 1)));
}

/// Live tables are pinned; two of them lie, which does not make them anything else.
fn page_tables(w: &World, g: &Guest, pages: &mut Pages) {
    let (mut buddy, mut cache) = (true, true);
    for (mfn, &(level, pinned)) in &w.tables {
        let pfn = w.m2p[mfn];
        let in_image = (KERNEL_PFN..KERNEL_PFN + KERNEL_PAGES).contains(&pfn);
        pages.table(pfn, level, in_image);
        if level == 1 && pinned && std::mem::take(&mut buddy) {
            pages.claim_buddy(pfn, 0);
        } else if level == 1 && !pinned && pfn != KERNEL_PFN + LEVEL1_FIXMAP && std::mem::take(&mut cache) {
            pages.claim_cache(pfn);
        }
    }
    // Not pinned: no mark but the page type.
    for (level, &pfn) in g.unpinned.iter().map(|(p, l)| (*l, p)) {
        pages.table(pfn, level, false);
        let pinned = pages.generation.mask("owner_priv_1");
        pages.all[pfn as usize].flags &= !pinned;
        pages.kinds.insert(pfn, PageKind::Kernel);
    }
}

/// What a cut cannot do without stays, whatever its struct page says.
fn protected(w: &World, pages: &mut Pages) {
    let mut keep = vec![START_INFO];
    pages.claim_cache(START_INFO);
    if let Some((pfn, offset)) = w.t.note_at {
        pages.claim_buddy(pfn, 0);
        keep.push(pfn);
        if offset as usize + 24 + w.t.vmcoreinfo.len() > 4096 {
            pages.claim_anon(pfn + 1);
            keep.push(pfn + 1);
        }
        assert!(w.o.note_place != NotePlace::None);
    }
    for (i, &pfn) in w.t.p2m_pages.iter().enumerate() {
        match i % 3 {
            0 => pages.claim_anon(pfn),
            1 => pages.claim_cache(pfn),
            _ => pages.claim_buddy(pfn, 0),
        }
        keep.push(pfn);
    }
    keep.into_iter().for_each(|pfn| _ = pages.kinds.insert(pfn, PageKind::Protected));
}

/// Links the struct pages of all processes' PGDs: lru, index (the mm), private (the PGD of user mode).
fn pgd_list(w: &mut World, g: &Guest, pages: &mut Pages) {
    let lru = if pages.generation.old_layout { 32 } else { 8 };
    let head = g.image.va("pgd_list");
    let of = |pfn: u64| VMEMMAP + pfn * 64 + lru;
    let ring: Vec<u64> = std::iter::once(head).chain(g.pgds.iter().map(|p| of(p.0))).collect();
    let n = ring.len();
    for (i, &(pfn, user)) in g.pgds.iter().enumerate() {
        let page = &mut pages.all[pfn as usize];
        page.lru = [ring[(i + 2) % n], ring[i]];
        page.index = w.o.page_offset + 0x10_0000 + i as u64 * 0x400;
        page.private = user.map_or(0, |pfn| w.o.page_offset + (pfn << 12));
    }
    let (pfn, offset) = g.image.place(head);
    g.w64(w, (pfn << 12) + offset, ring[1 % n]);
    g.w64(w, (pfn << 12) + offset + 8, ring[n - 1]);
    w.t.pgd_list = g.pgds.iter().map(|p| p.0).collect();
    w.t.pgd_list_va = head;
}
