//! The CPU state that QEMU's `dump-guest-memory` writes for each CPU of a machine (QEMU: target/i386/arch_dump.c).
//!
//! | offset | field |
//! |---|---|
//! | 0, 4 | version (1), size |
//! | 8 | rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 to r15, rip, rflags |
//! | 152 | ten segments of 24 bytes: cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt; selector `u32`, limit, flags, 0, base `u64` |
//! | 392 | cr0 to cr4 |
//!
//! It is the *machine's* CPU, whatever it was doing: in Xen, in a PV guest (ring 3, Xen's tables), or in an HVM guest.

use super::hvm::Control;
use super::paging::AddressSpace;
use super::vcpu::UserRegs;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::units::VirtAddr;

const REGISTERS: usize = 8;
const SEGMENTS: usize = 152;
const SEGMENT: usize = 24;
const BASE: usize = 16;
const SS: usize = SEGMENTS + 5 * SEGMENT;
const TR: usize = SEGMENTS + 7 * SEGMENT;
const CR0: usize = 392;
/// Where [`UserRegs::general`] has its registers here, by number of the word.
const ORDER: [usize; 15] = [15, 14, 13, 12, 7, 1, 11, 10, 9, 8, 0, 2, 3, 4, 5];
/// rsp0 in the 64-bit task state segment.
const RSP0: u64 = 4;

/// What is of use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QemuCpu {
    /// All registers.
    pub regs: UserRegs,
    /// Control registers. CR3 is Xen's if the CPU was in Xen or in a PV guest.
    pub control: Control,
    /// The task state segment: Xen's if the CPU was in Xen or in a PV guest.
    pub tss: VirtAddr,
}

impl QemuCpu {
    /// Reads a note; `None` for another version of it, or a note that is cut off.
    pub fn parse(desc: &[u8]) -> Option<Self> {
        let register = |i: usize| u64_at(desc, REGISTERS + i * 8);
        if u32_at(desc, 0) != Some(1) {
            return None;
        }
        let mut general = [0; 15];
        for (to, from) in general.iter_mut().zip(ORDER) {
            *to = register(from)?;
        }
        let regs = UserRegs {
            general,
            error: 0,
            rip: register(16)?,
            cs: u16_at(desc, SEGMENTS)?,
            rflags: register(17)?,
            rsp: register(6)?,
            ss: u16_at(desc, SS)?,
        };
        let cr = |n: usize| u64_at(desc, CR0 + n * 8);
        let control = Control { cr0: cr(0)?, cr2: cr(2)?, cr3: cr(3)?, cr4: cr(4)? };
        Some(Self { regs, control, tss: VirtAddr(u64_at(desc, TR + BASE)?) })
    }

    /// The guest's registers, if the CPU was in a 64-bit PV guest: newer than what its way into Xen left on the stack.
    pub fn guest(&self) -> Option<UserRegs> {
        (self.regs.cs & 3 == 3 && self.regs.is_guest()).then_some(self.regs)
    }

    /// An address in the CPU's hypervisor stack: where the processor would go from ring 3.
    pub fn stack(&self, space: &AddressSpace<'_>) -> Option<u64> {
        space.read_u64("a task state segment", VirtAddr(self.tss.0.checked_add(RSP0)?)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_register_has_its_place() {
        let mut desc: Vec<u8> = (0..55_u64).flat_map(|w| (w * 0x100).to_le_bytes()).collect();
        desc[..8].copy_from_slice(&[1, 0, 0, 0, 0xb8, 1, 0, 0]);
        let cpu = QemuCpu::parse(&desc).unwrap();
        // r15, rbx, rax and rdi stand as words 16, 2, 1 and 6.
        assert_eq!([0, 5, 10, 14].map(|i| cpu.regs.general[i]), [0x1000, 0x200, 0x100, 0x600]);
        assert_eq!((cpu.regs.rsp, cpu.regs.rip, cpu.regs.rflags), (0x700, 0x1100, 0x1200));
        assert_eq!((cpu.regs.cs, cpu.regs.ss), (0x1300, 0x2200));
        assert_eq!((cpu.tss, cpu.control.cr3, cpu.control.cr4), (VirtAddr(0x2a00), 0x3400, 0x3500));
        assert_eq!(cpu.guest(), None);
        assert!((0..432).all(|n| QemuCpu::parse(&desc[..n]).is_none()));
        desc[0] = 2;
        assert_eq!(QemuCpu::parse(&desc), None);
    }
}
