//! A xen-syms: symbols, build ID, read-only data, DWARF.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdump_cut::xen::XenSyms;
use xdump_cut_fuzz::with_file;

fuzz_target!(|data: &[u8]| with_file(data, |path| drop(XenSyms::open(path))));
