//! An ELF vmcore that is nowhere but here: its bytes are made as they are asked for.

use super::layout::Layout;
use crate::error::Absence;
use crate::pipeline::walk::{CHUNK, Chunk, Piece, Walker, chunks};
use crate::source::ReadAt;
use crate::source::holes::Holes;
use crate::units::{FileOffset, PAGE_BYTES, PAGE_SIZE};
use std::io;
use std::ops::Range;

/// The bytes that an ELF vmcore of a plan has.
#[derive(Debug)]
pub struct View<'w, 'a> {
    walker: &'w Walker<'a>,
    layout: Layout,
    chunks: Vec<Chunk>,
}

impl<'w, 'a> View<'w, 'a> {
    /// A view of these pages in this layout, which was made for their plan.
    pub fn new(walker: &'w Walker<'a>, layout: Layout) -> Self {
        Self { walker, layout, chunks: chunks(walker.plan()).collect() }
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Fills `buf` from a position among the pages on, as far as one stretch and one chunk go; how far that is. The position
    /// is in bytes.
    fn pages(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (page, skip) = (at / PAGE_BYTES, (at % PAGE_BYTES) as usize);
        let stretch = self.layout.at(page).ok_or(io::ErrorKind::UnexpectedEof)?;
        let index = stretch.first + (page - stretch.place);
        let wanted = (skip + buf.len()).div_ceil(PAGE_SIZE) as u64;
        let count = wanted.min(stretch.pages - (page - stretch.place));
        let chunk = self.chunks.get((index / CHUNK) as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        let part = chunk.part(index % CHUNK, count);
        let mut to = Filled { buf, skip, done: 0 };
        let mut lost = None;
        let walked = self.walker.visit(part, |pfn, piece| {
            match piece {
                Piece::Plain(bytes) => to.put(bytes),
                Piece::Altered(page) => to.put(page),
                Piece::Zeros(n) => (0..n).for_each(|_| to.put(&[0; PAGE_SIZE])),
                Piece::Lost(why) => lost = lost.or(Some((pfn, why))),
            }
            Ok(())
        });
        walked.map_err(io::Error::other)?;
        match lost {
            Some((_, Absence::CutOff)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some((pfn, why)) => Err(io::Error::other(format!("PFN {pfn} {why}"))),
            None if to.done == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Ok(to.done),
        }
    }
}

/// A buffer that is filled from pieces, of which the first bytes are not wanted.
struct Filled<'b> {
    buf: &'b mut [u8],
    skip: usize,
    done: usize,
}

impl Filled<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(self.skip.min(bytes.len())..).unwrap_or_default();
        self.skip = 0;
        let room = self.buf.get_mut(self.done..).unwrap_or_default();
        let n = bytes.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..n), bytes.get(..n)) {
            to.copy_from_slice(from);
        }
        self.done += n;
    }
}

impl ReadAt for View<'_, '_> {
    fn len(&self) -> u64 {
        self.layout.bytes
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (at.0, buf);
        let head = &self.layout.head;
        while !rest.is_empty() {
            let n = match head.get(usize::try_from(at).unwrap_or(usize::MAX)..).filter(|h| !h.is_empty()) {
                Some(from) => {
                    let n = from.len().min(rest.len());
                    if let (Some(to), Some(from)) = (rest.get_mut(..n), from.get(..n)) {
                        to.copy_from_slice(from);
                    }
                    n
                }
                None => self.pages(at - head.len() as u64, rest)?,
            };
            rest = rest.get_mut(n..).unwrap_or_default();
            at += n as u64;
        }
        Ok(())
    }

    fn slice(&self, _: FileOffset, _: usize) -> Option<&[u8]> {
        None
    }

    fn holes(&self) -> &Holes {
        Holes::none()
    }

    fn is_far(&self) -> bool {
        self.walker.is_far()
    }

    fn expect(&self, ranges: &[Range<u64>]) {
        let head = self.layout.head.len() as u64;
        for range in ranges {
            let (mut page, end) =
                (range.start.saturating_sub(head) / PAGE_BYTES, range.end.saturating_sub(head).div_ceil(PAGE_BYTES));
            while let Some(stretch) = self.layout.at(page).filter(|_| page < end) {
                let index = stretch.first + (page - stretch.place);
                let room = (stretch.pages - (page - stretch.place)).min(CHUNK - index % CHUNK);
                let count = room.min(end - page);
                let Some(chunk) = self.chunks.get((index / CHUNK) as usize) else { break };
                self.walker.expect(chunk.part(index % CHUNK, count), None);
                page += count;
            }
        }
    }
}
