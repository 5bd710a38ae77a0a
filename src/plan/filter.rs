//! Which of the domain's own pages leave the output, by what the kernel uses them for.

use super::level::Level;
use crate::bitmap::Bitmap;
use crate::linux::mm::scan::{BATCH, Block, Finding};
use crate::linux::mm::{Class, MemMap};
use crate::units::Pfn;
use crate::xen::P2m;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// What leaves, and what stayed for a reason that somebody may want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excluded {
    /// The pages that leave, by PFN.
    pub pages: Bitmap,
    /// Of those that stay, the ones that the kernel has had since boot.
    pub reserved: Bitmap,
    /// How many leave as what.
    pub by_class: BTreeMap<Class, u64>,
    /// Kept: their struct page, or memory section, could not be read.
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
    /// Pages of the domain's memory that the section has.
    memory: u64,
    /// Blocks that reach into later sections, cut at this one's end.
    beyond: Vec<Block>,
}

/// The memory of a section; bits count from its first PFN.
struct Ground {
    /// Its first PFN with memory, and one more than its last; the same if it has none.
    start: u64,
    end: u64,
    /// The domain's memory, but for the guard.
    memory: Bitmap,
    /// The domain's memory that never leaves.
    guard: Bitmap,
}

/// Decides about all pages. `guard` has the PFNs that never leave, in order.
pub fn exclude(map: &MemMap<'_>, p2m: &P2m, guard: &[Pfn], level: Level) -> Excluded {
    let sections: Vec<_> = map.sections.iter().collect();
    let size = 1_u64 << map.sections.shift;
    let parts = sections.par_iter().map(|section| {
        let first = section.number << map.sections.shift;
        let mut out = Excluded { pages: Bitmap::new(size), reserved: Bitmap::new(size), ..Excluded::default() };
        let mut beyond = Vec::new();
        let ground = Ground::new(p2m, guard, first, size);
        let memory = ground.memory.count() + ground.guard.count();
        // Where the section has memory, in whole batches.
        let (start, end) = (ground.start & !(BATCH - 1), ground.end.next_multiple_of(BATCH));
        let range = (Pfn(start.max(first)), Pfn(end.min(first + size)));
        map.scan(
            *section,
            range,
            |class| level.drops(class),
            |finding| match finding {
                Finding::Block(block) => {
                    let inside = block.pages.min(first + size - block.pfn.0);
                    ground.take(&mut out, block.pfn.0 - first, inside, block.class, 0);
                    if inside < block.pages {
                        beyond.push(Block { pfn: Pfn(first + size), pages: block.pages - inside, ..block });
                    }
                }
                Finding::Reserved(pfn) => out.reserved.set(pfn.0 - first),
                Finding::Unreadable(pfn) => out.unreadable += u64::from(ground.has(pfn.0 - first)),
                Finding::Odd(pfn) => out.odd += u64::from(ground.has(pfn.0 - first)),
            },
        );
        Part { first, out, memory, beyond }
    });
    let parts: Vec<Part> = parts.collect();
    let mut all =
        Excluded { pages: Bitmap::new(p2m.end().0), reserved: Bitmap::new(p2m.end().0), ..Excluded::default() };
    // Memory in sections that could not be read.
    all.unreadable = p2m.pages().saturating_sub(parts.iter().map(|p| p.memory).sum());
    let mut beyond = Vec::new();
    for part in parts {
        all.pages.union_at(part.first, &part.out.pages);
        all.reserved.union_at(part.first, &part.out.reserved);
        part.out.by_class.into_iter().for_each(|(class, n)| *all.by_class.entry(class).or_default() += n);
        all.unreadable += part.out.unreadable;
        all.odd += part.out.odd;
        all.guarded += part.out.guarded;
        beyond.extend(part.beyond);
    }
    for block in beyond {
        let end = block.pfn.0 + block.pages;
        for first in (block.pfn.0..end).step_by(size as usize) {
            let ground = Ground::new(p2m, guard, first, size);
            ground.take(&mut all, 0, size.min(end - first), block.class, first);
        }
    }
    all
}

impl Ground {
    fn new(p2m: &P2m, guard: &[Pfn], first: u64, size: u64) -> Self {
        let mut ground = Self { start: first, end: first, memory: Bitmap::new(size), guard: Bitmap::new(size) };
        let runs = p2m.runs();
        let inside = runs.partition_point(|r| r.pfn.0 + r.len <= first);
        for run in runs.get(inside..).unwrap_or_default().iter().take_while(|r| r.pfn.0 < first + size) {
            let (from, to) = (run.pfn.0.max(first), (run.pfn.0 + run.len).min(first + size));
            if ground.start == ground.end {
                ground.start = from;
            }
            ground.end = to;
            ground.memory.set_range(from - first, to - from);
        }
        let from = guard.partition_point(|g| g.0 < first);
        for pfn in guard.get(from..).unwrap_or_default().iter().take_while(|g| g.0 < first + size) {
            if ground.memory.get(pfn.0 - first) {
                ground.memory.clear(pfn.0 - first);
                ground.guard.set(pfn.0 - first);
            }
        }
        ground
    }

    fn has(&self, at: u64) -> bool {
        self.memory.get(at) || self.guard.get(at)
    }

    /// Takes `count` pages from `at` on out, but for those that are no memory, are out already, or never leave. Bit 0 of
    /// this ground is bit `base` of `out`.
    fn take(&self, out: &mut Excluded, at: u64, count: u64, class: Class, base: u64) {
        let end = at + count;
        let (mut next, mut taken) = (at, 0);
        while let Some(start) = self.memory.find(true, next, end) {
            next = self.memory.find(false, start, end).unwrap_or(end);
            taken += (next - start) - out.pages.count_range(base + start, next - start);
            out.pages.set_range(base + start, next - start);
        }
        out.guarded += self.guard.count_range(at, count);
        if taken > 0 {
            *out.by_class.entry(class).or_default() += taken;
        }
    }
}
