//! The P2M of a translated domain (HVM, PVH): the tables that its hardware walks, four levels of 512 entries.
//!
//! They are Xen's, so the domain cannot write them; damage can, so each leaf is checked like a PV domain's entry, and no
//! frame that belongs to a domain is taken for a table.

pub mod entry;
pub mod root;

use super::source::{FAN, FOREIGN, IDENTITY, INVALID, Part, Source, Visits};
use crate::bytes::words;
use crate::units::{MAX_FRAME, Mfn};
use crate::xen::Host;
use entry::{Item, Meaning, item};
pub use root::Root;
use std::ops::Range;

/// GFNs that four levels can hold.
const CAPACITY: u64 = 1 << 36;

/// The tables below a root.
#[derive(Debug)]
pub struct Hap<'h> {
    host: &'h Host<'h>,
    root: Root,
}

impl<'h> Hap<'h> {
    /// The tables of this host's domain.
    pub fn new(host: &'h Host<'h>, root: Root) -> Self {
        Self { host, root }
    }

    fn page(&self, mfn: Mfn) -> Option<Vec<u64>> {
        let ours = mfn.0 < self.host.frames.max_page() && root::may_be_table(self.host, mfn);
        let page = self.host.memory().page(mfn).ok().filter(|_| ours)?;
        Some(words(&page).collect())
    }

    fn item(&self, level: u32, entry: u64) -> Item {
        item(self.root.kind, self.root.types, level, entry)
    }

    /// What a leaf says of one GFN, as an entry of a PV domain's P2M.
    fn entry(gfn: u64, mfn: u64, meaning: Meaning) -> u64 {
        match meaning {
            Meaning::Memory => mfn,
            Meaning::Foreign if mfn <= MAX_FRAME => mfn | FOREIGN,
            // Where a device stands elsewhere than on the machine, nothing of it can be in the output.
            Meaning::Device if gfn == mfn => mfn | IDENTITY,
            _ => INVALID,
        }
    }
}

/// A walk over a range of GFNs.
struct Walk<'w, 'h> {
    hap: &'w Hap<'h>,
    visits: Visits,
    from: u64,
    to: u64,
}

impl Walk<'_, '_> {
    fn table(&mut self, mfn: Mfn, level: u32, base: u64, each: &mut dyn FnMut(Part<'_>)) {
        let span = 1 << (9 * (level - 1));
        let (from, to) = (base.max(self.from), (base + FAN * span).min(self.to));
        if from >= to {
            return;
        }
        if !self.visits.again(mfn.0) {
            return each(Part::Repeated(from, to - from));
        }
        let Some(entries) = self.hap.page(mfn) else {
            return each(Part::Unreadable(from, to - from));
        };
        // Some are, where everything was taken away; but so is what damage cleared.
        if entries.iter().all(|e| *e == 0) {
            return each(Part::Blank(from, to - from));
        }
        if level == 1 {
            let entry = |(gfn, e): (u64, &u64)| match self.hap.item(1, *e) {
                Item::Leaf(mfn, meaning) => Hap::entry(gfn, mfn.0, meaning),
                _ => INVALID,
            };
            let inside = entries.get((from - base) as usize..(to - base) as usize).unwrap_or_default();
            let entries: Vec<u64> = (from..).zip(inside).map(entry).collect();
            return each(Part::Entries(from, &entries));
        }
        for (start, entry) in (base..).step_by(span as usize).zip(entries) {
            match self.hap.item(level, entry) {
                Item::Table(below) => self.table(below, level - 1, start, each),
                Item::Leaf(first, meaning) => self.large((start, span), first, meaning, each),
                Item::Hole => {}
            }
        }
    }

    /// A large page: `span` GFNs from `start` on.
    fn large(&mut self, (start, span): (u64, u64), first: Mfn, meaning: Meaning, each: &mut dyn FnMut(Part<'_>)) {
        let (from, to) = (start.max(self.from), (start + span).min(self.to));
        if from >= to {
            return;
        }
        // Damage could repeat one for the whole address space.
        if !self.visits.again(first.0) {
            return each(Part::Repeated(from, to - from));
        }
        let mut gfn = from;
        while gfn < to {
            let upto = (gfn + FAN).min(to);
            let run: Vec<u64> = (gfn..upto).map(|g| Hap::entry(g, first.0 + (g - start), meaning)).collect();
            each(Part::Entries(gfn, &run));
            gfn = upto;
        }
    }
}

impl Source for Hap<'_> {
    fn name(&self) -> &'static str {
        self.root.kind.name()
    }

    fn end(&self) -> u64 {
        CAPACITY
    }

    fn walk(&self, range: Range<u64>, each: &mut dyn FnMut(Part<'_>)) {
        let (from, to) = (range.start.min(CAPACITY), range.end.min(CAPACITY));
        let mut walk = Walk { hap: self, visits: Visits::default(), from, to };
        walk.table(self.root.mfn, 4, 0, each);
    }

    fn lookup(&self, pfn: u64) -> Option<u64> {
        let mut table = self.root.mfn;
        for level in (1..=4_u32).rev() {
            let shift = 9 * (level - 1);
            let entry = *self.page(table)?.get((pfn >> shift & (FAN - 1)) as usize).filter(|_| pfn < CAPACITY)?;
            match self.item(level, entry) {
                Item::Table(below) => table = below,
                Item::Leaf(first, meaning) => {
                    return Some(Self::entry(pfn, first.0 + (pfn & ((1 << shift) - 1)), meaning));
                }
                Item::Hole => return Some(INVALID),
            }
        }
        None
    }
}
