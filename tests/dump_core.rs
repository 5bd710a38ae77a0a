//! Files of `xl dump-core`, made from the domains of real dumps of hosts, by a writer of the tests' own and by
//! `--format xc-core`: they are the same, and their cut has the pages, the VMCOREINFO and the registers that the domain's cut
//! from the whole host has. Readers of the format see no difference between the two.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::core::Core;
use support::cut::cut_with;
use support::dump::{Dump, Note, Page, open, u64_at};
use support::fixtures::{self, Fixture, hex};
use support::tools::{run, scratch, tool};
use support::xc_core::{self, Domain};
use xdump_cut::source::{OpenOptions, open as open_dump};
use xdump_cut::xen::paging::frame;
use xdump_cut::xen::vcpu::{controls, vcpus};
use xdump_cut::xen::{Host, P2m};

const LIMIT: Duration = Duration::from_secs(300);

fn fixture(name: &str) -> &'static Fixture {
    fixtures::all().iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no fixture {name}"))
}

/// What a dump-core file cannot tell.
struct Limits {
    /// Pages from here on are Xen-heap ones, of which it has the shared info only.
    end: u64,
    /// Pinned tables that no other table leads to, as Linux's p2m_missing_pte where the P2M has no hole.
    orphans: BTreeSet<u64>,
}

/// What `xl dump-core` would have written of a domain of this host.
fn domain(fixture: &Fixture, id: u16) -> (Domain, Limits) {
    let source = open_dump(&fixture.vmcore, &OpenOptions::default()).unwrap();
    let (core, mem) = xdump_cut::source::read(&*source).unwrap();
    let host = Host::open(&mem, &core).unwrap();
    let domain = host.domains.iter().find(|d| d.id == id).unwrap();
    let p2m = P2m::read(&host, domain).unwrap();
    let page = |mfn| -> Page { mem.page(mfn).unwrap().into_owned().into_boxed_slice().try_into().unwrap() };
    let mut pages = Vec::new();
    for run in p2m.runs() {
        for i in 0..run.len {
            let mfn = run.mfn.checked_add(i).unwrap();
            if mem.page(mfn).is_ok() {
                pages.push((run.pfn.0 + i, mfn.0, page(mfn)));
            }
        }
    }
    let kernels = domain.shared_info.as_ref().map_or(0, |s| s.p2m_cr3.mfn().0);
    // A process's.
    let process = p2m.tables.iter().filter(|t| t.1 == 4).filter_map(|t| p2m.mfn(t.0)).map(|m| m.0);
    let process = process.clone().find(|mfn| *mfn != kernels).unwrap_or(kernels);
    let controls = controls(&host, domain);
    let vcpu = |(i, v): (usize, &xdump_cut::xen::vcpu::Vcpu)| {
        let r = v.regs.unwrap_or_default();
        let tail = [r.error, r.rip, r.cs.into(), r.rflags, r.rsp, r.ss.into()];
        let root = if p2m.translated { controls[i.min(controls.len() - 1)].cr3 >> 12 } else { process };
        ([&r.general[..], &tail].concat().try_into().unwrap(), root)
    };
    let vcpus = vcpus(&host, &[domain]).remove(&id).unwrap();
    let mut orphans: BTreeSet<u64> = p2m.tables.iter().filter(|t| t.1 < 4).map(|t| t.0.0).collect();
    for (pfn, _) in p2m.tables.iter().filter(|t| t.1 > 1) {
        for word in page(p2m.mfn(*pfn).unwrap()).chunks_exact(8) {
            let entry = u64::from_le_bytes(word.try_into().unwrap());
            if let Some(pfn) = p2m.pfn(frame(entry)).filter(|_| entry & 1 != 0) {
                orphans.remove(&pfn.0);
            }
        }
    }
    let limits = Limits { end: p2m.end().0, orphans };
    let domain = Domain {
        pages,
        vcpus: vcpus.iter().enumerate().map(vcpu).collect(),
        shared_info: page(domain.shared_info.as_ref().unwrap().mfn),
        translated: p2m.translated,
    };
    (domain, limits)
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = scratch().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn cut(input: &Path, name: &str, options: &[&str]) -> (PathBuf, serde_json::Value) {
    let out = scratch().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.arg(input).arg(&out).args(["-f", "--report", "json"]).args(options);
    let ran = run(&mut command, LIMIT);
    assert!(ran.status.success(), "{command:?}: {}", ran.stderr);
    (out, serde_json::from_str(&ran.stdout).unwrap())
}

fn pages(dump: &dyn Dump) -> BTreeMap<u64, Page> {
    dump.frames().into_iter().filter_map(|pfn| Some((pfn, dump.page(pfn)?))).collect()
}

fn notes(dump: &dyn Dump, name: &str) -> Vec<Note> {
    dump.notes().iter().filter(|n| n.name == name).cloned().collect()
}

fn same(fixture_name: &str, id: u16, level: &str) {
    let fixture = fixture(fixture_name);
    let (domain, limits) = domain(fixture, id);
    let id_text = id.to_string();
    let theirs = file(&format!("{fixture_name}.{id}.{level}.core"), &xc_core::write(&domain));
    let ours = cut_with(fixture, &format!("{id}.{level}.xc-core"), &["--format", "xc-core", "--domain", &id_text]);
    let whole = cut_with(fixture, &format!("{id}.{level}.of-host"), &["-d", level, "--domain", &id_text]);
    for input in [theirs, ours] {
        let (alone, report) = cut(&input, &format!("{fixture_name}.{id}.{level}.of-core"), &["-d", level, "--strict"]);
        compare((&domain, &limits), (&*open(&alone), &*open(&whole)), &report);
    }
}

/// Holds the cut of the domain alone against the cut from the whole host.
fn compare((domain, limits): (&Domain, &Limits), (ours, whole): (&dyn Dump, &dyn Dump), report: &serde_json::Value) {
    let (a, b) = (pages(ours), pages(whole));
    let keys =
        |pages: &BTreeMap<u64, Page>| -> Vec<u64> { pages.keys().copied().filter(|p| *p < limits.end).collect() };
    assert_eq!(keys(&a), keys(&b));
    assert!(limits.orphans.len() <= 2, "{:x?}", limits.orphans);
    for (pfn, page) in a.range(..limits.end).filter(|(pfn, _)| !limits.orphans.contains(pfn)) {
        for (i, (x, y)) in page.chunks_exact(8).zip(b[pfn].chunks_exact(8)).enumerate() {
            let [x, y] = [x, y].map(|w| u64::from_le_bytes(w.try_into().unwrap()));
            let to_heap =
                frame(y).0 >= limits.end && (x & 1 == 0 || frame(x).0 >= limits.end) && x & 0xffe == y & 0xffe;
            assert!(x == y || to_heap, "PFN {pfn:#x} word {i}: {x:#x}, not {y:#x}");
        }
    }
    if !domain.translated {
        let shared_info = a.range(limits.end..).map(|p| p.1);
        assert_eq!(shared_info.collect::<Vec<_>>(), [&domain.shared_info]);
    }
    assert_eq!(report["output"]["absent"], serde_json::json!({}));
    assert_eq!(report["warnings"], serde_json::json!([]));
    for name in ["CORE", "VMCOREINFO"] {
        assert_eq!(notes(ours, name), notes(whole, name), "{name}");
    }
}

#[test]
fn a_pv_domain_is_the_same() {
    same("xen-4.17-linux-6.12-panic", 1, "1");
    same("xen-4.17-linux-6.12-panic", 1, "31");
}

#[test]
fn a_pvh_domain_is_the_same() {
    same("xen-4.20-linux-6.1-pvh", 2, "1");
}

/// The guests that are not translated, and the one that is.
const GUESTS: [(&str, u16); 3] =
    [("xen-4.17-linux-6.12-panic", 1), ("xen-4.20-linux-6.1-pvh", 1), ("xen-4.20-linux-6.1-pvh", 2)];

/// A file of ours, and one of the same domain by the tests' own writer.
fn both(name: &str, id: u16, what: &str) -> [PathBuf; 2] {
    let fixture = fixture(name);
    let ours = cut_with(fixture, &format!("{id}.{what}.ours"), &["--format", "xc-core", "--domain", &id.to_string()]);
    [ours, file(&format!("{name}.{id}.{what}.theirs"), &xc_core::write(&domain(fixture, id).0))]
}

#[test]
fn it_is_what_xl_would_have_written() {
    for (name, id) in GUESTS {
        let [ours, theirs] = both(name, id, "form").map(|path| Core::open(&path));
        let (a, b) = (&ours.sections, &theirs.sections);
        // One section of our own, before the last.
        assert_eq!(a.len(), b.len() + 1);
        assert_eq!(ours.notes().last().unwrap().name, "XDUMPCUT");
        for (x, y) in a.iter().zip(b) {
            assert_eq!((&x.name, x.kind, x.align, x.entry), (&y.name, y.kind, y.align, y.entry), "{name}");
            if ![".shstrtab", ".note.Xen", ".xen_prstatus"].contains(&x.name.as_str()) {
                assert!(ours.section(&x.name) == theirs.section(&x.name), "{name}, domain {id}: {}", x.name);
            }
            assert_eq!(x.offset as u64 % x.align.max(1), 0, "{name}: {}", x.name);
        }
        let xens = |core: &Core| core.notes().iter().filter(|n| n.name == "Xen").cloned().collect::<Vec<_>>();
        for (x, y) in xens(&ours).iter().zip(&xens(&theirs)) {
            assert_eq!((x.kind, x.desc.len()), (y.kind, y.desc.len()), "{name}");
            // The version is the fixture's.
            assert!(x.kind == 0x200_0002 || x.desc == y.desc, "{name}: {:#x}", x.kind);
        }
        assert_eq!(xens(&ours).len(), 4);
        assert_eq!(ours.bytes[..40], theirs.bytes[..40], "{name}");
    }
}

#[test]
fn contexts_are_the_vcpus() {
    for (name, id) in [GUESTS[0], GUESTS[1], GUESTS[2], (GUESTS[0].0, 0), (GUESTS[1].0, 0)] {
        let fixture = fixture(name);
        let translated = (name, id) == GUESTS[2];
        let core = cut_with(fixture, &format!("{id}.contexts"), &["--format", "xc-core", "--domain", &id.to_string()]);
        let core = Core::open(&core);
        let truth = fixture.json["vcpus"][id.to_string()].as_array().unwrap();
        assert_eq!(core.contexts().len(), truth.len(), "{name}, domain {id}");
        for (n, (context, truth)) in core.contexts().into_iter().zip(truth).enumerate() {
            let regs = Core::regs(context);
            let order = [
                "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
                "err", "rip", "cs", "rflags", "rsp", "ss",
            ];
            for (key, value) in order.into_iter().zip(&regs).filter(|_| !translated) {
                // With the IOPL of Linux under Xen.
                let iopl = if key == "rflags" { 0x1000 } else { 0 };
                assert_eq!(*value, hex(truth[key].as_str().unwrap()) | iopl, "{name}, domain {id}: {key}");
            }
            let word = |at| u64_at(context, at);
            let saved = truth["state"].as_str().is_none_or(|state| state.starts_with("saved"));
            let cr3 = word(4984 + 24) >> 12;
            let root = core.entries().into_iter().find(|e| e.1 == cr3).expect("a root table of the domain's own").0;
            // The last entry of the root maps the kernel's image.
            assert_eq!(u64_at(&core.page(root).unwrap()[..], 511 * 8) & 1, 1, "{name}, domain {id}");
            assert_eq!(word(4984 + 32) & 0x20, 0x20, "PAE");
            // FPU control word and MXCSR after reset; nobody has changed them.
            let fpu = if saved { (0x37f, 0x1f80, 1) } else { (0, 0, 0) };
            assert_eq!((word(0) & 0xffff, word(24) & 0xffff_ffff, word(512) & 1), fpu, "{name}, domain {id}");
            // A kernel that panicked brought the others down.
            assert!(word(512) & 0x20 != 0 || n > 0, "{name}, domain {id}: online");
            assert_eq!((word(5048 + 48), word(5048 + 56)), (0xffff_0ff0, 0x400), "{name}, domain {id}: dr6, dr7");
            // Of CPU 0 the kernel's per-CPU area.
            assert_eq!(word(5152) >> 47 == 0x1ffff, saved, "{name}, domain {id}: gs");
            if !translated {
                assert_eq!((word(4960), word(4968)), (16, 0x1b), "{name}, domain {id}: GDT entries, kernel ss");
                let kernels = [4976, 5112, 5120, 5128, 720 + 14 * 16 + 8];
                assert!(kernels.iter().all(|at| word(*at) >> 47 == 0x1ffff), "{name}, domain {id}");
                assert_eq!(word(720 + 14 * 16) & 0xff, 14, "the trap of a page fault");
            }
        }
    }
}

/// crash says the same of both files. These kernels' exception stacks of no size let it start with --minimal only.
#[test]
fn crash_sees_no_difference() {
    let input = file("same.crash", b"log\nrd jiffies_64\nrd -p 1000000 512\nexit\n");
    for (name, id) in GUESTS {
        let said = both(name, id, "crash").map(|path| {
            let mut command = Command::new(tool("crash"));
            command.args(["--minimal", "--no_scroll", "-s"]).arg(fixture(name).vmlinux()).arg(&path);
            command.arg("-i").arg(&input).env("HOME", scratch());
            let ran = run(&mut command, LIMIT);
            assert!(ran.status.success(), "{name}, domain {id}: {}\n{}", ran.stdout, ran.stderr);
            ran.stdout
        });
        assert!(said[0] == said[1], "{name}, domain {id}: {:.500}", said[0]);
        assert!(said[0].contains("Linux version ") && said[0].contains("1000ff0:"), "{name}: {:.300}", said[0]);
    }
}

/// Prints what libkdumpfile reads of a file: registers, and a hash of each page by its number and by the machine's.
const KDUMPFILE: &str = "
import sys, struct, zlib, kdumpfile as k
dump, pages = k.kdumpfile(sys.argv[1]), [int(n, 16) for n in open(sys.argv[2])]
print(dump.attr['file.format'], dump.attr['xen.type'], dump.attr['cpu.number'])
for n in range(dump.attr['cpu.number']):
    print(*['%x' % dump.attr['cpu.%d.reg.%s' % (n, r)] for r in 'rip rsp rflags cs ss rax r15 cr0 cr3 cr4 dr7'.split()])
for space in k.KDUMP_KPHYSADDR, k.KDUMP_MACHPHYSADDR:
    print(*['%x' % zlib.crc32(dump.read(space, page << 12, 4096)) for page in pages[space == k.KDUMP_MACHPHYSADDR::2]])
";

#[test]
fn libkdumpfile_reads_it() {
    for (name, id) in GUESTS {
        let [ours, _] = both(name, id, "kdumpfile");
        let core = Core::open(&ours);
        let numbers: String = core.entries().iter().map(|(pfn, mfn)| format!("{pfn:x}\n{mfn:x}\n")).collect();
        let (script, list) = (file("ask-libkdumpfile.py", KDUMPFILE.as_bytes()), file("numbers", numbers.as_bytes()));
        let ran = run(Command::new(tool("kdumpfile-python")).arg(script).arg(&ours).arg(list), LIMIT);
        assert!(ran.status.success(), "{name}, domain {id}: {}", ran.stderr);
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(lines[0], format!("xc_core_elf 2 {}", core.contexts().len()), "{name}, domain {id}");
        for (line, context) in lines[1..].iter().zip(core.contexts()) {
            let regs = Core::regs(context);
            let control = [0, 3, 4, 8 + 7].map(|n| u64_at(context, 4984 + n * 8));
            let want = [&[16, 19, 18, 17, 20, 10, 0].map(|n: usize| regs[n])[..], &control].concat();
            let told: Vec<u64> = line.split(' ').map(|n| u64::from_str_radix(n, 16).unwrap()).collect();
            assert_eq!(told, want, "{name}, domain {id}");
        }
        let pages: Vec<String> = core
            .section(".xen_pages")
            .chunks_exact(4096)
            .map(|page| {
                let mut crc = flate2::Crc::new();
                crc.update(page);
                format!("{:x}", crc.sum())
            })
            .collect();
        for line in &lines[lines.len() - 2..] {
            assert!(line.split(' ').eq(&pages), "{name}, domain {id}");
        }
    }
}
