//! Cuts of synthetic dumps, for what no machine at hand can produce: each layout and each defect, against the truth
//! that their writer states.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
#[path = "support/mod.rs"]
mod support;
mod synth;

use checks::{check, cut_elf, cut_with, options, pages, system_map, tables, warned};
use std::collections::BTreeSet;
use support::dump::{Dump as Output, u64_at};
use synth::{Defect, KallsymsBase, Kernel, Leaves, Machine, NotePlace};
use xdump_cut::error::Kind;
use xdump_cut::options::{Format, Options};
use xdump_cut::pipeline::codec::Codec;
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;
use xdump_cut::source::{MachineMemory, Vmcore};
use xdump_cut::xen::Host;
use xdump_cut::xen::vcpu::vcpus;

#[test]
fn each_kernel() {
    for kernel in Kernel::ALL {
        let dump = Machine::new().kernel(kernel).build();
        let report = check(&format!("{kernel:?}"), &dump);
        assert!(report.warnings.is_empty(), "{kernel:?}: {:?}", report.warnings);
        assert_eq!(report.domain.release.as_deref(), Some(dump.truth.release.as_str()));
    }
}

#[test]
fn kallsyms_that_nothing_tells_of_are_found_by_shape() {
    for kernel in Kernel::ALL.into_iter().filter(|k| *k < Kernel::V6_1) {
        for fillers in [300, 500, 801] {
            let dump = Machine::new().kernel(kernel).hidden_kallsyms(true).kallsyms_fillers(fillers).build();
            let (report, out) = cut_elf(&dump).unwrap();
            assert!(report.warnings.is_empty(), "{kernel:?}, {fillers}: {:?}", report.warnings);
            assert!(report.cleared.iter().all(|c| c.found_by.contains("shape")), "{kernel:?}: {:?}", report.cleared);
            let marks = [Some(dump.truth.xen_start_info_at), dump.truth.pv_init_ops];
            assert_eq!(report.cleared.len(), marks.iter().flatten().count(), "{kernel:?}");
            for (pfn, at) in marks.into_iter().flatten() {
                assert_eq!(u64_at(&out.page(pfn).unwrap()[..], at as usize), 0, "{kernel:?}");
            }
        }
    }
}

#[test]
fn old_kernel_without_symbols_says_what_it_lacks() {
    let dump = Machine::new().kernel(Kernel::V4_19).build();
    let (report, _) = cut_elf(&dump).unwrap();
    assert!(report.cleared.iter().any(|c| c.name == "xen_start_info" && c.found_by.contains("search")));
    assert!(warned(&report, "pv_init_ops"), "{:?}", report.warnings);
}

#[test]
fn each_way_to_the_kernel() {
    let of = Machine::new;
    for (name, machine) in [
        ("plain kallsyms", of().kallsyms(Some(KallsymsBase::Relative))),
        ("place-relative kallsyms", of().kallsyms(Some(KallsymsBase::Place))),
        ("no kallsyms", of().kallsyms(None)),
        ("note over two pages", of().note_place(NotePlace::TwoPages)),
        ("note in the image", of().note_place(NotePlace::StaticArray)),
        ("old direct map", of().page_offset(0xffff_8800_0000_0000)),
        ("classic P2M", of().classic_p2m(true)),
        ("no linear P2M", of().linear_p2m(Some(false))),
    ] {
        let report = check(name, &machine.build());
        assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
    }
}

#[test]
fn no_note_is_said_and_the_cut_goes_on() {
    let report = check("no note", &Machine::new().note_place(NotePlace::None).build());
    assert!(warned(&report, "VMCOREINFO"), "{:?}", report.warnings);
    assert!(report.domain.release.is_none());
}

#[test]
fn each_machine() {
    let of = Machine::new;
    for (name, machine) in [
        ("large leaves", of().leaves(Leaves::Large)),
        ("1 GiB leaves", of().leaves(Leaves::Huge)),
        ("PDX hole", of().pdx_hole(true)),
        ("PDX hole, large leaves", of().pdx_hole(true).leaves(Leaves::Large)),
        ("lazy idle", of().lazy_idle(true)),
        ("four CPUs", of().pcpus(4).dom0_vcpus(4).running(vec![(3, 0, 2), (1, 0, 0)])),
        ("shared identity page", of().shared_identity(true)),
        ("locked L3 tables", of().locked_l3(true)),
        ("a CPU without notes", of().pcpus(4).dom0_vcpus(3).running(vec![(3, 0, 0)]).silent_cpu(Some(1))),
        ("no other domain", of().domus(0)),
        ("many domains", of().domus(6).domu_pages(128)),
    ] {
        let report = check(name, &machine.build());
        assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
        assert_eq!(report.source.pdx_linear, !name.starts_with("PDX"));
    }
}

#[test]
fn each_container() {
    let of = || Machine::new();
    for (name, machine) in [
        ("many PT_LOADs", of().with_elf(|e| e.loads = 40)),
        ("unsorted PT_LOADs", of().with_elf(|e| (e.loads, e.unsorted) = (10, true))),
        ("overlapping PT_LOADs", of().with_elf(|e| (e.loads, e.overlapping) = (10, true))),
        ("PN_XNUM", of().with_elf(|e| e.xnum = true)),
        ("split notes", of().with_elf(|e| e.split_notes = true)),
        ("notes aligned to 0", of().with_elf(|e| e.notes_align = 0)),
        ("notes aligned to 8", of().with_elf(|e| e.notes_align = 8)),
    ] {
        check(name, &machine.build());
    }
}

#[test]
fn a_p2m_entry_of_another_domain_is_not_believed() {
    let dump = Machine::new().defect(Defect::P2mForeignPlain).build();
    let (report, out) = cut_elf(&dump).unwrap();
    assert_eq!(report.p2m.not_owned, dump.truth.defect_pfns.len() as u64);
    assert!(dump.truth.defect_pfns.iter().all(|p| !out.frames().contains(p)));
    assert!(warned(&report, "does not give to the domain"));
}

#[test]
fn of_two_pfns_for_a_frame_the_m2p_tells_which() {
    let dump = Machine::new().defect(Defect::P2mDuplicate).build();
    let (report, out) = cut_elf(&dump).unwrap();
    assert_eq!(report.p2m.aliases, 1);
    assert!(dump.truth.dom0.keys().all(|p| out.frames().contains(p)));
}

#[test]
fn the_owner_is_believed_over_the_m2p() {
    let dump = Machine::new().defect(Defect::M2pDisagrees).build();
    let report = check("M2P disagrees", &dump);
    assert!(report.p2m.m2p_disagrees > 0 && warned(&report, "does not confirm"));
}

/// What one source of the P2M lacks, or has wrong, comes from another: the cut is whole, and says so.
#[test]
fn a_damaged_p2m_is_repaired() {
    for defect in [Defect::LeafPageAbsent, Defect::LeafForeign, Defect::LeafTwice, Defect::ListPageAbsent] {
        for linear in [true, false] {
            let dump = Machine::new().linear_p2m(Some(linear)).defect(defect).build();
            let (report, out) = cut_elf(&dump).unwrap_or_else(|e| panic!("{defect:?}: {e}"));
            let frames = out.frames();
            // Nothing but the list tells of a page that stands in the wrong place, if there is one.
            if defect != Defect::LeafTwice || linear {
                let lost: Vec<_> = dump.truth.dom0.keys().filter(|p| !frames.contains(p)).collect();
                let absent = dump.truth.absent.len() + usize::from(defect != Defect::LeafForeign);
                assert!(lost.len() <= absent, "{defect:?}, {linear}: {lost:x?}");
                assert!(warned(&report, "were taken from the"), "{defect:?}, {linear}: {:?}", report.warnings);
            }
            for pfn in frames.iter().filter(|p| **p < dump.truth.max_pfn) {
                assert!(dump.truth.dom0.contains_key(pfn), "{defect:?}: PFN {pfn:#x} out of nothing");
            }
        }
    }
}

#[test]
fn without_the_top_of_the_tree_there_are_other_ways() {
    for defect in [
        Defect::FrameListListOutside,
        Defect::FrameListListForeign,
        Defect::FrameListListZero,
        Defect::FrameListListInvalid,
    ] {
        for (linear, source) in [(true, "linear list"), (false, "M2P")] {
            let dump = Machine::new().linear_p2m(Some(linear)).defect(defect).build();
            let name = format!("{defect:?}, {source}");
            let (report, out) = cut_elf(&dump).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(report.p2m.source, source, "{name}");
            assert!(dump.truth.dom0.keys().all(|p| out.frames().contains(p)), "{name}");
        }
        let e = cut_elf(&Machine::new().linear_p2m(Some(false)).m2p_unset(true).defect(defect).build()).err();
        let e = e.unwrap_or_else(|| panic!("{defect:?} was cut out of nothing"));
        assert_eq!(e.kind(), Kind::BadInput, "{defect:?}: {e}");
    }
}

#[test]
fn a_domain_list_that_loops_or_leads_astray_ends_and_is_said() {
    for defect in [Defect::DomainListLoop, Defect::DomainListOutside] {
        let (report, _) = cut_elf(&Machine::new().domus(3).defect(defect).build()).unwrap();
        assert!(warned(&report, "domain list"), "{defect:?}: {:?}", report.warnings);
    }
}

#[test]
fn where_the_frame_table_is_missing_the_m2p_is_believed() {
    for defect in [Defect::FrameTableUnmapped, Defect::FrameTableAbsent] {
        let dump = Machine::new().defect(defect).build();
        let (report, out) = cut_elf(&dump).unwrap();
        assert!(report.p2m.by_m2p_only > 0 && warned(&report, "the M2P's word"), "{defect:?}: {:?}", report.warnings);
        pages(&format!("{defect:?}"), &dump, &*out, &BTreeSet::new());
    }
}

#[test]
fn two_pfns_for_a_frame_without_an_m2p_are_both_kept() {
    let dump = Machine::new().m2p_unset(true).defect(Defect::P2mDuplicate).build();
    let (report, out) = cut_elf(&dump).unwrap();
    assert!(warned(&report, "does not confirm"));
    assert!(dump.truth.dom0.keys().all(|p| out.frames().contains(p)));
    assert_eq!(report.tables.lost, cut_elf(&Machine::new().build()).unwrap().0.tables.lost);
}

#[test]
fn a_huge_max_pfn_makes_no_huge_output() {
    let dump = Machine::new().defect(Defect::MaxPfnHuge).build();
    for format in [Format::Elf, Format::Kdump(Codec::None)] {
        let (report, out) = cut_with(&dump.bytes, &options(format)).unwrap();
        tables("max_pfn", &dump, &*out);
        assert!(report.output.bytes < 64 << 20, "{} bytes", report.output.bytes);
    }
}

#[test]
fn a_vcpu_whose_struct_is_missing_keeps_its_place() {
    let of = || Machine::new().dom0_vcpus(4);
    let sound = of().build();
    let mut core = Vmcore::parse(&sound.bytes).unwrap();
    let mem = MachineMemory::new(&sound.bytes, core.take_segments());
    let host = Host::open(&mem, &core).unwrap();
    let second = vcpus(&host, &[host.hardware_domain().unwrap()])[&0][1].va;
    let mfn = host.space.translate(second).unwrap().addr.mfn().0;
    let dump = of().with_elf(|e| e.holes = vec![(mfn, mfn + 1)]).build();
    let (report, out) = cut_elf(&dump).unwrap();
    assert!(warned(&report, "1 vCPUs have no registers"), "{:?}", report.warnings);
    let notes: Vec<_> = out.notes().iter().filter(|n| n.name == "CORE").collect();
    assert_eq!(notes.len(), 4);
    let last = dump.truth.vcpus.iter().find(|v| (v.domain, v.vcpu) == (0, 3)).unwrap();
    assert_eq!(u64_at(&notes[3].desc, 112 + 16 * 8), last.regs.rip);
}

#[test]
fn symbols_of_another_kernel_are_refused_and_wrong_ones_clear_nothing() {
    let dump = Machine::new().build();
    let map = |text: String| Some(system_map(&text));
    let other = Options { symbols: map("ffffffff81230000 T _stext\n".into()), ..options(Format::Elf) };
    let e = cut_with(&dump.bytes, &other).err().unwrap();
    assert!(e.kind() == Kind::Usage && e.to_string().contains("another kernel"), "{e}");
    let line = |l: &str| l.ends_with("T _stext").then(|| l.to_owned());
    let stext = dump.truth.system_map.lines().find_map(line).unwrap();
    let text = stext.split(' ').next().unwrap();
    let wrong = Options { symbols: map(format!("{stext}\n{text} d xen_start_info\n")), ..options(Format::Elf) };
    let (report, out) = cut_with(&dump.bytes, &wrong).unwrap();
    pages("wrong symbols", &dump, &*out, &BTreeSet::new());
    assert!(report.cleared.iter().all(|c| c.found_by.contains("kallsyms")), "{:?}", report.cleared);
}

#[test]
fn what_is_no_dump_of_this_kind_has_its_words() {
    for (words, machine) in [
        ("32-bit", Machine::new().with_elf(|e| e.class32 = true)),
        ("big-endian", Machine::new().with_elf(|e| e.big_endian = true)),
    ] {
        let e = cut_elf(&machine.build()).err().unwrap();
        assert!(e.to_string().contains(words) && e.kind() == Kind::BadInput, "{words}: {e}");
    }
}

#[test]
fn nine_words_in_the_crash_note_are_enough() {
    check("9 words", &Machine::new().with_elf(|e| e.crash_words = 9).build());
}

#[test]
fn frames_that_the_dump_lacks_are_missing_and_not_zero() {
    let sound = Machine::new().build();
    let victim = *sound.truth.dom0.iter().rev().find(|(p, _)| !sound.truth.tables.contains_key(p)).unwrap().1;
    let dump = Machine::new().with_elf(|e| e.holes = vec![(victim, victim + 1)]).build();
    for format in [Format::Elf, Format::Kdump(Codec::Zlib(1))] {
        let (report, out) = cut_with(&dump.bytes, &options(format)).unwrap();
        let pfn = dump.truth.dom0.iter().find(|d| *d.1 == victim).unwrap().0;
        assert!(!out.frames().contains(pfn) && out.page(*pfn).is_none());
        assert_eq!(report.output.absent.values().sum::<u64>(), 1);
        assert_eq!(report.output.pages + 1, (dump.truth.dom0.len() + dump.truth.xen_heap.len()) as u64);
    }
}

#[test]
fn level_0_keeps_zero_pages() {
    let dump = Machine::new().build();
    for format in [Format::Elf, Format::Kdump(Codec::None)] {
        let (report, out) = cut_with(&dump.bytes, &Options { level: Level::NOTHING, ..options(format) }).unwrap();
        assert_eq!(report.output.zero, 0);
        assert_eq!(report.output.kept, out.frames().len() as u64);
    }
}

#[test]
fn ambiguous_start_info_is_cleared_everywhere_and_said() {
    let dump = Machine::new().kallsyms(None).ambiguous_start_info(true).build();
    let (report, out) = cut_elf(&dump).unwrap();
    let (pfn, at) = dump.truth.xen_start_info_at;
    assert_eq!(u64_at(&out.page(pfn).unwrap()[..], at as usize), 0);
    assert!(report.cleared.len() > 1 && warned(&report, "all are cleared"));
}

/// Truncated anywhere, a dump gives an error or a cut that says what is missing; never a page that is not the machine's.
#[test]
fn truncated_at_many_lengths() {
    let dump = Machine::new().build();
    let len = dump.bytes.len();
    let lengths = (0..600).step_by(7).chain((600..len).step_by(len / 60));
    for n in lengths {
        match cut_elf_bytes(&dump.bytes[..n]) {
            Err(e) => assert_eq!(e.kind(), Kind::BadInput, "{n} bytes: {e}"),
            Ok((report, out)) => {
                assert!(!report.warnings.is_empty(), "{n} of {len} bytes gave no warning");
                let t = &dump.truth;
                let data = |p: &u64| t.dom0.contains_key(p) && !t.tables.contains_key(p) && *p != t.xen_start_info_at.0;
                for pfn in out.frames().into_iter().filter(data) {
                    assert!(out.page(pfn).unwrap()[..] == dump.dom0_page(pfn).unwrap()[..], "{n} bytes: PFN {pfn:#x}");
                }
            }
        }
    }
}

fn cut_elf_bytes(bytes: &[u8]) -> Result<(Report, Box<dyn Output>), xdump_cut::Error> {
    cut_with(&bytes.to_vec(), &options(Format::Elf))
}
