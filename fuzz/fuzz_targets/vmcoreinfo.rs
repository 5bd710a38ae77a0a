//! VMCOREINFO text, Xen's and Linux's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdump_cut::vmcoreinfo::Vmcoreinfo;

fuzz_target!(|data: &[u8]| {
    let info = Vmcoreinfo::parse(data);
    for name in ["page", "mem_section", "page.flags", "PG_lru"] {
        let _ = (info.symbol(name), info.size(name), info.offset(name), info.length(name), info.number(name));
    }
});
