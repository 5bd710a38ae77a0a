//! The stages of a cut, one by one, on the sample dump: `cargo bench`. Each asserts what it measures.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use xdump_cut::linux::kernel::Landmarks;
use xdump_cut::linux::{Kernel, note};
use xdump_cut::pipeline::codec::Codec;
use xdump_cut::pipeline::crew::Crew;
use xdump_cut::pipeline::ordered::ordered;
use xdump_cut::plan::Plan;
use xdump_cut::plan::level::Level;
use xdump_cut::plan::selection::{Known, Selection};
use xdump_cut::sink::Output;
use xdump_cut::source::{MachineMemory, OpenOptions, Vmcore, open};
use xdump_cut::units::{PAGE_SIZE, Page, Pfn};
use xdump_cut::xen::{Host, P2m};
use xdump_cut::zero::{certainly_full, is_zero};

fn stages(c: &mut Criterion) {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/xen-4.17-linux-6.12-panic/vmcore.zst");
    let source = open(&sample, &OpenOptions::default()).unwrap();
    let mut core = Vmcore::parse(&*source).unwrap();
    let mem = MachineMemory::new(&*source, core.take_segments());
    let host = Host::open(&mem, &core).unwrap();
    let domain = host.hardware_domain().unwrap();
    let p2m = P2m::read(&host, domain).unwrap();
    let pages: Vec<Vec<u8>> = p2m
        .runs()
        .iter()
        .flat_map(|r| (0..r.len).map(|i| r.mfn.checked_add(i).unwrap()))
        .map(|mfn| mem.page(mfn).unwrap().into_owned())
        .collect();
    let full: Vec<&Vec<u8>> = pages.iter().filter(|p| !is_zero(p)).collect();

    c.bench_function("open: notes, page tables, domains", |b| {
        b.iter(|| Host::open(&mem, &core).unwrap().domains.len())
    });
    let mut group = c.benchmark_group("P2M");
    group.throughput(Throughput::Elements(p2m.pages()));
    group.bench_function("read and check", |b| b.iter(|| P2m::read(&host, domain).unwrap().pages()));
    group.finish();
    c.bench_function("kernel: image, VMCOREINFO", |b| {
        b.iter(|| {
            let kernel = Kernel::find(&host, domain, &p2m).unwrap();
            note::find(&kernel, None, &kernel.landmarks().notes).unwrap().uts
        })
    });
    let kernel = Kernel::find(&host, domain, &p2m).unwrap();
    let landmarks = kernel.landmarks();
    let found = note::find(&kernel, None, &landmarks.notes).unwrap();
    let mut group = c.benchmark_group("struct pages");
    group.throughput(Throughput::Elements(p2m.pages()));
    group.bench_function("classify", |b| {
        let known = Known { kernel: Some(&kernel), found: Some(&found), names: None, landmarks: &landmarks };
        b.iter(|| {
            let choice = Selection::make(&known, &p2m, Level::MOST, false);
            assert_eq!(choice.applied, Level::MOST);
            choice.excluded.pages.count()
        })
    });
    group.finish();
    c.bench_function("plan: all page tables", |b| {
        b.iter(|| {
            let known = Known { kernel: None, found: None, names: None, landmarks: &Landmarks::default() };
            let plan = Plan::new(&host, domain, &p2m, Selection::make(&known, &p2m, Level::ZEROS, false));
            assert_eq!(plan.tally.tables, p2m.tables.len() as u64);
            plan.pages()
        })
    });

    let known = Known { kernel: None, found: None, names: None, landmarks: &Landmarks::default() };
    let plan = Plan::new(&host, domain, &p2m, Selection::make(&known, &p2m, Level::ZEROS, false));
    let mut frames = host.frames.cursor();
    let tables: Vec<(Pfn, Page)> = plan
        .tables()
        .iter()
        .map(|t| (t.pfn, mem.page(p2m.mfn(t.pfn).unwrap()).unwrap().into_owned().try_into().unwrap()))
        .collect();
    let mut group = c.benchmark_group("page tables");
    group.throughput(Throughput::Elements(tables.len() as u64));
    group.bench_function("copy and rewrite", |b| {
        b.iter(|| {
            for (pfn, table) in &tables {
                let mut page = *table;
                plan.alter(Some(&mut frames), *pfn, &mut page);
                black_box(&page);
            }
        })
    });
    group.finish();

    zero_test(c, &pages, full.len());
    codecs(c, &full);
    writing(c, &full, &sample);
    lzo(c, &full);
}

fn zero_test(c: &mut Criterion, pages: &[Vec<u8>], full: usize) {
    let mut group = c.benchmark_group("zero test");
    group.throughput(Throughput::Bytes(pages.len() as u64 * 4096));
    group.bench_function("all pages of the domain", |b| {
        b.iter(|| {
            let zero = pages.iter().filter(|p| is_zero(black_box(p))).count();
            assert_eq!(zero + full, pages.len());
        })
    });
    let together = pages.concat();
    group.bench_function("all pages of the domain, by a first look at many", |b| {
        b.iter(|| {
            let zero = |some: &[u8]| {
                let certain = certainly_full(some);
                (0..).zip(some.chunks_exact(PAGE_SIZE)).filter(|(n, p)| certain >> n & 1 == 0 && is_zero(p)).count()
            };
            let zero: usize = black_box(&together).chunks(64 * PAGE_SIZE).map(zero).sum();
            assert_eq!(zero + full, pages.len());
        })
    });
    group.finish();
}

fn codecs(c: &mut Criterion, full: &[&Vec<u8>]) {
    let mut group = c.benchmark_group("compress pages that are not zero");
    group.throughput(Throughput::Bytes(full.len() as u64 * 4096)).sample_size(10);
    let mut codecs =
        vec![Codec::Zlib(1), Codec::Zlib(2), Codec::Zstd(-1), Codec::Zstd(1), Codec::Zstd(3), Codec::Snappy];
    codecs.extend(cfg!(feature = "lzo").then_some(Codec::Lzo));
    for codec in codecs {
        let mut compressor = codec.compressor().unwrap();
        let mut out = Vec::new();
        group.bench_function(codec.to_string(), |b| {
            b.iter(|| {
                out.clear();
                full.iter().filter(|p| compressor.append(p, &mut out)).count()
            });
        });
        println!("{codec}: ratio {:.2}", (full.len() * 4096) as f64 / out.len() as f64);
    }
    group.finish();
}

/// What the writing costs apart from what is written.
fn writing(c: &mut Criterion, full: &[&Vec<u8>], sample: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let crew = Crew::new(0, None).unwrap();
    let chunk: Vec<u8> = full.iter().cycle().take(256).flat_map(|p| p.iter().copied()).collect();
    let mut group = c.benchmark_group("hand over and write 64 results of 1 MiB in order");
    group.throughput(Throughput::Bytes(64 * chunk.len() as u64)).sample_size(10);
    group.bench_function("to a file", |b| {
        b.iter(|| {
            let out = Output::create(&folder.path().join("out"), true, sample).unwrap();
            let mut at = 0;
            ordered(
                &crew,
                0..64,
                |_| Ok(&chunk),
                |bytes: &Vec<u8>| {
                    out.write_at(bytes, at)?;
                    at += bytes.len() as u64;
                    Ok(())
                },
            )
            .unwrap();
            at
        })
    });
    group.finish();
}

/// Why lzo is a feature.
fn lzo(c: &mut Criterion, full: &[&Vec<u8>]) {
    let some: Vec<&Vec<u8>> = full.iter().copied().step_by(16).collect();
    let mut group = c.benchmark_group("compress a sixteenth of them with lzo");
    group.throughput(Throughput::Bytes(some.len() as u64 * 4096)).sample_size(10);
    #[cfg(feature = "lzo")]
    {
        let mut compressor = Codec::Lzo.compressor().unwrap();
        let mut out = Vec::new();
        group.bench_function("liblzo2, which the feature links", |b| {
            b.iter(|| {
                out.clear();
                some.iter().filter(|p| compressor.append(p, &mut out)).count()
            });
        });
    }
    let mut dict = lzokay::compress::Dict::new();
    group.bench_function("lzokay", |b| {
        b.iter(|| {
            some.iter().map(|p| lzokay::compress::compress_with_dict(p, &mut dict).unwrap().len()).sum::<usize>()
        });
    });
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
