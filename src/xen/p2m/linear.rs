//! The linear list: one array of all entries in the kernel's address space (Linux 3.19 and later; Xen: public/arch-x86/xen.h,
//! p2m_cr3 and p2m_vaddr). Domains that Xen's toolstack built since 4.7 have no other, and it alone goes beyond 2^27 PFNs.
//!
//! It is walked table by table, so that what is mapped to the kernel's shared pages of holes costs nothing.

use super::bound;
use super::source::{FAN, Part, Source, Visits, is_empty};
use crate::bytes::words;
use crate::units::{Mfn, PAGE_SHIFT, VirtAddr};
use crate::xen::paging::{AddressSpace, PRESENT, PSE, frame};
use crate::xen::{Domain, Host};
use std::collections::HashSet;
use std::ops::Range;

/// Bytes of an entry.
const ENTRY: u64 = 8;
/// Bytes of either half of the address space. Within both, addresses are distinct below twice that: the bits above are
/// signs, and no part of a table's index.
const HALF: u64 = 1 << 47;

/// The list.
#[derive(Debug)]
pub struct Linear<'h> {
    host: &'h Host<'h>,
    domain: &'h Domain,
    space: AddressSpace<'h>,
    base: VirtAddr,
    end: u64,
    name: &'static str,
}

impl<'h> Linear<'h> {
    /// The list at `base` in the address space below `root`, which must be a page of the domain's, with `max_pfn` entries,
    /// or as many as a domain of this machine can have. `None` if it cannot be one.
    pub fn open(
        host: &'h Host<'h>,
        domain: &'h Domain,
        (root, base): (Mfn, VirtAddr),
        max_pfn: u64,
        name: &'static str,
    ) -> Option<Self> {
        let owned = host.frames.get(root).is_none_or(|info| domain.owns(host, &info));
        let space = AddressSpace::new(host.memory(), root);
        let aligned = base.0.is_multiple_of(1 << PAGE_SHIFT) && base.is_canonical();
        let end = max_pfn.min(bound(host));
        let list = Self { host, domain, space, base, end, name };
        // It may end with the address space, but not run past it.
        let fits = end * ENTRY <= HALF - list.start() % HALF && !space.entries(root).is_empty();
        (owned && aligned && fits && root.0 != 0).then_some(list)
    }

    /// Its address without the sign.
    fn start(&self) -> u64 {
        self.base.0 % (2 * HALF)
    }

    fn page(&self, cursor: &mut crate::xen::frame_table::Cursor<'_>, mfn: Mfn) -> Option<Vec<u64>> {
        if cursor.look(mfn).info().is_some_and(|info| !self.domain.owns(self.host, &info)) {
            return None;
        }
        Some(words(&self.host.memory().page(mfn).ok()?).collect())
    }
}

/// The state of a walk.
struct Walk<'w, 'h> {
    list: &'w Linear<'h>,
    cursor: crate::xen::frame_table::Cursor<'h>,
    visits: Visits,
    empty: HashSet<u64>,
    /// Addresses that are asked for, without their sign, and the first behind them.
    from: u64,
    to: u64,
}

impl Walk<'_, '_> {
    /// Walks a table of `level` that maps addresses from `base` on; says whether it leads to nothing but holes.
    fn table(&mut self, mfn: Mfn, level: u32, base: u64, each: &mut dyn FnMut(Part<'_>)) -> bool {
        let shift = PAGE_SHIFT + 9 * (level - 1);
        let first = self.list.start();
        let pfn = |at: u64| (at - first) / ENTRY;
        let Some(entries) = self.list.page(&mut self.cursor, mfn) else {
            let (from, to) = (base.max(self.from), (base + (FAN << shift)).min(self.to));
            if from < to {
                each(Part::Unreadable(pfn(from), (to - from) / ENTRY));
            }
            return false;
        };
        let mut all_empty = true;
        // The tables are the kernel's, and known as such; only the leaves of the list are its own.
        for (i, entry) in (0..).zip(entries) {
            let start = base + (i << shift);
            let (from, to) = (start.max(self.from), (start + (1 << shift)).min(self.to));
            if from >= to {
                continue;
            }
            let count = (to - from) / ENTRY;
            let below = frame(entry);
            if entry & PRESENT == 0 {
                // The array has no holes: what is not there in its memory is mapped to shared pages.
                all_empty = false;
                each(Part::Blank(pfn(from), count));
                continue;
            }
            if self.empty.contains(&below.0) {
                continue;
            }
            // PV has no large pages.
            if level > 1 && entry & PSE != 0 {
                all_empty = false;
                each(Part::Unreadable(pfn(from), count));
                continue;
            }
            if !self.visits.again(below.0) {
                all_empty = false;
                each(Part::Repeated(pfn(from), count));
                continue;
            }
            if level > 1 {
                let whole = (from, to) == (start, start + (1 << shift));
                if self.table(below, level - 1, start, each) && whole {
                    self.empty.insert(below.0);
                } else {
                    all_empty = false;
                }
                continue;
            }
            each(Part::Own(&[below.0]));
            let Some(leaf) = self.list.page(&mut self.cursor, below) else {
                all_empty = false;
                each(Part::Unreadable(pfn(from), count));
                continue;
            };
            if let Some(identity) = is_empty(&leaf) {
                each(Part::Identity(identity));
                self.empty.insert(below.0);
                continue;
            }
            all_empty = false;
            let (a, b) = ((from - start) / ENTRY, (to - start) / ENTRY);
            each(Part::Entries(pfn(from), leaf.get(a as usize..b as usize).unwrap_or_default()));
        }
        all_empty
    }
}

impl Source for Linear<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn walk(&self, range: Range<u64>, each: &mut dyn FnMut(Part<'_>)) {
        let (first, last) = (range.start.min(self.end), range.end.min(self.end));
        if first >= last {
            return;
        }
        let mut walk = Walk {
            list: self,
            cursor: self.host.frames.cursor(),
            visits: Visits::default(),
            empty: HashSet::new(),
            from: self.start() + first * ENTRY,
            to: self.start() + last * ENTRY,
        };
        walk.table(self.space.root(), 4, 0, each);
    }

    fn lookup(&self, pfn: u64) -> Option<u64> {
        let va = (pfn < self.end).then(|| VirtAddr(self.base.0 + pfn * ENTRY))?;
        self.space.read_u64("the P2M", va).ok()
    }
}
