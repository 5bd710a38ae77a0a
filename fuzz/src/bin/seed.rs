//! Fills `corpus/TARGET` with seeds from the tests' writers: run it in `fuzz/` before the first run of a target.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use dump::{PAGE, Page};
use std::fs;
use std::io::Write;
use std::path::Path;
use xc_core::Domain;
use xdump_cut_fuzz::synth::kdump::{CODECS, KdumpOptions, kdump};
use xdump_cut_fuzz::synth::{Machine, Xen, syms};

/// What of a dump a fuzzer can handle: headers, notes, the first pages.
const HEAD: usize = 48 << 10;

#[path = "../../../tests/support/xc_core.rs"]
mod xc_core;

/// What that writer needs of its neighbours.
mod dump {
    pub(crate) const PAGE: usize = 4096;
    pub(crate) type Page = Box<[u8; PAGE]>;
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

/// Records as makedumpfile -F writes them.
fn flattened(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, part) in bytes.chunks(8192).enumerate() {
        out.extend((i as i64 * 8192).to_be_bytes());
        out.extend((part.len() as i64).to_be_bytes());
        out.extend(part);
    }
    out.extend([0xff; 16]);
    out
}

/// Ten pages with a root table on PFN 1 that leads to itself.
fn domain(translated: bool) -> Domain {
    let mfn = |pfn: u64| if translated { pfn } else { 0x1234 - pfn };
    let mut pages: Vec<(u64, u64, Page)> = (0..10).map(|n| (n, mfn(n), Box::new([n as u8; PAGE]))).collect();
    pages[1].2.fill(0);
    pages[1].2[..8].copy_from_slice(&(mfn(1) << 12 | 0x67).to_le_bytes());
    let mut shared_info: Page = Box::new([0; PAGE]);
    shared_info[0xc10..0xc18].copy_from_slice(&10_u64.to_le_bytes());
    Domain { pages, vcpus: vec![([0; 21], mfn(1))], shared_info, translated }
}

fn main() {
    for xen in Xen::ALL {
        let dump = Machine::new().xen(xen).build();
        let head = &dump.bytes[..HEAD];
        let name = format!("{xen:?}");
        put("elf", &name, head);
        put("flattened", &name, &flattened(head));
        put("vmcoreinfo", &name, dump.truth.vmcoreinfo_xen.as_bytes());
        put("vmcoreinfo", &format!("{name}.linux"), dump.truth.vmcoreinfo.as_bytes());
        put("system_map", &name, dump.truth.system_map.as_bytes());
        for id in [true, false] {
            put("xen_syms", &format!("{name}.{id}"), &syms::xen_syms(&dump, id));
            put("vmlinux", &format!("{name}.{id}"), &syms::xen_syms(&dump, id));
        }
    }
    let dump = Machine::new().build();
    for (codec, version) in CODECS.into_iter().flat_map(|c| (1..=6).map(move |v| (c, v))) {
        let bytes = kdump(&dump, &KdumpOptions { codec, version, ..KdumpOptions::default() });
        put("kdump", &format!("{codec:?}.{version}"), &bytes[..bytes.len().min(HEAD)]);
    }
    let head = &dump.bytes[..HEAD];
    put("packed", "zst", &zstd::encode_all(head, 3).unwrap());
    let frames: Vec<u8> = head.chunks(8192).flat_map(|c| zstd::bulk::compress(c, 3).unwrap()).collect();
    put("packed", "frames.zst", &frames);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(head).unwrap();
    put("packed", "gz", &gz.finish().unwrap());
    for (name, tool, arguments) in [("xz", "xz", "-0c"), ("bz2", "bzip2", "-1c"), ("lz4", "lz4", "-1c")] {
        let plain = std::env::temp_dir().join("xdump-cut-seed");
        fs::write(&plain, head).unwrap();
        let ran = std::process::Command::new(tool).arg(arguments).arg(&plain).output();
        let ran = ran.unwrap_or_else(|e| panic!("{tool}: {e}; install it"));
        assert!(ran.status.success(), "{tool}: {}", String::from_utf8_lossy(&ran.stderr));
        put("packed", name, &ran.stdout);
    }
    for translated in [false, true] {
        put("xc_core", &translated.to_string(), &xc_core::write(&domain(translated)));
    }
    for machine in 0..2_u8 {
        let changes: Vec<u8> = (0..12 * 4).map(|i: u8| i.wrapping_mul(37)).collect();
        put("machine", &machine.to_string(), &[&[machine], &changes[..]].concat());
    }
}
