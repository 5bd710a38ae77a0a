//! What decides which page stays, where it stands in the output, and what is altered in it.

pub mod filter;
pub mod layout;
pub mod level;
pub mod order;
pub mod pieces;
pub mod selection;
pub mod tables;

use crate::error::Absence;
use crate::linux::Kernel;
use crate::linux::marks::Mark;
use crate::source::MachineMemory;
use crate::source::container::Place;
use crate::units::{Mfn, PAGE_BYTES, PAGE_SIZE, Page, Pfn};
use crate::xen::frame_table::Cursor;
use crate::xen::own::Own;
use crate::xen::p2m::Run;
use crate::xen::{Domain, Host, P2m};
use filter::Excluded;
use layout::Layout;
use level::Level;
use order::Order;
use pieces::{Pieces, Spot};
use selection::Selection;
use std::collections::{BTreeMap, HashSet};
use tables::{Rewriter, Table, Tally};

/// Identity-mapped frame numbers are kept clear of synthetic PFNs within this many numbers.
const EXTRA_WINDOW: u64 = 1 << 16;

/// Eight bytes of the output that differ from the machine's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The page.
    pub pfn: Pfn,
    /// Where in it.
    pub at: usize,
    /// Why.
    pub mark: Mark,
}

/// Everything that the writing needs to know.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Where pages stand in the output.
    pub layout: Layout,
    /// Pages of the domain that the dump has, in order of the output; [`Self::pieces`] are those that stay.
    pub runs: Vec<Run>,
    /// PFNs of the domain that should stay but that the dump does not have, and why.
    pub absent: BTreeMap<Absence, u64>,
    /// Pages that leave for what they are.
    pub excluded: Excluded,
    /// Xen-heap pages that the domain owns, and where they stand: above all PFNs of its own, or at their MFN.
    pub extra: Vec<(Mfn, Pfn)>,
    /// Xen's own memory, if it stays.
    pub own: Own,
    /// How to rewrite the page tables, if there are any to be.
    pub rewriter: Option<Rewriter<'a>>,
    /// What rewriting does, counted over all tables.
    pub tally: Tally,
    /// Words to clear, by PFN.
    pub patches: Vec<Patch>,
    /// Tables by PFN.
    tables: Vec<Table>,
    /// What leaves.
    pub level: Level,
    /// Which pages come first.
    pub order: Order,
    /// Pages that stay.
    pages: u64,
}

impl<'a> Plan<'a> {
    /// Decides, for the native layout, where pages stand and what is altered in them, given which stay and which are page tables.
    pub fn new(host: &'a Host<'a>, domain: &'a Domain, p2m: &'a P2m, choice: Selection) -> Self {
        let Selection { tables, excluded, applied, order, .. } = choice;
        let mut rewriter = Rewriter::new(host, domain, p2m);
        let survey = rewriter.survey(&tables);
        let shared = domain.shared_info.as_ref();
        let mut heap = survey.heap;
        // A translated domain's has a PFN, if the kernel mapped it.
        heap.extend(shared.map(|s| s.mfn).filter(|mfn| p2m.pfn(*mfn).is_none()));
        let vacant = p2m.vacant().0;
        let foreign: HashSet<Pfn> = p2m.foreign_pfns().collect();
        let free = (0..EXTRA_WINDOW).filter(|n| !survey.identity.get(*n)).map(|n| Pfn(vacant + n));
        let mut free = free.filter(|pfn| !foreign.contains(pfn));
        let extra: Vec<(Mfn, Pfn)> = heap.into_iter().map_while(|mfn| Some((mfn, free.next()?))).collect();
        rewriter.set_extra(&extra);
        let (mut runs, mut absent) = (Vec::new(), BTreeMap::new());
        let appended = extra.iter().map(|(mfn, pfn)| Run { pfn: *pfn, mfn: *mfn, len: 1 });
        for run in p2m.runs().iter().copied().chain(appended) {
            split_by_presence(host.memory(), run, &excluded, &mut runs, &mut absent);
        }
        let stay = |r: &Run| r.len - excluded.pages.count_range(r.pfn.0, r.len);
        let pages = runs.iter().map(stay).sum();
        Self {
            layout: Layout::Native,
            runs,
            absent,
            excluded,
            extra,
            own: Own::default(),
            rewriter: Some(rewriter),
            tally: survey.tally,
            patches: Vec::new(),
            tables,
            level: applied,
            order,
            pages,
        }
    }

    /// [`Self::new`] in any layout.
    pub fn in_layout(layout: Layout, host: &'a Host<'a>, domain: &'a Domain, p2m: &'a P2m, choice: Selection) -> Self {
        match layout {
            Layout::Native => Self::new(host, domain, p2m, choice),
            Layout::Machine { keep_xen } => Self::by_mfn(host, domain, p2m, choice, keep_xen),
            Layout::Unaltered => Self::by_pfn(host, p2m, choice),
        }
    }

    /// The plan of a cut that is written once more: nothing moves and nothing is altered. `runs` have what is left out, too.
    pub fn again(runs: Vec<Run>, excluded: Excluded, level: Level, order: Order) -> Self {
        Self { order, ..Self::as_it_is(Layout::Native, runs, excluded, level) }
    }

    /// Bytes of memory that it takes, without what is small.
    pub fn bytes(&self) -> u64 {
        let runs = self.runs.capacity() * size_of::<Run>() + self.tables.capacity() * size_of::<Table>();
        self.excluded.pages.len() / 8 + self.order.bytes() + runs as u64
    }

    /// Adds the clearing of marks; says which are not in the domain's own memory.
    pub fn clear(&mut self, kernel: &Kernel<'_>, marks: Vec<Mark>) -> Vec<String> {
        let mut doubts = Vec::new();
        for mark in marks {
            match kernel.pfn(mark.va) {
                Some(pfn) if self.excluded.pages.get(pfn.0) => {
                    doubts.push(format!("{} at {} is on a page that the level leaves out", mark.name, mark.va));
                }
                Some(pfn) => self.patches.push(Patch { pfn, at: mark.va.in_page(), mark }),
                None => {
                    doubts.push(format!("{} at {} is not in the domain's own memory and was left", mark.name, mark.va))
                }
            }
        }
        self.patches.sort_by_key(|p| (p.pfn, p.at));
        self.patches.dedup_by_key(|p| (p.pfn, p.at));
        doubts
    }

    /// Pages of the output, zero ones included.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The pages of the output, by their number in it.
    pub fn pieces(&self) -> Pieces<'_> {
        self.pieces_from(Spot::default())
    }

    /// The same from a place on.
    pub fn pieces_from(&self, from: Spot) -> Pieces<'_> {
        Pieces::new(self, from)
    }

    /// Those that a reader of the domain may ask for: with the ones that leave for what they are.
    pub fn known(&self) -> impl Iterator<Item = Run> {
        self.runs.iter().map(|r| self.layout.place(*r))
    }

    /// One more than the highest number of a page in the output.
    pub fn end(&self) -> Pfn {
        let last = self.runs.last().map(|r| self.layout.place(*r));
        Pfn(last.map_or(0, |r| r.pfn.0 + r.len))
    }

    /// All page tables, by PFN.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    fn table(&self, pfn: Pfn) -> Option<Table> {
        let at = self.tables.binary_search_by_key(&pfn, |t| t.pfn).ok()?;
        self.tables.get(at).copied()
    }

    /// The first PFN from `pfn` on whose content is altered.
    pub fn next_altered(&self, pfn: Pfn) -> Option<Pfn> {
        let table = self.tables.get(self.tables.partition_point(|t| t.pfn < pfn)).map(|t| t.pfn);
        let patch = self.patches.get(self.patches.partition_point(|p| p.pfn < pfn)).map(|p| p.pfn);
        table.into_iter().chain(patch).min()
    }

    /// Alters a page that [`Self::next_altered`] named.
    pub fn alter(&self, frames: Option<&mut Cursor<'_>>, pfn: Pfn, page: &mut Page) {
        if let (Some(table), Some(rewriter), Some(frames)) = (self.table(pfn), &self.rewriter, frames) {
            rewriter.rewrite(frames, table, page);
        }
        let first = self.patches.partition_point(|p| p.pfn < pfn);
        for patch in self.patches.get(first..).unwrap_or_default().iter().take_while(|p| p.pfn == pfn) {
            if let Some(word) = page.get_mut(patch.at..PAGE_SIZE.min(patch.at + 8)) {
                word.fill(0);
            }
        }
    }
}

/// Splits a run into what the dump has and what it has not.
fn split_by_presence(
    mem: &MachineMemory<'_>,
    run: Run,
    excluded: &Excluded,
    runs: &mut Vec<Run>,
    absent: &mut BTreeMap<Absence, u64>,
) {
    let mut at = 0;
    while at < run.len {
        let mfn = Mfn(run.mfn.0 + at);
        let Some(addr) = mfn.addr() else { break };
        let (place, bytes) = mem.map().find(addr);
        // Less than a page: it straddles segments, and is there only if all of it is.
        let pages = (bytes / PAGE_BYTES).clamp(1, run.len - at);
        let place = match place {
            Place::Absent(why) => Err(why),
            _ if bytes < PAGE_BYTES => mem.read(addr, &mut [0; PAGE_SIZE]),
            _ => Ok(()),
        };
        match place {
            Ok(()) => {
                let pfn = Pfn(run.pfn.0 + at);
                match runs.last_mut() {
                    Some(last) if last.pfn.0 + last.len == pfn.0 && last.mfn.0 + last.len == mfn.0 => last.len += pages,
                    _ => runs.push(Run { pfn, mfn, len: pages }),
                }
            }
            Err(why) => {
                let missed = pages - excluded.pages.count_range(run.pfn.0 + at, pages);
                if missed > 0 {
                    *absent.entry(why).or_default() += missed;
                }
            }
        }
        at += pages;
    }
}
