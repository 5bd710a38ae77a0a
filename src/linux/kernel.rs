//! The kernel's address space and image.
//!
//! A PV kernel's page tables hold machine frames, so its addresses are walked as Xen's are. Those of a translated domain's
//! kernel hold PFNs, which the P2M leads on from. The image is what is mapped below L4 slot 511, L3 slot 510
//! (`__START_KERNEL_map`, 0xffffffff80000000); PV maps it with 4 KiB pages, others with 2 MiB ones too.

use crate::bytes::{u32_at, words};
use crate::error::Result;
use crate::linux::note::roots_by_note;
use crate::source::MachineMemory;
use crate::units::{Mfn, PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE, PTE_FRAME_MASK, Pfn, VirtAddr};
use crate::xen::paging::{AddressSpace, PSE, frame};
use crate::xen::vcpu::controls;
use crate::xen::{Domain, Host, P2m};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Pages of the image that one task scans.
const IMAGE_PART: usize = 256;
/// Bytes before a note's text.
const NOTE_HEADER: usize = 24;
/// `__START_KERNEL_map`.
pub const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// The image never takes more (KERNEL_IMAGE_SIZE).
const MOST_IMAGE_PAGES: usize = 1 << 18;
/// Where direct maps can be (4.19 and older begin at 0xffff880000000000, later ones 8 TiB above); the vmalloc area
/// begins at 0xffffc90000000000.
const DIRECT_MAPS: std::ops::Range<u64> = 0xffff_8800_0000_0000..0xffff_c900_0000_0000;
/// Root tables of vCPUs that are tried.
const MOST_ROOTS: usize = 64;
/// Where they can be with a random base (Linux: CONFIG_RANDOMIZE_MEMORY): up to the entry area of the CPUs.
const RANDOM_MAPS: std::ops::Range<u64> = 0xffff_8800_0000_0000..0xffff_fe00_0000_0000;
/// A random base is a multiple of this.
const RANDOM_STEP: u64 = 1 << 30;
/// Tables that are looked at for the base.
const MOST_LOOKED: usize = 64;
/// `start_info.magic` (Xen: public/xen.h) of a 64-bit domain.
const START_INFO_MAGIC: [u8; 14] = *b"xen-3.0-x86_64";

/// A domain's kernel.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// Its address space.
    pub space: AddressSpace<'a>,
    /// PFN of the root table.
    pub root: Pfn,
    p2m: &'a P2m,
    /// The image, by address.
    image: Vec<(VirtAddr, Mfn)>,
}

/// What a single pass over the image found.
#[derive(Debug, Default)]
pub struct Landmarks {
    /// Direct-map address of the start_info page.
    pub start_info: Option<VirtAddr>,
    /// Where in the image that address stands.
    pub start_info_refs: Vec<VirtAddr>,
    /// Addresses at which a VMCOREINFO note seems to begin.
    pub notes: Vec<VirtAddr>,
}

impl<'a> Kernel<'a> {
    /// Finds the root table and the image: the root that the kernel told Xen, or any of its L4 tables (all of them
    /// share the kernel's half). `None` if there is none that maps a kernel.
    pub fn find(host: &'a Host<'a>, domain: &Domain, p2m: &'a P2m) -> Option<Self> {
        if p2m.translated {
            return Self::find_translated(host, domain, p2m);
        }
        let told = domain.shared_info.as_ref().map(|s| s.p2m_cr3.mfn()).filter(|m| m.0 != 0);
        let tables = p2m.tables.iter().filter(|t| t.1 == 4).filter_map(|t| p2m.mfn(t.0));
        told.into_iter().chain(tables).find_map(|root| {
            let space = AddressSpace::new(host.memory(), root);
            let image = image(&space, p2m);
            (!image.is_empty()).then_some(Self { space, root: p2m.pfn(root)?, p2m, image })
        })
    }

    /// The same of a translated domain: the root that maps most of an image, of those that its vCPUs use; or else one that
    /// a VMCOREINFO in its memory names. A process's own root lacks the image while it runs, if the kernel parts them.
    fn find_translated(host: &'a Host<'a>, domain: &Domain, p2m: &'a P2m) -> Option<Self> {
        let find = |roots: &[Pfn]| Self::by_roots(host.memory(), roots, p2m);
        let controls = controls(host, domain);
        let mut roots: Vec<Pfn> = Vec::new();
        for control in controls.iter().filter(|c| !c.five_levels()) {
            let root = (control.cr3 & PTE_FRAME_MASK) >> PAGE_SHIFT;
            // A process's half of a pair is the odd one (Linux: PTI_USER_PGTABLE_BIT).
            roots.extend([Pfn(root & !1), Pfn(root)]);
        }
        roots.sort_unstable();
        roots.dedup();
        find(&roots).or_else(|| find(&roots_by_note(host.memory(), p2m)))
    }

    /// The kernel whose tables hold PFNs below one of these roots: the one that maps most of an image.
    pub fn by_roots(mem: &'a MachineMemory<'a>, roots: &[Pfn], p2m: &'a P2m) -> Option<Self> {
        let open = |root: &Pfn| {
            let space = AddressSpace::translated(mem, p2m.mfn(*root)?, p2m);
            let image = image(&space, p2m);
            (!image.is_empty()).then_some(Self { space, root: *root, p2m, image })
        };
        roots.iter().take(MOST_ROOTS).filter_map(open).max_by_key(|k| k.image.len())
    }

    /// Reads kernel memory.
    ///
    /// # Errors
    /// As [`AddressSpace::read`].
    pub fn read(&self, what: &str, va: VirtAddr, buf: &mut [u8]) -> Result<()> {
        self.space.read(what, va, buf)
    }

    /// The PFN behind an address, if it is memory of the domain's own.
    pub fn pfn(&self, va: VirtAddr) -> Option<Pfn> {
        self.p2m.pfn(self.space.translate(va).ok()?.addr.mfn())
    }

    /// The P2M.
    pub fn p2m(&self) -> &'a P2m {
        self.p2m
    }

    /// The image in order: the address of PFN 0, whether that is part of it or not; and the PFNs, first and one more than
    /// last. A PV kernel is never relocated: its image's addresses are its pseudo-physical ones above [`START_KERNEL_MAP`]
    /// (`phys_base` is 0). Another can be anywhere; where most of it is decides.
    pub fn image_window(&self) -> Option<(VirtAddr, Pfn, Pfn)> {
        let base = |va: VirtAddr, pfn: Pfn| va.0.wrapping_sub(pfn.0 << PAGE_SHIFT);
        let pages = self.image.iter().filter_map(|(va, mfn)| Some((*va, self.p2m.pfn(*mfn)?)));
        let mut most = START_KERNEL_MAP;
        if self.is_translated() {
            let mut votes: BTreeMap<u64, u64> = BTreeMap::new();
            pages.clone().for_each(|(va, pfn)| *votes.entry(base(va, pfn)).or_default() += 1);
            most = votes.into_iter().max_by_key(|v| v.1)?.0;
        }
        let pfns = pages.filter(|(va, pfn)| base(*va, *pfn) == most).map(|p| p.1);
        let (first, last) = (pfns.clone().min()?, pfns.max()?);
        Some((VirtAddr(most), first, Pfn(last.0 + 1)))
    }

    /// Whether the domain is a translated one (HVM, PVH): its kernel's page tables hold PFNs, and it is no PV kernel.
    pub fn is_translated(&self) -> bool {
        self.p2m.translated
    }

    /// Whether the domain's start_info page begins there.
    pub fn is_start_info(&self, va: VirtAddr) -> bool {
        let mut head = [0; START_INFO_MAGIC.len()];
        self.pfn(va).is_some() && self.read("start_info", va, &mut head).is_ok() && head == START_INFO_MAGIC
    }

    /// Base of the direct map, for addresses that people read: by which of its two L4 slots is there.
    pub fn direct_map(&self) -> u64 {
        if let Some(base) = self.random_map().filter(|_| self.is_translated()) {
            return base;
        }
        let slots: Vec<u64> = self.space.entries(self.space.root()).iter().map(|e| e.0).collect();
        if slots.contains(&272) && !slots.contains(&273) { 0xffff_8800_0000_0000 } else { 0xffff_8880_0000_0000 }
    }

    /// The base of a direct map that can be anywhere, by the first page that is mapped as one must be.
    fn random_map(&self) -> Option<u64> {
        let mut looked = 0;
        let mut below = |table: Mfn| {
            looked += 1;
            let entries = if looked <= MOST_LOOKED { self.space.entries(table) } else { Vec::new() };
            entries.into_iter().filter_map(|(i, e)| Some((i, e, self.space.machine(frame(e))?))).collect::<Vec<_>>()
        };
        for (i, _, l3) in below(self.space.root()) {
            let start = i << 39 | 0xffff << 48;
            if !RANDOM_MAPS.contains(&start) {
                continue;
            }
            // One entry of each table will do: all of them have the same base.
            let mut table = below(l3);
            for shift in [30, 21, 12] {
                let Some(&(j, entry, next)) = table.first() else { break };
                let va = start + (j << shift);
                if shift == 12 || entry & PSE != 0 {
                    let base = va.wrapping_sub(entry & PTE_FRAME_MASK & !((1 << shift) - 1));
                    if base.is_multiple_of(RANDOM_STEP) && RANDOM_MAPS.contains(&base) {
                        return Some(base);
                    }
                    break;
                }
                table = below(next);
            }
        }
        None
    }

    /// Reads the image once: for each word that may point to the start of a page in the direct map, looks whether that
    /// page is the start_info or begins with a VMCOREINFO note; and for notes in the image itself, where kernels
    /// before 4.13 keep theirs (Linux: `u32 vmcoreinfo_note[]`, commit 203e9e41219b made it a pointer).
    ///
    /// The cost is that of the image, not of the domain.
    pub fn landmarks(&self) -> Landmarks {
        let mut found = Landmarks::default();
        let maps = if self.is_translated() { RANDOM_MAPS } else { DIRECT_MAPS };
        let hits = self.scan(NOTE_HEADER, |va, window, own| {
            let place = |at: usize| VirtAddr(va.0 + at as u64);
            let starts = (0..own).step_by(4).filter(|at| window.get(*at..).is_some_and(is_note));
            let notes = starts.map(|at| (None, place(at)));
            let words = (0..).step_by(8).zip(words(window.get(..own).unwrap_or_default()));
            let pointers = words.filter(|(_, w)| w % 4096 == 0 && maps.contains(w));
            notes.chain(pointers.map(|(at, w)| (Some(w), place(at)))).collect()
        });
        let mut pointers: Vec<(u64, VirtAddr)> = Vec::new();
        for (target, place) in hits {
            match target {
                Some(target) => pointers.push((target, place)),
                None => found.notes.push(place),
            }
        }
        let targets: BTreeSet<u64> = pointers.iter().map(|p| p.0).collect();
        for target in targets.into_iter().map(VirtAddr) {
            let mut head = [0; 64];
            if self.pfn(target).is_none() || self.read("a page", target, &mut head).is_err() {
                continue;
            }
            if head.starts_with(&START_INFO_MAGIC) && found.start_info.is_none() {
                found.start_info = Some(target);
                found.start_info_refs = pointers.iter().filter(|p| p.0 == target.0).map(|p| p.1).collect();
            }
            if is_note(&head) {
                found.notes.push(target);
            }
        }
        found.notes.sort_unstable();
        found.notes.dedup();
        found
    }

    /// Hands the image to `each` in parts: the address, the bytes, and how many of these are the part's own; the rest,
    /// `overlap` bytes if they are mapped, belongs to the next part. Pages that cannot be read are zeros.
    pub(super) fn scan<T: Send>(
        &self,
        overlap: usize,
        each: impl Fn(VirtAddr, &[u8], usize) -> Vec<T> + Sync,
    ) -> Vec<T> {
        let mut parts: Vec<(usize, usize)> = Vec::new();
        for (i, (va, _)) in self.image.iter().enumerate() {
            let follows = i > 0 && self.image.get(i - 1).is_some_and(|before| before.0.0 + PAGE_BYTES == va.0);
            match parts.last_mut() {
                Some((_, len)) if follows && *len < IMAGE_PART => *len += 1,
                _ => parts.push((i, 1)),
            }
        }
        let scan = |(first, len): (usize, usize)| {
            let pages = self.image.get(first..).unwrap_or_default();
            let start = pages.first().map(|p| p.0).unwrap_or_default();
            let own = len * PAGE_SIZE;
            let mut window = Vec::with_capacity(own + overlap.next_multiple_of(PAGE_SIZE));
            for (va, mfn) in pages {
                if va.0 != start.0 + window.len() as u64 || window.len() >= own + overlap {
                    break;
                }
                match self.space.memory().page(*mfn) {
                    Ok(page) => window.extend_from_slice(&page),
                    Err(_) => window.resize(window.len() + PAGE_SIZE, 0),
                }
            }
            window.truncate(own + overlap);
            each(start, &window, own)
        };
        parts.into_par_iter().flat_map_iter(scan).collect()
    }
}

/// Whether an ELF note of Linux's own VMCOREINFO begins here: name size 11, type 0.
pub fn is_note(bytes: &[u8]) -> bool {
    u32_at(bytes, 0) == Some(11)
        && u32_at(bytes, 8) == Some(0)
        && u32_at(bytes, 4).is_some_and(|n| n > 0 && n as usize <= crate::vmcoreinfo::MOST_TEXT)
        && bytes.get(12..24).is_some_and(|name| name == b"VMCOREINFO\0\0")
}

fn image(space: &AddressSpace<'_>, p2m: &P2m) -> Vec<(VirtAddr, Mfn)> {
    let mut pages = Vec::new();
    let below = |table: Mfn, index: u64| {
        let entry = space.entries(table).into_iter().find(|e| e.0 == index)?;
        space.machine(frame(entry.1)).filter(|_| entry.1 & PSE == 0)
    };
    let Some(l2) = below(space.root(), 511).and_then(|l3| below(l3, 510)) else { return pages };
    let mut add = |va, mfn: Option<Mfn>| {
        if let Some(mfn) = mfn.filter(|m| p2m.pfn(*m).is_some() && pages.len() < MOST_IMAGE_PAGES) {
            pages.push((VirtAddr(va), mfn));
        }
    };
    for (i, l2e) in space.entries(l2) {
        let start = START_KERNEL_MAP + (i << 21);
        if l2e & PSE == 0 {
            let Some(l1) = space.machine(frame(l2e)) else { continue };
            for (j, l1e) in space.entries(l1) {
                add(start + (j << 12), space.machine(frame(l1e)));
            }
        } else if p2m.translated {
            // PV has no large pages.
            let first = frame(l2e).0 & !511;
            (0..512).for_each(|j| add(start + (j << 12), p2m.mfn(Pfn(first + j))));
        }
    }
    pages
}
