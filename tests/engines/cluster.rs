//! The two nodes of `tests/engines/cluster`, for as long as the value lives.

use crate::support::installed::{LIMIT, folder};
use crate::support::tools::{Ran, run, tool};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends with all that runs in it, also if the test does not come to its end: its input ends then.
pub(crate) struct Cluster {
    unshare: Child,
    init: String,
    path: String,
    pub(crate) dir: PathBuf,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "slurmd and sshd of several nodes take root: run this test as root"
        );
        let tools = tool("kubernetes-validate").ancestors().nth(2).unwrap().to_path_buf();
        let engines = tools.join("engines/bin");
        assert!(engines.join("slurmctld").exists(), "Slurm is not at {}: run .ci/tools", engines.display());
        let dir = folder("cluster").join("dir");
        let mut unshare = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/cluster"))
            .arg(&dir)
            .env("XDUMP_CUT_TOOLS", &tools)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(unshare.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", unshare.id())).unwrap_or_default();
        let path = format!("{}:/usr/bin:/usr/sbin:/bin:/sbin", engines.display());
        let cluster = Self { init: children.trim().to_owned(), unshare, path, dir };
        assert_eq!(said, "ready\n", "the nodes are not up; what they said is above");
        cluster
    }

    /// A program among the nodes, `xdump-cut` being this test's.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--wd={}", self.dir.join("home").display()));
        command.args(["--target", &self.init, "--mount", "--pid", "--net", "--uts", "--ipc", "--"]).args(words);
        command.env_clear().env("PATH", &self.path).env("HOME", self.dir.join("home"));
        command.env("SLURM_CONF", self.dir.join("slurm.conf")).env("XDUMP_CUT", env!("CARGO_BIN_EXE_xdump-cut"));
        command.env("PARALLEL_SSH", format!("ssh -F {}", self.dir.join("ssh/config").display()));
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        run(&mut self.command(words), LIMIT)
    }

    /// What a program says that must succeed.
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert!(ran.status.success(), "{words:?}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// A field of what Slurm knows of a task.
    pub(crate) fn field(&self, task: &str, field: &str) -> String {
        let about = self.ask(&["scontrol", "-o", "show", "job", task]);
        let start = format!("{field}=");
        about.split_whitespace().find_map(|word| word.strip_prefix(&start)).unwrap_or_default().to_owned()
    }

    /// Waits for all tasks to end.
    pub(crate) fn drain(&self) {
        until("all tasks end", || self.ask(&["squeue", "--noheader"]).is_empty());
    }

    /// What tasks wrote into their logs.
    pub(crate) fn logs(&self) -> String {
        let home = std::fs::read_dir(self.dir.join("home")).unwrap().map(|e| e.unwrap().path());
        let logs = home.filter(|path| path.extension().is_some_and(|e| e == "log"));
        logs.map(|p| format!("{}:\n{}\n", p.display(), std::fs::read_to_string(&p).unwrap())).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its init goes with it, and with that all others.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

pub(crate) fn until(what: &str, happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}: not within 2 minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
}
