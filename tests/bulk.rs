//! Archives: a tree of dumps in all forms, damaged ones and files that are none, cut in one go; killed, changed, moved, and
//! shared out by work lists. What is cut equals what single cuts make.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use support::fixtures::{self, Fixture};
use support::forms::{file, makedumpfile, split, through, with_snappy};
use support::tools::{Ran, peak, run, scratch};

const LIMIT: Duration = Duration::from_secs(300);

fn fixture() -> &'static Fixture {
    fixtures::all().iter().find(|f| f.name == "xen-4.17-linux-6.12-panic").expect("the panic fixture of testdata")
}

/// A tree of inputs, and where their cuts go.
struct Archive {
    top: PathBuf,
}

impl Archive {
    fn new(name: &str) -> Self {
        let top = file(name);
        std::fs::create_dir_all(top.join("in")).unwrap();
        Self { top }
    }

    /// One more name for a file: thousands of dumps take no more room than one.
    fn link(&self, name: &str, from: &Path) -> PathBuf {
        let path = self.top.join("in").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::hard_link(from, &path).unwrap();
        path
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.top.join("in").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn out(&self) -> PathBuf {
        self.top.join("out")
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
        command.arg("bulk").args(options).env("TMPDIR", scratch());
        if !options.iter().any(|o| ["--work", "--collect"].contains(o)) {
            command.arg(self.top.join("in")).arg("--out").arg(self.out());
        }
        command
    }

    fn run(&self, options: &[&str]) -> Ran {
        run(&mut self.command(options), LIMIT)
    }

    /// Runs it, wants a status, and gives the summary.
    fn summary(&self, options: &[&str], status: i32) -> serde_json::Value {
        let ran = self.run(&[&["--report", "json"], options].concat());
        assert_eq!(ran.status.code(), Some(status), "{options:?}: {}{}", ran.stdout, ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// Files below the folder of outputs, without manifests.
    fn outputs(&self) -> BTreeMap<String, Vec<u8>> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.out()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(self.out()).unwrap().to_str().unwrap().to_owned();
                match path.is_dir() {
                    true => folders.push(path),
                    false if name.starts_with("manifest.") => {}
                    false => drop(found.insert(name, std::fs::read(&path).unwrap())),
                }
            }
        }
        found
    }

    /// The last line of each input in the manifest, by its name below the sources.
    fn manifest(&self) -> BTreeMap<String, serde_json::Value> {
        let text = std::fs::read_to_string(self.out().join("manifest.jsonl")).unwrap();
        let top = self.top.join("in").canonicalize().unwrap();
        let name = |line: &serde_json::Value| {
            let path = line["files"][0]["path"].as_str().unwrap().to_owned();
            Path::new(&path).strip_prefix(&top).unwrap().to_str().unwrap().to_owned()
        };
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| (name(&line), line)).collect()
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.top);
    }
}

/// What a single cut of the fixture is.
fn cut() -> &'static [u8] {
    static CUT: OnceLock<Vec<u8>> = OnceLock::new();
    CUT.get_or_init(|| single(&fixture().vmcore, &[]))
}

fn single(dump: &Path, options: &[&str]) -> Vec<u8> {
    let out = file(&format!("single-{:?}.cut", std::thread::current().id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    let ran = run(command.args(["-q", "-f", "--tmp-dir"]).arg(scratch()).args(options).arg(dump).arg(&out), LIMIT);
    assert!(ran.status.success(), "{}", ran.stderr);
    let bytes = std::fs::read(&out).unwrap();
    std::fs::remove_file(out).unwrap();
    bytes
}

fn count(summary: &serde_json::Value, what: &str) -> u64 {
    summary[what]["inputs"].as_u64().unwrap()
}

/// At least 60 dumps in all forms, some damaged, and what is no dump; killed at 20 moments, and done at last.
#[test]
fn a_tree_of_everything() {
    let archive = Archive::new("everything");
    let plain = &fixture().vmcore;
    let mut right = Vec::new();
    let mut all = |name: String, from: &Path| {
        archive.link(&name, from);
        right.push(name + ".kdump");
    };
    for host in 0..10 {
        all(format!("host{host}/2025-01-0{host}/vmcore"), plain);
    }
    let forms: [(&str, &[&str]); 9] = [
        ("zlib", &["-c", "-d", "1"]),
        ("zlib-X", &["-X", "-c", "-d", "1"]),
        ("lzo-X", &["-X", "-l", "-d", "1"]),
        ("zstd-X", &["-X", "-z", "-d", "1"]),
        ("raw-X", &["-X", "-d", "1"]),
        ("elf-X", &["-X", "-E", "-d", "0"]),
        ("flat-X", &["-X", "-F", "-c", "-d", "1"]),
        ("flat-elf-X", &["-X", "-F", "-E", "-d", "1"]),
        ("flat-lzo", &["-F", "-l", "-d", "1"]),
    ];
    let made = forms.map(|(name, options)| (name, makedumpfile(plain, name, options)));
    let of = |name: &str| &made.iter().find(|m| m.0 == name).unwrap().1;
    for (name, path) in &made {
        for copy in 0..4 {
            all(format!("kdump/{name}/{copy}/vmcore"), path);
        }
    }
    all("snappy.vmcore".into(), &with_snappy("snappy", of("raw-X")));
    for (name, program, options, input) in [
        ("v.zst", "zstd", &["-q", "-1", "-c"][..], plain),
        ("v.gz", "gzip", &["-1", "-c"], plain),
        ("v.lz4", "lz4", &["-q", "-c"], plain),
        ("zlib.xz", "xz", &["-0", "-T2", "-c"], of("zlib-X")),
        ("flat.bz2", "bzip2", &["-1", "-c"], of("flat-X")),
        ("flat.gz", "gzip", &["-1", "-c"], of("flat-elf-X")),
    ] {
        let packed = through(name, program, options, input);
        all(format!("packed/{name}"), &packed);
        // What is in a file is not told by its name.
        all(format!("packed/{}", name.len() + name.as_bytes()[2] as usize), &packed);
    }
    let twice = through("v.zst.lz4", "lz4", &["-q", "-c"], &file("v.zst"));
    all("packed/v.zst.lz4".into(), &twice);
    // Parts of a split dump, and of another in the same folder, by names that tell nothing.
    let parts = split(plain);
    for (name, part) in ["b", "c", "a"].iter().zip(&parts) {
        archive.link(&format!("split/{name}"), part);
        archive.link(&format!("split/again-{name}"), part);
    }
    right.extend(["split/again-b.kdump".into(), "split/b.kdump".into()]);
    assert!(right.len() >= 60, "{}", right.len());

    // Damaged beyond use, and so that it can be used.
    let bytes = std::fs::read(plain).unwrap();
    let mut failed = vec!["bad/short", "bad/header", "bad/v.gz"];
    archive.put("bad/short", &bytes[..bytes.len() / 4]);
    let mut kdump = std::fs::read(of("zlib-X")).unwrap();
    kdump[428] ^= 0x40;
    archive.put("bad/header", &kdump);
    archive.put("bad/v.gz", &std::fs::read(file("v.gz")).unwrap()[..40_000]);
    archive.put("bad/pages", &damaged(of("zlib-X")));
    failed.sort();

    // What is no Xen dump.
    let core = archive.put("none/cut.kdump", cut());
    archive.put("none/README", b"what this is\n");
    archive.put("none/empty", b"");
    archive.link("none/vmlinux", fixture().vmlinux());
    let words = through("words.gz", "gzip", &["-c"], Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")));
    archive.link("none/words.gz", &words);
    std::os::unix::fs::symlink(&core, archive.top.join("in/none/link")).unwrap();
    archive.put("none/userland.core", &userland());

    // Killed at 20 moments, which differ from run to run; nothing that is not whole has a final name.
    let (begun, mut seed) = (Instant::now(), std::process::id());
    let mut killed = 0;
    for n in 0..20 {
        let mut child = start(&mut archive.command(&[]));
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        std::thread::sleep(Duration::from_millis(u64::from(seed >> 16) % 1000));
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().signal().is_some());
        for (name, bytes) in archive.outputs().iter().filter(|(name, _)| !name.ends_with(".incomplete")) {
            assert!(name == "bad/pages.kdump" || bytes == cut(), "{name} after kill {n}");
        }
    }
    let summary = archive.summary(&["--threads", "2"], 1);
    eprintln!(
        "{} dumps, killed {killed} times, in {:?}; cut at last: {}",
        right.len(),
        begun.elapsed(),
        summary["cut"]
    );
    assert!(killed >= 10, "{killed} of 20 came before the end");
    let (cuts, manifest) = (archive.outputs(), archive.manifest());
    let right_or_damaged = right.len() as u64 + 1;
    assert_eq!(count(&summary, "cut") + count(&summary, "before"), right_or_damaged, "{summary:#}");
    assert_eq!((count(&summary, "failed"), count(&summary, "left")), (3, 7), "{summary:#}");
    let mut missed: Vec<&str> =
        summary["failures"].as_array().unwrap().iter().map(|f| f["input"].as_str().unwrap()).collect();
    missed.sort();
    assert!(missed.iter().zip(&failed).all(|(path, name)| path.ends_with(name)), "{missed:?}");
    for name in &right {
        assert!(cuts.get(name).is_some_and(|c| c == cut()), "{name} is not the single cut");
    }
    // A damaged one, too, is what a single cut makes of it.
    assert!(cuts["bad/pages.kdump"] == single(&archive.top.join("in/bad/pages"), &[]));
    assert_eq!(cuts.len() as u64, right_or_damaged, "{:?}", cuts.keys());
    assert_eq!(manifest["split/b"]["files"].as_array().unwrap().len(), 3);
    let pages = &manifest["bad/pages"];
    assert!(
        pages["figures"]["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|w| w.as_str().unwrap().contains("could not be had")),
        "{pages}"
    );
    for name in &failed {
        let line = &manifest[*name];
        assert!(line["status"] == "failed" && !line["reason"].as_str().unwrap().is_empty(), "{line}");
    }
    let reasons = |name: &str| manifest[&format!("none/{name}")]["reason"].as_str().unwrap().to_owned();
    assert!(reasons("cut.kdump").contains("cut already") && reasons("link").contains("link"));
    assert!(reasons("empty").contains("empty") && reasons("vmlinux").contains("not a core"));
    let good = &manifest["host3/2025-01-03/vmcore"];
    assert_eq!(good["files"][0]["size"].as_u64(), Some(bytes.len() as u64));
    assert_eq!(good["bytes"].as_u64(), Some(cut().len() as u64));
    assert!(good["figures"]["pages"].as_u64() > good["figures"]["kept"].as_u64(), "{good}");

    // Once more: nothing is written, and the verdict is the same.
    let stamps = |names: &[String]| -> Vec<_> {
        names.iter().map(|n| archive.out().join(n).metadata().map(|m| (m.ino(), m.mtime_nsec())).unwrap()).collect()
    };
    let before = stamps(&right);
    let summary = archive.summary(&[], 1);
    assert_eq!((count(&summary, "cut"), count(&summary, "before")), (0, right_or_damaged));
    assert_eq!((count(&summary, "failed"), count(&summary, "left")), (3, 7), "{summary:#}");
    assert_eq!(stamps(&right), before);
    // Without those that are damaged all is well.
    failed.iter().for_each(|name| std::fs::remove_file(archive.top.join("in").join(name)).unwrap());
    archive.summary(&[], 0);
}

/// A kdump-compressed file, some of whose pages make no sense.
fn damaged(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    let spots = (8..24).map(|n| n * path.metadata().unwrap().len() as usize / 32);
    spots.for_each(|at| bytes[at..at + 100].fill(0x55));
    bytes
}

/// An x86_64 core file of a process: an ELF core without anything of Xen's.
fn userland() -> Vec<u8> {
    let mut core = vec![0; 8192];
    core[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    [(16, 4), (18, 62), (32, 64), (54, 56), (56, 1), (64, 1)].iter().for_each(|(at, byte)| core[*at] = *byte);
    core[72..80].copy_from_slice(&4096_u64.to_le_bytes());
    core[96..104].copy_from_slice(&4096_u64.to_le_bytes());
    core[104..112].copy_from_slice(&4096_u64.to_le_bytes());
    core
}

/// Some dumps that are quickly cut.
fn small(name: &str, copies: usize) -> Archive {
    let archive = Archive::new(name);
    let packed = through(&format!("{name}.zst"), "zstd", &["-q", "-1", "-c"], &fixture().vmcore);
    archive.link("vmcore.zst", &packed);
    (0..copies).for_each(|n| drop(archive.link(&format!("{n}/vmcore"), &fixture().vmcore)));
    archive
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// SIGTERM ends it soon, with a status that says so, and the same command goes on from there.
#[test]
fn a_signal_ends_it_and_it_goes_on() {
    let archive = small("signal", 12);
    let mut child = start(&mut archive.command(&["-j", "1"]));
    let begun = Instant::now();
    while archive.outputs().keys().filter(|n| n.ends_with("kdump")).count() < 2 {
        assert!(begun.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(ended.success());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let there = archive.outputs();
    assert!(there.len() < 13 && there.values().all(|c| c == cut()), "{:?}", there.keys());
    let summary = archive.summary(&[], 0);
    assert!(count(&summary, "before") >= 2 && count(&summary, "cut") > 0, "{summary:#}");
    assert_eq!(archive.outputs().len(), 13);
}

/// What changed is done again; what others put there stays.
#[test]
fn only_what_changed_is_done_again() {
    let archive = small("changes", 3);
    archive.summary(&[], 0);
    let cut_again = |options: &[&str], status, n| {
        let summary = archive.summary(options, status);
        assert_eq!(count(&summary, "cut"), n, "{summary:#}");
        summary
    };
    // An output that is gone, or not as it was left; an input that is another.
    std::fs::remove_file(archive.out().join("0/vmcore.kdump")).unwrap();
    std::fs::write(archive.out().join("1/vmcore.kdump"), b"").unwrap();
    std::fs::remove_file(archive.top.join("in/2/vmcore")).unwrap();
    archive.link("2/vmcore", &makedumpfile(&fixture().vmcore, "changed", &["-X", "-c", "-d", "1"]));
    cut_again(&[], 0, 3);
    assert!(archive.outputs().values().all(|c| c == cut()));
    // Other options: all of it. Verified where it was not: all of it, and once.
    cut_again(&["-d", "1"], 0, 4);
    let want = single(&fixture().vmcore, &["-d", "1"]);
    assert!(archive.outputs().values().all(|c| *c == want));
    cut_again(&["-d", "1", "--verify"], 0, 4);
    cut_again(&["-d", "1"], 0, 0);
    // Somebody's file.
    archive.link("3/vmcore", &fixture().vmcore);
    std::fs::create_dir_all(archive.out().join("3")).unwrap();
    std::fs::write(archive.out().join("3/vmcore.kdump"), b"mine").unwrap();
    let summary = cut_again(&["-d", "1"], 1, 0);
    assert_eq!(count(&summary, "refused"), 1, "{summary:#}");
    assert_eq!(std::fs::read(archive.out().join("3/vmcore.kdump")).unwrap(), b"mine");
    cut_again(&["-d", "1", "-f"], 0, 1);
    assert!(archive.outputs().values().all(|c| *c == want));
    // A torn line at the end of the manifest, and one that makes no sense.
    let path = archive.out().join("manifest.jsonl");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.insert_str(0, "{\"files\":[]}\n");
    text.push_str("{\"files\":[{\"path\":\"");
    std::fs::write(&path, text).unwrap();
    let ran = archive.run(&["-d", "1"]);
    assert!(ran.status.success() && ran.stderr.contains("2 lines make no sense"), "{}", ran.stderr);
    // Two at once.
    let mut first = start(&mut archive.command(&["-d", "0", "-j", "1"]));
    std::thread::sleep(Duration::from_millis(100));
    let ran = archive.run(&["-d", "0"]);
    assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("in use by another run"), "{}", ran.stderr);
    assert!(first.wait().unwrap().success());
}

/// What fails for a reason that may pass is tried again, what fails for good is not.
#[test]
fn trouble_is_tried_again() {
    let archive = small("trouble", 1);
    archive.put("bad", &std::fs::read(&fixture().vmcore).unwrap()[..1 << 20]);
    let nowhere = archive.top.join("nowhere");
    let summary = archive.summary(&["--tmp-dir", nowhere.to_str().unwrap()], 3);
    assert_eq!(
        (count(&summary, "trouble"), count(&summary, "failed"), count(&summary, "cut")),
        (1, 1, 1),
        "{summary:#}"
    );
    let summary = archive.summary(&[], 1);
    assert_eq!(
        (count(&summary, "cut"), count(&summary, "before"), count(&summary, "failed")),
        (1, 1, 1),
        "{summary:#}"
    );
    std::fs::remove_file(archive.top.join("in/bad")).unwrap();
    archive.summary(&[], 0);
    // None at all, and none that is good.
    let none = Archive::new("none");
    none.summary(&[], 4);
    none.put("bad", &std::fs::read(&fixture().vmcore).unwrap()[..1 << 20]);
    none.summary(&[], 4);
    let ran =
        run(Command::new(env!("CARGO_BIN_EXE_xdump-cut")).args(["bulk", "/nowhere", "--out"]).arg(none.out()), LIMIT);
    assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
    for wrong in [&["--work", "x"][..], &["--index", "1"], &["--delete-source", "--move", "x"]] {
        assert_eq!(none.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// Dumps go only when their cuts are there, verified, and nothing was missing.
#[test]
fn sources_go_when_all_is_well() {
    let archive = small("gone", 2);
    let kdump = makedumpfile(&fixture().vmcore, "gone.kdump", &["-X", "-c", "-d", "1"]);
    let damaged = archive.put("damaged", &damaged(&kdump));
    let away = archive.top.join("away");
    let summary = archive.summary(&["--move", away.to_str().unwrap()], 0);
    assert_eq!(count(&summary, "cut"), 4, "{summary:#}");
    assert!(damaged.exists() && !archive.top.join("in/0/vmcore").exists());
    assert_eq!(std::fs::read(away.join("1/vmcore")).unwrap().len() as u64, fixture().vmcore.metadata().unwrap().len());
    let manifest = archive.manifest();
    assert!(manifest["0/vmcore"]["figures"]["verified"].as_u64() > Some(0));
    assert!(manifest["0/vmcore"]["source"]["moved"].as_str().unwrap().ends_with("away/0"), "{}", manifest["0/vmcore"]);
    assert!(manifest["damaged"]["kept_because"].as_str().unwrap().contains("not in it"));
    // What was cut before, and stayed, goes if that is wanted now; a file that has the same name as one before it, too.
    std::fs::remove_file(&damaged).unwrap();
    archive.link("0/vmcore", &fixture().vmcore);
    archive.summary(&["--verify"], 0);
    assert!(archive.top.join("in/0/vmcore").exists());
    let summary = archive.summary(&["--delete-source"], 0);
    assert_eq!((count(&summary, "cut"), count(&summary, "before")), (0, 1), "{summary:#}");
    assert!(!archive.top.join("in/0/vmcore").exists() && fixture().vmcore.exists());
}

/// The cut of a dump that is gone is all that is left of it: another dump of the same name does not take its place.
#[test]
fn what_is_left_of_a_dump_that_is_gone_stays() {
    let archive = Archive::new("reused");
    archive.link("vmcore", &fixture().vmcore);
    archive.summary(&["--delete-source"], 0);
    let left = archive.out().join("vmcore.kdump");
    let other = makedumpfile(&fixture().vmcore, "reused.kd", &["-X", "-c", "-d", "1"]);
    archive.link("vmcore", &other);
    for _ in 0..2 {
        let summary = archive.summary(&["-d", "1"], 4);
        assert_eq!(count(&summary, "refused"), 1, "{summary:#}");
        assert!(summary["failures"][0]["reason"].as_str().unwrap().contains("which is gone"), "{summary:#}");
        assert!(std::fs::read(&left).unwrap() == cut());
        assert_eq!(archive.manifest()["vmcore"]["source"], "deleted");
    }
    archive.summary(&["-d", "1", "-f"], 0);
    assert!(std::fs::read(&left).unwrap() != cut());
    // A folder of done dumps below the sources is none of them, and the sources are not their own output.
    let below = archive.top.join("in/done");
    archive.link("a/vmcore", &fixture().vmcore);
    for cuts in [2, 0] {
        let summary = archive.summary(&["--move", below.to_str().unwrap()], if cuts > 0 { 0 } else { 4 });
        assert_eq!(count(&summary, "cut"), cuts, "{summary:#}");
    }
    assert!(below.join("a/vmcore").exists() && below.join("vmcore").exists());
    let mut onto = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    let ran = run(onto.arg("bulk").arg(archive.top.join("in")).arg("--out").arg(archive.top.join("in")), LIMIT);
    assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
}

/// A part of a split dump that comes late makes it whole.
#[test]
fn parts_may_come_late() {
    let archive = Archive::new("late");
    let [a, b, c] = split(&fixture().vmcore);
    archive.link("dump.1", &a);
    archive.link("dump.3", &c);
    archive.summary(&[], 0);
    assert!(
        archive.outputs()["dump.1.kdump"] != cut()
            && archive.manifest()["dump.1"]["figures"]["warnings"][0].is_string()
    );
    archive.link("dump.2", &b);
    let summary = archive.summary(&[], 0);
    assert_eq!(count(&summary, "cut"), 1, "{summary:#}");
    assert!(archive.outputs()["dump.1.kdump"] == cut() && archive.outputs().len() == 1);
    assert_eq!(count(&archive.summary(&[], 0), "before"), 1);
}

/// One budget of memory, whatever the number of dumps at once; and the same outputs for any numbers.
#[test]
fn one_budget_for_all() {
    let archive = small("budget", 5);
    archive.summary(&[], 0);
    let want = archive.outputs();
    for options in [
        &["-j", "5", "--threads", "3"][..],
        &["-j", "1", "--threads", "1"],
        &["--no-mmap"],
        &["--memory", "96M", "-j", "4"],
    ] {
        std::fs::remove_dir_all(archive.out()).unwrap();
        let mut child = start(&mut archive.command(options));
        let most = peak(&mut child);
        assert!(child.wait().unwrap().success(), "{options:?}");
        assert!(archive.outputs() == want, "{options:?}");
        if options.contains(&"--memory") {
            assert!(most < 96 << 20, "{most} bytes with {options:?}");
        }
    }
}

#[test]
fn progress_is_told_in_lines_that_programs_read() {
    let archive = small("progress", 2);
    archive.put("none", b"nothing");
    let ran = archive.run(&["--progress", "json", "-q"]);
    assert!(ran.status.success() && ran.stdout.is_empty() && ran.stderr.is_empty(), "{}{}", ran.stdout, ran.stderr);
    let ran = archive.run(&["--progress", "json", "-d", "1"]);
    let events: Vec<serde_json::Value> = ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |what: &str| events.iter().filter(|e| e["event"] == what).count();
    assert_eq!((of("begin"), of("dump"), of("ended")), (1, 3, 3), "{}", ran.stderr);
    assert!(events.iter().filter(|e| e["event"] == "ended").all(|e| e["record"]["status"] == "done"));
    let ran = archive.run(&["-d", "0"]);
    assert!(ran.stderr.contains("[3/3]") && ran.stdout.contains("cut"), "{}{}", ran.stdout, ran.stderr);
}

/// A work list: each entry by a process of its own, in any order, twice, and one of them killed.
#[test]
fn a_list_is_shared_out_and_collected() {
    let archive = small("list", 7);
    archive.put("bad", &std::fs::read(&fixture().vmcore).unwrap()[..1 << 20]);
    archive.put("none", b"nothing");
    let list = archive.top.join("list");
    let (list, one) = (list.to_str().unwrap(), ["--threads", "1"]);
    let plan = archive.summary(&["--plan", list, "--entries", "4"], 0);
    assert_eq!((plan["entries"].as_u64(), plan["dumps"].as_u64()), (Some(4), Some(9)), "{plan:#}");
    assert!(archive.outputs().is_empty());
    let work = |index: &'static str| ["--work", list, "--index", index];
    assert_eq!(archive.run(&work("4")).status.code(), Some(2));
    let summary = archive.summary(&["--collect", list], 3);
    assert_eq!(count(&summary, "trouble"), 9, "{summary:#}");
    // One is killed, and one started while another is at it.
    let mut child = start(&mut archive.command(&[&work("0")[..], &one].concat()));
    while !archive.out().join("manifest.d").is_dir() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(150));
    let busy = archive.run(&work("0"));
    child.kill().unwrap();
    assert!(child.wait().unwrap().signal().is_some(), "the entry ended before it was killed");
    assert_eq!(busy.status.code(), Some(3), "{}", busy.stderr);
    let mut codes: Vec<_> = ["2", "1", "3"].map(|n| archive.run(&work(n)).status.code().unwrap()).into();
    let summary = archive.summary(&["--collect", list], 3);
    assert!(count(&summary, "trouble") > 0, "{summary:#}");
    assert!(summary["failures"].as_array().unwrap().iter().any(|f| f["reason"].as_str().unwrap().ends_with("entry 0")));
    codes.push(archive.run(&work("0")).status.code().unwrap());
    // The bad one is in one of them.
    codes.sort();
    assert_eq!(codes, [0, 0, 0, 1]);
    let summary = archive.summary(&["--collect", list], 1);
    assert_eq!((count(&summary, "cut"), count(&summary, "failed")), (8, 1), "{summary:#}");
    assert!(archive.outputs().len() == 8 && archive.outputs().values().all(|c| c == cut()));
    // Again: nothing is to be done, by a list or without.
    for index in ["0", "1", "2", "3"] {
        let ran = archive.run(&[&work(index)[..], &["--report", "json"]].concat());
        let summary: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(count(&summary, "cut") == 0 && matches!(ran.status.code(), Some(0 | 1)), "{}", ran.stderr);
    }
    std::fs::remove_file(archive.top.join("in/bad")).unwrap();
    let summary = archive.summary(&[], 0);
    assert_eq!((count(&summary, "cut"), count(&summary, "before")), (0, 8), "{summary:#}");
    let plan = archive.summary(&["--plan", list], 0);
    assert_eq!(plan["entries"].as_u64(), Some(0), "{plan:#}");
    // A list whose source changed meanwhile: what is there now is cut.
    archive.link("new/vmcore", &fixture().vmcore);
    archive.summary(&["--plan", list], 0);
    let summary = archive.summary(&work("0"), 0);
    assert_eq!(count(&summary, "cut"), 1, "{summary:#}");
    archive.summary(&["--collect", list], 0);
}
