//! Headers of a flattened stream and of its records, and what can be believed of them.

use crate::bytes::u64_at;
use crate::damage::Damage;
use crate::error::{Error, Result};

/// What a record has before its data.
pub(in crate::source) const RECORD_HEADER: usize = 16;
/// Magic, type and version of the stream.
pub(super) const HEAD: usize = 32;
/// The type and the version that are known.
const KNOWN: u64 = 1;
/// No file is larger.
const FARTHEST: u64 = 1 << 56;
/// So far behind all that came before no record is put: descriptors of 64 TiB are less than half of it.
const LEAP: u64 = 1 << 40;
/// A record whose place cannot be is believed to have so many bytes at most.
const LARGEST: u64 = 1 << 32;
/// After so many records others are held against them,
const MANY: u64 = 16;
/// and one that is so many times larger, and has more bytes than any known writer's, is odd.
const LARGER: u64 = 64;
const MODEST: u64 = 16 << 20;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source) enum Step {
    /// So many bytes of data for this place follow.
    Use(u64, u64),
    /// So many bytes follow, whose place cannot be.
    Skip(u64),
    /// The stream ends here, as it should.
    End,
    /// Nothing that makes sense: where the next record begins is unknown.
    Stop,
    /// The stream ends before its end mark.
    CutShort,
}

/// Holds each record against those before it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::source) struct Judge {
    /// Where the file ends so far.
    end: u64,
    /// The most that headers allow, once they are known.
    pub(super) most: Option<u64>,
    count: u64,
    largest: u64,
}

impl Judge {
    /// What to do with a record of this header, behind which the stream has `left` bytes.
    pub(in crate::source) fn step(&mut self, header: [u8; RECORD_HEADER], left: u64) -> Step {
        let words = u128::from_be_bytes(header);
        let (start, size) = ((words >> 64) as u64, words as u64);
        if (start, size) == (u64::MAX, u64::MAX) {
            return Step::End;
        }
        // Zeros are data that a damaged size led into. And were it the last one, it would be as large as the others.
        if (start, size) == (0, 0) || self.is_odd(size) && size > left.min(MODEST) {
            return Step::Stop;
        }
        let most = self.most.unwrap_or(self.end.saturating_add(LEAP)).min(FARTHEST);
        match start.checked_add(size) {
            Some(end) if end <= most => {
                self.end = self.end.max(end);
                Step::Use(start, size)
            }
            _ if size <= LARGEST => Step::Skip(size),
            _ => Step::Stop,
        }
    }

    /// Whether a record of so many bytes is believed although nothing that makes sense follows it: one that is larger than
    /// all before it leads there by its size.
    pub(super) fn believes(&self, size: u64) -> bool {
        self.count < MANY || size <= self.largest
    }

    /// Whether a record of so many bytes is unlike all before it.
    fn is_odd(&self, size: u64) -> bool {
        self.count >= MANY && size > self.largest.saturating_mul(LARGER)
    }

    /// Learns the size of a record.
    pub(super) fn saw(&mut self, size: u64) {
        self.count += 1;
        self.largest = self.largest.max(size);
    }
}

/// Checks what a stream begins with.
///
/// # Errors
/// [`Error::Damaged`] for another type.
pub(super) fn check_head(head: &[u8], damage: &mut Damage) -> Result<()> {
    let word = |at| u64_at(head, at).map(u64::swap_bytes);
    let (Some(kind), Some(version)) = (word(16), word(24)) else { return Ok(()) };
    if kind != KNOWN {
        let why = format!("it is of type {kind:#x}, an unknown one; makedumpfile -F writes type {KNOWN}");
        return Err(Error::damaged("flattened header", why));
    }
    if version != KNOWN {
        let which = format!("version {version:#x}, read as {KNOWN}");
        damage.add_one("flattened streams of an unknown version", which);
    }
    Ok(())
}
