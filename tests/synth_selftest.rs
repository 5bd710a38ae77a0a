//! The synthetic machines are coherent, checked by a small reader that knows the file alone and shares
//! no code with the writer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod synth;

use std::collections::{BTreeMap, BTreeSet};
use synth::layout::{GIB_64, TIB};
use synth::memread::MemMap;
use synth::reader::{Core, FRAME, kallsyms, le};
use synth::{Defect, Dump, Expect, KallsymsBase, Kernel, Leaves, Machine, NotePlace, PageKind, Pdx, Xen, XenLayout};

/// As Xen's tables would have it.
fn pdx_of(m: &Machine, mfn: u64) -> u64 {
    let block = 0x10_0000;
    match m.pdx {
        Pdx::None => mfn,
        Pdx::Mask => mfn % block + mfn / (16 * block) * block,
        Pdx::Offset => {
            let bases: Vec<u64> = std::iter::once(0).chain(m.high.iter().map(|h| h - h % block)).collect();
            let region = bases.iter().rposition(|b| mfn >= *b).unwrap();
            mfn - (bases[region] - region as u64 * block)
        }
    }
}

/// Everything that holds for a machine without defects.
fn check(name: &str, m: &Machine, dump: &Dump) {
    let (t, core, layout) = (&dump.truth, Core::open(&dump.bytes), &m.layout);
    let pdx = |mfn: u64| pdx_of(m, mfn);
    let base = if layout.bigmem { 0xffff_8480_0000_0000 } else { 0xffff_8300_0000_0000 };
    let directmap = |mfn: u64| base + (pdx(mfn) << 12);
    assert_eq!(core.crash(9), t.frame_list_list, "{name}");
    assert_eq!(core.read(core.crash(2), 8).unwrap(), layout.extra.as_bytes());

    // Domains: ascending ids, each one its own struct, its shared info owned by it.
    let mut at = core.var("domain_list");
    let mut owners = BTreeMap::new();
    for &(id, va) in &t.domains {
        assert_eq!(at, va);
        assert_eq!(core.xen64(va) & 0xffff, u64::from(id));
        owners.insert((va - base) >> 12, id);
        at = core.xen64(va + core.xen["OFFSET(domain.next_in_list)"]);
    }
    assert_eq!(at, 0);
    assert_eq!(core.xen64(core.var("dom_xen")) & 0xffff, 0x7ff2);
    assert_eq!(core.xen64(core.var("dom_io")) & 0xffff, 0x7ff1);
    let dom0 = t.domains[0].1;
    assert_eq!(core.xen64(dom0 + layout.domain_shared_info), directmap(t.shared_info_mfn));

    // Frame table and M2P.
    for (&pfn, &mfn) in &t.dom0 {
        let (count, kind, owner) = core.page_info(pdx(mfn)).unwrap();
        assert_eq!(count >> 62, 2, "{name}: PFN {pfn:#x} allocated, not Xen heap");
        assert_eq!(owners[&owner], 0);
        let level = t.tables.get(&pfn).map_or(7, |t| t.level);
        if !t.stale_tables.contains(&pfn) {
            assert_eq!(kind >> layout.type_shift, level);
        }
        assert_eq!(core.xen64(0xffff_8280_0000_0000 + mfn * 8), pfn);
        assert_eq!(core.walk(core.root, directmap(mfn)), Some(mfn << 12));
    }
    for mfn in t.free_frames.iter().step_by(17) {
        let (count, ..) = core.page_info(pdx(*mfn)).unwrap();
        let scrub = if layout.minor >= 22 { 1 << 57 } else { 1 << 63 };
        assert_eq!(count & !scrub, 3 << layout.state_shift);
    }
    for (mfn, dom) in t.domu_frames.iter().step_by(11) {
        assert_eq!(usize::from(owners[&core.page_info(pdx(*mfn)).unwrap().2]), *dom);
    }
    for mfn in &t.xen_heap {
        let (count, _, owner) = core.page_info(pdx(*mfn)).unwrap();
        assert_eq!((count >> 62, owners[&owner]), (3, 0));
    }

    // P2M: tree and linear list.
    let shared = t.shared_info_mfn << 12;
    assert_eq!((core.u64(shared + 0xc10), core.u64(shared + 0xc18)), (t.max_pfn, t.frame_list_list));
    for pfn in 0..t.max_pfn {
        let list = core.u64((t.frame_list_list << 12) + pfn / 512 / 512 * 8);
        let leaf = core.u64((list << 12) + pfn / 512 % 512 * 8);
        let entry = core.u64((leaf << 12) + pfn % 512 * 8);
        if let Some(&mfn) = t.dom0.get(&pfn) {
            assert_eq!(entry, mfn);
        } else if let Some(mfn) = t.foreign.get(&pfn) {
            assert_eq!(entry, mfn | 1 << 63);
        } else {
            assert_eq!(entry, if t.identity.contains(&pfn) { pfn | 1 << 62 } else { u64::MAX });
        }
        if t.p2m_cr3 != 0 {
            assert_eq!(core.walk(t.p2m_cr3, t.p2m_vaddr + pfn * 8), Some((leaf << 12) + pfn % 512 * 8));
        }
    }

    // Linux: direct map, image, start_info, uts, note.
    let root = t.dom0[&t.swapper_pfn] << 12;
    for (&pfn, &mfn) in &t.dom0 {
        assert_eq!(core.walk(root, t.page_offset + (pfn << 12)), Some(mfn << 12), "{name}: PFN {pfn:#x}");
    }
    let kernel = |va: u64| core.walk(root, va).unwrap();
    assert_eq!(kernel(t.swapper_va), root);
    assert_eq!(core.u64(kernel(t.xen_start_info_va)), t.start_info_va);
    let (pfn, off) = t.xen_start_info_at;
    assert_eq!(kernel(t.xen_start_info_va), (t.dom0[&pfn] << 12) + off);
    let start = kernel(t.start_info_va);
    assert_eq!(core.read(start, 15).unwrap(), b"xen-3.0-x86_64\0");
    assert_eq!(core.u64(start + 0x28), shared);
    linux_note(&core, dump, &kernel);
    vcpus(name, &core, layout, dump);

    // Entries of live tables: every one has a truth, named ones are what they are called.
    for table in t.tables.values() {
        assert_eq!(table.entries.len(), 512);
    }
    let named = |n: &str| {
        let (pfn, index) = t.named[n];
        (t.tables[&pfn].entries[index], core.u64((t.dom0[&pfn] << 12) + index as u64 * 8))
    };
    assert!(matches!(named("shared_info").0, Expect::XenHeap { mfn, .. } if mfn == t.shared_info_mfn));
    assert!(matches!(named("mmio_on_ram_pfn").0, Expect::NotPresent { .. }));
    for kept in ["lapic", "vga", "ecam", "user_mmio", "user_swap", "user_prot_none"] {
        let (expect, raw) = named(kept);
        assert_eq!(expect, Expect::Exact(raw), "{kept}");
    }
    assert_eq!(named("xen_slot").0, Expect::Exact(0));
    assert_eq!(named("user_data").0, Expect::Exact(named("user_data").1 & !FRAME | 0x120 << 12));
    if let Some((&first, _)) = t.foreign.iter().next() {
        assert_eq!(named("user_foreign").0, Expect::Exact(named("user_foreign").1 & !FRAME | (first + 1) << 12));
        assert!(matches!(named("user_foreign_unknown").0, Expect::Foreign { .. }));
        assert!(matches!(named("user_foreign_on_ram_pfn").0, Expect::NotPresent { .. }));
    }
}

fn linux_note(core: &Core, dump: &Dump, kernel: &dyn Fn(u64) -> u64) {
    let t = &dump.truth;
    let Some((pfn, off)) = t.note_at else { return };
    let bytes = |at: u64, n: u64| -> Vec<u8> {
        (at..at + n).map(|pa| core.read((t.dom0[&(pa >> 12)] << 12) + (pa & 0xfff), 1).unwrap()[0]).collect()
    };
    let at = (pfn << 12) + off;
    let head = bytes(at, 24);
    assert_eq!(&head[12..24], b"VMCOREINFO\0\0");
    assert_eq!((le(&head, 0, 4), le(&head, 8, 4)), (11, 0));
    assert_eq!(bytes(at + 24, le(&head, 4, 4)), t.vmcoreinfo.as_bytes());
    let value = |key: &str, radix| {
        let line = t.vmcoreinfo.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.map(|v| u64::from_str_radix(v, radix).unwrap())
    };
    assert_eq!(value("SYMBOL(swapper_pg_dir)", 16), Some(t.swapper_va));
    let uts = value("SYMBOL(init_uts_ns)", 16).unwrap() + value("OFFSET(uts_namespace.name)", 10).unwrap_or(4);
    assert_eq!(core.read(kernel(uts), 6).unwrap(), b"Linux\0");
    assert_eq!(core.read(kernel(uts + 130), t.release.len()).unwrap(), t.release.as_bytes());
    let Some(names) = value("SYMBOL(kallsyms_names)", 16) else {
        return;
    };
    assert_eq!(kallsyms(core, &value, kernel, names), Some(t.xen_start_info_va));
}

fn vcpus(name: &str, core: &Core, l: &XenLayout, dump: &Dump) {
    let t = &dump.truth;
    let status: Vec<_> = core.notes.iter().filter(|n| n.0 == "CORE").collect();
    for v in &t.vcpus {
        let domain = t.domains[v.domain].1;
        let array = core.xen64(domain + l.domain_vcpus);
        let vcpu = core.xen64(array + 8 * v.vcpu as u64);
        assert_eq!(core.xen64(vcpu) & 0xffff_ffff, v.vcpu as u64);
        assert_eq!(core.xen64(vcpu + l.vcpu_domain), domain);
        let saved = core.walk(core.root, vcpu + l.vcpu_user_regs).unwrap();
        if v.regs.rip == 0 {
            // Never brought up: offline, and no time on a CPU.
            assert_eq!(core.read(saved, 168).unwrap(), [0; 168]);
            assert_eq!((core.xen64(vcpu + l.vcpu_runstate), core.xen64(vcpu + l.vcpu_runstate + 16)), (3, 0));
            continue;
        }
        assert_eq!(core.read(saved, 168).unwrap(), v.saved.bytes());
        assert_eq!(core.u64(saved + 136), 0xe033);
        assert_eq!(v.saved == v.regs, v.on_cpu.is_none(), "{name}");
        if let Some(cpu) = v.on_cpu {
            let top = (le(status[cpu].2, 112 + 19 * 8, 8) | 0x7fff) + 1;
            assert_eq!(core.xen64(top - l.stack_current), vcpu);
            let regs = core.walk(core.root, top - l.stack_regs).unwrap();
            let (found, expected) = (core.read(regs, 168).unwrap(), v.regs.bytes());
            // Between them stands the vector.
            assert_eq!((&found[..120], &found[128..]), (&expected[..120], &expected[128..]));
            assert_eq!(l.stack_regs - l.stack_current - 8, if l.fred { 184 } else { 200 }, "{name}: struct cpu_info");
        }
    }
}

fn run(name: &str, machine: Machine) -> Dump {
    let dump = machine.clone().build();
    check(name, &machine, &dump);
    dump
}

#[test]
fn hypervisors() {
    for xen in Xen::ALL {
        run(&format!("{xen:?}"), Machine::new().xen(xen).domus(2));
        run(&format!("{xen:?}, BIGMEM"), Machine::new().layout(XenLayout { bigmem: true, ..XenLayout::of(xen) }));
    }
    let bigmem = XenLayout { bigmem: true, ..XenLayout::of(Xen::V4_20) };
    let dump = run("BIGMEM, 32 TiB", Machine::new().layout(bigmem).high(vec![TIB, 32 * TIB]));
    assert!(dump.truth.domains.iter().any(|(_, va)| va - 0xffff_8480_0000_0000 > 1 << 44));
    for pdx in [Pdx::None, Pdx::Mask, Pdx::Offset] {
        for leaves in [Leaves::Small, Leaves::Large, Leaves::Huge] {
            let high = vec![GIB_64 + 0x8_0000, TIB + 0x4_0000];
            let dump = run(&format!("{pdx:?}, {leaves:?}"), Machine::new().leaves(leaves).high(high).pdx(pdx));
            assert!(dump.truth.dom0.values().any(|&m| m > TIB) && dump.truth.dom0.values().any(|&m| m < GIB_64));
            assert!(dump.truth.max_page > TIB);
        }
    }
    let dump = run("never ran", Machine::new().dom0_vcpus(4).never_ran_from(2).crashed_cpu(1));
    assert_eq!(dump.truth.crashed_cpu, Some(1));
    let dump = run("crashed by NMI", Machine::new().crash_like_stop(true).no_free(true));
    assert_eq!((dump.truth.crashed_cpu, dump.truth.free_frames.len()), (None, 0));
    for leaves in [Leaves::Small, Leaves::Large, Leaves::Huge] {
        run(&format!("{leaves:?}"), Machine::new().leaves(leaves).domus(0));
        let dump = run(&format!("{leaves:?} with a PDX hole"), Machine::new().leaves(leaves).pdx_hole(true));
        assert!(dump.truth.dom0.values().any(|&m| m >= 0x100_0000));
    }
    run("four vCPUs", Machine::new().pcpus(4).dom0_vcpus(4).running(vec![(0, 0, 2), (3, 1, 0), (1, 0, 0)]));
}

#[test]
fn kernels() {
    for kernel in Kernel::ALL {
        let dump = run(&format!("{kernel:?}"), Machine::new().kernel(kernel));
        assert_eq!(dump.truth.pv_init_ops.is_some(), kernel <= Kernel::V4_19);
    }
    for base in [KallsymsBase::AbsolutePercpu, KallsymsBase::Relative, KallsymsBase::Place] {
        run(&format!("{base:?}"), Machine::new().kallsyms(Some(base)));
    }
    for place in [NotePlace::TwoPages, NotePlace::StaticArray, NotePlace::None] {
        for seed in 1..5 {
            let dump = run(&format!("{place:?}"), Machine::new().note_place(place).seed(seed));
            if let Some((pfn, off)) = dump.truth.note_at {
                assert!(off as usize + 24 + dump.truth.vmcoreinfo.len() > 4096);
                assert_ne!(dump.truth.dom0[&pfn] + 1, dump.truth.dom0[&(pfn + 1)]);
            }
        }
    }
    run("classic P2M", Machine::new().classic_p2m(true).linear_p2m(Some(false)));
    let dump = run("unpinned", Machine::new().unpinned_mm(true).ambiguous_start_info(true));
    assert_eq!((dump.truth.unpinned_tables.len(), dump.truth.pages.len()), (5, 0));
}

/// Reads all struct pages anew, and finds in them what the truth says.
fn struct_pages(name: &str, machine: Machine) -> Dump {
    let dump = run(name, machine.mem_map(true));
    let (t, core) = (&dump.truth, Core::open(&dump.bytes));
    let map = MemMap::open(&core, t.dom0[&t.swapper_pfn] << 12, &t.vmcoreinfo);
    let found = map.classify(t.max_pfn, |pfn| t.dom0.contains_key(&pfn));
    let (note, at) = t.note_at.unwrap();
    let last = note + (at + 23 + t.vmcoreinfo.len() as u64) / 4096;
    let kept = |pfn: &u64| {
        let special = t.tables.contains_key(pfn) || t.p2m_pages.contains(pfn) || *pfn == t.start_info_pfn;
        special || (note..=last).contains(pfn)
    };
    for level in 0..32 {
        let drops =
            |(pfn, bits): (&u64, &u8)| (bits & level != 0 && t.dom0.contains_key(pfn) && !kept(pfn)).then_some(*pfn);
        let dropped: BTreeSet<u64> = found.iter().filter_map(drops).collect();
        let expected = t.excluded(level);
        let odd: Vec<_> = dropped.symmetric_difference(&expected).map(|p| (p, t.pages[p], found[p])).collect();
        assert!(odd.is_empty(), "{name}, level {level}: {odd:x?}");
    }
    // What must stay would go, but for being known.
    let lies = |p: &&u64| kept(p) && found[p] != 0;
    assert!(found.keys().filter(lies).count() > 4, "{name}");
    assert!(t.tables.keys().filter(|p| found[p] != 0).count() == 2, "{name}");
    let count = |kind| t.pages.values().filter(|k| **k == kind).count();
    for kind in [PageKind::Free, PageKind::Cache, PageKind::PrivateCache, PageKind::User, PageKind::Unknown] {
        assert!(count(kind) > 8, "{name}: {kind:?}");
    }
    assert!(t.tables.keys().all(|p| t.pages[p] == PageKind::Table), "{name}");

    // pgd_list, both ways round.
    let lru = map.key("OFFSET(page.lru)").unwrap() as u64;
    let mut at = t.pgd_list_va;
    for pfn in t.pgd_list.iter().map(Some).chain([None]) {
        let next = map.u64(at).unwrap();
        assert_eq!(map.u64(next + 8), Some(at), "{name}");
        assert_eq!(next, pfn.map_or(t.pgd_list_va, |p| map.page_va(*p).unwrap() + lru), "{name}");
        at = next;
    }
    assert!(t.pgd_list.iter().all(|p| t.tables.get(p).or(t.unpinned.get(p)).unwrap().level == 4));
    for (pfn, table) in &t.unpinned {
        let changed = table.entries.iter().enumerate().filter(|(i, e)| {
            let raw = core.u64((t.dom0[pfn] << 12) + *i as u64 * 8);
            !matches!(e, Expect::Exact(new) if *new == raw)
        });
        assert!(changed.count() > 0, "{name}: table {pfn:#x} leads nowhere");
    }
    dump
}

#[test]
fn mem_maps() {
    for kernel in Kernel::ALL {
        let name = format!("{kernel:?}");
        let of = || Machine::new().kernel(kernel).unpinned_mm(true);
        let dump = struct_pages(&name, of());
        assert_eq!((dump.truth.unpinned.len(), dump.truth.pgd_list.len()), (5, 2));
        struct_pages(&format!("{name}, absent"), of().mem_map_absent(true));
        struct_pages(&format!("{name}, no hwpoison"), of().without_keys(vec!["NUMBER(PG_hwpoison)"]));
        if kernel >= Kernel::V6_1 {
            let dump = struct_pages(&format!("{name}, small sections"), of().section_bits(18).pdx_hole(true));
            assert_eq!(dump.truth.pages[&0x345], PageKind::Unknown);
        }
    }
    struct_pages("4.14's pointer", Machine::new().kernel(Kernel::V4_19).mem_section_by_address(true));
    struct_pages("note over two pages", Machine::new().note_place(NotePlace::TwoPages).domus(0));
}

#[test]
fn files() {
    run("many loads", Machine::new().with_elf(|e| (e.loads, e.unsorted, e.overlapping) = (60, true, true)));
    let dump = run("PN_XNUM", Machine::new().with_elf(|e| e.xnum = true));
    assert_eq!(&dump.bytes[56..58], &[0xff, 0xff]);
    run("memsz", Machine::new().with_elf(|e| (e.memsz_only, e.notes_align, e.split_notes) = (16, 8, true)));
    let dump = Machine::new().with_elf(|e| e.class32 = true).build();
    assert_eq!(&dump.bytes[..6], b"\x7fELF\x01\x01");
    let dump = Machine::new().with_elf(|e| e.big_endian = true).build();
    assert_eq!(&dump.bytes[..6], b"\x7fELF\x02\x02");
    let dump = Machine::new().with_elf(|e| e.truncate = Some(5000)).build();
    assert_eq!(dump.bytes.len(), 5000);
    assert_eq!(Machine::new().build().bytes, Machine::new().build().bytes, "the same machine each time");
}

#[test]
fn defects() {
    use Defect::*;
    for defect in [
        FrameListListInvalid,
        FrameListListZero,
        FrameListListOutside,
        FrameListListForeign,
        ListPageAbsent,
        LeafPageAbsent,
        LeafForeign,
        P2mForeignPlain,
        P2mDuplicate,
        M2pDisagrees,
        DomainListLoop,
        DomainListOutside,
        FrameTableUnmapped,
        FrameTableAbsent,
    ] {
        let dump = Machine::new().defect(defect).build();
        let core = Core::open(&dump.bytes);
        assert_eq!(core.var("max_page"), dump.truth.max_page, "{defect:?}");
    }
    let dump = Machine::new().defect(P2mDuplicate).build();
    let [first, second] = dump.truth.defect_pfns[..] else { panic!("two PFNs") };
    assert!(dump.truth.dom0.contains_key(&first) && !dump.truth.dom0.contains_key(&second));
}

/// The linear list by each of its pages' entries, and XenLinux's array, through the kernel's own tables.
#[test]
fn p2m_arrays() {
    let far =
        Machine::new().high(vec![TIB]).p2m_vaddr(0xffff_ff80_0000_0000).far(vec![(0x7ff_fff0, 32), (0x960_0000, 3)]);
    let far = far.build();
    let old = run("XenLinux", Machine::new().xenlinux());
    let var = old.truth.system_map.lines().find_map(|l| l.strip_suffix(" B phys_to_machine_mapping")).unwrap();
    let core = Core::open(&old.bytes);
    let root = old.truth.dom0[&old.truth.swapper_pfn] << 12;
    let array = core.u64(core.walk(root, u64::from_str_radix(var, 16).unwrap()).unwrap());
    for (dump, base) in [(&far, far.truth.p2m_vaddr), (&old, array)] {
        let (t, core) = (&dump.truth, Core::open(&dump.bytes));
        let root = t.dom0[&t.swapper_pfn] << 12;
        let told = core.u64((t.shared_info_mfn << 12) + 0xc10);
        let mut found = BTreeMap::new();
        for page in 0..told.div_ceil(512) {
            let at = core.walk(root, base + page * 4096).unwrap();
            let leaf = core.read(at, 4096).unwrap();
            found.extend((0..512).map(|i| (page * 512 + i, le(leaf, i as usize * 8, 8))).filter(|e| e.1 >> 62 == 0));
        }
        found.retain(|pfn, _| *pfn < t.max_pfn);
        assert_eq!(found, t.dom0);
        for (pfn, mfn) in &t.dom0 {
            assert_eq!(core.walk(root, t.page_offset + (pfn << 12)), Some(mfn << 12), "PFN {pfn:#x}");
        }
    }
}
