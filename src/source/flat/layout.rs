//! What the headers within a flattened stream tell of the file: how large it can be, and which of it need not be written.

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::Error;
use crate::source::elf::{PN_XNUM, Vmcore};
use crate::source::kdump::{self, Header};
use crate::source::storage::ReadAt;
use crate::units::{FileOffset, PAGE_BYTES};
use goblin::elf::header::ELFMAG;
use goblin::elf::program_header::PT_NULL;

/// The ELF header; the first fields of `disk_dump_header` are shorter than that of kdump's format.
const EHDR: usize = 64;
const KDUMP_FIELDS: usize = 440;
/// A program header.
const PHDR: u64 = 56;
/// No more program headers are looked at to know whether they are lost.
const MOST_PHDRS: u64 = 1 << 16;

/// By the headers, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The most bytes that the file can have.
    pub(super) most: Option<u64>,
    /// Before this, what lies between headers and the next block need not be written.
    pub(super) padded: u64,
    /// Before this, makedumpfile writes some of the headers a second time.
    pub(super) rewritten: u64,
}

impl Layout {
    pub(super) fn of(file: &dyn ReadAt) -> Self {
        let mut head = vec![0; KDUMP_FIELDS];
        if file.read_exact_at(FileOffset(0), &mut head).is_ok() && head.starts_with(kdump::SIGNATURE) {
            let blocks = |at| u64::from(u32_at(&head, at).unwrap_or_default()) * PAGE_BYTES;
            let padded = PAGE_BYTES + blocks(432);
            let most = Header::read(file).ok().map(|h| h.most_bytes());
            return Self { most, padded, rewritten: padded + blocks(436) };
        }
        match phdrs(file) {
            Some((at, count)) => {
                let known = !all_null(file, at, count);
                let most = Vmcore::parse(file).ok().filter(|_| known).map(|core| core.most_bytes());
                Self { most, padded: 0, rewritten: at.saturating_add(count.saturating_mul(PHDR)) }
            }
            None => Self::default(),
        }
    }
}

/// Place and number of the program headers of an ELF file.
fn phdrs(file: &dyn ReadAt) -> Option<(u64, u64)> {
    let mut head = [0; EHDR];
    file.read_exact_at(FileOffset(0), &mut head).ok()?;
    if !head.starts_with(ELFMAG) {
        return None;
    }
    let (at, count) = (u64_at(&head, 32)?, u16_at(&head, 56)?);
    if count != PN_XNUM {
        return Some((at, u64::from(count)));
    }
    let mut section = [0; EHDR];
    file.read_exact_at(FileOffset(u64_at(&head, 40)?), &mut section).ok()?;
    Some((at, u64::from(u32_at(&section, 44)?)))
}

/// Whether program headers are placeholders.
fn all_null(file: &dyn ReadAt, at: u64, count: u64) -> bool {
    let is_null = |n| {
        let (mut kind, place) = ([0; 4], at.checked_add(n * PHDR));
        place.is_some_and(|p| file.read_exact_at(FileOffset(p), &mut kind).is_ok())
            && u32::from_le_bytes(kind) == PT_NULL
    };
    count > 0 && (0..count.min(MOST_PHDRS)).all(is_null)
}

/// Why nothing can be had of an ELF file in a flattened stream that ends too early: makedumpfile writes placeholders first,
/// and the program headers last.
pub(in crate::source) fn headers_lost(file: &dyn ReadAt) -> Option<Error> {
    let end = file.history().cut_at?;
    let (at, count) = phdrs(file)?;
    all_null(file, at, count).then(|| {
        let why = format!(
            "the flattened stream is cut short at byte {end}; makedumpfile -F -E writes them last, so that they are lost \
             and nothing tells where memory lies; the whole stream is needed, or one in the kdump format (makedumpfile -F \
             without -E) next time, which is used as far as it goes"
        );
        Error::damaged("program headers", why)
    })
}
