//! Files of `xl dump-core`: sections, notes, lists, and a domain without its host.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdump_cut_fuzz::{look, use_all};

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    // A file without program headers, or the ELF reader takes it.
    for (at, part) in [(0, &b"\x7fELF\x02\x01\x01"[..]), (56, &[0, 0]), (58, &[64, 0])] {
        if let Some(place) = bytes.get_mut(at..at + part.len()) {
            place.copy_from_slice(part);
        }
    }
    look(&bytes);
    use_all(&bytes);
});
