//! Chunks of the plan, and the pages of a chunk as the output has them.

use crate::error::{Absence, Error, Result};
use crate::plan::Plan;
use crate::plan::order::Rank;
use crate::plan::pieces::Spot;
use crate::source::MachineMemory;
use crate::source::machine::Run as Bytes;
use crate::units::{FileOffset, Mfn, PAGE_SIZE, Page, Pfn};
use crate::xen::frame_table::Cursor;
use crate::xen::{FrameTable, Host};
use std::fs::File;
use std::sync::Mutex;

/// Pages that one task handles: 1 MiB, what storage likes to be read in.
pub const CHUNK: u64 = 256;

/// A part of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins, or before that.
    from: Spot,
    /// Pages from there to its first.
    skip: u64,
    /// Its pages.
    pub pages: u64,
    /// Pages of the plan before it.
    pub first: u64,
}

impl Chunk {
    /// A part of it: `pages` at most, from its page `skip` on.
    pub fn part(self, skip: u64, pages: u64) -> Self {
        let skip = skip.min(self.pages);
        Self { skip: self.skip + skip, first: self.first + skip, pages: pages.min(self.pages - skip), ..self }
    }
}

/// Cuts the plan into chunks, without a list of them.
pub fn chunks<'p>(plan: &'p Plan<'_>) -> impl Iterator<Item = Chunk> + 'p {
    let (mut pieces, mut first) = (plan.pieces(), 0);
    std::iter::from_fn(move || {
        let (from, mut pages) = (pieces.spot(), 0);
        while pages < CHUNK
            && let Some(piece) = pieces.next()
        {
            let taken = piece.len.min(CHUNK - pages);
            pieces.give_back(piece.len - taken);
            pages += taken;
        }
        first += pages;
        (pages > 0).then_some(Chunk { from, skip: 0, pages, first: first - pages })
    })
}

/// Pages of the output, in order of PFN.
#[derive(Debug)]
pub enum Piece<'b> {
    /// Pages as the machine had them; a whole number of them.
    Plain(&'b [u8]),
    /// A page that was rewritten.
    Altered(&'b Page),
    /// So many pages that are zero, known without reading.
    Zeros(u64),
    /// A page that could not be read after all.
    Lost(Absence),
}

/// Pages of one rank, and between them others.
#[derive(Debug)]
pub enum Ranked<'b> {
    /// Such pages, with the PFN of the first.
    Piece(Pfn, Piece<'b>),
    /// So many pages of other ranks, which were not read.
    Other(u64),
}

/// What a worker needs again and again.
#[derive(Debug)]
pub struct Worker<'a> {
    buffer: Vec<u8>,
    page: Box<Page>,
    frames: Option<Cursor<'a>>,
}

/// Walks chunks of a plan.
#[derive(Debug)]
pub struct Walker<'a> {
    plan: &'a Plan<'a>,
    mem: &'a MachineMemory<'a>,
    frames: Option<&'a FrameTable<'a>>,
    idle: Mutex<Vec<Worker<'a>>>,
}

impl<'a> Walker<'a> {
    /// A walker over `plan`, which was made for this host.
    pub fn new(host: &'a Host<'a>, plan: &'a Plan<'a>) -> Self {
        Self { plan, mem: host.memory(), frames: Some(&host.frames), idle: Mutex::new(Vec::new()) }
    }

    /// A walker over a plan that alters nothing, for memory without Xen.
    pub fn unaltered(mem: &'a MachineMemory<'a>, plan: &'a Plan<'a>) -> Self {
        Self { plan, mem, frames: None, idle: Mutex::new(Vec::new()) }
    }

    /// The plan.
    pub fn plan(&self) -> &'a Plan<'a> {
        self.plan
    }

    /// The first page of a chunk of it.
    pub fn first_pfn(&self, chunk: Chunk) -> Pfn {
        let mut skip = chunk.skip;
        let mut pieces = self.plan.pieces_from(chunk.from);
        let first = pieces.find_map(|p| match skip.checked_sub(p.len) {
            Some(rest) => {
                skip = rest;
                None
            }
            None => Some(Pfn(p.pfn.0 + skip)),
        });
        first.unwrap_or(self.plan.end())
    }

    /// The chunks of the plan, as [`chunks`], for those who visit them soon and in this order, or only their pages of a rank.
    /// Storage that is far away is told of each chunk when it is taken.
    pub fn chunks(&self, rank: Option<Rank>) -> impl Iterator<Item = Chunk> {
        chunks(self.plan).inspect(move |chunk| self.expect(*chunk, rank))
    }

    /// The file that a plain piece's bytes are mapped from, and where they stand in it.
    pub fn behind(&self, bytes: &[u8]) -> Option<(&File, FileOffset)> {
        self.mem.source().behind(bytes)
    }

    /// Whether its pages are read from far away.
    pub fn is_far(&self) -> bool {
        self.mem.source().is_far()
    }

    /// Tells storage that is far away of a chunk that will be visited soon.
    pub fn expect(&self, chunk: Chunk, rank: Option<Rank>) {
        if !self.is_far() {
            return;
        }
        let (mut left, mut skip, mut runs) = (chunk.pages, chunk.skip, Vec::new());
        for piece in self.plan.pieces_from(chunk.from) {
            let before = skip.min(piece.len);
            skip -= before;
            let (first, len) = (piece.pfn.0 + before, left.min(piece.len - before));
            let mut pfn = first;
            while pfn < first + len {
                let (is_it, upto) = match rank {
                    None => (true, first + len),
                    Some(rank) => {
                        let (found, upto) = self.plan.order.stretch(pfn, first + len);
                        (found == rank, upto)
                    }
                };
                if is_it {
                    runs.push((Mfn(piece.mfn.0 + (pfn - piece.pfn.0)), upto - pfn));
                }
                pfn = upto;
            }
            left -= len;
            if left == 0 {
                break;
            }
        }
        self.mem.expect(runs.into_iter());
    }

    /// Hands each piece of the chunk to `each`, with its PFN.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn visit(&self, chunk: Chunk, mut each: impl FnMut(Pfn, Piece<'_>) -> Result<()>) -> Result<()> {
        self.visit_ranked(chunk, None, |piece| match piece {
            Ranked::Piece(pfn, piece) => each(pfn, piece),
            Ranked::Other(_) => Ok(()),
        })
    }

    /// The same of pages of one rank only.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn visit_ranked(
        &self,
        chunk: Chunk,
        rank: Option<Rank>,
        mut each: impl FnMut(Ranked<'_>) -> Result<()>,
    ) -> Result<()> {
        let idle = self.idle.lock().map_err(|_| Error::Usage("a worker stopped".into()))?.pop();
        let mut worker = idle.unwrap_or_else(|| Worker {
            buffer: Vec::new(),
            page: Box::new([0; PAGE_SIZE]),
            frames: self.frames.map(FrameTable::cursor),
        });
        let done = self.walk(&mut worker, chunk, rank, &mut each);
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(worker);
        }
        done
    }

    fn walk(
        &self,
        worker: &mut Worker<'a>,
        chunk: Chunk,
        rank: Option<Rank>,
        each: &mut impl FnMut(Ranked<'_>) -> Result<()>,
    ) -> Result<()> {
        let (mut left, mut skip) = (chunk.pages, chunk.skip);
        for piece in self.plan.pieces_from(chunk.from) {
            let before = skip.min(piece.len);
            skip -= before;
            let (mut pfn, mut mfn) = (Pfn(piece.pfn.0 + before), Mfn(piece.mfn.0 + before));
            let len = left.min(piece.len - before);
            let end = pfn.0 + len;
            while pfn.0 < end {
                let mut end = end;
                if let Some(rank) = rank {
                    let (found, upto) = self.plan.order.stretch(pfn.0, end);
                    if found != rank {
                        let n = upto - pfn.0;
                        each(Ranked::Other(n))?;
                        (pfn, mfn) = (Pfn(pfn.0 + n), Mfn(mfn.0 + n));
                        continue;
                    }
                    end = upto;
                }
                let upto = self.plan.next_altered(pfn).map_or(end, |p| p.0.min(end));
                let n = if upto > pfn.0 {
                    self.plain(worker, pfn, mfn, upto - pfn.0, each)?
                } else {
                    self.altered(worker, pfn, mfn, each)?;
                    1
                };
                (pfn, mfn) = (Pfn(pfn.0 + n), Mfn(mfn.0 + n));
            }
            left -= len;
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    fn plain(
        &self,
        worker: &mut Worker<'a>,
        pfn: Pfn,
        mfn: Mfn,
        count: u64,
        each: &mut impl FnMut(Ranked<'_>) -> Result<()>,
    ) -> Result<u64> {
        match self.mem.run(mfn, count as usize, &mut worker.buffer) {
            Ok((bytes, n)) => {
                let piece = match bytes {
                    Bytes::Bytes(b) => Piece::Plain(b),
                    Bytes::Zeros => Piece::Zeros(n as u64),
                };
                each(Ranked::Piece(pfn, piece))?;
                Ok(n as u64)
            }
            Err(why) => self.lost(pfn, why, each).map(|()| 1),
        }
    }

    fn altered(
        &self,
        worker: &mut Worker<'a>,
        pfn: Pfn,
        mfn: Mfn,
        each: &mut impl FnMut(Ranked<'_>) -> Result<()>,
    ) -> Result<()> {
        let read = mfn.addr().ok_or(Absence::NotInDump).and_then(|a| self.mem.read(a, &mut worker.page[..]));
        match read {
            Ok(()) => {
                self.plan.alter(worker.frames.as_mut(), pfn, &mut worker.page);
                each(Ranked::Piece(pfn, Piece::Altered(&worker.page)))
            }
            Err(why) => self.lost(pfn, why, each),
        }
    }

    /// A page that the dump does not have. One that its storage does not give is another matter.
    fn lost(&self, pfn: Pfn, why: Absence, each: &mut impl FnMut(Ranked<'_>) -> Result<()>) -> Result<()> {
        self.mem.history().came_through()?;
        each(Ranked::Piece(pfn, Piece::Lost(why)))
    }
}
