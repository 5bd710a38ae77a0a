//! vCPUs: struct vcpu by shape, and the registers that a vCPU had.
//!
//! Nothing in the notes tells where struct vcpu keeps what, and Debian's xen-syms has no DWARF, so shapes decide:
//! * struct domain has a pointer to an array of pointers whose n-th target begins with vcpu_id n and points back to the
//!   domain. No other field does.
//! * saved registers are a `cpu_user_regs` with the selectors of a 64-bit PV guest (Xen: public/arch-x86/xen-x86_64.h).
//! * the top of a physical CPU's 32 KiB stack (Xen: struct cpu_info) has the guest's registers as they were pushed on
//!   the way into Xen, and a pointer to the current vCPU.
//!
//! A vCPU on a CPU has its registers there. So has one whose CPU idles since: Xen switches to its idle vCPU lazily and
//! leaves the registers on the stack (Xen: common/sched, `__context_switch` is skipped), and struct vcpu's are stale.

use super::cpu::{BACK_POINTERS, MOST_VCPUS, Tops, stack_tops};
use super::domain::Domain;
use super::host::Host;
pub use super::regs::UserRegs;
use super::regs::common_offset;
use super::runstate::Runstates;
use crate::bytes::{u32_at, u64_at};
use crate::units::{PAGE_SIZE, VirtAddr};
use std::collections::BTreeMap;

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
    /// Nowhere: an HVM or PVH vCPU, or damage.
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
    bytes: Vec<u8>,
}

impl Vcpu {
    fn unknown(id: u32, va: VirtAddr) -> Self {
        Self { id, va, processor: u32::MAX, state: VcpuState::Unknown, regs: None, guessed: false, bytes: Vec::new() }
    }
}

/// The vCPUs of each of `domains`, by domain id and in order of vCPU id, with registers.
///
/// The vCPUs of other domains are read only if those of `domains` cannot tell whose registers an idle CPU still holds.
pub fn vcpus(host: &Host<'_>, domains: &[&Domain]) -> BTreeMap<u16, Vec<Vcpu>> {
    let tops = stack_tops(host);
    let read =
        |domains: &[&Domain]| -> BTreeMap<u16, Vec<Vcpu>> { domains.iter().map(|d| (d.id, find(host, d))).collect() };
    let mut all = read(domains);
    if !assign(&mut all, &tops) {
        let everyone: Vec<&Domain> = host.domains.iter().collect();
        all = read(&everyone);
        assign(&mut all, &tops);
        all.retain(|id, _| domains.iter().any(|d| d.id == *id));
    }
    all
}

/// Gives each vCPU its registers; says whether it could do so without guessing.
fn assign(all: &mut BTreeMap<u16, Vec<Vcpu>>, tops: &Tops) -> bool {
    let saved_at = common_offset(all.values().flatten().map(|v| v.bytes.as_slice()));
    let dirty = DirtyCpu::calibrate(all.values().flatten(), tops);
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
        let running = tops.iter().find(|(_, t)| t.current == v.va && t.regs.is_some());
        let left =
            tops.get_key_value(&v.processor).filter(|(_, t)| t.idle() && t.regs.is_some_and(|r| !saved.contains(&r)));
        let never_ran = runstates.never_ran(&v.bytes);
        let left = left.filter(|_| !never_ran);
        let held = left.map(|_| dirty.holds(v));
        v.guessed = held == Some(None);
        certain &= !v.guessed;
        let lazy = left.filter(|_| held.flatten().unwrap_or(last_ran.get(&v.processor) == Some(&1)));
        let own = saved_at.and_then(|at| UserRegs::parse(&v.bytes, at));
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

/// Finds the vCPU array of a domain.
fn find(host: &Host<'_>, domain: &Domain) -> Vec<Vcpu> {
    // max_vcpus stands at 4 since Xen 4.6; an earlier struct has padding there, and the array's end must do.
    let most = u32_at(&domain.bytes, 4).map(u64::from).filter(|n| (1..=MOST_VCPUS).contains(n)).unwrap_or(MOST_VCPUS);
    // The array stands at 8 or 16 since Xen 4.6, and far behind before.
    let pointers = (8..domain.bytes.len()).step_by(8).filter_map(|at| u64_at(&domain.bytes, at));
    let arrays = pointers.filter(|p| *p >= host.direct_map && p.is_multiple_of(8)).map(|array| {
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
        list
    });
    arrays.max_by_key(Vec::len).unwrap_or_default()
}

fn vcpu_at(host: &Host<'_>, domain: &Domain, va: VirtAddr, id: u32) -> Option<Vcpu> {
    if va.0 < host.direct_map || !va.0.is_multiple_of(8) {
        return None;
    }
    let mut bytes = vec![0; VCPU_BYTES];
    host.space.read("struct vcpu", va, &mut bytes).ok()?;
    let back = BACK_POINTERS.iter().any(|at| u64_at(&bytes, *at) == Some(domain.va.0));
    let processor = u32_at(&bytes, 4)?;
    (back && u32_at(&bytes, 0) == Some(id)).then(|| Vcpu { processor, bytes, ..Vcpu::unknown(id, va) })
}

/// `vcpu.dirty_cpu` (Xen 4.11 and later): the CPU that holds the registers, or ~0. Found by what it must be.
struct DirtyCpu {
    offsets: Vec<usize>,
}

impl DirtyCpu {
    fn calibrate<'v>(vcpus: impl Iterator<Item = &'v Vcpu> + Clone, tops: &Tops) -> Self {
        let fits = |at: usize| {
            let mut clean = false;
            for v in vcpus.clone() {
                let value = u32_at(&v.bytes, at);
                match tops.iter().find(|(_, t)| t.current == v.va) {
                    Some((cpu, _)) if value == Some(*cpu) => {}
                    None if value == Some(u32::MAX) => clean = true,
                    None if value == Some(v.processor) => {}
                    _ => return false,
                }
            }
            clean
        };
        Self { offsets: (0x80..0x400).step_by(4).filter(|at| fits(*at)).collect() }
    }

    /// Whether the vCPU's registers are on its CPU's stack; `None` if the offsets that fit do not agree.
    fn holds(&self, v: &Vcpu) -> Option<bool> {
        let mut values = self.offsets.iter().map(|at| u32_at(&v.bytes, *at) == Some(v.processor));
        let first = values.next()?;
        values.all(|b| b == first).then_some(first)
    }
}
