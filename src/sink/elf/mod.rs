//! The ELF64 vmcore, in the shape of QEMU's dump-guest-memory, which every reader knows.
//!
//! Header, one PT_NOTE, PT_LOADs by pseudo-physical address, notes, page data. The kernel's image has PT_LOADs for its own
//! addresses besides, with the same data, so that gdb finds the variables of a vmlinux. `p_align` is 0: with any other value
//! crash takes the file for a netdump and dies on QEMU's notes. `p_vaddr` is the address in the kernel's direct map, or image.
//! Zero pages at the end of a PT_LOAD are `p_memsz` beyond `p_filesz`; ones in the middle of data are holes of the
//! file; in the machine layout all are, since makedumpfile takes what is beyond `p_filesz` for excluded. More than 65,534
//! headers are counted in section header 0 (PN_XNUM). Pages that the dump level leaves out are in no PT_LOAD, so their
//! number, and the memory for them (about 140 bytes each), grows with how scattered these pages are.

mod layout;
mod view;

pub use layout::{Layout, Window};
pub use view::View;

use super::{Facts, Mode, Output, Written};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::pipeline::crew::Crew;
use crate::pipeline::digest::HEX_DIGITS;
use crate::pipeline::find::{Found, find_data};
use crate::pipeline::ordered::ordered;
use crate::pipeline::walk::{Chunk, Piece, Walker};
use crate::pipeline::{Progress, advance};
use crate::source::ReadAt;
use crate::units::{FileOffset, PAGE_BYTES, PAGE_SIZE};

/// Of e_flags: the file ends early (makedumpfile: DUMP_ELF_INCOMPLETE).
const INCOMPLETE: u8 = 1;
/// Where e_flags is.
const E_FLAGS: u64 = 48;
/// Bytes of a stream that are made at once.
const PART: u64 = 1 << 20;

/// Writes the dump.
///
/// # Errors
/// [`Error::Write`], but for a full disk.
pub fn write(
    walker: &Walker<'_>,
    facts: &Facts,
    out: &Output,
    crew: &Crew,
    progress: &dyn Progress,
) -> Result<Written> {
    let plan = walker.plan();
    let found = find_data(walker, facts.notes.digest.is_some(), crew, progress)?;
    let layout = lay_out(walker, facts, &found);
    let written = Written { bytes: layout.bytes, ..Written::all(plan, &found) };
    progress.stage("writing pages", Some(plan.pages()));
    if out.mode() != Mode::Positions {
        stream(walker, layout, out, crew, progress)?;
        return Ok(written);
    }
    let mut data = found.data.clone();
    if !out.is_new() {
        // What stood on a device before must not show through the holes.
        layout.stretches().iter().for_each(|s| data.set_range(s.first, s.pages));
    }
    out.write_at(&layout.head, 0)?;
    // Incomplete until it is complete.
    out.write_at(&[INCOMPLETE], E_FLAGS)?;
    let mut done = 0;
    let result = ordered(
        crew,
        walker.chunks(None),
        |chunk| write_chunk(walker, chunk, &data, &layout, out).map(|()| chunk.pages),
        |pages| {
            done += pages;
            advance(progress, pages)
        },
    );
    match result {
        Err(e) if e.ends_early() && !out.is_new() => {
            // What stood on the device before must not be taken for pages.
            out.write_at(&[0; E_FLAGS as usize], 0)?;
            Err(e)
        }
        Err(e) if e.ends_early() => {
            // What is behind the first page that could not be written is not all there.
            let bytes = layout.upto(done);
            out.set_len(bytes)?;
            if let Some(at) = facts.notes.digest {
                out.write_at(&[b'0'; HEX_DIGITS], layout.notes_at + at as u64)?;
            }
            let (stored, zero) = layout.seen(&found, done, plan.pages());
            Ok(Written { stored, zero, bytes, digest: None, incomplete: Some(e.to_string()), ..written })
        }
        other => {
            other?;
            out.write_at(&[0], E_FLAGS)?;
            out.set_len(layout.bytes)?;
            Ok(written)
        }
    }
}

/// The layout of a file with the pages that were found.
pub(super) fn lay_out(walker: &Walker<'_>, facts: &Facts, found: &Found) -> Layout {
    let mut layout = Layout::new(walker.plan(), facts, &|n| found.data.get(n), &|n| found.lost.get(n));
    if let (Some(digest), Some(at)) = (&found.digest, facts.notes.digest) {
        let at = layout.notes_at as usize + at;
        if let Some(place) = layout.head.get_mut(at..at + digest.len()) {
            place.copy_from_slice(digest.as_bytes());
        }
    }
    layout
}

/// Writes the file from its start to its end.
fn stream(walker: &Walker<'_>, layout: Layout, out: &Output, crew: &Crew, progress: &dyn Progress) -> Result<()> {
    let (pages, view) = (walker.plan().pages(), View::new(walker, layout));
    let parts = view.len().div_ceil(PART);
    let read = |n: u64| {
        let at = n * PART;
        let mut bytes = vec![0; PART.min(view.len() - at) as usize];
        view.read_exact_at(FileOffset(at), &mut bytes).map_err(|e| Error::read("a page a second time", e))?;
        Ok((at, bytes))
    };
    let mut told = 0;
    ordered(crew, 0..parts, read, |(at, bytes): (u64, Vec<u8>)| {
        let upto = ((u128::from(at / PART + 1) * u128::from(pages)) / u128::from(parts)) as u64;
        let more = upto.saturating_sub(std::mem::replace(&mut told, upto));
        out.write_at(&bytes, at)?;
        advance(progress, more)
    })
}

/// Writes the pages of a chunk that hold data.
fn write_chunk(walker: &Walker<'_>, chunk: Chunk, data: &Bitmap, layout: &Layout, out: &Output) -> Result<()> {
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
                    let at = layout.place(index + start);
                    while n < pages && data.get(index + n) && layout.place(index + n) == at + (n - start) * PAGE_BYTES {
                        n += 1;
                    }
                    let part = bytes.get(start as usize * PAGE_SIZE..n as usize * PAGE_SIZE).unwrap_or_default();
                    match walker.behind(part) {
                        Some((file, from)) => out.copy_at(file, from, part, at)?,
                        None => out.write_at(part, at)?,
                    }
                }
                index += pages;
            }
            Piece::Altered(page) => {
                if data.get(index) {
                    out.write_at(page, layout.place(index))?;
                }
                index += 1;
            }
            Piece::Zeros(n) => {
                let stored = (0..n).filter(|i| data.get(index + i));
                stored.map(|i| layout.place(index + i)).try_for_each(|at| out.write_at(&[0; PAGE_SIZE], at))?;
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
