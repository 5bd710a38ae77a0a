//! Every form in which archives hold a real dump, made by makedumpfile and the ordinary compressors: the cut of each is
//! byte for byte that of the plain ELF file.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::fixtures::{self, Fixture};
use support::forms::{file, makedumpfile, split, through, with_snappy};
use support::tools::{run, scratch, tool};

const LIMIT: Duration = Duration::from_secs(300);

fn fixture() -> &'static Fixture {
    fixtures::all().iter().find(|f| f.name == "xen-4.17-linux-6.12-panic").expect("the panic fixture of testdata")
}

fn cut_command(options: &[&str], inputs: &[&Path], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.args(["-q", "-f", "--tmp-dir"]).arg(scratch()).args(options).args(inputs).arg(out);
    command
}

/// A cut that may find nothing damaged.
fn cut(name: &str, options: &[&str], inputs: &[&Path]) -> Vec<u8> {
    let out = file(&format!("{name}.cut"));
    let mut command = cut_command(&[&["--strict"], options].concat(), inputs, &out);
    let ran = run(&mut command, LIMIT);
    assert!(ran.status.success(), "{name}: {command:?}: {}", ran.stderr);
    let bytes = std::fs::read(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    bytes
}

/// What `info --json` says of the form.
fn form(inputs: &[&Path]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.args(["info", "--json", "--split", "--tmp-dir"]).arg(scratch()).args(inputs);
    let ran = run(&mut command, LIMIT);
    assert!(ran.status.success(), "{command:?}: {}", ran.stderr);
    let info: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(info["damage"], serde_json::json!({}), "{inputs:?}");
    assert_eq!(info["domains"][0]["release"], release(), "{inputs:?}");
    info["form"].as_str().unwrap().to_owned()
}

fn release() -> &'static str {
    fixture().banner().split(' ').nth(2).unwrap()
}

/// Each with the form that `info` must tell; dom0's pages are whole in all of them, zero ones too.
#[test]
fn each_form_gives_the_same_cut() {
    let plain = &fixture().vmcore;
    let levels = ["-d0", "-d31"];
    let want = levels.map(|level| cut("plain", &[level], &[plain]));
    let mut checked = Vec::new();
    let mut check = |name: &str, told: &str, path: &Path| {
        assert_eq!(form(&[path]), told, "{name}");
        for (level, want) in levels.iter().zip(&want) {
            assert!(cut(name, &[level], &[path]) == *want, "{name}: the cut with {level} differs");
        }
        let unmapped = cut(name, &["-d31", "--no-mmap", "--threads", "3"], &[path]);
        assert!(unmapped == want[1], "{name}: the cut without mmap differs");
        checked.push(name.to_owned());
    };

    // By makedumpfile: everything; without zero pages; without other domains.
    for (name, told, options) in [
        ("zlib", "kdump version 6, zlib, dump level 0", &["-c", "-d", "0"][..]),
        ("zlib-1", "kdump version 6, zlib, dump level 1", &["-c", "-d", "1"]),
        ("zlib-X", "kdump version 6, zlib, dump level 0", &["-X", "-c", "-d", "0"]),
        ("zlib-X1", "kdump version 6, zlib, dump level 1", &["-X", "-c", "-d", "1"]),
        ("lzo", "kdump version 6, lzo, dump level 0", &["-l", "-d", "0"]),
        ("zstd", "kdump version 6, zstd, dump level 0", &["-z", "-d", "0"]),
        ("elf", "ELF64", &["-E", "-d", "0"]),
        ("elf-1", "ELF64", &["-E", "-d", "1"]),
        ("elf-X1", "ELF64", &["-E", "-X", "-d", "1"]),
        ("flat", "flattened, kdump version 6, zlib, dump level 1", &["-F", "-c", "-d", "1"]),
        ("flat-elf", "flattened, ELF64", &["-F", "-E", "-d", "0"]),
        ("flat-X-lzo", "flattened, kdump version 6, lzo, dump level 1", &["-F", "-X", "-l", "-d", "1"]),
    ] {
        check(name, told, &makedumpfile(&fixture().vmcore, name, options));
    }

    let snappy = with_snappy("snappy", &makedumpfile(&fixture().vmcore, "raw", &["-d", "0"]));
    check("snappy", "kdump version 6, snappy, dump level 0", &snappy);

    // Within compressions; the last two within two.
    let flat = file("flat");
    for (name, program, options, input, told) in [
        ("v.zst", "zstd", &["-q", "-1", "-c"][..], plain, "zstd, ELF64"),
        ("v.long.zst", "zstd", &["-q", "-1", "--long=31", "-c"], plain, "zstd, ELF64"),
        ("v.gz", "gzip", &["-1", "-c"], plain, "gzip, ELF64"),
        ("v.xz", "xz", &["-0", "-T2", "-c"], &flat, "xz, flattened, kdump version 6, zlib, dump level 1"),
        ("v.lz4", "lz4", &["-q", "-c"], plain, "lz4, ELF64"),
        ("v.bz2", "bzip2", &["-1", "-c"], &flat, "bzip2, flattened, kdump version 6, zlib, dump level 1"),
        ("flat.gz", "gzip", &["-1", "-c"], &file("flat-elf"), "gzip, flattened, ELF64"),
        ("v.zst.lz4", "lz4", &["-q", "-c"], &file("v.zst"), "lz4, zstd, ELF64"),
    ] {
        check(name, told, &through(name, program, options, input));
    }
    // One stream behind the other.
    let bytes = std::fs::read(&flat).unwrap();
    let (one, two) = bytes.split_at(bytes.len() / 3);
    let halves = [("one", one), ("two", two)].map(|(name, half)| {
        std::fs::write(file(name), half).unwrap();
        file(name)
    });
    for (name, program, told) in
        [("gzip", "gzip", "gzip"), ("lz4", "lz4", "lz4"), ("bz2", "bzip2", "bzip2"), ("xz", "xz", "xz")]
    {
        let packed =
            halves.each_ref().map(|half| std::fs::read(through("half", program, &["-1", "-c"], half)).unwrap());
        let path = file(&format!("two.{name}"));
        std::fs::write(&path, packed.concat()).unwrap();
        check(&format!("two {name}"), &format!("{told}, flattened, kdump version 6, zlib, dump level 1"), &path);
    }
    eprintln!("same cut: {}", checked.join(", "));
}

#[test]
fn parts_by_makedumpfile_are_one() {
    let parts = split(&fixture().vmcore);
    for part in &parts {
        let head = std::fs::read(part).unwrap();
        let word = |at: usize| u64::from_le_bytes(head[4096 + at..4096 + at + 8].try_into().unwrap());
        assert!(word(80) < word(88), "{}: no page is in it", part.display());
    }
    let [a, b, c] = parts.each_ref().map(PathBuf::as_path);
    assert_eq!(form(&[c, a, b]), "kdump version 6, zlib, dump level 1, 3 parts of a split dump");
    assert!(cut("split", &["--split"], &[b, c, a]) == cut("unsplit", &[], &[&fixture().vmcore]));
    // The output is none of the parts.
    let ran = run(&mut cut_command(&["--split"], &[a, b], a), LIMIT);
    assert!(ran.status.code() == Some(2) && ran.stderr.contains("is the dump itself"), "{}", ran.stderr);
    // Without one of them, what it has is missing.
    let out = file("two-thirds.cut");
    let ran = run(&mut cut_command(&["--split", "--strict"], &[a, c], &out), LIMIT);
    assert!(ran.status.code() == Some(1) && ran.stderr.contains("not given"), "{}", ran.stderr);
}

/// makedumpfile was stopped in the middle, here by the largest size that a file may have.
#[test]
fn a_dump_whose_writer_was_stopped() {
    let out = file("no-room.kdump");
    let script = "ulimit -f 20000; trap '' XFSZ; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(tool("makedumpfile")).args(["-c", "-d", "0", "-f"]);
    let ran = run(command.arg(&fixture().vmcore).arg(&out), LIMIT);
    assert!(!ran.status.success(), "makedumpfile wrote all of it");
    let ran = run(&mut cut_command(&["--strict"], &[&out], &file("no-room.cut")), LIMIT);
    assert!(ran.status.code() == Some(1) && ran.stderr.contains("writer stopped"), "{}", ran.stderr);
}

#[test]
fn standard_input_gives_the_same_cut() {
    let plain = &fixture().vmcore;
    let want = cut("through a file", &[], &[plain]);
    let flat = makedumpfile(&fixture().vmcore, "stdin-flat", &["-F", "-c", "-d", "1"]);
    let packed = through("stdin.gz", "gzip", &["-1", "-c"], plain);
    for input in [plain, &flat, &packed] {
        let out = file("stdin.cut");
        let mut cat = Command::new("cat").arg(input).stdout(Stdio::piped()).spawn().unwrap();
        let mut command = cut_command(&["--strict"], &[Path::new("-")], &out);
        let status = command.stdin(cat.stdout.take().unwrap()).status().unwrap();
        assert!(status.success() && cat.wait().unwrap().success(), "{}", input.display());
        assert!(std::fs::read(&out).unwrap() == want, "{}: the cut differs", input.display());
    }
}

/// Our own cut with Xen kept is a full dump too, also in the kdump format.
#[test]
fn our_own_dumps_with_xen_can_be_cut_again() {
    let (first, second) = (file("machine.kdump"), file("machine.elf"));
    for (path, options) in [(&first, &["--format", "kdump"][..]), (&second, &["-E"])] {
        let options = [&["-d0", "--layout", "machine", "--keep-xen"], options].concat();
        let ran = run(&mut cut_command(&options, &[&fixture().vmcore], path), LIMIT);
        assert!(ran.status.success(), "{}", ran.stderr);
    }
    assert!(cut("from kdump", &["-d1"], &[&first]) == cut("from ELF", &["-d1"], &[&second]));
}

/// A flattened stream and a compressed one that were cut short are used as far as they go, and it is said.
#[test]
fn what_is_cut_short_is_said() {
    let flat = makedumpfile(&fixture().vmcore, "short-flat", &["-F", "-E", "-d", "0"]);
    let packed = through("short.gz", "gzip", &["-1", "-c"], &fixture().vmcore);
    for (path, words) in [(flat, "flattened streams that are cut short"), (packed, "streams that break off (gzip")] {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
        let out = file("short.cut");
        let ran = run(&mut cut_command(&[], &[&path], &out), LIMIT);
        assert!(ran.status.success() && ran.stderr.contains(words), "{}", ran.stderr);
        let ran = run(&mut cut_command(&["--strict"], &[&path], &out), LIMIT);
        assert!(ran.status.code() == Some(1) && ran.stderr.contains(words), "{}", ran.stderr);
    }
}

/// What makedumpfile -E leaves out looks like zeros: of dom0 it is none other with -d 1, but it is said.
#[test]
fn what_an_elf_file_does_not_store_is_said() {
    let path = makedumpfile(&fixture().vmcore, "elf-said", &["-E", "-X", "-d", "1"]);
    let out = file("said.cut");
    let ran = run(&mut cut_command(&[], &[&path], &out), LIMIT);
    assert!(ran.status.success() && ran.stderr.contains("stand beyond p_filesz"), "{}", ran.stderr);
    let ran = run(&mut cut_command(&[], &[&fixture().vmcore], &out), LIMIT);
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}", ran.stderr);
}

/// A domain that makedumpfile -X left out is not made up, from neither format.
#[test]
fn a_domain_that_was_left_out_is_no_dump() {
    for (name, options) in
        [("left-out.elf", &["-E", "-X", "-d", "1"][..]), ("left-out.kdump", &["-c", "-X", "-d", "1"])]
    {
        let path = makedumpfile(&fixture().vmcore, name, options);
        let out = file("left-out.cut");
        let ran = run(&mut cut_command(&["--domain", "1"], &[&path], &out), LIMIT);
        assert!(ran.status.code() == Some(1) && !out.exists(), "{}", ran.stderr);
        assert!(ran.stderr.contains("makedumpfile -X leaves out all domains but dom0"), "{}", ran.stderr);
    }
}
