//! Compressing the pages of a chunk.

use crate::error::{Absence, Error, Result};
use crate::pipeline::codec::{Codec, Compressor};
use crate::pipeline::digest::Leaves;
use crate::pipeline::walk::{CHUNK, Chunk, Piece, Ranked, Walker};
use crate::plan::order::Rank;
use crate::units::{PAGE_SIZE, Pfn};
use crate::zero::one_word;
use std::sync::Mutex;

/// A worker's result: data, and for each page where in it and how.
pub(super) struct Packed {
    /// Position of the first of them in the plan.
    pub(super) first: u64,
    pub(super) data: Vec<u8>,
    pub(super) pages: Vec<Stored>,
    pub(super) leaves: Leaves,
}

#[derive(Clone, Copy)]
pub(super) enum Stored {
    /// Not of the rank that is written now.
    Other,
    Zero,
    /// One word of eight bytes over and over.
    Word(u64),
    Lost(Absence),
    Data {
        size: u32,
        compressed: bool,
    },
}

impl Packed {
    /// Room for a chunk. Of its memory only what is used is ever taken.
    fn new() -> Self {
        let (data, pages) = (Vec::with_capacity(CHUNK as usize * PAGE_SIZE), Vec::with_capacity(CHUNK as usize));
        Self { first: 0, data, pages, leaves: Leaves::default() }
    }

    fn cleared(mut self, first: u64) -> Self {
        self.first = first;
        self.data.clear();
        self.pages.clear();
        self.leaves.clear();
        self
    }
}

/// Packs chunks, from many threads.
pub(super) struct Packer<'w, 'a> {
    walker: &'w Walker<'a>,
    codec: Codec,
    digest: bool,
    idle: Mutex<Vec<Compressor>>,
    /// Results that were written: what they take is asked of the system once, and stays in the processor's cache.
    spent: Mutex<Vec<Packed>>,
}

impl<'w, 'a> Packer<'w, 'a> {
    pub(super) fn new(walker: &'w Walker<'a>, codec: Codec, digest: bool) -> Self {
        Self { walker, codec, digest, idle: Mutex::default(), spent: Mutex::default() }
    }

    /// Takes back what was written, to be filled again.
    pub(super) fn reuse(&self, packed: Packed) {
        if let Ok(mut spent) = self.spent.lock() {
            spent.push(packed);
        }
    }

    pub(super) fn pack(&self, chunk: Chunk, rank: Option<Rank>) -> Result<Packed> {
        let stopped = |_| Error::Usage("a worker stopped".into());
        let reused = self.idle.lock().map_err(|_| stopped(()))?.pop();
        let mut compressor = reused.map_or_else(|| self.codec.compressor(), Ok)?;
        let spent = self.spent.lock().map_err(|_| stopped(()))?.pop();
        let mut packed = spent.unwrap_or_else(Packed::new).cleared(chunk.first);
        let drop_zero = self.walker.plan().level.drops_zeros();
        self.walker.visit_ranked(chunk, rank, |piece| {
            let (pfn, piece) = match piece {
                Ranked::Piece(pfn, piece) => (pfn, piece),
                Ranked::Other(n) => {
                    packed.pages.extend((0..n).map(|_| Stored::Other));
                    return Ok(());
                }
            };
            let mut next = pfn;
            let mut store = |page: &[u8]| {
                if self.digest {
                    packed.leaves.push(next, page);
                }
                next = Pfn(next.0 + 1);
                packed.pages.push(match one_word(page) {
                    Some(0) if drop_zero => Stored::Zero,
                    Some(word) => Stored::Word(word),
                    None => {
                        let before = packed.data.len();
                        let compressed = compressor.append(page, &mut packed.data);
                        Stored::Data { size: (packed.data.len() - before) as u32, compressed }
                    }
                });
            };
            match piece {
                Piece::Plain(bytes) => bytes.chunks_exact(PAGE_SIZE).for_each(store),
                Piece::Altered(page) => store(page),
                Piece::Zeros(n) if drop_zero && !self.digest => packed.pages.extend((0..n).map(|_| Stored::Zero)),
                Piece::Zeros(n) => (0..n).for_each(|_| store(&[0; PAGE_SIZE])),
                Piece::Lost(why) => packed.pages.push(Stored::Lost(why)),
            }
            Ok(())
        })?;
        self.idle.lock().map_err(|_| stopped(()))?.push(compressor);
        Ok(packed)
    }
}
