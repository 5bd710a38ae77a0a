//! The readers that `.ci/tools` installs, and running a program with a time limit.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a program said and how it ended.
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

/// The starter of a reader; a missing one fails the test, as a skipped test would look like a passed one.
pub(crate) fn tool(name: &str) -> PathBuf {
    let root = std::env::var_os("XDUMP_CUT_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools"), PathBuf::from);
    let path = root.join("bin").join(name);
    assert!(path.exists(), "{name} is not at {}: run .ci/tools", path.display());
    path
}

/// A folder for this test process, below cargo's folder for tests' files; those of processes that ended are removed,
/// as nothing runs at the end of a test process that could do it.
pub(crate) fn scratch() -> PathBuf {
    static MADE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let make = || {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(pid) = name.strip_prefix("e2e-")
                && !Path::new("/proc").join(pid).exists()
            {
                let _ = std::fs::remove_dir_all(entry.path()); // another process may be doing the same
            }
        }
        let own = root.join(format!("e2e-{}", std::process::id()));
        std::fs::create_dir_all(&own).unwrap();
        own
    };
    MADE.get_or_init(make).clone()
}

/// Runs a program to its end, at most `limit`; what it says goes through files, so that it never waits for us.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Ran {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let stem = scratch().join(format!("run-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let [out, err] = ["out", "err"].map(|ext| stem.with_extension(ext));
    let create = |path: &Path| std::fs::File::create(path).unwrap();
    command.stdin(Stdio::null()).stdout(create(&out)).stderr(create(&err));
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let start = Instant::now();
    let text = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} still ran after {limit:?}:\n{}\n{}", text(&out), text(&err));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let ran = Ran { stdout: text(&out), stderr: text(&err), status };
    for path in [out, err] {
        std::fs::remove_file(path).unwrap();
    }
    ran
}

/// Most memory that the process had, in bytes, as far as it was seen before it ended.
pub(crate) fn peak(child: &mut Child) -> u64 {
    let (status, mut most) = (format!("/proc/{}/status", child.id()), 0);
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let now = line.map_or(0, |l| l.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024);
        most = most.max(now);
        if let Some(done) = child.try_wait().unwrap() {
            assert!(done.success(), "{done}");
            return most;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
