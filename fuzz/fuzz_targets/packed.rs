//! Whatever a file can be: zstd with and without a seek table, gzip, xz, bzip2, lz4, one within another, and what is in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdump_cut::source::{OpenOptions, open};
use xdump_cut_fuzz::{look, with_file};

fuzz_target!(|data: &[u8]| with_file(data, |path| {
    if let Ok(source) = open(path, &OpenOptions::default()) {
        look(&*source);
    }
}));
