//! kdump-compressed files: headers, notes, and pages as they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdump_cut_fuzz::look;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    let magic = b"KDUMP   ";
    if let Some(head) = bytes.get_mut(..magic.len()) {
        head.copy_from_slice(magic);
    }
    look(&bytes);
});
