//! A flattened stream that cannot be read anywhere: its records are put where they belong as they come.

use super::index::{Index, TAIL, View};
use super::layout::Layout;
use super::record::{self, Judge, RECORD_HEADER, Step};
use super::{MAGIC, RECORDS};
use crate::error::Result;
use crate::source::unpack::{BLOCK, Out, fill};
use std::io::{self, Read};

/// Headers are looked at again when a record is for them: so often, and this far into the file.
const LOOKS: u32 = 64;
const HEADERS: u64 = 1 << 20;
/// Bytes beyond what headers tell, for headers that are written anew with more in them.
const MORE: u64 = 1 << 30;
/// Bytes that a stream may have that has no headers yet: makedumpfile writes those of ELF last. No machine has more memory.
const MOST_UNTOLD: u64 = 1 << 46;

/// Puts records where they belong.
#[derive(Debug)]
pub(in crate::source) struct Rearranger<'o, 'd> {
    out: &'o mut Out<'d>,
    pub(in crate::source) index: Index,
    judge: Judge,
    looks: u32,
    /// Place and size of the last record, which is believed when a good header follows it.
    last: Option<(u64, u64)>,
    /// Place in the stream.
    at: u64,
    block: Vec<u8>,
    /// Why the stream breaks off, and where.
    pub(in crate::source) broken: Option<(io::Error, u64)>,
}

impl<'o, 'd> Rearranger<'o, 'd> {
    pub(in crate::source) fn new(out: &'o mut Out<'d>) -> Self {
        let (index, judge) = (Index::default(), Judge::default());
        Self { out, index, judge, looks: 0, last: None, at: 0, block: vec![0; BLOCK], broken: None }
    }

    /// Up to `want` bytes, a block at most.
    fn fill(&mut self, input: &mut dyn Read, want: u64) -> usize {
        let want = want.min(BLOCK as u64) as usize;
        let (n, why) = fill(input, self.block.get_mut(..want).unwrap_or_default());
        self.at += n as u64;
        if let Some(e) = why {
            self.broken.get_or_insert((e, self.at));
        }
        n
    }

    /// Takes all of `input`.
    ///
    /// # Errors
    /// [`crate::Error::Write`]; [`crate::Error::Damaged`] for another type of stream.
    pub(in crate::source) fn run(&mut self, input: &mut dyn Read) -> Result<()> {
        let n = self.fill(input, RECORDS);
        record::check_head(self.block.get(..n.min(record::HEAD)).unwrap_or(MAGIC), &mut self.index.damage)?;
        loop {
            let begin = self.at;
            let n = self.fill(input, RECORD_HEADER as u64);
            let header = self.block.first_chunk().copied().filter(|_| n == RECORD_HEADER);
            let step = header.map_or(Step::CutShort, |header| self.judge.step(header, u64::MAX));
            if let Some((start, size)) = self.last.take() {
                let believed = step != Step::Stop || self.judge.believes(size);
                if believed && !self.index.add_in_place(start, size) {
                    self.index.scattered(begin);
                    return Ok(());
                }
                self.judge.saw(size);
                self.look(start);
            }
            if self.at > self.judge.most.unwrap_or(MOST_UNTOLD).saturating_add(MORE) {
                self.index.endless(begin);
                return Ok(());
            }
            let size = match step {
                Step::End => {
                    self.index.complete = true;
                    return Ok(());
                }
                Step::Stop => {
                    self.index.bad(begin);
                    return Ok(());
                }
                Step::CutShort => {
                    self.index.cut_short(self.at, 0);
                    return Ok(());
                }
                Step::Skip(size) => {
                    self.index.skip();
                    self.data(input, None, size)?
                }
                Step::Use(start, size) => self.data(input, Some(start), size)?,
            };
            if let Step::Use(start, _) = step {
                self.last = Some((start, size));
            }
            if let Step::Use(_, wanted) | Step::Skip(wanted) = step
                && size < wanted
            {
                // What the end of the stream cuts short is there as far as it goes.
                self.last.take().into_iter().for_each(|(start, size)| {
                    self.index.add_in_place(start, size);
                });
                self.index.cut_short(self.at, wanted - size);
                return Ok(());
            }
        }
    }

    /// Data of a record; says how many bytes came.
    fn data(&mut self, input: &mut dyn Read, start: Option<u64>, size: u64) -> Result<u64> {
        let mut done = 0;
        while done < size {
            let want = (size - done).min(BLOCK as u64);
            let n = self.fill(input, want);
            if let Some(start) = start.filter(|_| n > 0) {
                self.out.write(start + done, self.block.get(..n).unwrap_or_default())?;
            }
            done += n as u64;
            if (n as u64) < want {
                break;
            }
        }
        Ok(done)
    }

    /// Looks at the headers when a record was for them. A larger bound holds, a smaller one does not.
    fn look(&mut self, start: u64) {
        if start >= HEADERS || self.looks >= LOOKS {
            return;
        }
        self.looks += 1;
        let mut index = self.index.clone();
        index.order();
        if let Some(most) = Layout::of(&View { stream: &*self.out, index: &index }).most {
            self.out.set_most(most);
            let most = most.saturating_add(TAIL).saturating_add(MORE);
            self.judge.most = Some(self.judge.most.map_or(most, |before| before.max(most)));
        }
    }
}
