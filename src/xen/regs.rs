//! `cpu_user_regs`: a guest's registers, on a stack or in struct vcpu (Xen: asm/cpu-user-regs.h, public/arch-x86).
//!
//! | offset | field |
//! |---|---|
//! | 0 | r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi |
//! | 120 | error code, 32 bits; entry vector, 32 bits |
//! | 128 | rip |
//! | 136 | cs, 16 bits, and flags of Xen's own |
//! | 144 | rflags |
//! | 152 | rsp |
//! | 160 | ss, 16 bits |
//!
//! Up to Xen 4.20 es, ds, fs and gs follow (200 bytes in all); 4.21 ends here (commit 3c66a25672).

use super::hvm::Vmcb;
use crate::bytes::{u16_at, u64_at};
use crate::units::VirtAddr;
use std::collections::BTreeMap;

/// The part of `cpu_user_regs` that every version has: 21 words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserRegs {
    /// r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi.
    pub general: [u64; 15],
    /// Error code (low half) and entry vector.
    pub error: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Code selector as the guest has it under Xen: 0xe033 in its kernel.
    pub cs: u16,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack selector: 0xe02b in a PV kernel.
    pub ss: u16,
}

/// Bytes of [`UserRegs`] in memory.
pub(super) const REGS_BYTES: usize = 21 * 8;

impl UserRegs {
    /// Reads registers of whatever kind.
    pub(super) fn raw(bytes: &[u8], at: usize) -> Option<Self> {
        let word = |i: usize| u64_at(bytes, at.checked_add(i * 8)?);
        let (cs, ss) = (u16_at(bytes, at.checked_add(136)?)?, u16_at(bytes, at.checked_add(160)?)?);
        let mut general = [0; 15];
        for (i, r) in general.iter_mut().enumerate() {
            *r = word(i)?;
        }
        Some(Self { general, error: word(15)?, rip: word(16)?, cs, rflags: word(18)?, rsp: word(19)?, ss })
    }

    /// Reads registers of a 64-bit PV guest; `None` for anything else.
    pub(super) fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        // First: this is tried at each offset of a page.
        if !is_pv(u16_at(bytes, at.checked_add(136)?)?, u16_at(bytes, at.checked_add(160)?)?) {
            return None;
        }
        Self::any(bytes, at)
    }

    /// Whether they can be a 64-bit PV guest's.
    pub fn is_guest(&self) -> bool {
        is_pv(self.cs, self.ss) && self.is_sound()
    }

    /// Whether they can be anybody's in 64-bit mode.
    pub(super) fn is_sound(&self) -> bool {
        // Bit 1 of RFLAGS is always set, bits 22 and up never.
        self.rflags & 2 != 0
            && self.rflags >> 22 == 0
            && VirtAddr(self.rip).is_canonical()
            && VirtAddr(self.rsp).is_canonical()
    }

    /// The same of any guest in 64-bit mode, whatever the selectors.
    pub(super) fn any(bytes: &[u8], at: usize) -> Option<Self> {
        Self::raw(bytes, at).filter(Self::is_sound)
    }

    /// The registers of a VMCB, with the selectors of bare metal.
    pub(super) fn of_vmcb(vmcb: &Vmcb) -> Self {
        let mut general = [0; 15];
        if let Some(rax) = general.get_mut(10) {
            *rax = vmcb.rax;
        }
        let (cs, ss) = (vmcb.cs().selector, vmcb.ss().selector);
        Self { general, error: 0, rip: vmcb.rip, cs, rflags: vmcb.rflags, rsp: vmcb.rsp, ss }
    }

    /// Whether the vCPU was in its kernel: the upper half of the address space.
    pub fn in_kernel(&self) -> bool {
        self.rip >> 63 == 1
    }
}

/// Xen's flat ring-3 selectors, or Linux's own for user space (64-bit, 32-bit).
fn is_pv(cs: u16, ss: u16) -> bool {
    matches!(cs, 0xe033 | 0x33 | 0x23 | 0xe023) && matches!(ss, 0xe02b | 0x2b)
}

/// The offset at which most of these memories have registers; the lowest of several.
pub(super) fn common_offset<'v>(memories: impl Iterator<Item = &'v [u8]>) -> Option<usize> {
    let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
    for bytes in memories {
        let fits =
            (0..bytes.len().saturating_sub(REGS_BYTES)).step_by(8).filter(|at| UserRegs::parse(bytes, *at).is_some());
        fits.for_each(|at| *votes.entry(at).or_default() += 1);
    }
    votes.into_iter().max_by_key(|(at, n)| (*n, std::cmp::Reverse(*at))).map(|(at, _)| at)
}

/// The offset at which most of these memories have the registers of the VMCB beside them.
pub(super) fn offset_by_vmcb<'v>(memories: impl Iterator<Item = (Option<Vmcb>, &'v [u8])>) -> Option<usize> {
    let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
    for (vmcb, bytes) in memories {
        let agrees =
            |at: &usize| UserRegs::any(bytes, *at).is_some_and(|r| vmcb.is_some_and(|v| v.agrees(r.rip, r.rsp)));
        let fits = (0..bytes.len().saturating_sub(REGS_BYTES)).step_by(8).filter(agrees);
        fits.for_each(|at| *votes.entry(at).or_default() += 1);
    }
    votes.into_iter().max_by_key(|(at, n)| (*n, std::cmp::Reverse(*at))).map(|(at, _)| at)
}
