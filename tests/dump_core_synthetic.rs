//! What `--format xc-core` writes of synthetic machines, through a reader of our own: each page as the machine has it, tables
//! too, each vCPU's registers, and nothing that is not so.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;
mod synth;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use support::core::Core;
use support::dump::{Dump as _, u64_at};
use synth::hap::{Format as HapFormat, Hap};
use synth::kdump::{Codec, KdumpOptions, kdump};
use synth::{Defect, Dump, Machine, Xen};
use xdump_cut::Error;
use xdump_cut::cut::cut;
use xdump_cut::error::Kind;
use xdump_cut::options::{Format, Options, Which};
use xdump_cut::pipeline::Silent;
use xdump_cut::plan::layout::Layout;
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;
use xdump_cut::sink::Output;
use xdump_cut::source::ReadAt;
use xdump_cut::xen::Host;

fn options() -> Options {
    Options { format: Format::XcCore, level: Level::NOTHING, threads: 2, ..Options::default() }
}

fn cut_bytes(source: &dyn ReadAt, options: &Options) -> Result<(Report, Vec<u8>), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let report = cut(source, options, Output::create(&path, false, Path::new("")).unwrap(), &Silent)?;
    Ok((report, std::fs::read(path).unwrap()))
}

/// Dom0's pages by the truth, with their content.
fn holds(name: &str, dump: &Dump, core: &Core, left_out: &BTreeSet<u64>) {
    let gone = |pfn: &u64| left_out.contains(pfn) || dump.truth.absent.contains(pfn);
    let want: Vec<(u64, u64)> =
        dump.truth.dom0.iter().filter(|(p, _)| !gone(p)).map(|(pfn, mfn)| (*pfn, *mfn)).collect();
    assert_eq!(core.entries(), want, "{name}");
    for (pfn, mfn) in want {
        assert!(core.page(pfn).unwrap()[..] == dump.page(mfn)[..], "{name}: PFN {pfn:#x}");
    }
}

fn header(core: &Core) -> Vec<u64> {
    core.notes().iter().find(|n| n.kind == 0x200_0001).unwrap().desc.chunks_exact(8).map(|w| u64_at(w, 0)).collect()
}

#[test]
fn dom0_as_it_was() {
    for xen in [Xen::V4_8, Xen::V4_17, Xen::V4_20, Xen::V4_21, Xen::V4_22] {
        let name = format!("{xen:?}");
        let dump = Machine::new().xen(xen).mem_map(true).dom0_vcpus(3).build();
        let (report, bytes) = cut_bytes(&dump.bytes, &options()).unwrap();
        assert_eq!(report.output.bytes, bytes.len() as u64, "{name}");
        let core = Core::parse(bytes);
        holds(&name, &dump, &core, &BTreeSet::new());
        assert_eq!(report.output.zero + report.output.kept, core.entries().len() as u64, "{name}");
        assert!(core.section(".xen_shared_info") == &dump.page(dump.truth.shared_info_mfn)[..], "{name}");
        let vcpus: Vec<_> = dump.truth.vcpus.iter().filter(|v| v.domain == 0 && v.regs.rip != 0).collect();
        assert_eq!(header(&core), [0xf00f_ebed, vcpus.len() as u64, core.entries().len() as u64, 4096], "{name}");
        for (context, v) in core.contexts().iter().zip(vcpus) {
            let told: Vec<u64> = v.regs.bytes().chunks_exact(8).map(|w| u64_at(w, 0)).collect();
            assert_eq!(Core::regs(context), told, "{name}");
            // No table of the vCPU's own stands in these struct vcpus: the kernel's.
            assert_eq!(u64_at(context, 4984 + 24), dump.truth.dom0[&dump.truth.swapper_pfn] << 12, "{name}");
        }
    }
}

#[test]
fn levels_leave_out_what_they_do_elsewhere_but_no_zero_page() {
    let dump = Machine::new().mem_map(true).build();
    for level in [1, 16, 31] {
        let options = Options { level: Level::new(level).unwrap(), ..options() };
        let (report, bytes) = cut_bytes(&dump.bytes, &options).unwrap();
        let core = Core::parse(bytes);
        let end = dump.truth.max_pfn;
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("elf");
        let out = Output::create(&other, false, Path::new("")).unwrap();
        cut(&dump.bytes, &Options { format: Format::Elf, ..options }, out, &Silent).unwrap();
        let there: BTreeSet<u64> = support::dump::open(&other).frames().into_iter().filter(|pfn| *pfn < end).collect();
        assert_eq!(core.frames(), there, "level {level}");
        for (pfn, mfn) in core.entries() {
            assert!(core.page(pfn).unwrap()[..] == dump.page(mfn)[..], "level {level}: PFN {pfn:#x}");
        }
        assert!(report.warnings.iter().any(|w| w.contains("takes the place of an entry")), "{:?}", report.warnings);
    }
}

#[test]
fn any_number_of_threads_writes_the_same() {
    let dump = Machine::new().mem_map(true).build();
    for level in [0, 31] {
        let level = Level::new(level).unwrap();
        let all = [1, 2, 5].map(|threads| cut_bytes(&dump.bytes, &Options { threads, level, ..options() }).unwrap().1);
        assert!(all[0] == all[1] && all[1] == all[2], "{level}");
    }
}

#[test]
fn a_translated_domain() {
    for format in HapFormat::ALL {
        let hap = Hap { format, old: matches!(format, HapFormat::Npt40 | HapFormat::Ept40), damaged: false };
        let dump = Machine::new().hap(Some(hap)).build();
        let (_, bytes) = cut_bytes(&dump.bytes, &Options { domain: Which::Id(1), ..options() }).unwrap();
        let core = Core::parse(bytes);
        assert_eq!(header(&core)[0], 0xf00f_ebee, "{format:?}");
        assert!(!core.has(".xen_p2m") && core.has(".xen_shared_info"), "{format:?}");
        let (source, mem) = xdump_cut::source::read(&dump.bytes).unwrap();
        let host = Host::open(&mem, &source).unwrap();
        let p2m = xdump_cut::xen::P2m::read(&host, &host.domains[1]).unwrap();
        let pages: BTreeMap<u64, u64> =
            p2m.runs().iter().flat_map(|r| (0..r.len).map(move |i| (r.pfn.0 + i, r.mfn.0 + i))).collect();
        assert_eq!(core.frames(), pages.keys().copied().collect(), "{format:?}");
        for (pfn, mfn) in pages {
            assert!(core.page(pfn).unwrap()[..] == dump.page(mfn)[..], "{format:?}: PFN {pfn:#x}");
        }
    }
}

#[test]
fn pages_that_are_not_in_the_dump_are_not_in_the_list() {
    for defect in [Defect::LeafPageAbsent, Defect::P2mDuplicate, Defect::P2mForeignPlain, Defect::M2pDisagrees] {
        let dump = Machine::new().defect(defect).build();
        let (report, bytes) = cut_bytes(&dump.bytes, &options()).unwrap();
        let core = Core::parse(bytes);
        let absent: u64 = report.output.absent.values().sum();
        assert_eq!(core.entries().len() as u64, report.output.pages, "{defect:?}");
        for (pfn, mfn) in core.entries() {
            assert!(core.page(pfn).unwrap()[..] == dump.page(mfn)[..], "{defect:?}: PFN {pfn:#x}");
        }
        assert_eq!(absent > 0, defect == Defect::LeafPageAbsent, "{defect:?}: {:?}", report.output.absent);
    }
}

/// Where it turns out only while writing, the entry is that of a page that went away.
#[test]
fn a_damaged_page_has_an_empty_place() {
    let dump = Machine::new().build();
    let data = |p: &&u64| !dump.truth.tables.contains_key(p) && !dump.truth.zero_pfns.contains(p);
    let (&pfn, &mfn) = dump.truth.dom0.iter().rev().find(|(p, _)| data(p)).unwrap();
    let mut bytes = kdump(&dump, &KdumpOptions { codec: Codec::Zlib, ..KdumpOptions::default() });
    let (_, packed) = synth::kdump::compress(Codec::Zlib, dump.page(mfn));
    let at = bytes.windows(packed.len()).position(|w| w == packed).unwrap();
    bytes[at..at + 2].fill(0xff);
    let (report, out) = cut_bytes(&bytes, &options()).unwrap();
    assert_eq!(report.output.absent, [("is damaged in the dump".to_owned(), 1)].into());
    let core = Core::parse(out.clone());
    let place = dump.truth.dom0.keys().position(|p| *p == pfn).unwrap();
    assert_eq!(core.entries()[place], (u64::MAX, u64::MAX));
    assert!(core.section(".xen_pages")[place * 4096..][..4096].iter().all(|b| *b == 0));
    assert_eq!(header(&core)[2], core.entries().len() as u64);
    // Our own input side knows it for one.
    let (source, mem) = xdump_cut::source::read(&out).unwrap();
    assert_eq!(source.dump_core().unwrap().gone, 1);
    assert!(mem.history().damage.is_empty());
    let e = cut_bytes(&bytes, &Options { strict: true, ..options() }).err().unwrap();
    assert!(e.to_string().contains("is damaged in the dump"), "{e}");
}

#[test]
fn no_other_layout() {
    let dump = Machine::new().build();
    for (format, layout) in [(Format::XcCore, Layout::Machine { keep_xen: false }), (Format::Elf, Layout::Unaltered)] {
        let e = cut_bytes(&dump.bytes, &Options { format, layout, ..options() }).err().unwrap();
        assert_eq!(e.kind(), Kind::Usage, "{e}");
    }
}
