//! The sources of a PV domain's P2M that no dump at hand has: the linear list of more than 512 GiB, with the kernel's shared
//! pages of holes, and XenLinux's array.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
mod support;
mod synth;

use checks::{check, cut_elf, cut_with, options, system_map, warned};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Mutex;
use synth::layout::TIB;
use synth::{Defect, Dump, Kernel, Machine, Unmapped};
use xdump_cut::info::Info;
use xdump_cut::linux::own_list;
use xdump_cut::options::{Format, Options};
use xdump_cut::report::Report;
use xdump_cut::source::holes::Holes;
use xdump_cut::source::{MachineMemory, ReadAt, Vmcore};
use xdump_cut::units::{FileOffset, Mfn, VirtAddr};
use xdump_cut::xen::Host;
use xdump_cut::xen::p2m::linear::Linear;
use xdump_cut::xen::p2m::source::Source;

/// What the frame list can hold: 512 GiB.
const TREE: u64 = 1 << 27;
/// PFNs at 600 GiB and 1.5 TiB.
const GIB_600: u64 = 600 << 18;
const TIB_1_5: u64 = 3 << 27;

/// A dom0 with memory at the bottom, around 512 GiB and just below `end`, on a machine with memory as high.
fn far(end: u64) -> Machine {
    let far = vec![(0x300_0007, 20), (TREE - 16, 32), (end - 600, 600)];
    Machine::new().high(vec![TIB]).p2m_vaddr(0xffff_c901_0000_0000).far(far)
}

/// The same as the toolstack builds domains: nothing but the list.
fn list_alone(end: u64) -> Machine {
    far(end).defect(Defect::FrameListListInvalid)
}

/// A dump of which each page's readings are counted.
#[derive(Debug)]
struct Counted<'a> {
    bytes: &'a [u8],
    pages: Mutex<BTreeMap<u64, u64>>,
}

impl ReadAt for Counted<'_> {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> std::io::Result<()> {
        let end = at.0 + buf.len() as u64;
        let mut pages = self.pages.lock().unwrap();
        (at.0 / 4096..end.div_ceil(4096)).for_each(|page| *pages.entry(page).or_default() += 1);
        let from = self.bytes.get(at.0 as usize..end as usize).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn slice(&self, _: FileOffset, _: usize) -> Option<&[u8]> {
        None
    }

    fn holes(&self) -> &Holes {
        static NONE: std::sync::LazyLock<Holes> = std::sync::LazyLock::new(Holes::default);
        &NONE
    }
}

/// Reads dom0's P2M and holds it against the truth: every PFN, and no other; answers its words, and how often each page of
/// the file was read for it.
fn read(name: &str, dump: &Dump) -> (String, BTreeMap<u64, u64>) {
    let counted = Counted { bytes: &dump.bytes, pages: Mutex::default() };
    let mut core = Vmcore::parse(&counted).unwrap();
    let mem = MachineMemory::new(&counted, core.take_segments());
    let host = Host::open(&mem, &core).unwrap();
    counted.pages.lock().unwrap().clear();
    let p2m = own_list::read_alone(&host, host.hardware_domain().unwrap()).unwrap();
    let runs = p2m.runs().iter().flat_map(|r| (0..r.len).map(move |i| (r.pfn.0 + i, r.mfn.0 + i)));
    let found: BTreeMap<u64, u64> = runs.collect();
    assert!(found == dump.truth.dom0, "{name}: {}", p2m.check);
    let words = p2m.check.to_string();
    let pages = counted.pages.lock().unwrap().clone();
    (words, pages)
}

/// The source, and that all of it came from there.
fn sound(name: &str, dump: &Dump, report: &Report, source: &str) {
    let (p2m, pages) = (&report.p2m, dump.truth.dom0.len() as u64);
    assert_eq!((p2m.source, p2m.believed, p2m.m2p_agrees), (source, pages, pages), "{name}: {p2m:?}");
    assert_eq!(p2m.foreign, dump.truth.foreign.len() as u64, "{name}: {p2m:?}");
    let rest = [p2m.m2p_disagrees, p2m.not_owned, p2m.beyond_machine, p2m.aliases, p2m.unreadable];
    assert!(rest == [0; 5] && p2m.repaired.is_empty(), "{name}: {p2m:?}");
}

/// The line about dom0's P2M that `info` prints.
fn line_of_info(dump: &Dump) -> String {
    let info = Info::read(&dump.bytes).unwrap().to_string();
    info.lines().find(|l| l.contains("P2M: ")).unwrap().trim().to_owned()
}

#[test]
fn a_list_beyond_the_frame_lists_end() {
    for (name, end) in [("600 GiB", GIB_600), ("1.5 TiB", TIB_1_5)] {
        for (how, machine) in [("list alone", list_alone(end)), ("frame list too", far(end))] {
            let name = format!("{name}, {how}");
            let dump = machine.build();
            assert_eq!(dump.truth.max_pfn, end);
            let report = check(&name, &dump);
            assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
            sound(&name, &dump, &report, "linear list");
            let (pages, foreign) = (dump.truth.dom0.len(), dump.truth.foreign.len());
            let words = format!("P2M: {pages} entries from the linear list, {pages} confirmed by the M2P");
            let line = line_of_info(&dump);
            assert!(line.starts_with(&words) && line.contains(&format!("{foreign} foreign")), "{name}: {line}");
            read(&name, &dump);
        }
    }
}

/// The last slot of the address space, at its start and so that the list ends 12 MiB below the end of all addresses.
#[test]
fn a_list_in_the_last_slot() {
    let end = TREE + (1 << 18);
    for (base, end) in [
        (0xffff_ff80_0000_0000, GIB_600),
        (0xffff_ff80_0000_0000, TIB_1_5),
        (0_u64.wrapping_sub(0xc0_0000 + end * 8), end),
    ] {
        let name = format!("list at {base:#x}");
        let dump = list_alone(end).p2m_vaddr(base).build();
        let report = check(&name, &dump);
        assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
        sound(&name, &dump, &report, "linear list");
        read(&name, &dump);
    }
    // One that runs past it is none. Foreign frames, which the M2P does not know, there are none.
    let dump = list_alone(GIB_600).domus(0).told_vaddr(Some(0_u64.wrapping_sub(GIB_600 * 4))).build();
    let report = check("past the end", &dump);
    assert!(report.p2m.source == "M2P" && warned(&report, "leads nowhere"), "{:?}", report.warnings);
}

/// A domain whose list is the last page of all.
#[test]
fn a_list_that_ends_with_the_address_space() {
    for va in [0xffff_ffff_ffff_f000, 0xffff_ff80_0000_0000, 0x7fff_ffff_f000] {
        let dump = Machine::new().domu_list(Some(va)).build();
        let options = Options { domain: xdump_cut::options::Which::Id(1), ..options(Format::Elf) };
        let (report, out) = cut_with(&dump.bytes, &options).unwrap();
        assert_eq!((report.p2m.source, report.p2m.m2p_agrees), ("linear list", 200), "{va:#x}: {:?}", report.p2m);
        assert!(report.p2m.repaired.is_empty() && report.p2m.refused.is_empty(), "{va:#x}: {:?}", report.p2m);
        assert!((0..200).all(|pfn| out.frames().contains(&pfn)), "{va:#x}");
    }
}

/// Xen's public/arch-x86/xen.h: the generation is odd while the kernel changes the list's mapping.
#[test]
fn a_list_that_was_being_changed_is_told_of() {
    for (generation, odd) in [(2, false), (0x123, true)] {
        let report = check("generation", &list_alone(GIB_600).p2m_generation(generation).build());
        assert_eq!(warned(&report, "was changing the mapping"), odd, "{:?}", report.warnings);
        assert_eq!(report.warnings.len(), usize::from(odd), "{:?}", report.warnings);
    }
    // In the midst of it a page of the list may not be there.
    let gone = vec![Unmapped { level: 1, pfn: TREE }];
    let report = check("mid-change", &list_alone(GIB_600).domus(0).p2m_generation(7).unmapped(gone).build());
    assert!(warned(&report, "was changing") && warned(&report, "taken from the M2P"), "{:?}", report.warnings);
}

/// Tables of the list's addresses that are not there: where they led to memory, the M2P knows of it; where they led to holes,
/// nothing is lost.
#[test]
fn a_list_with_tables_missing() {
    for level in 1..=3 {
        for (pfn, memory) in [(TREE - 1, true), (GIB_600 - 1, true), (0x500_0000, false)] {
            if !memory && level == 1 {
                continue; // its table is one of the shared
            }
            let name = format!("no entry of level {level} at {pfn:#x}");
            // The M2P knows no foreign frames.
            let dump = list_alone(GIB_600).domus(0).unmapped(vec![Unmapped { level, pfn }]).build();
            let report = check(&name, &dump);
            let lost = memory || level == 3;
            assert_eq!(report.p2m.source, "linear list", "{name}");
            assert_eq!(!report.p2m.repaired.is_empty(), lost, "{name}: {:?}", report.p2m);
            assert_eq!(warned(&report, "taken from the M2P"), lost, "{name}: {:?}", report.warnings);
            read(&name, &dump);
        }
    }
}

/// The pages that stand in most places of the list are looked at once each, however long it is.
#[test]
fn shared_pages_of_holes_are_not_read_again() {
    let mut all = Vec::new();
    for end in [GIB_600, TIB_1_5] {
        let dump = list_alone(end).build();
        let (_, reads) = read("shared pages", &dump);
        let place = |mfn: u64| {
            let mut core = Vmcore::parse(&dump.bytes).unwrap();
            let mem = MachineMemory::new(&dump.bytes, core.take_segments());
            match mem.map().find(xdump_cut::units::MachineAddr(mfn << 12)).0 {
                xdump_cut::source::container::Place::File(at) => at.0 / 4096,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(dump.truth.shared_leaves.len(), 2);
        for mfn in &dump.truth.shared_leaves {
            let times = reads[&place(*mfn)];
            assert!(times <= 2, "a page of holes was read {times} times");
        }
        all.push(reads.values().sum::<u64>());
    }
    // Each GiB of addresses has one more table, and that is all.
    assert!(all[1] < all[0] + all[0] / 8, "{all:?} pages read");
}

/// What the list alone knows, from the kernel's own variables.
#[test]
fn a_far_list_that_is_not_published() {
    for (name, machine) in [("600 GiB", far(GIB_600)), ("1.5 TiB", far(TIB_1_5))] {
        let machine = machine.own_list(synth::OwnList::Linear).linear_p2m(Some(false));
        let dump = machine.clone().defect(Defect::FrameListListZero).build();
        let report = check(name, &dump);
        sound(name, &dump, &report, "xen_p2m_addr");
        assert!(line_of_info(&dump).contains("from the xen_p2m_addr"), "{}", line_of_info(&dump));
    }
}

/// A count of entries that cannot be true, in the shared info or in the kernel's variables: an array in the direct map would
/// be all memory from its place on.
#[test]
fn the_number_of_entries_is_not_believed() {
    let of = || Machine::new().defect(Defect::FrameListListZero);
    let own = |machine: Machine| machine.told_own_end(Some(1 << 40));
    for (name, machine, source) in [
        ("published", of().defect(Defect::MaxPfnHuge), "linear list"),
        ("own", own(of()).own_list(synth::OwnList::Linear).linear_p2m(Some(false)), "xen_p2m_addr"),
        ("XenLinux", own(of().xenlinux()).hidden_kallsyms(true), "phys_to_machine_mapping"),
    ] {
        let dump = machine.build();
        let report = cut_elf(&dump).unwrap().0;
        assert_eq!(report.p2m.source, source, "{name}");
        assert_eq!(report.p2m.believed, dump.truth.dom0.len() as u64, "{name}: {:?}", report.p2m);
        read(name, &dump);
    }
    let dump = far(GIB_600).build();
    let mut core = Vmcore::parse(&dump.bytes).unwrap();
    let mem = MachineMemory::new(&dump.bytes, core.take_segments());
    let host = Host::open(&mem, &core).unwrap();
    let place = (Mfn(dump.truth.p2m_cr3 >> 12), VirtAddr(dump.truth.page_offset));
    let list = Linear::open(&host, host.hardware_domain().unwrap(), place, 1 << 40, "a list").unwrap();
    assert_eq!(list.end(), 2 * host.frames.max_page());
}

/// What a cut takes goes by what is there: a bitmap of 1.5 TiB is 48 MiB, a word for each PFN would be 3 GiB.
#[test]
fn a_sparse_domain_takes_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let dump = list_alone(TIB_1_5).build();
    dump.write_sparse(&path("vmcore")).unwrap();
    for format in ["kdump", "elf"] {
        let mut command = Command::new("bash");
        // Data of all kinds, stacks of threads too.
        command.args(["-c", "ulimit -d 100000; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_xdump-cut")]);
        command.args(["-q", "-d", "1", "--threads", "2", "--format", format]).arg(path("vmcore")).arg(path(format));
        let out = command.output().unwrap();
        assert!(out.status.success(), "{format}: {}", String::from_utf8_lossy(&out.stderr));
        let blocks = path(format).metadata().unwrap().blocks() * 512;
        assert!(blocks < 16 << 20, "{format}: {blocks} bytes on the disk");
        let frames = support::dump::open(&path(format)).frames().clone();
        let own = frames.iter().filter(|pfn| **pfn < TIB_1_5);
        assert!(own.eq(dump.truth.dom0.keys()), "{format}");
    }
}

/// A kernel before 3.19, or one whose list is lost: beyond its end nothing but the M2P tells.
#[test]
fn a_frame_list_that_ends_too_early() {
    let dump = far(GIB_600).domus(0).linear_p2m(Some(false)).build();
    let report = check("no linear list", &dump);
    let beyond = dump.truth.dom0.range(TREE..).count() as u64;
    assert_eq!((report.p2m.source, report.p2m.repaired.get("M2P")), ("frame list", Some(&beyond)), "{:?}", report.p2m);
    read("no linear list", &dump);
}

/// An old kernel of XenLinux: nothing but its array and the M2P.
#[test]
fn xenlinux_array() {
    for (name, machine) in [
        ("no frame list", Machine::new().xenlinux().defect(Defect::FrameListListZero)),
        ("frame list of another domain", Machine::new().xenlinux().defect(Defect::FrameListListForeign)),
        ("frame list of nowhere", Machine::new().xenlinux().defect(Defect::FrameListListOutside)),
    ] {
        let source = "phys_to_machine_mapping";
        // Symbols from System.map.
        let dump = machine.clone().build();
        let symbols = Some(system_map(&dump.truth.system_map));
        let (report, out) = cut_with(&dump.bytes, &Options { symbols, ..options(Format::Elf) }).unwrap();
        sound(name, &dump, &report, source);
        checks::pages(name, &dump, &*out, &Default::default());
        checks::tables(name, &dump, &*out);
        // None at all.
        let (report, _) = cut_elf(&dump).unwrap();
        assert_eq!((report.p2m.source, report.p2m.foreign), ("M2P", 0), "{name}");
        // Kallsyms in its memory, which `info` finds as well.
        let dump = machine.hidden_kallsyms(true).build();
        let report = check(name, &dump);
        sound(name, &dump, &report, source);
        assert_eq!(report.domain.release.as_deref(), Some("3.0.101-108-xen-synth"));
        let line = line_of_info(&dump);
        assert!(line.contains("entries from the phys_to_machine_mapping"), "{name}: {line}");
        read(name, &dump);
    }
}

#[test]
fn xenlinux_array_repairs_the_frame_list() {
    for defect in [Defect::LeafForeign, Defect::ListPageAbsent, Defect::LeafTwice] {
        let machine = Machine::new().xenlinux().hidden_kallsyms(true).defect(defect);
        let dump = machine.build();
        let (report, out) = cut_elf(&dump).unwrap();
        assert_eq!(report.p2m.source, "frame list", "{defect:?}");
        let by = report.p2m.repaired.get("phys_to_machine_mapping").copied();
        assert!(by.is_some_and(|n| n > 0), "{defect:?}: {:?}", report.p2m);
        assert!(warned(&report, "were taken from the phys_to_machine_mapping"), "{:?}", report.warnings);
        let absent = u64::from(defect == Defect::ListPageAbsent);
        let lost = dump.truth.dom0.keys().filter(|p| !out.frames().contains(p)).count() as u64;
        assert_eq!(lost, absent, "{defect:?}");
        // Foreign frames are known to the array, and not to the M2P.
        assert_eq!(report.p2m.foreign, dump.truth.foreign.len() as u64, "{defect:?}");
    }
    // Sound, it is not asked.
    let dump = Machine::new().xenlinux().hidden_kallsyms(true).build();
    let report = check("sound", &dump);
    sound("sound", &dump, &report, "frame list");
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert!(dump.truth.release.starts_with("3.0") && Machine::new().xenlinux().kernel == Kernel::V3_12);
}
