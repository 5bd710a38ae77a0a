//! What `dist/install` puts in place, in a folder, and programs run with that folder as the root of all.

use super::fixtures::{self, Fixture};
use super::tools::{Ran, run, scratch};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// A folder of its own.
pub(crate) fn folder(what: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let path = scratch().join(format!("{what}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&path).unwrap();
    path
}

/// The dump of a dom0 that panicked, which each checkout has.
pub(crate) fn dump() -> &'static Fixture {
    let name = "xen-4.17-linux-6.12-panic";
    fixtures::all().iter().find(|f| f.name == name).unwrap_or_else(|| panic!("testdata/{name} is missing"))
}

/// Runs `dist/install`, below `root`.
pub(crate) fn install(root: &Path, prefix: &str) -> Ran {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/install"));
    command.env("DESTDIR", root).env("PREFIX", prefix).env("PROGRAM", env!("CARGO_BIN_EXE_xdump-cut"));
    command.env_remove("SYSCONFDIR").env_remove("UNITDIR");
    let ran = run(&mut command, LIMIT);
    assert!(ran.status.success(), "{}", ran.stderr);
    ran
}

/// A shell script run where mounts are its own, as root there.
pub(crate) fn apart(script: &str, args: &[&Path]) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-euc", script, "sh"]).args(args);
    command
}

/// A root with the machine's programs, what was installed in it, and a dump as /proc/vmcore; then `$2...` in it.
pub(crate) fn in_root(root: &Path, vmcore: &Path, words: &[&str]) -> Ran {
    let script = r#"
        root=$1 vmcore=$2
        shift 2
        cd "$root"
        mkdir -p usr/bin usr/sbin usr/lib usr/lib64 usr/share dev proc tmp
        for name in usr/bin usr/sbin usr/lib usr/lib64 usr/share; do mount --bind "/$name" "$name"; done
        mount --rbind /dev dev
        for name in bin sbin lib lib64; do [ -e "$name" ] || ln -s "usr/$name" "$name"; done
        : > proc/vmcore; : > proc/iomem; : > proc/cmdline
        mount --bind "$vmcore" proc/vmcore
        exec chroot . "$@""#;
    let mut command = apart(script, &[root, vmcore]);
    command.args(words).env_clear().env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin").env("TERM", "dumb");
    let ran = run(&mut command, LIMIT);
    let cannot = "mounts of its own are needed: root, or user namespaces (in a container, --cap-add SYS_ADMIN)";
    assert!(!ran.stderr.contains("unshare: ") && !ran.stderr.contains("mount: "), "{cannot}: {}", ran.stderr);
    ran
}
