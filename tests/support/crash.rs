//! Running crash on an output of ours, and reading what it says.

use super::cut::{Shape, cut};
use super::fixtures::{Fixture, hex};
use super::tools::{run, scratch, tool};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// What crash answered to each command of a session.
pub(crate) struct Session {
    answers: HashMap<String, String>,
    /// Everything it said, of starting too.
    pub(crate) all: String,
}

/// A trace that `bt` shows.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) pid: u64,
    pub(crate) cpu: usize,
    pub(crate) comm: String,
    /// Program counters, the innermost first, those of exception frames too.
    pub(crate) pcs: Vec<u64>,
    /// All lines below the first.
    pub(crate) lines: Vec<String>,
}

/// A line of `ps`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u64,
    pub(crate) comm: String,
    /// On a CPU.
    pub(crate) active: bool,
}

/// Asks crash; every answer stands behind a mark of its own.
pub(crate) fn ask(vmlinux: &Path, dump: &Path, commands: &[&str]) -> Session {
    ask_with(&[], vmlinux, dump, commands)
        .unwrap_or_else(|said| panic!("crash did not open {}:\n{said}", dump.display()))
}

/// The same with options of crash's; what it said, if it did not open the dump.
pub(crate) fn ask_with(options: &[&str], vmlinux: &Path, dump: &Path, commands: &[&str]) -> Result<Session, String> {
    ask_all(options, vmlinux, &[dump], commands)
}

/// The same of the files of a split dump.
pub(crate) fn ask_all(options: &[&str], vmlinux: &Path, dumps: &[&Path], commands: &[&str]) -> Result<Session, String> {
    let name = dumps[0].file_name().unwrap().to_string_lossy();
    let mut script = String::new();
    for command in commands {
        script += &format!("gdb echo @@@ {command}\\n\n{command}\n");
    }
    let input = scratch().join(format!("{name}.{}.crash", commands.len()));
    std::fs::write(&input, script + "exit\n").unwrap();
    let mut command = Command::new(tool("crash"));
    command.args(["--no_scroll", "-s"]).args(options).arg(vmlinux).args(dumps).arg("-i").arg(&input);
    command.env("HOME", scratch()); // nobody's .crashrc
    let ran = run(&mut command, Duration::from_secs(240));
    if !ran.status.success() {
        return Err(ran.stdout + &ran.stderr);
    }
    let mut answers = HashMap::new();
    for part in ran.stdout.split("@@@ ").skip(1) {
        let (command, answer) = part.split_once('\n').unwrap_or((part, ""));
        answers.insert(command.trim().to_string(), answer.to_string());
    }
    Ok(Session { answers, all: ran.stdout + &ran.stderr })
}

/// Pages of the fixture that are zero, for reading them: the first, one in the middle, the last.
pub(crate) fn zero_pages(fixture: &Fixture) -> Vec<u64> {
    let table = fixture.table();
    let zero = |line: &str| line.contains("\tzero\t").then(|| hex(line.split_whitespace().next().unwrap()));
    let all: Vec<u64> = table.lines().filter_map(zero).collect();
    vec![all[0], all[all.len() / 2], all[all.len() - 1]]
}

/// The commands for reading these pages.
pub(crate) fn read_page(pfn: u64) -> String {
    format!("rd -p {:x} 512", pfn << 12)
}

/// The session that most tests look at; each is held once for a test process.
pub(crate) fn session(fixture: &Fixture, shape: Shape) -> Arc<Session> {
    type Slot = Arc<OnceLock<Arc<Session>>>;
    static SESSIONS: Mutex<Option<HashMap<(String, Shape), Slot>>> = Mutex::new(None);
    let mut sessions = SESSIONS.lock().unwrap_or_else(|e| e.into_inner());
    let slot = sessions.get_or_insert_default().entry((fixture.name.clone(), shape)).or_default().clone();
    drop(sessions);
    let hold = || {
        let reads: Vec<String> = zero_pages(fixture).into_iter().map(read_page).collect();
        let mut commands = vec![
            "sys",
            "ps",
            "ps -G",
            "bt",
            "bt -a",
            "foreach bt",
            "mod",
            "kmem -i",
            "log",
            "vm 1",
            "help -r",
            "help -m",
        ];
        commands.extend(reads.iter().map(String::as_str));
        Arc::new(ask(fixture.vmlinux(), &cut(fixture, shape), &commands))
    };
    slot.get_or_init(hold).clone()
}

impl Session {
    pub(crate) fn answer(&self, command: &str) -> &str {
        self.answers.get(command).unwrap_or_else(|| panic!("crash never came to {command}:\n{}", self.all))
    }

    /// A line of `sys`.
    pub(crate) fn sys(&self, key: &str) -> &str {
        let value = |line: &'_ str| line.trim_start().strip_prefix(key)?.strip_prefix(": ").map(str::len);
        let line = self.answer("sys").lines().find(|line| value(line).is_some());
        line.and_then(|line| line.split_once(": ")).unwrap_or_else(|| panic!("sys has no {key}:\n{}", self.all)).1
    }

    pub(crate) fn processes(&self, command: &str) -> Vec<Process> {
        let parse = |line: &str| {
            let active = line.starts_with('>');
            let mut fields = line.trim_start_matches('>').split_whitespace();
            let pid = fields.next()?.parse().ok()?;
            let comm: Vec<&str> = fields.skip(7).collect();
            let comm = comm.join(" ").trim_start_matches('[').trim_end_matches(']').to_string();
            Some(Process { pid, comm, active })
        };
        self.answer(command).lines().filter_map(parse).collect()
    }

    pub(crate) fn traces(&self, command: &str) -> Vec<Trace> {
        let mut traces = Vec::<Trace>::new();
        for line in self.answer(command).lines() {
            if let Some(head) = line.strip_prefix("PID: ") {
                let words: Vec<&str> = head.split_whitespace().collect();
                let comm = head.split('"').nth(1).unwrap_or_default().to_string();
                let (pid, cpu) = (words[0].parse().unwrap(), words[4].parse().unwrap());
                traces.push(Trace { pid, cpu, comm, pcs: Vec::new(), lines: Vec::new() });
            } else if let Some(trace) = traces.last_mut().filter(|_| !line.is_empty()) {
                trace.pcs.extend(program_counter(line));
                trace.lines.push(line.to_string());
            }
        }
        traces
    }

    /// Exception stacks of `cpu` that crash gives a place but no size: such a one makes its search for the start of an
    /// active task's trace end ("invalid size request: 0"). So it is with kernels that lack CONFIG_X86_MCE or
    /// CONFIG_AMD_MEM_ENCRYPT, on bare metal too.
    pub(crate) fn sizeless_stacks(&self, cpu: usize) -> Vec<u64> {
        let help = self.answer("help -m");
        let after = |mark: &str| help.split_once(mark).unwrap_or_else(|| panic!("help -m has no {mark}")).1;
        let sizes = after("esize[7]: ").lines().next().unwrap().split(',');
        let sizes = sizes.map(|size| size.trim().split(' ').next().unwrap().parse::<u64>().unwrap());
        let bases = after("ebase[cpus][7]:").split_once(&format!("[{cpu}]: ")).expect("stacks of a CPU").1;
        let bases = bases.split_whitespace().take(7).map(hex);
        sizes.zip(bases).filter(|(size, base)| *size == 0 && *base != 0).map(|(_, base)| base).collect()
    }
}

/// Of ` #0 [stack] name at ffffffff81000000` and of an exception frame's `    RIP: ffffffff81000000  RSP: ...`.
fn program_counter(line: &str) -> Option<u64> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return line.split_once(" at ").map(|(_, pc)| hex(pc.split_whitespace().next().unwrap()));
    }
    line.strip_prefix("RIP: ").map(|rest| hex(rest.split_whitespace().next().unwrap()))
}
