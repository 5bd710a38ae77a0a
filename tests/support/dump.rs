//! What both readers of dumps have in common.

use std::collections::BTreeSet;
use std::path::Path;

/// Bytes in a page.
pub(crate) const PAGE: usize = 4096;

/// A page's bytes.
pub(crate) type Page = Box<[u8; PAGE]>;

/// An ELF note.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Note {
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) desc: Vec<u8>,
}

/// A dump by page frame number.
pub(crate) trait Dump {
    /// All frames that a reader of this dump gets an answer for, zero or not.
    fn frames(&self) -> BTreeSet<u64>;
    /// A frame's bytes, or None where a reader would say that the page is not there.
    fn page(&self, frame: u64) -> Option<Page>;
    /// Is it in a file that may be incomplete?
    fn is_there(&self, frame: u64) -> bool;
    /// The notes in their order.
    fn notes(&self) -> &[Note];
}

/// Opens an output of ours by its first bytes.
pub(crate) fn open(path: &Path) -> Box<dyn Dump> {
    let mut magic = [0; 64];
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut magic, 0).unwrap();
    if magic.starts_with(b"\x7fELF") && u16_at(&magic, 56) == 0 {
        // Sections alone.
        Box::new(super::core::Core::open(path))
    } else if magic.starts_with(b"\x7fELF") {
        Box::new(super::elf::Elf::open(path))
    } else {
        Box::new(super::kdump::Kdump::open(path))
    }
}

/// Splits a note segment; names lose their terminating zero.
pub(crate) fn parse_notes(mut bytes: &[u8]) -> Vec<Note> {
    let mut notes = Vec::new();
    while bytes.len() >= 12 {
        let [name_len, desc_len] = [0, 4].map(|at| u32_at(bytes, at) as usize);
        let kind = u32_at(bytes, 8);
        if name_len == 0 && desc_len == 0 && kind == 0 {
            break; // padding at the end
        }
        let desc_at = 12 + name_len.next_multiple_of(4);
        let name = String::from_utf8_lossy(&bytes[12..12 + name_len]).trim_end_matches('\0').to_string();
        notes.push(Note { name, kind, desc: bytes[desc_at..desc_at + desc_len].to_vec() });
        bytes = &bytes[(desc_at + desc_len.next_multiple_of(4)).min(bytes.len())..];
    }
    notes
}

/// A little-endian number.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// A little-endian number.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A little-endian number.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
