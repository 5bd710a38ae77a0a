//! Flattened streams of makedumpfile: records in any order, over each other, cut short.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdump_cut::source::{OpenOptions, open};
use xdump_cut_fuzz::{look, with_file};

/// Bytes before the records.
const HEAD: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let mut bytes = vec![0; HEAD];
    bytes[..16].copy_from_slice(b"makedumpfile\0\0\0\0");
    bytes[16..32].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    bytes.extend_from_slice(data);
    with_file(&bytes, |path| {
        if let Ok(source) = open(path, &OpenOptions::default()) {
            look(&*source);
        }
    });
});
