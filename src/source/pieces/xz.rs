//! Blocks of xz files (The .xz File Format 1.2.1): each stream is a header of 12 bytes, blocks, an index that has their
//! sizes, and a footer of 12 bytes; zeros in fours may follow. A block is made a stream of its own with an index of one.

use super::Piece;
use crate::bytes::u32_at;
use flate2::Crc;

const MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const FOOTER_MAGIC: &[u8] = b"YZ";
const HEADER: usize = 12;
const FOOTER: usize = 12;
/// Indices are looked at to this size; `xz` makes a block of each 3 MiB at least.
const MOST_INDEX: usize = 64 << 20;

/// What makes a stream of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The header.
    pub(super) head: [u8; HEADER],
    /// Index and footer.
    pub(super) tail: Vec<u8>,
}

/// All blocks of all streams, in order; nothing if any of them is odd.
pub(super) fn blocks(all: &[u8]) -> Option<Vec<Piece>> {
    let (mut end, mut streams) = (all.len(), Vec::new());
    while end > 0 {
        let stream = stream(all.get(..end)?)?;
        end = stream.first()?.packed.start.checked_sub(HEADER)?;
        streams.push(stream);
    }
    Some(streams.into_iter().rev().flatten().collect())
}

/// The blocks of the last stream.
fn stream(all: &[u8]) -> Option<Vec<Piece>> {
    let padding = all.iter().rev().take_while(|b| **b == 0).count();
    let end = all.len().checked_sub(padding)?;
    let footer = all.get(end.checked_sub(FOOTER)?..end)?;
    if footer.get(10..)? != FOOTER_MAGIC || u32_at(footer, 0)? != crc(footer.get(4..10)?) {
        return None;
    }
    let size = (u32_at(footer, 4)? as usize).checked_add(1)?.checked_mul(4).filter(|n| *n <= MOST_INDEX)?;
    let index_at = end.checked_sub(FOOTER + size)?;
    let index = all.get(index_at..index_at + size)?;
    let (body, sum) = index.split_at_checked(size.checked_sub(4)?)?;
    if u32_at(sum, 0)? != crc(body) {
        return None;
    }
    let (&0, mut rest) = body.split_first()? else { return None };
    let count = number(&mut rest)?;
    let mut sizes = Vec::new();
    // Each takes two bytes of the index at least, so that this ends.
    for _ in 0..count {
        sizes.push((number(&mut rest)?, number(&mut rest)?));
    }
    let padded = |unpadded: u64| usize::try_from(unpadded.checked_next_multiple_of(4)?).ok();
    let total = sizes.iter().try_fold(0_usize, |sum, (packed, _)| sum.checked_add(padded(*packed)?))?;
    let start = index_at.checked_sub(total)?;
    let head: [u8; HEADER] = all.get(start.checked_sub(HEADER)?..start)?.try_into().ok()?;
    if !head.starts_with(MAGIC) || head.get(6..8)? != footer.get(8..10)? {
        return None;
    }
    let mut at = start;
    let piece = |(unpadded, plain): (u64, u64)| {
        let from = at;
        at = at.checked_add(padded(unpadded)?)?;
        let tail = tail(unpadded, plain, footer.get(8..10)?);
        Some(Piece { packed: from..at, plain: Some(plain), frame: Some(Frame { head, tail }) })
    };
    sizes.into_iter().map(piece).collect()
}

/// Index and footer of a stream of one block.
fn tail(unpadded: u64, plain: u64, flags: &[u8]) -> Vec<u8> {
    let mut index = vec![0, 1];
    [unpadded, plain].into_iter().for_each(|n| put(&mut index, n));
    index.resize(index.len().next_multiple_of(4), 0);
    let sum = crc(&index);
    index.extend(sum.to_le_bytes());
    let mut footer = (index.len() as u32 / 4 - 1).to_le_bytes().to_vec();
    footer.extend(flags);
    index.extend(crc(&footer).to_le_bytes());
    index.extend(footer);
    index.extend(FOOTER_MAGIC);
    index
}

/// Seven bits a byte, the lowest first; the last has no bit 7.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}
