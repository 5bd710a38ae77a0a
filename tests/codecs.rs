//! Each way of compressing pages: as makedumpfile spells it, as the file tells of it, and as readers open it. On one real
//! dump, as only the codecs differ; that the pages are dom0's is shown for zstd, zlib and none in tests/truth.rs, and that
//! they are those here. lzo is in builds with the feature `lzo` only; tests/all runs this file in both.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::crash::ask;
use support::cut::{Shape, cut, cut_with};
use support::drgn::facts;
use support::dump::{Dump, u32_at};
use support::fixtures::{self, Fixture};
use support::kdump::Kdump;
use support::tools::{Ran, run, scratch, tool};

const LIMIT: Duration = Duration::from_secs(240);

/// A codec as it is asked for, and as a file tells of it.
struct Codec {
    shape: Shape,
    long: &'static str,
    short: &'static str,
    flag: u32,
    /// Which of `.ci/tools` makedumpfiles reads it: none of Debian's is built with snappy, Debian 12's not with zstd.
    makedumpfiles: &'static [&'static str],
}

const BOTH: &[&str] = &["makedumpfile", "makedumpfile-codecs"];

const CODECS: &[Codec] = &[
    Codec { shape: Shape::Kdump, long: "zstd", short: "-z", flag: 0x20, makedumpfiles: &["makedumpfile-codecs"] },
    Codec { shape: Shape::Zlib, long: "zlib", short: "-c", flag: 1, makedumpfiles: BOTH },
    Codec { shape: Shape::Snappy, long: "snappy", short: "-p", flag: 4, makedumpfiles: &[] },
    #[cfg(feature = "lzo")]
    Codec { shape: Shape::Lzo, long: "lzo", short: "-l", flag: 2, makedumpfiles: BOTH },
];

fn fixture() -> &'static Fixture {
    fixtures::all().iter().find(|f| f.name == "xen-4.17-linux-6.12-panic").expect("the panic fixture of testdata")
}

fn xdump_cut(args: &[&str], files: &[&Path]) -> Ran {
    let ran = run(Command::new(env!("CARGO_BIN_EXE_xdump-cut")).args(args).args(files), LIMIT);
    assert!(ran.status.success(), "{args:?} {files:?}: {}", ran.stderr);
    ran
}

/// Each page of both is there, and the same.
fn same_pages(what: &str, a: &Kdump, b: &Kdump) {
    let frames = a.frames();
    assert!(frames.len() > 10_000 && frames == b.frames(), "{what}: other frames");
    let other = frames.into_iter().find(|&frame| a.page(frame) != b.page(frame));
    assert_eq!(other, None, "{what}: the first frame that differs");
}

#[test]
fn pages_are_the_same_and_told_to_be_compressed_so() {
    let raw = Kdump::open(&cut(fixture(), Shape::Raw));
    assert_eq!(u32_at(&raw.header, 424), 0);
    assert!(raw.sizes().all(|size| size == (4096, 0)));
    for codec in CODECS {
        let packed = Kdump::open(&cut(fixture(), codec.shape));
        assert_eq!(u32_at(&packed.header, 424), codec.flag, "{}: status in the header", codec.long);
        let odd = packed.sizes().find(|&(size, flags)| flags != if size < 4096 { codec.flag } else { 0 });
        assert_eq!(odd, None, "{}: size and flags of a page", codec.long);
        let small = packed.sizes().filter(|size| size.0 < 4096).count();
        assert!(small > 10_000, "{}: {small} compressed pages", codec.long);
        same_pages(codec.long, &packed, &raw);
    }
}

/// And no matter how many threads there are.
#[test]
fn makedumpfiles_letters_are_the_codecs_names() {
    for codec in CODECS {
        let name = |form: &str| format!("{}-{form}", codec.long);
        let letter = cut_with(fixture(), &name("letter"), &[codec.short]);
        let word = cut_with(fixture(), &name("word"), &["--compress", codec.long, "--threads", "1"]);
        assert!(std::fs::read(letter).unwrap() == std::fs::read(word).unwrap(), "{}", codec.long);
    }
}

#[test]
#[cfg(not(feature = "lzo"))]
fn without_lzo_it_is_told_how_to_get_it() {
    let out = scratch().join("no-lzo");
    for options in [&["-l"][..], &["--compress", "lzo"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
        let ran = run(command.args(options).args([&fixture().vmcore, &out]), LIMIT);
        assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("--features lzo") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        assert!(!out.exists());
    }
}

/// tests/readers.rs has the others.
#[test]
fn crash_and_drgn_read_snappy_and_lzo() {
    let crash = |shape: Shape| {
        let asked = ask(fixture().vmlinux(), &cut(fixture(), shape), &["sys", "ps", "log"]);
        assert!(asked.answer("log").contains(fixture().banner()), "{shape:?}: {}", asked.all);
        (asked.processes("ps"), asked.answer("log").to_string())
    };
    let wanted = (crash(Shape::Kdump), format!("{:?}", facts(fixture(), Shape::Kdump)));
    assert!(wanted.0.0.len() > 10, "{wanted:?}");
    for codec in CODECS.iter().filter(|codec| ["snappy", "lzo"].contains(&codec.long)) {
        assert!(crash(codec.shape) == wanted.0, "crash sees something else with {}", codec.long);
        let seen = format!("{:?}", facts(fixture(), codec.shape));
        assert!(seen == wanted.1, "drgn sees something else with {}", codec.long);
    }
}

/// The log, as we print it from the full dump, and every page, when it writes the cut once more.
#[test]
fn makedumpfile_reads_what_it_is_built_for() {
    let log = xdump_cut(&["log"], &[&fixture().vmcore]).stdout;
    for codec in CODECS {
        let from = cut(fixture(), codec.shape);
        for name in codec.makedumpfiles {
            let makedumpfile = |options: &[&str]| -> PathBuf {
                let to = scratch().join(format!("{}-{name}{}", codec.long, options.concat()));
                let mut command = Command::new(tool(name));
                let ran = run(command.args(options).args([&from, &to]), LIMIT);
                assert!(ran.status.success(), "{command:?}: {}\n{}", ran.stdout, ran.stderr);
                to
            };
            let said = std::fs::read_to_string(makedumpfile(&["--dump-dmesg"])).unwrap();
            assert!(without_callers(&said) == without_callers(&log), "{name}, {}: {said}", codec.long);
            let again = Kdump::open(&makedumpfile(&["-d", "0"]));
            same_pages(&format!("{name}, {}", codec.long), &again, &Kdump::open(&from));
        }
    }
}

/// Newer ones tell who spoke, between the time and the text: "[    0.000000] [      T0] Linux version".
fn without_callers(log: &str) -> String {
    let line = |line: &str| match line.split_once("] [ ") {
        Some((time, rest)) => format!("{time}]{}\n", rest.split_once(']').unwrap_or(("", rest)).1),
        None => format!("{line}\n"),
    };
    log.lines().map(line).collect()
}

/// The machine layout with Xen's memory is a full dump, which can be cut again.
#[test]
fn we_read_each_again() {
    let level = ["-d", "1", "--compress", "none"];
    let wanted = Kdump::open(&cut(fixture(), Shape::Raw));
    for codec in CODECS {
        let options = ["--layout", "machine", "--keep-xen", "-d", "1", codec.short];
        let full = cut_with(fixture(), &format!("{}-full", codec.long), &options);
        let info = xdump_cut(&["info"], &[&full]).stdout;
        assert!(info.contains(&format!("kdump version 6, {}, dump level 1", codec.long)), "{info}");
        let out = scratch().join(format!("{}-again", codec.long));
        xdump_cut(&[&["--strict", "-q"], &level[..]].concat(), &[&full, &out]);
        same_pages(codec.long, &Kdump::open(&out), &wanted);
    }
}
