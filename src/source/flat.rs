//! makedumpfile's flattened format (`-F`): a file as a stream of records that say where they belong.
//!
//! 4096 bytes of header: `makedumpfile` and NULs to 16, type `i64` 1, version `i64` 1; then records of offset `i64`, size
//! `i64`, data; at the end offset and size -1. All numbers are big-endian (makedumpfile 1.7: `makedumpfile_header`,
//! `makedumpfile_data_header`). Records may overlap: the later one wins. A stream that can be read anywhere is read in
//! place, by an index of its records; nothing is copied.

use super::holes::Holes;
use super::storage::{History, ReadAt};
use crate::units::FileOffset;
use std::collections::BinaryHeap;
use std::io;

/// The first bytes of the format.
pub(super) const MAGIC: &[u8; 16] = b"makedumpfile\0\0\0\0";
/// Where records begin.
pub(super) const RECORDS: u64 = 4096;
/// What a record has before its data.
pub(super) const RECORD_HEADER: usize = 16;
/// Records that an index may have, 24 bytes each; makedumpfile's are of 4 KiB and far more.
const MOST_RECORDS: usize = 1 << 26;

/// What a record's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// So many bytes of data for this place.
    Data(u64, u64),
    /// The stream ends here.
    End,
    /// Nothing that makes sense.
    Bad,
}

impl Record {
    pub(super) fn parse(bytes: [u8; RECORD_HEADER]) -> Self {
        let words = u128::from_be_bytes(bytes);
        let (at, size) = ((words >> 64) as u64 as i64, words as u64 as i64);
        match (at, size) {
            (-1, -1) => Self::End,
            (0.., 0..) if at.checked_add(size).is_some() => Self::Data(at as u64, size as u64),
            _ => Self::Bad,
        }
    }
}

/// Bytes of the file: where they belong, where they stand, and the record that had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: u64,
    end: u64,
    from: u64,
}

/// Where each byte of the file stands in a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// In order of the stream at first, then sorted and without overlaps.
    extents: Vec<Extent>,
    /// Whether the stream's end was seen.
    pub(super) complete: bool,
    /// What is wrong with the stream.
    pub(super) damage: Vec<(String, u64)>,
}

impl Index {
    /// Adds a record of `size` bytes for `start` that stands at `from`; says whether there is room for more.
    pub(super) fn add(&mut self, start: u64, size: u64, from: u64) -> bool {
        let end = start.saturating_add(size);
        match self.extents.last_mut() {
            Some(last) if last.end == start && last.from + (last.end - last.start) == from => last.end = end,
            _ if size > 0 => self.extents.push(Extent { start, end, from }),
            _ => {}
        }
        self.extents.len() < MOST_RECORDS
    }

    /// Reads the headers of all records.
    fn read(source: &dyn ReadAt) -> Self {
        let (mut index, mut at) = (Self::default(), RECORDS);
        loop {
            let mut header = [0; RECORD_HEADER];
            if source.read_exact_at(FileOffset(at), &mut header).is_err() {
                break index.cut_short(0);
            }
            let data = at + RECORD_HEADER as u64;
            match Record::parse(header) {
                Record::End => {
                    index.complete = true;
                    break;
                }
                Record::Bad => break index.bad(at),
                Record::Data(start, size) => {
                    let there = source.len().saturating_sub(data).min(size);
                    let room = index.add(start, there, data);
                    if there < size {
                        break index.cut_short(size - there);
                    }
                    if !room {
                        break index.bad(at);
                    }
                    at = data + size;
                }
            }
        }
        index.sort();
        index
    }

    /// The stream ends before its end mark, in the middle of a record that lacks `missing` bytes.
    pub(super) fn cut_short(&mut self, missing: u64) {
        self.damage.push(("flattened streams that are cut short".into(), 1));
        if missing > 0 {
            self.damage.push(("bytes that the last record of the flattened stream lacks".into(), missing));
        }
    }

    /// The record at `at` makes no sense; where the next one begins is unknown.
    pub(super) fn bad(&mut self, at: u64) {
        self.damage.push((format!("flattened streams with a bad record, at {at:#x}; what follows was left out"), 1));
    }

    /// Sorts by place; of records that overlap the later one in the stream wins.
    pub(super) fn sort(&mut self) {
        let mut all: Vec<(usize, Extent)> = std::mem::take(&mut self.extents).into_iter().enumerate().collect();
        all.sort_by_key(|(_, e)| e.start);
        let mut rest = all.into_iter().peekable();
        // Records that have begun: number, end, and what to add to a place for its place in the stream.
        let mut begun: BinaryHeap<(usize, u64, u64)> = BinaryHeap::new();
        let mut at = 0;
        loop {
            while let Some((number, e)) = rest.next_if(|(_, e)| e.start <= at) {
                begun.push((number, e.end, e.from.wrapping_sub(e.start)));
            }
            while begun.peek().is_some_and(|top| top.1 <= at) {
                begun.pop();
            }
            let next = rest.peek().map(|(_, e)| e.start);
            at = match (begun.peek(), next) {
                (Some(&(_, end, shift)), next) => {
                    let upto = next.map_or(end, |n| n.min(end));
                    let from = at.wrapping_add(shift);
                    match self.extents.last_mut() {
                        Some(l) if l.end == at && l.from.wrapping_add(at - l.start) == from => l.end = upto,
                        _ => self.extents.push(Extent { start: at, end: upto, from }),
                    }
                    upto
                }
                (None, Some(next)) => next,
                (None, None) => return,
            };
        }
    }

    /// What stands at `at`: its place in the stream, and for how many bytes; `None` for a gap.
    fn find(&self, at: u64) -> (Option<u64>, u64) {
        let next = self.extents.partition_point(|e| e.end <= at);
        match self.extents.get(next) {
            Some(e) if e.start <= at => (Some(e.from + (at - e.start)), e.end - at),
            Some(e) => (None, e.start - at),
            None => (None, u64::MAX - at),
        }
    }

    fn len(&self) -> u64 {
        self.extents.last().map_or(0, |e| e.end)
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
    /// Reads the index of `stream`.
    pub(super) fn open(stream: Box<dyn ReadAt>) -> Self {
        let index = Index::read(&*stream);
        let mut history = stream.history().clone();
        history.layers.push("flattened".into());
        Self::with(stream, index, history)
    }

    /// With an index made elsewhere; damage is added to the history.
    pub(super) fn with(stream: Box<dyn ReadAt>, index: Index, mut history: History) -> Self {
        history.damage.extend(index.damage.iter().cloned());
        Self { stream, index, history }
    }
}

impl ReadAt for Flat {
    fn len(&self) -> u64 {
        self.index.len()
    }

    /// Gaps are zeros, as in the file that makedumpfile would have written; but in a stream that was cut short nobody
    /// knows what they would have been.
    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        if at.0.checked_add(buf.len() as u64).is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut at, mut rest) = (at.0, buf);
        while !rest.is_empty() {
            let (place, len) = self.index.find(at);
            let n = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (part, tail) = rest.split_at_mut(n);
            match place {
                Some(from) => self.stream.read_exact_at(FileOffset(from), part)?,
                None if self.index.complete => part.fill(0),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            rest = tail;
            at += n as u64;
        }
        Ok(())
    }

    fn slice(&self, at: FileOffset, len: usize) -> Option<&[u8]> {
        let (place, room) = self.index.find(at.0);
        place.filter(|_| len as u64 <= room).and_then(|from| self.stream.slice(FileOffset(from), len))
    }

    fn holes(&self) -> &Holes {
        Holes::none()
    }

    fn history(&self) -> &History {
        &self.history
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(records: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        out.resize(RECORDS as usize, 0);
        for (at, data) in records {
            out.extend(at.to_be_bytes());
            out.extend((data.len() as u64).to_be_bytes());
            out.extend(data);
        }
        out.extend([0xff; 16]);
        out
    }

    fn rearranged(records: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut file = Vec::new();
        for (at, data) in records {
            let end = *at as usize + data.len();
            file.resize(file.len().max(end), 0);
            file[*at as usize..end].copy_from_slice(data);
        }
        file
    }

    #[test]
    fn headers_with_every_byte_flipped_and_cut_at_every_length() {
        let records = [(0, vec![1; 40]), (100, vec![2; 30]), (20, vec![3; 90])];
        let whole = stream(&records);
        for n in 0..whole.len() {
            let flat = Flat::open(Box::new(whole[..n].to_vec()));
            assert!(!flat.index.complete && !flat.history().damage.is_empty());
            assert!(flat.len() <= 130);
        }
        for at in 0..whole.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bad = whole.clone();
                bad[at] ^= flip;
                let flat = Flat::open(Box::new(bad));
                let mut buf = vec![0; flat.len().min(200) as usize];
                let _ = flat.read_exact_at(FileOffset(0), &mut buf);
            }
        }
    }

    proptest! {
        #[test]
        fn the_later_record_wins(
            records in prop::collection::vec((0u64..300, prop::collection::vec(any::<u8>(), 1..80)), 1..30),
            cut in any::<prop::sample::Index>(),
        ) {
            let (bytes, want) = (stream(&records), rearranged(&records));
            let flat = Flat::open(Box::new(bytes.clone()));
            prop_assert_eq!(flat.len(), want.len() as u64);
            let mut got = vec![0; want.len()];
            flat.read_exact_at(FileOffset(0), &mut got).unwrap();
            prop_assert_eq!(&got, &want);
            for at in 0..want.len() {
                for len in [1, 7] {
                    if let Some(slice) = flat.slice(FileOffset(at as u64), len) {
                        prop_assert_eq!(slice, &want[at..at + len]);
                    }
                }
            }
            // Cut short: what can be read is of the records that are there, and gaps are no zeros.
            let short = Flat::open(Box::new(bytes[..cut.index(bytes.len())].to_vec()));
            prop_assert!(!short.index.complete && short.len() <= flat.len());
            let known = |at: u64| records.iter().any(|(start, data)| (*start..start + data.len() as u64).contains(&at));
            for at in 0..short.len() {
                let read = short.read_exact_at(FileOffset(at), &mut [0]);
                prop_assert!(read.is_err() || known(at));
            }
        }
    }
}
