//! Checks of a synthetic dump's cut against the truth that the dump's writer states.
#![allow(dead_code, unreachable_pub)] // each test crate uses a part

use crate::support::dump::{self, Dump as Output, u32_at, u64_at};
use crate::synth::Dump;
use std::collections::BTreeSet;
use xdump_cut::cut::cut;
use xdump_cut::linux::symbols::Symbols;
use xdump_cut::options::{Format, Options};
use xdump_cut::pipeline::Silent;
use xdump_cut::pipeline::codec::Codec;
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;

/// Cuts in memory; the output goes through a file, as its readers want one.
pub fn cut_with(bytes: &Vec<u8>, options: &Options) -> Result<(Report, Box<dyn Output>), xdump_cut::Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let out = xdump_cut::sink::Output::create(&path, false, dir.path())?;
    let report = cut(bytes, options, out, &Silent)?;
    Ok((report, dump::open(&path)))
}

/// All of dom0 but its zero pages.
pub fn options(format: Format) -> Options {
    Options { format, level: Level::ZEROS, threads: 2, ..Options::default() }
}

pub fn cut_elf(dump: &Dump) -> Result<(Report, Box<dyn Output>), xdump_cut::Error> {
    cut_with(&dump.bytes, &options(Format::Elf))
}

/// Everything that a good cut of a sound dump shows, in both formats.
pub fn check(name: &str, dump: &Dump) -> Report {
    let given = dump.truth.pv_init_ops.is_some().then(|| system_map(&dump.truth.system_map));
    let mut last = None;
    for format in [Format::Elf, Format::Kdump(Codec::default())] {
        let options = Options { symbols: given.clone(), ..options(format) };
        let (report, out) = cut_with(&dump.bytes, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        pages(name, dump, &*out, &BTreeSet::new());
        tables(name, dump, &*out);
        notes(name, dump, &*out);
        last = Some(report);
    }
    last.unwrap()
}

/// A System.map as a user would give it.
pub fn system_map(text: &str) -> Symbols {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("System.map");
    std::fs::write(&path, text).unwrap();
    Symbols::system_map(&path).unwrap()
}

pub fn warned(report: &Report, words: &str) -> bool {
    report.warnings.iter().any(|w| w.contains(words))
}

/// All of dom0's pages but the `excluded` ones, with the machine's content; tables are for [`tables`].
pub fn pages(name: &str, dump: &Dump, out: &dyn Output, excluded: &BTreeSet<u64>) {
    let t = &dump.truth;
    let frames = out.frames();
    let gone = |pfn: &u64| excluded.contains(pfn) || t.absent.contains(pfn);
    let expected: BTreeSet<u64> = t.dom0.keys().copied().filter(|p| !gone(p)).collect();
    let (own, extra): (BTreeSet<u64>, BTreeSet<u64>) = frames.iter().copied().partition(|f| *f < t.max_pfn);
    if own != expected {
        let told = |set: &BTreeSet<u64>, than: &BTreeSet<u64>| {
            let odd: Vec<_> = set.difference(than).map(|p| (*p, t.pages.get(p))).collect();
            format!("{odd:x?}")
        };
        panic!("{name}: PFNs lost: {}; PFNs too many: {}", told(&expected, &own), told(&own, &expected));
    }
    assert!(extra.len() <= t.xen_heap.len() && !extra.is_empty(), "{name}: Xen-heap pages {extra:x?}");
    // Without struct pages nothing leads to tables that Xen does not know of.
    let rewritten = |pfn: &u64| t.tables.contains_key(pfn) || !t.pages.is_empty() && t.unpinned.contains_key(pfn);
    for pfn in expected.iter().filter(|p| !rewritten(p)) {
        let mut machine = dump.dom0_page(*pfn).unwrap().to_vec();
        let marks = [Some(t.xen_start_info_at), t.pv_init_ops];
        for (_, at) in marks.into_iter().flatten().filter(|m| m.0 == *pfn) {
            machine[at as usize..at as usize + 8].fill(0);
        }
        assert!(out.page(*pfn).unwrap()[..] == machine[..], "{name}: PFN {pfn:#x} differs");
    }
}

/// Every entry of every live table, and of the tables that pgd_list leads to.
pub fn tables(name: &str, dump: &Dump, out: &dyn Output) {
    let t = &dump.truth;
    let content = |pfn: u64| out.page(pfn).map(|p| p.to_vec());
    let unpinned = t.unpinned.iter().filter(|_| !t.pages.is_empty());
    for (pfn, table) in t.tables.iter().chain(unpinned) {
        let page = out.page(*pfn).unwrap_or_else(|| panic!("{name}: no table {pfn:#x}"));
        for (i, expect) in table.entries.iter().enumerate() {
            let value = u64_at(&page[..], i * 8);
            let level = table.level;
            assert!(
                expect.holds(value, t.max_pfn, &content, &dump.mem),
                "{name}: L{level} table {pfn:#x}[{i}] is {value:#x}, expected {expect:x?}"
            );
        }
    }
}

pub fn notes(name: &str, dump: &Dump, out: &dyn Output) {
    let t = &dump.truth;
    let of = |n: &str| out.notes().iter().filter(|note| note.name == n).collect::<Vec<_>>();
    // As on bare metal, where a CPU that was never brought up leaves none.
    let dom0 = t.vcpus.iter().filter(|v| v.domain == 0);
    let vcpus: Vec<_> = dom0.filter(|v| v.vcpu == 0 || v.regs.rip != 0).collect();
    let (prstatus, qemu) = (of("CORE"), of("QEMU"));
    assert_eq!((prstatus.len(), qemu.len()), (vcpus.len(), vcpus.len()), "{name}: notes of vCPUs");
    for (i, v) in vcpus.iter().enumerate() {
        let word = |n: usize| u64_at(&prstatus[i].desc, 112 + n * 8);
        let r = &v.regs;
        assert_eq!((word(0), word(14), word(16), word(19)), (r.r15, r.rdi, r.rip, r.rsp), "{name}: vCPU {i}");
        // No registers, no selectors.
        let (cs, ss) = if r.rip == 0 { (0, 0) } else { (0x10, 0x18) };
        assert_eq!((word(17), word(18), word(20)), (cs, r.rflags, ss), "{name}: vCPU {i}");
        assert_eq!(u32_at(&prstatus[i].desc, 32), i as u32 + 1, "{name}: pr_pid");
        assert_eq!(u64_at(&qemu[i].desc, 8 + 16 * 8), r.rip, "{name}: QEMU rip");
    }
    assert_eq!(of("Xen").len(), 0);
    let info = of("VMCOREINFO");
    if t.note_at.is_some() {
        assert_eq!(String::from_utf8_lossy(&info[0].desc), t.vmcoreinfo, "{name}");
    } else {
        assert!(info.is_empty(), "{name}: a VMCOREINFO from nowhere");
    }
    assert_eq!(of("XDUMPCUT").len(), 1);
}
