//! vCPUs of translated domains (HVM, PVH): their control registers and segments.
//!
//! AMD's VMCB is plain memory: a page that struct vcpu points to (`arch.hvm.svm.vmcb`), known by what must hold in it (AMD64
//! Architecture Programmer's Manual, volume 2, appendix B). Intel's VMCS is not; of its content struct vcpu has copies of the
//! control registers only (`arch.hvm.guest_cr`), made at each exit. On both, rip, rsp and rflags are copied into Xen's
//! `cpu_user_regs` at each exit, and rip moves on there when Xen steps over an instruction.
//!
//! | offset in the VMCB | field |
//! |---|---|
//! | 0x90 | nested paging is on: bit 0 |
//! | 0xb0 | root of the nested tables |
//! | 0x400 | es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr: 16 bytes each: selector, attributes, limit (32 bits), base |
//! | 0x4d0, 0x548, 0x550, 0x558 | efer, cr4, cr3, cr0 |
//! | 0x570, 0x578, 0x5d8, 0x5f8 | rflags, rip, rsp, rax |
//! | 0x620, 0x640 | KernelGSBase, cr2 |

use super::hypervisor::Hypervisor;
use super::p2m::hap;
use crate::bytes::{u16_at, u32_at, u64_at, words};
use crate::units::{MAX_FRAME, PAGE_BYTES, PAGE_SHIFT, VirtAddr};

/// Segments in a VMCB.
const SEGMENTS: usize = 10;
/// Positions of them.
const CS: usize = 1;
const SS: usize = 2;
/// CR0: protection and paging are on. CR4: PAE; five levels.
const CR0_ON: u64 = 1 << 31 | 1;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
/// EFER: long mode is active.
const LONG_MODE: u64 = 1 << 10;
/// No instruction is longer.
const MOST_INSTRUCTION: u64 = 15;

/// A segment register as AMD's VMCB has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Attributes: bits 8-15 and 20-23 of the descriptor's upper half, put together.
    pub attributes: u16,
    /// Limit.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

/// Control registers of a vCPU of a translated domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3: a guest-physical address.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
}

/// What a VMCB says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vmcb {
    /// Control registers.
    pub control: Control,
    /// es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr.
    pub segments: [Segment; SEGMENTS],
    /// Flags.
    pub rflags: u64,
    /// Instruction pointer at the last exit.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// rax.
    pub rax: u64,
    /// KernelGSBase, as of the last time that Xen saved it.
    pub kernel_gs: u64,
    /// Root of the nested tables; 0 if there are none.
    pub nested: u64,
}

impl Control {
    /// Whether these can be the registers of a vCPU in 64-bit mode.
    pub(super) fn is_sound(&self) -> bool {
        self.cr0 & CR0_ON == CR0_ON
            && self.cr0 >> 32 == 0
            && self.cr4 & CR4_PAE != 0
            && self.cr4 >> 32 == 0
            && (1..=MAX_FRAME).contains(&(self.cr3 >> PAGE_SHIFT))
    }

    /// Whether page tables have five levels.
    pub fn five_levels(&self) -> bool {
        self.cr4 & CR4_LA57 != 0
    }
}

impl Vmcb {
    /// Reads a page; `None` if it cannot be the VMCB of a vCPU in 64-bit mode.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let word = |at| u64_at(page, at);
        let mut segments = [Segment::default(); SEGMENTS];
        for (at, segment) in (0x400..).step_by(16).zip(&mut segments) {
            *segment = Segment {
                selector: u16_at(page, at)?,
                attributes: u16_at(page, at + 2)?,
                limit: u32_at(page, at + 4)?,
                base: word(at + 8)?,
            };
        }
        let control = Control { cr0: word(0x558)?, cr2: word(0x640)?, cr3: word(0x550)?, cr4: word(0x548)? };
        let vmcb = Self {
            control,
            segments,
            rflags: word(0x570)?,
            rip: word(0x578)?,
            rsp: word(0x5d8)?,
            rax: word(0x5f8)?,
            kernel_gs: word(0x620)?,
            nested: if word(0x90)? & 1 != 0 { word(0xb0)? } else { 0 },
        };
        let code = vmcb.cs().attributes;
        // Present, not a system segment, code.
        let sound = control.is_sound()
            && code & 0x98 == 0x98
            && word(0x4d0)? & LONG_MODE != 0
            && vmcb.rflags & 2 != 0
            && vmcb.rflags >> 22 == 0
            && VirtAddr(vmcb.rip).is_canonical();
        sound.then_some(vmcb)
    }

    /// The code segment.
    pub fn cs(&self) -> Segment {
        self.segments.get(CS).copied().unwrap_or_default()
    }

    /// The stack segment.
    pub fn ss(&self) -> Segment {
        self.segments.get(SS).copied().unwrap_or_default()
    }

    /// Whether registers are those that Xen took over from this VMCB: at the same place, or behind the instruction there.
    pub fn agrees(&self, rip: u64, rsp: u64) -> bool {
        rsp == self.rsp && rip.wrapping_sub(self.rip) <= MOST_INSTRUCTION
    }
}

/// Finds the VMCB that a struct vcpu points to. If the root of the domain's tables is known, it must be that one's.
pub fn vmcb(xen: &Hypervisor<'_>, root: Option<hap::Root>, vcpu: &[u8]) -> Option<Vmcb> {
    let pointers = words(vcpu).filter(|p| *p >= xen.direct_map && p.is_multiple_of(PAGE_BYTES));
    pointers.map(VirtAddr).find_map(|va| {
        let mfn = xen.space.translate(va).ok()?.addr.mfn();
        // What belongs to a domain is what the domain likes to be believed.
        let owned = xen.frames.get(mfn).is_some_and(|i| i.has_owner(xen.state_bits) && Some(i.owner) != xen.dom_xen);
        let vmcb = Vmcb::parse(&xen.memory().page(mfn).ok()?).filter(|_| !owned)?;
        let nested = vmcb.nested >> PAGE_SHIFT;
        (nested == 0 || root.is_none_or(|r| r.mfn.0 == nested)).then_some(vmcb)
    })
}

/// The control registers that struct vcpu has copies of: cr0, one that is unused, cr2, cr3, cr4 in a row. `is_memory` says
/// whether a page is the domain's.
pub fn guest_cr(vcpu: &[u8], is_memory: impl Fn(u64) -> bool) -> Option<Control> {
    (0..vcpu.len()).step_by(8).find_map(|at| {
        let word = |i: usize| u64_at(vcpu, at + i * 8);
        let control = Control { cr0: word(0)?, cr2: word(2)?, cr3: word(3)?, cr4: word(4)? };
        // Low bits of CR3 are flags, or the number of the address space.
        (word(1)? == 0 && control.is_sound() && is_memory(control.cr3 >> PAGE_SHIFT & MAX_FRAME)).then_some(control)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<u8> {
        let mut page = vec![0; 4096];
        for (at, value) in [
            (0x90, 1_u64),
            (0xb0, 0x1234_5000),
            (0x410, 0xffff_ffff_029b_0010),
            (0x4d0, 0x1d01),
            (0x548, 0x3506f0),
            (0x550, 0x260_a000),
            (0x558, 0x8005_0033),
            (0x570, 0x246),
            (0x578, 0xffff_ffff_8100_0010),
            (0x5d8, 0xffff_ffff_8260_3e90),
        ] {
            page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        page
    }

    #[test]
    fn a_vmcb() {
        let vmcb = Vmcb::parse(&page()).unwrap();
        assert_eq!((vmcb.cs().selector, vmcb.nested, vmcb.control.cr3), (0x10, 0x1234_5000, 0x260_a000));
        assert!(vmcb.agrees(0xffff_ffff_8100_0011, 0xffff_ffff_8260_3e90));
        assert!(!vmcb.agrees(0xffff_ffff_8100_0000, 0xffff_ffff_8260_3e90));
        for at in [0x412, 0x4d1, 0x548, 0x550, 0x558, 0x570] {
            let mut page = page();
            page[at..at + 4].fill(0);
            assert_eq!(Vmcb::parse(&page), None, "{at:#x}");
        }
        assert_eq!(Vmcb::parse(&page()[..0x600]), None);
    }

    #[test]
    fn copies_of_control_registers() {
        let mut vcpu = vec![0; 4096];
        for (at, value) in [(0x800, 0x8005_0033_u64), (0x810, 0x7f00), (0x818, 0x260_a001), (0x820, 0x3506f0)] {
            vcpu[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let control = guest_cr(&vcpu, |pfn| pfn == 0x260a).unwrap();
        assert_eq!((control.cr2, control.cr3), (0x7f00, 0x260_a001));
        assert_eq!(guest_cr(&vcpu, |_| false), None);
    }
}
