//! Dump levels against synthetic machines: for each generation of struct pages, exactly what a level names leaves the
//! output, and nothing of doubt does.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
mod support;
mod synth;

use checks::{cut_with, notes, pages, system_map, tables};
use std::collections::BTreeSet;
use synth::layout::{GIB_64, TIB};
use synth::{Dump, Kernel, Leaves, Machine, NotePlace, PageKind, Pdx, Xen, XenLayout};
use xdump_cut::options::{Format, Options};
use xdump_cut::pipeline::codec::Codec;
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;

const LEVELS: [u8; 11] = [0, 1, 2, 4, 8, 16, 3, 5, 9, 17, 31];

fn formats() -> [Format; 2] {
    [Format::Elf, Format::Kdump(Codec::default())]
}

fn options(format: Format, level: u8) -> Options {
    Options { format, level: Level::new(level).unwrap(), threads: 2, ..Options::default() }
}

/// Cuts in both formats and compares all with the truth, `excluded` being what must be gone.
fn check_without(name: &str, dump: &Dump, level: u8, excluded: &BTreeSet<u64>) -> Report {
    // Kernels before 6.1 do not say where their symbols are.
    let told = dump.truth.vmcoreinfo.contains("kallsyms_names");
    let symbols = (!told).then(|| system_map(&dump.truth.system_map));
    let mut last = None;
    for format in formats() {
        let name = format!("{name}, level {level}, {format:?}");
        let options = Options { symbols: symbols.clone(), ..options(format, level) };
        let (report, out) = cut_with(&dump.bytes, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        pages(&name, dump, &*out, excluded);
        tables(&name, dump, &*out);
        notes(&name, dump, &*out);
        last = Some(report);
    }
    last.unwrap()
}

fn check(name: &str, dump: &Dump, level: u8) -> Report {
    check_without(name, dump, level, &dump.truth.excluded(level))
}

fn machine(kernel: Kernel) -> Machine {
    Machine::new().kernel(kernel).mem_map(true)
}

fn each_level(kernels: &[Kernel]) {
    for &kernel in kernels {
        let dump = machine(kernel).build();
        for level in LEVELS {
            check(&format!("{kernel:?}"), &dump, level);
        }
    }
}

#[test]
fn kernels_3() {
    each_level(&[Kernel::V3_10, Kernel::V3_12, Kernel::V3_18]);
}

#[test]
fn kernels_4() {
    each_level(&[Kernel::V4_4, Kernel::V4_19]);
}

#[test]
fn kernels_5() {
    each_level(&[Kernel::V5_4, Kernel::V5_10]);
}

#[test]
fn kernels_6() {
    each_level(&[Kernel::V6_1, Kernel::V6_4, Kernel::V6_6]);
}

#[test]
fn kernels_of_page_types() {
    each_level(&[Kernel::V6_10, Kernel::V6_12, Kernel::V7_1]);
}

#[test]
fn pages_of_struct_pages_that_cannot_be_read_are_kept() {
    for kernel in [Kernel::V3_12, Kernel::V5_10, Kernel::V6_12] {
        let dump = machine(kernel).mem_map_absent(true).build();
        let unknown = dump.truth.pages.values().filter(|k| **k == PageKind::Unknown).count();
        assert!(unknown > 2 * 64);
        for level in [16, 31] {
            check(&format!("{kernel:?}, absent"), &dump, level);
        }
    }
}

/// Sections of 64 pages: blocks run over several of them, and two have no mem_map.
#[test]
fn blocks_run_over_sections() {
    for kernel in [Kernel::V6_1, Kernel::V6_12] {
        let dump = machine(kernel).section_bits(18).build();
        for level in [8, 16, 31] {
            check(&format!("{kernel:?}, small sections"), &dump, level);
        }
    }
}

/// Some 4.14 and 4.15 print where the pointer to the array is.
#[test]
fn the_address_of_the_pointer_to_mem_section_will_do() {
    let dump = machine(Kernel::V4_19).mem_section_by_address(true).build();
    assert!(!dump.truth.excluded(31).is_empty());
    check("4.14", &dump, 31);
}

#[test]
fn each_hypervisor_and_machine() {
    let of = || machine(Kernel::V6_12);
    for (name, machine) in [
        ("offsets", of().xen(Xen::V4_22).pdx(Pdx::Offset).high(vec![GIB_64, TIB])),
        ("sparse", of().xen(Xen::V4_19).high(vec![GIB_64, TIB])),
        ("BIGMEM", of().layout(XenLayout { bigmem: true, ..XenLayout::of(Xen::V4_21) }).high(vec![32 * TIB])),
        ("PDX hole", of().pdx_hole(true)),
        ("large leaves", of().leaves(Leaves::Large)),
        ("no other domain", of().domus(0)),
        ("note over two pages", of().note_place(NotePlace::TwoPages)),
        ("note in the image", of().note_place(NotePlace::StaticArray)),
        ("another mix", of().seed(7).zero_percent(60)),
        ("more pages", of().dom0_pages(2100)),
    ] {
        check(name, &machine.build(), 31);
    }
    for xen in Xen::ALL {
        check(&format!("{xen:?}"), &of().xen(xen).build(), 31);
    }
}

/// Not every kernel is built with memory failure handling or ballooning.
#[test]
fn without_a_key_its_pages_are_kept() {
    let marked = |dump: &Dump, kind| dump.truth.pages.values().any(|k| *k == kind);
    for (key, kind) in
        [("NUMBER(PG_hwpoison)", PageKind::Poisoned), ("NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)", PageKind::Offline)]
    {
        let dump = machine(Kernel::V6_12).without_keys(vec![key]).build();
        assert!(!marked(&dump, kind) && marked(&machine(Kernel::V6_12).build(), kind));
        check(key, &dump, 31);
    }
}

/// Slabs keep a number of their own where other pages have their mapping: without a word on slabs no page is taken for a
/// process's, and the level is not applied in full.
#[test]
fn without_a_word_on_slabs_processes_pages_are_kept() {
    for (kernel, key) in [
        (Kernel::V5_10, "NUMBER(PG_slab)"),
        (Kernel::V6_10, "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)"),
        (Kernel::V6_12, "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)"),
        (Kernel::V7_1, "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)"),
    ] {
        let dump = machine(kernel).without_keys(vec![key]).build();
        for level in [8, 31] {
            let (report, out) = cut_with(&dump.bytes, &options(Format::Elf, level)).unwrap();
            assert_eq!(report.level.applied, level & !8, "{kernel:?}");
            assert!(report.warnings.iter().any(|w| w.contains(key)), "{kernel:?}: {:?}", report.warnings);
            let frames = out.frames();
            let allowed = dump.truth.excluded(level & !8);
            let lost = dump.truth.dom0.keys().find(|p| !frames.contains(p) && !allowed.contains(p));
            assert_eq!(lost, None, "{kernel:?}, level {level}");
        }
        let required = Options { require_level: true, ..options(Format::Elf, 31) };
        assert!(cut_with(&dump.bytes, &required).is_err_and(|e| e.to_string().contains(key)));
    }
}

/// What cannot be read is counted, page by page, and --require-level does not take it for nothing.
#[test]
fn what_is_kept_for_want_of_a_struct_page_is_counted() {
    for (name, machine) in [
        ("a page of them not mapped", machine(Kernel::V6_12)),
        ("another not in the dump", machine(Kernel::V6_12).mem_map_absent(true)),
        ("sections without a map", machine(Kernel::V6_12).section_bits(18)),
        ("an old kernel", machine(Kernel::V3_18)),
    ] {
        let dump = machine.build();
        let (report, _) = cut_with(&dump.bytes, &options(Format::Elf, 31)).unwrap();
        let unknown = dump.truth.pages.values().filter(|k| **k == PageKind::Unknown).count() as u64;
        let told = &report.memory_map;
        // One of them can be read, but was never written; free blocks that cannot be make no sense either.
        assert_eq!(told.unreadable, unknown - 1, "{name}: {told:?}");
        assert!(told.odd > 1 && told.guarded > 0, "{name}: {told:?}");
        let required = Options { require_level: true, ..options(Format::Elf, 31) };
        assert!(cut_with(&dump.bytes, &required).is_err_and(|e| e.to_string().contains("struct pages")), "{name}");
    }
}

/// Where there is no way to struct pages, all pages stay, and it is said.
#[test]
fn without_struct_pages_nothing_is_dropped() {
    let without = |key| machine(Kernel::V6_12).without_keys(vec![key]);
    for (name, machine) in [
        ("no mem_section", without("SYMBOL(mem_section)")),
        ("no section_mem_map", without("OFFSET(mem_section.section_mem_map)")),
        ("no size of struct page", without("SIZE(page)")),
        ("no flags", without("OFFSET(page.flags)")),
        ("no VMCOREINFO", machine(Kernel::V6_12).note_place(NotePlace::None)),
        ("no section", Machine::new()),
    ] {
        let report = check_without(name, &machine.build(), 31, &BTreeSet::new());
        assert!(!report.warnings.is_empty(), "{name}: nothing said");
    }
}

/// pgd_list leads to tables that Xen takes for data.
#[test]
fn tables_of_a_process_that_is_not_pinned_are_rewritten() {
    for kernel in [Kernel::V3_12, Kernel::V4_19, Kernel::V5_10, Kernel::V6_12, Kernel::V7_1] {
        let dump = machine(kernel).unpinned_mm(true).build();
        assert_eq!(dump.truth.unpinned.len(), 5);
        for level in [0, 31] {
            check(&format!("{kernel:?}, unpinned"), &dump, level);
        }
    }
    // Nothing leads there: left as they are.
    check_without("unpinned, no struct pages", &Machine::new().unpinned_mm(true).build(), 1, &BTreeSet::new());
}
