//! Physical CPUs: the tops of their stacks, whose vCPU each had, and which of them crashed.
//!
//! A stack is 32 KiB, aligned (Xen: asm/current.h). Its last bytes are struct cpu_info: the guest's registers as they were
//! pushed on the way into Xen, from 4.21 on `fred_info` behind them, then among others the current vCPU. Where they are
//! is found by what they must be, the same on all CPUs.
//!
//! The crash note stands with CPU 0's whichever CPU crashed, and all CPUs left their notes in one function. But the
//! CPU that crashed stopped the others by NMI, and an NMI pushes a frame with vector 2: onto a stack of its own (a
//! page lower in the same block) if it came while Xen ran, and moved to the top of the stack if it came while the guest
//! ran. The stopped CPUs are all equally far below their frames. The one CPU that is not there is the one that crashed.

use super::host::Host;
use super::hvm;
use super::notes::CpuNote;
use super::regs::{REGS_BYTES, UserRegs, common_offset, offset_by_vmcb};
use crate::bytes::{u32_at, u64_at};
use crate::units::{PAGE_BYTES, PAGE_SIZE, VirtAddr};
use serde::Serialize;
use std::collections::BTreeMap;

/// DOMID_IDLE.
const IDLE: u16 = 0x7fff;
/// Xen's bound of a domain's vCPUs (MAX_VIRT_CPUS).
pub(super) const MOST_VCPUS: u64 = 8192;
/// STACK_SIZE of x86_64.
const STACK: u64 = 0x8000;
/// From here on it is the primary stack; below are those of NMIs, machine checks and double faults, a page each.
const PRIMARY: u64 = 5 * PAGE_BYTES;
/// struct cpu_info is smaller than this in every version.
const TOP: usize = 0x300;
/// Vector of an NMI.
const NMI: u64 = 2;
/// The back pointer to the domain in struct vcpu: 16 up to Xen 4.17, 24 from 4.18 on, where `vcpu_info_area` stands before
/// it.
pub(super) const BACK_POINTERS: [usize; 4] = [8, 16, 24, 32];

/// What stands at the top of a physical CPU's stack. Which CPU that is, the current vCPU knows (idle ones too): notes of
/// CPUs that did not answer are missing, so their order does not tell.
#[derive(Clone, Debug, Default)]
pub(super) struct StackTop {
    /// struct vcpu of the current vCPU.
    pub(super) current: VirtAddr,
    owner: Owner,
    pub(super) regs: Option<UserRegs>,
    /// The same without a look at the selectors: a translated domain's have none.
    pub(super) any: Option<UserRegs>,
    /// How far below the frame of an NMI the CPU was, if it stood in one.
    nmi_depth: Option<u64>,
}

/// Of a struct vcpu: its domain's id, its own, and its CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    domain: u16,
    vcpu: u32,
    processor: u32,
}

/// What was read of a CPU's stack.
struct Memory {
    /// Where the CPU was on it.
    rsp: u64,
    bytes: Vec<u8>,
    /// What the guest had, if the dump tells of the processor itself.
    guest: Option<UserRegs>,
}

/// By CPU number.
pub(super) type Tops = BTreeMap<u32, StackTop>;

impl StackTop {
    /// Whether the CPU's own idle vCPU was on it.
    pub(super) fn idle(&self) -> bool {
        self.owner.domain == IDLE
    }
}

/// What a physical CPU was at. Field names are those of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PhysicalCpu {
    /// Its number.
    pub id: u32,
    /// The domain whose vCPU was on it; `None`: it was idle.
    pub domain: Option<u16>,
    /// That vCPU.
    pub vcpu: Option<u32>,
    /// Whether it crashed; no CPU has this set if nothing proves which did.
    pub crashed: bool,
}

impl std::fmt::Display for PhysicalCpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.domain, self.vcpu) {
            (Some(domain), Some(vcpu)) => write!(f, "CPU {}: domain {domain} vCPU {vcpu}", self.id)?,
            _ => write!(f, "CPU {}: idle", self.id)?,
        }
        f.write_str(if self.crashed { ", crashed" } else { "" })
    }
}

/// The physical CPUs whose stacks the dump has, by number.
pub fn cpus(host: &Host<'_>) -> Vec<PhysicalCpu> {
    let tops = Stacks::read(host).tops;
    // A CPU that answered, but whose stack cannot be read, may be the one.
    let answered = host.notes.cpus.iter().filter(|c| c.rsp != 0).count();
    // Where QEMU took the notes, nobody need have crashed, and no NMI tells.
    let xens_own = host.notes.cpus.iter().all(|c| c.qemu.is_none());
    let crashed = crashed(&tops).filter(|_| xens_own && tops.len() == answered);
    let cpu = |(&id, top): (&u32, &StackTop)| {
        let vcpu = Some(top.owner).filter(|_| !top.idle());
        PhysicalCpu { id, domain: vcpu.map(|o| o.domain), vcpu: vcpu.map(|o| o.vcpu), crashed: crashed == Some(id) }
    };
    tops.iter().map(cpu).collect()
}

/// The one CPU that no NMI stopped.
fn crashed(tops: &Tops) -> Option<u32> {
    // A crash by NMI goes deeper than the stop.
    let stopped = tops.values().filter_map(|t| t.nmi_depth).min();
    let mut others = tops.iter().filter(|(_, t)| t.nmi_depth.is_none() || t.nmi_depth != stopped);
    let first = others.next().map(|(id, _)| *id);
    first.filter(|_| others.next().is_none())
}

/// The tops of the stacks of all physical CPUs.
#[derive(Debug)]
pub(super) struct Stacks {
    pub(super) tops: Tops,
    /// Where the guest's registers stand, counted down from the end of the stack.
    pub(super) regs_below_end: Option<u64>,
    /// The same of current_vcpu.
    pub(super) current_below_end: Option<u64>,
}

impl Stacks {
    /// Reads them. Offsets are the same on all CPUs, so they are found together.
    pub(super) fn read(host: &Host<'_>) -> Self {
        let end_of = |rsp: u64| (rsp & !(STACK - 1)).checked_add(STACK).filter(|_| rsp >= host.direct_map);
        let read = |note: &CpuNote| {
            // Where QEMU tells of the processor itself: it may have been in the guest, whose stack is no help.
            let stack = note.qemu.and_then(|q| q.stack(&host.space)).filter(|s| *s >= host.direct_map);
            let rsp = stack.unwrap_or(note.rsp);
            let mut bytes = vec![0; TOP];
            host.space.read("a hypervisor stack", VirtAddr(end_of(rsp)? - TOP as u64), &mut bytes).ok()?;
            Some(Memory { rsp, bytes, guest: note.qemu.and_then(|q| q.guest()) })
        };
        let memories: Vec<Memory> = host.notes.cpus.iter().filter_map(read).collect();
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        for Memory { bytes, .. } in &memories {
            for at in (0..TOP - 8).step_by(8) {
                if owner_of(host, VirtAddr(u64_at(bytes, at).unwrap_or_default())).is_some() {
                    *votes.entry(at).or_default() += 1;
                }
            }
        }
        let current_at = votes.into_iter().max_by_key(|(at, n)| (*n, *at)).map(|(at, _)| at);
        let regs_at = common_offset(memories.iter().map(|m| m.bytes.as_slice())).or_else(|| {
            let vmcb = |bytes: &[u8]| {
                let mut vcpu = vec![0; PAGE_SIZE];
                host.space.read("struct vcpu", VirtAddr(u64_at(bytes, current_at?)?), &mut vcpu).ok()?;
                hvm::vmcb(host, None, &vcpu)
            };
            offset_by_vmcb(memories.iter().map(|m| (vmcb(&m.bytes), m.bytes.as_slice())))
        });
        let top = |Memory { rsp, bytes, guest }: &Memory| {
            let current = VirtAddr(current_at.and_then(|at| u64_at(bytes, at)).unwrap_or_default());
            let owner = owner_of(host, current)?;
            let regs = regs_at.and_then(|at| UserRegs::parse(bytes, at));
            let any = regs_at.and_then(|at| UserRegs::any(bytes, at));
            let nmi_depth = if rsp % STACK >= PRIMARY {
                let frame = regs_at.and_then(|at| Some(end_of(*rsp)? - TOP as u64 + at as u64));
                regs.and_then(|r| depth(&r, frame?, *rsp))
            } else {
                // The hardware's own frame ends with the page.
                let frame = (rsp - rsp % PAGE_BYTES).checked_add(PAGE_BYTES - REGS_BYTES as u64);
                frame.and_then(|frame| {
                    let mut bytes = [0; REGS_BYTES];
                    host.space.read("a frame on a hypervisor stack", VirtAddr(frame), &mut bytes).ok()?;
                    depth(&UserRegs::raw(&bytes, 0)?, frame, *rsp)
                })
            };
            Some((owner.processor, StackTop { current, owner, regs: guest.or(regs), any: guest.or(any), nmi_depth }))
        };
        let below_end = |at: usize| (TOP - at) as u64;
        Self {
            tops: memories.iter().filter_map(top).collect(),
            regs_below_end: regs_at.map(below_end),
            current_below_end: current_at.map(below_end),
        }
    }
}

/// How far below `frame` the stack pointer is, if that is the frame of an NMI.
fn depth(regs: &UserRegs, frame: u64, rsp: u64) -> Option<u64> {
    frame.checked_sub(rsp).filter(|_| regs.error >> 32 == NMI)
}

/// Whose struct vcpu this may be: a known domain's or the idle domain's.
fn owner_of(host: &Host<'_>, va: VirtAddr) -> Option<Owner> {
    let mut head = [0; 40];
    if va.0 < host.direct_map || !va.0.is_multiple_of(8) || host.space.read("struct vcpu", va, &mut head).is_err() {
        return None;
    }
    let (vcpu, processor) = (u32_at(&head, 0)?, u32_at(&head, 4)?);
    if u64::from(vcpu) >= MOST_VCPUS {
        return None;
    }
    let domain = BACK_POINTERS.iter().find_map(|at| {
        let domain = VirtAddr(u64_at(&head, *at)?);
        if let Some(d) = host.domains.iter().find(|d| d.va == domain) {
            return Some(d.id);
        }
        let mut id = [0; 2];
        let read = domain.0 >= host.direct_map && host.space.read("struct domain", domain, &mut id).is_ok();
        (read && u16::from_le_bytes(id) == IDLE).then_some(IDLE)
    });
    Some(Owner { domain: domain?, vcpu, processor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_that_no_nmi_stopped_crashed() {
        for (depths, expected) in [
            (vec![None, Some(0x48)], Some(0)),
            (vec![Some(0x48), None, Some(0x48)], Some(1)),
            // Crashed by an NMI itself.
            (vec![Some(0x48), Some(0x48), Some(0x230)], Some(2)),
            (vec![None], Some(0)),
            (vec![None, None, Some(0x48)], None),
            (vec![Some(0x48), Some(0x48)], None),
            (vec![], None),
        ] {
            let top = |nmi_depth| StackTop { nmi_depth, ..StackTop::default() };
            let tops = depths.iter().map(|d| top(*d)).enumerate().map(|(i, t)| (i as u32, t)).collect();
            assert_eq!(crashed(&tops), expected, "{depths:x?}");
        }
    }
}
