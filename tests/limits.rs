//! Cuts that are held to memory or time, or end early: what they take, and what is left of them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::crash::ask_all;
use support::cut::{Shape, cut, cut_with};
use support::dump;
use support::fixtures::{self, Fixture};
use support::tools::{peak, run, scratch};
use support::{Findings, on_each_fixture};

const LIMIT: Duration = Duration::from_secs(300);
const MIB: u64 = 1 << 20;
/// Slow ways to write a dump: there is time to stop them.
const SLOW: [&str; 5] = ["-d", "1", "--threads", "1", "--compress=zstd:9"];
const SLOWEST: [&str; 5] = ["-d", "1", "--threads", "1", "--compress=zstd:19"];

fn sample() -> &'static Fixture {
    fixtures::all().iter().find(|f| f.name == "xen-4.17-linux-6.12-panic").expect("the panic fixture of testdata")
}

fn file(fixture: &Fixture, name: &str) -> PathBuf {
    scratch().join(format!("{}.{name}", fixture.name))
}

fn xdump_cut(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.args(args);
    command
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}

#[test]
fn memory_is_kept_to_and_changes_nothing() {
    on_each_fixture(|fixture, findings| {
        let vmcore = fixture.vmcore.to_str().unwrap();
        for (shape, options) in [(Shape::Kdump, &["-d", "1"][..]), (Shape::Elf, &["-d", "1", "-E"])] {
            let plain = cut(fixture, shape);
            for (limit, threads) in [(16, "1"), (32, "4"), (64, "16")] {
                let out = file(fixture, &format!("{shape:?}.{limit}"));
                let limit_arg = format!("{limit}M");
                let args = ["-q", "-f", "--memory", &limit_arg, "--threads", threads, vmcore, out.to_str().unwrap()];
                let mut child = xdump_cut(options).args(args).spawn().unwrap();
                let most = peak(&mut child);
                // The tests' build of the program itself is larger.
                findings.check(most <= (limit + 4) * MIB, "memory", || {
                    format!("{shape:?}: {} KiB with --memory {limit}M, {threads} threads", most / 1024)
                });
                findings.check(same(&plain, &out), "the output", || format!("{shape:?} with --memory {limit}M"));
                std::fs::remove_file(out).unwrap();
            }
        }
    });
}

fn none(findings: Findings) {
    let lines = findings.into_lines(&sample().name);
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

/// Waits until there is something of the output.
fn wait_for(path: &Path, bytes: u64) {
    let started = Instant::now();
    while path.metadata().map_or(0, |m| m.len()) < bytes {
        assert!(started.elapsed() < LIMIT, "{} does not grow", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file that ended early: its writer's own word, and pages that are those of the whole one.
fn is_sound(fixture: &Fixture, left: &Path, why: &str, said: &str, findings: &mut Findings) {
    findings.check(said.contains("output is incomplete") && said.contains(why), "what is said", || said.to_owned());
    let (all, some) = (dump::open(&cut(fixture, Shape::Kdump)), dump::open(left));
    let there: Vec<u64> = some.frames().into_iter().filter(|f| some.is_there(*f)).collect();
    findings.check(!there.is_empty(), "pages", || "none".into());
    let differs = there.iter().find(|frame| some.page(**frame) != all.page(**frame));
    findings.check(differs.is_none(), "pages", || format!("PFN {:x?} differs", differs));
}

/// crash's answers.
fn answers(fixture: &Fixture, dump: &Path) -> Result<[String; 3], String> {
    let questions = ["ps", "bt -a", "mod"];
    let session = ask_all(&[], fixture.vmlinux(), &[dump], &questions).map_err(|e| format!("{e:.1000}"))?;
    Ok(questions.map(|q| session.answer(q).to_owned()))
}

/// One that has all of the kernel's own pages.
fn is_worth_having(fixture: &Fixture, left: &Path, why: &str, said: &str, findings: &mut Findings) {
    is_sound(fixture, left, why, said, findings);
    let (is, should) = (answers(fixture, left), answers(fixture, &cut(fixture, Shape::Kdump)));
    findings.check(is == should, "crash", || format!("{why}: {is:?}\nfor\n{should:?}"));
}

#[test]
fn a_signal_leaves_what_there_is() {
    let (fixture, mut findings) = (sample(), Findings::default());
    let vmcore = fixture.vmcore.to_str().unwrap();
    for signal in ["TERM", "INT", "HUP"] {
        let (out, left) = (file(fixture, "stopped"), file(fixture, "stopped.incomplete"));
        let child = xdump_cut(&SLOW);
        // Whoever starts the tests may have signals ignored.
        let child = Command::new("env")
            .arg("--default-signal")
            .arg(child.get_program())
            .args(child.get_args())
            .args(["-q", vmcore, out.to_str().unwrap()])
            .stderr(Stdio::piped())
            .spawn();
        let child = child.unwrap();
        // The kernel's own take 7 MiB.
        wait_for(&left, 9 * MIB);
        let kill = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(3), "{signal}: {done:?}");
        assert!(!out.exists());
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        is_worth_having(fixture, &left, &format!("stopped: by SIG{signal}"), &said, &mut findings);
        std::fs::remove_file(left).unwrap();
    }
    none(findings);
}

#[test]
fn time_is_kept_to() {
    let (fixture, mut findings) = (sample(), Findings::default());
    let (out, left) = (file(fixture, "late"), file(fixture, "late.incomplete"));
    let args = ["-q", "--timeout", "2s", fixture.vmcore.to_str().unwrap(), out.to_str().unwrap()];
    let started = Instant::now();
    let ran = run(xdump_cut(&SLOWEST).args(args), LIMIT);
    assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    is_sound(fixture, &left, "the 2 s of --timeout are over", &ran.stderr, &mut findings);
    std::fs::remove_file(left).unwrap();
    none(findings);
}

/// What the kernel needs for itself comes first: crash opens a file without its end as any other.
#[test]
fn the_kernels_pages_come_first() {
    on_each_fixture(|fixture, findings| {
        for (level, share) in [("0", 50), ("1", 70), ("31", 95)] {
            let whole = cut_with(fixture, &format!("d{level}"), &["-d", level]);
            let limit = (whole.metadata().unwrap().len() * share / 100).to_string();
            let (out, left) = (file(fixture, "begun"), file(fixture, "begun.incomplete"));
            let vmcore = fixture.vmcore.to_str().unwrap();
            let ran = run(xdump_cut(&["-q", "-d", level, "-L", &limit, vmcore]).arg(&out), LIMIT);
            assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
            let (is, should) = (answers(fixture, &left), answers(fixture, &whole));
            // At the highest level there is nothing but the kernel's own: some tasks are missing, but what CPUs did is there.
            let frames = |answers: &Result<[String; 3], String>| {
                answers.as_ref().map(|a| a[1].lines().filter(|l| l.trim_start().starts_with('#')).count()).ok()
            };
            let same = is == should || (level == "31" && is.is_ok() && frames(&is) == frames(&should));
            findings.check(same, "crash", || format!("-d {level}, {share} %: {is:?}\nfor\n{should:?}"));
            std::fs::remove_file(left).unwrap();
        }
    });
}

#[test]
fn logs_are_saved_first() {
    on_each_fixture(|fixture, findings| {
        let vmcore = fixture.vmcore.to_str().unwrap();
        let (out, log, xen) = (file(fixture, "logged"), file(fixture, "dmesg"), file(fixture, "xen-dmesg"));
        let (log_arg, xen_arg) = (log.to_str().unwrap(), xen.to_str().unwrap());
        let told = |args: &[&str]| run(xdump_cut(&["log"]).args(args).arg(vmcore), LIMIT).stdout;
        let args = ["-q", "-d", "1", "--dump-dmesg", log_arg, "--dump-xen-dmesg", xen_arg, vmcore];
        let ran = run(xdump_cut(&args).arg(&out), LIMIT);
        assert!(ran.status.success(), "{}", ran.stderr);
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        findings.check(text(&log) == told(&[]) && !text(&log).is_empty(), "the kernel's", || text(&log));
        findings.check(text(&xen) == told(&["--xen"]) && !text(&xen).is_empty(), "Xen's", || text(&xen));
        findings.check(same(&out, &cut(fixture, Shape::Kdump)), "the cut", || "differs".into());
        // makedumpfile's form: two names, and the log alone.
        let before = text(&log);
        let ran = run(&mut xdump_cut(&["-q", "--dump-dmesg", vmcore, log_arg]), LIMIT);
        assert!(ran.status.code() == Some(2) && ran.stderr.contains("exists"), "{}", ran.stderr);
        let ran = run(&mut xdump_cut(&["-q", "-f", "--dump-dmesg", vmcore, log_arg]), LIMIT);
        assert!(ran.status.success() && text(&log) == before, "{}", ran.stderr);
        for path in [out, log, xen] {
            std::fs::remove_file(path).unwrap();
        }
    });
}

/// The log is worth little beside the dump.
#[test]
fn a_log_that_cannot_be_saved_keeps_nobody_from_the_cut() {
    let fixture = sample();
    let out = file(fixture, "unlogged");
    let vmcore = fixture.vmcore.to_str().unwrap();
    let ran = run(xdump_cut(&["-q", "-d", "1", "--dump-dmesg", "/nowhere/dmesg", vmcore]).arg(&out), LIMIT);
    assert!(ran.status.success() && ran.stderr.contains("warning: the kernel log: "), "{}", ran.stderr);
    assert!(same(&out, &cut(fixture, Shape::Kdump)));
    std::fs::remove_file(out).unwrap();
    let ran = run(&mut xdump_cut(&["-q", "--dump-dmesg", vmcore, "/nowhere/dmesg"]), LIMIT);
    assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
}

/// Beyond `ulimit -f` the system says SIGXFSZ before it says that there is no room.
#[test]
fn a_limit_of_the_shell_is_a_full_disk() {
    let (fixture, mut findings) = (sample(), Findings::default());
    let (out, left) = (file(fixture, "ulimited"), file(fixture, "ulimited.incomplete"));
    let script = format!("ulimit -f {}; exec \"$@\"", 9 << 10);
    let program = env!("CARGO_BIN_EXE_xdump-cut");
    let args = ["-c", &script, "bash", program, "-q", "-d", "1", fixture.vmcore.to_str().unwrap()];
    let ran = run(Command::new("bash").args(args).arg(&out), LIMIT);
    assert_eq!(ran.status.code(), Some(3), "{} {}", ran.status, ran.stderr);
    is_worth_having(fixture, &left, "File too large", &ran.stderr, &mut findings);
    std::fs::remove_file(left).unwrap();
    none(findings);
}
