//! struct domain, struct vcpu, the physical CPUs' stacks, and the memory of the domUs.

use super::Defect;
use super::build::World;
use super::kernel::{KERNEL_MAP, KERNEL_PFN};
use super::mem::{Frame, Owner, Rng, pattern_page};
use super::truth::{Regs, VcpuTruth};
use super::vmcoreinfo::note;
use super::xen::STOPPED_AT;

pub struct Domain {
    pub id: u16,
    /// Frame of struct domain.
    pub mfn: u64,
    pub shared_info: u64,
    pub vcpus: Vec<u64>,
    pub tot_pages: u32,
}

/// Registers of a physical CPU as its notes have them.
pub struct Cpu {
    pub rsp: u64,
    pub rip: u64,
    pub cr3: u64,
    /// Its task state segment.
    pub tss: u64,
    /// The guest's registers, if it was in the guest.
    pub guest: Option<Regs>,
}

/// Dom0, the domUs, then the special domains that no list leads to: dom_io, dom_xen, idle.
pub fn create(w: &mut World) {
    let listed = 1 + w.o.domus;
    let ids = (0..listed as u16).chain([0x7ff1, 0x7ff2, 0x7fff]);
    for id in ids {
        let vcpus = match id {
            0 => w.o.dom0_vcpus,
            0x7ff1 | 0x7ff2 => 0,
            0x7fff => w.o.pcpus,
            _ => 1,
        };
        let mfn = w.heap_page();
        let shared_info = if (id as usize) < listed { w.heap_page() } else { 0 };
        let vcpus = (0..vcpus).map(|_| w.heap_page()).collect();
        if shared_info != 0 {
            let owner = Owner::Dom(id as usize);
            w.frames.insert(shared_info, Frame { type_count: 2, ..Frame::shared(owner) });
        }
        w.domains.push(Domain { id, mfn, shared_info, vcpus, tot_pages: 0 });
    }
    w.t.shared_info_mfn = w.domains[0].shared_info;
    w.t.domains = (0..listed).map(|i| (w.domains[i].id, w.directmap(w.domains[i].mfn))).collect();
}

/// The domUs' pages: recognisable.
pub fn take_domus(w: &mut World) {
    assert!(w.o.domus == 0 || w.o.domu_pages >= 128);
    for d in 1..=w.o.domus {
        let pages: Vec<u64> = (0..w.o.domu_pages).map(|_| w.domain_page()).collect();
        for (pfn, &mfn) in pages.iter().enumerate() {
            let pfn = pfn as u64;
            w.frames.insert(mfn, Frame::data(Owner::Dom(d)));
            w.m2p.insert(mfn, pfn);
            *w.mem.page_mut(mfn) = pattern_page(d as u64, pfn);
            w.t.domu_frames.insert(mfn, d);
        }
        w.domu_pages.push(pages);
    }
}

/// A few of the domUs' pages are typed as tables, others are traps for a careless reader.
pub fn fill_domus(w: &mut World) {
    for d in 1..=w.o.domus {
        let pages = w.domu_pages[d - 1].clone();
        for (level, &mfn) in pages.iter().rev().take(4).enumerate() {
            let level = level as u64 + 1;
            w.frames.insert(mfn, Frame::table(Owner::Dom(d), level, level == 4));
            w.mem.clear(mfn);
            w.mem.w64(mfn << 12, pages[level as usize] << 12 | 0x67);
        }
        // The same kernel runs in the domUs: their note and data page look just like dom0's.
        let text = w.t.vmcoreinfo.replace("BUILD-ID=5", "BUILD-ID=6").replace("-synth\n", "-domU\n");
        let (note_mfn, data_mfn) = (pages[8], pages[9]);
        w.mem.clear(note_mfn);
        w.mem.write(note_mfn << 12, &note("VMCOREINFO", 0, text.as_bytes())[..(24 + text.len()).min(4096)]);
        w.mem.clear(data_mfn);
        w.mem.write(data_mfn << 12, &text.as_bytes()[..text.len().min(4096)]);
        // A start_info page of its own.
        w.mem.clear(pages[10]);
        w.mem.write(pages[10] << 12, b"xen-3.0-x86_64");
        w.mem.w64((pages[10] << 12) + 0x20, w.o.domu_pages);
        w.mem.w64((pages[10] << 12) + 0x28, w.domains[d].shared_info << 12);
        // libxc sets SIF_VIRT_P2M_4TOOLS: no frame lists, only the linear list.
        let shared = w.domains[d].shared_info << 12;
        for (off, v) in [
            (0xc10, w.o.domu_pages),
            (0xc18, u64::MAX),
            (0xc28, pages[pages.len() - 4] << 12),
            (0xc30, 0xffff_c900_0000_0000),
        ] {
            w.mem.w64(shared + off, v);
        }
        if let Some(va) = w.o.domu_list.filter(|_| d == 1) {
            domu_list(w, &pages, shared, va);
        }
        w.domains[d].tot_pages = w.o.domu_pages as u32;
        if let Some(hap) = w.o.hap.filter(|_| d == 1) {
            super::hap::fill(w, d, hap);
        }
    }
}

/// Maps a list of one page through the domU's tables, which are its last pages, L4 first.
fn domu_list(w: &mut World, pages: &[u64], shared: u64, va: u64) {
    let leaf = pages[30];
    w.mem.page_mut(leaf).fill(0xff);
    (0..).zip(pages).for_each(|(pfn, mfn)| w.mem.w64((leaf << 12) + pfn * 8, *mfn));
    let mut to = leaf;
    for (table, shift) in pages.iter().rev().zip([12, 21, 30, 39]) {
        w.mem.w64((table << 12) + (va >> shift & 511) * 8, to << 12 | 0x67);
        to = *table;
    }
    w.mem.w64(shared + 0xc10, 512);
    w.mem.w64(shared + 0xc30, va);
}

/// struct domain and struct vcpu as far as any reader knows them.
pub fn fill_heads(w: &mut World) {
    let l = w.o.layout.clone();
    let listed = 1 + w.o.domus;
    for i in 0..w.domains.len() {
        let (id, mfn, shared, vcpus) = {
            let d = &w.domains[i];
            (d.id, d.mfn, d.shared_info, d.vcpus.clone())
        };
        let at = mfn << 12;
        let head = |w: &mut World, off: u64, v: u64| w.mem.w64(at + off, v);
        // list heads and locks around the fields, as seen: nothing but the right fields may fit.
        for off in [0x20, 0x28, 0x40, 0x48] {
            head(w, off, 0xffff_82e0_0000_0000 + off * 32);
        }
        w.mem.w16(at, id);
        if l.domain_shared_info > 8 {
            w.mem.w32(at + 4, vcpus.len() as u32);
        }
        if l.domain_shared_info == 24 && id < 0x7ff0 {
            let unique = w.rng.next();
            w.mem.w64(at + 8, unique);
        }
        if shared != 0 {
            let va = w.directmap(shared);
            w.mem.w64(at + l.domain_shared_info, va);
        }
        let next = if i + 1 < listed { w.directmap(w.domains[i + 1].mfn) } else { 0 };
        w.mem.w64(at + l.next_in_list, next);
        w.mem.w32(at + 0x64, w.domains[i].tot_pages);
        // xmalloc'ed pointers nearby that are no vCPU arrays.
        let array_page = w.heap_page();
        for off in [0x180, 0x1a8, 0x1d0] {
            let va = w.directmap(array_page) + 0x800 + off;
            w.mem.w64(at + off, va);
        }
        if vcpus.is_empty() {
            continue;
        }
        // The array is xmalloc'ed too: not page aligned.
        let array = (array_page << 12) + 0xb0;
        let va = w.directmap(array_page) + 0xb0;
        w.mem.w64(at + l.domain_vcpus, va);
        let domain_va = w.directmap(mfn);
        for (n, &v) in vcpus.iter().enumerate() {
            let va = w.directmap(v);
            w.mem.w64(array + 8 * n as u64, va);
            let vcpu = v << 12;
            w.mem.w32(vcpu, n as u32);
            let on_cpu = w.o.running.iter().find(|r| (r.1, r.2) == (i, n)).map(|r| r.0);
            w.mem.w32(vcpu + 4, on_cpu.unwrap_or(n % w.o.pcpus) as u32);
            w.mem.w64(vcpu + 8, 0xffff_82e0_0002_b89c);
            let never_ran = i == 0 && n >= w.o.never_ran_from;
            runstate(w, vcpu + l.vcpu_runstate, on_cpu.is_some() || id == 0x7fff, never_ran);
            w.mem.w64(vcpu + l.vcpu_domain, domain_va);
            let sibling = vcpus.get(n + 1).map_or(0, |&s| w.directmap(s));
            w.mem.w64(vcpu + l.vcpu_domain + 8, sibling);
        }
    }
    if w.o.has(Defect::DomainListLoop) {
        let (last, first) = (w.domains[listed - 1].mfn, w.directmap(w.domains[0].mfn));
        w.mem.w64((last << 12) + l.next_in_list, first);
    }
    if w.o.has(Defect::DomainListOutside) {
        let last = w.domains[listed - 1].mfn;
        w.mem.w64((last << 12) + l.next_in_list, 0xffff_8370_0000_0000);
    }
}

/// State, when it began, and the time spent in each. A vCPU off its CPU is blocked, or offline as after a panic.
fn runstate(w: &mut World, at: u64, on_cpu: bool, never_ran: bool) {
    let mut times = [0; 4].map(|_: u64| 1_000_000_000 + (w.rng.next() >> 32));
    let mut state = if on_cpu { 0 } else { 2 + w.rng.next() % 2 };
    let since = times.iter().sum::<u64>() + 900_000_000;
    if never_ran {
        (state, times) = (3, [0; 4]);
    }
    for (i, word) in [state, since].into_iter().chain(times).enumerate() {
        w.mem.w64(at + i as u64 * 8, word);
    }
}

/// A vCPU in a hypercall: rip behind the syscall instruction in xen_hypercall_pv.
fn kernel_regs(w: &World, rng: &mut Rng, stack: u64) -> Regs {
    let mut r = [0u64; 12];
    r.iter_mut().for_each(|x| *x = rng.next() >> 20);
    let rip = KERNEL_MAP + (KERNEL_PFN << 12) + 0x209;
    Regs {
        r15: r[0],
        r14: w.o.page_offset + (r[1] & 0xf_fff8),
        r13: r[2],
        r12: r[3],
        rbp: w.o.page_offset + (r[4] & 0xf_fff8),
        rbx: r[5],
        r11: 0x246,
        r10: 0x7ff0,
        r9: r[6],
        r8: r[7],
        rax: 0,
        rcx: rip,
        rdx: r[8],
        rsi: r[9],
        rdi: r[10] & 0xf,
        rip,
        rflags: 0x246,
        rsp: stack,
        cs: 0xe033,
        ss: 0xe02b,
    }
}

/// Registers of every vCPU, in struct vcpu and on the stacks of the CPUs that run one.
pub fn fill_cpus(w: &mut World) -> Vec<Cpu> {
    let l = w.o.layout.clone();
    let mut rng = Rng::new(w.o.seed ^ 0xc0de);
    for d in 0..1 + w.o.domus {
        for n in 0..w.domains[d].vcpus.len() {
            let stack = w.o.page_offset + ((0x18 + n as u64) << 12) + 0xe80;
            let never_ran = d == 0 && n >= w.o.never_ran_from;
            let regs = if never_ran { Regs::default() } else { kernel_regs(w, &mut rng, stack) };
            let on_cpu = w.o.running.iter().find(|r| (r.1, r.2) == (d, n)).map(|r| r.0);
            let lazy = w.o.lazy_idle && (d, n) == (0, 1);
            // While a vCPU is on a CPU, struct vcpu has what it had when it last left one.
            let saved = if on_cpu.is_some() || lazy { kernel_regs(w, &mut rng, stack - 0x140) } else { regs };
            if !never_ran {
                w.mem.write((w.domains[d].vcpus[n] << 12) + l.vcpu_user_regs, &saved.bytes());
            }
            if let Some(at) = l.vcpu_dirty_cpu {
                let dirty = on_cpu.or(lazy.then_some(1)).map_or(u32::MAX, |cpu| cpu as u32);
                w.mem.w32((w.domains[d].vcpus[n] << 12) + at, dirty);
            }
            w.t.vcpus.push(VcpuTruth { domain: d, vcpu: n, regs, on_cpu: on_cpu.or(lazy.then_some(1)), saved });
        }
    }
    let idle = w.domains.len() - 1;
    let all: Vec<Cpu> = (0..w.o.pcpus).map(|cpu| fill_stack(w, cpu, idle, &mut rng)).collect();
    let (silent, zeros) = (w.o.silent_cpu, w.o.silent_zeros);
    let answered = |(n, cpu): (usize, Cpu)| match Some(n) == silent {
        true if zeros => Some(Cpu { rsp: 0, rip: 0, cr3: 0, tss: 0, guest: None }),
        true => None,
        false => Some(cpu),
    };
    all.into_iter().enumerate().filter_map(answered).collect()
}

fn fill_stack(w: &mut World, cpu: usize, idle: usize, rng: &mut Rng) -> Cpu {
    let l = w.o.layout.clone();
    let first = w.stack_mfn(cpu);
    let top = (first + 8) << 12;
    let top_va = w.directmap(first) + 0x8000;
    let running = w.o.running.iter().find(|r| r.0 == cpu).copied();
    let (current, regs) = match running {
        Some((_, d, n)) => {
            let t = w.t.vcpus.iter().find(|t| (t.domain, t.vcpu) == (d, n)).unwrap();
            (w.domains[d].vcpus[n], t.regs)
        }
        None if w.o.lazy_idle && cpu == 1 => {
            let t = w.t.vcpus.iter().find(|t| (t.domain, t.vcpu) == (0, 1)).unwrap();
            (w.domains[idle].vcpus[cpu], t.regs)
        }
        // An idle CPU keeps registers of whichever vCPU was there before: they belong to nobody now.
        None if l.vcpu_dirty_cpu.is_some() => {
            (w.domains[idle].vcpus[cpu], kernel_regs(w, rng, w.o.page_offset + 0x1_9e80))
        }
        // Where nothing tells, they are those of the vCPU that was saved last.
        None => {
            let t = w.t.vcpus.iter().rev().find(|t| t.on_cpu.is_none() && t.regs.rip != 0).unwrap();
            (w.domains[idle].vcpus[cpu], t.regs)
        }
    };
    for i in 0..0x300 / 8 {
        let word = w.image_va(STOPPED_AT + i * 4);
        w.mem.w64(top - 0x500 + i * 8, word);
    }
    let guest = running.filter(|r| w.o.in_guest.contains(&r.0)).map(|_| regs);
    // The stack still has what the guest entered Xen with last.
    let pushed = guest.map_or(regs, |r| Regs { rip: r.rip - 0x40, rsp: r.rsp - 0x80, rax: !r.rax, ..r });
    w.mem.write(top - l.stack_regs, &pushed.bytes());
    if l.fred {
        // Event data of the last page fault, and a reserved word.
        w.mem.w64(top - l.stack_regs + 168, w.o.page_offset + 0x1_2340);
        w.mem.w64(top - l.stack_regs + 176, 0);
    }
    // A task state segment, whose rsp0 is behind the registers on the stack.
    let tss = w.directmap(first) + 0x40;
    w.mem.w64((first << 12) + 0x44, top_va - l.stack_regs + 0xa8);
    // processor_id, verw_sel; current_vcpu; cr4.
    w.mem.w32(top - l.stack_current - 8, cpu as u32);
    w.mem.w16(top - l.stack_current - 4, 0xe010);
    let va = w.directmap(current);
    w.mem.w64(top - l.stack_current, va);
    w.mem.w64(top - l.stack_current + 16, 0x15_0660);
    let in_dom0 = running.is_some_and(|r| r.1 == 0);
    let cr3 = if in_dom0 { w.t.p2m_cr3.max(w.t.dom0[&w.t.swapper_pfn] << 12) } else { w.root << 12 };
    // The crashing CPU is on its own stack. The others were stopped by NMI: in a guest, its frame is the one at the top;
    // in Xen, it is on the NMI's page of the same block.
    let by_nmi = cpu != w.o.crashed_cpu || w.o.crash_like_stop;
    if !by_nmi {
        w.t.crashed_cpu = Some(cpu);
    }
    let vector = |w: &mut World, frame: u64| w.mem.w32(frame + 124, 2);
    let rsp = match (by_nmi, running.is_some()) {
        (false, _) => top_va - 0x348,
        (true, true) => {
            vector(w, top - l.stack_regs);
            top_va - l.stack_regs - 0x48
        }
        (true, false) => {
            vector(w, top - 0x8000 + 0x3000 - 168);
            top_va - 0x8000 + 0x3000 - 168 - 0x48
        }
    };
    let (rsp, rip) = guest.map_or((rsp, w.image_va(STOPPED_AT)), |r| (r.rsp, r.rip));
    Cpu { rsp, rip, cr3, tss, guest }
}
