//! zstd files of many small frames, read in place: seekable ones by their table, others by their frames' own sizes.
//!
//! The seek table (zstd, contrib/seekable_format) is a skippable frame at the end: magic `0x184d2a5e`, size `u32`; for each
//! frame its compressed and plain size, `u32` each, and a checksum `u32` if bit 7 of the descriptor says so; then the number
//! of frames `u32`, the descriptor `u8`, and `0x8f92eab1`.

use super::holes::Holes;
use super::storage::{History, ReadAt};
use super::unpack::is_skippable;
use crate::bytes::u32_at;
use crate::cache::Cache;
use crate::units::FileOffset;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use zstd::zstd_safe;

/// The largest frame that is worth it: all of it is unpacked for any byte. Files of larger ones are unpacked as a whole, by
/// all threads.
const MOST_FRAME: u64 = 4 << 20;
const FOOTER: u64 = 9;
const SKIPPABLE: u32 = 0x184d_2a5e;
const SEEKABLE: u32 = 0x8f92_eab1;

/// The plain bytes of such a file.
#[derive(Debug)]
pub(super) struct Frames {
    source: Box<dyn ReadAt>,
    /// Where each frame begins, packed and plain, and where the last ends.
    starts: Vec<(u64, u64)>,
    cache: Cache,
    history: History,
}

impl Frames {
    /// Gives the file back if it cannot be read in place. So many bytes are kept.
    pub(super) fn open(source: Box<dyn ReadAt>, cache: u64) -> Result<Self, Box<dyn ReadAt>> {
        let Some(starts) = table(&*source).or_else(|| scan(&*source)) else { return Err(source) };
        let mut history = source.history().clone();
        history.layers.push(format!("zstd, {} frames read in place", starts.len() - 1));
        Ok(Self { source, starts, cache: Cache::new(cache), history })
    }

    fn frame(&self, number: usize) -> io::Result<Arc<Vec<u8>>> {
        let size = self.starts.get(number..number + 2).and_then(plain_size).unwrap_or(0);
        self.cache.get(number as u64, size as usize, || self.unpack(number))
    }

    fn unpack(&self, number: usize) -> io::Result<Vec<u8>> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let pair = self.starts.get(number..number + 2).ok_or_else(|| bad("no frame"))?;
        let size = plain_size(pair).ok_or_else(|| bad("a frame without a size"))? as usize;
        let [(from, _), (to, _)] = pair else { return Err(bad("no frame")) };
        let packed = (to - from) as usize;
        let plain = match self.source.slice(FileOffset(*from), packed) {
            Some(slice) => zstd::bulk::decompress(slice, size),
            None => {
                let mut input = vec![0; packed];
                self.source.read_exact_at(FileOffset(*from), &mut input)?;
                zstd::bulk::decompress(&input, size)
            }
        };
        // The library calls it an error of the system, which may pass.
        let plain = plain.map_err(|e| bad(&e.to_string()))?;
        if plain.len() != size {
            return Err(bad("a frame of another size than the table says"));
        }
        Ok(plain)
    }
}

fn plain_size(pair: &[(u64, u64)]) -> Option<u64> {
    Some(pair.get(1)?.1 - pair.first()?.1)
}

/// Frames that are small, and no larger than their packed bytes can be.
fn fits(packed: u64, plain: u64) -> bool {
    plain <= MOST_FRAME && packed <= MOST_FRAME + (MOST_FRAME >> 4)
}

/// By the seek table.
fn table(source: &dyn ReadAt) -> Option<Vec<(u64, u64)>> {
    let len = source.len();
    let mut footer = [0; FOOTER as usize];
    source.read_exact_at(FileOffset(len.checked_sub(FOOTER)?), &mut footer).ok()?;
    if u32_at(&footer, 5) != Some(SEEKABLE) {
        return None;
    }
    let count = u64::from(u32_at(&footer, 0)?);
    let entry = if footer.get(4)? & 0x80 != 0 { 12 } else { 8 };
    let body = count * entry + FOOTER;
    let start = len.checked_sub(body + 8)?;
    let mut bytes = vec![0; usize::try_from(body + 8).ok()?];
    source.read_exact_at(FileOffset(start), &mut bytes).ok()?;
    if u32_at(&bytes, 0) != Some(SKIPPABLE) || u32_at(&bytes, 4).map(u64::from) != Some(body) {
        return None;
    }
    let mut starts = vec![(0, 0)];
    let (mut packed, mut plain) = (0, 0);
    for e in bytes.get(8..)?.chunks_exact(entry as usize).take(count as usize) {
        let (p, q) = (u64::from(u32_at(e, 0)?), u64::from(u32_at(e, 4)?));
        if !fits(p, q) {
            return None;
        }
        (packed, plain) = (packed + p, plain + q);
        if q > 0 {
            starts.push((packed, plain));
        } else if let Some(last) = starts.last_mut() {
            last.0 = packed;
        }
    }
    (packed == start && starts.len() > 1).then_some(starts)
}

/// By the frames' own headers, of a mapped file: a single large frame is found out at once. Where one of them is bad, what
/// follows cannot be placed: the next frame that is found may not be the next there was, and all behind it would be shifted.
fn scan(source: &dyn ReadAt) -> Option<Vec<(u64, u64)>> {
    let all = source.slice(FileOffset(0), usize::try_from(source.len()).ok()?)?;
    let (mut starts, mut at, mut plain) = (vec![(0, 0)], 0_usize, 0);
    while let Some(rest) = all.get(at..).filter(|r| !r.is_empty()) {
        let skippable = u32_at(rest, 0).is_some_and(is_skippable);
        let size = if skippable { 0 } else { zstd_safe::get_frame_content_size(rest).ok()?? };
        if size > MOST_FRAME {
            return None;
        }
        let packed = zstd_safe::find_frame_compressed_size(rest).ok().filter(|n| *n > 0)?;
        if !fits(packed as u64, size) {
            return None;
        }
        at += packed;
        plain += size;
        if size > 0 {
            starts.push((at as u64, plain));
        } else if let Some(last) = starts.last_mut() {
            last.0 = at as u64;
        }
    }
    (starts.len() > 2).then_some(starts)
}

impl ReadAt for Frames {
    fn len(&self) -> u64 {
        self.starts.last().map_or(0, |s| s.1)
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (at.0, buf);
        while !rest.is_empty() {
            let number =
                self.starts.partition_point(|s| s.1 <= at).checked_sub(1).ok_or(io::ErrorKind::UnexpectedEof)?;
            if number + 1 >= self.starts.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let start = self.starts.get(number).map_or(0, |s| s.1);
            let frame = self.frame(number)?;
            let bytes = frame.get((at - start) as usize..).unwrap_or_default();
            let n = bytes.len().min(rest.len());
            let (part, tail) = rest.split_at_mut(n);
            part.copy_from_slice(bytes.get(..n).unwrap_or_default());
            rest = tail;
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
        self.source.is_far()
    }

    fn expect(&self, ranges: &[Range<u64>]) {
        let mut packed: Vec<Range<u64>> = Vec::new();
        // Frames before this one are told.
        let mut next = 0;
        for range in ranges {
            let first = self.starts.partition_point(|s| s.1 <= range.start).saturating_sub(1).max(next);
            let end = self.starts.partition_point(|s| s.1 < range.end).min(self.starts.len().saturating_sub(1));
            for number in first..end {
                let Some([(from, _), (to, _)]) = self.starts.get(number..number + 2) else { break };
                match packed.last_mut() {
                    _ if self.cache.has(number as u64) => {}
                    Some(last) if last.end == *from => last.end = *to,
                    _ => packed.push(*from..*to),
                }
            }
            next = next.max(end);
        }
        self.source.expect(&packed);
    }

    fn history(&self) -> &History {
        &self.history
    }
}
