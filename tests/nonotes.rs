//! Dumps without Xen's notes: what QEMU saves of a virtual Xen host, and dumps whose notes are lost. Xen is found in
//! memory, with a xen-syms and without, and the cut is the same as with notes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
#[path = "support/mod.rs"]
mod support;
mod synth;

use checks::{cut_with, notes, pages, tables};
use std::collections::BTreeSet;
use support::fixtures;
use synth::{Dump, Leaves, Machine, Xen, syms};
use xdump_cut::error::Kind;
use xdump_cut::info::Info;
use xdump_cut::options::{Format, Options};
use xdump_cut::pipeline::codec::Codec;
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;
use xdump_cut::xen::XenSyms;
use xdump_cut::xen::notes::Origin;

fn by_qemu() -> Machine {
    Machine::new().with_elf(|e| e.by_qemu())
}

fn options(xen_syms: Option<XenSyms>) -> Options {
    Options { format: Format::Elf, level: Level::ZEROS, xen_syms, threads: 2, ..Options::default() }
}

/// A xen-syms as a user would give it.
fn opened(bytes: &[u8]) -> Result<XenSyms, xdump_cut::Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("xen-syms");
    std::fs::write(&path, bytes).unwrap();
    XenSyms::open(&path)
}

/// A good cut, by memory alone and with both kinds of xen-syms.
fn check(name: &str, dump: &Dump) -> Report {
    let given = [None, Some(true), Some(false)].map(|id| id.map(|id| opened(&syms::xen_syms(dump, id)).unwrap()));
    let mut last = None;
    for syms in given {
        let info = Info::read_with(&dump.bytes, syms.as_ref(), None).unwrap_or_else(|e| panic!("{name}: {e}"));
        let origin = if syms.is_some() { Origin::XenSyms } else { Origin::Memory };
        assert_eq!(info.xen.found_by, origin, "{name}");
        assert_eq!(info.domains.iter().map(|d| d.id).collect::<Vec<_>>(), ids(dump), "{name}");
        let options = options(syms);
        let (report, out) = cut_with(&dump.bytes, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        pages(name, dump, &*out, &BTreeSet::new());
        tables(name, dump, &*out);
        notes(name, dump, &*out);
        // Overlaps are damage, whoever is right.
        let told = report.warnings.iter().filter(|w| !w.ends_with("bytes that two headers claim"));
        assert_eq!(told.count(), 0, "{name}: {:?}", report.warnings);
        last = Some(report);
    }
    last.unwrap()
}

fn ids(dump: &Dump) -> Vec<u16> {
    dump.truth.domains.iter().map(|d| d.0).collect()
}

#[test]
fn each_xen() {
    for xen in Xen::ALL {
        let machine = by_qemu().xen(xen);
        let minor = machine.layout.minor;
        let report = check(&format!("{xen:?}"), &machine.build());
        assert!(report.source.xen.starts_with(&format!("4.{minor}.")), "{}", report.source.xen);
    }
}

#[test]
fn each_machine() {
    for (name, machine) in [
        ("large leaves", by_qemu().leaves(Leaves::Large)),
        ("1 GiB leaves", by_qemu().leaves(Leaves::Huge)),
        ("PDX hole", by_qemu().pdx_hole(true)),
        ("no other domain", by_qemu().domus(0)),
        ("many domains", by_qemu().domus(6).domu_pages(128)),
        ("lazy idle", by_qemu().lazy_idle(true)),
        (
            "unsorted, overlapping PT_LOADs",
            by_qemu().with_elf(|e| (e.loads, e.unsorted, e.overlapping) = (9, true, true)),
        ),
        ("neither QEMU's notes", by_qemu().with_elf(|e| e.qemu = false)),
    ] {
        check(name, &machine.build());
    }
}

#[test]
fn a_cpu_in_the_guest_tells_more_than_its_stack() {
    let of = || by_qemu().pcpus(3).dom0_vcpus(3).running(vec![(2, 0, 1), (0, 0, 0)]);
    for in_guest in [vec![2], vec![0, 2]] {
        check(&format!("{in_guest:?}"), &of().in_guest(in_guest).build());
    }
}

#[test]
fn one_lost_note_is_made_up_for() {
    for change in [
        (|e| e.crash_info = false) as fn(&mut synth::ElfOptions),
        |e| e.vmcoreinfo_xen = false,
        |e| (e.vmcoreinfo_xen, e.crash_info) = (false, false),
    ] {
        check("a lost note", &Machine::new().with_elf(change).build());
    }
}

#[test]
fn xen_syms_of_another_build_are_refused() {
    let dump = by_qemu().build();
    let other = by_qemu().seed(2).build();
    let with_notes = Machine::new().build();
    let mut moved = syms::xen_syms(&dump, true);
    let root = dump.truth.vmcoreinfo_xen.lines().find_map(|l| l.strip_prefix("SYMBOL(pgd_l4)=")).unwrap();
    let root = u64::from_str_radix(root, 16).unwrap().to_le_bytes();
    let at = moved.windows(8).position(|w| w == root).unwrap();
    moved[at + 1] ^= 0x10;
    let refused = [(syms::xen_syms(&other, true), "build IDs"), (syms::xen_syms(&other, false), "read-only data")];
    for (syms, words) in refused.into_iter().chain([(moved, "idle_pg_table")]) {
        for bytes in [&dump.bytes, &with_notes.bytes] {
            let e = cut_with(bytes, &options(Some(opened(&syms).unwrap()))).err().unwrap();
            assert!(e.kind() == Kind::Usage && e.to_string().contains(words), "{words}: {e}");
        }
    }
    // The right one does no harm to a dump with notes.
    let syms = opened(&syms::xen_syms(&with_notes, true)).unwrap();
    let (report, _) = cut_with(&with_notes.bytes, &options(Some(syms))).unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
}

#[test]
fn what_is_no_xen_syms_says_so() {
    let dump = by_qemu().build();
    let good = syms::xen_syms(&dump, true);
    let nameless = String::from_utf8_lossy(&good).replace("domain_list", "domain_lost").into_bytes();
    for (bytes, words) in [(&b""[..], "is no xen-syms"), (b"hello", "is no xen-syms"), (&nameless, "xen-syms")] {
        let e = opened(bytes).unwrap_err();
        assert!(e.kind() == Kind::Usage && e.to_string().contains(words), "{e}");
    }
    // Damaged anywhere, it is refused, or tells what a good one tells.
    for n in (0..good.len()).step_by(29) {
        let mut bytes = good.clone();
        bytes[n] ^= 0xff;
        for bytes in [&bytes[..], &good[..n]] {
            if let Ok(syms) = opened(bytes) {
                let _ = Info::read_with(&dump.bytes, Some(&syms), None);
            }
        }
    }
}

#[test]
fn a_machine_without_xen_is_no_xen_dump() {
    let root = by_qemu().build().truth.pgd_l4_mfn;
    let dump = by_qemu().with_elf(|e| e.holes = vec![(root, root + 1)]).build();
    let e = cut_with(&dump.bytes, &options(None)).err().unwrap();
    assert!(e.kind() == Kind::BadInput && e.to_string().contains("not a Xen dump"), "{e}");
}

/// Random flips everywhere behind the headers: an answer or an error that blames the dump.
#[test]
fn random_bytes_flipped() {
    for machine in [by_qemu(), by_qemu().xen(Xen::V4_20).pdx_hole(true), by_qemu().xen(Xen::V4_5)] {
        let mut dump = machine.build();
        let sound = dump.bytes.clone();
        let mut rng = synth::mem::Rng::new(77);
        let used: Vec<usize> =
            (0..sound.len() / 4096).filter(|p| sound[p * 4096..][..4096].iter().any(|b| *b != 0)).collect();
        for round in 0..120 {
            for _ in 0..60 {
                let page = used[rng.below(used.len() as u64) as usize];
                let at = page * 4096 + rng.below(4096) as usize;
                dump.bytes[at] ^= 1 << rng.below(8);
            }
            if let Err(e) = Info::read(&dump.bytes) {
                assert_ne!(e.kind(), Kind::Usage, "round {round}: {e}");
            }
            if round % 10 == 9 {
                dump.bytes.copy_from_slice(&sound);
            }
        }
    }
}

/// Each word of the structures that the search believes, set to what hurts most.
#[test]
fn pointers_to_everywhere() {
    let mut dump = by_qemu().build();
    let t = dump.truth.clone();
    let offset = |mfn: u64| {
        let page = &dump.mem.pages[&mfn][..];
        (0..dump.bytes.len()).step_by(4096).find(|at| dump.bytes.get(*at..at + 4096) == Some(page)).unwrap()
    };
    let root = offset(t.pgd_l4_mfn);
    let head = offset((t.domains[0].1 - 0xffff_8300_0000_0000) >> 12);
    let words = (255..266).map(|i| root + i * 8).chain((0..20).map(|i| head + i * 8));
    for at in words {
        let old: [u8; 8] = dump.bytes[at..at + 8].try_into().unwrap();
        for value in [0, 1, u64::MAX, t.domains[0].1, t.pgd_l4_mfn << 12 | 0x67, 0xffff_8300_0000_0000, 1 << 63] {
            dump.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            if let Err(e) = Info::read(&dump.bytes) {
                assert_eq!(e.kind(), Kind::BadInput, "{e}");
            }
        }
        dump.bytes[at..at + 8].copy_from_slice(&old);
    }
}

/// The real dumps with Xen's notes renamed: the same domains, pages and P2M as with them.
#[test]
fn real_dumps_lose_nothing_with_their_notes() {
    for fixture in fixtures::all() {
        let mut bytes = std::fs::read(&fixture.vmcore).unwrap();
        let with = Info::read(&bytes).unwrap();
        let head = bytes.len().min(1 << 20);
        for name in [&b"Xen\0"[..], b"VMCOREINFO_XEN\0"] {
            let renamed: Vec<usize> = (0..head).filter(|at| bytes[*at..].starts_with(name)).collect();
            assert!(!renamed.is_empty());
            renamed.into_iter().for_each(|at| bytes[at] = b'Q');
        }
        let without = Info::read(&bytes).unwrap();
        assert_eq!((with.xen.found_by, without.xen.found_by), (Origin::Notes, Origin::Memory));
        let told = |info: &Info| {
            let domains: Vec<_> = info.domains.iter().map(|d| serde_json::to_value(d).unwrap()).collect();
            (
                info.xen.version.clone(),
                info.xen.compiled.clone(),
                info.xen.phys_start.clone(),
                info.pages.clone(),
                domains,
            )
        };
        assert_eq!(told(&without), told(&with), "{}", fixture.name);
        let cut = |bytes: &Vec<u8>| {
            let o = Options { format: Format::Kdump(Codec::None), ..options(None) };
            let (report, out) = cut_with(bytes, &o).unwrap();
            (serde_json::to_value(&report.p2m).unwrap(), out.frames())
        };
        assert_eq!(cut(&bytes), cut(&std::fs::read(&fixture.vmcore).unwrap()), "{}", fixture.name);
    }
}

/// A xen-syms with DWARF agrees with what the shapes say, on a Xen that differs from most.
#[cfg(feature = "dwarf")]
#[test]
fn dwarf_and_shapes_agree_on_real_dumps() {
    let mut compared = 0;
    for fixture in fixtures::all() {
        let Some(path) = fixture.xen_syms() else { continue };
        let syms = XenSyms::open(&path).unwrap();
        let bytes = std::fs::read(&fixture.vmcore).unwrap();
        let info = Info::read_with(&bytes, Some(&syms), None).unwrap();
        assert!(info.warnings.iter().all(|w| !w.contains("xen-syms")), "{}: {:?}", fixture.name, info.warnings);
        compared += usize::from(syms.layout().is_some());
    }
    assert!(compared > 0, "no fixture has a xen-syms with DWARF");
}
