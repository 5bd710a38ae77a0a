//! A bitmap of the file, in place where it is mapped, and how many bits are set before any of it.

use crate::bytes::words;
use crate::error::{Error, Result};
use crate::source::ReadAt;
use crate::units::FileOffset;
use std::borrow::Cow;

/// Bits per entry of the rank index.
const BLOCK: u64 = 4096;

/// Bit `n` is bit `n % 8` of byte `n / 8`. In memory: nothing if the file is mapped, else a bit per page.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    bytes: Cow<'a, [u8]>,
    len: u64,
}

impl<'a> Bits<'a> {
    /// The bitmap of `len` bits at `at`.
    pub(super) fn read(source: &'a dyn ReadAt, at: FileOffset, len: u64) -> Result<Self> {
        let bytes = len.div_ceil(8);
        if at.0.checked_add(bytes).is_none_or(|end| end > source.len()) {
            let why = format!("{bytes} bytes at {at} do not fit in a file of {} bytes; it is cut short", source.len());
            return Err(Error::damaged("bitmap", why));
        }
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        let bytes = match source.slice(at, size) {
            Some(slice) => Cow::Borrowed(slice),
            None => {
                let mut bytes = vec![0; size];
                source.read_exact_at(at, &mut bytes).map_err(|e| match e.kind() {
                    std::io::ErrorKind::UnexpectedEof => {
                        Error::damaged("bitmap", "the stream breaks off before its end")
                    }
                    _ => Error::read("the bitmaps", e),
                })?;
                Cow::Owned(bytes)
            }
        };
        Ok(Self { bytes, len })
    }

    /// Whether both have the same numbers.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.len == other.len && self.bytes == other.bytes
    }

    /// How many numbers it speaks of.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// 64 bits from a multiple of 64 on; those past the end are 0.
    fn word(&self, index: u64) -> u64 {
        let at = usize::try_from(index * 8).unwrap_or(usize::MAX);
        let rest = self.bytes.get(at..).unwrap_or_default();
        let word = match rest.first_chunk() {
            Some(whole) => u64::from_le_bytes(*whole),
            None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        let left = self.len.saturating_sub(index * 64);
        if left < 64 { word & ((1 << left) - 1) } else { word }
    }

    pub(super) fn get(&self, n: u64) -> bool {
        self.word(n / 64) >> (n % 64) & 1 == 1
    }

    /// The first number from `from` on whose bit is `there`; `end`, or the bound, if there is none below.
    pub(super) fn find(&self, there: bool, from: u64, end: u64) -> u64 {
        let end = end.min(self.len);
        let mut n = from;
        while n < end {
            let word = self.word(n / 64);
            let hits = (if there { word } else { !word }) >> (n % 64);
            if hits != 0 {
                return end.min(n + u64::from(hits.trailing_zeros()));
            }
            n = (n / 64 + 1) * 64;
        }
        end
    }

    /// Bits in `from` to `from + 4095`, a block of the rank index, that are set.
    fn count_block(&self, block: u64) -> u64 {
        let at = usize::try_from(block * BLOCK / 8).unwrap_or(usize::MAX);
        let end = at.saturating_add(BLOCK as usize / 8);
        match self.bytes.get(at..end) {
            Some(bytes) if (block + 1) * BLOCK <= self.len => words(bytes).map(|w| u64::from(w.count_ones())).sum(),
            _ => (block * 64..(block + 1) * 64).map(|w| u64::from(self.word(w).count_ones())).sum(),
        }
    }
}

/// Set bits before each block of 4096: eight bytes per 16 MiB of memory.
#[derive(Clone, Debug)]
pub(super) struct Ranks(Vec<u64>);

impl Ranks {
    pub(super) fn new(bits: &Bits<'_>) -> Self {
        let (mut before, mut sums) = (0, Vec::new());
        for block in 0..=bits.len.div_ceil(BLOCK) {
            sums.push(before);
            before += bits.count_block(block);
        }
        Self(sums)
    }

    /// Set bits before `n`.
    pub(super) fn rank(&self, bits: &Bits<'_>, n: u64) -> u64 {
        let n = n.min(bits.len);
        let block = n / BLOCK;
        let whole = (block * 64..n / 64).map(|w| u64::from(bits.word(w).count_ones())).sum::<u64>();
        let part = bits.word(n / 64) & ((1 << (n % 64)) - 1);
        let before = usize::try_from(block).ok().and_then(|b| self.0.get(b)).copied().unwrap_or_default();
        before + whole + u64::from(part.count_ones())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranks_and_searches_go_by_bits(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1..1500),
            spare in 0u64..8,
            at in 0u64..13_000,
            len in 0u64..600,
        ) {
            let count = bytes.len() as u64 * 8 - spare;
            let bits = Bits::read(&bytes, FileOffset(0), count).unwrap();
            let plain: Vec<bool> = (0..count).map(|n| bytes[n as usize / 8] >> (n % 8) & 1 == 1).collect();
            let at = at.min(count);
            let before = plain[..at as usize].iter().filter(|b| **b).count() as u64;
            prop_assert_eq!(Ranks::new(&bits).rank(&bits, at), before);
            for there in [false, true] {
                let end = (at + len).min(count);
                let first = (at..end).find(|n| plain[*n as usize] == there).unwrap_or(end);
                prop_assert_eq!(bits.find(there, at, at + len), first);
            }
            prop_assert!(!bits.get(count));
        }
    }
}
