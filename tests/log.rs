//! The logs that `xdump-cut log` prints of real dumps are those that crash, makedumpfile and drgn see in the cut, and that
//! the machine said on its serial console.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::cut::cut_with;
use support::fixtures::Fixture;
use support::tools::{run, scratch, tool};
use support::{Findings, on_each_fixture};

const LIMIT: Duration = Duration::from_secs(240);

/// What `xdump-cut log` says; warnings are findings, as these dumps lack nothing.
fn log(fixture: &Fixture, options: &[&str], findings: &mut Findings) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.arg("log").arg(&fixture.vmcore).args(options);
    let ran = run(&mut command, LIMIT);
    assert!(ran.status.success(), "{command:?}: {}\n{}", ran.status, ran.stderr);
    findings.check(ran.stderr.is_empty(), "warnings", || format!("{options:?}: {}", ran.stderr));
    findings.check(!ran.stdout.is_empty(), "no log", || format!("{options:?}"));
    ran.stdout
}

/// Every domain of every fixture, PV and PVH: its id, and the domain cut out with zlib, which all readers know.
fn on_each_domain(test: &str, check: impl Fn(&Fixture, &str, &Path, &mut Findings)) {
    on_each_fixture(|fixture, findings| {
        let domains = fixture.json["vcpus"].as_object().unwrap();
        assert!(domains.len() > 1, "{}: no guest", fixture.name);
        for id in domains.keys() {
            let mut found = Findings::default();
            let cut = cut_with(fixture, &format!("{test}.{id}"), &["--domain", id, "--compress", "zlib"]);
            check(fixture, id, &cut, &mut found);
            findings.append(&format!("domain {id}: "), found);
        }
    });
}

/// crash and makedumpfile write a record's further lines behind spaces as wide as the first line's prefix; dmesg, and so
/// we, repeat the prefix. Nothing else is altered.
fn with_prefixes(theirs: &str) -> String {
    let mut prefix = "";
    let mut all = String::new();
    for line in theirs.lines() {
        match line.split_once("] ") {
            Some((time, _)) if line.starts_with('[') => prefix = &line[..time.len() + 2],
            _ => {}
        }
        let more = line.strip_prefix(&*" ".repeat(prefix.len())).filter(|_| !prefix.is_empty());
        all += &more.map_or(line.to_string(), |text| format!("{prefix}{text}"));
        all.push('\n');
    }
    all
}

fn compare(ours: &str, theirs: &str, findings: &mut Findings) {
    findings.check(ours.lines().count() > 100, "short", || format!("{} lines", ours.lines().count()));
    let differs = ours.lines().zip(theirs.lines()).find(|(a, b)| a != b);
    findings.check(ours == theirs, "differs", || {
        format!("{} lines for {}: {differs:?}", ours.lines().count(), theirs.lines().count())
    });
}

#[test]
fn it_is_what_crash_sees_in_the_cut() {
    on_each_domain("crash", |fixture, id, cut, findings| {
        let input = scratch().join(format!("{}.{id}.log.crash", fixture.name));
        std::fs::write(&input, "log\nexit\n").unwrap();
        let mut command = Command::new(tool("crash"));
        // Without --minimal it does not start on one of the guests, see tests/translated.rs.
        command.args(["--minimal", "--no_scroll", "-s"]).arg(fixture.vmlinux()).arg(cut).arg("-i").arg(&input);
        command.env("HOME", scratch());
        let said = run(&mut command, LIMIT).stdout;
        let (note, theirs) = said.split_once("\n\n").expect("a note on minimal mode");
        assert!(note.starts_with("NOTE: minimal mode"), "{note}");
        compare(&log(fixture, &["--domain", id], findings), &with_prefixes(theirs), findings);
    });
}

#[test]
fn it_is_what_makedumpfile_dumps() {
    on_each_domain("makedumpfile", |fixture, id, cut, findings| {
        let out = scratch().join(format!("{}.{id}.dmesg", fixture.name));
        let mut command = Command::new(tool("makedumpfile"));
        command.arg("--dump-dmesg").args([cut, &out]);
        let ran = run(&mut command, LIMIT);
        assert!(ran.status.success(), "{command:?}: {}\n{}", ran.stdout, ran.stderr);
        let theirs = std::fs::read_to_string(out).unwrap();
        compare(&log(fixture, &["--domain", id], findings), &with_prefixes(&theirs), findings);
    });
}

/// With facility and level, as drgn tells them too.
#[test]
fn it_is_what_drgn_sees_in_the_cut() {
    on_each_domain("drgn", |fixture, id, cut, findings| {
        let script: PathBuf = scratch().join("drgn_log.py");
        std::fs::write(&script, include_str!("support/drgn_log.py")).unwrap();
        let mut command = Command::new(tool("drgn"));
        command.args(["-q", "--no-default-symbols", "-c"]).arg(cut).arg("-s").arg(fixture.vmlinux()).arg(&script);
        let ran = run(&mut command, LIMIT);
        assert!(ran.status.success(), "{command:?}: {}\n{}", ran.stdout, ran.stderr);
        compare(&log(fixture, &["--raw", "--domain", id], findings), &ran.stdout, findings);
    });
}

/// dom0's first life on the console: from its banner to the capture kernel's.
fn first_life(fixture: &Fixture) -> &str {
    let from = fixture.console.find(fixture.banner()).unwrap();
    let to = fixture.console.rfind("Linux version ").unwrap();
    assert!(from < to);
    &fixture.console[from..to]
}

/// Each line of dom0's that its console level of 7 lets through is a line of the serial console's, in the same order, if what
/// Xen wrote into the middle of lines is taken out of them.
#[test]
fn the_console_has_every_line_of_dom0s() {
    on_each_fixture(|fixture, findings| {
        let mut said = String::new();
        for line in first_life(fixture).split_inclusive('\n') {
            match line.find("(XEN) ") {
                Some(0) => {}
                Some(at) => said += &line[..at],
                None => said += line,
            }
        }
        // This kernel may print times or not.
        let text = |line: &'_ str| match line.split_once("] ") {
            Some((time, text)) if time.starts_with('[') && time.contains('.') => text.trim_end().to_string(),
            _ => line.trim_end().to_string(),
        };
        let mut console = said.lines().map(text);
        let mut lines = 0;
        for line in log(fixture, &["--raw"], findings).lines() {
            let (priority, rest) = line[1..].split_once('>').unwrap();
            let wanted = text(rest);
            if priority.parse::<u32>().unwrap() & 7 < 7 && !wanted.is_empty() {
                lines += 1;
                findings.check(console.any(|said| said == wanted), "line", || line.to_string());
            }
        }
        findings.check(lines > 200, "lines", || lines.to_string());
    });
}

/// Each `(XEN) ` line of the serial console is one of the ring's, wherever on a console line it begins, and the other way
/// round, in the same order.
#[test]
fn xens_ring_is_what_the_console_has() {
    on_each_fixture(|fixture, findings| {
        let ring = log(fixture, &["--xen"], findings);
        let said = fixture.console.lines().filter_map(|l| Some(&l[l.find("(XEN) ")?..]));
        let said: Vec<&str> = said.map(str::trim_end).collect();
        let kept: Vec<&str> = ring.lines().filter(|l| l.starts_with("(XEN) ")).map(str::trim_end).collect();
        findings.check(kept.len() > 100, "short", || kept.len().to_string());
        let differs = kept.iter().zip(&said).find(|(a, b)| a != b);
        if let Some(syms) = fixture.xen_syms() {
            let by_syms = log(fixture, &["--xen", "--xen-syms", syms.to_str().unwrap()], findings);
            findings.check(by_syms == ring, "differs by xen-syms", String::new);
        }
        findings.check(kept == said, "differs", || format!("{} for {}: {differs:?}", kept.len(), said.len()));
    });
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fixture = &support::fixtures::all()[0];
    for options in [&[][..], &["--xen"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
        command.arg("log").arg(&fixture.vmcore).args(options).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!((out.status.code(), out.stderr.as_slice()), (Some(0), &[][..]));
    }
}

/// The same bytes, however the dump is read and the domain is named.
#[test]
fn other_ways_give_the_same() {
    on_each_fixture(|fixture, findings| {
        let plain = log(fixture, &[], findings);
        for options in [&["--no-mmap"][..], &["--domain", "0"], &["--domain", "Domain-0"]] {
            let other = log(fixture, options, findings);
            findings.check(other == plain, "differs", || format!("{options:?}"));
        }
        let guest = log(fixture, &["--domain", "1"], findings);
        let named = log(fixture, &["--domain", "domu1"], findings);
        findings.check(named == guest, "by name", String::new);
        findings.check(guest.contains("lab.name=domu1"), "another's log", String::new);
    });
}
