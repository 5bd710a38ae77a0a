//! The notes of a dump. In the native layout they are as if the domain's kernel had crashed on bare metal:
//!
//! | name | type | descriptor |
//! |---|---|---|
//! | `CORE` | 1 | `NT_PRSTATUS` of each vCPU, 336 bytes, in order; `pr_pid` is the CPU's number + 1 |
//! | `QEMU` | 0 | QEMU's CPU state of each vCPU, 440 bytes |
//! | `VMCOREINFO` | 0 | the kernel's own text |
//! | `XDUMPCUT` | 0x78637574 | what was cut and altered, lines `KEY=value` |
//!
//! Readers differ in what they take registers from (tried with crash 8.0.6 and drgn 0.0.31): drgn looks for the
//! NT_PRSTATUS with `pr_pid` CPU + 1, as QEMU writes it; crash uses NT_PRSTATUS for some tasks only, but a QEMU note
//! for every CPU, also for one that a panic stopped and marked offline. No `Xen` note may be there: crash would
//! translate pages again.
//!
//! In the machine layout they are the source's, in their order, with the last word of the crash note set for the domain;
//! `VMCOREINFO` behind them, unless the source has one, and `XDUMPCUT`. makedumpfile needs the former to filter without a
//! vmlinux.

use crate::bytes::{u32_at, u64_at};
use crate::pipeline::digest::HEX_DIGITS;
use crate::source::notes::Note;
use crate::units::{Mfn, PAGE_SHIFT, Pfn};
use crate::xen::hvm::Control;
use crate::xen::notes::{CrashInfo, XEN_CRASH_INFO};
use crate::xen::vcpu::{UserRegs, Vcpu};

/// Type of the note that this program leaves: "xcut". crash goes by types alone in kdump-compressed files, so it must
/// be none that crash knows (1 would be one more CPU).
pub const XDUMPCUT_TYPE: u32 = 0x7863_7574;
/// Before the digest's hex digits, on the last line of that note.
pub const DIGEST_LINE: &str = "DIGEST=blake3:";
const NT_PRSTATUS: u32 = 1;
const PRSTATUS_SIZE: usize = 336;
const PR_PID: usize = 32;
const PR_REG: usize = 112;
const QEMU_SIZE: usize = 440;
const QEMU_SEGMENTS: usize = 8 + 18 * 8;
const QEMU_CR: usize = QEMU_SEGMENTS + 10 * 24;

/// Notes as bytes, each padded to 4.
#[derive(Clone, Debug, Default)]
pub struct NoteBlob {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Position and size of the VMCOREINFO text in them.
    pub vmcoreinfo: Option<(usize, usize)>,
    /// Position of the digest's hex digits in them, which are zeros until all pages are known.
    pub digest: Option<usize>,
}

impl NoteBlob {
    /// All notes of a dump. `root` is the kernel's root table, for CR3; `about` the text of the XDUMPCUT note,
    /// which gets room for a digest.
    pub fn new(vcpus: &[Vcpu], vmcoreinfo: Option<&str>, root: Option<Pfn>, about: &str, digest: bool) -> Self {
        let mut blob = Self::default();
        for v in vcpus.iter().filter(|v| v.has_note()) {
            blob.push(b"CORE", NT_PRSTATUS, &prstatus(v.id.saturating_add(1), v.regs.unwrap_or_default()));
        }
        for v in vcpus.iter().filter(|v| v.has_note()) {
            blob.push(b"QEMU", 0, &qemu_state(v, root));
        }
        if let Some(text) = vmcoreinfo {
            let at = blob.push(b"VMCOREINFO", 0, text.as_bytes());
            blob.vmcoreinfo = Some((at, text.len()));
        }
        blob.push_about(about, digest);
        blob
    }

    /// All notes of a dump in the machine layout: those of the source, where `list` is the frame of the domain's
    /// pfn_to_mfn_frame_list_list, and the crash note if it lacks that.
    pub fn machine<'n>(
        source: impl Iterator<Item = Note<'n>>,
        xen: &CrashInfo,
        list: Mfn,
        vmcoreinfo: Option<&str>,
        about: &str,
        digest: bool,
    ) -> Self {
        let mut blob = Self::default();
        let mut crash = false;
        for note in source {
            crash |= (note.name, note.kind) == (b"Xen", XEN_CRASH_INFO);
            let mut desc = note.desc.to_vec();
            if (note.name, note.kind) == (b"Xen", XEN_CRASH_INFO) {
                let last = desc.len().saturating_sub(8);
                put(&mut desc, last, &list.0.to_le_bytes());
            }
            let at = blob.push(note.name, note.kind, &desc);
            if note.name == b"VMCOREINFO" {
                blob.vmcoreinfo = Some((at, desc.len()));
            }
        }
        // crash needs it; what was found in memory goes into it.
        if !crash {
            let desc: Vec<u8> = xen.words(list).into_iter().flat_map(u64::to_le_bytes).collect();
            blob.push(b"Xen", XEN_CRASH_INFO, &desc);
        }
        if let (None, Some(text)) = (blob.vmcoreinfo, vmcoreinfo) {
            let at = blob.push(b"VMCOREINFO", 0, text.as_bytes());
            blob.vmcoreinfo = Some((at, text.len()));
        }
        blob.push_about(about, digest);
        blob
    }

    /// The notes of a cut once more, with this text in its XDUMPCUT note.
    pub fn again<'n>(source: impl Iterator<Item = Note<'n>>, about: &str, digest: bool) -> Self {
        let mut blob = Self::default();
        for note in source {
            if (note.name, note.kind) == (b"XDUMPCUT", XDUMPCUT_TYPE) {
                blob.push_about(about, digest);
                continue;
            }
            let at = blob.push(note.name, note.kind, note.desc);
            if note.name == b"VMCOREINFO" {
                blob.vmcoreinfo = Some((at, note.desc.len()));
            }
        }
        blob
    }

    /// Appends the XDUMPCUT note; with `digest` its last line has room for that.
    fn push_about(&mut self, about: &str, digest: bool) {
        let room = if digest { format!("{DIGEST_LINE}{:0width$}\n", 0, width = HEX_DIGITS) } else { String::new() };
        let at = self.push(b"XDUMPCUT", XDUMPCUT_TYPE, format!("{about}{room}").as_bytes());
        self.digest = digest.then_some(at + about.len() + DIGEST_LINE.len());
    }

    pub(super) fn push(&mut self, name: &[u8], kind: u32, desc: &[u8]) -> usize {
        let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(4), 0);
        for n in [name.len() as u32 + 1, desc.len() as u32, kind] {
            self.bytes.extend(n.to_le_bytes());
        }
        self.bytes.extend(name);
        self.bytes.push(0);
        pad(&mut self.bytes);
        let at = self.bytes.len();
        self.bytes.extend(desc);
        pad(&mut self.bytes);
        at
    }
}

/// Selectors as on bare metal: a PV kernel runs in ring 3 with Xen's flat ones, and a process has them too after a fast
/// return.
fn selectors(regs: &UserRegs) -> (u64, u64) {
    match regs.cs {
        _ if regs.in_kernel() => (0x10, 0x18),
        0xe033 => (0x33, 0x2b),
        0xe023 => (0x23, 0x2b),
        _ => (u64::from(regs.cs), u64::from(regs.ss)),
    }
}

/// `struct elf_prstatus` of x86_64: `pr_reg` holds r15 … rdi, orig_rax, rip, cs, rflags, rsp, ss and bases.
fn prstatus(pid: u32, regs: UserRegs) -> Vec<u8> {
    let mut desc = vec![0; PRSTATUS_SIZE];
    put(&mut desc, PR_PID, &pid.to_le_bytes());
    let (cs, ss) = selectors(&regs);
    let tail = [u64::MAX, regs.rip, cs, regs.rflags, regs.rsp, ss];
    for (i, word) in regs.general.iter().chain(&tail).enumerate() {
        put(&mut desc, PR_REG + i * 8, &word.to_le_bytes());
    }
    desc
}

/// `pr_pid`, rip and rsp of an NT_PRSTATUS.
pub fn prstatus_words(desc: &[u8]) -> Option<[u64; 3]> {
    let word = |n: usize| u64_at(desc, PR_REG + n * 8);
    Some([u32_at(desc, PR_PID)?.into(), word(16)?, word(19)?])
}

/// CR3 of a QEMU note.
pub fn qemu_root(desc: &[u8]) -> Option<u64> {
    u64_at(desc, QEMU_CR + 3 * 8)
}

/// QEMU's `QEMUCPUState` (QEMU: target/i386/arch_dump.c), version 1: rax rbx rcx rdx rsi rdi rsp rbp r8 … r15 rip rflags,
/// ten segments (cs ds es fs gs ss ldt tr gdt idt; selector, limit, flags, pad, base), cr0 to cr4, kernel_gs_base.
fn qemu_state(vcpu: &Vcpu, root: Option<Pfn>) -> Vec<u8> {
    let regs = vcpu.regs.unwrap_or_default();
    let [r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi] = regs.general;
    let mut desc = vec![0; QEMU_SIZE];
    put(&mut desc, 0, &1_u32.to_le_bytes());
    put(&mut desc, 4, &(QEMU_SIZE as u32).to_le_bytes());
    let words =
        [rax, rbx, rcx, rdx, rsi, rdi, regs.rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, regs.rip, regs.rflags];
    for (i, word) in words.iter().enumerate() {
        put(&mut desc, 8 + i * 8, &word.to_le_bytes());
    }
    let (cs, ss) = selectors(&regs);
    if let Some(vmcb) = &vcpu.vmcb {
        let [es, cs, ss, ds, fs, gs, gdt, ldt, idt, tr] = vmcb.segments;
        for (at, s) in (QEMU_SEGMENTS..).step_by(24).zip([cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt]) {
            // As in the upper half of a descriptor.
            let flags = u32::from(s.attributes & 0xff) << 8 | u32::from(s.attributes >> 8 & 0xf) << 20;
            for (i, word) in [u32::from(s.selector), s.limit, flags].into_iter().enumerate() {
                put(&mut desc, at + i * 4, &word.to_le_bytes());
            }
            put(&mut desc, at + 16, &s.base.to_le_bytes());
        }
        put(&mut desc, QEMU_SIZE - 8, &vmcb.kernel_gs.to_le_bytes());
    }
    put(&mut desc, QEMU_SEGMENTS, &(cs as u32).to_le_bytes());
    put(&mut desc, QEMU_SEGMENTS + 5 * 24, &(ss as u32).to_le_bytes());
    // Protected mode with paging and PAE is what the tables say; nothing else of a PV vCPU's control registers is its own.
    let made = Control { cr0: 0x8000_0001, cr2: 0, cr3: root.map_or(0, |pfn| pfn.0 << PAGE_SHIFT), cr4: 0x20 };
    let control = vcpu.control.unwrap_or(made);
    for (i, word) in [control.cr0, 0, control.cr2, control.cr3, control.cr4].into_iter().enumerate() {
        put(&mut desc, QEMU_CR + i * 8, &word.to_le_bytes());
    }
    desc
}

fn put(desc: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = desc.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}
