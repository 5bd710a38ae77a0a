//! The machine layout in the real readers: crash and makedumpfile take it for the full dump, and see the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::crash::{Session, ask};
use support::cut::cut_with;
use support::dump::{self, Dump};
use support::elf::Elf;
use support::fixtures::Fixture;
use support::tools::{run, scratch, tool};
use support::truth::Truth;
use support::{Findings, on_each_fixture};

/// The formats, with and without Xen's memory; zlib, as not every makedumpfile knows zstd.
const FORMS: [(&str, &[&str]); 4] = [
    ("elf", &["-E"]),
    ("kdump", &["--compress", "zlib"]),
    ("xen-elf", &["-E", "--keep-xen"]),
    ("xen-kdump", &["--compress", "zlib", "--keep-xen"]),
];

fn cut(fixture: &Fixture, name: &str, form: &[&str], level: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let options: Vec<&str> = ["--layout", "machine", "-d", level].iter().chain(form).copied().collect();
    // tests of one process may want the same
    cut_with(fixture, &format!("machine-{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)), &options)
}

#[test]
fn frames_are_the_domains_and_xens_and_no_others() {
    on_each_fixture(|fixture, findings| {
        let truth = Truth::read(fixture);
        let own: BTreeSet<u64> = truth.lines.values().map(|line| line.mfn).collect();
        let count = |key: &str| fixture.json["machine_pages"][key].as_u64().unwrap_or(0) as usize;
        let heap = |domain: u64| count(&format!("domain {domain} (Xen heap)"));
        // the truth counts frames, of which the last before the BIOS's is in the dump in part only
        let parts = Elf::open(&fixture.vmcore).loads.iter().filter(|l| (l.paddr + l.memsz) % 4096 != 0).count();
        let domains = fixture.json["domains"].as_array().unwrap();
        let heaps: usize = domains.iter().map(|id| heap(id.as_u64().unwrap())).sum();
        let of_xen = count("Xen or other") + heaps - parts;
        for (name, form) in FORMS {
            let path = cut(fixture, name, form, "1");
            let out = dump::open(&path);
            let frames = out.frames();
            let lost: Vec<_> = own.difference(&frames).collect();
            findings.check(lost.is_empty(), "lost", || format!("{name}: {lost:x?}"));
            let others: Vec<u64> = frames.difference(&own).copied().collect();
            let right = if name.starts_with("xen") { others.len() == of_xen } else { others.len() == heap(0) };
            findings.check(right, "Xen's frames", || format!("{name}: {} for {of_xen} or {}", others.len(), heap(0)));
            for &mfn in &frames {
                let (is, was) = (out.page(mfn).unwrap(), truth.machine_page(mfn).unwrap());
                findings.check(is == was, "page differs", || format!("{name}: {mfn:#x}"));
            }
            // what guests fill their memory with
            let told = others.iter().filter(|mfn| out.page(**mfn).unwrap().starts_with(b"LAB-"));
            told.for_each(|mfn| findings.add("a guest's page", format!("{name}: {mfn:#x}")));
            std::fs::remove_file(path).unwrap();
        }
    });
}

#[test]
fn notes_are_the_full_dumps_and_two_more() {
    on_each_fixture(|fixture, findings| {
        let full = Elf::open(&fixture.vmcore);
        for (name, form) in FORMS {
            let out = dump::open(&cut(fixture, name, form, "31"));
            let (notes, more) = out.notes().split_at(full.notes().len());
            findings.check(notes == full.notes(), "notes", || format!("{name}: {notes:x?}"));
            let names: Vec<&str> = more.iter().map(|note| note.name.as_str()).collect();
            findings.check(names == ["VMCOREINFO", "XDUMPCUT"], "added notes", || format!("{name}: {names:?}"));
        }
    });
}

#[test]
fn crash_sees_what_it_sees_in_the_full_dump() {
    const COMMANDS: [&str; 5] = ["sys", "ps", "bt -a", "log", "mod"];
    on_each_fixture(|fixture, findings| {
        let full = ask(fixture.vmlinux(), &fixture.vmcore, &COMMANDS);
        findings.check(full.processes("ps").len() > 20, "full dump", || full.all.clone());
        for (name, form) in FORMS {
            let asked = ask(fixture.vmlinux(), &cut(fixture, name, form, "31"), &COMMANDS);
            same(name, &COMMANDS, &full, &asked, findings);
        }
    });
}

fn same(name: &str, commands: &[&str], full: &Session, asked: &Session, findings: &mut Findings) {
    let plain = |text: &str| text.lines().filter(|line| !line.contains("DUMPFILE:")).collect::<Vec<_>>().join("\n");
    for command in commands {
        let (is, was) = (plain(asked.answer(command)), plain(full.answer(command)));
        findings.check(is == was, command, || format!("{name}: {is}\ninstead of\n{was}"));
    }
}

#[test]
fn crash_sees_the_hypervisor_of_the_full_dump() {
    const COMMANDS: [&str; 7] = ["sys", "doms", "domain", "vcpus", "pcpus", "bt -a", "log"];
    on_each_fixture(|fixture, findings| {
        // Debian 12's has no DWARF, without which crash does not start
        let Some(symbols) = fixture.xen_syms().and_then(|path| known_to_crash(fixture, &path)) else { return };
        let full = ask(&symbols, &fixture.vmcore, &COMMANDS);
        let domains = fixture.json["domains"].as_array().unwrap().len();
        // DOMID_IO, DOMID_XEN and the idle domain besides
        let listed = full.answer("doms").lines().skip(1).filter(|line| !line.trim().is_empty()).count();
        findings.check(listed == domains + 3, "full dump", || full.answer("doms").to_string());
        for (name, form) in FORMS.into_iter().filter(|form| form.0.starts_with("xen")) {
            let asked = ask(&symbols, &cut(fixture, name, form, "31"), &COMMANDS);
            same(name, &COMMANDS, &full, &asked, findings);
        }
    });
}

/// crash 8.0.6 looks for the scheduler in a variable, and for a vCPU's shared information in a member, that Xen 4.20 calls
/// otherwise; the symbols are given the names that it knows. By the name of their file it sees what they are.
fn known_to_crash(fixture: &Fixture, symbols: &Path) -> Option<PathBuf> {
    let mut bytes = std::fs::read(symbols).unwrap();
    let find = |bytes: &[u8], name: &[u8]| bytes.windows(name.len()).position(|window| window == name);
    find(&bytes, b".debug_info\0")?;
    for (is, known) in
        [(&b"\0operations\0"[..], &b"\0ops\0ations\0"[..]), (b"\0vcpu_info_area\0", b"\0vcpu_info\0area\0")]
    {
        while let Some(at) = find(&bytes, is) {
            bytes[at..at + known.len()].copy_from_slice(known);
        }
    }
    let path = scratch().join(format!("xen-syms.{}", fixture.name));
    std::fs::write(&path, bytes).unwrap();
    Some(path)
}

#[test]
fn makedumpfile_filters_it_as_a_xen_dump() {
    on_each_fixture(|fixture, findings| {
        let from = cut(fixture, "xen-elf", &["-E", "--keep-xen"], "31");
        let own = dump::open(&from);
        for format in ["-E", "-c"] {
            let to = scratch().join(format!("{}.machine-refiltered", fixture.name));
            let mut command = Command::new(tool("makedumpfile"));
            command.args(["-f", "-X", "-d", "1", format]).args([&from, &to]);
            let ran = run(&mut command, Duration::from_secs(240));
            findings
                .check(ran.status.success(), "makedumpfile -X", || format!("{format}: {} {}", ran.stdout, ran.stderr));
            if format == "-E" {
                continue; // it leaves zero pages out there, which crash then misses
            }
            let more: Vec<u64> = dump::open(&to).frames().difference(&own.frames()).copied().collect();
            findings.check(more.is_empty(), "frames out of nothing", || format!("{more:x?}"));
            let asked = ask(fixture.vmlinux(), &to, &["ps"]);
            same(format, &["ps"], &ask(fixture.vmlinux(), &from, &["ps"]), &asked, findings);
        }
        // the kernel's log takes its VMCOREINFO, which a full Xen dump has not
        let log = scratch().join(format!("{}.machine-log", fixture.name));
        let mut command = Command::new(tool("makedumpfile"));
        let ran = run(command.args(["-f", "--dump-dmesg"]).args([&from, &log]), Duration::from_secs(240));
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let whole = ran.status.success() && said.contains(fixture.banner());
        findings.check(whole, "makedumpfile --dump-dmesg", || format!("{} {}", ran.stdout, ran.stderr));
    });
}

#[test]
fn a_cut_with_xen_can_be_cut_again() {
    on_each_fixture(|fixture, findings| {
        let (first, last) = (cut(fixture, "xen-elf", &["-E", "--keep-xen"], "1"), cut_with(fixture, "native", &["-E"]));
        let again = scratch().join(format!("{}.again", fixture.name));
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
        let ran = run(command.args([&first, &again]).arg("-E"), Duration::from_secs(300));
        assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
        let (is, was) = (Elf::open(&again), Elf::open(&last));
        findings.check(is.frames() == was.frames(), "frames", || {
            format!("{} for {}", is.frames().len(), was.frames().len())
        });
        for pfn in was.frames() {
            findings.check(is.page(pfn) == was.page(pfn), "page differs", || format!("{pfn:#x}"));
        }
        let vcpus = |elf: &Elf| elf.notes().iter().filter(|n| n.name != "XDUMPCUT").cloned().collect::<Vec<_>>();
        findings.check(vcpus(&is) == vcpus(&was), "notes", String::new);
    });
}
