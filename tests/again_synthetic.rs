//! Cuts of synthetic machines, cut again: every format into every other, a domain beyond what a bitmap holds, memory in more
//! pieces than a note tells, and damage anywhere.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;
mod synth;

use std::path::Path;
use synth::Machine;
use xdump_cut::Error;
use xdump_cut::cut::{cut, dry_run};
use xdump_cut::options::{Format, Options, Which};
use xdump_cut::pipeline::Silent;
use xdump_cut::pipeline::codec::Codec;
use xdump_cut::plan::level::Level;
use xdump_cut::report::Report;
use xdump_cut::sink::Output;
use xdump_cut::source::{OpenOptions, ReadAt, open};

const FORMATS: [Format; 4] =
    [Format::Kdump(Codec::Zstd(1)), Format::Kdump(Codec::None), Format::Elf, Format::ElfZst(3)];

fn options(format: Format) -> Options {
    Options { format, threads: 2, verify: true, ..Options::default() }
}

fn cut_with(source: &dyn ReadAt, options: &Options) -> Result<(Report, Vec<u8>), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let report = cut(source, options, Output::create(&path, false, Path::new("")).unwrap(), &Silent)?;
    Ok((report, std::fs::read(path).unwrap()))
}

/// What a file of these bytes is, wrappers off.
fn opened(bytes: &[u8]) -> Result<Box<dyn ReadAt>, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    open(file.path(), &OpenOptions { no_mmap: true, ..OpenOptions::default() })
}

#[test]
fn every_format_becomes_every_other() {
    let machine = Machine::new().mem_map(true).domus(1).build();
    for (level, digest) in [(Level::MOST, true), (Level::ZEROS, false), (Level::NOTHING, false)] {
        let options = |format| Options { level, digest, ..options(format) };
        let direct = FORMATS.map(|format| cut_with(&machine.bytes, &options(format)).unwrap().1);
        for from in &direct {
            let source = opened(from).unwrap();
            for (format, to) in FORMATS.into_iter().zip(&direct) {
                // The digest stays where there is one.
                let (report, bytes) = cut_with(&*source, &Options { digest: false, ..options(format) }).unwrap();
                assert!(report.warnings.is_empty(), "{:?}", report.warnings);
                assert!(bytes == *to, "{level} {} to {format}", report.source.form);
                assert_eq!(report.output.digest.is_some(), digest);
            }
        }
    }
}

#[test]
fn a_dry_run_of_a_cut_counts_its_pages() {
    let machine = Machine::new().build();
    let (report, bytes) = cut_with(&machine.bytes, &options(Format::Elf)).unwrap();
    let dry = dry_run(&bytes, &options(Format::default()), false, &Silent).unwrap();
    assert_eq!(dry[0].1.as_ref().unwrap().output.pages, report.output.pages);
    assert!(matches!(dry_run(&bytes, &options(Format::default()), true, &Silent), Err(Error::Usage(_))));
    let other = Options { domain: Which::Id(1), ..options(Format::Elf) };
    assert!(matches!(cut_with(&bytes, &other), Err(Error::Usage(_))));
}

/// A file that is cut short, or whose bytes were turned over, gives an error, or pages that the whole one has.
#[test]
fn damage_never_makes_pages_up() {
    let machine = Machine::new().mem_map(true).build();
    let whole = cut_with(&machine.bytes, &options(Format::Elf)).unwrap().1;
    let truth = reread(&whole);
    for format in [Format::default(), Format::Elf, Format::ElfZst(1)] {
        let bytes = cut_with(&machine.bytes, &Options { digest: true, ..options(format) }).unwrap().1;
        let mut made = 0;
        for at in (1..32).map(|n| n * bytes.len() / 32).chain([70, 5000, bytes.len() - 1]) {
            let mut turned = bytes.clone();
            turned[at..(at + 40).min(bytes.len())].iter_mut().for_each(|b| *b ^= 0x5a);
            for (damaged, sound) in [(&bytes[..at], true), (&turned[..], false)] {
                let again = opened(damaged).and_then(|source| cut_with(&*source, &options(Format::Elf)));
                let Ok((report, out)) = again else { continue };
                made += 1;
                let out = reread(&out);
                let differ = out
                    .frames()
                    .into_iter()
                    .filter(|n| out.page(*n).map(|p| p.to_vec()) != truth.page(*n).map(|p| p.to_vec()));
                // Of turned bytes only the digest tells, where nothing is compressed.
                let told = report.warnings.iter().any(|w| w.contains("digest"));
                assert!(differ.count() == 0 || !sound && told, "{format} at {at}: {:?}", report.warnings);
            }
        }
        assert!(made > 20, "{format}: {made}");
    }
}

fn reread(bytes: &[u8]) -> Box<dyn support::dump::Dump> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    support::dump::open(file.path())
}
