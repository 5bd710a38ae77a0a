//! The machine layout on synthetic machines: which frames stay, for layouts and damage that no machine at hand has.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
#[path = "support/mod.rs"]
mod support;
mod synth;

use checks::{cut_with, warned};
use std::collections::BTreeSet;
use support::dump::{Dump as Output, u64_at};
use synth::mem::{Owner, State};
use synth::{Defect, Dump, Leaves, Machine, Xen};
use xdump_cut::error::Kind;
use xdump_cut::options::{Format, Options};
use xdump_cut::pipeline::codec::Codec;
use xdump_cut::plan::layout::Layout;
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;

fn options(format: Format, keep_xen: bool) -> Options {
    Options { format, layout: Layout::Machine { keep_xen }, level: Level::ZEROS, threads: 2, ..Options::default() }
}

/// Xen's frames that the dump has: neither free nor another domain's.
fn of_xen(dump: &Dump) -> BTreeSet<u64> {
    let saved = dump.saved.iter().flat_map(|(start, end)| start.div_ceil(4096)..end / 4096);
    let is = |mfn: &u64| {
        dump.frames.get(mfn).is_some_and(|f| {
            !matches!(f.state, State::Free | State::Offlined) && (f.xen_heap || !matches!(f.owner, Owner::Dom(_)))
        })
    };
    saved.filter(is).collect()
}

fn last_word(out: &dyn Output) -> u64 {
    let note = out.notes().iter().find(|n| (n.name.as_str(), n.kind) == ("Xen", 0x100_0001)).unwrap();
    u64_at(&note.desc, note.desc.len() - 8)
}

/// Everything that a sound machine's cut shows, in both formats, with Xen and without.
fn check(name: &str, dump: &Dump, level: Level) {
    let t = &dump.truth;
    let excluded = t.excluded(level.number());
    let own: BTreeSet<u64> = t.dom0.iter().filter(|(pfn, _)| !excluded.contains(pfn)).map(|(_, mfn)| *mfn).collect();
    for (format, keep_xen) in
        [Format::Elf, Format::Kdump(Codec::None)].into_iter().flat_map(|f| [(f, false), (f, true)])
    {
        let options = Options { level, ..options(format, keep_xen) };
        let (report, out) = cut_with(&dump.bytes, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Struct pages that are odd on purpose are said.
        let known = |w: &String| w.contains("struct pages");
        assert!(report.warnings.iter().all(known), "{name}: {:?}", report.warnings);
        let frames = out.frames();
        let (mine, others): (BTreeSet<u64>, BTreeSet<u64>) = frames.iter().partition(|mfn| own.contains(mfn));
        assert!(mine == own, "{name}: lost {:x?}", own.difference(&mine));
        let xen = of_xen(dump);
        if keep_xen {
            assert!(others == xen, "{name}: {:x?}", others.symmetric_difference(&xen));
            assert_eq!(report.output.xen, xen.len() as u64, "{name}");
        } else {
            assert!(others.iter().all(|mfn| t.xen_heap.contains(mfn)), "{name}: {others:x?}");
            assert!(others.contains(&t.shared_info_mfn), "{name}");
        }
        for mfn in frames {
            assert!(out.page(mfn).unwrap()[..] == dump.page(mfn)[..], "{name}: MFN {mfn:#x} differs");
        }
        assert_eq!(last_word(&*out), t.frame_list_list, "{name}");
    }
}

#[test]
fn each_machine() {
    let of = Machine::new;
    for (name, machine) in [
        ("plain", of()),
        ("Xen 4.5", of().xen(Xen::V4_5)),
        ("Xen 4.20", of().xen(Xen::V4_20)),
        ("PDX hole", of().pdx_hole(true)),
        ("PDX hole, large leaves", of().pdx_hole(true).leaves(Leaves::Large)),
        ("no other domain", of().domus(0)),
        ("many domains", of().domus(6).domu_pages(128)),
        ("many PT_LOADs", of().with_elf(|e| (e.loads, e.unsorted) = (40, true))),
        ("overlapping PT_LOADs", of().with_elf(|e| (e.loads, e.overlapping) = (10, true))),
    ] {
        let dump = machine.build();
        if name == "overlapping PT_LOADs" {
            // It is said, and changes nothing else.
            let (_, out) = cut_with(&dump.bytes, &options(Format::Elf, true)).unwrap();
            assert_eq!(out.frames().len(), dump.truth.dom0.len() + of_xen(&dump).len(), "{name}");
        } else {
            check(name, &dump, Level::ZEROS);
        }
    }
}

/// Levels go by PFN, and what crash reads of the P2M stays.
#[test]
fn each_level() {
    for pdx_hole in [false, true] {
        let dump = Machine::new().mem_map(true).pdx_hole(pdx_hole).build();
        for level in [0, 1, 2, 8, 16, 31] {
            check(&format!("-d {level}"), &dump, Level::new(level).unwrap());
        }
    }
}

#[test]
fn output_is_the_same_for_any_number_of_threads() {
    let dump = Machine::new().pdx_hole(true).build();
    let dir = tempfile::tempdir().unwrap();
    for format in [Format::Elf, Format::Kdump(Codec::default())] {
        let files = [1, 2, 5].map(|threads| {
            let path = dir.path().join("out");
            let out = xdump_cut::sink::Output::create(&path, true, dir.path()).unwrap();
            let options = Options { threads, ..options(format, true) };
            xdump_cut::cut::cut(&dump.bytes, &options, out, &xdump_cut::pipeline::Silent).unwrap();
            std::fs::read(path).unwrap()
        });
        assert!(files.iter().all(|file| *file == files[0]), "{format:?}");
    }
}

#[test]
fn a_domain_without_a_frame_list_is_nothing_for_crash() {
    for defect in [Defect::FrameListListZero, Defect::FrameListListInvalid] {
        let dump = Machine::new().linear_p2m(Some(true)).defect(defect).build();
        let (report, out) = cut_with(&dump.bytes, &options(Format::Elf, false)).unwrap();
        assert!(warned(&report, "crash cannot open its kernel"), "{defect:?}: {:?}", report.warnings);
        assert!(matches!(last_word(&*out), 0 | u64::MAX), "{defect:?}");
        let native = Options { layout: Layout::Native, ..options(Format::Elf, false) };
        let (report, _) = cut_with(&dump.bytes, &native).unwrap();
        assert!(!warned(&report, "crash cannot open"), "{defect:?}: {:?}", report.warnings);
    }
}

/// Frames that nothing tells the owner of stay out.
#[test]
fn without_the_frame_table_nothing_is_xens() {
    let dump = Machine::new().defect(Defect::FrameTableAbsent).build();
    let (report, out) = cut_with(&dump.bytes, &options(Format::Elf, true)).unwrap();
    assert!(warned(&report, "may be Xen's or anybody's"), "{:?}", report.warnings);
    let foreign = |mfn: &u64| dump.truth.free_frames.contains(mfn) || dump.truth.domu_frames.contains_key(mfn);
    assert!(!out.frames().iter().any(foreign));
}

/// Truncated anywhere, a dump gives an error, or frames as the machine had them and a word on those that it lacks.
#[test]
fn truncated_at_many_lengths() {
    let dump = Machine::new().build();
    let len = dump.bytes.len();
    for n in (0..600).step_by(37).chain((600..len).step_by(len / 40)) {
        let cut = |bytes: &[u8]| -> Result<(Report, Box<dyn Output>), xdump_cut::Error> {
            cut_with(&bytes.to_vec(), &options(Format::Elf, true))
        };
        match cut(&dump.bytes[..n]) {
            Err(e) => assert_eq!(e.kind(), Kind::BadInput, "{n} bytes: {e}"),
            Ok((report, out)) => {
                assert!(!report.warnings.is_empty(), "{n} of {len} bytes gave no warning");
                for mfn in out.frames() {
                    assert!(out.page(mfn).unwrap()[..] == dump.page(mfn)[..], "{n} bytes: MFN {mfn:#x}");
                    assert!(!dump.truth.domu_frames.contains_key(&mfn), "{n} bytes: MFN {mfn:#x} is another domain's");
                }
            }
        }
    }
}
