//! vCPUs: struct vcpu by shape, and the registers that a vCPU had.
//!
//! Nothing in the notes tells where struct vcpu keeps what, and Debian's xen-syms has no DWARF, so shapes decide:
//! * struct domain has a pointer to an array of pointers whose n-th target begins with vcpu_id n and points back to the
//!   domain. No other field does.
//! * saved registers are a `cpu_user_regs` with the selectors of a 64-bit PV guest (Xen: public/arch-x86/xen-x86_64.h).
//! * those of a translated domain's vCPU stand at the same place, with selectors that mean nothing; its VMCB, where it has one
//!   ([`hvm`]), tells the rest.
//! * the top of a physical CPU's 32 KiB stack (Xen: struct cpu_info) has the guest's registers as they were pushed on
//!   the way into Xen, and a pointer to the current vCPU.
//! * where QEMU made the dump it tells what each processor had, which is the guest's if it was in the guest.
//!
//! A vCPU on a CPU has its registers there. So has one whose CPU idles since: Xen switches to its idle vCPU lazily and
//! leaves the registers on the stack (Xen: common/sched, `__context_switch` is skipped), and struct vcpu's are stale.

use super::context::Context;
use super::cpu::{self, BACK_POINTERS, MOST_VCPUS, PhysicalCpu, Stacks, Tops};
use super::dirty::DirtyCpu;
use super::domain::Domain;
use super::host::Host;
use super::hvm::{self, Control, Vmcb};
use super::p2m::hap::Hap;
use super::p2m::source::Source;
use super::qemu::QemuCpu;
pub use super::regs::UserRegs;
use super::regs::{common_offset, offset_by_vmcb};
use super::runstate::Runstates;
use crate::bytes::{u32_at, u64_at};
use crate::units::{MAX_FRAME, PAGE_SHIFT, PAGE_SIZE, PTE_FRAME_MASK, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;
use std::collections::BTreeMap;

/// Addresses that Linux leaves to a hypervisor: no kernel of a guest is there.
const XEN_AREA: std::ops::Range<u64> = 0xffff_8000_0000_0000..0xffff_8800_0000_0000;
/// What is read of struct vcpu; the registers come early in it.
const VCPU_BYTES: usize = PAGE_SIZE;

/// Where a vCPU's registers were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuState {
    /// Running on this physical CPU.
    Running(u32),
    /// Not running, but its registers were still on this physical CPU's stack.
    Lazy(u32),
    /// In struct vcpu.
    Saved,
    /// Nowhere: the guest has not brought it up.
    NeverRan,
    /// In its VMCB only, which has no other general register than rax and rsp.
    Vmcb,
    /// In the dump of the domain alone, where Xen told it.
    Told,
    /// Nowhere: damage, or a translated domain's that nothing tells apart from its past.
    Unknown,
}

/// A vCPU.
#[derive(Clone, Debug)]
pub struct Vcpu {
    /// vcpu_id.
    pub id: u32,
    /// Its struct vcpu.
    pub va: VirtAddr,
    /// The physical CPU that it last ran on.
    pub processor: u32,
    /// Where the registers come from.
    pub state: VcpuState,
    /// The registers, if there are any.
    pub regs: Option<UserRegs>,
    /// Whether nothing but likelihood says that these are its registers.
    pub guessed: bool,
    /// Whether Xen does not run it: the guest has brought it down (as Linux does with all but one when it panics) or not up
    /// yet, or its domain is paused.
    pub offline: bool,
    /// Of a translated domain: its VMCB, if it has one.
    pub vmcb: Option<Vmcb>,
    /// Of a translated domain: its control registers, the VMCB's or Xen's copies.
    pub control: Option<Control>,
    /// Whether its registers are what QEMU saw of the processor while the guest ran.
    pub by_qemu: bool,
    translated: bool,
    /// Of a translated domain: what QEMU saw of the CPU that it last ran on, if that can have been in this guest.
    inside: Option<QemuCpu>,
    /// The beginning of its struct vcpu; nothing if the dump does not have it.
    pub(super) bytes: Vec<u8>,
    /// Where in it the registers of a vCPU that is on no CPU stand.
    pub(super) regs_at: Option<usize>,
}

/// The I/O privilege level in rflags.
const IOPL: u64 = 3 << 12;

impl Vcpu {
    /// Whether a dump has a register note of it. A kernel that dies on bare metal leaves none for a CPU that it never brought
    /// up, and readers give the notes to the CPUs that are up, in order.
    pub fn has_note(&self) -> bool {
        self.id == 0 || self.state != VcpuState::NeverRan
    }

    fn told(id: u32, context: &Context, translated: bool) -> Self {
        // Of a PV vCPU Xen puts its virtual IOPL in (arch_get_info_guest), which the registers do not have.
        let iopl = if translated { 0 } else { IOPL };
        Self {
            state: if context.regs.is_some() { VcpuState::Told } else { VcpuState::Unknown },
            regs: context.regs.map(|r| UserRegs { rflags: r.rflags & !iopl, ..r }),
            offline: !context.online,
            control: Some(context.control).filter(|_| translated),
            translated,
            ..Self::unknown(id, VirtAddr(0))
        }
    }

    fn unknown(id: u32, va: VirtAddr) -> Self {
        Self {
            id,
            va,
            processor: u32::MAX,
            state: VcpuState::Unknown,
            regs: None,
            guessed: false,
            offline: false,
            vmcb: None,
            control: None,
            by_qemu: false,
            translated: false,
            inside: None,
            bytes: Vec::new(),
            regs_at: None,
        }
    }
}

/// The vCPUs of each of `domains`, by domain id and in order of vCPU id, with registers.
///
/// The vCPUs of other domains are read only if those of `domains` cannot tell whose registers an idle CPU still holds.
pub fn vcpus(host: &Host<'_>, domains: &[&Domain]) -> BTreeMap<u16, Vec<Vcpu>> {
    if host.alone().is_some() {
        return domains.iter().map(|d| (d.id, find(host, d))).collect();
    }
    let tops = Stacks::read(host).tops;
    let read =
        |domains: &[&Domain]| -> BTreeMap<u16, Vec<Vcpu>> { domains.iter().map(|d| (d.id, find(host, d))).collect() };
    let mut all = read(domains);
    let layout = host.layout.as_ref();
    if !assign(&mut all, &tops, layout) {
        let everyone: Vec<&Domain> = host.domains.iter().collect();
        all = read(&everyone);
        assign(&mut all, &tops, layout);
        all.retain(|id, _| domains.iter().any(|d| d.id == *id));
    }
    all
}

/// The physical CPUs that the dump tells of, by number: those whose stacks it has, and those that QEMU saw in one of the
/// guests that `all` has the vCPUs of.
pub fn physical_cpus(host: &Host<'_>, all: &BTreeMap<u16, Vec<Vcpu>>) -> Vec<PhysicalCpu> {
    let mut cpus = cpu::cpus(host);
    for (domain, v) in all.iter().flat_map(|(id, list)| list.iter().map(move |v| (*id, v))).filter(|(_, v)| v.by_qemu) {
        cpus.push(PhysicalCpu { id: v.processor, domain: Some(domain), vcpu: Some(v.id), crashed: false });
    }
    cpus.sort_unstable_by_key(|c| c.id);
    cpus
}

/// Gives each vCPU its registers; says whether it could do so without guessing.
fn assign(all: &mut BTreeMap<u16, Vec<Vcpu>>, tops: &Tops, layout: Option<&Vmcoreinfo>) -> bool {
    let told = |name| layout.and_then(|l| l.offset(name)).and_then(|at| usize::try_from(at).ok());
    let saved_at = saved_at(all.values().flatten()).or(told("vcpu.user_regs"));
    let dirty = DirtyCpu::calibrate(all.values().flatten(), tops).or(told("vcpu.dirty_cpu"));
    // Registers that a stack shares with a struct vcpu were saved from it: the stack's are the past.
    let saved: Vec<UserRegs> = all.values().flatten().filter_map(|v| UserRegs::parse(&v.bytes, saved_at?)).collect();
    let on_cpu = |v: &Vcpu| tops.values().any(|t| t.current == v.va);
    let known = all.values().flatten().filter(|v| !v.bytes.is_empty());
    let runstates = Runstates::find(known.map(|v| (v.bytes.as_slice(), on_cpu(v))));
    // Without dirty_cpu an idle CPU's registers are those of the one vCPU that last ran there, if it is one.
    let mut last_ran: BTreeMap<u32, usize> = BTreeMap::new();
    for v in all.values().flatten().filter(|v| !on_cpu(v) && !runstates.never_ran(&v.bytes)) {
        *last_ran.entry(v.processor).or_default() += 1;
    }
    let mut certain = true;
    for v in all.values_mut().flatten() {
        let never_ran = runstates.never_ran(&v.bytes);
        (v.offline, v.regs_at) = (runstates.is_offline(&v.bytes), saved_at);
        if v.translated {
            if never_ran {
                v.state = VcpuState::NeverRan;
                continue;
            }
            let elsewhere = runstates.is_running(&v.bytes) && !tops.contains_key(&v.processor);
            if let Some(cpu) = v.inside.filter(|_| elsewhere) {
                (v.state, v.regs) = (VcpuState::Running(v.processor), Some(cpu.regs));
                (v.control, v.vmcb, v.by_qemu) = (Some(cpu.control), None, true);
                continue;
            }
            let held = dirty.holds(v);
            certain &= v.take_translated(tops, saved_at, held);
            continue;
        }
        let running = tops.iter().find(|(_, t)| t.current == v.va && t.regs.is_some());
        let left =
            tops.get_key_value(&v.processor).filter(|(_, t)| t.idle() && t.regs.is_some_and(|r| !saved.contains(&r)));
        let left = left.filter(|_| !never_ran);
        let own = saved_at.and_then(|at| UserRegs::parse(&v.bytes, at));
        // One that never left its CPU has nothing saved, whatever seems to be dirty_cpu.
        let held = left.and_then(|_| dirty.holds(v)).filter(|held| *held || own.is_some());
        v.guessed = left.is_some() && held.is_none();
        certain &= !v.guessed;
        let lazy = left.filter(|_| held.unwrap_or(last_ran.get(&v.processor) == Some(&1)));
        (v.state, v.regs) = match (running, lazy, own) {
            (Some((cpu, top)), _, _) => (VcpuState::Running(*cpu), top.regs),
            (None, Some((cpu, top)), _) => (VcpuState::Lazy(*cpu), top.regs),
            (None, None, Some(regs)) => (VcpuState::Saved, Some(regs)),
            (None, None, None) if never_ran => (VcpuState::NeverRan, None),
            (None, None, None) => (VcpuState::Unknown, None),
        };
        v.guessed &= running.is_none();
    }
    certain
}

/// Where struct vcpu keeps the registers of a vCPU that is on no CPU.
pub(super) fn saved_at<'v>(vcpus: impl Iterator<Item = &'v Vcpu> + Clone) -> Option<usize> {
    common_offset(vcpus.clone().map(|v| v.bytes.as_slice()))
        .or_else(|| offset_by_vmcb(vcpus.map(|v| (v.vmcb, v.bytes.as_slice()))))
}

impl Vcpu {
    /// Gives the vCPU of a translated domain its registers; says whether these are certain. `held` is whether the CPU that
    /// it last ran on holds them, if that is known.
    fn take_translated(&mut self, tops: &Tops, saved_at: Option<usize>, held: Option<bool>) -> bool {
        // Where a guest died at an exit, Xen's own place may have got there.
        let fits = |r: &UserRegs| !XEN_AREA.contains(&r.rip) && self.vmcb.is_none_or(|vmcb| vmcb.agrees(r.rip, r.rsp));
        let running = tops.iter().find(|(_, t)| t.current == self.va).and_then(|(cpu, t)| Some((*cpu, t.any?)));
        let left = tops.get_key_value(&self.processor).filter(|(_, t)| t.idle());
        let left = left.and_then(|(cpu, t)| Some((*cpu, t.any?))).filter(|(_, r)| fits(r));
        let own = saved_at.and_then(|at| UserRegs::any(&self.bytes, at));
        let certain = self.vmcb.is_some() || held.is_some();
        let (state, regs, certain) = match (running, left, own) {
            (Some((cpu, regs)), _, _) => (VcpuState::Running(cpu), Some(regs), fits(&regs)),
            (None, Some((cpu, regs)), _) if held == Some(true) => (VcpuState::Lazy(cpu), Some(regs), true),
            (None, _, Some(regs)) if fits(&regs) => (VcpuState::Saved, Some(regs), certain),
            (None, Some((cpu, regs)), _) if self.vmcb.is_some() => (VcpuState::Lazy(cpu), Some(regs), true),
            _ => match &self.vmcb {
                Some(vmcb) => (VcpuState::Vmcb, Some(UserRegs::of_vmcb(vmcb)), false),
                None => (VcpuState::Unknown, None, false),
            },
        };
        // The selectors that Xen saves are leftovers; without a VMCB nothing tells the right ones but where the vCPU was.
        let selectors = |r: &UserRegs| match &self.vmcb {
            Some(vmcb) => (vmcb.cs().selector, vmcb.ss().selector),
            None if r.in_kernel() => (0x10, 0x18),
            None => (0x33, 0x2b),
        };
        let regs = regs.map(|r| (r, selectors(&r))).map(|(r, (cs, ss))| UserRegs { cs, ss, ..r });
        (self.state, self.regs, self.guessed) = (state, regs, regs.is_some() && !certain);
        certain
    }
}

/// The control registers of a translated domain's vCPUs, in their order.
pub fn controls(host: &Host<'_>, domain: &Domain) -> Vec<Control> {
    find(host, domain).into_iter().filter_map(|v| v.control).collect()
}

/// Finds the vCPU array of a domain.
pub(super) fn find(host: &Host<'_>, domain: &Domain) -> Vec<Vcpu> {
    match &domain.told {
        Some(told) => (0..).zip(&told.vcpus).map(|(id, context)| Vcpu::told(id, context, told.translated)).collect(),
        None => find_array(host, domain).0,
    }
}

/// The same, and where in struct domain the pointer to it stands.
pub(super) fn find_array(host: &Host<'_>, domain: &Domain) -> (Vec<Vcpu>, Option<usize>) {
    // max_vcpus stands at 4 since Xen 4.6; an earlier struct has padding there, and the array's end must do.
    let most = u32_at(&domain.bytes, 4).map(u64::from).filter(|n| (1..=MOST_VCPUS).contains(n)).unwrap_or(MOST_VCPUS);
    // The array stands at 8 or 16 since Xen 4.6, and far behind before.
    let pointers = (8..domain.bytes.len()).step_by(8).filter_map(|at| Some((at, u64_at(&domain.bytes, at)?)));
    let arrays = pointers.filter(|(_, p)| *p >= host.direct_map && p.is_multiple_of(8)).map(|(place, array)| {
        let mut list = Vec::new();
        for n in 0..most {
            let at = array.checked_add(n * 8).map(VirtAddr);
            let Some(Ok(va)) = at.map(|at| host.space.read_u64("a vCPU pointer", at)) else { break };
            match vcpu_at(host, domain, VirtAddr(va), n as u32) {
                Some(v) => list.push(v),
                // Its struct is not in the dump, but readers pair registers with CPUs by position.
                None if va >= host.direct_map && n > 0 && most < MOST_VCPUS => {
                    list.push(Vcpu::unknown(n as u32, VirtAddr(va)))
                }
                // A vCPU that was never created has no struct; but vCPU 0 always has.
                None if va == 0 && n > 0 && most < MOST_VCPUS => {}
                None => break,
            }
        }
        (list, place)
    });
    let most = arrays.filter(|a| !a.0.is_empty()).max_by_key(|a| a.0.len());
    most.map_or_else(Default::default, |(list, place)| (list, Some(place)))
}

fn vcpu_at(host: &Host<'_>, domain: &Domain, va: VirtAddr, id: u32) -> Option<Vcpu> {
    if va.0 < host.direct_map || !va.0.is_multiple_of(8) {
        return None;
    }
    let mut bytes = vec![0; VCPU_BYTES];
    host.space.read("struct vcpu", va, &mut bytes).ok()?;
    let back = BACK_POINTERS.iter().any(|at| u64_at(&bytes, *at) == Some(domain.va.0));
    let processor = u32_at(&bytes, 4)?;
    if !back || u32_at(&bytes, 0) != Some(id) {
        return None;
    }
    let translated = domain.may_be_translated();
    let tables = domain.hap.map(|root| Hap::new(host, root));
    let is_memory = |pfn| tables.as_ref().is_none_or(|t| t.lookup(pfn).is_some_and(|e| e <= MAX_FRAME));
    // At some exits a VMCB can have what is the host's.
    let own = |v: &Vmcb| v.nested == 0 || is_memory((v.control.cr3 & PTE_FRAME_MASK) >> PAGE_SHIFT);
    let vmcb = if translated { hvm::vmcb(host, domain.hap, &bytes).filter(own) } else { None };
    let copies = || hvm::guest_cr(&bytes, is_memory).filter(|_| tables.is_some());
    // QEMU numbers CPUs as Xen does. Its tables are in the guest's memory.
    let seen = usize::try_from(processor).ok().and_then(|n| host.notes.cpus.get(n)?.qemu);
    let in_guest = |q: &QemuCpu| {
        let sound = q.regs.is_sound() && q.control.is_sound() && !XEN_AREA.contains(&q.regs.rip);
        sound && tables.is_some() && is_memory((q.control.cr3 & PTE_FRAME_MASK) >> PAGE_SHIFT)
    };
    let inside = seen.filter(in_guest);
    // Without nested paging the VMCB has the registers of Xen's own tables.
    let control = vmcb.filter(|v| v.nested != 0).map(|v| v.control).or_else(copies);
    Some(Vcpu {
        processor,
        vmcb,
        control,
        translated: domain.hap.is_some() || vmcb.is_some(),
        inside,
        bytes,
        ..Vcpu::unknown(id, va)
    })
}
