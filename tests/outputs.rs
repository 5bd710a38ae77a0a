//! Every form of output of a real dump, in its readers: flattened streams, split files, ELF in seekable zstd, files that
//! a limit cut short, and what --digest and --dry-run tell of them. tests/readers.rs has the plain forms.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::crash::{ask, ask_all, read_page, zero_pages};
use support::cut::{Shape, cut, cut_with};
use support::drgn;
use support::dump::{self, Dump, PAGE, u32_at};
use support::fixtures::{self, Fixture};
use support::kdump::Kdump;
use support::tools::{run, scratch, tool};
use support::{Findings, on_each_fixture};

const LIMIT: Duration = Duration::from_secs(300);
/// What is asked of crash here; the answers must be those that it gives of the plain file.
const QUESTIONS: [&str; 6] = ["sys", "ps", "bt -a", "mod", "kmem -i", "log"];

fn sample() -> &'static Fixture {
    fixtures::all().iter().find(|f| f.name == "xen-4.17-linux-6.12-panic").expect("the panic fixture of testdata")
}

fn file(fixture: &Fixture, name: &str) -> PathBuf {
    scratch().join(format!("{}.{name}", fixture.name))
}

fn command(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

fn xdump_cut(args: &[&str]) -> Command {
    command(env!("CARGO_BIN_EXE_xdump-cut"), args)
}

/// Runs a command with standard output in a file; what it said on standard error.
fn into_file(command: &mut Command, path: &Path) -> String {
    let out = command.stdin(Stdio::null()).stdout(File::create(path).unwrap()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{command:?}: {said}");
    said
}

fn release(fixture: &Fixture) -> &str {
    fixture.banner().split(' ').nth(2).unwrap()
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}

/// crash's answers, without the line that names the file.
fn answers(fixture: &Fixture, dumps: &[&Path]) -> Vec<String> {
    let session = ask_all(&[], fixture.vmlinux(), dumps, &QUESTIONS).unwrap_or_else(|e| panic!("{dumps:?}: {e}"));
    let file = |line: &&str| !line.contains("DUMPFILE:") && !dumps.iter().any(|d| line.contains(d.to_str().unwrap()));
    QUESTIONS.map(|q| session.answer(q).lines().filter(file).collect::<Vec<_>>().join("\n")).into()
}

fn like_the_plain_file(fixture: &Fixture, plain: &Path, dumps: &[&Path], what: &str, findings: &mut Findings) {
    for ((question, is), should) in QUESTIONS.iter().zip(answers(fixture, dumps)).zip(answers(fixture, &[plain])) {
        findings.check(is == should, what, || format!("{question}: {is:.300}\nfor\n{should:.300}"));
    }
}

#[test]
fn flattened_streams_are_the_files() {
    on_each_fixture(|fixture, findings| {
        for (shape, options) in [(Shape::Kdump, &["-d", "1"][..]), (Shape::Elf, &["-d", "1", "-E"])] {
            let (plain, flat) = (cut(fixture, shape), file(fixture, &format!("{shape:?}.flat")));
            let vmcore = fixture.vmcore.to_str().unwrap();
            let said = into_file(xdump_cut(options).args(["--report", "json", vmcore, "-"]), &flat);
            // Nothing but the dump is on standard output.
            let report = &said[said.find("{\n").expect("a report on standard error")..];
            let report: Value = serde_json::from_str(report).unwrap_or_else(|e| panic!("{e}: {report}"));
            findings.check(report["output"]["files"][0] == "standard output", "report", || report.to_string());
            // -F without a name goes there too, as makedumpfile's, and a digest, which comes last, spoils nothing.
            let digested = file(fixture, &format!("{shape:?}.digest.flat"));
            into_file(xdump_cut(options).args(["-q", "--digest", "-F", vmcore]), &digested);
            like_the_plain_file(fixture, &plain, &[&digested], "crash on a flattened file with a digest", findings);
            std::fs::remove_file(digested).unwrap();
            // -F into a file, and any number of threads, is the same.
            let threaded = file(fixture, &format!("{shape:?}.flat3"));
            let ran = run(xdump_cut(options).args(["-F", "--threads", "3", vmcore]).arg(&threaded), LIMIT);
            assert!(ran.status.success(), "{}", ran.stderr);
            findings.check(same(&flat, &threaded), "-F", || format!("{shape:?}"));
            // makedumpfile -R gives the plain file.
            let restored = file(fixture, &format!("{shape:?}.restored"));
            let mut makedumpfile = command(tool("makedumpfile"), &["-R"]);
            let done = makedumpfile.arg(&restored).stdin(File::open(&flat).unwrap()).output().unwrap();
            assert!(done.status.success(), "{done:?}");
            findings.check(same(&plain, &restored), "makedumpfile -R", || format!("{shape:?}"));
            // crash and drgn read the stream itself.
            like_the_plain_file(fixture, &plain, &[&flat], "crash on a flattened file", findings);
            let (is, should) = (drgn::ask(fixture, &flat), drgn::facts(fixture, shape));
            findings.check(is.tasks.len() == should.tasks.len() && is.release == should.release, "drgn", || {
                format!("{} tasks for {}", is.tasks.len(), should.tasks.len())
            });
            for path in [flat, threaded, restored] {
                std::fs::remove_file(path).unwrap();
            }
        }
    });
}

/// ssh and the like: a reader that goes away ends it, with an error that may pass.
#[test]
fn a_pipe_that_breaks_is_trouble() {
    let vmcore = sample().vmcore.to_str().unwrap();
    let script = "\"$@\" | head -c 100000 >/dev/null; exit ${PIPESTATUS[0]}";
    let out = command("bash", &["-c", script, "bash", env!("CARGO_BIN_EXE_xdump-cut"), "-q", vmcore, "-"]).output();
    let out = out.unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(3) && said.contains("standard output: Broken pipe"), "{said}");
}

#[test]
fn split_files_are_one_dump() {
    on_each_fixture(|fixture, findings| {
        let (plain, stem) = (cut(fixture, Shape::Kdump), file(fixture, "split"));
        let vmcore = fixture.vmcore.to_str().unwrap();
        let ran = run(xdump_cut(&["-d", "1", "--split", "3", "--verify", vmcore]).arg(&stem), LIMIT);
        assert!(ran.status.success(), "{}", ran.stderr);
        findings.check(ran.stdout.contains("in 3 files") && ran.stdout.contains("verified: "), "report", || ran.stdout);
        let parts: Vec<PathBuf> = (1..=3).map(|n| file(fixture, &format!("split.{n}"))).collect();
        let all: Vec<&Path> = parts.iter().map(PathBuf::as_path).collect();
        like_the_plain_file(fixture, &plain, &all, "crash on a split dump", findings);
        // makedumpfile joins them.
        let joined = file(fixture, "joined");
        let ran = run(command(tool("makedumpfile-codecs"), &["--reassemble"]).args(&parts).arg(&joined), LIMIT);
        assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
        same_pages(&Kdump::open(&joined), &*dump::open(&plain), findings);
        // They are of like size: a third of the data each.
        let sizes: Vec<u64> = parts.iter().map(|p| p.metadata().unwrap().len()).collect();
        findings.check(sizes.iter().all(|s| s * 6 > sizes.iter().sum::<u64>()), "sizes", || format!("{sizes:?}"));
        std::fs::remove_file(joined).unwrap();
        parts.iter().for_each(|p| std::fs::remove_file(p).unwrap());
    });
}

fn same_pages(is: &dyn Dump, should: &dyn Dump, findings: &mut Findings) {
    let frames = should.frames();
    findings.check(is.frames() == frames, "other pages", || format!("{} for {}", is.frames().len(), frames.len()));
    for frame in frames {
        findings.check(is.page(frame) == should.page(frame), "page differs", || format!("{frame:#x}"));
    }
}

#[test]
fn elf_in_seekable_zstd_is_the_elf() {
    on_each_fixture(|fixture, findings| {
        let (plain, packed) = (cut(fixture, Shape::Elf), file(fixture, "elf.zst"));
        let vmcore = fixture.vmcore.to_str().unwrap();
        for threads in ["1", "3"] {
            // The name asks for the format.
            let args = ["-d", "1", "-f", "--verify", "--threads", threads, vmcore];
            let ran = run(xdump_cut(&args).arg(&packed), LIMIT);
            assert!(ran.status.success(), "{}", ran.stderr);
            let unpacked = file(fixture, "unpacked.elf");
            into_file(command("zstd", &["-dc"]).arg(&packed), &unpacked);
            findings.check(same(&plain, &unpacked), "zstd -d", || format!("{threads} threads"));
            std::fs::remove_file(unpacked).unwrap();
        }
        // A pipe takes it as it is.
        let piped = file(fixture, "piped");
        into_file(&mut xdump_cut(&["-q", "-d", "1", "--format", "elf.zst", vmcore, "-"]), &piped);
        findings.check(same(&packed, &piped), "standard output", String::new);
        // Each frame of the table is one, and their content is the file's.
        let (bytes, elf) = (std::fs::read(&packed).unwrap(), std::fs::read(&plain).unwrap());
        let end = bytes.len();
        assert_eq!(u32_at(&bytes, end - 4), 0x8f92_eab1);
        let frames = u32_at(&bytes, end - 9) as usize;
        let table = end - 9 - frames * 8;
        assert_eq!((u32_at(&bytes, table - 8), u32_at(&bytes, table - 4) as usize), (0x184d_2a5e, frames * 8 + 9));
        let (mut at, mut plain_at) = (0, 0);
        for entry in bytes[table..end - 9].chunks_exact(8) {
            let (size, content) = (u32_at(entry, 0) as usize, u32_at(entry, 4) as usize);
            let one = zstd::bulk::decompress(&bytes[at..at + size], content).unwrap();
            findings.check(one == elf[plain_at..plain_at + content], "frame", || format!("at {at:#x}"));
            (at, plain_at) = (at + size, plain_at + content);
        }
        findings.check((at, plain_at) == (table - 8, elf.len()), "table", || format!("{at:#x} {plain_at:#x}"));
        [packed, piped].iter().for_each(|p| std::fs::remove_file(p).unwrap());
    });
}

/// libkdumpfile itself, which drgn's wheel hides: format, release, kernel text, and every page.
#[test]
fn libkdumpfile_reads_every_page() {
    on_each_fixture(|fixture, findings| {
        for shape in [Shape::Kdump, Shape::Zlib, Shape::Raw, Shape::Elf] {
            let path = cut(fixture, shape);
            let output = dump::open(&path);
            // All of the sample, and some of those that only some machines have.
            let step = if fixture.name == sample().name { 1 } else { 11 };
            let frames: Vec<u64> = output.frames().into_iter().step_by(step).collect();
            let [script, asked, pages] = ["pages.py", "frames", "pages"].map(|name| file(fixture, name));
            std::fs::write(&script, include_str!("support/kdumpfile_pages.py")).unwrap();
            std::fs::write(&asked, frames.iter().map(|f| format!("{f:x}\n")).collect::<String>()).unwrap();
            let text = support::symbols::Symbols::read(fixture.vmlinux()).address("_text");
            let mut python = Command::new(tool("kdumpfile-python"));
            python.arg(&script).arg(&path).arg(format!("{text:x}")).arg(&asked);
            let facts = into_file(&mut python, &pages);
            findings.check(facts.contains("x86_64") && facts.contains(release(fixture)), "facts", || facts.clone());
            let cpus = format!(" {} ", fixture.vcpus().len());
            findings.check(facts.contains(&cpus) && !facts.contains(&"00".repeat(16)), "facts", || facts.clone());
            let pages = std::fs::read(pages).unwrap();
            assert_eq!(pages.len(), frames.len() * PAGE, "{facts}");
            for (frame, page) in frames.iter().zip(pages.chunks_exact(PAGE)) {
                findings.check(page == &output.page(*frame).unwrap()[..], "page", || format!("{shape:?}: {frame:#x}"));
            }
        }
    });
}

/// A file that ends early: as much as fits, marked so, and nothing under the name itself.
#[test]
fn what_does_not_fit_is_missing_and_said() {
    let fixture = sample();
    let vmcore = fixture.vmcore.to_str().unwrap();
    for (format, share) in [("kdump", 10), ("kdump", 2), ("elf", 10), ("elf", 2), ("elf.zst", 2)] {
        let whole = cut_with(fixture, &format!("whole.{format}"), &["-d", "1", "-f", "--format", format]);
        let len = whole.metadata().unwrap().len();
        let (limit, out) = (len - len / share, file(fixture, "short"));
        // Verified too, of what there is.
        let args = ["-d", "1", "--verify", "--report", "json", "--format", format, "-L", &limit.to_string(), vmcore];
        let ran = run(xdump_cut(&args).arg(&out), LIMIT);
        let left = file(fixture, "short.incomplete");
        assert!(ran.status.code() == Some(3) && !out.exists(), "{format}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("output is incomplete") && ran.stderr.contains("short.incomplete"),
            "{}",
            ran.stderr
        );
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        let pages = report["output"]["pages"].as_u64().unwrap();
        assert!(report["output"]["incomplete"].as_str().unwrap().contains("limit"), "{report}");
        let (planned, len) = (report["output"]["planned"].as_u64().unwrap(), left.metadata().unwrap().len());
        assert!(pages < planned && len <= limit, "{format}: {pages} of {planned} pages, {len} of {limit} bytes");
        let mut readable = left.clone();
        if format == "elf.zst" {
            readable = file(fixture, "short.elf");
            into_file(command("zstd", &["-dc"]).arg(&left), &readable);
        }
        // Each page is the whole file's, or not there; crash says what it is, and reads what there is.
        let plain = if format == "elf.zst" { cut(fixture, Shape::Elf) } else { whole };
        let (short, whole) = (dump::open(&readable), dump::open(&plain));
        let there: Vec<u64> = whole.frames().into_iter().filter(|f| short.is_there(*f)).collect();
        assert!(there.iter().all(|f| short.page(*f) == whole.page(*f)), "{format}");
        assert!(there.len() < whole.frames().len(), "{format}: {}", there.len());
        assert_eq!(there.len() as u64, pages, "{format}");
        let input = file(fixture, "short.crash");
        std::fs::write(&input, "log\nexit\n").unwrap();
        let mut crash = command(tool("crash"), &["--minimal", "--no_scroll", "-s"]);
        let ran = run(crash.arg(fixture.vmlinux()).arg(&readable).arg("-i").arg(&input), LIMIT);
        let said = ran.stdout + &ran.stderr;
        assert!(said.contains("incomplete") && said.contains(fixture.banner()), "{format}: {said}");
        [left, readable].iter().for_each(|p| drop(std::fs::remove_file(p)));
    }
}

/// The digest is of pages, and the same for every form; this is what the manual says it is.
#[test]
fn the_digest_is_of_pages() {
    on_each_fixture(|fixture, findings| {
        let vmcore = fixture.vmcore.to_str().unwrap();
        let mut digests = Vec::new();
        for (format, more) in [
            ("kdump", &[][..]),
            ("kdump", &["--compress", "zlib", "--threads", "1"]),
            ("kdump", &["--split", "2"]),
            ("kdump", &["-F"]),
            ("elf", &[]),
            ("elf", &["-F"]),
            ("elf.zst", &[]),
        ] {
            let out = file(fixture, "digest");
            let args = ["-d", "1", "-f", "--report", "json", "--digest", "--format", format];
            let ran = run(xdump_cut(&args).args(more).arg(vmcore).arg(&out), LIMIT);
            assert!(ran.status.success(), "{}", ran.stderr);
            let report: Value = serde_json::from_str(&ran.stdout).unwrap();
            digests.push(report["output"]["digest"].as_str().unwrap().to_string());
            if more.is_empty() && format != "elf.zst" {
                let output = dump::open(&out);
                let mut all = blake3::Hasher::new();
                for frame in output.frames() {
                    let page = output.page(frame).unwrap();
                    let bytes: Vec<u8> = frame.to_le_bytes().into_iter().chain(page.iter().copied()).collect();
                    all.update(blake3::hash(&bytes).as_bytes());
                }
                let computed = all.finalize().to_hex().to_string();
                findings.check(computed == *digests.last().unwrap(), "computed", || format!("{format}: {computed}"));
                let note = output.notes().iter().find(|n| n.name == "XDUMPCUT").unwrap();
                let text = String::from_utf8(note.desc.clone()).unwrap();
                let line = format!("DIGEST=blake3:{computed}\n");
                findings.check(text.ends_with(&line), "note", || text.clone());
            }
        }
        digests.dedup();
        findings.check(digests.len() == 1, "digests", || format!("{digests:?}"));
    });
}

/// Nothing is written, and what is told is near what a cut then has.
#[test]
fn a_dry_run_tells_sizes() {
    on_each_fixture(|fixture, findings| {
        for level in ["1", "31"] {
            let (folder, vmcore) =
                (scratch().join(format!("{}.dry-run", fixture.name)), fixture.vmcore.to_str().unwrap());
            std::fs::create_dir_all(&folder).unwrap();
            let args = ["--dry-run", "-d", level, "--report", "json", vmcore];
            let ran = run(xdump_cut(&args).arg(folder.join("out")), LIMIT);
            assert!(ran.status.success(), "{}", ran.stderr);
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
            let report: Value = serde_json::from_str(&ran.stdout).unwrap();
            for (name, options) in [
                ("kdump none", &["--compress", "none"][..]),
                ("kdump zlib:1", &["--compress", "zlib"]),
                ("kdump zstd:1", &[]),
                ("elf", &["-E"]),
                ("elf in zstd:3", &["--format", "elf.zst"]),
            ] {
                let mut all = vec!["-d", level, "-f"];
                all.extend(options);
                let real = cut_with(fixture, "dry", &all).metadata().unwrap().len();
                let told = report["estimate"]["bytes"][name].as_u64().unwrap();
                let (low, high) = (real - real / 4, real + real / 4);
                findings
                    .check((low..=high).contains(&told), "size", || format!("-d {level} {name}: {told} for {real}"));
                let most = report["estimate"]["at_most"].as_u64().unwrap();
                findings.check(real <= most, "at most", || format!("-d {level} {name}: {most} for {real}"));
            }
        }
    });
    // Where there is no room, it says so before anybody tries.
    let vmcore = sample().vmcore.to_str().unwrap();
    let ran = run(&mut xdump_cut(&["--dry-run", "-d", "1", "-E", vmcore, "/proc/out"]), LIMIT);
    assert!(ran.status.code() == Some(3) && ran.stderr.contains("are needed in /proc"), "{}", ran.stderr);
}

/// Zero pages of a file that crash reads flattened: they are in the stream, and no gap of it.
#[test]
fn zero_pages_of_a_stream_are_zeros() {
    let fixture = sample();
    let flat = file(fixture, "zeros.flat");
    let vmcore = fixture.vmcore.to_str().unwrap();
    into_file(&mut xdump_cut(&["-q", "-d", "1", vmcore, "-"]), &flat);
    let reads: Vec<String> = zero_pages(fixture).into_iter().map(read_page).collect();
    let asked: Vec<&str> = reads.iter().map(String::as_str).collect();
    let session = ask(fixture.vmlinux(), &flat, &asked);
    for read in &reads {
        let words = session.answer(read).lines().flat_map(|line| line.split_whitespace().skip(1).take(2));
        assert_eq!(words.filter(|word| *word == "0000000000000000").count(), PAGE / 8, "{read}");
    }
}

/// Wrong together, and told before anything is read.
#[test]
fn what_does_not_go_together_is_refused() {
    let vmcore = sample().vmcore.to_str().unwrap();
    for (args, why) in [
        (&["--split", "2", "-E"][..], "only the kdump format can be split"),
        (&["--split", "2", "-F"], "--split with a number does not go with"),
        (&["--verify", "-F"], "--verify needs an output that can be read again"),
        (&["--format", "elf.zst", "--compress", "zlib"], "elf.zst is compressed by zstd"),
        (&["--format", "elf.zst", "-F"], "leave -F out"),
        (&["-L", "10"], "limit of 10 bytes"),
    ] {
        let ran = run(xdump_cut(args).arg(vmcore).arg(scratch().join("refused")), LIMIT);
        let code = if args[0] == "-L" { 3 } else { 2 };
        assert!(ran.status.code() == Some(code) && ran.stderr.contains(why), "{args:?}: {}", ran.stderr);
        assert!(!scratch().join("refused").exists() && !scratch().join("refused.incomplete").exists());
    }
    let ran = run(&mut xdump_cut(&["--verify", "--format", "elf.zst", vmcore, "/dev/null"]), LIMIT);
    assert!(ran.status.code() == Some(2) && ran.stderr.contains("--verify finds the table"), "{}", ran.stderr);
}
