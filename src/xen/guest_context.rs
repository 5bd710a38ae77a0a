//! A vCPU as Xen would tell a toolstack of it: `vcpu_guest_context` (layout: [`super::context`]), from what struct vcpu has.
//!
//! After Xen's `arch_get_info_guest` (arch/x86/domctl.c). Of a vCPU that is on no CPU everything is in memory, where it is
//! found by shape; of one on a CPU, FPU and segment bases are in the CPU alone.
//!
//! | field | from | 0 where |
//! |---|---|---|
//! | FPU | struct vcpu's pointer to an FXSAVE image, where dom0's have one too | it is on a CPU, or nothing looks like one |
//! | flags | whether there is an FPU image; where rip is; `xen::pv` | |
//! | online | whether it ever was brought up, and is not down alone: in a paused domain all seem down | |
//! | registers | [`super::vcpu`] | nowhere found |
//! | ds, es, fs, gs | behind the registers (up to Xen 4.20), or AMD's VMCB | Intel's VMCS, Xen 4.21 |
//! | traps, LDT, GDT, kernel stack, callbacks, IOPL | `xen::pv` | translated domains, as with Xen |
//! | cr0 to cr4 | `xen::pv`; of a translated domain what Xen keeps for it | |
//! | cr3, cr1 of a PV vCPU | its two root tables, known by their type; else the kernel's own root | |
//! | dr0 to dr7 | behind the registers | their reserved bits are not as they must be |
//! | segment bases | `xen::pv`, or AMD's VMCB | it is on a CPU; Intel's VMCS |
//! | `vm_assist` | | always: it is in struct domain, and looks like nothing |
//!
//! Beside `xl dump-core` of the same paused domains (Xen 4.20; PV, PVH and HVM) `vm_assist` is the one field that differs.

use super::context::{BASES, CALLBACKS, CONTROL, DEBUG, FLAGS, GDT, GDT_ENTRIES, LDT, ONLINE, REGS, TRAPS};
use super::host::Host;
use super::hvm;
use super::p2m::P2m;
use super::pv::PvState;
use super::vcpu::{self, UserRegs, Vcpu, VcpuState};
use crate::bytes::{u16_at, u32_at, u64_at, words};
use crate::source::xc_core::CONTEXT_SIZE;
use crate::units::{MAX_FRAME, Mfn, PAGE_SHIFT, PTE_FRAME_MASK, Pfn, VirtAddr};

const FPU: usize = 512;
const FPU_VALID: u64 = 1;
const IN_KERNEL: u64 = 1 << 2;
/// What of Xen's own flags is told as it is: for which callbacks it disables events.
const OTHER_FLAGS: u64 = 3 << 3;
/// es stands here behind the registers, then ds, fs, gs; up to Xen 4.20.
const SELECTORS: usize = 168;
/// Sizes of `cpu_user_regs`: up to 4.20, and since.
const REGS_OLD: usize = 200;
const REGS_SIZES: [usize; 2] = [REGS_OLD, 168];
/// vCPUs of dom0 that are looked at.
const MOST_LOOKED: usize = 16;
/// Words between a vCPU's root tables and its CR3 (shadow tables in old versions).
const ROOT_TO_CR3: usize = 12;

/// Makes the contexts of a domain's vCPUs, of those that ever were brought up, one behind the other. `root` is the kernel's
/// own root table, for PV vCPUs whose tables are not found.
pub fn all(host: &Host<'_>, p2m: &P2m, vcpus: &[Vcpu], root: Option<Mfn>) -> Vec<u8> {
    let paused = vcpus.iter().all(|v| v.offline);
    let fpu_places = fpu_places(host);
    let one = |v: &Vcpu| {
        let online = v.state != VcpuState::NeverRan && (paused || !v.offline);
        Maker { host, p2m, vcpu: v, fpu_places: &fpu_places, out: vec![0; CONTEXT_SIZE] }.make(online, root)
    };
    vcpus.iter().filter(|v| v.has_note()).flat_map(one).collect()
}

struct Maker<'a> {
    host: &'a Host<'a>,
    p2m: &'a P2m,
    vcpu: &'a Vcpu,
    fpu_places: &'a [usize],
    out: Vec<u8>,
}

impl Maker<'_> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = at.checked_add(bytes.len()).and_then(|end| self.out.get_mut(at..end)) {
            place.copy_from_slice(bytes);
        }
    }

    fn put_words(&mut self, at: usize, words: &[u64]) {
        (at..).step_by(8).zip(words).for_each(|(at, w)| self.put(at, &w.to_le_bytes()));
    }

    fn make(mut self, online: bool, root: Option<Mfn>) -> Vec<u8> {
        let v = self.vcpu;
        // Otherwise what memory has is older than the registers.
        let off_cpu = v.state == VcpuState::Saved;
        let regs = v.regs.unwrap_or_default();
        let mut flags = if online { ONLINE } else { 0 };
        let mut places = self.fpu_places.iter().filter(|_| off_cpu);
        if let Some(image) = places.find_map(|at| fpu(self.host, &v.bytes, *at)) {
            self.put(0, &image);
            flags |= FPU_VALID;
        }
        let debug = self.debug();
        if let Some((_, debug)) = debug {
            self.put_words(DEBUG, &debug);
        }
        let mut iopl = 0;
        if self.p2m.translated {
            self.translated(off_cpu, &regs);
        } else {
            if let (true, Some(at), Some((REGS_OLD, _))) = (off_cpu, v.regs_at, debug) {
                let selectors = [0, 8, 16, 24].map(|n| u16_at(&v.bytes, at + SELECTORS + n).unwrap_or_default());
                self.put_words(REGS + SELECTORS, &selectors.map(u64::from));
            }
            let state = PvState::find(&v.bytes, self.host.direct_map);
            if let Some(state) = state {
                iopl = state.iopl();
                flags |= state.flags() & OTHER_FLAGS;
                self.pv(state, off_cpu);
            }
            flags |= if v.regs.is_some() && regs.in_kernel() { IN_KERNEL } else { 0 };
            let cr3 = |mfn: Mfn| mfn.0 << PAGE_SHIFT;
            let [kernel, process] = self.roots().unwrap_or([root, None]).map(|mfn| mfn.map_or(0, cr3));
            self.put_words(CONTROL + 8, &[process]);
            self.put_words(CONTROL + 3 * 8, &[kernel]);
        }
        self.put_words(FLAGS, &[flags]);
        if v.regs.is_some() {
            let tail = [regs.error, regs.rip, regs.cs.into(), regs.rflags | iopl, regs.rsp, regs.ss.into()];
            self.put_words(REGS, &regs.general);
            self.put_words(REGS + regs.general.len() * 8, &tail);
        }
        self.out
    }

    /// What only PV vCPUs have.
    fn pv(&mut self, state: PvState<'_>, off_cpu: bool) {
        self.put_words(LDT, &state.ldt());
        self.put(GDT, state.gdt());
        self.put_words(GDT_ENTRIES, &state.kernel());
        self.put(CONTROL, state.control());
        self.put(CALLBACKS, state.callbacks());
        if let Some(bases) = state.bases().filter(|_| off_cpu) {
            self.put(BASES, bases);
        }
        let mut traps = [0; LDT - TRAPS];
        if state.traps().is_some_and(|va| self.host.space.read("traps", va, &mut traps).is_ok()) {
            // An address of the kernel's, or nothing.
            let sound = |trap: &[u8]| u64_at(trap, 8).is_some_and(|va| va == 0 || VirtAddr(va).is_canonical());
            if traps.chunks_exact(16).all(sound) {
                self.put(TRAPS, &traps);
            }
        }
    }

    /// What a translated domain's vCPU has in other places.
    fn translated(&mut self, off_cpu: bool, regs: &UserRegs) {
        // Xen tells its copies. The VMCB's CR0 has a bit of Xen's own: TS, while the FPU is not the vCPU's.
        let is_memory = |pfn| self.p2m.mfn(Pfn(pfn)).is_some();
        let copies = || hvm::guest_cr(&self.vcpu.bytes, is_memory);
        // What QEMU saw is younger.
        let seen = self.vcpu.control.filter(|_| self.vcpu.by_qemu);
        if let Some(control) = seen.or_else(copies).or(self.vcpu.control) {
            self.put_words(CONTROL, &[control.cr0, 0, control.cr2, control.cr3, control.cr4]);
        }
        let Some(vmcb) = self.vcpu.vmcb.filter(|_| off_cpu) else { return };
        let [es, _, _, ds, fs, gs, ..] = vmcb.segments;
        self.put_words(REGS + SELECTORS, &[es, ds, fs, gs].map(|s| s.selector.into()));
        // The one that is not in use is in KernelGSBase.
        let (kernel, process) = if regs.cs & 3 == 0 { (gs.base, vmcb.kernel_gs) } else { (vmcb.kernel_gs, gs.base) };
        self.put_words(BASES, &[fs.base, kernel, process]);
    }

    /// The root tables of a PV vCPU: the kernel's, and the process's if it has one.
    fn roots(&self) -> Option<[Option<Mfn>; 2]> {
        let is_root = |mfn: u64| {
            let pfn = Some(Mfn(mfn)).filter(|_| (1..=MAX_FRAME).contains(&mfn)).and_then(|mfn| self.p2m.pfn(mfn));
            pfn.is_some_and(|pfn| self.p2m.tables.binary_search(&(pfn, 4)).is_ok())
        };
        let all: Vec<u64> = words(&self.vcpu.bytes).collect();
        all.windows(2 + ROOT_TO_CR3).find_map(|part| {
            let [process, kernel, rest @ ..] = part else { return None };
            let sound = is_root(*kernel) && (*process == 0 || is_root(*process));
            let is_cr3 = |word: &u64| {
                let mfn = (word & PTE_FRAME_MASK) >> PAGE_SHIFT;
                mfn != 0 && (mfn == *kernel || mfn == *process)
            };
            let process_root = Some(Mfn(*process)).filter(|mfn| mfn.0 != 0);
            (sound && rest.iter().any(is_cr3)).then_some([Some(Mfn(*kernel)), process_root])
        })
    }

    /// dr0 to dr7, and the size of the registers before them.
    fn debug(&self) -> Option<(usize, [u64; 8])> {
        let at = self.vcpu.regs_at?;
        REGS_SIZES.into_iter().find_map(|size| {
            let word = |i: usize| u64_at(&self.vcpu.bytes, at + size + i * 8);
            let [a, b, c, d, e, f, g, h] = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| word(i).unwrap_or_default());
            // Up to 4.11 all eight; since then dr7 and the low half of a word with dr6 follow the four.
            let [dr6, dr7] = if (e, f) == (0, 0) { [g, h] } else { [f & 0xffff_ffff, e] };
            // Bits that a CPU has always set, or never.
            let sound = dr7 >> 32 == 0 && dr7 & 0x400 != 0 && dr6 >> 32 == 0 && dr6 & 0xfffe_07f0 == 0xfffe_07f0;
            sound.then_some((size, [a, b, c, d, 0, 0, dr6, dr7]))
        })
    }
}

/// Where struct vcpu has the pointer to an FXSAVE image (AMD64 Architecture Programmer's Manual, volume 2, 11.4.4; Xen: the
/// start of `arch.xsave_area`, or `arch.fpu_ctxt`): where all of dom0's have one. A guest's own registers stand in its struct
/// vcpu too, and must not choose what of Xen's memory is taken for its FPU.
fn fpu_places(host: &Host<'_>) -> Vec<usize> {
    let vcpus = host.hardware_domain().map(|d| vcpu::find(host, d)).unwrap_or_default();
    let known = || vcpus.iter().filter(|v| !v.bytes.is_empty()).take(MOST_LOOKED);
    let fits = |at: &usize| known().all(|v| fpu(host, &v.bytes, *at).is_some());
    let first = known().next().map_or(0, |v| v.bytes.len());
    (0..first).step_by(8).filter(fits).collect()
}

/// The FXSAVE image that the pointer at `at` leads to.
fn fpu(host: &Host<'_>, vcpu: &[u8], at: usize) -> Option<Vec<u8>> {
    let va = u64_at(vcpu, at).filter(|p| *p >= host.direct_map && p.is_multiple_of(16)).map(VirtAddr)?;
    let mfn = host.space.translate(va).ok()?.addr.mfn();
    if host.frames.get(mfn).is_some_and(|i| i.has_owner(host.state_bits) && Some(i.owner) != host.dom_xen) {
        return None;
    }
    let mut image = vec![0; FPU];
    host.space.read("FPU registers", va, &mut image).ok()?;
    is_fpu(&image).then_some(image)
}

/// Whether these can be FXSAVE's: control words with their reserved bits, and reserved bytes.
fn is_fpu(image: &[u8]) -> bool {
    let (Some(fcw), Some(tags)) = (u16_at(image, 0), u16_at(image, 4)) else { return false };
    let (Some(mxcsr), Some(mask)) = (u32_at(image, 24), u32_at(image, 28)) else { return false };
    let reserved = image.get(416..464).is_some_and(|part| part.iter().all(|b| *b == 0));
    // The mask is 0 until the CPU wrote it.
    let known = mask == 0 || mask & 0xffbf == 0xffbf;
    fcw & 0xe0c0 == 0x40 && tags >> 8 == 0 && known && mask >> 18 == 0 && mxcsr >> 16 == 0 && mxcsr != 0 && reserved
}

const _: () = assert!(CONTEXT_SIZE == BASES + 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_fxsave_image() {
        let mut image = vec![0; FPU];
        image[..2].copy_from_slice(&0x37f_u16.to_le_bytes());
        image[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        assert!(is_fpu(&image));
        image[28..32].copy_from_slice(&0x2_ffff_u32.to_le_bytes());
        image[160..416].fill(0xaa);
        image[511] = 8;
        assert!(is_fpu(&image));
        for (at, value) in [(0, 0xff), (1, 0xe3), (5, 1), (26, 1), (28, 0), (30, 0xff), (420, 1)] {
            let mut other = image.clone();
            other[at] = value;
            assert!(!is_fpu(&other), "byte {at}");
        }
        assert!(!is_fpu(&[0; FPU]) && !is_fpu(&image[..400]));
    }
}
