//! Cuts of synthetic machines with each Xen from 4.5 to 4.22 in the builds and states that no dump at hand has: BIGMEM,
//! compressed PDX and sparse memory, moved state bits, CPUs and vCPUs in odd states.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
mod support;
mod synth;

use checks::{check, cut_elf, warned};
use synth::layout::{GIB_64, TIB};
use synth::{Defect, Leaves, Machine, Pdx, Xen, XenLayout};
use xdump_cut::report::Report;
use xdump_cut::source::{MachineMemory, Vmcore};
use xdump_cut::xen::Host;
use xdump_cut::xen::cpu::PhysicalCpu;

/// No doubts either.
fn check_sound(name: &str, machine: Machine) -> Report {
    let (shift, linear) = (machine.layout.state_shift, machine.pdx == Pdx::None);
    let report = check(name, &machine.build());
    assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
    assert_eq!((report.source.page_state_bit, report.source.pdx_linear), (shift, linear), "{name}");
    report
}

#[test]
fn each_xen() {
    for xen in Xen::ALL {
        check_sound(&format!("{xen:?}"), Machine::new().xen(xen));
    }
}

#[test]
fn each_xen_in_odd_states() {
    for xen in Xen::ALL {
        let of = || Machine::new().xen(xen);
        for (what, machine) in [
            ("a CPU without notes", of().pcpus(4).dom0_vcpus(3).running(vec![(3, 0, 0)]).silent_cpu(Some(1))),
            ("another CPU crashed", of().running(vec![(0, 1, 0), (1, 0, 1)]).crashed_cpu(1)),
            ("1 GiB leaves", of().leaves(Leaves::Huge)),
        ] {
            check_sound(&format!("{xen:?}, {what}"), machine);
        }
        let name = format!("{xen:?}, lazy idle");
        let report = check(&name, &of().lazy_idle(true).build());
        // Before 4.11 nothing tells whose registers an idle CPU holds.
        let told = XenLayout::of(xen).vcpu_dirty_cpu.is_some();
        assert_eq!(report.warnings.is_empty(), told, "{name}: {:?}", report.warnings);
        assert_eq!(report.domain.vcpus[1].state, "still on idle CPU 1", "{name}");
    }
}

/// Vendors carry the fix that moved the state in trees of any version.
#[test]
fn the_state_bits_are_where_free_pages_have_them() {
    for (xen, state_shift) in [(Xen::V4_13, 55), (Xen::V4_14, 55), (Xen::V4_15, 58), (Xen::V4_16, 55), (Xen::V4_12, 58)]
    {
        let other_bits = 1 << 61;
        let layout = XenLayout { state_shift, other_bits, ..XenLayout::of(xen) };
        check_sound(&format!("{xen:?} with states at {state_shift}"), Machine::new().layout(layout));
    }
    for xen in Xen::ALL {
        let report = check(&format!("{xen:?}, all in use"), &Machine::new().xen(xen).no_free(true).build());
        assert!(warned(&report, "no free page"), "{xen:?}: {:?}", report.warnings);
        assert_eq!(report.source.page_state_bit, XenLayout::of(xen).state_shift, "{xen:?}");
    }
}

/// Memory at 0, 64 GiB and 1 TiB, with and without compression of what is between.
#[test]
fn sparse_memory() {
    let regions = [vec![GIB_64, TIB], vec![GIB_64 + 0x8_0000, TIB + 0x4_0000]];
    for (xen, pdx) in [
        (Xen::V4_8, Pdx::Mask),
        (Xen::V4_17, Pdx::Mask),
        (Xen::V4_17, Pdx::None),
        (Xen::V4_18, Pdx::None),
        (Xen::V4_20, Pdx::None),
        (Xen::V4_21, Pdx::Offset),
        (Xen::V4_22, Pdx::Offset),
        (Xen::V4_22, Pdx::Mask),
    ] {
        for (high, leaves) in regions.iter().zip([Leaves::Small, Leaves::Huge]) {
            let machine = Machine::new().xen(xen).pdx(pdx).high(high.clone()).leaves(leaves);
            check_sound(&format!("{xen:?}, {pdx:?}, {high:x?}"), machine);
        }
    }
    for pdx in [Pdx::None, Pdx::Mask, Pdx::Offset] {
        let of = || Machine::new().xen(Xen::V4_22).pdx(pdx).high(vec![GIB_64, TIB]);
        check_sound("sparse, lazy idle", of().leaves(Leaves::Large).lazy_idle(true));
        // No list of the domain's: all frames of the machine are looked at.
        let dump = of().linear_p2m(Some(false)).defect(Defect::FrameListListZero).build();
        let (report, out) = cut_elf(&dump).unwrap();
        assert_eq!(report.p2m.source, "M2P");
        assert!(dump.truth.dom0.keys().all(|p| out.frames().contains(p)), "{pdx:?}");
    }
}

/// page_info of 48 bytes, `_domain` of 64 bits, another base of the direct map.
#[test]
fn bigmem_builds() {
    for xen in [Xen::V4_8, Xen::V4_12, Xen::V4_17, Xen::V4_18, Xen::V4_20, Xen::V4_22] {
        let of = || Machine::new().layout(XenLayout { bigmem: true, ..XenLayout::of(xen) });
        check_sound(&format!("{xen:?}, BIGMEM"), of());
        // Where 32 bits of PDX are not enough.
        check_sound(&format!("{xen:?}, BIGMEM and 32 TiB"), of().high(vec![TIB, 32 * TIB]));
    }
    let of = || Machine::new().layout(XenLayout { bigmem: true, ..XenLayout::of(Xen::V4_22) });
    for leaves in [Leaves::Small, Leaves::Large, Leaves::Huge] {
        check_sound("BIGMEM, offsets", of().leaves(leaves).pdx(Pdx::Offset).high(vec![GIB_64, 32 * TIB]));
        check_sound("BIGMEM, mask", of().leaves(leaves).pdx(Pdx::Mask).high(vec![GIB_64]));
    }
}

fn physical_cpus(machine: Machine) -> Vec<PhysicalCpu> {
    let dump = machine.build();
    let mut core = Vmcore::parse(&dump.bytes).unwrap();
    let mem = MachineMemory::new(&dump.bytes, core.take_segments());
    xdump_cut::xen::cpu::cpus(&Host::open(&mem, &core).unwrap())
}

#[test]
fn physical_cpus_and_the_one_that_crashed() {
    for xen in Xen::ALL {
        let of = || Machine::new().xen(xen).pcpus(4).dom0_vcpus(4).running(vec![(3, 0, 2), (1, 1, 0)]);
        let cpus = |crashed: Option<u32>| {
            let vcpus = [None, Some((1, 0)), None, Some((0, 2))];
            let cpu = |(id, v): (u32, Option<(u16, u32)>)| PhysicalCpu {
                id,
                domain: v.map(|v| v.0),
                vcpu: v.map(|v| v.1),
                crashed: crashed == Some(id),
            };
            (0..).zip(vcpus).map(cpu).collect::<Vec<_>>()
        };
        for crashed in 0..4 {
            assert_eq!(physical_cpus(of().crashed_cpu(crashed)), cpus(Some(crashed as u32)), "{xen:?}");
        }
        assert_eq!(physical_cpus(of().crash_like_stop(true)), cpus(None), "{xen:?}");
        // What did not answer did not crash; its note is missing or all zeros.
        for zeros in [false, true] {
            let found = physical_cpus(of().silent_cpu(Some(2)).silent_zeros(zeros).crashed_cpu(3));
            assert_eq!(found, [0, 1, 3].map(|i| cpus(Some(3))[i]), "{xen:?}");
        }
    }
    let report = check("zeros", &Machine::new().pcpus(3).silent_cpu(Some(2)).silent_zeros(true).build());
    assert!(report.cpus[0].crashed && report.warnings.is_empty(), "{:?}", report.warnings);
}

#[test]
fn vcpus_that_were_never_brought_up() {
    for xen in [Xen::V4_5, Xen::V4_12, Xen::V4_17, Xen::V4_22] {
        for machine in [Machine::new(), Machine::new().lazy_idle(true), Machine::new().pdx_hole(true)] {
            let machine = machine.layout(XenLayout::of(xen)).dom0_vcpus(5).never_ran_from(2);
            let lazy = machine.lazy_idle;
            let report = check(&format!("{xen:?}, never ran"), &machine.build());
            assert!(lazy || report.warnings.is_empty(), "{xen:?}: {:?}", report.warnings);
            let states: Vec<_> = report.domain.vcpus.iter().map(|v| v.state == "never ran").collect();
            assert_eq!(states, [false, false, true, true, true], "{xen:?}");
        }
    }
}
