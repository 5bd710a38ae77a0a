//! The headers and bitmaps of a kdump-compressed file.

use super::super::{Facts, Output};
use crate::bitmap::Bitmap;
use crate::error::Result;
use crate::pipeline::codec::Codec;
use crate::plan::level::Level;
use crate::units::{PAGE_BYTES, PAGE_SIZE, Pfn};
use crate::xen::p2m::Run;

pub(super) const SUB_HEADER: usize = 104;
pub(super) const DESCRIPTOR: u64 = 24;
/// Bytes of a bitmap that are written at once, or left out.
const BITMAP_PART: usize = 1 << 16;
/// Of the status word: the file ends early (makedumpfile: DUMP_DH_COMPRESSED_INCOMPLETE).
const INCOMPLETE: u32 = 0x8;

/// Where things stand in one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// One more than the highest PFN.
    pub(super) max_mapnr: u64,
    /// Blocks of the sub-header and the notes.
    sub_blocks: u64,
    bitmap_blocks: u64,
    /// Byte positions.
    pub(super) descriptors: u64,
    pub(super) zero_page: u64,
    /// The PFNs that a file of a split dump is for, the last one excluded.
    pub(super) split: Option<(Pfn, Pfn)>,
}

impl Layout {
    /// The layout of a file with so many descriptors.
    pub(super) fn new(facts: &Facts, max_mapnr: u64, descriptors: u64, split: Option<(Pfn, Pfn)>) -> Self {
        let sub_blocks = blocks((SUB_HEADER + facts.notes.bytes.len()) as u64);
        let bitmap_blocks = 2 * blocks(max_mapnr.div_ceil(8));
        let at = (1 + sub_blocks + bitmap_blocks) * PAGE_BYTES;
        let zero_page = (at + descriptors * DESCRIPTOR).next_multiple_of(PAGE_BYTES);
        Self { max_mapnr, sub_blocks, bitmap_blocks, descriptors: at, zero_page, split }
    }

    /// Where bitmap 1 and bitmap 2 begin.
    pub(super) fn bitmaps(&self) -> (u64, u64) {
        let first = (1 + self.sub_blocks) * PAGE_BYTES;
        (first, first + self.bitmap_blocks / 2 * PAGE_BYTES)
    }

    /// `struct disk_dump_header`.
    pub(super) fn header(&self, facts: &Facts, codec: Codec, incomplete: bool) -> Vec<u8> {
        let mut b = Vec::with_capacity(PAGE_SIZE);
        b.extend(b"KDUMP   ");
        b.extend(6_u32.to_le_bytes());
        for (i, name) in facts.uts.iter().enumerate() {
            b.extend(name.as_bytes().iter().take(64));
            b.resize(12 + (i + 1) * 65, 0);
        }
        // 6 bytes of padding, then the time of the crash, which a Xen dump does not tell reliably.
        b.resize(424, 0);
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let words = [
            codec.flag() | if incomplete { INCOMPLETE } else { 0 },
            PAGE_SIZE as u32,
            narrow(self.sub_blocks),
            narrow(self.bitmap_blocks),
            narrow(self.max_mapnr),
            0, // total_ram_blocks
            0, // device_blocks
            0, // written_blocks
            0, // current_cpu
            facts.cpus.max(1),
        ];
        words.iter().for_each(|w| b.extend(w.to_le_bytes()));
        b.resize(PAGE_SIZE, 0);
        b
    }

    /// `struct kdump_sub_header` and the notes, whole blocks; offsets are positions in the file.
    pub(super) fn sub_header(&self, facts: &Facts, level: Level) -> Vec<u8> {
        let notes_at = notes_at();
        let notes = &facts.notes;
        let (info_at, info_len) = notes.vmcoreinfo.map_or((0, 0), |(at, len)| (notes_at + at as u64, len as u64));
        let mut b = Vec::with_capacity(self.sub_blocks as usize * PAGE_SIZE);
        b.extend(facts.phys_base.to_le_bytes());
        b.extend(u32::from(level.number()).to_le_bytes());
        b.extend(u32::from(self.split.is_some()).to_le_bytes());
        let (first, end) = self.split.unwrap_or_default();
        let words = [
            0, // start_pfn, obsolete
            0, // end_pfn, obsolete
            info_at,
            info_len,
            notes_at,
            notes.bytes.len() as u64,
            0, // offset_eraseinfo
            0, // size_eraseinfo
            first.0,
            end.0,
            self.max_mapnr,
        ];
        words.iter().for_each(|w: &u64| b.extend(w.to_le_bytes()));
        b.extend(&notes.bytes);
        b.resize(self.sub_blocks as usize * PAGE_SIZE, 0);
        b
    }
}

/// Where the notes begin.
pub(super) fn notes_at() -> u64 {
    PAGE_BYTES + SUB_HEADER as u64
}

/// Writes a bitmap of these pages.
pub(super) fn write_bitmap(len: u64, runs: impl Iterator<Item = Run>, outs: &[Output], start: u64) -> Result<()> {
    let mut bitmap = Bitmap::new(len);
    runs.for_each(|r| bitmap.set_range(r.pfn.0, r.len));
    let mut at = start;
    let whole = (blocks(len.div_ceil(8)) * PAGE_BYTES) as usize;
    let mut bytes = bitmap.bytes().chain(std::iter::repeat(0)).take(whole).peekable();
    let mut part = Vec::with_capacity(BITMAP_PART);
    while bytes.peek().is_some() {
        part.clear();
        part.extend(bytes.by_ref().take(BITMAP_PART));
        let zeros = part.iter().all(|byte| *byte == 0);
        // Of a domain that is sparse most of it is zeros, which a new file has by itself.
        outs.iter().filter(|out| !(zeros && out.is_new())).try_for_each(|out| out.write_at(&part, at))?;
        at += part.len() as u64;
    }
    Ok(())
}

fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES)
}
