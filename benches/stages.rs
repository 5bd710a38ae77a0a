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
use xdump_cut::plan::Plan;
use xdump_cut::plan::level::Level;
use xdump_cut::plan::selection::{Known, Selection};
use xdump_cut::source::{MachineMemory, OpenOptions, Vmcore, open};
use xdump_cut::xen::{Host, P2m};
use xdump_cut::zero::is_zero;

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

    let mut group = c.benchmark_group("zero test");
    group.throughput(Throughput::Bytes(pages.len() as u64 * 4096));
    group.bench_function("all pages of the domain", |b| {
        b.iter(|| {
            let zero = pages.iter().filter(|p| is_zero(black_box(p))).count();
            assert_eq!(zero + full.len(), pages.len());
        })
    });
    group.finish();

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

    // Why lzo is a feature.
    let some: Vec<&Vec<u8>> = full.into_iter().step_by(16).collect();
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
