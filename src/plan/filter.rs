//! Which of the domain's own pages leave the output, by what the kernel uses them for.

use super::level::Level;
use crate::bitmap::Bitmap;
use crate::linux::mm::scan::{Block, Finding};
use crate::linux::mm::{Class, MemMap};
use crate::units::Pfn;
use crate::xen::P2m;
use crate::xen::p2m::Run;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// What leaves, and what stayed for a reason that somebody may want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excluded {
    /// The pages that leave, by PFN.
    pub pages: Bitmap,
    /// How many leave as what.
    pub by_class: BTreeMap<Class, u64>,
    /// Kept: their struct page could not be read.
    pub unreadable: u64,
    /// Kept: their struct page makes no sense.
    pub odd: u64,
    /// Kept although their struct page says that they are free, cache or a process's: page tables by Xen's word, pages of
    /// the P2M, the VMCOREINFO or the start_info.
    pub guarded: u64,
}

/// A section's share of [`Excluded`]; its bits count from its first PFN.
struct Part {
    first: u64,
    out: Excluded,
    /// Blocks that reach into later sections, cut at this one's end.
    beyond: Vec<Block>,
}

/// The memory that a part decides about.
struct Ground<'a> {
    p2m: &'a P2m,
    /// PFNs that never leave, in order.
    guard: &'a [Pfn],
}

/// Decides about all pages. `guard` has the PFNs that never leave, in order.
pub fn exclude(map: &MemMap<'_>, p2m: &P2m, guard: &[Pfn], level: Level) -> Excluded {
    let ground = Ground { p2m, guard };
    let sections: Vec<_> = map.sections.iter().collect();
    let size = 1_u64 << map.sections.shift;
    let parts = sections.par_iter().map(|section| {
        let first = section.number << map.sections.shift;
        let mut part =
            Part { first, out: Excluded { pages: Bitmap::new(size), ..Excluded::default() }, beyond: Vec::new() };
        // Where the section has memory, in whole batches.
        let runs = ground.runs(first, size);
        let (Some(start), Some(end)) = (runs.first().map(|r| r.0), runs.last().map(|r| r.0 + r.1)) else { return part };
        let range = (Pfn((start & !511).max(first)), Pfn(end.next_multiple_of(512).min(first + size)));
        let mut doubtful = Vec::new();
        map.scan(
            *section,
            range,
            |class| level.drops(class),
            |finding| match finding {
                Finding::Block(block) => {
                    let inside = block.pages.min(first + size - block.pfn.0);
                    ground.take(&mut part.out, first, Block { pages: inside, ..block });
                    if inside < block.pages {
                        part.beyond.push(Block { pfn: Pfn(first + size), pages: block.pages - inside, ..block });
                    }
                }
                Finding::Unreadable(pfn) => doubtful.push((pfn, true)),
                Finding::Odd(pfn) => doubtful.push((pfn, false)),
            },
        );
        for (_, unreadable) in doubtful.into_iter().filter(|(pfn, _)| p2m.mfn(*pfn).is_some()) {
            if unreadable {
                part.out.unreadable += 1;
            } else {
                part.out.odd += 1;
            }
        }
        part
    });
    let parts: Vec<Part> = parts.collect();
    let mut all = Excluded { pages: Bitmap::new(p2m.end().0), ..Excluded::default() };
    let mut beyond = Vec::new();
    for part in parts {
        all.pages.union_at(part.first, &part.out.pages);
        part.out.by_class.into_iter().for_each(|(class, n)| *all.by_class.entry(class).or_default() += n);
        all.unreadable += part.out.unreadable;
        all.odd += part.out.odd;
        all.guarded += part.out.guarded;
        beyond.extend(part.beyond);
    }
    beyond.into_iter().for_each(|block| ground.take(&mut all, 0, block));
    all
}

impl Ground<'_> {
    /// The domain's memory among `count` PFNs from `first` on: PFN and number of each run.
    fn runs(&self, first: u64, count: u64) -> Vec<(u64, u64)> {
        let end = first.saturating_add(count);
        let runs = self.p2m.runs();
        let from = runs.partition_point(|r: &Run| r.pfn.0 + r.len <= first);
        let inside = runs.get(from..).unwrap_or_default().iter().take_while(|r| r.pfn.0 < end);
        inside
            .map(|r| {
                let (a, b) = (r.pfn.0.max(first), (r.pfn.0 + r.len).min(end));
                (a, b - a)
            })
            .collect()
    }

    /// Takes the pages of a block out, but for those that are no memory, are out already, or never leave. Bit 0 of `out`
    /// is the PFN `base`.
    fn take(&self, out: &mut Excluded, base: u64, block: Block) {
        let mut taken = 0;
        for (mut at, count) in self.runs(block.pfn.0, block.pages) {
            let end = at + count;
            let next = self.guard.partition_point(|g| g.0 < at);
            let kept = self.guard.get(next..).unwrap_or_default().iter().map(|g| g.0).take_while(|g| *g < end);
            for stop in kept.chain([end]) {
                taken += (stop - at) - out.pages.count_range(at - base, stop - at);
                out.pages.set_range(at - base, stop - at);
                out.guarded += u64::from(stop < end);
                at = (stop + 1).min(end);
            }
        }
        if taken > 0 {
            *out.by_class.entry(block.class).or_default() += taken;
        }
    }
}
