//! What writes a file: the notes of a native dump, and the three formats.

pub mod elf;
pub mod kdump;
pub mod notes;
mod output;
pub mod xc_core;

pub use output::Output;

use crate::error::Absence;
use std::collections::BTreeMap;

/// What a format wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pages stored.
    pub stored: u64,
    /// Zero pages, which readers see but the file does not hold.
    pub zero: u64,
    /// Pages that could not be had while writing, by reason; readers see them as missing.
    pub lost: BTreeMap<Absence, u64>,
    /// Size of the file in bytes.
    pub bytes: u64,
}

impl Written {
    /// All pages that could not be had.
    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }
}
