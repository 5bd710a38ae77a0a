//! Where each byte of a flattened file stands, by its records.

use super::layout::Layout;
use super::record::RECORD_HEADER;
use crate::damage::Damage;
use crate::source::holes::Holes;
use crate::source::storage::{History, ReadAt};
use crate::units::{FileOffset, PAGE_BYTES};
use std::collections::BinaryHeap;
use std::io;

/// Extents that an index may have, of 24 bytes each. Records that follow each other in the file are one.
pub(super) const MOST_EXTENTS: usize = 1 << 26;
/// Bytes of makedumpfile's records of memory: of these, neighbours in the stream are one extent. Tests have small ones.
const STEP: u64 = if cfg!(test) { 16 } else { 64 << 10 };
/// In [`Extent::from`]: the extent is of records of [`STEP`] bytes each, the last of which may be shorter.
const STEPS: u64 = 1 << 63;
/// In [`Extent::from`]: padding, which nothing was written for.
const PADDING: u64 = u64::MAX;
/// Extents that are put in order while they come, where that makes fewer of them.
const FEW: usize = 1 << 16;
/// Places that were written more than once are listed up to so many; makedumpfile rewrites headers alone.
const MOST_TWICE: usize = 1 << 10;
/// Bytes behind all that headers speak of, as section tables, that are no damage.
pub(in crate::source) const TAIL: u64 = 64 << 20;

/// Bytes of the file: where they belong, and where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Extent {
    start: u64,
    end: u64,
    from: u64,
}

const _: () = assert!(size_of::<Extent>() == 24);

impl Extent {
    fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it is of several records.
    fn steps(&self) -> bool {
        self.from & STEPS != 0 && self.from != PADDING
    }

    /// Where `at` stands.
    fn place(&self, at: u64) -> u64 {
        let before = at - self.start;
        let headers = if self.steps() { before / STEP * RECORD_HEADER as u64 } else { 0 };
        (self.from & !STEPS) + before + headers
    }

    /// How many bytes from `at` on stand together.
    fn room(&self, at: u64) -> u64 {
        let rest = self.end - at;
        if self.steps() { rest.min(STEP - (at - self.start) % STEP) } else { rest }
    }

    /// Takes in `next` if that stands where this one goes on.
    fn take_in(&mut self, next: &Self) -> bool {
        if self.end != next.start {
            return false;
        }
        let len = self.len();
        if !self.steps() && !next.steps() && self.from + len == next.from {
            self.end = next.end;
            return true;
        }
        // Records of full size and one more.
        let full = len.is_multiple_of(STEP) && (self.steps() || len == STEP);
        let one_more = next.steps() || next.len() <= STEP;
        let stands = (self.from & !STEPS) + len + len / STEP * RECORD_HEADER as u64;
        if full && one_more && stands == next.from & !STEPS {
            (self.end, self.from) = (next.end, self.from | STEPS);
            return true;
        }
        false
    }
}

/// What stands at a place of the file, and for how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Bytes, from here on in the stream.
    At(u64, u64),
    /// Padding: zeros.
    Zeros(u64),
    /// Nothing was written, and nobody knows what it would have been.
    Lost(u64),
}

/// Where each byte of the file stands.
#[derive(Clone, Debug)]
pub(in crate::source) struct Index {
    /// In order of the stream at first, then by place and without overlaps.
    extents: Vec<Extent>,
    /// How many there may be.
    most: usize,
    /// The number at which they are put in order next.
    order_at: usize,
    /// Places that were written more than once, and bytes of those that are not listed.
    twice: Vec<(u64, u64)>,
    twice_more: u64,
    /// Whether the stream's end was seen.
    pub(super) complete: bool,
    /// Else, where it ends.
    cut_at: Option<u64>,
    /// Records that were left out.
    skipped: u64,
    /// What is wrong with the stream.
    pub(super) damage: Damage,
}

impl Default for Index {
    fn default() -> Self {
        Self::with_most(MOST_EXTENTS)
    }
}

impl Index {
    pub(super) fn with_most(most: usize) -> Self {
        Self {
            extents: Vec::new(),
            most,
            order_at: FEW,
            twice: Vec::new(),
            twice_more: 0,
            complete: false,
            cut_at: None,
            skipped: 0,
            damage: Damage::default(),
        }
    }

    /// Adds a record of `size` bytes for `start` that stand at `from`; says whether there is room for more.
    pub(super) fn add(&mut self, start: u64, size: u64, from: u64) -> bool {
        self.push(Extent { start, end: start.saturating_add(size), from });
        self.extents.len() < self.most
    }

    /// Adds bytes that were put where they belong: all of those are one extent that lie together.
    pub(super) fn add_in_place(&mut self, start: u64, size: u64) -> bool {
        self.add(start, size, start);
        if self.extents.len() >= self.order_at.min(self.most) {
            self.order();
            self.order_at = self.extents.len().saturating_mul(2).max(FEW);
        }
        self.extents.len() < self.most
    }

    fn push(&mut self, next: Extent) {
        if next.len() > 0 && !self.extents.last_mut().is_some_and(|last| last.take_in(&next)) {
            self.extents.push(next);
        }
    }

    /// How many extents there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.extents.len()
    }

    /// One more than the last byte.
    pub(in crate::source) fn len(&self) -> u64 {
        self.extents.last().map_or(0, |e| e.end)
    }

    /// Sorts by place; of records that overlap the later one in the stream wins.
    pub(super) fn order(&mut self) {
        self.extents.sort_unstable_by_key(|e| (e.start, e.from & !STEPS));
        let (mut upto, mut overlaps) = (0, false);
        for e in &self.extents {
            let end = e.end.min(upto);
            if e.start < end {
                overlaps = true;
                let listed = self.twice.len();
                match self.twice.last_mut() {
                    Some(last) if last.1 == e.start => last.1 = end,
                    _ if listed < MOST_TWICE => self.twice.push((e.start, end)),
                    _ => self.twice_more = self.twice_more.saturating_add(end - e.start),
                }
            }
            upto = upto.max(e.end);
        }
        if overlaps {
            self.resolve();
        }
        self.extents.dedup_by(|next, last| last.take_in(next));
    }

    /// Takes overlaps out of sorted extents.
    fn resolve(&mut self) {
        let mut rest = std::mem::take(&mut self.extents).into_iter().peekable();
        // Those that have begun; the last in the stream is on top.
        let mut begun: BinaryHeap<(u64, Extent)> = BinaryHeap::new();
        let mut at = 0;
        loop {
            while let Some(e) = rest.next_if(|e| e.start <= at) {
                begun.push((e.from & !STEPS, e));
            }
            while begun.peek().is_some_and(|(_, e)| e.end <= at) {
                begun.pop();
            }
            let next = rest.peek().map(|e| e.start);
            at = match (begun.peek(), next) {
                (Some(&(_, e)), next) => {
                    let upto = next.map_or(e.end, |n| n.min(e.end));
                    self.push_part(&e, at, upto);
                    upto
                }
                (None, Some(next)) => next,
                (None, None) => return,
            };
        }
    }

    /// The part of an extent from `start` to before `end`.
    fn push_part(&mut self, e: &Extent, start: u64, end: u64) {
        let into = (start - e.start) % STEP;
        let whole = match e.steps() {
            false => end,
            true if into == 0 => start,
            true => (start + STEP - into).min(end),
        };
        if start < whole {
            self.push(Extent { start, end: whole, from: e.place(start) });
        }
        if whole < end {
            let flag = if end - whole > STEP { STEPS } else { 0 };
            self.push(Extent { start: whole, end, from: e.place(whole) | flag });
        }
    }

    /// Puts all in order; takes out what lies beyond what headers speak of, and tells what is missing.
    pub(in crate::source) fn finish(&mut self, stream: &dyn ReadAt) {
        self.order();
        self.damage.add("records of the flattened stream whose place cannot be", self.skipped);
        let layout = Layout::of(&View { stream, index: self });
        if let Some(most) = layout.most {
            let beyond = self.clip(most.saturating_add(TAIL));
            self.damage.add("bytes of the flattened stream that lie beyond all that its headers tell of", beyond);
        }
        let lost = self.pad(layout.padded);
        self.damage.add("bytes that no record of the flattened stream holds", lost);
        let again = |(start, end): &(u64, u64)| end.saturating_sub((*start).max(layout.rewritten));
        let twice = self.twice.iter().map(again).fold(self.twice_more, u64::saturating_add);
        self.damage.add("bytes that two records of the flattened stream hold", twice);
    }

    /// Takes out what lies from `end` on; says how many bytes that is.
    fn clip(&mut self, end: u64) -> u64 {
        let keep = self.extents.partition_point(|e| e.start < end);
        let mut beyond = self.extents.drain(keep..).map(|e| e.len()).fold(0, u64::saturating_add);
        if let Some(last) = self.extents.last_mut().filter(|e| e.end > end) {
            beyond = beyond.saturating_add(last.end - end);
            last.end = end;
        }
        beyond
    }

    /// Makes gaps that the writer leaves padding, and says how many bytes the others have. Before `padded` blocks of the
    /// headers stand, each of which begins at a multiple of its size.
    fn pad(&mut self, padded: u64) -> u64 {
        let (mut at, mut lost, mut padding) = (0, 0_u64, Vec::new());
        for e in &self.extents {
            let gap = e.start - at;
            let ends_block = e.start.is_multiple_of(PAGE_BYTES) && gap < PAGE_BYTES && e.start <= padded;
            match gap {
                0 => {}
                _ if ends_block && at > 0 => padding.push(Extent { start: at, end: e.start, from: PADDING }),
                _ => lost = lost.saturating_add(gap),
            }
            at = e.end;
        }
        if !padding.is_empty() {
            self.extents.append(&mut padding);
            self.extents.sort_unstable();
        }
        lost
    }

    /// Whether each byte of the file can be read.
    pub(in crate::source) fn is_whole(&self) -> bool {
        let mut at = 0;
        self.extents.iter().all(|e| std::mem::replace(&mut at, e.end) == e.start)
    }

    /// The stream ends at `at`, before its end mark, in the middle of a record that lacks `missing` bytes.
    pub(super) fn cut_short(&mut self, at: u64, missing: u64) {
        self.cut_at = Some(at);
        self.damage.add("flattened streams that are cut short", 1);
        self.damage.add("bytes that the last record of the flattened stream lacks", missing);
    }

    /// The record at `at` makes no sense; where the next one begins is unknown.
    pub(super) fn bad(&mut self, at: u64) {
        self.cut_at = Some(at);
        self.damage
            .add_one("flattened streams with a bad record, behind which all was left out", format!("at {at:#x}"));
    }

    /// The records from `at` on are too many.
    pub(super) fn scattered(&mut self, at: u64) {
        self.cut_at = Some(at);
        let where_to = format!("{} of them, at {at:#x}; makedumpfile -R can put it together", self.most);
        self.damage.add_one("flattened streams of too many places apart, behind which all was left out", where_to);
    }

    /// The stream goes on and on, at `at`.
    pub(super) fn endless(&mut self, at: u64) {
        self.damage.add_one("flattened streams that go on after all that headers tell of", format!("at {at:#x}"));
    }

    /// A record was left out.
    pub(super) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Adds what is wrong.
    pub(in crate::source) fn tell(&self, history: &mut History) {
        history.cut_at = self.cut_at;
        history.damage.merge(&self.damage);
    }

    /// What stands at `at`.
    pub(super) fn find(&self, at: u64) -> Found {
        let next = self.extents.partition_point(|e| e.end <= at);
        match self.extents.get(next) {
            Some(e) if e.start <= at && e.from == PADDING => Found::Zeros(e.end - at),
            Some(e) if e.start <= at => Found::At(e.place(at), e.room(at)),
            Some(e) => Found::Lost(e.start - at),
            None => Found::Lost(u64::MAX - at),
        }
    }

    /// Fills `buf` from `at` on out of `stream`.
    pub(super) fn read(&self, stream: &dyn ReadAt, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        if at.0.checked_add(buf.len() as u64).is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut at, mut rest) = (at.0, buf);
        while !rest.is_empty() {
            let found = self.find(at);
            let (Found::At(_, len) | Found::Zeros(len) | Found::Lost(len)) = found;
            let n = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (part, tail) = rest.split_at_mut(n);
            match found {
                Found::At(from, _) => stream.read_exact_at(FileOffset(from), part)?,
                Found::Zeros(_) => part.fill(0),
                Found::Lost(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            rest = tail;
            at += n as u64;
        }
        Ok(())
    }
}

/// The file as far as it is known.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) stream: &'a dyn ReadAt,
    pub(super) index: &'a Index,
}

impl ReadAt for View<'_> {
    fn len(&self) -> u64 {
        self.index.len()
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        self.index.read(self.stream, at, buf)
    }

    fn slice(&self, _: FileOffset, _: usize) -> Option<&[u8]> {
        None
    }

    fn holes(&self) -> &Holes {
        Holes::none()
    }
}
