//! `vcpu_guest_context` of a 64-bit guest, 5168 bytes: a vCPU as Xen tells of it to a toolstack (Xen: public/arch-x86/xen.h).
//!
//! | offset | field |
//! |---|---|
//! | 0 | FPU and SSE registers as FXSAVE has them |
//! | 512 | flags: bit 0 FPU registers are there, 2 in the kernel, 3 and 4 what Xen disables events for, 5 online |
//! | 520 | `cpu_user_regs`, see [`super::regs`], with es, ds, fs and gs |
//! | 720 | of a PV vCPU 256 traps, 16 bytes each |
//! | 4816 | of a PV vCPU LDT address and entries, 16 frames of the GDT, its entries, kernel ss and rsp |
//! | 4984 | cr0 to cr7; cr3 of a PV vCPU holds the MFN of its root table, cr1 that of its processes' |
//! | 5048 | dr0 to dr7 |
//! | 5112 | of a PV vCPU the addresses for events, faults in Xen's return, and system calls |
//! | 5136 | `vm_assist`; bases of fs, gs in the kernel, and gs in processes |

use super::hvm::Control;
use super::regs::UserRegs;
use crate::bytes::u64_at;
use crate::units::{Mfn, PAGE_SHIFT, PTE_FRAME_MASK};

pub(super) const FLAGS: usize = 512;
pub(super) const REGS: usize = 520;
pub(super) const TRAPS: usize = 720;
pub(super) const LDT: usize = 4816;
pub(super) const GDT: usize = 4832;
pub(super) const GDT_ENTRIES: usize = 4960;
pub(super) const CONTROL: usize = 4984;
pub(super) const DEBUG: usize = 5048;
pub(super) const CALLBACKS: usize = 5112;
pub(super) const BASES: usize = 5144;
pub(super) const ONLINE: u64 = 1 << 5;

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
