//! The headers of a kdump-compressed file, versions 1 to 6.
//!
//! Source of knowledge: makedumpfile 1.7 (diskdump_mod.h), crash 8 (diskdump.h), libkdumpfile 0.5. Block 0 is
//! `disk_dump_header`, block 1 `kdump_sub_header`, whose fields came with versions: `phys_base` and `dump_level` are of 1,
//! `split` with PFNs of 2, VMCOREINFO of 3, notes of 4, eraseinfo of 5, 64-bit PFNs of 6. All of x86_64, little-endian.

use crate::bytes::{array_at, text, u32_at, u64_at};
use crate::error::{Error, Result};
use crate::source::ReadAt;
use crate::units::{FileOffset, PAGE_BYTES};

/// The first bytes of the format.
pub const SIGNATURE: &[u8; 8] = b"KDUMP   ";
/// Pages that bitmaps may speak of: 64 TiB, what the output may have too.
const MOST_MAPNR: u64 = 1 << 34;
/// `disk_dump_header`, in bytes: a flattened stream that is cut short has no more of its block.
const HEADER: usize = 464;
/// The sub-header of version 6, in bytes.
const SUB_HEADER: usize = 104;
/// A page descriptor, in bytes.
pub(super) const DESCRIPTOR: u64 = 24;

/// `status`: the dump did not fit its disk (makedumpfile: DUMP_DH_COMPRESSED_INCOMPLETE).
const INCOMPLETE: u32 = 0x8;

/// What the headers say. Offsets are in bytes from the start of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1 to 6.
    pub version: u32,
    /// Utsname of the machine, 6 × 65 bytes, and the time of the dump behind it.
    pub machine: Vec<u8>,
    /// Whether the writer ran out of space.
    pub incomplete: bool,
    /// Codec bits of the status word, 0 if no page is compressed.
    pub codecs: u32,
    /// makedumpfile's dump level.
    pub level: u32,
    /// PFNs of a split dump's part: first, and one more than the last.
    pub split: Option<(u64, u64)>,
    /// One more than the highest PFN.
    pub max_mapnr: u64,
    /// Where bitmap 1 stands: pages that exist.
    pub bitmap_1: FileOffset,
    /// Where bitmap 2 stands: pages that have a descriptor. The same as bitmap 1 if there is only that.
    pub bitmap_2: FileOffset,
    /// Where descriptors begin.
    pub descriptors: FileOffset,
    /// Place and size of the notes.
    pub notes: Option<(FileOffset, u64)>,
    /// Place and size of VMCOREINFO's text.
    pub vmcoreinfo: Option<(FileOffset, u64)>,
}

impl Header {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Damaged`] for what does not hold together, [`Error::Unsupported`] for other machines.
    pub fn read(source: &dyn ReadAt) -> Result<Self> {
        let len = source.len();
        let block_at = |at: u64, most: usize| {
            let size = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX).min(most);
            let mut bytes = vec![0; size];
            match source.read_exact_at(FileOffset(at), &mut bytes) {
                // A flattened stream that breaks off before it.
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
                Err(e) => Err(Error::read("the kdump header", e)),
                Ok(()) => Ok(bytes),
            }
        };
        let short = || Error::damaged("kdump header", format!("the file has {len} bytes; it is cut short"));
        let head = block_at(0, HEADER)?;
        let word = |at| u32_at(&head, at).ok_or_else(short);
        let version = word(8)?;
        if !(1..=6).contains(&version) {
            let why = match version.swap_bytes() {
                1..=6 => "big-endian; only dumps of x86_64 can be cut".into(),
                _ => format!("of version {version}; 1 to 6 are known"),
            };
            return Err(Error::damaged("kdump header", format!("it is {why}")));
        }
        let machine = text(&array_at::<65>(&head, 12 + 4 * 65).ok_or_else(short)?);
        if !machine.is_empty() && machine != "x86_64" {
            return Err(Error::Unsupported(format!("the dump is of machine {machine:?}; only x86_64 can be cut")));
        }
        let [status, block, sub_blocks, bitmap_blocks, mapnr] = [424, 428, 432, 436, 440].map(|at| u32_at(&head, at));
        let (status, block) = (status.ok_or_else(short)?, block.ok_or_else(short)?);
        if u64::from(block) != PAGE_BYTES {
            return Err(Error::damaged("kdump header", format!("blocks of {block} bytes; x86_64 has 4096")));
        }
        let sub = block_at(PAGE_BYTES, SUB_HEADER)?;
        if sub.len() < SUB_HEADER {
            return Err(short());
        }
        let [sub_blocks, bitmap_blocks] = [sub_blocks, bitmap_blocks].map(|n| u64::from(n.unwrap_or_default()));
        let field = |at, since| u64_at(&sub, at).filter(|_| version >= since).unwrap_or_default();
        let max_mapnr = match field(96, 6) {
            0 => u64::from(mapnr.unwrap_or_default()),
            wide => wide,
        };
        let split = (version >= 2 && u32_at(&sub, 12).is_some_and(|s| s != 0)).then(|| match version {
            6 => (field(80, 6), field(88, 6)),
            _ => (field(16, 2), field(24, 2)),
        });
        let blob = |at, size, since| {
            let (at, size) = (field(at, since), field(size, since));
            (at != 0 && size != 0).then_some((FileOffset(at), size))
        };
        let bitmaps = (1 + sub_blocks) * PAGE_BYTES;
        // makedumpfile counts both bitmaps, each rounded up; diskdump files of old have one.
        let one = max_mapnr.div_ceil(8).div_ceil(PAGE_BYTES);
        let second = if bitmap_blocks >= 2 * one { bitmap_blocks / 2 } else { 0 };
        if max_mapnr > MOST_MAPNR || bitmap_blocks < one || max_mapnr == 0 || sub_blocks == 0 {
            let why = format!(
                "{bitmap_blocks} blocks of bitmaps for {max_mapnr} pages, {sub_blocks} of sub-header: no dump has that"
            );
            return Err(Error::damaged("kdump header", why));
        }
        Ok(Self {
            version,
            machine: head.get(12..424).unwrap_or_default().to_vec(),
            incomplete: status & INCOMPLETE != 0,
            codecs: status & !INCOMPLETE,
            level: u32_at(&sub, 8).unwrap_or_default(),
            split,
            max_mapnr,
            bitmap_1: FileOffset(bitmaps),
            bitmap_2: FileOffset(bitmaps + second * PAGE_BYTES),
            descriptors: FileOffset(bitmaps + bitmap_blocks * PAGE_BYTES),
            notes: blob(48, 56, 4),
            vmcoreinfo: blob(32, 40, 3),
        })
    }

    /// The most that a file with this header can hold, in bytes.
    pub(crate) fn most_bytes(&self) -> u64 {
        let notes = self.notes.map_or(0, |(at, size)| at.0.saturating_add(size));
        let pages = self.max_mapnr.saturating_mul(DESCRIPTOR + PAGE_BYTES);
        self.descriptors.0.saturating_add(pages).saturating_add(PAGE_BYTES).max(notes)
    }
}
