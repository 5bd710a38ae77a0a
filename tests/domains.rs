//! Guests of a crashed host, cut out and opened: each has what it said of itself before the end.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::crash::ask_with;
use support::cut::cut_with;
use support::dump::open;
use support::fixtures::Fixture;
use support::tools::{run, scratch};
use support::{Findings, drgn, on_each_fixture, sha256};

/// A guest by its own word on the console: `LAB-domu1: READY MemTotal: 30912 kB DIGEST  -`.
struct Guest {
    name: String,
    total: String,
    digest: String,
}

fn guests(fixture: &Fixture) -> Vec<Guest> {
    let ready = |line: &str| {
        let (name, rest) = line.strip_prefix("LAB-")?.split_once(": READY MemTotal:")?;
        let (total, rest) = rest.trim().split_once(" kB ")?;
        let digest = rest.split_whitespace().next()?;
        Some(Guest { name: name.into(), total: total.into(), digest: digest.into() })
    };
    let mut all: Vec<Guest> = fixture.console.lines().filter_map(ready).collect();
    all.dedup_by(|a, b| a.name == b.name);
    all
}

/// All domains of the fixture, cut with these options: outputs by name, `dom0` for domain 0.
fn cut_all(fixture: &Fixture, name: &str, options: &[&str]) -> BTreeMap<String, PathBuf> {
    let folder = scratch().join(format!("{}.{name}", fixture.name));
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.args(["-f", "--all-domains"]).args(options).arg(&fixture.vmcore).arg(&folder);
    let ran = run(&mut command, Duration::from_secs(300));
    assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
    let entries = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
    let named = |path: PathBuf| {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        (stem.split_once('-').map_or(stem.clone(), |(_, name)| name.to_string()), path)
    };
    entries.map(named).collect()
}

fn on_each_guest(name: &str, options: &[&str], check: impl Fn(&Fixture, &Guest, &Path, &mut Findings)) {
    on_each_fixture(|fixture, findings| {
        let outputs = cut_all(fixture, name, options);
        let guests = guests(fixture);
        assert!(!guests.is_empty(), "{}: no guest says READY", fixture.name);
        findings.check(outputs.len() == guests.len() + 1, "outputs", || format!("{outputs:?}"));
        for guest in guests {
            let Some(output) = outputs.get(&guest.name) else {
                findings.add("guest without an output", guest.name.clone());
                continue;
            };
            check(fixture, &guest, output, findings);
        }
    });
}

/// A page as the guests make them: its owner and number, again and again.
fn pattern(name: &str, number: usize) -> Vec<u8> {
    let text = format!("LAB-{name}-PAGE-{number:08};").into_bytes();
    let mut page: Vec<u8> = text.iter().copied().cycle().take(4096 / text.len() * text.len()).collect();
    page.resize(4096, b'.');
    page
}

/// The file of pages that the guest made and printed the SHA-256 of is in its memory, byte for byte, and no page of another
/// domain's file is.
#[test]
fn a_guests_pages_are_its_own() {
    for (name, options) in
        [("pages.kdump", &["-d", "1"][..]), ("pages.elf", &["-d", "1", "-E"]), ("pages.core", &["--format", "xc-core"])]
    {
        on_each_guest(name, options, |_, guest, output, findings| {
            let dump = open(output);
            let mut whole = BTreeMap::new();
            for frame in dump.frames() {
                let page = dump.page(frame).unwrap();
                let Some(rest) = page.strip_prefix(b"LAB-") else { continue };
                let text: String = rest.iter().take(40).map(|b| char::from(*b)).collect();
                let Some((owner, number)) = text.split_once("-PAGE-") else { continue };
                findings.check(owner == guest.name, "another domain's page", || format!("{}: {text}", guest.name));
                // buffers of the program that made the file have parts of pages
                if let Ok(number) = number[..8].parse::<usize>()
                    && page[..] == pattern(&guest.name, number)[..]
                {
                    whole.insert(number, frame);
                }
            }
            let file: Vec<u8> = (0..whole.len()).flat_map(|n| pattern(&guest.name, n)).collect();
            let digest = sha256::hex(&file);
            findings.check(digest == guest.digest, "digest", || {
                format!("{}: {} pages, {digest}, and the guest said {}", guest.name, whole.len(), guest.digest)
            });
            findings.check(whole.keys().copied().eq(0..whole.len()), "pages missing", || guest.name.clone());
        });
    }
}

/// No page of a guest's file is in dom0's output, which has its own.
#[test]
fn no_guests_page_is_in_dom0s_output() {
    on_each_fixture(|fixture, findings| {
        let dump = open(&cut_with(fixture, "stranger.kdump", &["-d", "1"]));
        let names: Vec<String> = guests(fixture).into_iter().map(|g| g.name).collect();
        let mut own = 0;
        for frame in dump.frames() {
            let page = dump.page(frame).unwrap();
            let guest = names.iter().find(|n| page.starts_with(format!("LAB-{n}-PAGE-").as_bytes()));
            findings.check(guest.is_none(), "a guest's page", || format!("{guest:?} at PFN {frame:#x}"));
            own += usize::from(page.starts_with(b"LAB-dom0-PAGE-"));
        }
        findings.check(own >= 512, "dom0's own pages", || own.to_string());
    });
}

/// drgn sees the guest's processes, and traces each of its CPUs.
#[test]
fn drgn_opens_guests() {
    for (name, options) in [("drgn.kdump", &[][..]), ("drgn.elf", &["-E"])] {
        on_each_guest(name, options, |fixture, guest, output, findings| {
            let facts = drgn::ask(fixture, output);
            let init = facts.tasks.iter().find(|t| t.pid == 1);
            findings.check(init.is_some_and(|t| t.comm == "init"), "init", || guest.name.clone());
            findings.check(facts.tasks.len() > 30, "tasks", || format!("{}: {}", guest.name, facts.tasks.len()));
            for task in &facts.on_cpu {
                let last = task.frames.last().map(|f| f.name.as_str());
                findings.check(task.frames.len() > 2, "trace", || format!("{}: {task:?} {last:?}", guest.name));
            }
        });
    }
}

/// All that crash says when it does not start on a small kernel with an exception stack of size 0, whose CPU 0 is idle:
/// its own mistake, on any dump of such a kernel. Debian's kernels do not have it.
const SIZELESS: [&str; 2] =
    ["invalid size request: 0  type: \"stack contents\"", "read of stack at fffffe0000014000 failed"];

/// crash sees the guest's own memory size and its first process, and its log tells of the guest.
#[test]
fn crash_opens_guests() {
    let (opened, minimal) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    for (name, options) in [("crash.kdump", &[][..]), ("crash.elf", &["-E"]), ("crash.core", &["--format", "xc-core"])]
    {
        on_each_guest(name, options, |fixture, guest, output, findings| {
            let commands = ["sys", "ps", "bt -a", "log", "kmem -i"];
            // no guest panicked
            let session = match ask_with(&["--no_panic"], fixture.vmlinux(), output, &commands) {
                Ok(session) => session,
                Err(said) => {
                    let known = |line: &str| SIZELESS.iter().any(|w| line == format!("crash: {w}"));
                    let only = said.lines().filter(|l| !l.trim().is_empty()).all(known);
                    findings.check(only, "crash does not start", || format!("{}: {said}", guest.name));
                    // without its look at stacks it does
                    let log = match ask_with(&["--minimal"], fixture.vmlinux(), output, &["log"]) {
                        Ok(session) => session.all,
                        Err(said) => said,
                    };
                    let own = format!("lab.name={}", guest.name);
                    findings.check(log.contains(&own), "log", || format!("{}: {log:.300}", guest.name));
                    minimal.set(minimal.get() + 1);
                    return;
                }
            };
            opened.set(opened.get() + 1);
            let init = session.processes("ps").into_iter().find(|p| p.pid == 1);
            findings.check(init.is_some_and(|p| p.comm == "init"), "init", || session.answer("ps").to_string());
            let log = session.answer("log");
            let own = format!("lab.name={}", guest.name);
            findings.check(log.contains(&own), "log", || format!("{}: {log:.300}", guest.name));
            let total = session.answer("kmem -i").lines().find_map(|l| l.trim_start().strip_prefix("TOTAL MEM"));
            let pages = total.and_then(|t| t.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
            findings.check((pages * 4).to_string() == guest.total, "TOTAL MEM", || {
                format!("{}: {} kB, and it said {}", guest.name, pages * 4, guest.total)
            });
            findings.check(!session.traces("bt -a").is_empty(), "bt -a", || session.answer("bt -a").to_string());
        });
    }
    eprintln!("crash opened {} outputs of guests, and {} without their stacks", opened.get(), minimal.get());
    assert!(opened.get() + minimal.get() > 0, "crash opened no guest at all");
}

/// A guest is found by number and by name, and what is not there is told from what is.
#[test]
fn a_domain_is_chosen_by_number_or_name() {
    on_each_fixture(|fixture, findings| {
        let outputs = cut_all(fixture, "chosen", &[]);
        for guest in guests(fixture) {
            let Some(output) = outputs.get(&guest.name) else { continue };
            let stem = output.file_stem().unwrap().to_string_lossy().into_owned();
            let id = stem.trim_start_matches("dom").split('-').next().unwrap().to_string();
            for which in [&id, &guest.name] {
                let alone = cut_with(fixture, &format!("chosen.{which}.kdump"), &["--domain", which]);
                let same = std::fs::read(&alone).unwrap() == std::fs::read(output).unwrap();
                findings.check(same, "not the same file", || format!("{} as {which}", guest.name));
            }
        }
        let dom0 = cut_with(fixture, "chosen.0.kdump", &["--domain", "Domain-0"]);
        let same = std::fs::read(dom0).unwrap() == std::fs::read(&outputs["dom0"]).unwrap();
        findings.check(same, "not the same file", || "Domain-0".into());
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
        command.args(["-q", "--domain", "nobody"]).arg(&fixture.vmcore).arg(scratch().join("nobody.kdump"));
        let ran = run(&mut command, Duration::from_secs(60));
        let said = ran.stderr.contains("nobody") && guests(fixture).iter().all(|g| ran.stderr.contains(&g.name));
        findings.check(ran.status.code() == Some(2) && said, "the error", || ran.stderr.clone());
    });
}
