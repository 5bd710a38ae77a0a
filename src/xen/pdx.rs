//! PDX compression, read off the direct map.
//!
//! Xen indexes its frame table and its direct map by PDX. On x86 a PDX is the MFN in Xen 4.18 to 4.20 and wherever RAM
//! is dense; otherwise bits are squeezed out (masks up to 4.17, offsets from 4.21, Xen commit c5c45bcbd6). No note says
//! how, but the page tables of the direct map do. The low 20 bits are never touched (MAX_ORDER), and the direct map is
//! linear within each GiB, so one present leaf per GiB tells everything.

use super::paging::{AddressSpace, PSE, frame};
use crate::units::{Mfn, Pdx, VirtAddr};

/// Base of the direct map: L4 slot 262.
pub const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
/// The same in a BIGMEM build (frame table entries of 48 bytes): L4 slot 265.
pub const DIRECT_MAP_BIGMEM: u64 = 0xffff_8480_0000_0000;
/// Frames per GiB: one L3 entry.
const CHUNK: u64 = 1 << 18;
/// Frames that compression leaves in order: 2^MAX_ORDER.
const BLOCK: u64 = 1 << 20;
/// L4 slots of the direct map end here (Xen: slot 511 is never used by it).
const LAST_SLOT: u64 = 510;

/// MFN to PDX and back, in chunks of one GiB of frames.
#[derive(Clone, Debug, Default)]
pub struct PdxMap {
    /// First MFN and first PDX of each mapped chunk, by MFN.
    chunks: Vec<(u64, u64)>,
    linear: bool,
}

impl PdxMap {
    /// Reads the direct map from `base` on. The cost is two table entries per GiB of the machine.
    pub fn read(space: &AddressSpace<'_>, base: u64) -> Self {
        let first_slot = base >> 39 & 511;
        let mut chunks = Vec::new();
        for (slot, l4e) in space.entries(space.root()) {
            if !(first_slot..=LAST_SLOT).contains(&slot) {
                continue;
            }
            for (index, l3e) in space.entries(frame(l4e)) {
                let pdx = ((slot - first_slot) << 9 | index) * CHUNK;
                // A chunk's first leaf may not be its first page; what counts is the distance, and MFN and PDX agree
                // in the low 20 bits.
                let leaf =
                    if l3e & PSE != 0 { Some(frame(l3e).0 & !(CHUNK - 1)) } else { first_leaf(space, frame(l3e)) };
                chunks.extend(leaf.map(|mfn| (mfn & !(CHUNK - 1), pdx)));
            }
        }
        chunks.sort_unstable();
        chunks.dedup_by_key(|c| c.0);
        let linear = chunks.iter().all(|(mfn, pdx)| mfn == pdx);
        Self { chunks, linear }
    }

    /// Whether PDX and MFN are the same throughout.
    pub fn is_linear(&self) -> bool {
        self.linear
    }

    /// Where frames can be: first MFN and one more than the last of each run of 4 GiB blocks that the direct map has some
    /// of. Holes of the machine are far larger than its memory.
    pub fn blocks(&self) -> Vec<(u64, u64)> {
        if self.chunks.is_empty() {
            // Nothing is known: anywhere.
            return vec![(0, u64::MAX)];
        }
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &(mfn, _) in &self.chunks {
            let first = mfn & !(BLOCK - 1);
            match runs.last_mut() {
                Some((_, end)) if first <= *end => *end = first + BLOCK,
                _ => runs.push((first, first + BLOCK)),
            }
        }
        runs
    }

    /// The PDX of a frame. A frame that the direct map does not have is taken to be linear with its 4 GiB block.
    pub fn pdx(&self, mfn: Mfn) -> Option<Pdx> {
        if self.linear {
            return Some(Pdx(mfn.0));
        }
        let block = |n: u64| n / BLOCK;
        let next = self.chunks.partition_point(|c| c.0 <= mfn.0);
        let near = [next.checked_sub(1), Some(next)];
        let chunk =
            near.into_iter().flatten().filter_map(|i| self.chunks.get(i)).find(|c| block(c.0) == block(mfn.0))?;
        // Wrapping: the chunk may start above the frame.
        Some(Pdx(mfn.0.wrapping_sub(chunk.0).wrapping_add(chunk.1)))
    }
}

fn first_leaf(space: &AddressSpace<'_>, l2: Mfn) -> Option<u64> {
    // A sound table has a leaf at once.
    space.entries(l2).into_iter().take(4).find_map(|(_, l2e)| {
        if l2e & PSE != 0 { Some(frame(l2e).0) } else { space.entries(frame(l2e)).first().map(|(_, e)| frame(*e).0) }
    })
}

/// The base of the direct map, by which of the two slots maps machine address 0 (both builds map it there).
pub fn direct_map_base(space: &AddressSpace<'_>) -> u64 {
    let maps_zero = |base| space.translate(VirtAddr(base)).is_ok_and(|m| m.addr.0 == 0);
    if !maps_zero(DIRECT_MAP) && maps_zero(DIRECT_MAP_BIGMEM) { DIRECT_MAP_BIGMEM } else { DIRECT_MAP }
}
