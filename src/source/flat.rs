//! makedumpfile's flattened format (`-F`): a file as a stream of records that say where they belong.
//!
//! 4096 bytes of header: `makedumpfile` and NULs to 16, type `i64` 1, version `i64` 1; then records of offset `i64`, size
//! `i64`, data; at the end offset and size -1. All numbers are big-endian (makedumpfile 1.7: `makedumpfile_header`,
//! `makedumpfile_data_header`). Records may overlap: the later one wins. A stream that can be read anywhere is read in
//! place, by an index of its records; nothing is copied.
//!
//! What makedumpfile and QEMU leave out is padding alone, before the sub-header and before the bitmaps of kdump's format.
//! Any other place that no record is for was lost with its record, and is no zero.

mod index;
mod layout;
mod rearrange;
mod record;

pub(super) use index::{Index, TAIL};
pub(super) use layout::headers_lost;
pub(super) use rearrange::Rearranger;
pub(super) use record::{Judge, RECORD_HEADER, Step};

use super::OpenOptions;
use super::holes::Holes;
use super::storage::{History, ReadAt, apart};
use super::unpack::Packed;
use crate::error::Result;
use crate::units::FileOffset;
use index::Found;
use std::io;
use std::ops::Range;

/// The first bytes of the format.
pub(super) const MAGIC: &[u8; 16] = b"makedumpfile\0\0\0\0";
/// What a file that came as one is called.
pub(super) const LAYER: &str = "flattened";
/// Where records begin.
pub(super) const RECORDS: u64 = 4096;

impl Index {
    /// Reads the headers of all records; says whether there was room for them.
    fn scan(&mut self, stream: &dyn ReadAt) -> Result<bool> {
        let mut head = [0; record::HEAD];
        if stream.read_exact_at(FileOffset(0), &mut head).is_ok() {
            record::check_head(&head, &mut self.damage)?;
        }
        let (mut judge, mut at) = (Judge::default(), RECORDS);
        // The last record, which is believed when a good header follows it.
        let mut last: Option<(u64, u64, u64)> = None;
        loop {
            let data = at.saturating_add(RECORD_HEADER as u64);
            let left = stream.len().saturating_sub(data);
            let mut header = [0; RECORD_HEADER];
            let step = match stream.read_exact_at(FileOffset(at), &mut header) {
                Ok(()) => judge.step(header, left),
                Err(_) => Step::CutShort,
            };
            if let Some((start, size, from)) = last.take() {
                let believed = step != Step::Stop || judge.believes(size);
                if believed && !self.add(start, size, from) {
                    return Ok(false);
                }
                judge.saw(size);
            }
            match step {
                Step::End => self.complete = true,
                Step::Stop => self.bad(at),
                Step::CutShort => self.cut_short(stream.len(), 0),
                Step::Use(start, size) if size > left => {
                    self.add(start, left, data);
                    self.cut_short(stream.len(), size - left);
                }
                Step::Use(start, size) => {
                    last = Some((start, size, data));
                    at = data + size;
                    continue;
                }
                Step::Skip(size) if size > left => self.cut_short(stream.len(), size - left),
                Step::Skip(size) => {
                    self.skip();
                    at = data + size;
                    continue;
                }
            }
            self.finish(stream);
            return Ok(true);
        }
    }
}

/// The file that a flattened stream tells of.
#[derive(Debug)]
pub(super) struct Flat {
    stream: Box<dyn ReadAt>,
    index: Index,
    history: History,
}

impl Flat {
    /// Reads the index of `stream`. One of too many records is rearranged in a temporary file.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`] for another type of stream; as [`Packed::spool`].
    pub(super) fn open(stream: Box<dyn ReadAt>, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
        match Self::in_place(stream, index::MOST_EXTENTS)? {
            Ok(flat) => Ok(Box::new(flat)),
            Err(stream) => Packed::of(&*stream, options).spool(options),
        }
    }

    /// Gives the stream back if it has more than `most` extents.
    fn in_place(stream: Box<dyn ReadAt>, most: usize) -> Result<Result<Self, Box<dyn ReadAt>>> {
        let mut index = Index::with_most(most);
        if !index.scan(&*stream)? {
            return Ok(Err(stream));
        }
        let mut history = stream.history().clone();
        history.layers.push(LAYER.into());
        Ok(Ok(Self::with(stream, index, history)))
    }

    /// With an index made elsewhere; what is wrong with that is added to the history.
    pub(super) fn with(stream: Box<dyn ReadAt>, index: Index, mut history: History) -> Self {
        index.tell(&mut history);
        Self { stream, index, history }
    }
}

impl ReadAt for Flat {
    fn len(&self) -> u64 {
        self.index.len()
    }

    /// Padding is zeros, as in the file that makedumpfile would have written. What else nothing was written for is gone.
    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        self.index.read(&*self.stream, at, buf)
    }

    fn slice(&self, at: FileOffset, len: usize) -> Option<&[u8]> {
        match self.index.find(at.0) {
            Found::At(from, room) if len as u64 <= room => self.stream.slice(FileOffset(from), len),
            _ => None,
        }
    }

    fn holes(&self) -> &Holes {
        Holes::none()
    }

    fn is_far(&self) -> bool {
        self.stream.is_far()
    }

    fn expect(&self, ranges: &[Range<u64>]) {
        let mut there: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let room = match self.index.find(at) {
                    Found::At(from, room) => {
                        there.push(from..from + room.min(range.end - at));
                        room
                    }
                    Found::Zeros(room) | Found::Lost(room) => room,
                };
                at = at.saturating_add(room.max(1));
            }
        }
        self.stream.expect(&apart(there));
    }

    fn history(&self) -> &History {
        &self.history
    }
}

#[cfg(test)]
mod tests;
