//! A P2M that damage got at, in real dumps: one source of it is destroyed, and the cut still has every page at its PFN, and
//! says what it did.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::dump::open;
use support::fixtures::Fixture;
use support::tools::scratch;
use support::{Findings, on_each_fixture};
use xdump_cut::cut::cut;
use xdump_cut::options::{Options, Which};
use xdump_cut::pipeline::Silent;
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;
use xdump_cut::sink::Output;
use xdump_cut::source::container::Place;
use xdump_cut::source::holes::Holes;
use xdump_cut::source::{MachineMemory, OpenOptions, ReadAt, Vmcore, open as open_dump};
use xdump_cut::units::{FileOffset, MachineAddr, Mfn, VirtAddr};
use xdump_cut::xen::paging::AddressSpace;
use xdump_cut::xen::{Domain, Host};

/// A dump with some words of it changed.
#[derive(Debug)]
struct Damaged<'a> {
    sound: &'a dyn ReadAt,
    words: BTreeMap<u64, u64>,
}

impl ReadAt for Damaged<'_> {
    fn len(&self) -> u64 {
        self.sound.len()
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> std::io::Result<()> {
        self.sound.read_exact_at(at, buf)?;
        let end = at.0 + buf.len() as u64;
        for (place, word) in self.words.range(at.0.saturating_sub(7)..end) {
            for (i, byte) in (*place..).zip(word.to_le_bytes()) {
                if (at.0..end).contains(&i) {
                    buf[(i - at.0) as usize] = byte;
                }
            }
        }
        Ok(())
    }

    fn slice(&self, at: FileOffset, len: usize) -> Option<&[u8]> {
        let touched = self.words.range(at.0.saturating_sub(7)..at.0 + len as u64).next().is_some();
        self.sound.slice(at, len).filter(|_| !touched)
    }

    fn holes(&self) -> &Holes {
        self.sound.holes()
    }
}

/// Words by machine address.
type Words = Vec<(u64, u64)>;

/// What can be done to a domain's P2M.
struct Anatomy<'a> {
    mem: &'a MachineMemory<'a>,
    words: Vec<(&'static str, Option<&'static str>, Words)>,
    /// Damage to what leads to the tree alone; it is said.
    refused: Vec<(&'static str, Words)>,
}

impl Anatomy<'_> {
    fn page(&self, mfn: u64) -> Vec<u64> {
        let page = self.mem.page(Mfn(mfn)).unwrap();
        page.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap())).collect()
    }

    /// Damage of this name; the P2M must then come from `source`, if that is told, or else be repaired.
    fn add(&mut self, name: &'static str, source: Option<&'static str>, words: Words) {
        self.words.push((name, source, words));
    }

    fn zeroed(mfn: u64, entries: std::ops::Range<u64>) -> Words {
        entries.map(|i| (mfn * 4096 + i * 8, 0)).collect()
    }

    fn exchanged(&self, mfn: u64, a: usize, b: usize) -> Words {
        let page = self.page(mfn);
        vec![(mfn * 4096 + a as u64 * 8, page[b]), (mfn * 4096 + b as u64 * 8, page[a])]
    }

    /// All ways for a PV domain; `stranger` is a frame of another domain's.
    fn pv(&mut self, domain: &Domain, stranger: u64) {
        let shared = domain.shared_info.clone().unwrap();
        let base = shared.mfn.0 * 4096;
        let top = shared.frame_list_list.0;
        let no_tree: Words = vec![(base + 0xc18, 0)];
        let no_list = [(base + 0xc28, 0), (base + 0xc30, 0)];
        let space = AddressSpace::new(self.mem, shared.p2m_cr3.mfn());
        let place = |at: u64| space.translate(VirtAddr(shared.p2m_vaddr.0 + at)).unwrap().addr.0;
        let leaf = place(8 * 0x800) / 4096;
        if top != 0 && top != u64::MAX {
            let middle = self.page(top)[0];
            self.add("no tree", Some("linear list"), no_tree.clone());
            self.add("nothing published", Some("xen_p2m_addr"), [no_tree.clone(), no_list.to_vec()].concat());
            let end = [(base + 0xc10, 0)];
            self.add("not even the end", Some("xen_p2m_addr"), [no_tree, no_list.to_vec(), end.to_vec()].concat());
            self.refused.push(("a tree of nowhere", vec![(base + 0xc18, 0x1234)]));
            self.refused.push(("a tree of the moon", vec![(base + 0xc18, 1 << 40)]));
            self.add("a list cleared", None, Self::zeroed(middle, 0..512));
            self.add("half a list cleared", None, Self::zeroed(middle, 0..20));
            self.add("lists crossed", None, self.exchanged(middle, 1, 9));
            self.add("a list of another domain", None, vec![(middle * 4096 + 24, stranger)]);
            self.add("a list of the moon", None, vec![(middle * 4096 + 24, 1 << 50)]);
        }
        self.add("a leaf cleared", None, Self::zeroed(leaf, 0..512));
        self.add("a torn leaf", None, (100..300).map(|i| (leaf * 4096 + i * 8, stranger ^ i)).collect());
        self.add("entries crossed", None, self.exchanged(leaf, 7, 300));
        self.add("entries of the moon", None, (0..64).map(|i| (leaf * 4096 + i * 8, 1 << 45)).collect());
    }

    /// The table that maps the list, of a domain that has no other source: cleared in part.
    fn list_only(&mut self, domain: &Domain) {
        let shared = domain.shared_info.clone().unwrap();
        let space = AddressSpace::new(self.mem, shared.p2m_cr3.mfn());
        let va = shared.p2m_vaddr.0;
        let mut table = space.root().0;
        for shift in [39, 30, 21] {
            table = self.page(table)[(va >> shift & 511) as usize] >> 12 & 0xff_ffff_ffff;
        }
        let first = va >> 12 & 511;
        let base = shared.mfn.0 * 4096;
        let unmapped = Self::zeroed(table, first + 2..first + 4);
        self.add("two leaves unmapped", None, [unmapped, vec![(base + 0xc18, 0)]].concat());
        let nothing = vec![(base + 0xc18, 0), (base + 0xc28, 0), (base + 0xc30, 0)];
        self.add("nothing published", Some("xen_p2m_addr"), nothing);
        let kernel = vec![(base + 0xc18, u64::MAX), (base + 0xc30, 0xffff_ffff_8100_0000)];
        self.add("the kernel's text for a list", None, kernel);
        self.add("a false address", None, vec![(base + 0xc30, va ^ 0x40_0000_0000), (base + 0xc18, u64::MAX)]);
    }
}

fn run(fixture: &Fixture, source: &dyn ReadAt, domain: u16) -> Result<(Report, BTreeSet<u64>), String> {
    let out = scratch().join(format!("{}.p2m.{domain}.kdump", fixture.name));
    let options = Options { domain: Which::Id(domain), level: Level::ZEROS, threads: 2, ..Options::default() };
    let report = cut(source, &options, Output::create(&out, true, &fixture.vmcore).unwrap(), &Silent)
        .map_err(|e| e.to_string())?;
    Ok((report, open(&out).frames().clone()))
}

/// Where the file has a machine address.
fn in_file(mem: &MachineMemory<'_>, address: u64) -> u64 {
    match mem.map().find(MachineAddr(address)).0 {
        Place::File(offset) => offset.0,
        other => panic!("{address:#x} is {other:?}"),
    }
}

fn check(fixture: &Fixture, id: u16, findings: &mut Findings) {
    let sound = open_dump(&fixture.vmcore, &OpenOptions::default()).unwrap();
    let mut core = Vmcore::parse(&*sound).unwrap();
    let mem = MachineMemory::new(&*sound, core.take_segments());
    let host = Host::open(&mem, &core).unwrap();
    let domain = host.domains.iter().find(|d| d.id == id).unwrap();
    let stranger = host.domains.iter().find(|d| d.id != id && d.shared_info.is_some()).unwrap();
    let stranger = stranger.shared_info.as_ref().unwrap().frame_list_list.0;
    let mut anatomy = Anatomy { mem: &mem, words: Vec::new(), refused: Vec::new() };
    // The last word of the crash note.
    let list = host.notes.crash.frame_list_list.0.to_le_bytes();
    let mut head = vec![0; 65536];
    sound.read_exact_at(FileOffset(0), &mut head).unwrap();
    let note = head.windows(8).step_by(4).position(|w| w == list).map(|i| i as u64 * 4);
    anatomy.pv(domain, stranger);
    if id != 0 {
        anatomy.list_only(domain);
    }
    let (whole, frames) = run(fixture, &*sound, id).unwrap();
    findings.check(whole.warnings.is_empty(), "warnings of the sound dump", || format!("{:?}", whole.warnings));
    for (name, words) in anatomy.refused {
        let words = words.into_iter().map(|(a, w)| (in_file(&mem, a), w)).collect();
        let (report, got) = run(fixture, &Damaged { sound: &*sound, words }, id).unwrap();
        findings.check(got == frames, "PFNs", || format!("{name}: {:?}", report.p2m));
        let said = report.warnings.iter().any(|w| w.contains("leads nowhere"));
        findings.check(said, "not said", || format!("{name}: {:?}", report.warnings));
        let source = if id == 0 { "frame list" } else { "linear list" };
        findings.check(report.p2m.source == source, "source", || format!("{name}: {:?}", report.p2m));
    }
    for (name, source, words) in anatomy.words {
        let mut words: BTreeMap<u64, u64> = words.into_iter().map(|(a, w)| (in_file(&mem, a), w)).collect();
        if source.is_some() && id == 0 {
            words.insert(note.expect("the crash note has the frame list"), 0);
        }
        let damaged = Damaged { sound: &*sound, words };
        let (report, got) = match run(fixture, &damaged, id) {
            Ok(done) => done,
            Err(why) => {
                findings.add("no cut", format!("{name}: {why}"));
                continue;
            }
        };
        let lost: Vec<_> = frames.difference(&got).take(4).collect();
        let more: Vec<_> = got.difference(&frames).take(4).collect();
        findings.check(lost.is_empty(), "PFNs lost", || format!("{name}: {lost:x?}; {:?}", report.p2m));
        findings.check(more.is_empty(), "PFNs out of nothing", || format!("{name}: {more:x?}; {:?}", report.p2m));
        let p2m = &report.p2m;
        match source {
            Some(source) => findings.check(p2m.source == source, "source", || format!("{name}: {p2m:?}")),
            None => {
                let said = report.warnings.iter().any(|w| w.contains("were taken from"));
                findings
                    .check(said && !p2m.repaired.is_empty(), "not said", || format!("{name}: {:?}", report.warnings));
            }
        }
        // a word of something else can look like a foreign frame
        let same = p2m.foreign == whole.p2m.foreign || name == "the kernel's text for a list";
        findings.check(same, "foreign frames", || format!("{name}: {} and {}", p2m.foreign, whole.p2m.foreign));
    }
}

#[test]
fn a_damaged_source_is_made_up_for() {
    on_each_fixture(|fixture, findings| {
        for id in [0, 1] {
            let mut part = Findings::default();
            check(fixture, id, &mut part);
            findings.append(&format!("domain {id}: "), part);
        }
    });
}

/// A list of domains that breaks off, or skips some: they are found by what they own.
#[test]
fn domains_that_the_list_lost_are_found() {
    on_each_fixture(|fixture, findings| {
        let sound = open_dump(&fixture.vmcore, &OpenOptions::default()).unwrap();
        let mut core = Vmcore::parse(&*sound).unwrap();
        let mem = MachineMemory::new(&*sound, core.take_segments());
        let host = Host::open(&mem, &core).unwrap();
        let ids: Vec<u16> = host.domains.iter().map(|d| d.id).collect();
        let link = host.notes.info.offset("domain.next_in_list").unwrap();
        let place = host.space.translate(VirtAddr(host.domains[0].va.0 + link)).unwrap().addr.0;
        let last = host.domains.last().unwrap().va.0;
        let whole = run(fixture, &*sound, 1).unwrap().1;
        for (name, to) in [("ends", 0), ("skips", last), ("loops", host.domains[0].va.0), ("nowhere", 0x1234)] {
            // where there are but two domains nothing can be skipped
            if name == "skips" && ids.len() < 3 {
                continue;
            }
            let damaged = Damaged { sound: &*sound, words: BTreeMap::from([(in_file(&mem, place), to)]) };
            let host_of = MachineMemory::new(&damaged, Vmcore::parse(&damaged).unwrap().take_segments());
            let found = Host::open(&host_of, &core).unwrap();
            let got: Vec<u16> = found.domains.iter().map(|d| d.id).collect();
            findings.check(got == ids, "domains", || format!("{name}: {got:?} for {ids:?}"));
            match run(fixture, &damaged, 1) {
                Ok((report, frames)) => {
                    findings.check(frames == whole, "pages", || name.into());
                    let said = report.warnings.iter().any(|w| w.contains("is not in the list"));
                    findings.check(said, "not said", || format!("{name}: {:?}", report.warnings));
                }
                Err(why) => findings.add("no cut", format!("{name}: {why}")),
            }
        }
    });
}
