//! Every form of input from a writer of our own: each gives the cut of the plain ELF file, and damage anywhere gives an
//! error or a cut that says what is missing; never a panic, and never a page that is not the machine's.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;
mod synth;

use std::io::Write;
use std::path::Path;
use support::forms::frames;
use synth::Machine;
use synth::kdump::{CODECS, Codec, KdumpOptions, head_len, kdump};
use synth::truth::Dump;
use xdump_cut::Error;
use xdump_cut::cut::cut;
use xdump_cut::error::{Absence, Kind};
use xdump_cut::info::Info;
use xdump_cut::options::{Format, Options};
use xdump_cut::pipeline::Silent;
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;
use xdump_cut::sink::Output;
use xdump_cut::source::{OpenOptions, ReadAt, Set, open};

fn options() -> Options {
    Options { level: Level::NOTHING, format: Format::Elf, threads: 2, ..Options::default() }
}

fn cut_with(source: &dyn ReadAt, options: &Options) -> Result<(Report, Vec<u8>), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let report = cut(source, options, Output::create(&path, false, Path::new("")).unwrap(), &Silent)?;
    Ok((report, std::fs::read(path).unwrap()))
}

/// The output through a reader of our own.
fn reread(bytes: &[u8]) -> Box<dyn support::dump::Dump> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    support::dump::open(file.path())
}

fn cut_bytes(source: &dyn ReadAt) -> Vec<u8> {
    let (report, bytes) = cut_with(source, &options()).unwrap();
    assert!(report.source.damage.is_empty(), "{:?}", report.source.damage);
    bytes
}

fn machine() -> Dump {
    Machine::new().domus(1).build()
}

/// A kdump page is whole; the ELF file's ranges must be too, so that both hold the same.
fn plain(dump: &Dump) -> Vec<u8> {
    cut_bytes(&dump.bytes)
}

#[test]
fn every_codec_and_version_gives_the_same_cut() {
    let dump = machine();
    let want = plain(&dump);
    for codec in CODECS {
        let o = KdumpOptions { codec, ..KdumpOptions::default() };
        assert!(cut_bytes(&kdump(&dump, &o)) == want, "{codec:?}");
        let o = KdumpOptions { codec, shared_zero: false, ..o };
        assert!(cut_bytes(&kdump(&dump, &o)) == want, "{codec:?}, no shared zero page");
    }
    for version in 4..=6 {
        let o = KdumpOptions { version, ..KdumpOptions::default() };
        assert!(cut_bytes(&kdump(&dump, &o)) == want, "version {version}");
    }
    let one = KdumpOptions { one_bitmap: true, ..KdumpOptions::default() };
    assert!(cut_bytes(&kdump(&dump, &one)) == want, "one bitmap");
}

/// Versions 1 to 3 have no notes: Xen is found in memory, as in an ELF file without notes.
#[test]
fn versions_without_notes_give_the_cut_of_a_file_without_notes() {
    let bare = Machine::new().domus(1).with_elf(|e| {
        e.no_xen_notes();
        (e.prstatus, e.vmcoreinfo) = (false, false);
    });
    let dump = bare.build();
    let want = plain(&dump);
    for version in 1..=3 {
        let o = KdumpOptions { version, ..KdumpOptions::default() };
        let (report, bytes) = cut_with(&kdump(&dump, &o), &options()).unwrap();
        if version < 3 {
            assert!(bytes == want, "version {version}");
        }
        assert!(report.source.form.starts_with(&format!("kdump version {version}, zlib")), "{}", report.source.form);
    }
}

#[test]
fn what_was_left_out_is_missing_and_not_zero() {
    let dump = machine();
    let data = |p: &&u64| !dump.truth.tables.contains_key(p);
    let victims: Vec<(u64, u64)> =
        dump.truth.dom0.iter().rev().filter(|(p, _)| data(p)).map(|(p, m)| (*p, *m)).take(5).collect();
    let mfns = |from: usize, to: usize| victims[from..to].iter().map(|v| v.1).collect::<Vec<u64>>();
    let o = KdumpOptions { excluded: mfns(0, 3), incomplete: mfns(3, 5), ..KdumpOptions::default() };
    let bytes = kdump(&dump, &o);
    let (report, out) = cut_with(&bytes, &options()).unwrap();
    let absent = &report.output.absent;
    assert_eq!(absent.get("was excluded by the dump's own level"), Some(&3), "{absent:?}");
    assert_eq!(absent.get("was not written: the dump is incomplete"), Some(&2), "{absent:?}");
    assert_eq!(report.source.damage.len(), 1, "{:?}", report.source.damage);
    let out = reread(&out);
    for (pfn, _) in &victims {
        assert!(out.page(*pfn).is_none(), "PFN {pfn:#x}");
    }
    let strict = Options { strict: true, ..options() };
    let e = cut_with(&bytes, &strict).err().unwrap();
    assert!(matches!(e, Error::Strict(_)) && e.kind() == Kind::BadInput, "{e}");
    // What was left out on purpose is no damage.
    let o = KdumpOptions { excluded: mfns(0, 3), ..KdumpOptions::default() };
    cut_with(&kdump(&dump, &o), &strict).unwrap();
}

/// What was not written is no zero page, also where no zero page tells where these are.
#[test]
fn tables_that_were_not_written_are_missing_and_not_zero() {
    let dump = machine();
    let t = &dump.truth;
    for shared_zero in [false, true] {
        let incomplete: Vec<u64> = t.p2m_pages.iter().map(|pfn| t.dom0[pfn]).collect();
        let o = KdumpOptions { incomplete, shared_zero, ..KdumpOptions::default() };
        let bytes = kdump(&dump, &o);
        let (report, out) = cut_with(&bytes, &options()).unwrap();
        let out = reread(&out);
        for pfn in t.dom0.keys().filter(|p| !t.p2m_pages.contains(p)) {
            assert!(out.page(*pfn).is_some(), "PFN {pfn:#x}");
        }
        assert!(report.warnings.iter().all(|w| !w.contains("does not give to the domain")), "{:?}", report.warnings);
        let absent = report.output.absent.get("was not written: the dump is incomplete");
        assert_eq!(absent, Some(&(t.p2m_pages.len() as u64)));
        right_or_missing(&dump, &bytes, "a P2M that was not written");
    }
}

/// The last page of a dump is often a zero page, which stands first in the file.
#[test]
fn an_end_that_is_cut_off_is_told_whatever_the_last_page_is() {
    let dump = machine();
    let stored = |mfn: &u64| dump.saved.iter().any(|(start, end)| (*start..*end).contains(&(mfn << 12)));
    let mfns: Vec<u64> = (0..dump.saved.iter().map(|r| r.1).max().unwrap() >> 12).filter(stored).collect();
    let zero = |mfn: u64| dump.page(mfn).iter().all(|b| *b == 0);
    let last = mfns.iter().rposition(|mfn| zero(*mfn)).unwrap();
    let excluded = mfns[last + 1..].to_vec();
    let whole = kdump(&dump, &KdumpOptions { excluded, ..KdumpOptions::default() });
    let (_, mem) = xdump_cut::source::read(&whole).unwrap();
    assert!(mem.history().damage.is_empty());
    let short = whole[..whole.len() - 10].to_vec();
    let (_, mem) = xdump_cut::source::read(&short).unwrap();
    assert_eq!(mem.map().cut_off(), 10);
    assert!(mem.history().must_be_sound().is_err());
}

/// Pages that are damaged are called so, and are in neither format's output.
#[test]
fn damaged_pages_are_counted_as_such() {
    let dump = machine();
    let data = |p: &&u64| !dump.truth.tables.contains_key(p) && !dump.truth.zero_pfns.contains(p);
    let (&pfn, &mfn) = dump.truth.dom0.iter().rev().find(|(p, _)| data(p)).unwrap();
    let mut bytes = kdump(&dump, &KdumpOptions { codec: Codec::Zlib, ..KdumpOptions::default() });
    let (_, packed) = synth::kdump::compress(Codec::Zlib, dump.page(mfn));
    let at = bytes.windows(packed.len()).position(|w| w == packed).unwrap();
    bytes[at..at + 2].fill(0xff);
    for format in [Format::Elf, Format::Kdump(xdump_cut::pipeline::codec::Codec::Zstd(1))] {
        let (report, out) = cut_with(&bytes, &Options { format, ..options() }).unwrap();
        assert_eq!(report.output.absent, [("is damaged in the dump".to_owned(), 1)].into());
        // In the kdump format it has a descriptor that says so.
        let (_, mem) = xdump_cut::source::read(&out).unwrap();
        let why = mem.page(xdump_cut::units::Mfn(pfn)).err().unwrap();
        assert!([Absence::NotInDump, Absence::Incomplete].contains(&why), "{why}");
        let e = cut_with(&bytes, &Options { format, strict: true, ..options() }).err().unwrap();
        assert!(e.to_string().contains("is damaged in the dump"), "{e}");
    }
}

#[test]
fn parts_of_a_split_dump_are_one() {
    let dump = machine();
    let want = plain(&dump);
    let end = dump.saved.iter().map(|r| r.1).max().unwrap() >> 12;
    for version in [4, 6] {
        let part = |split| kdump(&dump, &KdumpOptions { version, split: Some(split), ..KdumpOptions::default() });
        let parts = [part((end / 2, end)), part((0, end / 4)), part((end / 4, end / 2))];
        let set = |numbers: &[usize]| Set::new(numbers.iter().map(|n| Box::new(parts[*n].clone()) as _).collect());
        assert!(cut_bytes(&set(&[0, 1, 2])) == want, "version {version}");
        // A part that was not given: its pages are missing.
        let e = cut_with(&set(&[1, 2]), &Options { strict: true, ..options() }).err().unwrap();
        assert!(e.to_string().contains("not given"), "{e}");
        let _ = cut_with(&set(&[0, 2]), &options());
    }
    // The second half of another dump of the same size.
    let mut later = Machine::new().domus(1);
    later.seed ^= 1;
    let later = later.build();
    let part = |dump, split| Box::new(kdump(dump, &KdumpOptions { split: Some(split), ..KdumpOptions::default() }));
    let mixed = Set::new(vec![part(&dump, (0, end / 2)), part(&later, (end / 2, end))]);
    assert_eq!(cut_with(&mixed, &options()).err().unwrap().kind(), Kind::Usage);
    // Two dumps are no set, and neither is one that is whole.
    let other = Machine::new().domus(3).dom0_vcpus(4).build();
    let whole = || Box::new(kdump(&dump, &KdumpOptions::default())) as Box<dyn ReadAt>;
    let theirs = Box::new(kdump(&other, &KdumpOptions { split: Some((0, 9)), ..KdumpOptions::default() }));
    for set in [vec![whole(), theirs as _], vec![whole(), whole()], vec![whole(), Box::new(dump.bytes.clone())]] {
        assert_eq!(cut_with(&Set::new(set), &options()).err().unwrap().kind(), Kind::Usage);
    }
}

/// Two ELF files, each with a part of the PT_LOADs.
#[test]
fn elf_files_with_parts_of_the_memory_are_one() {
    let whole = Machine::new().with_elf(|e| e.loads = 8).build();
    let want = plain(&whole);
    let word = |b: &[u8], at: usize| u64::from_le_bytes(b[at..at + 8].try_into().unwrap()) as usize;
    let phnum = u16::from_le_bytes([whole.bytes[56], whole.bytes[57]]) as usize;
    let half = |keep: &dyn Fn(usize) -> bool| {
        let mut bytes = whole.bytes.clone();
        let table = word(&bytes, 32);
        let others = (0..phnum).filter(|n| bytes[table + n * 56] == 1 && !keep(*n)).collect::<Vec<_>>();
        // PT_NULL.
        others.iter().for_each(|n| bytes[table + n * 56] = 0);
        Box::new(bytes) as Box<dyn ReadAt>
    };
    let set = Set::new(vec![half(&|n| n % 2 == 0), half(&|n| n % 2 == 1)]);
    assert!(cut_bytes(&set) == want);
    // What one of them lacks is cut off, and not taken from the next one.
    let last = (phnum - 1) % 2;
    let (first, second) = (|| half(&|n| n % 2 != last), half(&|n| n % 2 == last));
    let mut short = vec![0; second.len() as usize - 8192];
    second.read_exact_at(Default::default(), &mut short).unwrap();
    for set in [Set::new(vec![first(), Box::new(short.clone())]), Set::new(vec![Box::new(short.clone()), first()])] {
        let (_, mem) = xdump_cut::source::read(&set).unwrap();
        assert_eq!(mem.map().cut_off(), 8192);
        assert!(mem.history().must_be_sound().is_err());
        right_or_missing(&whole, &set, "a set with a part that is cut short");
    }
    let other = Machine::new().domus(2).build();
    let set = Set::new(vec![half(&|n| n % 2 == 0), Box::new(other.bytes)]);
    assert_eq!(cut_with(&set, &options()).err().unwrap().kind(), Kind::Usage);
}

fn opened(dir: &Path, name: &str, bytes: &[u8], no_mmap: bool) -> Result<Box<dyn ReadAt>, Error> {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    open(&path, &OpenOptions { no_mmap, tmp_dir: Some(dir.into()), ..OpenOptions::default() })
}

#[test]
fn zstd_of_small_frames_is_read_in_place() {
    let dump = machine();
    let want = plain(&dump);
    let dir = tempfile::tempdir().unwrap();
    for (table, no_mmap) in [(true, false), (true, true), (false, false)] {
        let source = opened(dir.path(), "v.zst", &frames(&dump.bytes, 300_000, table), no_mmap).unwrap();
        assert!(source.history().form().contains("read in place"), "{}", source.history().form());
        assert!(cut_bytes(&*source) == want, "{table} {no_mmap}");
    }
    // A table that lies is no table: the stream is unpacked.
    let mut bytes = frames(&dump.bytes, 300_000, true);
    let at = bytes.len() - 9 - 8;
    bytes[at] ^= 1;
    let source = opened(dir.path(), "v.zst", &bytes, true).unwrap();
    assert_eq!(source.history().form(), "zstd");
    assert!(cut_bytes(&*source) == want);
}

/// A bad frame is damage of the file, and no trouble that may pass.
#[test]
fn a_bad_frame_is_damage() {
    let dump = machine();
    let dir = tempfile::tempdir().unwrap();
    let whole = frames(&dump.bytes, 300_000, true);
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    let starts: Vec<usize> = (0..whole.len() - 4).filter(|at| whole[*at..*at + 4] == magic).collect();
    let (mut failed, mut damaged) = (0, 0);
    for at in starts {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let source = opened(dir.path(), "bad.zst", &bytes, false).unwrap();
        match cut_with(&*source, &options()) {
            Err(e) => {
                assert_eq!(e.kind(), Kind::BadInput, "{e}");
                failed += 1;
            }
            Ok((report, _)) => {
                assert!(!report.output.absent.contains_key("could not be read"), "{:?}", report.output.absent);
                damaged += u64::from(report.output.absent.contains_key("is damaged in the dump"));
            }
        }
    }
    assert!(failed > 0 && damaged > 0, "{failed} {damaged}");
}

/// What comes out of a stream is bounded by what its own headers speak of.
#[test]
fn a_stream_without_end_is_cut_off() {
    let dump = machine();
    let dir = tempfile::tempdir().unwrap();
    for head in [dump.bytes.clone(), kdump(&dump, &KdumpOptions::default())] {
        let mut z = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        z.write_all(&head).unwrap();
        let zeros = vec![0; 16 << 20];
        (0..256).for_each(|_| z.write_all(&zeros).unwrap());
        let source = opened(dir.path(), "bomb.zst", &z.finish().unwrap(), false).unwrap();
        assert!(source.len() < 1 << 30, "{}", source.len());
        assert!(source.history().damage.to_string().contains("go on"), "{:?}", source.history());
    }
    let nest = |bytes: Vec<u8>| zstd::encode_all(&bytes[..], 1).unwrap();
    let deep = (0..8).fold(dump.bytes[..9000].to_vec(), |bytes, _| nest(bytes));
    assert_eq!(opened(dir.path(), "deep.zst", &deep, false).err().unwrap().kind(), Kind::Usage);
}

#[test]
fn a_stream_that_breaks_off_is_used_as_far_as_it_goes() {
    let dump = machine();
    let dir = tempfile::tempdir().unwrap();
    let packed = zstd::encode_all(&dump.bytes[..], 1).unwrap();
    let len = packed.len();
    for n in (4..40).chain((40..len).step_by(len / 40)) {
        match opened(dir.path(), "short.zst", &packed[..n], n % 2 == 0) {
            Err(e) => assert_eq!(e.kind(), Kind::BadInput, "{n} bytes: {e}"),
            Ok(source) => {
                assert!(!source.history().damage.is_empty());
                right_or_missing(&dump, &*source, &format!("{n} of {len} bytes"));
            }
        }
    }
}

/// An error that blames the input, or a cut whose pages are the machine's.
fn right_or_missing(dump: &Dump, source: &dyn ReadAt, what: &str) {
    match cut_with(source, &options()) {
        Err(e) => assert_eq!(e.kind(), Kind::BadInput, "{what}: {e}"),
        Ok((report, out)) => {
            assert!(!report.warnings.is_empty(), "{what}: no warning");
            let t = &dump.truth;
            let out = reread(&out);
            let data = |p: &u64| t.dom0.contains_key(p) && !t.tables.contains_key(p) && *p != t.xen_start_info_at.0;
            for pfn in out.frames().into_iter().filter(data) {
                assert!(out.page(pfn).unwrap()[..] == dump.dom0_page(pfn).unwrap()[..], "{what}: PFN {pfn:#x}");
            }
        }
    }
}

#[test]
fn kdump_headers_of_every_length_and_with_every_byte_flipped() {
    let dump = machine();
    let whole = kdump(&dump, &KdumpOptions { codec: Codec::None, ..KdumpOptions::default() });
    let end = head_len(&dump);
    for n in (0..600).chain(4000..4400).chain((4400..end).step_by(97)) {
        let e = xdump_cut::source::read(&whole[..n].to_vec()).err().unwrap();
        assert_eq!(e.kind(), Kind::BadInput, "{n} bytes: {e}");
    }
    let mut bad = whole;
    for at in (0..464).chain(4096..4200) {
        for flip in [0x01, 0x80, 0xff] {
            bad[at] ^= flip;
            if let Err(e) = xdump_cut::source::read(&bad) {
                assert_eq!(e.kind(), Kind::BadInput, "byte {at:#x}: {e}");
            } else if at % 16 == 0 {
                let _ = Info::read(&bad);
            }
            bad[at] ^= flip;
        }
    }
}

#[test]
fn kdump_cut_short_or_damaged_behind_the_headers() {
    let dump = machine();
    let whole = kdump(&dump, &KdumpOptions { codec: Codec::Mixed, ..KdumpOptions::default() });
    let (head, len) = (head_len(&dump), whole.len());
    for n in (head..len).step_by((len - head) / 40) {
        right_or_missing(&dump, &whole[..n].to_vec(), &format!("{n} of {len} bytes"));
    }
    // Descriptors and pages with flips: any outcome but a panic, and another usage error than ours.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut bad = whole;
    for _ in 0..60 {
        let flips: Vec<usize> = (0..200)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                head + (random >> 33) as usize % (len - head)
            })
            .collect();
        flips.iter().for_each(|at| bad[*at] ^= 0x41);
        if let Err(e) = cut_with(&bad, &options()) {
            assert_eq!(e.kind(), Kind::BadInput, "{e}");
        }
        flips.iter().for_each(|at| bad[*at] ^= 0x41);
    }
}
