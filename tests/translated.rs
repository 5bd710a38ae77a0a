//! A translated domain (PVH) cut out of a real dump: each page by Xen's own word, and what drgn and crash see in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::cut::cut_with;
use support::drgn;
use support::dump::{Dump, PAGE, open, u32_at, u64_at};
use support::elf::Elf;
use support::fixtures::{Fixture, hex};
use support::symbols::Symbols;
use support::tools::{run, scratch, tool};
use support::truth::FRAME;
use support::{Findings, fixtures, sha256};

/// What a fixture's truth has no registers of.
fn translated(fixture: &Fixture) -> Vec<u16> {
    let vcpus = fixture.json["vcpus"].as_object().unwrap();
    let bare = |list: &serde_json::Value| list[0].as_object().is_some_and(|regs| regs.is_empty());
    vcpus.iter().filter(|(_, list)| bare(list)).map(|(id, _)| id.parse().unwrap()).collect()
}

fn on_each(check: impl Fn(&Fixture, u16, &mut Findings)) {
    let all: Vec<(&Fixture, u16)> =
        fixtures::all().iter().flat_map(|f| translated(f).into_iter().map(move |id| (f, id))).collect();
    assert!(!all.is_empty(), "no fixture with a translated domain");
    let mut found = Findings::default();
    for (fixture, id) in all {
        let mut part = Findings::default();
        check(fixture, id, &mut part);
        found.append(&format!("{}, domain {id}: ", fixture.name), part);
    }
    let lines = found.into_lines("translated");
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

/// Xen's own tables of the uncut dump, walked by a reader of our own.
struct Xen {
    machine: Elf,
    root: u64,
    symbols: Symbols,
}

impl Xen {
    fn open(fixture: &Fixture) -> Self {
        let symbols = Symbols::read(&fixture.xen_syms().expect("a fixture with a PVH domain has xen-syms"));
        let start = hex(fixture.json["xen_phys_start"].as_str().unwrap());
        let pgd = symbols.address("idle_pg_table");
        let root = pgd - (pgd & !0x3fff_ffff) + start;
        Self { machine: Elf::open(&fixture.vmcore), root, symbols }
    }

    fn u64(&self, va: u64) -> Option<u64> {
        let mut table = self.root;
        for shift in [39, 30, 21, 12] {
            let entry = self.at(table + (va >> shift & 511) * 8)?;
            if entry & 1 == 0 {
                return None;
            }
            let size = 1 << shift;
            if shift == 12 || entry & 0x80 != 0 && shift < 39 {
                return self.at((entry & FRAME & !(size - 1)) + (va & (size - 1)));
            }
            table = entry & FRAME;
        }
        None
    }

    fn at(&self, addr: u64) -> Option<u64> {
        Some(u64_at(&self.machine.page(addr >> 12)?[..], (addr & 0xfff) as usize))
    }

    /// The domain's frames by GFN: those that the frame table gives it, under the M2P's number.
    fn memory(&self, id: u16) -> BTreeMap<u64, u64> {
        let frame_table = 0xffff_82e0_0000_0000;
        let mut domain = self.u64(self.symbols.address("domain_list")).unwrap();
        let next_at = self.next_in_list();
        while self.u64(domain).unwrap() as u16 != id {
            domain = self.u64(domain + next_at).unwrap();
        }
        let owner = (domain - 0xffff_8300_0000_0000) >> 12;
        let max_page = self.u64(self.symbols.address("max_page")).unwrap();
        let mut memory = BTreeMap::new();
        for mfn in 0..max_page {
            let entry = frame_table + mfn * 32;
            let Some(count) = self.u64(entry + 8) else { continue };
            // allocated, not free (state 3), this owner
            let owned =
                count >> 63 == 1 && count >> 58 & 3 != 3 && self.u64(entry + 24).unwrap() as u32 == owner as u32;
            if owned && let Some(gfn) = self.u64(0xffff_8280_0000_0000 + mfn * 8).filter(|gfn| gfn >> 52 == 0) {
                memory.insert(gfn, mfn);
            }
        }
        memory
    }

    fn next_in_list(&self) -> u64 {
        let text = self.machine.notes().iter().find(|n| n.name == "VMCOREINFO_XEN").unwrap();
        let text = String::from_utf8_lossy(&text.desc).into_owned();
        let line = text.lines().find_map(|l| l.strip_prefix("OFFSET(domain.next_in_list)=")).unwrap();
        line.parse().unwrap()
    }
}

const SHAPES: [&[&str]; 2] = [&[], &["-E"]];

fn cut(fixture: &Fixture, id: u16, options: &[&str]) -> std::path::PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = id.to_string();
    let name = format!("dom{id}.{}", COUNT.fetch_add(1, Ordering::Relaxed));
    cut_with(fixture, &name, &[&["--domain", &id], options].concat())
}

#[test]
fn pages_are_the_domains() {
    on_each(|fixture, id, findings| {
        let xen = Xen::open(fixture);
        let memory = xen.memory(id);
        let told = |kind: &str| fixture.json["machine_pages"][format!("domain {id}{kind}")].as_u64().unwrap_or(0);
        findings.check(memory.len() as u64 >= told(""), "the oracle's pages", || memory.len().to_string());
        for shape in SHAPES.into_iter().chain([&["--format", "xc-core"][..]]) {
            let output = open(&cut(fixture, id, &[shape, &["-d", "0"]].concat()));
            let frames = output.frames();
            let expected: BTreeSet<u64> = memory.keys().copied().collect();
            for pfn in frames.symmetric_difference(&expected) {
                findings.add("page too many or too few", format!("{pfn:#x}"));
            }
            for (pfn, mfn) in &memory {
                let same = output.page(*pfn) == xen.machine.page(*mfn);
                findings.check(same, "not the machine's bytes", || format!("{pfn:#x} for {mfn:#x}"));
            }
        }
    });
}

#[test]
fn what_the_guest_filled_is_there() {
    on_each(|fixture, id, findings| {
        let output = open(&cut(fixture, id, &["-d", "1"]));
        let there: HashSet<Vec<u8>> = output.frames().iter().map(|pfn| output.page(*pfn).unwrap().to_vec()).collect();
        // as the guest's init makes them: its name and the page's number, again and again, then dots
        let page = |n: u32| {
            let name = format!("LAB-domu2-PAGE-{n:08};");
            let mut page = name.repeat(PAGE / name.len()).into_bytes();
            page.resize(PAGE, b'.');
            page
        };
        let pages: Vec<Vec<u8>> = (0..512).map(page).collect();
        let ready = fixture.console.lines().find(|l| l.starts_with("LAB-domu2: READY")).unwrap();
        let told = ready.split_whitespace().rev().nth(1).unwrap();
        let is = sha256::first_16_digits(&pages.concat());
        for (n, _) in pages.iter().enumerate().filter(|(_, page)| !there.contains(*page)) {
            findings.add("page missing", n.to_string());
        }
        findings.check(is == hex(&told[..16]), "the guest's own hash", || format!("{is:x} for {told}"));
    });
}

#[test]
fn drgn_sees_the_guest() {
    on_each(|fixture, id, findings| {
        let rip = vmcb_rip(fixture, findings);
        let mut names = Vec::new();
        for options in [&["-d", "1"][..], &["-d", "1", "-E"], &["-d", "31"]] {
            let facts = drgn::ask(fixture, &cut(fixture, id, options));
            let tasks: Vec<(u64, String)> = facts.tasks.iter().map(|t| (t.pid, t.comm.clone())).collect();
            findings.check(tasks.iter().any(|t| t.0 == 1), "no init", || format!("{tasks:?}"));
            findings.check(tasks.iter().any(|t| t.1 == "xenbus"), "no xenbus", || format!("{tasks:?}"));
            for task in facts.tasks.iter().chain(&facts.idle).chain(&facts.on_cpu) {
                let traced = task.error.is_none() && !task.frames.is_empty();
                findings.check(traced, "no trace", || format!("{} {}: {:?}", task.pid, task.comm, task.error));
            }
            let first = facts.on_cpu[0].frames.first().map_or(0, |f| f.pc);
            findings.check(first.wrapping_sub(rip) < 16, "not at rip", || format!("{first:#x} for {rip:#x}"));
            names.push(tasks);
        }
        findings.check(names.windows(2).all(|w| w[0] == w[1]), "tasks differ", || format!("{names:?}"));
        let facts = drgn::ask(fixture, &cut(fixture, id, &["-d", "1"]));
        findings.check(facts.init_magic == "7f454c46", "user memory of init", || facts.init_magic.clone());
    });
}

/// rip of the one VMCB with nested paging in the machine.
fn vmcb_rip(fixture: &Fixture, findings: &mut Findings) -> u64 {
    let machine = Elf::open(&fixture.vmcore);
    let is_vmcb = |page: &[u8]| {
        u64_at(page, 0x558) & 0x8000_0001 == 0x8000_0001
            && u64_at(page, 0x558) >> 32 == 0
            && u64_at(page, 0x4d0) & 0x1400 == 0x1400
            && u64_at(page, 0x90) == 1
            && u64_at(page, 0xb0) != 0
    };
    let pages = machine.frames().into_iter().filter_map(|mfn| machine.page(mfn));
    let rips: Vec<u64> = pages.filter(|p| is_vmcb(&p[..])).map(|p| u64_at(&p[..], 0x578)).collect();
    findings.check(rips.len() == 1, "VMCBs", || format!("{rips:x?}"));
    rips.first().copied().unwrap_or(0)
}

#[test]
fn notes_have_the_vcpu() {
    on_each(|fixture, id, findings| {
        let rip = vmcb_rip(fixture, findings);
        for shape in SHAPES {
            let output = open(&cut(fixture, id, &[shape, &["-d", "1"]].concat()));
            let note = |name: &str| output.notes().iter().find(|n| n.name == name).unwrap().desc.clone();
            let (prstatus, qemu) = (note("CORE"), note("QEMU"));
            let told = u64_at(&prstatus, 112 + 16 * 8);
            findings.check(told.wrapping_sub(rip) < 16, "rip", || format!("{told:#x} for {rip:#x}"));
            findings.check(u64_at(&qemu, 8 + 16 * 8) == told, "QEMU's rip", String::new);
            let cs = u64_at(&prstatus, 112 + 17 * 8);
            findings.check(cs == 0x10, "cs", || format!("{cs:#x}"));
            // selector, limit, flags of cs: 64-bit code
            findings.check(u32_at(&qemu, 152 + 8) == 0xa09b00, "flags of cs", || format!("{:#x}", u32_at(&qemu, 160)));
            findings.check(u64_at(&qemu, 152 + 240) & 1 << 31 != 0, "CR0", String::new);
        }
    });
}

/// crash cannot start on a kernel without machine checks (CONFIG_X86_MCE) whose CPU 0 idles: it reads an exception stack of
/// no size. So only what needs no task is asked for.
#[test]
fn crash_reads_the_log() {
    on_each(|fixture, id, findings| {
        for shape in SHAPES.into_iter().chain([&["--format", "xc-core"][..]]) {
            let path = cut(fixture, id, &[shape, &["-d", "31"]].concat());
            let input = scratch().join("translated.crash");
            std::fs::write(&input, "log\nexit\n").unwrap();
            let mut command = Command::new(tool("crash"));
            command.args(["--minimal", "--no_scroll", "-s"]).arg(fixture.vmlinux()).arg(&path).arg("-i").arg(&input);
            command.env("HOME", scratch());
            let ran = run(&mut command, Duration::from_secs(240));
            let own = ran.stdout.contains("lab.name=domu2") && ran.stdout.contains("Linux version ");
            findings.check(own, "log", || format!("{}\n{:.300}\n{}", ran.status, ran.stdout, ran.stderr));
        }
    });
}
