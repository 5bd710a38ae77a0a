//! What the fuzz targets share.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../tests/synth/mod.rs"]
pub mod synth;

use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use xdump_cut::cut::cut;
use xdump_cut::info::Info;
use xdump_cut::log::{LogOptions, Whose, write};
use xdump_cut::options::{Format, Options, Which};
use xdump_cut::pipeline::Silent;
use xdump_cut::sink::Output;
use xdump_cut::source::{MachineMemory, ReadAt, read};
use xdump_cut::units::{MachineAddr, Mfn};

/// Ranges that are looked at, and pages of each.
const RANGES: usize = 32;
const PAGES: u64 = 48;

/// Calls `work` with the path of a file of these bytes.
pub fn with_file(data: &[u8], work: impl FnOnce(&Path)) {
    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(data).unwrap();
    work(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
}

/// Reads a dump's headers and some of its pages, as the rest of the program would.
pub fn look(source: &dyn ReadAt) {
    if let Ok((core, mem)) = read(source) {
        core.notes().for_each(drop);
        touch(&mem);
    }
}

fn touch(mem: &MachineMemory<'_>) {
    let mut buf = Vec::new();
    let ranges: Vec<(MachineAddr, MachineAddr)> = mem.map().ranges().take(RANGES).collect();
    for (start, end) in ranges {
        mem.map().find(end);
        let mut mfn = start.0 >> 12;
        for _ in 0..PAGES.min((end.0 - start.0) >> 12) {
            let _ = mem.page(Mfn(mfn));
            mfn += match mem.run(Mfn(mfn), 16, &mut buf) {
                Ok((_, n)) => n as u64,
                Err(_) => 1,
            };
        }
        let _ = mem.read(start, &mut [0; 100]);
    }
}

/// `info`, both logs, and a cut of what these bytes have.
pub fn use_all(bytes: &Vec<u8>) {
    let _ = Info::read(bytes);
    for whose in [Whose::Domain(Which::Hardware), Whose::Xen] {
        let options = LogOptions { whose, raw: false, xen_syms: None };
        let _ = write(bytes, &options, &mut std::io::sink());
    }
    let name = std::env::temp_dir().join(format!("xdump-cut-fuzz.{}", std::process::id()));
    let options = Options { format: Format::Elf, threads: 1, ..Options::default() };
    if let Ok(out) = Output::create(&name, true, &name) {
        let _ = cut(bytes, &options, out, &Silent);
    }
    let _ = std::fs::remove_file(&name);
}
