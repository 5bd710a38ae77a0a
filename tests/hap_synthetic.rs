//! Translated domains of synthetic machines: each way to write the tables, and what damage can do to them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
#[path = "support/mod.rs"]
mod support;
mod synth;

use checks::{cut_with, warned};
use std::cell::Cell;
use std::collections::BTreeMap;
use synth::hap::{DIRECT, EMPTY, FOREIGN, Format, GRANT, Hap, LARGE, SHARED_INFO};
use synth::{Dump, Leaves, Machine, Xen};
use xdump_cut::options::{Options, Which};
use xdump_cut::plan::level::Level;
use xdump_cut::source::container::Place;
use xdump_cut::source::{MachineMemory, Vmcore};
use xdump_cut::units::{Mfn, Pfn};
use xdump_cut::xen::p2m::P2mCheck;
use xdump_cut::xen::p2m::hap::entry::Kind;
use xdump_cut::xen::{Host, P2m};

const fn hap(format: Format) -> Hap {
    Hap { format, old: matches!(format, Format::Npt40 | Format::Ept40), damaged: false }
}

/// The domain's pages by the number that their content states.
fn memory(dump: &Dump) -> BTreeMap<u64, u64> {
    let frames = dump.truth.domu_frames.iter().filter(|(_, d)| **d == 1);
    let named = frames.map(|(&mfn, _)| {
        let page = dump.mem.page(mfn);
        let name = String::from_utf8_lossy(&page[..24]).into_owned();
        (
            u64::from_str_radix(name.strip_prefix("SYNTH-dom1-PFN-").unwrap().split(';').next().unwrap(), 16).unwrap(),
            mfn,
        )
    });
    named.filter(|(gfn, _)| !EMPTY.contains(gfn)).collect()
}

fn read(dump: &Dump, check: impl Fn(&Host<'_>, &P2m)) {
    let mut core = Vmcore::parse(&dump.bytes).unwrap();
    let segments = core.take_segments();
    let mem = MachineMemory::new(&dump.bytes, segments);
    let host = Host::open(&mem, &core).unwrap();
    let p2m = P2m::read(&host, &host.domains[1]).unwrap();
    check(&host, &p2m);
}

/// Everything that the domain has, whatever else is said.
fn holds(name: &str, dump: &Dump, p2m: &P2m) {
    let mut memory = memory(dump);
    let shared = dump.frames.iter().find(|(_, f)| f.xen_heap && f.owner == synth::mem::Owner::Dom(1)).unwrap();
    memory.insert(SHARED_INFO, *shared.0);
    let runs = p2m.runs().iter().flat_map(|r| (0..r.len).map(move |i| (r.pfn.0 + i, r.mfn.0 + i)));
    // the domain's own, but under no number
    let unmapped = |mfn: u64| (0xa000..0xa200).any(|gfn| p2m.mfn(Pfn(gfn)) == Some(Mfn(mfn)));
    let found: BTreeMap<u64, u64> = runs.filter(|(_, mfn)| !unmapped(*mfn)).collect();
    assert_eq!(found, memory, "{name}");
    for (gfn, mfn) in memory {
        assert_eq!((p2m.mfn(Pfn(gfn)), p2m.pfn(Mfn(mfn))), (Some(Mfn(mfn)), Some(Pfn(gfn))), "{name}");
    }
}

#[test]
fn each_way_to_write_tables() {
    for format in Format::ALL {
        for (xen, leaves) in [(Xen::V4_8, Leaves::Small), (Xen::V4_20, Leaves::Large)] {
            let name = format!("{format:?} {leaves:?}");
            let dump = Machine::new().xen(xen).leaves(leaves).hap(Some(hap(format))).build();
            read(&dump, |host, p2m| {
                let root = host.domains[1].hap.unwrap_or_else(|| panic!("{name}: no root"));
                let npt = matches!(format, Format::Npt40 | Format::Npt42);
                assert_eq!(root.kind == Kind::Npt, npt, "{name}");
                assert!(host.domains[0].hap.is_none(), "{name}: a PV domain with tables");
                holds(&name, &dump, p2m);
                let c: &P2mCheck = &p2m.check;
                assert_eq!(c.m2p_agrees, c.believed, "{name}: {c:?}");
                assert_eq!(c.not_owned + c.beyond_machine + c.unreadable + c.aliases, 0, "{name}: {c:?}");
                assert_eq!(c.identity, 1, "{name}: {c:?}");
                let foreign: Vec<u64> = p2m.foreign_pfns().map(|p| p.0).collect();
                assert!(foreign.contains(&GRANT) && foreign.iter().all(|p| [GRANT, FOREIGN].contains(p)), "{name}");
                assert!(p2m.translated && p2m.tables.is_empty() && p2m.mfn(Pfn(DIRECT)).is_none(), "{name}");
                assert_eq!(p2m.mfn(Pfn(LARGE)).is_some(), leaves == Leaves::Large, "{name}");
            });
        }
    }
}

#[test]
fn damage_adds_nothing_and_takes_nothing() {
    for format in Format::ALL {
        let name = format!("{format:?}");
        let dump = Machine::new().hap(Some(Hap { damaged: true, ..hap(format) })).build();
        read(&dump, |_, p2m| {
            holds(&name, &dump, p2m);
            let c = &p2m.check;
            assert!(c.not_owned > 0 && c.beyond_machine > 0 && c.aliases > 0, "{name}: {c:?}");
            // The shared info is in the GiB whose table is none.
            assert_eq!(c.repaired.get("M2P"), Some(&1), "{name}: {c:?}");
        });
    }
}

#[test]
fn without_a_root_the_m2p_tells() {
    let mut dump = Machine::new().hap(Some(hap(Format::Ept46))).build();
    let at = Cell::new(0);
    read(&dump, |host, _| {
        let root = host.domains[1].hap.unwrap().mfn.addr().unwrap();
        let (Place::File(place), _) = host.memory().map().find(root) else { panic!("no root in the dump") };
        at.set(place.0 as usize);
    });
    // No entry of the root is one.
    dump.bytes[at.get()..at.get() + 4096].fill(0x55);
    read(&dump, |host, p2m| {
        assert!(host.domains[1].hap.is_none() && p2m.translated);
        assert_eq!(p2m.check.source, "M2P");
        for (gfn, mfn) in memory(&dump) {
            assert_eq!(p2m.mfn(Pfn(gfn)), Some(Mfn(mfn)));
        }
    });
}

#[test]
fn a_cut_without_a_kernel() {
    for format in [Format::Npt42, Format::Ept46] {
        let dump = Machine::new().hap(Some(hap(format))).build();
        let options = Options { domain: Which::Id(1), level: Level::MOST, threads: 2, ..Options::default() };
        let (report, out) = cut_with(&dump.bytes, &options).unwrap();
        assert!(warned(&report, "no page table of the domain maps a kernel"), "{:?}", report.warnings);
        assert_eq!(report.level.applied, 1);
        for (gfn, mfn) in memory(&dump) {
            assert!(out.page(gfn).unwrap()[..] == dump.mem.page(mfn)[..], "{gfn:#x}");
        }
        assert!(out.page(SHARED_INFO).is_some());
        assert_eq!(report.tables.tables, 0);
    }
}
