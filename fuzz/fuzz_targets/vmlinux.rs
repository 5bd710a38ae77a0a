//! A vmlinux: its symbols, and its DWARF.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdump_cut::linux::dwarf::vmcoreinfo;
use xdump_cut::linux::symbols::Symbols;
use xdump_cut_fuzz::with_file;

fuzz_target!(|data: &[u8]| with_file(data, |path| {
    drop(Symbols::vmlinux(path));
    drop(vmcoreinfo(path));
}));
