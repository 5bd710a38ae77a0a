//! `vcpu_guest_context` of a 64-bit guest, 5168 bytes: a vCPU as Xen tells of it to a toolstack (Xen: public/arch-x86/xen.h).
//!
//! | offset | field |
//! |---|---|
//! | 512 | flags: bit 5 online |
//! | 520 | `cpu_user_regs`, see [`super::regs`] |
//! | 4984 | cr0 to cr7; cr3 of a PV vCPU holds the MFN of its root table, cr1 that of its processes' |

use super::hvm::Control;
use super::regs::UserRegs;
use crate::bytes::u64_at;
use crate::units::{Mfn, PAGE_SHIFT, PTE_FRAME_MASK};

const FLAGS: usize = 512;
const REGS: usize = 520;
const CONTROL: usize = 4984;
const ONLINE: u64 = 1 << 5;

/// What a context tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The registers; nothing if they can be nobody's in 64-bit mode.
    pub regs: Option<UserRegs>,
    /// cr0, cr2, cr3 and cr4.
    pub control: Control,
    /// Root table of a PV vCPU's processes, where it has one of its own.
    pub user_root: u64,
    /// Whether the vCPU was up.
    pub online: bool,
}

impl Context {
    /// Reads one; `None` if it is cut short.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let cr = |n: usize| u64_at(bytes, CONTROL + 8 * n);
        Some(Self {
            regs: UserRegs::any(bytes, REGS),
            control: Control { cr0: cr(0)?, cr2: cr(2)?, cr3: cr(3)?, cr4: cr(4)? },
            user_root: cr(1)?,
            online: u64_at(bytes, FLAGS)? & ONLINE != 0,
        })
    }

    /// The root tables of a PV vCPU.
    pub fn roots(&self) -> impl Iterator<Item = Mfn> {
        let root = |cr3: u64| Mfn((cr3 & PTE_FRAME_MASK) >> PAGE_SHIFT);
        [self.control.cr3, self.user_root].into_iter().map(root).filter(|mfn| mfn.0 != 0)
    }
}
