//! How much memory there is to be had.

use crate::pipeline::crew::LEAST_MEMORY;
use std::path::Path;

/// What a cut of `/proc/vmcore` is held to unless the user says otherwise, in bytes: a quarter of what is available, since
/// the capture kernel has little, and no swap.
pub(super) fn default_limit(inputs: &[&Path]) -> Option<u64> {
    let on_proc = |path: &&Path| path.canonicalize().is_ok_and(|p| p == Path::new("/proc/vmcore"));
    if !inputs.iter().any(on_proc) {
        return None;
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some((available(&text)? / 4).max(LEAST_MEMORY))
}

/// MemAvailable, in bytes (Linux: Documentation/filesystems/proc.rst).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_line() {
        assert_eq!(available("MemTotal:  200 kB\nMemAvailable:     100 kB\nBuffers: 1 kB\n"), Some(102_400));
        assert_eq!(available("MemTotal:  200 kB\n"), None);
        assert!(available(&std::fs::read_to_string("/proc/meminfo").unwrap()).is_some_and(|n| n > 0));
        assert_eq!(default_limit(&[Path::new("/proc/version"), Path::new("/nowhere")]), None);
    }
}
