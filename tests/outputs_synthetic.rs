//! Outputs of synthetic machines: pages of one word, limits at every size, outputs that go wrong between writing and
//! verifying, devices and streams.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;
mod synth;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use support::dump::Dump as _;
use support::kdump::Kdump;
use synth::Machine;
use synth::truth::Dump;
use xdump_cut::cut::{cut, cut_split};
use xdump_cut::error::Kind;
use xdump_cut::options::{Format, Options};
use xdump_cut::pipeline::codec::Codec;
use xdump_cut::pipeline::{Progress, Silent};
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;
use xdump_cut::sink::{Mode, Output};
use xdump_cut::{Error, source};

const FORMATS: [Format; 5] = [
    Format::Kdump(Codec::None),
    Format::Kdump(Codec::Zlib(1)),
    Format::Kdump(Codec::Zstd(1)),
    Format::Elf,
    Format::ElfZst(3),
];

fn options(format: Format) -> Options {
    Options { format, level: Level::ZEROS, threads: 2, ..Options::default() }
}

struct Out {
    dir: tempfile::TempDir,
}

impl Out {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self, name: &str) -> Output {
        Output::create(&self.path(name), true, Path::new("")).unwrap()
    }
}

/// dom0's data pages: neither tables nor what a cut alters.
fn data_pages(dump: &Dump) -> BTreeSet<u64> {
    let t = &dump.truth;
    t.dom0.keys().copied().filter(|p| !t.tables.contains_key(p) && *p != t.xen_start_info_at.0).collect()
}

/// Fills pages of dom0's that hold something unique with one word over and over.
fn fill(dump: &mut Dump, words: &[u64]) -> BTreeMap<u64, u64> {
    let mut filled = BTreeMap::new();
    let mut words = words.iter();
    for pfn in data_pages(dump).into_iter().rev() {
        let page = dump.dom0_page(pfn).unwrap().to_vec();
        let places = (0..dump.bytes.len() - 4096).step_by(4096).filter(|at| dump.bytes[*at..*at + 4096] == page[..]);
        let places: Vec<usize> = places.take(2).collect();
        let [at] = places[..] else { continue };
        let Some(word) = words.next() else { break };
        dump.bytes[at..at + 4096].copy_from_slice(&word.to_le_bytes().repeat(512));
        filled.insert(pfn, *word);
    }
    assert!(words.next().is_none(), "too few pages of content that is nowhere else");
    filled
}

#[test]
fn pages_of_one_word_are_stored_once() {
    let mut dump = Machine::new().build();
    let (a, b) = (0x6b6b_6b6b_6b6b_6b6b, 0xdead_beef_0bad_cafe);
    let filled = fill(&mut dump, &[a, b, a, a, b, 1]);
    for format in FORMATS.into_iter().take(3) {
        let out = Out::new();
        let report = cut(&dump.bytes, &options(format), out.open("k"), &Silent).unwrap();
        assert!(report.output.kept >= 6);
        let file = Kdump::open(&out.path("k"));
        let mut places: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for (pfn, word) in &filled {
            assert!(file.page(*pfn).unwrap()[..] == word.to_le_bytes().repeat(512)[..], "{format:?}: {pfn:#x}");
            places.entry(*word).or_default().insert(file.place(*pfn));
        }
        assert!(places.values().all(|p| p.len() == 1), "{format:?}: {places:x?}");
        let all: BTreeSet<u64> = places.into_values().flatten().collect();
        assert_eq!(all.len(), 3, "{format:?}");
    }
    // Zero pages that stay are one too.
    let out = Out::new();
    let keep = Options { level: Level::NOTHING, ..options(Format::Kdump(Codec::None)) };
    let zeros = |report: &Report| report.output.zero;
    assert_eq!(zeros(&cut(&dump.bytes, &keep, out.open("k"), &Silent).unwrap()), 0);
    let file = Kdump::open(&out.path("k"));
    let zero = file.frames().into_iter().filter(|f| file.page(*f).unwrap().iter().all(|b| *b == 0));
    assert_eq!(zero.map(|f| file.place(f)).collect::<BTreeSet<_>>().len(), 1);
}

/// What a file of each length has is right, and the rest is missing, by our own input side too.
#[test]
fn a_limit_at_every_size() {
    let dump = Machine::new().build();
    for format in FORMATS {
        let out = Out::new();
        let whole = cut(&dump.bytes, &options(format), out.open("whole"), &Silent).unwrap();
        let len = whole.output.bytes;
        assert_eq!(out.path("whole").metadata().unwrap().len(), len);
        let (mut marked, mut refused) = (0, 0);
        for limit in (1..=32).map(|n| len * n / 32) {
            let limited = out.open("short").with_limit(limit);
            let done = cut(&dump.bytes, &options(format), limited, &Silent);
            let left = out.path("short.incomplete");
            match done {
                Ok(report) if report.output.incomplete.is_none() => {
                    assert_eq!(limit, len, "{format:?}");
                    assert_eq!(std::fs::read(out.path("short")).unwrap(), std::fs::read(out.path("whole")).unwrap());
                }
                Ok(report) => {
                    marked += 1;
                    assert!(left.metadata().unwrap().len() <= limit, "{format:?} {limit}");
                    assert!(!out.path("short").exists());
                    assert!(report.output.pages < report.output.planned, "{format:?} {limit}");
                    assert_eq!(report.output.files, [left.display().to_string()]);
                    same_or_missing(&dump, &left, format);
                    std::fs::remove_file(left).unwrap();
                }
                Err(e) => {
                    refused += 1;
                    assert_eq!(e.kind(), Kind::Trouble, "{format:?} {limit}: {e}");
                    assert!(!left.exists(), "{format:?} {limit}");
                }
            }
        }
        assert!(marked > 10 && marked + refused == 31, "{format:?}: {marked} {refused}");
    }
}

fn same_or_missing(dump: &Dump, path: &Path, format: Format) {
    let source = source::open(path, &source::OpenOptions::default()).unwrap();
    let (core, mem) = source::read(&*source).unwrap();
    assert!(core.notes().any(|n| n.name == b"VMCOREINFO"), "{format:?}");
    assert!(!mem.history().damage.is_empty(), "{format:?}: nothing is said of its end");
    for pfn in data_pages(dump) {
        let page = mem.page(xdump_cut::units::Mfn(pfn));
        assert!(page.is_err() || page.unwrap()[..] == dump.dom0_page(pfn).unwrap()[..], "{format:?}: {pfn:#x}");
    }
}

/// Changes the output when its verification begins.
#[derive(Debug)]
struct Spoiler {
    path: PathBuf,
    at: u64,
}

impl Progress for Spoiler {
    fn stage(&self, name: &str, _: Option<u64>) {
        if name == "verifying" {
            use std::os::unix::fs::FileExt;
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, self.at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], self.at).unwrap();
        }
    }

    fn advance(&self, _: u64) {}
}

/// A byte that changes on the disk, in any place that has a meaning, is found; and no file gets its name then.
#[test]
fn verification_finds_a_flipped_byte() {
    let dump = Machine::new().build();
    for format in FORMATS {
        let out = Out::new();
        let verify = Options { verify: true, digest: true, ..options(format) };
        let whole = cut(&dump.bytes, &verify, out.open("whole"), &Silent).unwrap();
        assert_eq!(whole.output.verified, Some(whole.output.planned));
        let len = whole.output.bytes;
        let mut found = 0;
        let places: Vec<u64> = (0..24).map(|n| len - 1 - n * len / 24).chain([8, 424, 5000]).collect();
        for at in &places {
            let spoiler = Spoiler { path: out.path("spoilt.incomplete"), at: *at };
            match cut(&dump.bytes, &verify, out.open("spoilt"), &spoiler) {
                Err(Error::Unverified(_)) => {
                    found += 1;
                    assert!(!out.path("spoilt").exists() && !out.path("spoilt.incomplete").exists());
                }
                Err(e) => panic!("{format:?} at {at:#x}: {e}"),
                // Padding, the time of the crash and the like say nothing.
                Ok(_) => std::fs::remove_file(out.path("spoilt")).unwrap(),
            }
        }
        assert!(found * 2 > places.len(), "{format:?}: {found} of {}", places.len());
    }
}

/// Written where something else stood, as on a device, and flattened, in one thread and in many.
#[test]
fn split_and_streams_are_the_same_for_any_number_of_threads() {
    let dump = Machine::new().build();
    for format in FORMATS {
        let mut seen: Vec<Vec<u8>> = Vec::new();
        for threads in [1, 2, 5] {
            let out = Out::new();
            let options = Options { threads, ..options(format) };
            let mode = if format == Format::ElfZst(3) { Mode::Append } else { Mode::Flattened };
            let stream = Output::create_in(mode, &out.path("stream"), false, Path::new("")).unwrap();
            cut(&dump.bytes, &options, stream, &Silent).unwrap();
            seen.push(std::fs::read(out.path("stream")).unwrap());
        }
        assert!(seen.windows(2).all(|w| w[0] == w[1]), "{format:?}");
    }
    let mut seen: Vec<Vec<Vec<u8>>> = Vec::new();
    for threads in [1, 3] {
        let out = Out::new();
        let outs = ["a", "b", "c", "d"].map(|name| out.open(name)).into();
        cut_split(&dump.bytes, &Options { threads, verify: true, ..options(FORMATS[2]) }, outs, &Silent).unwrap();
        seen.push(["a", "b", "c", "d"].map(|name| std::fs::read(out.path(name)).unwrap()).into());
    }
    assert_eq!(seen[0], seen[1]);
    // More files than chunks of pages: said, and none is left.
    let out = Out::new();
    let names: Vec<String> = (0..200).map(|n| format!("p{n}")).collect();
    let outs = names.iter().map(|n| out.open(n)).collect();
    let few = cut_split(&dump.bytes, &options(FORMATS[0]), outs, &Silent).unwrap_err();
    assert!(few.kind() == Kind::Usage && few.to_string().contains("too few for 200 files"), "{few}");
    assert_eq!(std::fs::read_dir(out.dir.path()).unwrap().count(), 0);
}
