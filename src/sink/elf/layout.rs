//! What stands where in an ELF vmcore.

use super::super::Facts;
use crate::pipeline::find::Found;
use crate::plan::Plan;
use crate::units::{PAGE_BYTES, PAGE_SHIFT, Pfn, VirtAddr};
use goblin::elf::header::{ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_CORE, EV_CURRENT};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};
use goblin::elf64::header::{SIZEOF_EHDR, SIZEOF_IDENT};
use goblin::elf64::program_header::SIZEOF_PHDR;
use goblin::elf64::section_header::SIZEOF_SHDR;

const PN_XNUM: u64 = crate::source::elf::PN_XNUM as u64;
/// Zero pages in a row that are worth a PT_LOAD of their own. Fewer are holes within data: readers look PT_LOADs up one
/// by one, so their number matters more than their bytes.
const WORTH_A_HEADER: u64 = 16;

/// A stretch of PFNs: `stored` pages in the file, then zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    pfn: Pfn,
    /// Its first page's position among all pages of the plan.
    first: u64,
    stored: u64,
    pages: u64,
}

/// A range of kernel addresses in which PFNs stand in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The address of PFN 0, whether that is in the window or not.
    pub base: VirtAddr,
    /// First PFN.
    pub first: Pfn,
    /// One more than the last PFN.
    pub end: Pfn,
}

/// A PT_LOAD as its header states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapped {
    base: VirtAddr,
    pfn: Pfn,
    /// Pages of data before it in the file.
    place: u64,
    stored: u64,
    pages: u64,
}

impl Window {
    /// The parts of `loads` in the window.
    fn map(self, loads: &[Load]) -> Vec<Mapped> {
        let mut place = 0;
        let part = |load: &Load| {
            let start = place;
            place += load.stored;
            let first = load.pfn.max(self.first).0;
            let end = (load.pfn.0 + load.pages).min(self.end.0);
            let skip = first.checked_sub(load.pfn.0).filter(|_| first < end)?;
            let stored = load.stored.saturating_sub(skip).min(end - first);
            Some(Mapped {
                base: self.base,
                pfn: Pfn(first),
                place: start + skip.min(load.stored),
                stored,
                pages: end - first,
            })
        };
        loads.iter().filter_map(part).collect()
    }
}

/// The head of a file and where its pages stand.
#[derive(Debug)]
pub struct Layout {
    /// Header, program headers and notes, up to the first page.
    pub head: Vec<u8>,
    /// Where the notes begin in it.
    pub notes_at: u64,
    /// For each PT_LOAD that has data: its first page's position among all pages of the plan, and among those of the file,
    /// and how many there are.
    starts: Vec<Stretch>,
    /// Size of the file.
    pub bytes: u64,
}

/// Pages that stand together in the plan and in the file.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// The first one's position in the plan.
    pub first: u64,
    /// And among the pages of the file.
    pub place: u64,
    /// How many.
    pub pages: u64,
}

impl Layout {
    /// Lays out the pages of `plan` of which `data` tells which are stored, and `lost` which are not to be had, by position
    /// in the plan.
    pub fn new(plan: &Plan<'_>, facts: &Facts, data: &dyn Fn(u64) -> bool, lost: &dyn Fn(u64) -> bool) -> Self {
        let loads = layout(plan, data, lost);
        let mapped: Vec<Mapped> = facts.windows.iter().flat_map(|w| w.map(&loads)).collect();
        let phnum = mapped.len() as u64 + 1;
        let sections = if phnum >= PN_XNUM { SIZEOF_SHDR as u64 } else { 0 };
        let notes_at = SIZEOF_EHDR as u64 + phnum * SIZEOF_PHDR as u64 + sections;
        let notes = &facts.notes.bytes;
        let data_at = (notes_at + notes.len() as u64).next_multiple_of(PAGE_BYTES);
        let mut head = headers(&mapped, notes.len() as u64, notes_at, data_at);
        head.extend(notes);
        head.resize(data_at as usize, 0);
        let mut place = 0;
        let mut starts = Vec::with_capacity(loads.len());
        for load in loads.iter().filter(|l| l.stored > 0) {
            starts.push(Stretch { first: load.first, place, pages: load.stored });
            place += load.stored;
        }
        Self { head, notes_at, starts, bytes: data_at + place * PAGE_BYTES }
    }

    /// All stretches, in order.
    pub fn stretches(&self) -> &[Stretch] {
        &self.starts
    }

    /// The position in the file of the page at a position in the plan, which is stored.
    pub fn place(&self, index: u64) -> u64 {
        let before = self.starts.partition_point(|s| s.first <= index).saturating_sub(1);
        let (first, place) = self.starts.get(before).map(|s| (s.first, s.place)).unwrap_or_default();
        self.head.len() as u64 + (place + (index - first)) * PAGE_BYTES
    }

    /// The size of the file up to the page at a position in the plan.
    pub fn upto(&self, index: u64) -> u64 {
        let before = self.starts.partition_point(|s| s.first < index).checked_sub(1);
        let last = before.and_then(|n| self.starts.get(n));
        let pages = last.map_or(0, |s| s.place + s.pages.min(index - s.first));
        self.head.len() as u64 + pages * PAGE_BYTES
    }

    /// How many pages a reader sees of a file that holds those before a position in the plan: stored ones, and zero ones. Zeros
    /// at the end of a PT_LOAD need no bytes of the file, so they are all there.
    pub fn seen(&self, found: &Found, done: u64, pages: u64) -> (u64, u64) {
        let stored = found.data.count_range(0, done);
        let holes = |s: &Stretch| {
            let first = s.first.max(done);
            let end = (s.first + s.pages).max(first);
            end - first - found.data.count_range(first, end - first)
        };
        let beyond: u64 = self.starts.iter().map(holes).sum();
        let zeros = pages - found.data.count() - found.lost.count();
        (stored, zeros - beyond.min(zeros))
    }

    /// The position in the plan of the first page that a file of so many bytes lacks.
    pub fn done_at(&self, bytes: u64, pages: u64) -> u64 {
        let page = bytes.saturating_sub(self.head.len() as u64) / PAGE_BYTES;
        self.at(page).map_or(pages, |s| s.first + (page - s.place))
    }

    /// The stretch that has the page at a position in the file's data, counted in pages.
    pub fn at(&self, page: u64) -> Option<Stretch> {
        let before = self.starts.partition_point(|s| s.place <= page).checked_sub(1)?;
        self.starts.get(before).filter(|s| page - s.place < s.pages).copied()
    }
}

/// PT_LOADs: pages in a row, until zeros worth a header are followed by data, a PFN is missing, or a page was lost.
fn layout(plan: &Plan<'_>, data: &dyn Fn(u64) -> bool, lost: &dyn Fn(u64) -> bool) -> Vec<Load> {
    let mut loads: Vec<Load> = Vec::new();
    let mut index = 0;
    let solid = plan.layout.is_machine();
    for run in plan.pieces() {
        for i in 0..run.len {
            let pfn = Pfn(run.pfn.0 + i);
            let at = index;
            index += 1;
            if lost(at) {
                continue;
            }
            let has_data = data(at);
            match loads.last_mut() {
                Some(last) if last.pfn.0 + last.pages == pfn.0 && last.first + last.pages == at => {
                    let zeros = last.pages - last.stored;
                    if !has_data && !solid {
                        last.pages += 1;
                        continue;
                    }
                    if solid || zeros < WORTH_A_HEADER {
                        last.pages += 1;
                        last.stored = last.pages;
                        continue;
                    }
                }
                _ => {}
            }
            loads.push(Load { pfn, first: at, stored: u64::from(has_data || solid), pages: 1 });
        }
    }
    loads
}

fn headers(mapped: &[Mapped], size: u64, notes_at: u64, data_at: u64) -> Vec<u8> {
    let phnum = mapped.len() as u64 + 1;
    let extended = phnum >= PN_XNUM;
    let sections_at = SIZEOF_EHDR as u64 + phnum * SIZEOF_PHDR as u64;
    let mut b = Vec::with_capacity(notes_at.min(1 << 30) as usize);
    b.extend(ELFMAG);
    b.extend([ELFCLASS64, ELFDATA2LSB, EV_CURRENT]);
    b.resize(SIZEOF_IDENT, 0);
    let half = |b: &mut Vec<u8>, n: u16| b.extend(n.to_le_bytes());
    half(&mut b, ET_CORE);
    half(&mut b, EM_X86_64);
    b.extend(u32::from(EV_CURRENT).to_le_bytes());
    b.extend(0_u64.to_le_bytes()); // e_entry
    b.extend((SIZEOF_EHDR as u64).to_le_bytes()); // e_phoff
    b.extend(if extended { sections_at } else { 0 }.to_le_bytes()); // e_shoff
    b.extend(0_u32.to_le_bytes()); // e_flags
    half(&mut b, SIZEOF_EHDR as u16);
    half(&mut b, SIZEOF_PHDR as u16);
    half(&mut b, phnum.min(PN_XNUM) as u16);
    half(&mut b, if extended { SIZEOF_SHDR as u16 } else { 0 });
    half(&mut b, u16::from(extended)); // e_shnum
    half(&mut b, 0); // e_shstrndx

    program_header(&mut b, PT_NOTE, 0, [notes_at, 0, 0, size, size]);
    for m in mapped {
        let (offset, paddr) = (data_at + m.place * PAGE_BYTES, m.pfn.0 << PAGE_SHIFT);
        let (stored, all) = (m.stored * PAGE_BYTES, m.pages * PAGE_BYTES);
        program_header(&mut b, PT_LOAD, PF_R | PF_W | PF_X, [offset, m.base.0.wrapping_add(paddr), paddr, stored, all]);
    }
    if extended {
        // Section header 0, of which only sh_info means something.
        let count = u32::try_from(phnum).unwrap_or(u32::MAX);
        let at = b.len();
        b.resize(at + SIZEOF_SHDR, 0);
        if let Some(info) = b.get_mut(at + 44..at + 48) {
            info.copy_from_slice(&count.to_le_bytes());
        }
    }
    b
}

/// `Elf64_Phdr`; `words` are offset, virtual and physical address, size in the file and in memory. Alignment is 0.
fn program_header(b: &mut Vec<u8>, kind: u32, flags: u32, words: [u64; 5]) {
    b.extend(kind.to_le_bytes());
    b.extend(flags.to_le_bytes());
    words.iter().for_each(|w| b.extend(w.to_le_bytes()));
    b.extend(0_u64.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Vmcore;

    #[test]
    fn many_headers_are_counted_in_the_section_header() {
        let load = |n| Mapped { base: VirtAddr(0), pfn: Pfn(2 * n), place: n, stored: 1, pages: 1 };
        for (count, extended) in [(65_533, false), (65_534, true), (70_000, true)] {
            let loads: Vec<Mapped> = (0..count).map(load).collect();
            let phnum = count + 1;
            let end = 64 + phnum * 56 + if extended { 64 } else { 0 };
            let b = headers(&loads, 0, end, end.next_multiple_of(4096));
            assert_eq!(b.len() as u64, end);
            let e_phnum = u16::from_le_bytes([b[56], b[57]]);
            assert_eq!(e_phnum == 0xffff, extended);
            // Our own input side counts them all; it shares nothing with the writer.
            let mut file = b;
            file.resize((end.next_multiple_of(4096) + count * 4096) as usize, 0);
            let ranges = Vmcore::parse(&file).unwrap().take_segments().ranges().count();
            assert_eq!(ranges as u64, count);
        }
    }

    #[test]
    fn a_window_shows_its_part_of_each_load() {
        let load = |pfn, first, stored, pages| Load { pfn: Pfn(pfn), first, stored, pages };
        let loads = [load(0, 0, 4, 6), load(10, 6, 2, 10), load(30, 16, 5, 5)];
        let window = Window { base: VirtAddr(0), first: Pfn(2), end: Pfn(32) };
        let parts: Vec<_> = window.map(&loads).iter().map(|m| (m.pfn.0, m.place, m.stored, m.pages)).collect();
        assert_eq!(parts, [(2, 2, 2, 4), (10, 4, 2, 10), (30, 6, 2, 2)]);
        let window = Window { base: VirtAddr(0), first: Pfn(13), end: Pfn(15) };
        let parts: Vec<_> = window.map(&loads).iter().map(|m| (m.pfn.0, m.place, m.stored, m.pages)).collect();
        assert_eq!(parts, [(13, 6, 0, 2)]);
    }
}
