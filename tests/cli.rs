//! The command as scripts see it: exit statuses, messages, what is left on the disk.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod synth;

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use synth::{Defect, Machine, NotePlace};
use tempfile::TempDir;

struct Folder {
    dir: TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A synthetic dump in it.
    fn dump(&self, machine: Machine) -> PathBuf {
        let path = self.path("vmcore");
        machine.build().write_sparse(&path).unwrap();
        path
    }

    /// Names in it, sorted.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// With struct pages, so that every level can be applied.
fn machine() -> Machine {
    Machine::new().mem_map(true)
}

fn run(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.args(args.iter().map(|a| a.as_ref())).stdin(Stdio::null());
    command.output().unwrap()
}

/// Runs what must fail: one line on standard error that says `words`.
fn fails(status: i32, words: &str, args: &[&dyn AsRef<std::ffi::OsStr>]) {
    let quiet: Vec<&dyn AsRef<std::ffi::OsStr>> = std::iter::once(&"-q" as _).chain(args.iter().copied()).collect();
    let out = run(&quiet);
    let err = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(status), "{err}");
    assert!(err.contains(words) && err.lines().count() == 1, "expected one line with {words:?}: {err}");
    assert!(out.stdout.is_empty());
}

#[test]
fn a_cut_reports_and_leaves_one_private_file() {
    let f = Folder::new();
    let dump = f.dump(machine());
    let out = run(&[&dump, &f.path("out")]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0));
    for words in ["Linux 6.12", "kept", "zero, read as zeros", "Xen-free", "other domains", "cleared: xen_start_info"] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    // No terminal: plain lines, one per stage.
    let progress = String::from_utf8(out.stderr).unwrap();
    assert!(progress.lines().all(|l| l.starts_with("xdump-cut: ")) && progress.contains("writing pages"), "{progress}");
    assert_eq!(f.names(), ["out", "vmcore"]);
    assert_eq!(f.path("out").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn logs_go_to_standard_output() {
    let f = Folder::new();
    let lines = vec!["first".to_string(), "second".to_string()];
    let xen: String = (0..9).map(|n| format!("(XEN) line {n}\n")).collect();
    let dump = f.dump(machine().log(lines).conring(Some(xen.clone())));
    let said = |options: &[&dyn AsRef<std::ffi::OsStr>]| {
        let out = run(&[&[&"log" as &dyn AsRef<std::ffi::OsStr>, &dump], options].concat());
        let said = String::from_utf8(out.stdout).unwrap();
        (out.status.code(), said, String::from_utf8(out.stderr).unwrap())
    };
    let plain = "[    0.000000] first\n[    1.002003] second\n".to_string();
    assert_eq!(said(&[]), (Some(0), plain.clone(), String::new()));
    assert_eq!(said(&[&"--raw"]), (Some(0), plain.replace('[', "<29>["), String::new()));
    assert_eq!(said(&[&"--xen", &"--no-mmap"]), (Some(0), xen, String::new()));
    for (status, words, options) in [
        (1, "no page table of domain 1 maps one", &["--domain", "1"][..]),
        (2, "there is no domain 9; the dump has 0, 1", &["--domain", "9"]),
        (2, "cannot be used with", &["--xen", "--raw"]),
        (2, "cannot be used with", &["--xen", "--domain", "0"]),
    ] {
        let options: Vec<&dyn AsRef<std::ffi::OsStr>> = options.iter().map(|o| o as _).collect();
        let (code, out, err) = said(&options);
        assert_eq!((code, out.as_str()), (Some(status), ""), "{err}");
        assert!(err.contains(words), "{err}");
    }
    assert_eq!(run(&[&"log", &f.path("nothing")]).status.code(), Some(3));
    // A full disk is no reader that went away.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    let out = command.arg("log").arg(&dump).stdout(full).output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn json_for_scripts_and_quiet_for_cron() {
    let f = Folder::new();
    let dump = f.dump(machine());
    let out = run(&[&dump, &f.path("a.elf"), &"--report", &"json"]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["output"]["format"], "elf");
    assert_eq!(report["domain"]["id"], 0);
    assert_eq!(report["output"]["bytes"], f.path("a.elf").metadata().unwrap().len());
    // At a higher level there is a warning: this machine has struct pages that cannot be read.
    let quiet = run(&[&"-q", &"-d0", &dump, &f.path("b")]);
    assert!(quiet.status.success() && quiet.stdout.is_empty() && quiet.stderr.is_empty());
}

#[test]
fn what_the_format_of_xl_dump_core_cannot_do() {
    let f = Folder::new();
    let (dump, out) = (f.dump(machine()), f.path("out"));
    let core = ["--format", "xc-core"];
    fails(2, "--layout machine is for kdump and ELF", &[&core[0], &core[1], &"--layout", &"machine", &dump, &out]);
    fails(2, "xc-core has none", &[&core[0], &core[1], &"--compress", &"zlib", &dump, &out]);
    assert_eq!(f.names(), ["vmcore"]);
    // Everything, unless told otherwise.
    for (options, level) in [(&[][..], 0), (&["-d", "17"], 17), (&["--exclude", "cache"], 2)] {
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-f", &"--report", &"json", &dump, &out];
        args.extend(core.iter().chain(options).map(|a| a as &dyn AsRef<_>));
        let report: Value = serde_json::from_slice(&run(&args).stdout).unwrap();
        assert_eq!((&report["level"]["asked"], &report["output"]["format"]), (&level.into(), &"xc-core".into()));
    }
    let folder = f.path("all");
    let all = run(&[&core[0], &core[1], &"-q", &"--all-domains", &dump, &folder]);
    assert_eq!(all.status.code(), Some(0), "{}", String::from_utf8_lossy(&all.stderr));
    assert!(folder.join("dom0.core").exists() && folder.join("dom1.core").exists());
}

#[test]
fn the_name_or_an_option_chooses_the_format() {
    let f = Folder::new();
    let dump = f.dump(machine());
    let starts = |name: &str, magic: &[u8]| std::fs::read(f.path(name)).unwrap().starts_with(magic);
    for (name, options, magic) in [
        ("a", &["--compress", "none"][..], &b"KDUMP   "[..]),
        ("b.elf", &[], b"\x7fELF"),
        ("c", &["-E"], b"\x7fELF"),
        ("d", &["--format", "elf"], b"\x7fELF"),
        ("e.elf", &["--format", "kdump"], b"KDUMP   "),
        ("f.elf", &["--compress", "zlib:6"], b"KDUMP   "),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
        let done = command.arg("-q").args(options).arg(&dump).arg(f.path(name)).status().unwrap();
        assert!(done.success() && starts(name, magic), "{name} {options:?}");
    }
}

#[test]
fn an_existing_output_stays_without_force() {
    let f = Folder::new();
    let dump = f.dump(machine());
    std::fs::write(f.path("out"), "precious").unwrap();
    fails(2, "exists; give -f", &[&dump, &f.path("out")]);
    assert_eq!(std::fs::read(f.path("out")).unwrap(), b"precious");
    assert!(run(&[&"-q", &"-f", &dump, &f.path("out")]).status.success());
    assert!(std::fs::read(f.path("out")).unwrap().starts_with(b"KDUMP"));
    fails(2, "is the dump itself", &[&"-f", &dump, &dump]);
}

#[test]
fn what_stands_beside_the_output_is_not_overwritten_unasked() {
    let f = Folder::new();
    let dump = f.dump(machine());
    let left = f.path("out.incomplete");
    std::fs::write(&left, "half").unwrap();
    let file = std::fs::File::open(&left).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    fails(3, "in use by another run", &[&dump, &f.path("out")]);
    assert_eq!(std::fs::read(&left).unwrap(), b"half");
    fails(3, "in use by another run", &[&"-f", &dump, &f.path("out")]);
    drop(file);
    // Left by a run that was killed, or somebody's own: only with -f.
    fails(2, "out.incomplete exists; give -f", &[&dump, &f.path("out")]);
    assert_eq!(std::fs::read(&left).unwrap(), b"half");
    std::fs::set_permissions(&left, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(run(&[&"-q", &"-f", &dump, &f.path("out")]).status.success());
    assert_eq!(f.names(), ["out", "vmcore"]);
    assert_eq!(f.path("out").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // The dump itself may be called so.
    std::fs::rename(&dump, f.path("x.incomplete")).unwrap();
    fails(2, "is the dump itself", &[&"-f", &f.path("x.incomplete"), &f.path("x")]);
    assert!(f.path("x.incomplete").metadata().unwrap().len() > 1 << 20);
}

#[test]
fn bad_input_says_what_it_is() {
    let f = Folder::new();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(f.path(name), bytes).unwrap();
        f.path(name)
    };
    let out = f.path("out");
    let of = |change: fn(&mut synth::ElfOptions)| Machine::new().with_elf(change).build().bytes;
    fails(1, "neither ELF, nor", &[&write("empty", b""), &out]);
    fails(1, "neither ELF, nor", &[&write("text", b"hello\n"), &out]);
    fails(1, "zstd stream", &[&write("bad.zst", b"\x28\xb5\x2f\xfdrubbish"), &out]);
    let root = Machine::new().build().truth.pgd_l4_mfn;
    let plain = Machine::new().with_elf(|e| {
        e.no_xen_notes();
        e.holes = vec![(root, root + 1)];
    });
    fails(1, "not a Xen dump", &[&write("plain", &plain.build().bytes), &out]);
    let by_qemu = write("qemu", &of(|e| e.by_qemu()));
    let syms = write("xen-syms", &synth::syms::xen_syms(&Machine::new().seed(2).build(), true));
    fails(2, "is not of the Xen in the dump", &[&"--xen-syms", &syms, &by_qemu, &out]);
    fails(2, "is no xen-syms", &[&"--xen-syms", &f.path("text"), &by_qemu, &out]);
    fails(3, "No such file", &[&"--xen-syms", &f.path("nosyms"), &by_qemu, &out]);
    fails(1, "32-bit", &[&write("elf32", &of(|e| e.class32 = true)), &out]);
    fails(1, "big-endian", &[&write("big", &of(|e| e.big_endian = true)), &out]);
    let no_list = Machine::new().linear_p2m(Some(false)).m2p_unset(true).defect(Defect::FrameListListOutside);
    fails(1, "the P2M is missing", &[&write("nolist", &no_list.build().bytes), &out]);
    let half = Machine::new().build().bytes;
    fails(1, "cut short", &[&write("half", &half[..half.len() / 4]), &out]);
    fails(3, "No such file", &[&f.path("nowhere"), &out]);
    fails(2, "folder", &[&f.dir.path(), &out]);
    fails(2, "--keep-xen needs --layout machine", &[&"--keep-xen", &f.path("nowhere"), &out]);
    assert!(!out.exists() && !f.path("out.incomplete").exists());
}

#[test]
fn a_domain_list_that_loops_is_a_warning() {
    let f = Folder::new();
    let dump = f.dump(machine().domus(2).defect(Defect::DomainListLoop));
    let out = run(&[&"-q", &dump, &f.path("out")]);
    let err = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(0), "{err}");
    assert!(err.contains("warning: the domain list is damaged or loops"), "{err}");
}

#[test]
fn output_that_cannot_be_written_leaves_nothing() {
    let f = Folder::new();
    let dump = f.dump(machine());
    fails(3, "No such file", &[&dump, &f.path("no/such/folder/out")]);
    fails(3, "No space left", &[&dump, &Path::new("/dev/full")]);
    assert!(Command::new("mkfifo").arg(f.path("pipe")).status().unwrap().success());
    fails(2, "is a pipe", &[&dump, &f.path("pipe")]);
    std::fs::remove_file(f.path("pipe")).unwrap();
    std::os::unix::fs::symlink("nowhere", f.path("link")).unwrap();
    fails(2, "exists; give -f", &[&dump, &f.path("link")]);
    std::fs::remove_file(f.path("link")).unwrap();
    fails(2, "folder", &[&dump, &f.dir.path()]);
}

/// What was written until then is worth having.
#[test]
fn a_full_disk_leaves_an_incomplete_file_that_says_so() {
    let f = Folder::new();
    let dump = f.dump(machine());
    for option in ["-E", "--compress=none", "--format=elf.zst"] {
        // A limit on file sizes stands for a full disk: the write in the middle fails.
        let script = "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"";
        let mut command = Command::new("bash");
        let blocks = if option.ends_with("zst") { "200" } else { "1000" };
        command.args(["-c", script, "bash", blocks, env!("CARGO_BIN_EXE_xdump-cut"), "-q", option]);
        let out = command.arg(&dump).arg(f.path("out")).output().unwrap();
        let err = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(3) && err.contains("File too large"), "{option}: {err}");
        assert!(err.contains("out.incomplete has ") && err.contains("output is incomplete"), "{option}: {err}");
        assert_eq!(f.names(), ["out.incomplete", "vmcore"], "{option}");
        // The next run does not take it away unasked.
        fails(2, "out.incomplete exists; give -f", &[&option, &dump, &f.path("out")]);
        let left = std::fs::read(f.path("out.incomplete")).unwrap();
        match option {
            "-E" => assert_eq!(left[48], 1),
            "--compress=none" => assert_eq!(left[424], 8),
            _ => assert_eq!(left[left.len() - 4..], 0x8f92_eab1_u32.to_le_bytes()),
        }
        std::fs::remove_file(f.path("out.incomplete")).unwrap();
    }
}

#[test]
fn wrong_calls_end_with_usage() {
    for args in [
        &["one"][..],
        &["-d", "32", "a", "b"],
        &["--exclude", "all", "a", "b"],
        &["--compress", "lzo:1", "a", "b"],
        &["-z", "-c", "a", "b"],
        &["-p", "--compress", "snappy", "a", "b"],
        &["-E", "-l", "a", "b"],
        &["--format", "elf", "-p", "a", "b"],
        &["--threads", "0", "a", "b"],
    ] {
        let out = Command::new(env!("CARGO_BIN_EXE_xdump-cut")).args(args).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(!out.stderr.is_empty());
    }
    let out = run(&[&"--compress", &"lz4", &"a", &"b"]);
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(2) && err.contains("zstd[:-7..19], zlib[:1-9], lzo, snappy, none"), "{err}");
}

fn report(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Value {
    let json: Vec<&dyn AsRef<std::ffi::OsStr>> =
        ["-f", "--report", "json"].iter().map(|a| a as _).chain(args.iter().copied()).collect();
    let out = run(&json);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn levels_are_numbers_or_names() {
    let f = Folder::new();
    let dump = f.dump(machine());
    let cut = |options: &[&str]| {
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = options.iter().map(|o| o as _).collect();
        let out = f.path("out");
        args.extend([&dump as &dyn AsRef<std::ffi::OsStr>, &out]);
        let report = report(&args);
        (report, std::fs::read(&out).unwrap())
    };
    let (all, bytes) = cut(&[]);
    assert_eq!((&all["level"]["asked"], &all["level"]["applied"]), (&31.into(), &31.into()));
    for class in ["free", "cache", "cache-private", "user", "offline", "hwpoison"] {
        let n = all["output"]["excluded"][class].as_u64();
        assert!(n > Some(0) || class == "offline", "{class}: {n:?}");
    }
    assert!(bytes == cut(&["-d", "31"]).1 && bytes == cut(&["--exclude", "zero,free,user,cache,cache-private"]).1);
    let (free, bytes) = cut(&["--exclude", "free"]);
    assert!(bytes == cut(&["-d16"]).1);
    assert_eq!(free["output"]["zero"], 0);
    assert!(free["output"]["excluded"]["free"].as_u64() > Some(0));
    assert_eq!(free["output"]["excluded"]["cache"], Value::Null);
    let (nothing, _) = cut(&["-d", "0"]);
    assert_eq!(nothing["output"]["excluded"], serde_json::json!({}));
}

/// Without a VMCOREINFO in the dump a script sees the difference, may insist, or gives one.
#[test]
fn a_level_that_cannot_be_applied_is_said() {
    let f = Folder::new();
    let whole = machine().build();
    let text = f.path("vmcoreinfo");
    std::fs::write(&text, &whole.truth.vmcoreinfo).unwrap();
    let dump = f.dump(machine().note_place(NotePlace::None));
    let out = f.path("out");
    let told = report(&[&dump, &out]);
    assert_eq!((&told["level"]["asked"], &told["level"]["applied"]), (&31.into(), &1.into()));
    let warnings = told["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|w| w.as_str().unwrap().contains("only level 1 (zero) applied")), "{warnings:?}");
    assert!(told["output"]["excluded"].as_object().unwrap().is_empty());
    fails(
        1,
        "level 31 (zero, cache, cache-private, user, free) cannot be applied",
        &[&"--require-level", &dump, &f.path("x")],
    );
    // Zero pages need no VMCOREINFO.
    assert!(run(&[&"-q", &"-d1", &"--require-level", &dump, &f.path("x")]).status.success());
    let given = report(&[&"--vmcoreinfo", &text, &dump, &out]);
    assert_eq!(given["level"]["applied"], 31);
    assert_eq!(given["domain"]["vmcoreinfo"], "given by the user");
    assert!(given["output"]["excluded"]["free"].as_u64() > Some(100));
    // One of another kernel, and something else.
    std::fs::write(&text, whole.truth.vmcoreinfo.replace("OSRELEASE=6.12.117", "OSRELEASE=6.12.118")).unwrap();
    fails(2, "not of the kernel in the dump", &[&"-f", &"-i", &text, &dump, &out]);
    fails(2, "is no VMCOREINFO", &[&"-f", &"-i", &dump, &dump, &out]);
    fails(3, "No such file", &[&"-f", &"-i", &f.path("none"), &dump, &out]);
}

#[test]
fn info_tells_as_text_and_json() {
    let f = Folder::new();
    let dump = f.dump(machine().domus(2));
    let text = String::from_utf8(run(&[&"info", &dump]).stdout).unwrap();
    for words in ["Xen 4.17", "notes", "VMCOREINFO_XEN", "hardware domain, Linux 6.12", "vCPU 0: on CPU 0", "free"] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    let info: Value = serde_json::from_slice(&run(&[&"info", &"--json", &dump]).stdout).unwrap();
    assert_eq!(info["domains"].as_array().unwrap().len(), 3);
    assert_eq!(info["pages"]["exact"], true);
    assert!(info["pages"]["domains"]["0"].as_u64().unwrap() >= 1300);
    assert_eq!(info["domains"][0]["vcpus"][0]["state"], "on CPU 0");
}

#[test]
fn every_way_to_read_gives_the_same_cut() {
    let f = Folder::new();
    let dump = f.dump(machine());
    let bytes = std::fs::read(&dump).unwrap();
    std::fs::write(f.path("dense"), &bytes).unwrap();
    std::fs::write(f.path("packed"), zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
    for format in ["elf", "kdump"] {
        let cut = |name: &str, options: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
            command.args(["-q", "-f", "--format", format]).args(options).arg(f.path(name)).arg(f.path("out"));
            assert!(command.status().unwrap().success(), "{name} {options:?}");
            std::fs::read(f.path("out")).unwrap()
        };
        let first = cut("vmcore", &[]);
        for (name, options) in [
            ("vmcore", &["--no-mmap"][..]),
            ("vmcore", &["--threads", "1"]),
            ("vmcore", &["--threads", "7"]),
            ("dense", &[]),
            ("dense", &["--no-mmap", "--threads", "3"]),
            ("packed", &[]),
        ] {
            assert!(cut(name, options) == first, "{format}: {name} {options:?} differs");
        }
    }
}

/// `--map` may be followed by the picture's name or the dump's; a picture that is there stays.
#[test]
fn maps_are_drawn_as_asked() {
    let f = Folder::new();
    let dump = f.dump(machine());
    let picture = f.path("map.svg");
    for args in [&[&"info" as &dyn AsRef<std::ffi::OsStr>, &"--map", &dump][..], &[&"info", &dump, &"--map"]] {
        let out = run(args);
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && text.contains("memory of the machine") && text.contains("D d  dom0"), "{text}");
    }
    assert_eq!(f.names(), ["vmcore"]);
    for args in [
        &[&"info" as &dyn AsRef<std::ffi::OsStr>, &"--map", &picture, &dump][..],
        &[&"info", &dump, &"--map", &picture],
    ] {
        let out = run(args);
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && text.contains("map.svg") && !text.contains("D d  dom0"), "{text}");
        assert!(std::fs::read_to_string(&picture).unwrap().ends_with("</svg>\n"));
        let again = run(&[&"info", &dump, &"--map", &picture]);
        assert!(again.status.code() == Some(2) && again.stdout.is_empty());
        assert!(run(&[&"info", &dump, &"-f", &"--map", &picture]).status.success());
        assert_eq!(f.names(), ["map.svg", "vmcore"]);
        std::fs::remove_file(&picture).unwrap();
    }
    let json: Value = serde_json::from_slice(&run(&[&"info", &"--json", &"--map", &dump]).stdout).unwrap();
    assert_eq!(json["map"]["legend"][0]["name"], "dom0");
    assert_eq!(json["map"]["pages"], json["pages"]["frames"]);
    for (words, args) in [
        ("name the dump", &[&"info" as &dyn AsRef<std::ffi::OsStr>, &"--map"][..]),
        ("name the dump too", &[&"info", &"--map", &picture]),
        ("ends in .svg", &[&"info", &"--map", &"map.png", &dump]),
    ] {
        let out = run(args);
        let err = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(2) && err.contains(words) && err.lines().count() == 1, "{err}");
    }
    // A picture is written where the dump is no good only if there is something to draw.
    std::fs::write(f.path("text"), "no dump").unwrap();
    assert_eq!(run(&[&"info", &f.path("text"), &"--map", &picture]).status.code(), Some(1));
    assert_eq!(f.names(), ["text", "vmcore"]);
}
