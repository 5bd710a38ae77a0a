//! The pages of a plan that stay, without a list of them.

use super::Plan;
use crate::units::{Mfn, Pfn};
use crate::xen::p2m::Run;

/// Where in a plan's runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// Which run.
    pub run: usize,
    /// Pages of it before this place.
    pub skip: u64,
}

/// The pages of a plan that stay, as runs.
#[derive(Clone, Debug)]
pub struct Pieces<'p> {
    plan: &'p Plan<'p>,
    next: Spot,
}

impl<'p> Pieces<'p> {
    pub(super) fn new(plan: &'p Plan<'p>, next: Spot) -> Self {
        Self { plan, next }
    }

    /// Where the next run begins, or before it.
    pub fn spot(&self) -> Spot {
        self.next
    }

    /// Goes back by so many pages of the run that came last.
    pub fn give_back(&mut self, pages: u64) {
        self.next.skip -= pages.min(self.next.skip);
    }
}

impl Iterator for Pieces<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let excluded = &self.plan.excluded.pages;
        loop {
            let run = self.plan.runs.get(self.next.run)?;
            let (from, end) = (run.pfn.0 + self.next.skip, run.pfn.0 + run.len);
            // Beyond its bound the bitmap has nothing, so all that is there stays.
            let first = excluded.find(false, from, end).or((from < end).then_some(from.max(excluded.len())));
            let Some(first) = first.filter(|n| *n < end) else {
                self.next = Spot { run: self.next.run + 1, skip: 0 };
                continue;
            };
            let stop = excluded.find(true, first, end).unwrap_or(end);
            self.next.skip = stop - run.pfn.0;
            let into = first - run.pfn.0;
            let piece = Run { pfn: Pfn(first), mfn: Mfn(run.mfn.0 + into), len: stop - first };
            return Some(self.plan.layout.place(piece));
        }
    }
}
