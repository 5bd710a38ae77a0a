//! In the capture kernel: a Xen host whose dom0 panics, in QEMU, and the static program on /proc/vmcore there. All of it is
//! in `tests/capture/run`, for anyone to run by hand; `.ci/tools` installs QEMU and fetches what it boots.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::tools::{run, scratch};

/// The program is built first, for size, which takes minutes; then the machine runs for two, and TCG is as slow as the machine
/// that it has.
const LIMIT: Duration = Duration::from_secs(25 * 60);

#[test]
fn capture_kernel_cuts_its_own_vmcore() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/capture/run");
    let folder = scratch().join("capture");
    let ran = run(Command::new(script).arg(&folder), LIMIT);
    println!("{}", ran.stdout);
    assert!(ran.status.success(), "{}\n{}", ran.stdout, ran.stderr);
    // What must be seen, so that a script that came to its end without doing it does not pass.
    for seen in [
        concat!("xdump-cut ", env!("CARGO_PKG_VERSION"), ", static, "),
        "crash memory 128 MiB",
        "| xdump-cut | ",
        "| makedumpfile -X -c -d 1 | ",
        "the capture kernel's cut is that of the saved vmcore, byte for byte",
        "so is the flattened one",
        "crash opens dom0.kdump: ",
        "crash opens dom0.flat: ",
        "all is well",
    ] {
        assert!(ran.stdout.contains(seen), "no {seen:?} in:\n{}", ran.stdout);
    }
    std::fs::remove_dir_all(folder).unwrap();
}
