//! Files of `xl dump-core`, made from the domains of real dumps of hosts: their cut has the pages, the VMCOREINFO and the
//! registers that the domain's cut from the whole host has.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::cut::cut_with;
use support::dump::{Dump, Note, Page, open};
use support::fixtures::{self, Fixture};
use support::tools::{run, scratch};
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
    let input = file(&format!("{fixture_name}.{id}.{level}.core"), &xc_core::write(&domain));
    let (ours, report) = cut(&input, &format!("{fixture_name}.{id}.{level}.of-core"), &["-d", level, "--strict"]);
    let id_text = id.to_string();
    let whole = cut_with(fixture, &format!("{id}.{level}.of-host"), &["-d", level, "--domain", &id_text]);
    let (ours, whole) = (open(&ours), open(&whole));
    let (a, b) = (pages(&*ours), pages(&*whole));
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
        assert_eq!(notes(&*ours, name), notes(&*whole, name), "{name}");
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
