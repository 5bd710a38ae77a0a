//! What wraps a dump: flattened streams with damage anywhere, and compressed streams as their own programs accept them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod synth;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use synth::Machine;
use synth::kdump::{KdumpOptions, head_len, kdump};
use synth::truth::Dump;
use xdump_cut::Error;
use xdump_cut::cut::cut;
use xdump_cut::error::Kind;
use xdump_cut::options::{Format, Options};
use xdump_cut::pipeline::Silent;
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;
use xdump_cut::sink::Output;
use xdump_cut::source::{OpenOptions, ReadAt, Set, open};
use xdump_cut::units::FileOffset;

const RECORDS: usize = 4096;
const BLOCK: usize = 64 << 10;

fn cut_with(source: &dyn ReadAt, strict: bool) -> Result<(Report, Vec<u8>), Error> {
    let options = Options { level: Level::NOTHING, format: Format::Elf, threads: 2, strict, ..Options::default() };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let report = cut(source, &options, Output::create(&path, false, Path::new("")).unwrap(), &Silent)?;
    Ok((report, std::fs::read(path).unwrap()))
}

fn opened(bytes: &[u8], threads: usize) -> Result<Box<dyn ReadAt>, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v");
    std::fs::write(&path, bytes).unwrap();
    open(&path, &OpenOptions { tmp_dir: Some(dir.path().into()), threads, ..OpenOptions::default() })
}

fn all(source: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; source.len() as usize];
    source.read_exact_at(FileOffset(0), &mut bytes).unwrap();
    bytes
}

fn damage(source: &dyn ReadAt, words: &str) -> bool {
    source.history().damage.to_string().contains(words)
}

fn record(out: &mut Vec<u8>, at: usize, data: &[u8]) {
    out.extend((at as u64).to_be_bytes());
    out.extend((data.len() as u64).to_be_bytes());
    out.extend(data);
}

fn flat_head() -> Vec<u8> {
    let mut out = b"makedumpfile\0\0\0\0".to_vec();
    out.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    out.resize(RECORDS, 0);
    out
}

fn blocks(out: &mut Vec<u8>, bytes: &[u8], from: usize) {
    bytes[from..].chunks(BLOCK).enumerate().for_each(|(n, data)| record(out, from + n * BLOCK, data));
}

/// In the order of makedumpfile: header, notes, sub-header, and all from the bitmaps on; padding is left out.
fn flat_kdump(dump: &Dump, end: bool) -> Vec<u8> {
    let bytes = kdump(dump, &KdumpOptions::default());
    let (head, notes) = (head_len(dump), synth::kdump::notes(dump).len());
    let mut out = flat_head();
    record(&mut out, 0, &bytes[..464]);
    record(&mut out, 4200, &bytes[4200..4200 + notes]);
    record(&mut out, 4096, &bytes[4096..4200]);
    blocks(&mut out, &bytes, head);
    out.extend([0xff; 16].iter().filter(|_| end));
    out
}

/// In the order of makedumpfile: placeholders for program headers, the ELF header, all behind them, program headers.
fn flat_elf(dump: &Dump) -> Vec<u8> {
    let phdrs = 64 + 56 * u16::from_le_bytes([dump.bytes[56], dump.bytes[57]]) as usize;
    let mut out = flat_head();
    record(&mut out, 64, &vec![0; phdrs - 64]);
    record(&mut out, 0, &dump.bytes[..64]);
    blocks(&mut out, &dump.bytes, phdrs);
    record(&mut out, 64, &dump.bytes[64..phdrs]);
    out.extend([0xff; 16]);
    out
}

fn machine() -> Dump {
    Machine::new().domus(1).build()
}

/// As files, and within a compression: in place, and rearranged.
fn ways(flat: &[u8]) -> [(&'static str, Vec<u8>); 2] {
    [("file", flat.to_vec()), ("stream", zstd::encode_all(flat, 1).unwrap())]
}

#[test]
fn flattened_dumps_give_the_cut_of_the_plain_one() {
    let dump = machine();
    let want = cut_with(&dump.bytes, true).unwrap().1;
    for flat in [flat_kdump(&dump, true), flat_elf(&dump)] {
        for (way, bytes) in ways(&flat) {
            let source = opened(&bytes, 0).unwrap();
            assert!(source.history().damage.is_empty(), "{way}: {:?}", source.history());
            assert!(cut_with(&*source, true).unwrap().1 == want, "{way}");
        }
    }
}

/// The place of any record is damaged in any way: nothing of it is read as zeros, and it is told.
#[test]
fn a_record_of_a_damaged_place_is_missing_and_told() {
    let dump = machine();
    for flat in [flat_kdump(&dump, true), flat_elf(&dump)] {
        let (mut at, mut headers) = (RECORDS, Vec::new());
        while at + 16 < flat.len() {
            headers.push(at);
            at += 16 + u64::from_be_bytes(flat[at + 8..at + 16].try_into().unwrap()) as usize;
        }
        let middle = headers[headers.len() / 2];
        for bit in [60, 63, 50, 41, 33, 26] {
            let mut bad = flat.clone();
            bad[middle + 7 - bit / 8] ^= 1 << (bit % 8);
            for (way, bytes) in ways(&bad) {
                let source = opened(&bytes, 0).unwrap();
                let what = format!("bit {bit}, {way}");
                assert!(damage(&*source, "no record"), "{what}: {:?}", source.history());
                assert_eq!(cut_with(&*source, true).err().unwrap().kind(), Kind::BadInput, "{what}");
                match cut_with(&*source, false) {
                    Err(e) => assert_eq!(e.kind(), Kind::BadInput, "{what}: {e}"),
                    Ok((report, _)) => assert!(!report.source.damage.is_empty(), "{what}"),
                }
            }
        }
    }
}

/// makedumpfile writes program headers last: without them nothing tells where memory lies.
#[test]
fn a_flattened_elf_file_that_is_cut_short_says_what_is_lost() {
    let dump = machine();
    let flat = flat_elf(&dump);
    for len in [5000, flat.len() / 2, flat.len() - 2000] {
        for (way, bytes) in ways(&flat[..len]) {
            let e = cut_with(&*opened(&bytes, 0).unwrap(), false).err().unwrap();
            let words = ["program headers", &format!("cut short at byte {len}"), "-F -E", "kdump format"];
            assert!(words.iter().all(|w| e.to_string().contains(w)), "{way}, {len}: {e}");
            assert_eq!(e.kind(), Kind::BadInput);
        }
    }
    // The kdump format is used as far as it goes.
    let short = flat_kdump(&dump, false);
    match cut_with(&*opened(&short[..short.len() - 1000], 0).unwrap(), false) {
        Ok((report, _)) => assert!(!report.source.damage.is_empty()),
        Err(e) => assert!(!e.to_string().contains("program headers") && e.kind() == Kind::BadInput, "{e}"),
    }
}

/// Within a compression a few bytes can tell of records without end: headers bound them, wherever they are put.
#[test]
fn flattened_streams_without_end_are_cut_off() {
    let dump = machine();
    let mut real_headers = flat_head();
    blocks(&mut real_headers, &dump.bytes, 0);
    let zeros = vec![0; 1 << 20];
    for head in [flat_kdump(&dump, false), real_headers] {
        // The same place again and again; one behind the other; and places that cannot be.
        for (start, step) in [(16 << 20, 0), (16 << 20, 1 << 20), (1 << 50, 1)] {
            let mut z = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            z.write_all(&head).unwrap();
            for n in 0..3000 {
                let mut header = Vec::new();
                record(&mut header, start + n * step, &[]);
                header[8..16].copy_from_slice(&(zeros.len() as u64).to_be_bytes());
                z.write_all(&header).unwrap();
                z.write_all(&zeros).unwrap();
            }
            let source = opened(&z.finish().unwrap(), 0).unwrap();
            assert!(source.len() < 1 << 30, "{}", source.len());
            assert!(damage(&*source, "go on"), "{:?}", source.history());
        }
    }
}

/// Output of a program for these bytes.
fn through(program: &str, options: &[&str], bytes: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in");
    std::fs::write(&path, bytes).unwrap();
    let out = Command::new(program).args(options).stdin(File::open(path).unwrap()).output();
    let out = out.unwrap_or_else(|e| panic!("{program}: {e}: run .ci/tools"));
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Whether the compressor's own test accepts a file; nothing where it cannot be told.
fn accepted(program: &str, name: &str, bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    Command::new(program).arg("-tq").arg(path).stderr(Stdio::null()).status().unwrap().success()
}

fn skippable(kind: u32, size: usize) -> Vec<u8> {
    let mut out = (0x184d_2a50 | kind).to_le_bytes().to_vec();
    out.extend((size as u32).to_le_bytes());
    out.resize(8 + size, 0x28);
    out
}

#[test]
fn streams_that_their_programs_accept_are_read_in_full() {
    let dump = machine();
    let (one, two) = dump.bytes.split_at(dump.bytes.len() / 3);
    let pack = |program: &str, options: &[&str]| [one, two].map(|half| through(program, options, half));
    let [modern, legacy] = [pack("lz4", &["-q", "-c"]), pack("lz4", &["-q", "-l", "-c"])];
    let (zstd, gzip) = (pack("zstd", &["-q", "-c"]), pack("gzip", &["-c"]));
    let skip = skippable(0, 3_000_000);
    let mut streams = vec![
        ("lz4", [&skip[..], &modern[0], &modern[1]].concat()),
        ("lz4", [&modern[0][..], &skip, &modern[1]].concat()),
        ("lz4", [&modern[0][..], &modern[1], &skip, &skip].concat()),
        ("lz4", legacy.concat()),
        ("lz4", [&legacy[0][..], &modern[1]].concat()),
        ("lz4", [&modern[0][..], &legacy[1]].concat()),
        ("lz4", [&skip[..], &legacy[0], &skip, &legacy[1]].concat()),
        ("zstd", [&zstd[0][..], &skip, &zstd[1], &skip].concat()),
        ("gzip", [&gzip[0][..], &gzip[1], &[0; 5000]].concat()),
    ];
    for kind in 0..16 {
        streams.push(("zstd", [&skippable(kind, 9)[..], &skippable(kind, 0), &zstd[0], &zstd[1]].concat()));
        streams.push(("lz4", [&skippable(kind, 9)[..], &modern[0], &modern[1]].concat()));
    }
    for (n, (program, bytes)) in streams.iter().enumerate() {
        let name = if *program == "gzip" { "v.gz".to_owned() } else { format!("v.{}", program.replace("std", "st")) };
        assert!(accepted(program, &name, bytes), "{program} does not accept stream {n}");
        for threads in [1, 2] {
            let source = opened(bytes, threads).unwrap_or_else(|e| panic!("{program} stream {n}: {e}"));
            assert!(source.history().damage.is_empty(), "{program} stream {n}: {:?}", source.history());
            assert!(source.history().form().starts_with(program), "stream {n}: {}", source.history().form());
            assert!(all(&*source) == dump.bytes, "{program} stream {n}");
        }
    }
    // Skippable frames alone, and with something else behind them.
    for bytes in [skip.clone(), [&skip[..], &dump.bytes].concat()] {
        assert_eq!(opened(&bytes, 0).err().unwrap().kind(), Kind::BadInput);
    }
}

#[test]
fn streams_with_something_else_behind_are_read_and_it_is_told() {
    let dump = machine();
    for (program, options) in [("gzip", &["-c"][..]), ("lz4", &["-q", "-c"]), ("lz4", &["-q", "-l", "-c"])] {
        let packed = through(program, options, &dump.bytes);
        for garbage in [&b"something else"[..], &[0, 0, 0, 9, 9, 9, 9, 9]] {
            let source = opened(&[&packed[..], garbage].concat(), 0).unwrap();
            assert!(damage(&*source, program), "{:?}", source.history());
            assert!(all(&*source) == dump.bytes, "{program}");
        }
    }
}

/// lz4 frames cut short anywhere, and between two blocks above all.
#[test]
fn lz4_that_is_cut_short_is_always_told() {
    let dump = machine();
    let packed = through("lz4", &["-q", "-B4", "-c"], &dump.bytes);
    let (mut at, mut ends) = (7, Vec::new());
    while at + 4 < packed.len() {
        let size = u32::from_le_bytes(packed[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        at += 4 + size as usize;
        ends.push(at);
    }
    for len in ends.iter().step_by(1 + ends.len() / 20).flat_map(|end| [end - 1, *end, end + 2]).filter(|n| *n > 9000) {
        let source = opened(&packed[..len.min(packed.len() - 1)], 0).unwrap();
        assert!(damage(&*source, "break off"), "{len}: {:?}", source.history());
        assert!(dump.bytes.starts_with(&all(&*source)));
    }
}

/// Frames of many sizes: small ones are read in place, large ones by all threads.
#[test]
fn zstd_frames_of_each_size_give_the_whole() {
    let bytes: Vec<u8> = (0..12_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 20) as u8).collect();
    let mut plain = machine().bytes;
    plain.extend(&bytes);
    for size in [100_000, 1 << 20, 4 << 20, (4 << 20) + 1, 16 << 20] {
        let packed: Vec<u8> = plain.chunks(size).flat_map(|part| zstd::bulk::compress(part, 1).unwrap()).collect();
        let source = opened(&packed, 2).unwrap();
        let in_place = source.history().form().contains("in place");
        assert_eq!(in_place, size <= 4 << 20, "{size}: {}", source.history().form());
        if in_place {
            assert!(all(&*source) == plain, "{size}");
        } else {
            assert!(plain.starts_with(&all(&*source)), "{size}");
        }
    }
}

/// Standard input that is a file needs no temporary one.
#[test]
fn standard_input_that_is_a_file_is_read_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmcore");
    machine().write(&path).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.args(["info", "--json", "--tmp-dir", "/nonexistent", "-"]).stdin(File::open(&path).unwrap());
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn holes_of_parts_are_those_of_the_set() {
    let dir = tempfile::tempdir().unwrap();
    let sources = ["a", "b"].map(|name| {
        let path = dir.path().join(name);
        let file = File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        (&file).write_all(&[1; 4096]).unwrap();
        open(&path, &OpenOptions::default()).unwrap()
    });
    let total: u64 = sources.iter().map(|s| s.holes().total()).sum();
    let set = Set::new(sources.into());
    assert_eq!(set.holes().total(), total);
    assert!(total == 0 || set.holes().covers((1 << 20) + 65536, 4096) && !set.holes().covers(1 << 20, 4096));
}
