//! The machine-to-physical table: Xen's `u64` per MFN, the PFN that a domain gave the frame.

use super::paging::AddressSpace;
use crate::bytes::u64_at;
use crate::units::{Mfn, Pfn, VirtAddr};

/// RDWR_MPT_VIRT_START, the same in every Xen from 3.1 on. Indexed by MFN, not PDX.
pub(super) const M2P: u64 = 0xffff_8280_0000_0000;
const BLOCK: u64 = 512;
/// Up to Xen 4.1 unset entries are 0x5555…; no PFN is this large.
const MOST_PFN: u64 = 1 << 52;

/// Reads the table a page at a time.
#[derive(Debug)]
pub struct M2p<'a> {
    space: AddressSpace<'a>,
    first: Option<u64>,
    block: Vec<u8>,
    readable: bool,
}

impl<'a> M2p<'a> {
    /// `space` is the hypervisor's.
    pub fn new(space: AddressSpace<'a>) -> Self {
        Self { space, first: None, block: vec![0; (BLOCK * 8) as usize], readable: false }
    }

    /// The PFN of a frame; `None` if the table says nothing (invalid, shared, never set) or cannot be read.
    pub fn get(&mut self, mfn: Mfn) -> Option<Pfn> {
        let first = mfn.0 - mfn.0 % BLOCK;
        if self.first != Some(first) {
            self.first = Some(first);
            let va = first.checked_mul(8).and_then(|o| M2P.checked_add(o)).map(VirtAddr);
            self.readable = va.is_some_and(|va| self.space.read("the M2P", va, &mut self.block).is_ok());
        }
        let pfn = u64_at(&self.block, (mfn.0 - first) as usize * 8).filter(|_| self.readable)?;
        (pfn < MOST_PFN).then_some(Pfn(pfn))
    }
}
