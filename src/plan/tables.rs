//! Page tables, from machine frames to PFNs.
//!
//! Of each live table (as Xen's type count, pin or validation proves it) each *present* entry is rewritten:
//!
//! | the frame is | the entry gets |
//! |---|---|
//! | the domain's own | its PFN |
//! | a Xen-heap page that the domain owns (shared info, grant table) | the PFN under which the output has it |
//! | another domain's, mapped under a PFN (grants, privcmd) | that PFN; its content stays out |
//! | no RAM: MMIO, ACPI, PCI configuration space | its number, since a dom0 maps these 1:1; unless memory of its own has that PFN |
//! | anything else | no present bit: Linux itself reads such an entry as not present |
//!
//! Of a table that only Linux knows as one, since its process had not run yet or has ended, only the first row is applied:
//! without Xen's word no entry is altered that does not name the domain's memory.
//!
//! Entries that are not present hold PFNs or swap places already and stay as they are. Slots 256 to 271 of an L4 are
//! Xen's and become 0.

use crate::bitmap::Bitmap;
use crate::source::MachineMemory;
use crate::units::{Mfn, PAGE_SHIFT, PTE_FRAME_MASK, Page, Pfn};
use crate::xen::frame_table::{Cursor, Entry};
use crate::xen::paging::{PRESENT, PSE, frame};
use crate::xen::{Domain, Host, P2m};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeSet;

/// L4 slots that belong to Xen in every PV address space.
const XEN_SLOTS: std::ops::RangeInclusive<usize> = 256..=271;

/// A page table of the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// Where it is.
    pub pfn: Pfn,
    /// 1 to 4.
    pub level: u8,
    /// Whether Xen knows it as one.
    pub by_xen: bool,
}

/// What rewriting did, in entries unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Tables rewritten.
    pub tables: u64,
    /// Of these, tables that Xen does not know, of processes that had not run yet.
    pub tables_unpinned: u64,
    /// Tables that the dump does not have.
    pub tables_absent: u64,
    /// Of the domain's own frames: MFN became PFN.
    pub own: u64,
    /// Of Xen-heap pages that the domain owns.
    pub xen_heap: u64,
    /// Of foreign frames that have a PFN.
    pub foreign: u64,
    /// Of MMIO, kept as they were.
    pub mmio: u64,
    /// Of MMIO whose number is a PFN of the domain's memory: present bit cleared.
    pub mmio_lost: u64,
    /// Of foreign frames without a PFN, or of Xen's memory: present bit cleared.
    pub lost: u64,
    /// Of Xen's slots: cleared.
    pub xen_slots: u64,
    /// Large pages, which a PV domain does not have: left as they were.
    pub large: u64,
}

impl Tally {
    fn add(mut self, o: Self) -> Self {
        self.tables += o.tables;
        self.tables_unpinned += o.tables_unpinned;
        self.tables_absent += o.tables_absent;
        self.own += o.own;
        self.xen_heap += o.xen_heap;
        self.foreign += o.foreign;
        self.mmio += o.mmio;
        self.mmio_lost += o.mmio_lost;
        self.lost += o.lost;
        self.xen_slots += o.xen_slots;
        self.large += o.large;
        self
    }
}

/// What a first pass over all tables found.
#[derive(Debug)]
pub struct TableSurvey {
    /// What rewriting will do.
    pub tally: Tally,
    /// Xen-heap pages that the domain owns and maps.
    pub heap: BTreeSet<Mfn>,
    /// Frame numbers of MMIO from the end of the domain's PFNs on, counted from there.
    pub identity: Bitmap,
}

/// Rewrites tables of one domain.
#[derive(Debug)]
pub struct Rewriter<'a> {
    host: &'a Host<'a>,
    domain: &'a Domain,
    p2m: &'a P2m,
    /// By MFN.
    extra: Vec<(Mfn, Pfn)>,
    /// PFNs from here on are not the domain's memory.
    vacant: u64,
}

enum Target {
    Own(Pfn),
    XenHeap,
    Foreign(Pfn),
    Mmio,
    MmioLost,
    Lost,
    Left,
}

impl<'a> Rewriter<'a> {
    /// A rewriter that does not know of synthetic PFNs yet.
    pub fn new(host: &'a Host<'a>, domain: &'a Domain, p2m: &'a P2m) -> Self {
        Self { host, domain, p2m, extra: Vec::new(), vacant: p2m.vacant().0 }
    }

    /// Says under which PFNs Xen-heap pages stand in the output.
    pub fn set_extra(&mut self, extra: &[(Mfn, Pfn)]) {
        self.extra = extra.to_vec();
        self.extra.sort_unstable();
    }

    /// Reads all tables once: what they map decides the layout of the output.
    pub fn survey(&self, tables: &[Table]) -> TableSurvey {
        let empty = || TableSurvey { tally: Tally::default(), heap: BTreeSet::new(), identity: Bitmap::new(1 << 16) };
        let parts = tables.par_chunks(64).map(|tables| {
            let mut part = empty();
            let mut frames = self.host.frames.cursor();
            for table in tables {
                let mut page = [0; 4096];
                let mfn = self.p2m.mfn(table.pfn).unwrap_or_default();
                if read(self.host.memory(), mfn, &mut page) {
                    self.walk(&mut frames, *table, &mut page, &mut part);
                } else {
                    part.tally.tables_absent += 1;
                }
            }
            part
        });
        parts.reduce(empty, |mut a, b| {
            a.heap.extend(b.heap);
            a.identity.union(&b.identity);
            TableSurvey { tally: a.tally.add(b.tally), ..a }
        })
    }

    /// Rewrites one table in place.
    pub fn rewrite(&self, frames: &mut Cursor<'_>, table: Table, page: &mut Page) {
        let mut unused = TableSurvey { tally: Tally::default(), heap: BTreeSet::new(), identity: Bitmap::new(0) };
        self.walk(frames, table, page, &mut unused);
    }

    fn walk(&self, frames: &mut Cursor<'_>, table: Table, page: &mut Page, found: &mut TableSurvey) {
        let tally = &mut found.tally;
        let level = table.level;
        tally.tables += 1;
        tally.tables_unpinned += u64::from(!table.by_xen);
        for (slot, word) in page.chunks_exact_mut(8).enumerate() {
            let Ok(bytes) = <[u8; 8]>::try_from(&*word) else { continue };
            let entry = u64::from_le_bytes(bytes);
            if level == 4 && XEN_SLOTS.contains(&slot) {
                tally.xen_slots += u64::from(entry != 0);
                word.fill(0);
                continue;
            }
            if entry & PRESENT == 0 {
                continue;
            }
            // At level 1 the bit is PAT.
            if level > 1 && entry & PSE != 0 {
                tally.large += 1;
                continue;
            }
            let mfn = frame(entry);
            let with = |pfn: Pfn| entry & !PTE_FRAME_MASK | (pfn.0 << PAGE_SHIFT & PTE_FRAME_MASK);
            let target = if table.by_xen { self.target(frames, mfn) } else { self.own(mfn).unwrap_or(Target::Left) };
            let new = match target {
                Target::Left => entry,
                Target::Own(pfn) => {
                    tally.own += 1;
                    with(pfn)
                }
                Target::XenHeap => {
                    tally.xen_heap += 1;
                    found.heap.insert(mfn);
                    // Without a PFN for it (only if the window of synthetic ones is full) it cannot be carried.
                    self.extra_pfn(mfn).map_or(entry & !PRESENT, with)
                }
                Target::Foreign(pfn) => {
                    tally.foreign += 1;
                    with(pfn)
                }
                Target::Mmio => {
                    tally.mmio += 1;
                    found.identity.set(mfn.0.wrapping_sub(self.vacant));
                    entry
                }
                Target::MmioLost => {
                    tally.mmio_lost += 1;
                    entry & !PRESENT
                }
                Target::Lost => {
                    tally.lost += 1;
                    entry & !PRESENT
                }
            };
            word.copy_from_slice(&new.to_le_bytes());
        }
    }

    fn own(&self, mfn: Mfn) -> Option<Target> {
        self.p2m.pfn(mfn).map(Target::Own)
    }

    fn target(&self, frames: &mut Cursor<'_>, mfn: Mfn) -> Target {
        if let Some(own) = self.own(mfn) {
            return own;
        }
        // Where nothing has owners, the shared info is known by its number.
        if self.domain.told.is_some() && self.domain.shared_info.as_ref().is_some_and(|s| s.mfn == mfn) {
            return Target::XenHeap;
        }
        let entry = frames.look(mfn);
        let info = entry.info();
        let owner = info.filter(|i| i.has_owner(self.host.state_bits));
        if owner.is_some_and(|i| i.is_xen_heap() && i.owner == self.domain.owner_code) {
            return Target::XenHeap;
        }
        if let Some(pfn) = self.p2m.foreign_pfn(mfn) {
            return Target::Foreign(pfn);
        }
        // Where there is no RAM, Xen has no entry, or gives the frame to DOMID_IO.
        let no_ram = entry == Entry::None || owner.is_some_and(|i| Some(i.owner) == self.host.dom_io);
        if !no_ram {
            return Target::Lost;
        }
        // Synthetic PFNs were chosen so that no MMIO has their number.
        if self.p2m.mfn(Pfn(mfn.0)).is_some() { Target::MmioLost } else { Target::Mmio }
    }

    fn extra_pfn(&self, mfn: Mfn) -> Option<Pfn> {
        let at = self.extra.binary_search_by_key(&mfn, |e| e.0).ok()?;
        self.extra.get(at).map(|e| e.1)
    }
}

fn read(mem: &MachineMemory<'_>, mfn: Mfn, page: &mut Page) -> bool {
    mfn.addr().is_some_and(|a| mem.read(a, page).is_ok())
}
