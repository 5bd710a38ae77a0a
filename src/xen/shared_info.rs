//! The shared info page of a PV domain (Xen: public/xen.h, public/arch-x86/xen.h), 64-bit layout.
//!
//! | offset | field |
//! |---|---|
//! | 0xc10 | arch.max_pfn: number of P2M entries |
//! | 0xc18 | arch.pfn_to_mfn_frame_list_list: MFN of the P2M tree's top; 0 not set up, ~0 on purpose not there |
//! | 0xc28 | arch.p2m_cr3: machine address of the kernel's root table (Linux 3.19 and later) |
//! | 0xc30 | arch.p2m_vaddr: where the linear P2M is mapped |
//! | 0xc38 | arch.p2m_generation: odd while the kernel changes the mapping of the linear P2M |

use crate::bytes::u64_at;
use crate::units::{MachineAddr, Mfn, VirtAddr};

/// What the page says about the P2M.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedInfo {
    /// The page itself: a Xen-heap page that the domain owns.
    pub mfn: Mfn,
    /// Number of P2M entries.
    pub max_pfn: u64,
    /// Top of the P2M tree.
    pub frame_list_list: Mfn,
    /// Root of the kernel's page tables; 0 if the kernel does not tell.
    pub p2m_cr3: MachineAddr,
    /// The linear P2M.
    pub p2m_vaddr: VirtAddr,
    /// Whether the kernel was changing the linear P2M's mapping.
    pub p2m_changing: bool,
}

impl SharedInfo {
    /// Reads the fields; `None` if they cannot be those of a shared info.
    pub fn parse(mfn: Mfn, page: &[u8]) -> Option<Self> {
        let word = |at| u64_at(page, at);
        let max_pfn = word(0xc10)?;
        // Linux's MAXMEM is 46 bits, and Xen has no PV domain beyond 16 TiB: 40 bits of PFN are ample.
        (max_pfn <= 1 << 40).then_some(Self {
            mfn,
            max_pfn,
            frame_list_list: Mfn(word(0xc18)?),
            p2m_cr3: MachineAddr(word(0xc28)?),
            p2m_vaddr: VirtAddr(word(0xc30)?),
            p2m_changing: word(0xc28)? != 0 && word(0xc38)? & 1 != 0,
        })
    }

    /// Whether a PV kernel has told Xen of its P2M. HVM and PVH domains have zeros here.
    pub fn has_p2m(&self) -> bool {
        !matches!(self.frame_list_list.0, 0 | u64::MAX) || self.p2m_cr3.0 != 0
    }
}
