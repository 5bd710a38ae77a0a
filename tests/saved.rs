//! What cuts after the reboot what kdump saved: the script that xdump-cut-saved.service runs, on folders as kdump-tools,
//! kdump-utils and openSUSE's kdump leave them. systemd itself does not run here; its units are looked at in tests/install.rs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::installed::{LIMIT, apart, dump, folder};
use support::tools::{Ran, run};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/systemd/xdump-cut-saved");

/// /var/crash, and the settings that lead there.
struct Crash {
    top: PathBuf,
}

impl Crash {
    fn new(settings: &str) -> Self {
        let crash = Self { top: folder("saved") };
        std::fs::create_dir(crash.top.join("crash")).unwrap();
        crash.set(settings);
        crash
    }

    fn set(&self, settings: &str) {
        let top = self.top.display();
        let text = format!("FOLDERS={top}/crash\nSTATE={top}/state\nLOCK={top}/lock\nSETTLE=0\n{settings}\n");
        std::fs::write(self.top.join("conf"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.join("crash").join(name)
    }

    /// A file as kdump left it.
    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.arg(SCRIPT).arg(self.top.join("conf")).env("XDUMP_CUT", env!("CARGO_BIN_EXE_xdump-cut"));
        command
    }

    fn run(&self) -> Ran {
        run(&mut self.command(), LIMIT)
    }

    fn start(&self) -> Child {
        self.command().stderr(Stdio::null()).spawn().unwrap()
    }

    /// All files, with their folders.
    fn names(&self) -> Vec<String> {
        fn below(dir: &Path, names: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { below(&path, names) } else { names.push(path) }
            }
        }
        let (top, mut names) = (self.path(""), Vec::new());
        below(&top, &mut names);
        names.sort();
        names.iter().map(|p| p.strip_prefix(&top).unwrap().to_str().unwrap().to_owned()).collect()
    }
}

fn dump_bytes() -> Vec<u8> {
    std::fs::read(&dump().vmcore).unwrap()
}

/// What xdump-cut makes of the dump.
fn cut() -> Vec<u8> {
    let out = folder("cut").join("cut");
    let ran = run(Command::new(env!("CARGO_BIN_EXE_xdump-cut")).arg("-q").arg(&dump().vmcore).arg(&out), LIMIT);
    assert!(ran.status.success(), "{}", ran.stderr);
    std::fs::read(out).unwrap()
}

fn makedumpfile(options: &[&str]) -> Vec<u8> {
    let out = Command::new("/usr/bin/makedumpfile").args(options).arg("-F").arg(&dump().vmcore).output().unwrap();
    assert!(out.status.success());
    out.stdout
}

/// Compressed, and not flattened.
fn plain_makedumpfile() -> Vec<u8> {
    let out = folder("makedumpfile").join("out");
    let ran = run(Command::new("/usr/bin/makedumpfile").args(["-c", "-d", "1"]).arg(&dump().vmcore).arg(&out), LIMIT);
    assert!(ran.status.success(), "{}", ran.stdout);
    std::fs::read(out).unwrap()
}

fn until(what: &str, limit: Duration, happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn each_dump_that_kdump_saved_is_cut_once() {
    let crash = Crash::new("");
    let dump = dump_bytes();
    crash.put("202501011200/dump.202501011200", &dump);
    crash.put("202501011200/dmesg.202501011200", b"[    0.000000] Linux");
    let mut gzip = Command::new("gzip").args(["-1", "-c"]).arg(&support::installed::dump().vmcore).output().unwrap();
    crash.put("202501021200/dump.202501021200.gz", &std::mem::take(&mut gzip.stdout));
    crash.put("127.0.0.1-2025-01-03-12:00:00/vmcore", &dump);
    crash.put("10.0.0.1-2025-01-04-12:00:00/vmcore.flat", &makedumpfile(&["-c", "-d", "1"]));
    crash.put("2025-01-05-12-00/vmcore", &makedumpfile(&["-E", "-d", "1"]));
    crash.put("2025-01-05-12-00/README.txt", b"Kernel crashdump");
    // What must not be touched: not complete, no dump, no Xen dump, a cut.
    crash.put("202501061200/dump-incomplete", &dump);
    crash.put("127.0.0.1-2025-01-06-12:00:00/vmcore-incomplete", &dump);
    crash.put("202501071200/dump.202501071200", b"hello\n");
    let made = cut();
    crash.put("202501081200/dump.202501081200", &made);
    crash.put("kexec_cmd", b"kexec");
    let before = crash.names();

    let ran = crash.run();
    assert!(ran.status.success(), "{}", ran.stderr);
    let mut after = before.clone();
    for name in [
        "202501011200/dump.202501011200",
        "202501021200/dump.202501021200.gz",
        "127.0.0.1-2025-01-03-12:00:00/vmcore",
        "10.0.0.1-2025-01-04-12:00:00/vmcore.flat",
        "2025-01-05-12-00/vmcore",
    ] {
        assert!(std::fs::read(crash.path(&format!("{name}.cut"))).unwrap() == made, "{name}");
        let log = std::fs::read_to_string(crash.path(&format!("{name}.dmesg"))).unwrap();
        assert!(log.contains("Linux version 6.12") && log.contains("panic"), "{name}");
        let xen = std::fs::read_to_string(crash.path(&format!("{name}.xen-dmesg"))).unwrap();
        assert!(xen.contains("Xen version 4.17"), "{name}");
        after.extend(["cut", "dmesg", "xen-dmesg"].map(|end| format!("{name}.{end}")));
    }
    after.sort();
    assert_eq!(crash.names(), after);
    for words in ["202501071200 is left alone: ", "202501081200 is a cut already"] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }

    // Nothing is left to do, and nothing said; nor is a cut made again that somebody took away.
    std::fs::remove_file(crash.path("2025-01-05-12-00/vmcore.cut")).unwrap();
    let ran = crash.run();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}", ran.stderr);
    assert_eq!(crash.names().len(), after.len() - 1);
}

#[test]
fn a_dump_is_deleted_only_if_asked_and_whole() {
    let dump = dump_bytes();
    let crash = Crash::new("KEEP=no\nOPTIONS='-d 1'\nSUFFIX=elf.zst");
    crash.put("202501011200/dump.202501011200", &dump);
    // Of a dump that lost some of dom0's pages there may be more to find out.
    let mut damaged = plain_makedumpfile();
    for at in [damaged.len() / 5, damaged.len() / 10 * 3] {
        damaged[at..at + 3000].fill(0);
    }
    crash.put("202501021200/dump.202501021200", &damaged);
    let ran = crash.run();
    assert!(ran.status.success(), "{}", ran.stderr);
    assert!(ran.stderr.contains("202501021200 is damaged, and kept"), "{}", ran.stderr);
    let names = crash.names();
    let dumps: Vec<_> = names.iter().filter(|n| !n.contains("dmesg")).collect();
    let left = [
        "202501011200/dump.202501011200.elf.zst",
        "202501021200/dump.202501021200",
        "202501021200/dump.202501021200.elf.zst",
    ];
    assert_eq!(dumps, left);
    let about = run(Command::new(env!("CARGO_BIN_EXE_xdump-cut")).arg("info").arg(crash.path(left[0])), LIMIT);
    assert!(about.stdout.contains("frames read in place, ELF64"), "{}", about.stdout);

    // Neither the cut nor the deletion is for what xdump-cut was told wrong; it is another try's.
    let crash = Crash::new("KEEP=no\nOPTIONS=--no-such-option");
    crash.put("202501011200/dump.202501011200", &dump);
    let ran = crash.run();
    assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
    assert!(crash.path("202501011200/dump.202501011200").exists());
    crash.set("KEEP=no");
    assert!(crash.run().status.success());
    assert!(!crash.path("202501011200/dump.202501011200").exists());

    for (settings, words) in
        [("KEEP=maybe", "KEEP is yes or no"), ("SETTLE=x", "SETTLE is a number"), ("SUFFIX=a/b", "SUFFIX")]
    {
        let ran = Crash::new(settings).run();
        assert!(ran.status.code() == Some(2) && ran.stderr.contains(words), "{}", ran.stderr);
    }
}

#[test]
fn a_dump_that_is_being_written_is_waited_for() {
    let crash = Crash::new("KEEP=no");
    let dump = dump_bytes();
    let path = crash.put("copied/vmcore", &dump[..dump.len() / 2]);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let mut child = crash.start();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(crash.names(), ["copied/vmcore"]);
    file.write_all(&dump[dump.len() / 2..]).unwrap();
    drop(file);
    assert!(child.wait().unwrap().success());
    assert_eq!(crash.names(), ["copied/vmcore.cut", "copied/vmcore.dmesg", "copied/vmcore.xen-dmesg"]);
    assert!(std::fs::read(crash.path("copied/vmcore.cut")).unwrap() == cut());

    // Or was, a moment ago.
    let crash = Crash::new("SETTLE=3");
    crash.put("copied/vmcore", &dump);
    let start = Instant::now();
    let ran = crash.run();
    assert!(ran.status.success() && ran.stderr.contains("not at rest yet"), "{}", ran.stderr);
    assert!(start.elapsed() >= Duration::from_secs(2) && crash.path("copied/vmcore.cut").exists());
}

#[test]
fn a_run_that_was_killed_is_made_up_for() {
    let crash = Crash::new("KEEP=no\nOPTIONS='--compress zstd:19 --threads 1'");
    let dump = dump_bytes();
    let path = crash.put("202501011200/dump.202501011200", &dump);
    let mut child = crash.start();
    let half = crash.path("202501011200/dump.202501011200.cut.incomplete");
    until("a cut begins", Duration::from_secs(60), || half.metadata().is_ok_and(|meta| meta.len() > 1 << 16));
    // A second run leaves the first one alone.
    let second = crash.run();
    assert!(second.status.success() && second.stderr.contains("another run is at work"), "{}", second.stderr);
    let xdump_cut = children(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    // The lock lives as long as the cut itself: killing the script alone does not let a second cut begin.
    let second = crash.run();
    assert!(second.stderr.contains("another run is at work"), "{}", second.stderr);
    for pid in &xdump_cut {
        run(Command::new("kill").arg("-9").arg(pid.to_string()), LIMIT);
    }
    until("it ends", Duration::from_secs(10), || {
        xdump_cut.iter().all(|pid| !Path::new(&format!("/proc/{pid}/exe")).exists())
    });
    assert!(half.exists() && std::fs::read(&path).unwrap() == dump);
    assert!(!crash.path("202501011200/dump.202501011200.cut").exists());

    crash.set("KEEP=no");
    let ran = crash.run();
    assert!(ran.status.success(), "{}", ran.stderr);
    assert!(!half.exists() && !path.exists());
    assert!(std::fs::read(crash.path("202501011200/dump.202501011200.cut")).unwrap() == cut());
}

/// The processes that `pid` started.
fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn a_full_disk_leaves_the_dump_and_nothing_else() {
    let crash = Crash::new("KEEP=no");
    crash.put("202501011200/dump.202501011200", &makedumpfile(&["-c", "-d", "1"]));
    // The dump, and 3 MiB more.
    let script = r#"mkdir "$1/new"; mount -t tmpfs -o size="$(($(du -sm "$1/crash" | cut -f1) + 3))m" none "$1/new"
        cp -r "$1/crash/." "$1/new"; mount --move "$1/new" "$1/crash"
        status=0; sh "$2" "$1/conf" || status=$?
        find "$1/crash" -type f; exit "$status""#;
    let mut command = apart(script, &[&crash.top, Path::new(SCRIPT)]);
    let ran = run(command.env("XDUMP_CUT", env!("CARGO_BIN_EXE_xdump-cut")), LIMIT);
    assert_eq!(ran.status.code(), Some(3), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("is left for another time"), "{}", ran.stderr);
    assert!(ran.stdout.contains("/dump.202501011200\n"), "{}{}", ran.stdout, ran.stderr);
    assert!(!ran.stdout.contains(".cut") && !ran.stdout.contains("incomplete"), "{}{}", ran.stdout, ran.stderr);
    // It was not taken for a dump that cannot be cut.
    let ran = crash.run();
    assert!(ran.status.success() && crash.path("202501011200/dump.202501011200.cut").exists(), "{}", ran.stderr);
}
