//! Which pages are written first, so that a dump that ends early is worth having.

use super::filter::{Excluded, exclude};
use super::level::Level;
use crate::bitmap::Bitmap;
use crate::linux::mm::MemMap;
use crate::linux::{Kernel, vital};
use crate::units::{Pfn, VirtAddr};
use crate::xen::P2m;

/// How soon a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// What readers need to find anything: what was there at boot, page tables, stacks, modules.
    Vital,
    /// Others of the kernel: slabs.
    Kernel,
    /// Struct pages: many, and of use where something else is there already.
    MemoryMap,
    /// Free, of the page cache, or of processes.
    Rest,
}

impl Rank {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Vital, Self::Kernel, Self::MemoryMap, Self::Rest];
}

/// The ranks of all pages, by PFN, in two bits each; where nothing is known of them, all are the kernel's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Those that are vital; with `late`, struct pages.
    vital: Bitmap,
    /// The rest; with `vital`, struct pages.
    late: Bitmap,
}

impl Order {
    /// Ranks the pages of a domain at `level`, of whose pages `excluded` was found: only if that is all that any level leaves
    /// out, struct pages need no second look.
    pub fn new(kernel: &Kernel<'_>, map: &MemMap<'_>, p2m: &P2m, (level, excluded): (Level, &Excluded)) -> Self {
        let bounds = (VirtAddr(kernel.direct_map()), p2m.end());
        if level.drops_all() {
            return Self::of(kernel, map, bounds, excluded.reserved.clone(), Bitmap::new(p2m.end().0));
        }
        let all = exclude(map, p2m, &[], Level::MOST);
        Self::of(kernel, map, bounds, all.reserved, all.pages)
    }

    /// Ranks the pages of a cut that is written once more, as they were in the first one; `bounds` are the start of the direct
    /// map and the end of its pages, `extra` pages that have no PFN of the kernel's.
    pub fn again(kernel: &Kernel<'_>, map: &MemMap<'_>, bounds: (VirtAddr, Pfn), level: Level, extra: &[Pfn]) -> Self {
        let p2m = kernel.p2m();
        let all = exclude(map, p2m, &[], Level::MOST);
        let late = if level.drops_all() { Bitmap::new(p2m.end().0) } else { all.pages };
        let mut order = Self::of(kernel, map, bounds, all.reserved, late);
        extra.iter().for_each(|pfn| order.vital.clear(pfn.0));
        order
    }

    fn of(kernel: &Kernel<'_>, map: &MemMap<'_>, bounds: (VirtAddr, Pfn), mut vital: Bitmap, mut late: Bitmap) -> Self {
        let mut own_map = Bitmap::new(late.len());
        vital::mark(kernel, map, bounds, &mut vital, &mut own_map);
        // What is mapped as well as free or a process's is the kernel's all the same.
        late.subtract(&vital);
        vital.union_at(0, &own_map);
        late.union_at(0, &own_map);
        Self { vital, late }
    }

    /// The rank of a page, and the first page behind it, `end` at most, that may have another one.
    pub fn stretch(&self, pfn: u64, end: u64) -> (Rank, u64) {
        let rank = match (self.vital.get(pfn), self.late.get(pfn)) {
            (true, false) => Rank::Vital,
            (false, false) => Rank::Kernel,
            (true, true) => Rank::MemoryMap,
            (false, true) => Rank::Rest,
        };
        (rank, self.late.stretch(pfn, self.vital.stretch(pfn, end)))
    }

    /// Whether nothing is known.
    pub fn is_flat(&self) -> bool {
        self.vital.is_empty() && self.late.is_empty()
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        (self.vital.len() + self.late.len()) / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_cover_all_pages_once() {
        let mut order = Order { vital: Bitmap::new(100), late: Bitmap::new(200) };
        order.vital.set_range(10, 20);
        order.late.set_range(25, 50);
        order.late.set_range(190, 10);
        let mut at = 0;
        let mut seen = Vec::new();
        while at < 300 {
            let (rank, upto) = order.stretch(at, 300);
            assert!(upto > at);
            seen.push((rank, at, upto));
            at = upto;
        }
        use Rank::{Kernel, MemoryMap, Rest, Vital};
        let expected = [(Kernel, 0, 10), (Vital, 10, 25), (MemoryMap, 25, 30), (Rest, 30, 75), (Kernel, 75, 190)];
        assert_eq!(seen[..5], expected);
        assert_eq!(seen[5..], [(Rest, 190, 200), (Kernel, 200, 300)]);
        assert!(Order::default().is_flat() && Order::default().stretch(7, 9) == (Kernel, 9));
    }
}
