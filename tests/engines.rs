//! Work lists shared out by engines that exist, with the templates of `dist`: Slurm as Debian 12 has it, GNU parallel over ssh,
//! and the command lines of the Kubernetes Jobs, which no Kubernetes starts here. Tasks are killed, and made up for.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

#[path = "engines/cluster.rs"]
mod cluster;

use cluster::{Cluster, until};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use support::installed::{LIMIT, dump, folder, in_root, install};
use support::tools::{Ran, run, tool};

const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist");
/// Slow enough to be killed in the middle.
const SLOW: &str = "zstd:9";

/// For the two that take all CPUs: each has what it is waiting for sooner.
static CPUS: Mutex<()> = Mutex::new(());

fn xdump_cut(words: &[&str]) -> Ran {
    run(Command::new(env!("CARGO_BIN_EXE_xdump-cut")).args(words), LIMIT)
}

/// What each of the cuts must be.
fn single() -> &'static Vec<u8> {
    static SINGLE: OnceLock<Vec<u8>> = OnceLock::new();
    SINGLE.get_or_init(|| {
        let out = folder("single").join("out");
        let ran = xdump_cut(&["-q", "--compress", SLOW, dump().vmcore.to_str().unwrap(), out.to_str().unwrap()]);
        assert!(ran.status.success(), "{}", ran.stderr);
        std::fs::read(out).unwrap()
    })
}

/// A folder of dumps, the list of their cuts, and where those go.
struct Archive {
    top: PathBuf,
    list: String,
}

impl Archive {
    /// So many dumps, two for each entry.
    fn new(entries: usize) -> Self {
        let archive = Self::empty();
        for n in 0..entries * 2 {
            archive.link(&format!("host{n}/vmcore"), &dump().vmcore);
        }
        let ran = archive.plan(&["--entries", &entries.to_string(), "--compress", SLOW]);
        assert!(
            ran.status.success() && ran.stdout.contains(&format!("{entries} entries")),
            "{}{}",
            ran.stdout,
            ran.stderr
        );
        archive
    }

    fn empty() -> Self {
        let top = folder("archive");
        Self { list: top.join("list").to_str().unwrap().to_owned(), top }
    }

    fn link(&self, name: &str, from: &Path) {
        let path = self.top.join("dumps").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::hard_link(from, path).unwrap();
    }

    fn plan(&self, options: &[&str]) -> Ran {
        let [dumps, cuts] = ["dumps", "cuts"].map(|name| self.top.join(name).to_str().unwrap().to_owned());
        xdump_cut(&[&["bulk", "--plan", &self.list, &dumps, "--out", &cuts], options].concat())
    }

    /// The outputs of each entry.
    fn entries(&self) -> Vec<Vec<PathBuf>> {
        let text = std::fs::read_to_string(&self.list).unwrap();
        let entry = |line: &str| -> Vec<PathBuf> {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            let name = |dump: &serde_json::Value| self.top.join("cuts").join(dump["output"].as_str().unwrap());
            entry["dumps"].as_array().unwrap().iter().map(name).collect()
        };
        text.lines().skip(1).map(entry).collect()
    }

    /// Waits until the first dump of an entry is being written.
    fn wait_for(&self, entry: usize) {
        let first = &self.entries()[entry][0];
        let half = PathBuf::from(format!("{}.incomplete", first.display()));
        until("a cut begins", || half.metadata().is_ok_and(|meta| meta.len() > 1 << 16));
    }

    /// Kills the program that does an entry.
    fn kill(&self, entry: usize) {
        let index = ["--index", &entry.to_string()].map(str::to_owned);
        let at_it = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let args: Vec<_> = text.split_terminator('\0').collect();
            args.first() == Some(&env!("CARGO_BIN_EXE_xdump-cut"))
                && args.contains(&self.list.as_str())
                && args.windows(2).any(|two| two == index)
        };
        let names = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.file_name());
        let mut pids = names.filter_map(|name| name.to_str()?.parse::<u32>().ok());
        let pid = pids.find(at_it).unwrap_or_else(|| panic!("no process does entry {entry}"));
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid as i32).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
    }

    fn collect(&self) -> Ran {
        xdump_cut(&["bulk", "--collect", &self.list])
    }

    /// The cuts, with their files' numbers and sizes.
    fn cuts(&self) -> BTreeMap<PathBuf, (u64, u64)> {
        let outputs = self.entries().into_iter().flatten();
        outputs.filter_map(|path| path.metadata().ok().map(|meta| (path, (meta.ino(), meta.len())))).collect()
    }

    /// Every output is there, equals a single cut, and nothing else is.
    fn check(&self) {
        let single = single();
        let outputs: Vec<PathBuf> = self.entries().into_iter().flatten().collect();
        assert!(outputs.len() > 2);
        for output in &outputs {
            assert!(std::fs::read(output).unwrap() == *single, "{}", output.display());
            let beside = std::fs::read_dir(output.parent().unwrap()).unwrap().count();
            assert_eq!(beside, 1, "{}", output.display());
        }
        let manifest = std::fs::read_to_string(self.top.join("cuts/manifest.jsonl")).unwrap();
        assert_eq!(manifest.matches("\"done\"").count(), outputs.len(), "{manifest}");
    }
}

/// An array job on two nodes. One task is cancelled, and the job that collects names it; of one the program is killed, as by the
/// kernel for want of memory, and the template puts that back by itself. After the cancelled one was put back all is there.
#[test]
fn slurm_runs_a_list_and_makes_up_for_killed_tasks() {
    let _alone = CPUS.lock();
    let cluster = Cluster::start();
    let archive = Archive::new(3);
    let submit = format!("{DIST}/slurm/submit");
    let jobs = cluster.ask(&[&submit, &archive.list, "--cpus-per-task=1", "--mem=512M"]);
    let (work, collect) = jobs.trim().split_once(' ').unwrap();
    archive.wait_for(0);
    cluster.ask(&["scancel", &format!("{work}_0")]);
    archive.wait_for(1);
    let nodes = [0, 1].map(|entry| cluster.field(&format!("{work}_{entry}"), "NodeList"));
    archive.kill(1);
    assert!(nodes == ["n1", "n2"] || nodes == ["n2", "n1"], "{nodes:?}");
    for entry in [0, 1] {
        assert!(archive.entries()[entry].iter().all(|output| !output.exists()), "{}", cluster.logs());
    }
    cluster.drain();
    let logs = cluster.logs();
    let field = |name: &str| [0, 1, 2].map(|entry| cluster.field(&format!("{work}_{entry}"), name));
    assert_eq!(field("JobState"), ["CANCELLED", "COMPLETED", "COMPLETED"], "{logs}");
    assert_eq!(field("Restarts"), ["0", "1", "0"], "{logs}");
    assert!(logs.contains(&format!("{work}_0 was told to end")), "{logs}");
    assert!(logs.contains(&format!("{work}_1 ended with 137, and is tried again")), "{logs}");

    // The collecting job ran after all, and says what a run by hand says.
    assert_eq!(cluster.field(collect, "ExitCode"), "3:0", "{logs}");
    let ran = archive.collect();
    assert_eq!(ran.status.code(), Some(3), "{}{}", ran.stdout, ran.stderr);
    let log = std::fs::read_to_string(cluster.dir.join(format!("home/xdump-cut-collect-{collect}.log"))).unwrap();
    for (entry, outputs) in archive.entries().iter().enumerate() {
        for told in [&log, &ran.stdout] {
            assert_eq!(told.contains(&format!("entry {entry}")), entry == 0, "{entry}: {told}");
        }
        assert_eq!(outputs.iter().all(|output| output.exists()), entry != 0);
    }

    let before = archive.cuts();
    cluster.ask(&["scontrol", "requeue", &format!("{work}_0")]);
    cluster.drain();
    let ran = archive.collect();
    assert_eq!(ran.status.code(), Some(0), "{}{}{}", ran.stdout, ran.stderr, cluster.logs());
    archive.check();
    // All of it once more does nothing.
    let done = archive.cuts();
    cluster.ask(&[&submit, &archive.list, "--cpus-per-task=1", "--mem=512M"]);
    cluster.drain();
    assert!(before.iter().all(|(path, file)| done[path] == *file) && archive.cuts() == done);
    archive.check();
}

/// What may pass is tried again by the template itself, so many times; what may not is not.
#[test]
fn slurm_tries_again_what_may_pass() {
    let cluster = Cluster::start();
    let archive = Archive::empty();
    archive.link("good/vmcore", &dump().vmcore);
    std::fs::create_dir_all(archive.top.join("dumps/bad")).unwrap();
    // Xen's page tables are behind what is left.
    std::fs::write(archive.top.join("dumps/bad/vmcore"), &std::fs::read(&dump().vmcore).unwrap()[..4 << 20]).unwrap();
    assert!(archive.plan(&["--entries", "2"]).status.success());
    let entries = archive.entries();
    let good = entries.iter().position(|outputs| outputs[0].to_str().unwrap().contains("good")).unwrap();
    let bad = 1 - good;

    // Another process is at the good one.
    let text = std::fs::read_to_string(&archive.list).unwrap();
    let head: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let pieces = archive.top.join("cuts/manifest.d");
    std::fs::create_dir_all(&pieces).unwrap();
    let lock = pieces.join(format!("{}-{good}.lock", head["id"].as_str().unwrap()));
    let file = std::fs::File::create(lock).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let submit = |tries: &str| {
        let script = format!("{DIST}/slurm/submit");
        let mut command = cluster.command(&[&script, &archive.list, "--cpus-per-task=1", "--mem=512M"]);
        let ran = run(command.env("XDUMP_CUT_TRIES", tries), LIMIT);
        assert!(ran.status.success(), "{}", ran.stderr);
        ran.stdout.split(' ').next().unwrap().to_owned()
    };
    let task = |job: &str, entry: usize| {
        ["JobState", "ExitCode", "Restarts"].map(|field| cluster.field(&format!("{job}_{entry}"), field))
    };
    let job = submit("1");
    cluster.drain();
    assert_eq!(task(&job, good), ["FAILED", "3:0", "1"], "{}", cluster.logs());
    assert_eq!(task(&job, bad), ["FAILED", "4:0", "0"], "{}", cluster.logs());
    let logs = cluster.logs();
    assert!(logs.contains("is tried again") && logs.contains("is not tried again: it was 1 times"), "{logs}");
    assert_eq!(archive.collect().status.code(), Some(3));

    let job = submit("3");
    until("a try", || cluster.field(&format!("{job}_{good}"), "Restarts") == "1");
    drop(file);
    cluster.drain();
    assert_eq!(task(&job, good)[..2], ["COMPLETED", "0:0"], "{}", cluster.logs());
    // Nothing is missing that could be had.
    let ran = archive.collect();
    assert_eq!(ran.status.code(), Some(1), "{}{}", ran.stdout, ran.stderr);
}

/// The same list, on the same nodes by ssh, and on this machine; a worker is killed on its node.
#[test]
fn gnu_parallel_runs_a_list_by_ssh() {
    let _alone = CPUS.lock();
    let cluster = Cluster::start();
    let archive = Archive::new(3);
    let script = format!("{DIST}/parallel/xdump-cut-parallel");
    std::fs::write(cluster.dir.join("home/nodes"), "n1\nn2\n").unwrap();
    let version = cluster.ask(&["parallel", "--version"]);
    assert!(version.starts_with("GNU parallel"), "{version}: apt-get install parallel");
    let ran = std::thread::scope(|scope| {
        let run = scope.spawn(|| cluster.run(&[&script, &archive.list, "nodes", "--threads", "1"]));
        archive.wait_for(1);
        archive.kill(1);
        run.join().unwrap()
    });
    assert_eq!(ran.status.code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    archive.check();
    // Host, status, and the entry.
    let log = |n: u32| {
        let text = std::fs::read_to_string(format!("{}.joblog.{n}", archive.list)).unwrap();
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [words[1], words[6], words[words.len() - 1]].map(str::to_owned)
        };
        text.lines().skip(1).map(line).collect::<Vec<_>>()
    };
    let first = log(0);
    for host in ["n1", "n2"] {
        assert!(first.iter().any(|[name, ..]| name == host), "{first:?}");
    }
    let statuses: BTreeMap<_, _> = first.iter().map(|[_, status, entry]| (entry.as_str(), status.as_str())).collect();
    assert_eq!(statuses, BTreeMap::from([("0", "0"), ("1", "137"), ("2", "0")]));
    let second = log(1);
    assert!(second.len() == 1 && second[0][1..] == ["0", "1"], "{second:?}");

    // And here, with nothing left to do; of a list that is none.
    let ran = cluster.run(&[&script, &archive.list]);
    assert_eq!(ran.status.code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    archive.check();
    let ran = cluster.run(&[&script, "/etc/hosts"]);
    assert!(ran.status.code() == Some(2) && ran.stderr.contains("is no work list"), "{}", ran.stderr);
}

/// Kubernetes' own schemas take the Jobs.
#[test]
fn kubernetes_schemas_take_the_jobs() {
    let files = ["plan", "work", "collect"].map(|name| format!("{DIST}/kubernetes/{name}.yaml"));
    // The first version with all of it, and the last one known.
    for version in ["1.29", "1.37"] {
        let mut validate = Command::new(tool("kubernetes-validate"));
        let ran = run(validate.args(["--strict", "--kubernetes-version", version]).args(&files), LIMIT);
        assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
        assert_eq!((ran.stdout + &ran.stderr).matches(" passed ").count(), 3);
    }
    // It looks at what it is given.
    let wrong = folder("kubernetes").join("work.yaml");
    let text = std::fs::read_to_string(&files[1]).unwrap();
    std::fs::write(&wrong, text.replace("backoffLimitPerIndex", "backoffLimitByIndex")).unwrap();
    let ran = run(Command::new(tool("kubernetes-validate")).arg("--strict").arg(&wrong), LIMIT);
    assert!(!ran.status.success(), "{}{}", ran.stdout, ran.stderr);
}

/// What the containers would run, with what the kubelet puts into it, in a root with what they mount.
#[test]
fn kubernetes_containers_do_the_work() {
    let root = folder("pod");
    install(&root, "/usr/local");
    for name in ["dumps/a", "dumps/b", "cuts"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    for name in ["a", "b"] {
        std::fs::hard_link(&dump().vmcore, root.join("dumps").join(name).join("vmcore")).unwrap();
    }
    let pod = |name: &str, index: u32| {
        let mut fill = Command::new(tool("kubernetes-python"));
        fill.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/pod.py"));
        let ran = run(fill.arg(format!("{DIST}/kubernetes/{name}.yaml")).arg(index.to_string()), LIMIT);
        assert!(ran.status.success(), "{}", ran.stderr);
        let pod: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let mut words = vec!["/usr/bin/env".to_owned(), "PATH=/usr/local/bin".to_owned()];
        let env = pod["env"].as_object().unwrap();
        words.extend(env.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap())));
        words.extend(pod["words"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert!(words.iter().all(|word| !word.contains("$(")), "{words:?}");
        (in_root(&root, &dump().vmcore, &words), pod)
    };
    let (ran, _) = pod("plan", 0);
    assert!(ran.status.success() && ran.stdout.contains("2 entries"), "{}{}", ran.stdout, ran.stderr);
    let (ran, _) = pod("collect", 0);
    assert_eq!(ran.status.code(), Some(3), "{}{}", ran.stdout, ran.stderr);
    for index in [0, 1] {
        let (ran, _) = pod("work", index);
        assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    }
    let (ran, _) = pod("collect", 0);
    assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    for name in ["a", "b"] {
        assert!(root.join("cuts").join(name).join("vmcore.kdump").exists());
    }
    // An index beyond the list is not tried again: nor is any other status that stays.
    let (ran, pod) = pod("work", 2);
    assert_eq!(ran.status.code(), Some(2), "{}{}", ran.stdout, ran.stderr);
    let rules = pod["spec"]["podFailurePolicy"]["rules"].as_array().unwrap();
    assert_eq!((rules[0]["action"].as_str(), rules[1]["action"].as_str()), (Some("Ignore"), Some("FailIndex")));
    assert_eq!(rules[1]["onExitCodes"]["values"], serde_json::json!([1, 2, 4]));
}
