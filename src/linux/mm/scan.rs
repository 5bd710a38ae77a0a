//! From struct pages to the pages of a section that can be left out.

use super::page::{StructPage, Verdict};
use super::sections::Section;
use super::{Class, MemMap};
use crate::units::Pfn;

/// Struct pages that are read at a time; compound heads are aligned, so none is parted from the next one.
pub const BATCH: u64 = 512;

/// Pages in a row that the kernel uses for one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first.
    pub pfn: Pfn,
    /// How many, at least 1.
    pub pages: u64,
    /// What for.
    pub class: Class,
}

/// What a struct page, or the lack of one, says of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// They can be left out at a level that asks for it.
    Block(Block),
    /// This one has been the kernel's since boot.
    Reserved(Pfn),
    /// This one's struct page cannot be read.
    Unreadable(Pfn),
    /// This one's struct page makes no sense.
    Odd(Pfn),
}

impl MemMap<'_> {
    /// Looks at the struct pages of a section's PFNs from `first` to before `end`, and tells what can be left out, in
    /// order of PFN. `drop` says which classes are asked for: a page of another one may still have bad memory. A block may
    /// reach beyond `end`.
    pub fn scan(
        &self,
        section: Section,
        (first, end): (Pfn, Pfn),
        drop: impl Fn(Class) -> bool,
        mut each: impl FnMut(Finding),
    ) {
        let size = self.layout.size;
        let mut bytes = Vec::new();
        let mut next = first.0;
        // The end of a compound page that stays. From 5.18 to 7.0 a hugetlb page repeats its head's struct page in its tails'
        // place: what that says of bad memory is said of the head only.
        let mut inside = 0;
        while next < end.0 {
            let (start, upto) = (next, ((next / BATCH + 1) * BATCH).min(end.0));
            bytes.resize((upto - start) as usize * size, 0);
            let readable = self.load(section, Pfn(start), &mut bytes);
            while next < upto {
                let (pfn, at) = (Pfn(next), (next - start) as usize * size);
                next += 1;
                if !readable.covers(at, at + size) {
                    each(Finding::Unreadable(pfn));
                    continue;
                }
                let Some(page) = bytes.get(at..).and_then(|b| StructPage::new(&self.layout, b)) else { continue };
                let verdict = page.verdict(pfn);
                match verdict {
                    Verdict::Block(class, pages) if drop(class) => {
                        each(Finding::Block(Block { pfn, pages, class }));
                        next = pfn.0 + pages;
                    }
                    _ if page.is_poisoned() && drop(Class::HwPoison) && !(page.is_head() && pfn.0 < inside) => {
                        each(Finding::Block(Block { pfn, pages: 1, class: Class::HwPoison }));
                    }
                    Verdict::Odd => each(Finding::Odd(pfn)),
                    Verdict::Kept if page.is_reserved() => each(Finding::Reserved(pfn)),
                    Verdict::Block(..) | Verdict::Kept | Verdict::Tail => {}
                }
                if let Verdict::Block(_, pages) = verdict {
                    inside = inside.max(pfn.0 + pages);
                }
            }
        }
    }
}
