//! Several files as one storage: the parts of a split dump.

use super::holes::Holes;
use super::storage::{History, ReadAt};
use crate::units::{FileOffset, PAGE_BYTES};
use std::fs::File;
use std::io;
use std::ops::Range;

/// Files one behind the other, each from a multiple of the page size on. What lies between is no part of any.
#[derive(Debug)]
pub struct Set {
    parts: Vec<(Box<dyn ReadAt>, u64)>,
    len: u64,
    holes: Holes,
    history: History,
}

impl Set {
    /// Joins them in this order.
    pub fn new(files: Vec<Box<dyn ReadAt>>) -> Self {
        let (mut parts, mut len, mut history) = (Vec::new(), 0_u64, History::default());
        let mut holes = Holes::default();
        for file in files {
            history.add(file.history());
            holes.append(file.holes(), len);
            let end = len.saturating_add(file.len()).checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
            parts.push((file, len));
            len = end;
        }
        history.layers.dedup();
        Self { parts, len, holes, history }
    }

    fn part(&self, at: FileOffset) -> Option<(&dyn ReadAt, FileOffset)> {
        let next = self.parts.partition_point(|p| p.1 <= at.0);
        let (file, start) = self.parts.get(next.checked_sub(1)?)?;
        Some((&**file, FileOffset(at.0 - start)))
    }
}

impl ReadAt for Set {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        let (file, at) = self.part(at).ok_or(io::ErrorKind::UnexpectedEof)?;
        file.read_exact_at(at, buf)
    }

    fn slice(&self, at: FileOffset, len: usize) -> Option<&[u8]> {
        let (file, at) = self.part(at)?;
        file.slice(at, len)
    }

    fn behind(&self, slice: &[u8]) -> Option<(&File, FileOffset)> {
        self.parts.iter().find_map(|(file, _)| file.behind(slice))
    }

    fn holes(&self) -> &Holes {
        &self.holes
    }

    fn history(&self) -> &History {
        &self.history
    }

    fn is_far(&self) -> bool {
        self.parts.iter().any(|(file, _)| file.is_far())
    }

    fn expect(&self, ranges: &[Range<u64>]) {
        for (n, (file, start)) in self.parts.iter().enumerate() {
            let end = self.parts.get(n + 1).map_or(self.len, |next| next.1);
            let within = ranges.iter().map(|r| r.start.max(*start)..r.end.min(end)).filter(|r| r.start < r.end);
            file.expect(&within.map(|r| r.start - start..r.end - start).collect::<Vec<_>>());
        }
    }

    fn parts(&self) -> &[(Box<dyn ReadAt>, u64)] {
        &self.parts
    }
}
