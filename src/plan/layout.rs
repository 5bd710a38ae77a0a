//! The layouts of an output: where a page stands in it.
//!
//! | layout | a page stands at | for |
//! |---|---|---|
//! | native | its PFN; page tables, marks and notes as on bare metal | every reader |
//! | machine | its MFN; nothing is altered but the crash note's last word | crash's and makedumpfile's own ways with Xen |
//! | unaltered | its PFN; nothing is altered, page tables hold MFNs | the format of `xl dump-core`, which has the P2M |
//!
//! A plan's runs have both numbers. In the machine layout the PFN only says which pages the dump level leaves out, so pages
//! that have none get one from `NO_PFN` on, of which no level knows anything.

use super::filter::Excluded;
use super::level::Level;
use super::order::Order;
use super::selection::Selection;
use super::tables::{Rewriter, Tally};
use super::{Plan, split_by_presence};
use crate::linux::Kernel;
use crate::units::{Mfn, Pfn};
use crate::xen::own::{self, Own};
use crate::xen::p2m::Run;
use crate::xen::p2m::tree::{self, Tree};
use crate::xen::{Domain, Host, P2m};
use std::collections::BTreeMap;
use std::fmt;

/// Above all PFNs that a domain can have.
const NO_PFN: u64 = 1 << 60;

/// Where pages stand in the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// By PFN, as if the kernel had run on bare metal.
    #[default]
    Native,
    /// By MFN, as in the full dump.
    Machine {
        /// Whether Xen's own memory stays too.
        keep_xen: bool,
    },
    /// By PFN, as the domain had it: without Xen-heap pages, which have no PFN.
    Unaltered,
}

impl Layout {
    /// Whether pages stand by MFN.
    pub fn is_machine(self) -> bool {
        matches!(self, Self::Machine { .. })
    }

    /// A run as the output numbers it.
    pub(super) fn place(self, run: Run) -> Run {
        if self.is_machine() { Run { pfn: Pfn(run.mfn.0), ..run } } else { run }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "pseudo-physical",
            Self::Machine { keep_xen: false } => "machine",
            Self::Machine { keep_xen: true } => "machine-xen",
            Self::Unaltered => "unaltered",
        })
    }
}

impl<'a> Plan<'a> {
    /// A plan in the machine layout: the domain's pages, the Xen-heap pages that it maps, and Xen's own memory if that is
    /// asked for.
    pub(super) fn by_mfn(
        host: &'a Host<'a>,
        domain: &'a Domain,
        p2m: &'a P2m,
        choice: Selection,
        keep_xen: bool,
    ) -> Self {
        let Selection { tables, excluded, applied, .. } = choice;
        let rewriter = Rewriter::new(host, domain, p2m);
        let mut heap = rewriter.survey(&tables).heap;
        heap.extend(domain.shared_info.as_ref().map(|s| s.mfn));
        heap.retain(|mfn| p2m.pfn(*mfn).is_none());
        let own = if keep_xen { own::read(host, domain, p2m) } else { Own::default() };
        heap.retain(|mfn| !own.contains(*mfn));
        let unnumbered = heap.iter().map(|mfn| (*mfn, 1)).chain(own.runs.iter().copied());
        let unnumbered = unnumbered.map(|(mfn, len)| Run { pfn: Pfn(NO_PFN + mfn.0), mfn, len });
        let mut all: Vec<Run> = p2m.runs_by_mfn().iter().copied().chain(unnumbered).collect();
        all.sort_unstable_by_key(|r| r.mfn);
        let (mut runs, mut absent) = (Vec::new(), BTreeMap::new());
        for run in all {
            split_by_presence(host.memory(), run, &excluded, &mut runs, &mut absent);
        }
        let extra = heap.into_iter().map(|mfn| (mfn, Pfn(mfn.0))).collect();
        let layout = Layout::Machine { keep_xen };
        Self { absent, extra, own, ..Self::as_it_is(layout, runs, excluded, applied) }
    }

    /// A plan in the unaltered layout: the domain's pages.
    pub(super) fn by_pfn(host: &'a Host<'a>, p2m: &'a P2m, choice: Selection) -> Self {
        let Selection { excluded, applied, .. } = choice;
        let (mut runs, mut absent) = (Vec::new(), BTreeMap::new());
        for run in p2m.runs() {
            split_by_presence(host.memory(), *run, &excluded, &mut runs, &mut absent);
        }
        Self { absent, ..Self::as_it_is(Layout::Unaltered, runs, excluded, applied) }
    }

    /// Of these pages those that are not excluded, each as the machine had it.
    pub(super) fn as_it_is(layout: Layout, runs: Vec<Run>, excluded: Excluded, level: Level) -> Self {
        let stay = |r: &Run| r.len - excluded.pages.count_range(r.pfn.0, r.len);
        let pages = runs.iter().map(stay).sum();
        Self {
            layout,
            runs,
            absent: BTreeMap::new(),
            excluded,
            extra: Vec::new(),
            own: Own::default(),
            rewriter: None,
            tally: Tally::default(),
            patches: Vec::new(),
            tables: Vec::new(),
            level,
            order: Order::default(),
            pages,
        }
    }
}

/// The kernel's direct map, or where Linux has it unless it moves it about: what kexec-tools gives as addresses too.
pub fn direct_map(kernel: Option<&Kernel<'_>>) -> u64 {
    kernel.map_or(0xffff_8880_0000_0000, Kernel::direct_map)
}

/// The word of the crash note by which crash finds the P2M of `domain`: the frame of its list; 0 or `~0` if there is none.
pub fn frame_list_list(host: &Host<'_>, domain: &Domain) -> Mfn {
    let told = domain.shared_info.as_ref().map_or(Mfn(0), |s| s.frame_list_list);
    tree::tops(host, domain).find(|top| Tree::open(host, domain, *top, 0).is_some()).unwrap_or(told)
}
