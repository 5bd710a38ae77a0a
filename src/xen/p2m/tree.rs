//! The three-level tree that a PV domain publishes for tools (Linux: arch/x86/xen/p2m.c).
//!
//! The top page holds MFNs of middle pages, these of leaf pages, these the entries: 512 words each, 2^27 PFNs in all.
//! Empty parts point to shared pages full of `~0`, never to zero (zeros are what XenLinux has beyond its end), so `max_pfn` bounds the walk.

use super::source::{FAN, Part, Source, Visits, is_empty};
use crate::bytes::words;
use crate::units::Mfn;
use crate::xen::{Domain, Host};
use std::collections::HashSet;
use std::ops::Range;

/// Name of the tree, for people.
pub const NAME: &str = "frame list";
/// PFNs that the tree can hold.
pub const CAPACITY: u64 = FAN * FAN * FAN;
/// PFNs below a middle page.
const MIDDLE: u64 = FAN * FAN;

/// The tree.
#[derive(Debug)]
pub struct Tree<'h> {
    host: &'h Host<'h>,
    domain: &'h Domain,
    top: Mfn,
    top_page: Vec<u64>,
    end: u64,
    /// Whether the domain told the end.
    told: bool,
}

/// The top pages that the domain's tree is said to have: its own word, and the crash note's copy of the hardware
/// domain's, in case its own page is damaged.
pub fn tops(host: &Host<'_>, domain: &Domain) -> impl Iterator<Item = Mfn> {
    let own = domain.shared_info.as_ref().map(|s| s.frame_list_list);
    let hardware = host.hardware_domain().is_some_and(|d| d.id == domain.id);
    let noted = Some(host.notes.crash.frame_list_list).filter(|n| hardware && own != Some(*n));
    own.into_iter().chain(noted).filter(|top| !matches!(top.0, 0 | u64::MAX))
}

impl<'h> Tree<'h> {
    /// The tree below `top`, with `max_pfn` entries; 0 stands for as many as there can be. `None` if the top page is not in
    /// the dump, or not the domain's.
    pub fn open(host: &'h Host<'h>, domain: &'h Domain, top: Mfn, max_pfn: u64) -> Option<Self> {
        let end = if max_pfn == 0 { CAPACITY } else { max_pfn.min(CAPACITY) };
        let mut tree = Self { host, domain, top, top_page: Vec::new(), end, told: max_pfn != 0 };
        tree.top_page = tree.page(&mut host.frames.cursor(), top.0)?;
        Some(tree)
    }

    /// The top page.
    pub fn top(&self) -> Mfn {
        self.top
    }

    /// A page of the tree, if it is the domain's.
    fn page(&self, cursor: &mut crate::xen::frame_table::Cursor<'_>, mfn: u64) -> Option<Vec<u64>> {
        // Where the dump lacks the frame table's entry, what the page leads to is checked all the same.
        if cursor.look(Mfn(mfn)).info().is_some_and(|info| !self.domain.owns(self.host, &info)) {
            return None;
        }
        Some(words(&self.host.memory().page(Mfn(mfn)).ok()?).collect())
    }
}

impl Source for Tree<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn walk(&self, range: Range<u64>, each: &mut dyn FnMut(Part<'_>)) {
        let mut cursor = self.host.frames.cursor();
        let mut visits = Visits::default();
        // Pages known to lead nowhere.
        let mut empty = HashSet::new();
        each(Part::Own(&[self.top.0]));
        each(Part::Own(&self.top_page));
        // Kernels fill what lies below the end that they tell, classic XenLinux no more than that.
        let blank = |each: &mut dyn FnMut(Part<'_>), from: u64, to: u64| {
            if self.told {
                each(Part::Blank(from, to - from));
            }
        };
        let inside = |first: u64, count: u64| {
            let (from, to) = (first.max(range.start), (first + count).min(range.end).min(self.end));
            (from < to).then_some((from, to))
        };
        for (i, &middle) in (0..).step_by(MIDDLE as usize).zip(&self.top_page) {
            let Some((from, to)) = inside(i, MIDDLE) else { continue };
            if empty.contains(&middle) {
                continue;
            }
            if middle == 0 {
                blank(each, from, to);
                continue;
            }
            if !visits.again(middle) {
                each(Part::Repeated(from, to - from));
                continue;
            }
            let Some(middle_page) = self.page(&mut cursor, middle) else {
                each(Part::Unreadable(from, to - from));
                continue;
            };
            each(Part::Own(&middle_page));
            let mut all_empty = (from, to) == (i, i + MIDDLE);
            for (j, &leaf) in (i..).step_by(FAN as usize).zip(&middle_page) {
                let Some((from, to)) = inside(j, FAN) else { continue };
                if empty.contains(&leaf) {
                    continue;
                }
                if leaf == 0 {
                    all_empty = false;
                    blank(each, from, to);
                    continue;
                }
                if !visits.again(leaf) {
                    all_empty = false;
                    each(Part::Repeated(from, to - from));
                    continue;
                }
                let Some(leaf_page) = self.page(&mut cursor, leaf) else {
                    all_empty = false;
                    each(Part::Unreadable(from, to - from));
                    continue;
                };
                if let Some(identity) = is_empty(&leaf_page) {
                    each(Part::Identity(identity));
                    empty.insert(leaf);
                    continue;
                }
                all_empty = false;
                each(Part::Entries(from, leaf_page.get((from - j) as usize..(to - j) as usize).unwrap_or_default()));
            }
            if all_empty {
                empty.insert(middle);
            }
        }
    }

    fn lookup(&self, pfn: u64) -> Option<u64> {
        let index = |shift: u32| (pfn >> shift & (FAN - 1)) as usize;
        let mut cursor = self.host.frames.cursor();
        let middle = *self.top_page.get(index(18)).filter(|_| pfn < CAPACITY)?;
        let leaf = *self.page(&mut cursor, middle)?.get(index(9))?;
        self.page(&mut cursor, leaf)?.get(index(0)).copied()
    }
}
