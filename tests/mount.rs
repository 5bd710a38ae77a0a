//! Cuts and full dumps as files of a mounted folder: the bytes that a cut would have, in the real readers, and how it ends.
//! Needs /dev/fuse, and root or fusermount3.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "mount")]

mod support;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::crash::ask_with;
use support::cut::cut_with;
use support::dump::open;
use support::fixtures::{self, Fixture};
use support::tools::{Ran, run, scratch, tool};
use support::{Findings, drgn, on_each_fixture};

const PART: usize = 1 << 20;

fn program() -> Command {
    let fuse = "FUSE is needed: /dev/fuse (modprobe fuse; in a container, --device /dev/fuse --cap-add SYS_ADMIN), and \
                root or fusermount3 (.ci/tools)";
    assert!(Path::new("/dev/fuse").exists(), "{fuse}");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let helper = std::env::split_paths(&path).any(|dir| dir.join("fusermount3").exists());
    assert!(rustix::process::geteuid().is_root() || helper, "{fuse}");
    // Signals that whoever started the tests ignores, as nohup does, would be ignored on.
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(env!("CARGO_BIN_EXE_xdump-cut"));
    command
}

fn new_name(what: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    scratch().join(format!("{what}-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// A mounted folder; unmounted when it is dropped, whatever became of the test.
struct Mounted {
    dir: PathBuf,
    said: PathBuf,
    child: Child,
}

impl Mounted {
    fn new(options: &[&str], dumps: &[&Path]) -> Self {
        let dir = new_name("mount");
        std::fs::create_dir(&dir).unwrap();
        let said = dir.with_extension("err");
        let device = dir.metadata().unwrap().dev();
        let mut command = program();
        command.arg("mount").args(options).args(dumps).arg(&dir).stderr(File::create(&said).unwrap());
        let mounted = Self { child: command.spawn().unwrap(), dir, said };
        mounted.until("mounted", |m| m.dir.metadata().is_ok_and(|meta| meta.dev() != device));
        mounted
    }

    fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is(self) {
            assert!(start.elapsed() < Duration::from_secs(60), "not {what}: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(&self.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    fn is_mounted(&self) -> bool {
        std::fs::read_to_string("/proc/self/mounts").unwrap().contains(self.dir.to_str().unwrap())
    }

    /// Its status, within a moment.
    fn ended(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it did not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(rustix::process::Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// What zstd makes of a file.
fn plain(packed: &Path) -> impl Read {
    zstd::stream::read::Decoder::new(File::open(packed).unwrap()).unwrap()
}

/// Where two streams begin to differ, in parts.
fn difference(mut one: impl Read, mut other: impl Read) -> Option<usize> {
    let part = |from: &mut dyn Read| {
        let mut part = Vec::with_capacity(PART);
        from.take(PART as u64).read_to_end(&mut part).unwrap();
        part
    };
    (0..).find_map(|n| match (part(&mut one), part(&mut other)) {
        (a, b) if a.is_empty() && b.is_empty() => Some(None),
        (a, b) => (a != b).then_some(Some(n)),
    })?
}

/// Where a file ends, by reading.
fn end(path: &Path) -> u64 {
    let (file, mut at, mut buf) = (File::open(path).unwrap(), 0, vec![0; PART]);
    loop {
        match file.read_at(&mut buf, at).unwrap() {
            0 => return at,
            n => at += n as u64,
        }
    }
}

/// Each domain of a full dump is, byte for byte, the ELF file that a cut of level 0 makes of it, or of another level that leaves
/// out no zero pages; and the file of a cut in seekable zstd is what zstd makes of it.
#[test]
fn domains_are_the_elf_files_that_a_cut_makes() {
    on_each_fixture(|fixture, findings| {
        // One dump will do for the other level.
        let levels = if fixture.name == fixtures::all()[0].name { &["0", "30"][..] } else { &["0"] };
        for level in levels {
            let folder = new_name("all");
            let mut command = program();
            command.args(["-q", "--all-domains", "--format", "elf.zst", "-d", level]).arg(&fixture.vmcore).arg(&folder);
            let ran = run(&mut command, Duration::from_secs(300));
            assert!(ran.status.success(), "{command:?}: {}", ran.stderr);
            let mounted = Mounted::new(&["-d", level], &[&fixture.vmcore]);
            let files = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
            let mut names = Vec::new();
            for packed in files {
                let name = packed.file_name().unwrap().to_str().unwrap().strip_suffix(".elf.zst").unwrap().to_string();
                let file = mounted.file(&name);
                let at = difference(plain(&packed), File::open(&file).unwrap());
                findings.check(at.is_none(), "domain", || format!("level {level}, {name}: MiB {at:?}"));
                let (end, len) = (end(&file), file.metadata().unwrap().len());
                findings.check(end == len, "size", || format!("{name}: {len} for {end}"));
                let cut = Mounted::new(&[], &[&packed]);
                findings.check(cut.names() == ["vmcore"], "names", || format!("{:?}", cut.names()));
                let at = difference(plain(&packed), File::open(cut.file("vmcore")).unwrap());
                findings.check(at.is_none(), "elf.zst", || format!("{name}: MiB {at:?}"));
                names.push(name);
            }
            names.sort();
            findings.check(mounted.names() == names, "names", || format!("{:?} for {names:?}", mounted.names()));
            std::fs::remove_dir_all(&folder).unwrap();
        }
    });
}

/// A cut in the kdump format, split and flattened too, has the pages and notes that it has as an ELF file.
#[test]
fn kdump_cuts_are_shown_as_elf() {
    on_each_fixture(|fixture, findings| {
        let levels = if fixture.name == fixtures::all()[0].name { &["1", "31"][..] } else { &["31"] };
        for level in levels {
            let elf = open(&cut_with(fixture, "known.elf", &["-f", "-E", "-d", level]));
            let whole = cut_with(fixture, "shown.kdump", &["-f", "-d", level]);
            let flat = cut_with(fixture, "shown.flat", &["-f", "-F", "-d", level]);
            let stem = scratch().join(format!("{}.shown", fixture.name));
            let mut command = program();
            command.args(["-q", "-f", "--split", "2", "-d", level]).arg(&fixture.vmcore).arg(&stem);
            assert!(run(&mut command, Duration::from_secs(300)).status.success());
            let parts = ["1", "2"].map(|n| PathBuf::from(format!("{}.{n}", stem.display())));
            let forms: [(&str, &[&str], Vec<&Path>); 3] = [
                ("whole", &[], vec![&whole]),
                ("flattened", &["--no-mmap"], vec![&flat]),
                ("split", &["--split"], parts.iter().map(PathBuf::as_path).collect()),
            ];
            for (form, options, dumps) in forms {
                let mounted = Mounted::new(options, &dumps);
                let shown = open(&mounted.file("vmcore"));
                findings.check(shown.notes() == elf.notes(), "notes", || format!("{form}, level {level}"));
                findings.check(shown.frames() == elf.frames(), "frames", || format!("{form}, level {level}"));
                for frame in elf.frames() {
                    let same = shown.page(frame) == elf.page(frame);
                    findings.check(same, "page", || format!("{form}, level {level}: {frame:#x}"));
                }
            }
        }
    });
}

/// crash and drgn see in mounted files what they see in the ELF file that was written: of cuts, of dom0 in the full dump.
#[test]
fn readers_see_the_same_in_mounted_files() {
    on_each_fixture(|fixture, findings| {
        let commands = ["ps", "bt -a", "mod", "log", "kmem -i", "vm 1"];
        let ask = |dump: &Path| ask_with(&[], fixture.vmlinux(), dump, &commands).unwrap();
        let written = cut_with(fixture, "written.elf", &["-E", "-d", "1"]);
        let (session, facts) = (ask(&written), format!("{:?}", drgn::ask(fixture, &written)));
        let kdump = cut_with(fixture, "mounted.kdump", &["-d", "1"]);
        let zst = cut_with(fixture, "mounted.elf.zst", &["-d", "1"]);
        for (dump, name) in [(&kdump, "vmcore"), (&zst, "vmcore"), (&fixture.vmcore, "dom0")] {
            let mounted = Mounted::new(&[], &[dump]);
            let file = mounted.file(name);
            let shown = ask(&file);
            for command in commands {
                let (is, told) = (shown.answer(command), session.answer(command));
                findings.check(is == told, command, || format!("{}: {is:.300}, not {told:.300}", dump.display()));
            }
            let is = format!("{:?}", drgn::ask(fixture, &file));
            findings.check(is == facts, "drgn", || format!("{}: {is:.300}, not {facts:.300}", dump.display()));
        }
    });
}

/// The guests of a full dump, PV and PVH, all at once beside each other.
#[test]
fn readers_open_every_guest_at_once() {
    on_each_fixture(|fixture, findings| {
        let mounted = Mounted::new(&["--cache", "8M"], &[&fixture.vmcore]);
        let guests: Vec<String> = mounted.names().into_iter().filter(|name| name != "dom0").collect();
        findings.check(!guests.is_empty(), "no guest", String::new);
        std::thread::scope(|scope| {
            let ask = |name: &str| {
                let id = name.trim_start_matches("dom").split('-').next().unwrap().to_string();
                let written = cut_with(fixture, &format!("{name}.elf"), &["-E", "-d", "1", "--domain", &id]);
                let [is, told] = [mounted.file(name), written].map(|dump| {
                    // crash starts with none of its stacks on some: tests/domains.rs
                    let log = ask_with(&["--minimal"], fixture.vmlinux(), &dump, &["log"]).unwrap().all;
                    let own = log.lines().filter(|line| line.starts_with('[')).collect::<Vec<_>>().join("\n");
                    (format!("{:?}", drgn::ask(fixture, &dump)), own)
                });
                (is == told && told.1.contains("Linux version"), is)
            };
            let asked: Vec<_> = guests.iter().map(|name| (name, scope.spawn(move || ask(name)))).collect();
            for (name, asked) in asked {
                let (same, is) = asked.join().unwrap();
                findings.check(same, "guest", || format!("{name}: {is:.600?}"));
            }
        });
    });
}

fn with_command(fixture: &Fixture, temp: &Path, options: &[&str], words: &[&str]) -> Ran {
    let mut command = program();
    command.arg("mount").args(options).arg(&fixture.vmcore).arg("--").args(words).env("TMPDIR", temp);
    run(&mut command, Duration::from_secs(240))
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn a_command_runs_on_it_and_nothing_is_left() {
    let (fixture, temp) = (&fixtures::all()[0], new_name("temp"));
    std::fs::create_dir(&temp).unwrap();
    let script = new_name("script");
    std::fs::write(&script, "ps\nexit\n").unwrap();
    let (crash, vmlinux) = (tool("crash"), fixture.vmlinux().to_str().unwrap().to_string());
    let words = [crash.to_str().unwrap(), "--no_scroll", "-s", &vmlinux, "{}", "-i", script.to_str().unwrap()];
    let ran = with_command(fixture, &temp, &[], &words);
    assert!(ran.status.success() && ran.stdout.contains("swapper/0"), "{}\n{}", ran.stdout, ran.stderr);
    assert!(is_empty(&temp));
    for (options, words, code, said) in [
        (&[][..], &["sh", "-c", "test -r {} && exit 7"][..], 7, ""),
        (&["--domain", "0"], &["sh", "-c", "test {} = $1 && test ${1##*/} = dom0 && exit 8", "-", "{}"], 8, ""),
        (&["--domain", "1"], &["sh", "-c", "case {} in */dom1-*) exit 9; esac"], 9, ""),
        (&["--domain", "9"], &["true", "{}"], 2, "no domain 9"),
        (&[], &["sh", "-c", "kill -KILL $$ # {}"], 137, ""),
        (&[], &["no such command", "{}"], 127, "no such command"),
        (&[], &["true"], 2, "no {} in the command"),
    ] {
        let ran = with_command(fixture, &temp, options, words);
        assert_eq!(ran.status.code(), Some(code), "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said) && ran.stderr.is_empty() == said.is_empty(), "{words:?}: {}", ran.stderr);
        assert!(is_empty(&temp), "{words:?}");
    }
    // Standard input is the command's.
    let mut command = program();
    command.arg("mount").arg(&fixture.vmcore).args(["--", "sh", "-c", "cat; : {}"]).env("TMPDIR", &temp);
    let input = File::open(&script).unwrap();
    let out = command.stdin(input).stdout(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(out.stdout, b"ps\nexit\n");
}

/// A signal for us ends the command, one of the terminal is the command's to mind; nothing is left of either.
#[test]
fn signals_end_a_command_but_for_the_terminals() {
    use rustix::process::{Pid, Signal, kill_process};
    let (fixture, temp) = (&fixtures::all()[0], new_name("temp"));
    std::fs::create_dir(&temp).unwrap();
    let stubborn = "trap '' TERM; echo; sleep 100 & wait; sleep 100 # {}";
    for (signal, words, code) in [
        (Signal::TERM, "echo; exec sleep 100 # {}", 128 + 15),
        (Signal::HUP, "echo; exec sleep 100 # {}", 128 + 1),
        (Signal::TERM, stubborn, 128 + 9),
        (Signal::INT, "echo; sleep 1; exit 5 # {}", 5),
        (Signal::QUIT, "echo; sleep 1; exit 6 # {}", 6),
    ] {
        let mut command = program();
        command.arg("mount").arg(&fixture.vmcore).args(["--", "sh", "-c", words]);
        let mut child = command.env("TMPDIR", &temp).stdout(Stdio::piped()).spawn().unwrap();
        // It says when it runs.
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal:?} {words}");
        assert!(is_empty(&temp), "{signal:?} {words}");
    }
}

#[test]
fn a_folder_is_unmounted_by_signals_and_by_umount() {
    use rustix::process::Signal;
    let fixture = &fixtures::all()[0];
    for signal in [Some(Signal::TERM), Some(Signal::INT), Some(Signal::HUP), None] {
        let mut mounted = Mounted::new(&[], &[&fixture.vmcore]);
        // In use, where a signal comes.
        let file = File::open(mounted.file("dom0")).unwrap();
        file.read_exact_at(&mut [0; 4096], 0).unwrap();
        match signal {
            Some(signal) => {
                mounted.signal(signal);
                assert_eq!(mounted.ended(), Some(0), "{signal:?}: {}", mounted.said());
                let end = file.metadata().map_or(0, |meta| meta.len());
                assert!(file.read_exact_at(&mut [0; 4096], end.saturating_sub(4096)).is_err());
            }
            None => {
                drop(file);
                assert!(Command::new("umount").arg(&mounted.dir).status().unwrap().success());
                assert_eq!(mounted.ended(), Some(0), "{}", mounted.said());
            }
        }
        assert!(!mounted.is_mounted());
        std::fs::remove_dir(&mounted.dir).unwrap();
    }
}

/// Of a cut that was cut short, each page is there as it was, or an error; never zeros.
#[test]
fn what_is_missing_is_an_error() {
    let fixture = &fixtures::all()[0];
    let known = cut_with(fixture, "whole.elf.zst", &["-d", "0"]);
    let cut = cut_with(fixture, "short.kdump", &["-d", "0"]);
    let file = File::options().write(true).open(&cut).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let mounted = Mounted::new(&[], &[&cut]);
    let shown = File::open(mounted.file("vmcore")).unwrap();
    let mut known = plain(&known);
    let (mut good, mut bad) = (0, 0);
    for at in (0..shown.metadata().unwrap().len()).step_by(4096) {
        let (mut is, mut was) = ([0x55; 4096], [0; 4096]);
        known.read_exact(&mut was).unwrap();
        match shown.read_exact_at(&mut is, at) {
            Ok(()) => {
                assert!(is == was, "page at {at:#x}");
                good += 1;
            }
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(5), "{at:#x}: {e}");
                bad += 1;
            }
        }
    }
    assert!(good > 1000 && bad > 1000, "{good} good, {bad} bad");
    mounted.until("told", |m| m.said().contains("cannot be read"));
    let said = mounted.said();
    assert!(said.contains("damaged input"), "{said}");
    assert!(said.lines().filter(|line| line.contains("cannot be read")).count() <= 5, "{said}");
}

/// A domain that cannot be cut is an error and a warning; the others are there.
#[test]
fn a_domain_that_cannot_be_cut_keeps_nobody_from_the_others() {
    let (fixture, filtered) = (&fixtures::all()[0], new_name("filtered"));
    let mut command = Command::new(tool("makedumpfile"));
    command.args(["-X", "-d", "0"]).arg(&fixture.vmcore).arg(&filtered);
    let ran = run(&mut command, Duration::from_secs(120));
    assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    let mounted = Mounted::new(&[], &[&filtered]);
    let guests: Vec<String> = mounted.names().into_iter().filter(|n| n != "dom0").collect();
    assert!(!guests.is_empty());
    for guest in &guests {
        assert_eq!(File::open(mounted.file(guest)).unwrap_err().raw_os_error(), Some(5));
        mounted.until("told", |m| m.said().contains(&format!("{guest}: warning: ")));
    }
    open(&mounted.file("dom0"));
    assert_eq!(File::open(mounted.file("dom99")).unwrap_err().kind(), ErrorKind::NotFound);
    let id = guests[0].trim_start_matches("dom").split('-').next().unwrap();
    let mut command = program();
    command.args(["mount", "--domain", id]).arg(&filtered).args(["--", "true", "{}"]);
    let ran = run(&mut command, Duration::from_secs(60));
    assert!(ran.status.code() == Some(1) && ran.stderr.contains("stores none"), "{} {}", ran.status, ran.stderr);
}

/// Many readers of several files, here and there, past the kernel's own cache, with almost none of ours.
#[test]
fn readers_do_not_disturb_each_other() {
    let fixture = &fixtures::all()[0];
    let mounted = Mounted::new(&["--cache", "1M"], &[&fixture.vmcore]);
    let known: Vec<(PathBuf, Vec<u8>)> = (mounted.names().iter())
        .map(|name| {
            let id = name.trim_start_matches("dom").split('-').next().unwrap();
            let packed = cut_with(fixture, &format!("{name}.known.elf.zst"), &["-d", "0", "--domain", id]);
            let mut bytes = Vec::new();
            plain(&packed).read_to_end(&mut bytes).unwrap();
            (mounted.file(name), bytes)
        })
        .collect();
    std::thread::scope(|scope| {
        for reader in 0_u64..8 {
            let (file, bytes) = &known[reader as usize % known.len()];
            scope.spawn(move || {
                let file = File::open(file).unwrap();
                let mut random = reader + 1;
                for _ in 0..300 {
                    // xorshift: any spread will do
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let at = random as usize % bytes.len();
                    let len = (random >> 40) as usize % 300_000;
                    let mut is = vec![0; len.min(bytes.len() - at)];
                    file.read_exact_at(&mut is, at as u64).unwrap();
                    assert!(is == bytes[at..at + is.len()], "{len} bytes at {at:#x}");
                    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
                }
            });
        }
    });
    let mut none = Findings::default();
    none.check(mounted.said().lines().count() == 1, "said", || mounted.said());
    assert!(none.into_lines("said").is_empty(), "{}", mounted.said());
}
