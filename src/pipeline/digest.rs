//! A checksum of what a reader of the output sees, the same for all formats of one cut.
//!
//! BLAKE3 over the digests of all pages in order of PFN; a page's is BLAKE3 over its PFN (8 bytes, little-endian) and its
//! 4096 bytes. Zero pages count like any other. So workers hash pages, in any order, and anybody can check it with a reader
//! of any format. In the machine layout MFNs stand for PFNs.

use crate::units::{PAGE_SIZE, Pfn};

/// Hex digits of the whole.
pub const HEX_DIGITS: usize = 2 * blake3::OUT_LEN;

/// The digests of pages in a row, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Leaves(Vec<u8>);

impl Leaves {
    /// Takes all out again.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends a page's.
    pub fn push(&mut self, pfn: Pfn, page: &[u8]) {
        let hash = blake3::Hasher::new().update(&pfn.0.to_le_bytes()).update(page).finalize();
        self.0.extend(hash.as_bytes());
    }

    /// Appends those of `count` zero pages.
    pub fn push_zeros(&mut self, pfn: Pfn, count: u64) {
        (0..count).for_each(|n| self.push(Pfn(pfn.0 + n), &[0; PAGE_SIZE]));
    }
}

/// The whole, to which the pages are handed in order.
#[derive(Clone, Debug, Default)]
pub struct Digest(blake3::Hasher);

impl Digest {
    /// Adds pages that come next.
    pub fn add(&mut self, leaves: &Leaves) {
        self.0.update(&leaves.0);
    }

    /// As text: [`HEX_DIGITS`] of them.
    pub fn text(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}
