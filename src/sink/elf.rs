//! The ELF64 vmcore, in the shape of QEMU's dump-guest-memory, which every reader knows.
//!
//! Header, one PT_NOTE, PT_LOADs by pseudo-physical address, notes, page data. The kernel's image has PT_LOADs for its own
//! addresses besides, with the same data, so that gdb finds the variables of a vmlinux. `p_align` is 0: with any other value
//! crash takes the file for a netdump and dies on QEMU's notes. `p_vaddr` is the address in the kernel's direct map, or image.
//! Zero pages at the end of a PT_LOAD are `p_memsz` beyond `p_filesz`; ones in the middle of data are holes of the
//! file; in the machine layout all are, since makedumpfile takes what is beyond `p_filesz` for excluded. More than 65,534
//! headers are counted in section header 0 (PN_XNUM). Pages that the dump level leaves out are in no PT_LOAD, so their
//! number, and the memory for them (about 140 bytes each), grows with how scattered these pages are.

use super::notes::NoteBlob;
use super::{Output, Written};
use crate::bitmap::Bitmap;
use crate::error::{Absence, Error, Result};
use crate::pipeline::Progress;
use crate::pipeline::walk::{CHUNK, Chunk, Piece, Walker, chunks};
use crate::units::{PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE, Pfn, VirtAddr};
use crate::zero::is_zero;
use goblin::elf::header::{ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_CORE, EV_CURRENT};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};
use goblin::elf64::header::{SIZEOF_EHDR, SIZEOF_IDENT};
use goblin::elf64::program_header::SIZEOF_PHDR;
use goblin::elf64::section_header::SIZEOF_SHDR;
use rayon::prelude::*;
use std::collections::BTreeMap;

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

/// Writes the dump. `windows` are the address ranges of the kernel in which pages stand: the direct map first, which has
/// all of them, then its image.
///
/// # Errors
/// [`crate::Error::Write`].
pub fn write(
    walker: &Walker<'_>,
    notes: &NoteBlob,
    windows: &[Window],
    out: &Output,
    pool: &rayon::ThreadPool,
    progress: &dyn Progress,
) -> Result<Written> {
    let plan = walker.plan();
    let Found { mut data, lost, reasons } = pool.install(|| find_data(walker, progress))?;
    let kept = data.count();
    let loads = layout(plan, &data, &lost);
    if !out.is_new() {
        // What stood on a device before must not show through the holes.
        loads.iter().for_each(|l| data.set_range(l.first, l.stored));
    }
    let mapped: Vec<Mapped> = windows.iter().flat_map(|w| w.map(&loads)).collect();
    let phnum = mapped.len() as u64 + 1;
    let extended = phnum >= PN_XNUM;
    let notes_at = SIZEOF_EHDR as u64 + phnum * SIZEOF_PHDR as u64 + if extended { SIZEOF_SHDR as u64 } else { 0 };
    let data_at = (notes_at + notes.bytes.len() as u64).next_multiple_of(PAGE_BYTES);
    let stored: u64 = loads.iter().map(|l| l.stored).sum();
    let bytes = data_at + stored * PAGE_BYTES;
    out.set_len(bytes)?;
    out.write_at(&headers(&mapped, notes, notes_at, data_at), 0)?;
    out.write_at(&notes.bytes, notes_at)?;

    // Where each PT_LOAD's data begins, in pages, to find a chunk's place.
    let mut starts = Vec::with_capacity(loads.len());
    let mut at = 0;
    for load in &loads {
        starts.push((load.first, at));
        at += load.stored;
    }
    let place = |index: u64| {
        let (first, at) =
            starts.get(starts.partition_point(|s| s.0 <= index).saturating_sub(1)).copied().unwrap_or_default();
        data_at + (at + (index - first)) * PAGE_BYTES
    };
    progress.stage("writing pages", Some(plan.pages()));
    let all: Vec<Chunk> = chunks(plan).collect();
    pool.install(|| {
        all.par_iter().try_for_each(|chunk| {
            write_chunk(walker, *chunk, &data, &place, out)?;
            progress.advance(chunk.pages);
            Ok(())
        })
    })?;
    Ok(Written { stored: kept, zero: plan.pages() - kept - lost.count(), lost: reasons, bytes })
}

/// A bit for each page of a chunk.
type Bits = [u64; (CHUNK / 64) as usize];

fn set(bits: &mut Bits, at: u64, count: u64) {
    for n in at..at + count {
        if let Some(word) = bits.get_mut((n / 64) as usize) {
            *word |= 1 << (n % 64);
        }
    }
}

/// Pages by position in the plan.
struct Found {
    /// Those that are stored.
    data: Bitmap,
    /// Those that cannot be read.
    lost: Bitmap,
    /// Why, and how many.
    reasons: BTreeMap<Absence, u64>,
}

/// The first pass: which pages are not zero, and which cannot be read, by position in the plan.
fn find_data(walker: &Walker<'_>, progress: &dyn Progress) -> Result<Found> {
    let plan = walker.plan();
    progress.stage("finding zero pages", Some(plan.pages()));
    let all: Vec<Chunk> = chunks(plan).collect();
    let examine = |chunk: &Chunk| {
        let (mut data, mut lost, mut reasons): (Bits, Bits, BTreeMap<Absence, u64>) = Default::default();
        let mut at = 0;
        walker.visit(*chunk, |_, piece| {
            let mut page = |page: &[u8]| {
                set(&mut data, at, u64::from(!(plan.level.drops_zeros() && is_zero(page))));
                at += 1;
            };
            match piece {
                Piece::Plain(bytes) => bytes.chunks_exact(PAGE_SIZE).for_each(page),
                Piece::Altered(bytes) => page(bytes),
                Piece::Zeros(n) => {
                    set(&mut data, at, if plan.level.drops_zeros() { 0 } else { n });
                    at += n;
                }
                Piece::Lost(why) => {
                    *reasons.entry(why).or_default() += 1;
                    set(&mut lost, at, 1);
                    at += 1;
                }
            }
            Ok(())
        })?;
        progress.advance(chunk.pages);
        Ok((data, lost, reasons))
    };
    let parts: Vec<(Bits, Bits, BTreeMap<Absence, u64>)> = all.par_iter().map(examine).collect::<Result<_>>()?;
    let (mut data, mut lost) = (Vec::new(), Vec::new());
    let mut reasons = BTreeMap::new();
    for (stored, missing, why) in parts {
        data.extend(stored);
        lost.extend(missing);
        why.into_iter().for_each(|(why, n)| *reasons.entry(why).or_default() += n);
    }
    let bitmap = |words| Bitmap::from_words(words, plan.pages());
    Ok(Found { data: bitmap(data), lost: bitmap(lost), reasons })
}

/// PT_LOADs: pages in a row, until zeros worth a header are followed by data, a PFN is missing, or a page was lost.
fn layout(plan: &crate::plan::Plan<'_>, data: &Bitmap, lost: &Bitmap) -> Vec<Load> {
    let mut loads: Vec<Load> = Vec::new();
    let mut index = 0;
    let solid = plan.layout.is_machine();
    for run in plan.pieces() {
        for i in 0..run.len {
            let pfn = Pfn(run.pfn.0 + i);
            let at = index;
            index += 1;
            if lost.get(at) {
                continue;
            }
            let has_data = data.get(at);
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

/// Writes the pages of a chunk that hold data.
fn write_chunk(
    walker: &Walker<'_>,
    chunk: Chunk,
    data: &Bitmap,
    place: &impl Fn(u64) -> u64,
    out: &Output,
) -> Result<()> {
    let mut index = chunk.first;
    walker.visit(chunk, |pfn, piece| {
        match piece {
            Piece::Plain(bytes) => {
                // As much as lies together, in the input and in the output, in one write.
                let pages = (bytes.len() / PAGE_SIZE) as u64;
                let mut n = 0;
                while n < pages {
                    if !data.get(index + n) {
                        n += 1;
                        continue;
                    }
                    let start = n;
                    let at = place(index + start);
                    while n < pages && data.get(index + n) && place(index + n) == at + (n - start) * PAGE_BYTES {
                        n += 1;
                    }
                    let part = bytes.get(start as usize * PAGE_SIZE..n as usize * PAGE_SIZE).unwrap_or_default();
                    out.write_at(part, at)?;
                }
                index += pages;
            }
            Piece::Altered(page) => {
                if data.get(index) {
                    out.write_at(page, place(index))?;
                }
                index += 1;
            }
            Piece::Zeros(n) => {
                let stored = (0..n).filter(|i| data.get(index + i));
                stored.map(|i| place(index + i)).try_for_each(|at| out.write_at(&[0; PAGE_SIZE], at))?;
                index += n;
            }
            Piece::Lost(why) if data.get(index) => {
                // It could be read before, and its place in the file would read as zeros.
                return Err(Error::read(format!("PFN {pfn} a second time"), std::io::Error::other(why.to_string())));
            }
            Piece::Lost(_) => index += 1,
        }
        Ok(())
    })
}

fn headers(mapped: &[Mapped], notes: &NoteBlob, notes_at: u64, data_at: u64) -> Vec<u8> {
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

    let size = notes.bytes.len() as u64;
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
            let b = headers(&loads, &NoteBlob::default(), end, end.next_multiple_of(4096));
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
