//! vCPUs: struct vcpu by shape, and the registers that a vCPU had.
//!
//! Nothing in the notes tells where struct vcpu keeps what, and Debian's xen-syms has no DWARF, so shapes decide:
//! * struct domain has a pointer to an array of pointers whose n-th target begins with vcpu_id n and points back to the
//!   domain. No other field does.
//! * saved registers are a `cpu_user_regs` with the selectors of a 64-bit PV guest (Xen: public/arch-x86/xen-x86_64.h).
//! * the top of a physical CPU's 32 KiB stack (Xen: struct cpu_info) has the guest's registers as they were pushed on
//!   the way into Xen, and a pointer to the current vCPU.
//!
//! * where QEMU made the dump it tells what each processor had, which is the guest's if it was in the guest.
//!
//! A vCPU on a CPU has its registers there. So has one whose CPU idles since: Xen switches to its idle vCPU lazily and
//! leaves the registers on the stack (Xen: common/sched, `__context_switch` is skipped), and struct vcpu's are stale.

use super::domain::Domain;
use super::host::Host;
use super::notes::CpuNote;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::units::{PAGE_SIZE, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;
use std::collections::BTreeMap;

/// Xen's bound for a PV domain (MAX_VIRT_CPUS).
const MOST_VCPUS: u64 = 8192;
/// DOMID_IDLE.
const IDLE: u16 = 0x7fff;
/// STACK_SIZE of x86_64.
const STACK: u64 = 0x8000;
/// struct cpu_info is smaller than this in every version.
const TOP: usize = 0x300;
/// What is read of struct vcpu; the registers come early in it.
const VCPU_BYTES: usize = PAGE_SIZE;
/// The back pointer to the domain: 16 up to Xen 4.17, 24 from 4.18 on, where `vcpu_info_area` stands before it.
const BACK_POINTERS: [usize; 4] = [8, 16, 24, 32];

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
const REGS_BYTES: usize = 21 * 8;

/// Where a vCPU's registers were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuState {
    /// Running on this physical CPU.
    Running(u32),
    /// Not running, but its registers were still on this physical CPU's stack.
    Lazy(u32),
    /// In struct vcpu.
    Saved,
    /// Nowhere: an HVM or PVH vCPU, or one that never ran.
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

impl UserRegs {
    /// Reads registers of a 64-bit PV guest; `None` for anything else.
    fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        let word = |i: usize| u64_at(bytes, at.checked_add(i * 8)?);
        let (cs, ss) = (u16_at(bytes, at.checked_add(136)?)?, u16_at(bytes, at.checked_add(160)?)?);
        let mut general = [0; 15];
        for (i, r) in general.iter_mut().enumerate() {
            *r = word(i)?;
        }
        let regs = Self { general, error: word(15)?, rip: word(16)?, cs, rflags: word(18)?, rsp: word(19)?, ss };
        regs.is_guest().then_some(regs)
    }

    /// Whether they can be a 64-bit PV guest's.
    pub fn is_guest(&self) -> bool {
        // Xen's flat ring-3 selectors, or Linux's own for user space (64-bit, 32-bit).
        matches!(self.cs, 0xe033 | 0x33 | 0x23 | 0xe023)
            && matches!(self.ss, 0xe02b | 0x2b)
            // Bit 1 of RFLAGS is always set, bits 22 and up never.
            && self.rflags & 2 != 0
            && self.rflags >> 22 == 0
            && VirtAddr(self.rip).is_canonical()
            && VirtAddr(self.rsp).is_canonical()
    }

    /// Whether the vCPU was in its kernel: the upper half of the address space.
    pub fn in_kernel(&self) -> bool {
        self.rip >> 63 == 1
    }
}

/// What stands at the top of a physical CPU's stack. Which CPU that is, the current vCPU knows (idle ones too): notes of
/// CPUs that did not answer are missing, so their order does not tell.
#[derive(Clone, Debug, Default)]
struct StackTop {
    /// struct vcpu of the current vCPU.
    current: VirtAddr,
    idle: bool,
    regs: Option<UserRegs>,
}

/// By CPU number.
type Tops = BTreeMap<u32, StackTop>;

/// The vCPUs of each of `domains`, by domain id and in order of vCPU id, with registers.
///
/// The vCPUs of other domains are read only if those of `domains` cannot tell whose registers an idle CPU still holds.
pub fn vcpus(host: &Host<'_>, domains: &[&Domain]) -> BTreeMap<u16, Vec<Vcpu>> {
    let tops = stack_tops(host);
    let read =
        |domains: &[&Domain]| -> BTreeMap<u16, Vec<Vcpu>> { domains.iter().map(|d| (d.id, find(host, d))).collect() };
    let mut all = read(domains);
    if !assign(&mut all, &tops, host.layout.as_ref()) {
        let everyone: Vec<&Domain> = host.domains.iter().collect();
        all = read(&everyone);
        assign(&mut all, &tops, host.layout.as_ref());
        all.retain(|id, _| domains.iter().any(|d| d.id == *id));
    }
    all
}

/// Gives each vCPU its registers; says whether it could do so without guessing.
fn assign(all: &mut BTreeMap<u16, Vec<Vcpu>>, tops: &Tops, layout: Option<&Vmcoreinfo>) -> bool {
    let told = |name| layout.and_then(|l| l.offset(name)).and_then(|at| usize::try_from(at).ok());
    let saved_at = common_offset(all.values().flatten().map(|v| v.bytes.as_slice())).or(told("vcpu.user_regs"));
    let dirty = DirtyCpu::calibrate(all.values().flatten(), tops).or(told("vcpu.dirty_cpu"));
    // Registers that a stack shares with a struct vcpu were saved from it: the stack's are the past.
    let saved: Vec<UserRegs> = all.values().flatten().filter_map(|v| UserRegs::parse(&v.bytes, saved_at?)).collect();
    // Without dirty_cpu an idle CPU's registers are those of the one vCPU that last ran there, if it is one.
    let mut last_ran: BTreeMap<u32, usize> = BTreeMap::new();
    for v in all.values().flatten().filter(|v| tops.values().all(|t| t.current != v.va)) {
        *last_ran.entry(v.processor).or_default() += 1;
    }
    let mut certain = true;
    for v in all.values_mut().flatten() {
        let running = tops.iter().find(|(_, t)| t.current == v.va && t.regs.is_some());
        let left =
            tops.get_key_value(&v.processor).filter(|(_, t)| t.idle && t.regs.is_some_and(|r| !saved.contains(&r)));
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
            (None, None, None) => (VcpuState::Unknown, None),
        };
        v.guessed &= running.is_none();
    }
    certain
}

/// Offsets by shape, as far as the dump shows any; several where several fit.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// domain.vcpu.
    pub(super) array: Vec<u64>,
    /// vcpu.domain.
    pub(super) back: Vec<u64>,
    /// vcpu.arch.user_regs.
    pub(super) regs: Vec<u64>,
    /// vcpu.dirty_cpu.
    pub(super) dirty: Vec<u64>,
    /// The guest's registers on a stack, counted down from its top.
    pub(super) stack_regs: Vec<u64>,
    /// current_vcpu on a stack, counted down from its top.
    pub(super) stack_current: Vec<u64>,
}

impl Shape {
    /// Looks at all vCPUs.
    pub(super) fn of(host: &Host<'_>) -> Self {
        let mut shape = Self::default();
        let mut vcpus = Vec::new();
        for domain in &host.domains {
            let (list, at) = find_array(host, domain);
            shape.array.extend(at.map(|at| at as u64));
            for v in &list {
                let back = BACK_POINTERS.iter().filter(|at| u64_at(&v.bytes, **at) == Some(domain.va.0));
                shape.back.extend(back.map(|at| *at as u64));
            }
            vcpus.extend(list);
        }
        let (tops, stack) = stacks(host);
        shape.regs.extend(common_offset(vcpus.iter().map(|v| v.bytes.as_slice())).map(|at| at as u64));
        shape.dirty.extend(DirtyCpu::calibrate(vcpus.iter(), &tops).possible.iter().map(|at| *at as u64));
        let from_top = |at: usize| (TOP - at) as u64;
        shape.stack_regs.extend(stack.0.map(from_top));
        shape.stack_current.extend(stack.1.map(from_top));
        for list in [&mut shape.array, &mut shape.back] {
            list.sort_unstable();
            list.dedup();
        }
        shape
    }
}

/// Finds the vCPU array of a domain.
fn find(host: &Host<'_>, domain: &Domain) -> Vec<Vcpu> {
    find_array(host, domain).0
}

/// The same, and where in struct domain the pointer to it stands.
fn find_array(host: &Host<'_>, domain: &Domain) -> (Vec<Vcpu>, Option<usize>) {
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
    (back && u32_at(&bytes, 0) == Some(id)).then(|| Vcpu { processor, bytes, ..Vcpu::unknown(id, va) })
}

/// The offset at which most of these memories have registers; the lowest of several.
fn common_offset<'v>(memories: impl Iterator<Item = &'v [u8]>) -> Option<usize> {
    let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
    for bytes in memories {
        let fits =
            (0..bytes.len().saturating_sub(REGS_BYTES)).step_by(8).filter(|at| UserRegs::parse(bytes, *at).is_some());
        fits.for_each(|at| *votes.entry(at).or_default() += 1);
    }
    votes.into_iter().max_by_key(|(at, n)| (*n, std::cmp::Reverse(*at))).map(|(at, _)| at)
}

/// Reads the top of each physical CPU's stack. Offsets are the same on all CPUs, so they are found together.
fn stack_tops(host: &Host<'_>) -> Tops {
    stacks(host).0
}

/// The same, and where the registers and current_vcpu stand.
fn stacks(host: &Host<'_>) -> (Tops, (Option<usize>, Option<usize>)) {
    let top_of = |rsp: u64| (rsp & !(STACK - 1)).checked_add(STACK - TOP as u64).filter(|_| rsp >= host.direct_map);
    let read = |rsp| {
        let mut bytes = vec![0; TOP];
        host.space.read("a hypervisor stack", VirtAddr(top_of(rsp)?), &mut bytes).ok()?;
        Some(bytes)
    };
    // Where QEMU tells of the processor itself: it may have been in the guest, whose stack is no help.
    let rsp =
        |c: &CpuNote| c.qemu.and_then(|q| q.stack(&host.space)).filter(|s| *s >= host.direct_map).unwrap_or(c.rsp);
    let memories: Vec<(Vec<u8>, &CpuNote)> = host.notes.cpus.iter().filter_map(|c| Some((read(rsp(c))?, c))).collect();
    let regs_at = common_offset(memories.iter().map(|m| m.0.as_slice()));
    let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
    for (bytes, _) in &memories {
        for at in (0..TOP - 8).step_by(8) {
            if owner_of(host, VirtAddr(u64_at(bytes, at).unwrap_or_default())).is_some() {
                *votes.entry(at).or_default() += 1;
            }
        }
    }
    let current_at = votes.into_iter().max_by_key(|(at, n)| (*n, *at)).map(|(at, _)| at);
    let top = |(bytes, cpu_note): &(Vec<u8>, &CpuNote)| {
        let current = VirtAddr(current_at.and_then(|at| u64_at(bytes, at)).unwrap_or_default());
        let (owner, cpu) = owner_of(host, current)?;
        let entered = regs_at.and_then(|at| UserRegs::parse(bytes, at));
        let regs = cpu_note.qemu.and_then(|q| q.guest()).or(entered);
        Some((cpu, StackTop { current, idle: owner == IDLE, regs }))
    };
    (memories.iter().filter_map(top).collect(), (regs_at, current_at))
}

/// The domain id of what may be a struct vcpu, a known domain's or the idle domain's; and its `processor`.
fn owner_of(host: &Host<'_>, va: VirtAddr) -> Option<(u16, u32)> {
    let mut head = [0; 40];
    if va.0 < host.direct_map || !va.0.is_multiple_of(8) || host.space.read("struct vcpu", va, &mut head).is_err() {
        return None;
    }
    if u32_at(&head, 0).is_none_or(|id| u64::from(id) >= MOST_VCPUS) {
        return None;
    }
    let processor = u32_at(&head, 4)?;
    let owner = BACK_POINTERS.iter().find_map(|at| {
        let domain = VirtAddr(u64_at(&head, *at)?);
        if let Some(d) = host.domains.iter().find(|d| d.va == domain) {
            return Some(d.id);
        }
        let mut id = [0; 2];
        let read = domain.0 >= host.direct_map && host.space.read("struct domain", domain, &mut id).is_ok();
        (read && u16::from_le_bytes(id) == IDLE).then_some(IDLE)
    });
    Some((owner?, processor))
}

/// `vcpu.dirty_cpu` (Xen 4.11 and later): the CPU that holds the registers, or ~0. Found by what it must be.
struct DirtyCpu {
    /// Offsets that fit all vCPUs, and at which one of them at least is clean: a processor alone stands in many places.
    offsets: Vec<usize>,
    /// Offsets that fit all vCPUs.
    possible: Vec<usize>,
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
                    _ => return None,
                }
            }
            Some((at, clean))
        };
        let all: Vec<(usize, bool)> = (0x80..0x400).step_by(4).filter_map(fits).collect();
        let offsets = all.iter().filter(|(_, clean)| *clean).map(|(at, _)| *at).collect();
        Self { offsets, possible: all.into_iter().map(|(at, _)| at).collect() }
    }

    /// Takes DWARF's word where the dump does not contradict it.
    fn or(mut self, told: Option<usize>) -> Self {
        if let Some(at) = told.filter(|at| self.possible.contains(at)) {
            self.offsets = vec![at];
        }
        self
    }

    /// Whether the vCPU's registers are on its CPU's stack; `None` if the offsets that fit do not agree.
    fn holds(&self, v: &Vcpu) -> Option<bool> {
        let mut values = self.offsets.iter().map(|at| u32_at(&v.bytes, *at) == Some(v.processor));
        let first = values.next()?;
        values.all(|b| b == first).then_some(first)
    }
}
