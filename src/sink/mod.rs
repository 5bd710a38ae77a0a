//! What writes a file: the notes of a native dump, and the two formats.

pub mod elf;
pub mod kdump;
pub mod notes;
mod output;

pub use output::Output;

/// What a format wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pages stored.
    pub stored: u64,
    /// Zero pages, which readers see but the file does not hold.
    pub zero: u64,
    /// Pages that could not be read while writing; readers see them as missing.
    pub lost: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}
