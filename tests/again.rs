//! A cut is cut again: in any format it is the file that the full dump gives in that format, byte for byte.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::cut::{Shape, cut, cut_with};
use support::fixtures::Fixture;
use support::tools::{Ran, run, scratch};
use support::{Findings, on_each_fixture};

const FORMATS: [(&str, &[&str]); 5] = [
    ("kdump", &[]),
    ("elf", &["--format", "elf"]),
    ("elf.zst", &["--format", "elf.zst"]),
    ("zlib", &["--compress", "zlib"]),
    ("flat", &["-F", "--format", "elf"]),
];

fn xdump_cut(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.args(args.iter().map(|a| a.as_ref()));
    run(&mut command, Duration::from_secs(300))
}

/// Cuts `inputs`, several of which are parts, again.
fn again(inputs: &[PathBuf], out: &Path, options: &[&str]) -> Ran {
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q", &"-f"];
    options.iter().for_each(|o| args.push(o));
    if inputs.len() > 1 {
        args.push(&"--split");
    }
    inputs.iter().for_each(|i| args.push(i));
    args.push(&out);
    xdump_cut(&args)
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}

/// Each format of a cut with these options is cut into each; `count` of them.
fn on_each_pair(fixture: &Fixture, name: &str, options: &[&str], count: usize, findings: &mut Findings) {
    let formats = &FORMATS[..count];
    let direct: Vec<PathBuf> = formats
        .iter()
        .map(|(format, more)| cut_with(fixture, &format!("{name}.{format}"), &[options, *more].concat()))
        .collect();
    let out = scratch().join(format!("{}.{name}.again", fixture.name));
    for (from, (input, _)) in direct.iter().zip(formats) {
        for (direct, (to, more)) in direct.iter().zip(formats) {
            let ran = again(std::slice::from_ref(from), &out, more);
            let words = || format!("{input} to {to}: {}{}", ran.stdout, ran.stderr);
            findings.check(ran.status.success(), "failed", words);
            findings.check(ran.stderr.is_empty(), "said something", words);
            findings.check(same(&out, direct), "differs", words);
        }
        // Asked for again and again, the digest is the same; and asked for once, it is the direct cut's.
        if *input == "kdump" && !options.contains(&"--digest") {
            let with = cut_with(fixture, &format!("{name}.digest"), &[options, &["--digest"]].concat());
            let ran = again(std::slice::from_ref(from), &out, &["--digest"]);
            findings.check(same(&out, &with), "digest differs", || ran.stderr.clone());
            std::fs::remove_file(with).unwrap();
        }
    }
    for path in direct.iter().chain([&out]) {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_cut_of_a_cut_is_that_of_the_full_dump() {
    on_each_fixture(|fixture, findings| {
        on_each_pair(fixture, "level31", &[], FORMATS.len(), findings);
        on_each_pair(fixture, "level1", &["-d", "1", "--digest"], 3, findings);
        on_each_pair(fixture, "level0", &["-d", "0"], 2, findings);
    });
}

#[test]
fn guests_too() {
    on_each_fixture(|fixture, findings| {
        let vcpus = fixture.json["vcpus"].as_object().unwrap();
        for id in vcpus.keys().filter(|id| *id != "0") {
            on_each_pair(fixture, &format!("guest{id}"), &["--domain", id, "-d", "31"], 3, findings);
        }
    });
}

#[test]
fn parts_and_wrappers_are_formats_too() {
    on_each_fixture(|fixture, findings| {
        let whole = cut(fixture, Shape::Kdump);
        let stem = cut_with_parts(fixture);
        let parts: Vec<PathBuf> = (1..=3).map(|n| PathBuf::from(format!("{}.{n}", stem.display()))).collect();
        let out = scratch().join(format!("{}.joined", fixture.name));
        let ran = again(&parts, &out, &[]);
        findings.check(ran.status.success() && same(&out, &whole), "joined", || ran.stderr.clone());
        // And split once more.
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q", &"-f", &"--split", &"3"];
        args.extend([&whole as &dyn AsRef<std::ffi::OsStr>, &out]);
        let ran = xdump_cut(&args);
        let split = (1..=3).all(|n| same(Path::new(&format!("{}.{n}", out.display())), &parts[n - 1]));
        findings.check(ran.status.success() && split, "split", || ran.stderr.clone());

        // Two of three parts: the third's pages are missing, and counted.
        let ran = again(&parts[..2], &out, &["--report", "json"]);
        findings.check(ran.stderr.contains("could not be had"), "nothing is said", || ran.stderr.clone());
        let ran = again(&parts[..2], &out, &["--strict"]);
        findings.check(ran.status.code() == Some(1), "not strict", || ran.stderr.clone());

        for packer in ["gzip", "xz", "lz4", "bzip2"] {
            let packed = scratch().join(format!("{}.{packer}", fixture.name));
            let file = std::fs::File::create(&packed).unwrap();
            let status = Command::new(packer).args(["-1", "-c"]).arg(&whole).stdout(file).status().unwrap();
            assert!(status.success());
            let ran = again(std::slice::from_ref(&packed), &out, &[]);
            findings.check(ran.status.success() && same(&out, &whole), packer, || ran.stderr.clone());
            std::fs::remove_file(packed).unwrap();
        }
    });
}

/// The fixture's cut in three parts; without the number at the end.
fn cut_with_parts(fixture: &Fixture) -> PathBuf {
    let out = scratch().join(format!("{}.part", fixture.name));
    let ran = xdump_cut(&[&"-q", &"-f", &"-d", &"1", &"--split", &"3", &fixture.vmcore, &out]);
    assert!(ran.status.success(), "{}", ran.stderr);
    out
}

#[test]
fn a_cut_tells_what_it_is() {
    on_each_fixture(|fixture, findings| {
        for shape in [Shape::Kdump, Shape::Elf] {
            let path = cut(fixture, shape);
            let info = xdump_cut(&[&"info", &path]).stdout;
            let release = fixture.banner().split(' ').nth(2).unwrap();
            findings.check(info.starts_with(&format!("A cut of domain 0, Linux {release}, ")), "info", || info.clone());
            findings.check(info.lines().count() < 40, "longer than a screen", || info.clone());
            let json = xdump_cut(&[&"info", &"--json", &path]).stdout;
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            findings.check(json["level"] == 1 && json["domain"] == 0, "json", || json.to_string());
            // The log of the cut is that of the full dump.
            let [full, ours] = [&fixture.vmcore, &path].map(|dump| xdump_cut(&[&"log", dump]));
            findings.check(ours.stdout == full.stdout && !ours.stdout.is_empty(), "log", || ours.stderr.clone());
        }
        for id in fixture.json["vcpus"].as_object().unwrap().keys() {
            let path = cut_with(fixture, &format!("log{id}"), &["-f", "--domain", id]);
            let full = xdump_cut(&[&"log", &"--domain", id, &fixture.vmcore]);
            let ours = xdump_cut(&[&"log", &path]);
            findings.check(ours.stdout == full.stdout, "guest's log", || format!("{id}: {}", ours.stderr));
        }
    });
}

#[test]
fn what_needs_the_full_dump_is_a_usage_error() {
    let fixture = &support::fixtures::all()[0];
    let path = cut(fixture, Shape::Kdump);
    let out = scratch().join("refused");
    let vmlinux = fixture.vmlinux().to_str().unwrap();
    for (options, words) in [
        (&["-d", "31"][..], "this is a cut of level 1 (zero)"),
        (&["-d", "3"], "cut it from the full dump with that level"),
        (&["--exclude", "free"], "with makedumpfile"),
        (&["--domain", "1"], "it has domain 0 only"),
        (&["--domain", "web"], "no names"),
        (&["--layout", "machine"], "--layout machine does nothing for it"),
        (&["-x", vmlinux], "--vmlinux does nothing"),
    ] {
        let ran = again(std::slice::from_ref(&path), &out, options);
        assert_eq!(ran.status.code(), Some(2), "{options:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words) && ran.stderr.lines().count() == 1, "{options:?}: {}", ran.stderr);
        assert!(!out.exists());
    }
    for args in [
        &[&"--all-domains" as &dyn AsRef<std::ffi::OsStr>, &path, &out][..],
        &[&"info", &"--map", &path],
        &[&"log", &"--xen", &path],
        &[&"log", &"--domain", &"7", &path],
    ] {
        let ran = xdump_cut(args);
        assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("this is a cut"), "{}", ran.stderr);
    }
    // Its own level, its own domain, or less than it left out, which does not come back.
    for options in [&["-d", "1"][..], &["--domain", "0"]] {
        let ran = again(std::slice::from_ref(&path), &out, options);
        assert!(ran.status.success() && ran.stderr.is_empty() && same(&out, &path), "{options:?}: {}", ran.stderr);
    }
    let ran = again(std::slice::from_ref(&path), &out, &["-d", "0"]);
    assert!(ran.status.success() && same(&out, &path), "{}", ran.stderr);
    assert!(ran.stderr.contains("what it has left out cannot come back"), "{}", ran.stderr);
    // Zero pages may leave.
    let all = cut_with(fixture, "all", &["-d", "0"]);
    let ran = again(&[all], &out, &["-d", "1"]);
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}", ran.stderr);
    let (fewer, more) = (out.metadata().unwrap().len(), path.metadata().unwrap().len());
    assert!(fewer.abs_diff(more) < 8192, "{fewer} {more}");
}

/// A page whose bytes were damaged is missing from what is made of the cut, and the digest shows that.
#[test]
fn damage_to_a_cut_is_told() {
    let fixture = &support::fixtures::all()[0];
    let path = cut_with(fixture, "tobreak", &["--digest"]);
    let mut bytes = std::fs::read(&path).unwrap();
    let len = bytes.len();
    bytes[len - 5000..len - 4000].fill(0x55);
    std::fs::write(&path, &bytes).unwrap();
    let out = scratch().join("mended");
    let ran = again(std::slice::from_ref(&path), &out, &["--format", "elf"]);
    assert!(ran.status.success(), "{}", ran.stderr);
    assert!(ran.stderr.contains("pages could not be had"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the digest in the cut's note is not that of its pages"), "{}", ran.stderr);
    let strict = scratch().join("strict");
    let ran = again(&[path], &strict, &["--strict"]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    assert!(!strict.exists());
    // What is made of that knows that pages are missing.
    let last = scratch().join("last");
    let ran = again(&[out], &last, &[]);
    assert!(
        ran.stderr.contains("are missing from the cut although its level did not leave them out"),
        "{}",
        ran.stderr
    );
}
