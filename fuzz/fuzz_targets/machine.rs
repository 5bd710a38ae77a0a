//! A whole synthetic machine with words of its memory changed: Xen's structures, page tables, P2M, kernel, struct pages,
//! logs; all that is read before a cut writes, and `info` and `log` besides. The input is a list of changes: place and
//! value, 12 bytes each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use xdump_cut_fuzz::synth::Machine;
use xdump_cut_fuzz::use_all;

fn machines() -> &'static [Vec<u8>] {
    static ALL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let log: Vec<String> = (0..40).map(|i| format!("line {i}")).collect();
        let small = || Machine::new().mem_map(true).log(log.clone());
        vec![small().build().bytes, small().unpinned_mm(true).linear_p2m(Some(true)).build().bytes]
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((which, changes)) = data.split_first() else { return };
    let all = machines();
    let mut bytes = all[usize::from(*which) % all.len()].clone();
    let words = bytes.len() / 8;
    for change in changes.chunks_exact(12).take(64) {
        let at = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) as usize % words * 8;
        bytes[at..at + 8].copy_from_slice(&change[4..12]);
    }
    use_all(&bytes);
});
