//! The outputs in the real readers: crash, drgn, gdb and makedumpfile open them as if Linux had run on bare metal, and
//! see what dom0 said of itself before it died. `.ci/tools` installs the readers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;
use support::crash::{Session, Trace, ask, read_page, session, zero_pages};
use support::cut::{Shape, cut};
use support::drgn::{Facts, Frame, Task, facts};
use support::fixtures::{Fixture, hex};
use support::symbols::Symbols;
use support::tools::{run, scratch, tool};
use support::{Findings, on_each_fixture};

/// The two formats; the ways of compressing are told apart in tests/truth.rs and tests/codecs.rs, and below where a reader
/// decompresses.
const FORMATS: [Shape; 2] = [Shape::Kdump, Shape::Elf];

fn on_each_output(check: impl Fn(&Fixture, Shape, &mut Findings)) {
    on_each_fixture(|fixture, findings| {
        for shape in FORMATS {
            let mut found = Findings::default();
            check(fixture, shape, &mut found);
            findings.append(&format!("{shape:?}: "), found);
        }
    });
}

/// What crash says only of dumps that lack something, or lie.
const COMPLAINTS: [&str; 10] = [
    "seek error",
    "read error",
    "page excluded",
    "invalid",
    "cannot",
    "corrupt",
    "not found",
    "no longer",
    "WARNING: could not",
    "dump may be incomplete",
];

#[test]
fn crash_complains_of_nothing() {
    on_each_output(|fixture, shape, findings| {
        let session = session(fixture, shape);
        // what the kernel itself logged is not crash's word
        let said = session.all.replace(session.answer("log"), "");
        let stackless = (0..fixture.vcpus().len()).any(|cpu| !session.sizeless_stacks(cpu).is_empty());
        for line in said.lines().filter(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint))) {
            let known = stackless && line == SIZELESS;
            findings.check(known, "complaint", || line.to_string());
        }
    });
}

#[test]
fn crash_sys_is_dom0() {
    on_each_output(|fixture, shape, findings| {
        let session = session(fixture, shape);
        let release = session.sys("RELEASE");
        findings.check(release == kernel_release(fixture), "RELEASE", || release.to_string());
        // "2 [OFFLINE: 1]" where a panic stopped the others
        let cpus = session.sys("CPUS").split(' ').next().unwrap();
        findings.check(cpus == fixture.vcpus().len().to_string(), "CPUS", || cpus.to_string());
        let panic = session.sys("PANIC");
        let said = fixture.console.lines().find_map(|line| Some(&line[line.find("Kernel panic - not syncing")?..]));
        findings.check(panic == format!("\"{}\"", said.unwrap_or("")), "PANIC", || panic.to_string());
    });
}

#[test]
fn crash_ps_has_the_tasks_that_dom0_printed() {
    on_each_output(|fixture, shape, findings| {
        let session = session(fixture, shape);
        let seen: BTreeMap<u64, String> =
            session.processes("ps -G").into_iter().filter(|p| p.pid != 0).map(|p| (p.pid, p.comm)).collect();
        let printed = printed_processes(fixture);
        let (&ps, _) = printed.iter().find(|(_, name)| *name == "ps").expect("ps lists itself");
        for (pid, name) in printed.iter().filter(|(pid, _)| **pid != ps) {
            let same = seen.get(pid).is_some_and(|comm| same_name(name, comm));
            findings.check(same, "task that dom0 printed", || format!("{pid} {name}: {:?}", seen.get(pid)));
        }
        // nothing else but what came after ps, and so has a higher number
        for (pid, comm) in seen.iter().filter(|(pid, _)| !printed.contains_key(pid)) {
            findings.check(*pid > ps, "task that dom0 did not print", || format!("{pid} {comm}"));
        }
        let tasks = session.sys("TASKS");
        let listed = session.processes("ps").len();
        findings.check(tasks == listed.to_string(), "TASKS", || format!("{tasks}, and ps lists {listed}"));
    });
}

/// What ps printed: the kernel's name of a process in braces or brackets, else its arguments.
fn printed_processes(fixture: &Fixture) -> BTreeMap<u64, String> {
    let lines = fixture.said().into_iter().skip_while(|line| !line.starts_with("PID ")).skip(1);
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (pid, _user, name) = (fields.next()?.parse().ok()?, fields.next()?, fields.next()?);
        let name = name.rsplit('/').next().filter(|_| !name.starts_with('[')).unwrap_or(name);
        Some((pid, name.trim_matches(|c| "{}[]".contains(c)).to_string()))
    };
    lines.filter_map(parse).collect()
}

/// ps of a running kernel appends to a worker's name what it last worked on ("kworker/0:1-events"), and shows 15 bytes.
fn same_name(printed: &str, comm: &str) -> bool {
    let comm: String = comm.chars().take(15).collect();
    printed == comm
        || comm.starts_with("kworker/") && printed.strip_prefix(&*comm).is_some_and(|rest| rest.starts_with(['-', '+']))
}

#[test]
fn crash_tells_what_dom0_told() {
    on_each_output(|fixture, shape, findings| {
        let session = session(fixture, shape);
        let log = session.answer("log");
        findings.check(log.contains(fixture.banner()), "log has no banner of the kernel's", String::new);
        // the capture kernel speaks on the same console
        let capture = fixture.console.rfind("Linux version ").unwrap();
        let last = fixture.console[..capture].lines().rfind(|line| line.starts_with("LAB: ")).unwrap();
        findings.check(log.contains(last), "log lacks the last words", || last.to_string());

        let loaded = |line: &&&str| line.contains(" Live 0x");
        let mut told: Vec<&str> = fixture.said().iter().filter(loaded).map(|l| l.split(' ').next().unwrap()).collect();
        told.sort_unstable();
        let mod_answer = session.answer("mod");
        let mut seen: Vec<&str> = mod_answer.lines().skip(1).filter_map(|l| l.split_whitespace().nth(1)).collect();
        seen.sort_unstable();
        let none = told.is_empty() && mod_answer.trim() == "no modules installed";
        findings.check(none || seen == told, "modules", || mod_answer.to_string());

        let total = fixture.said().iter().find_map(|l| l.strip_prefix("MemTotal:")).unwrap().trim().to_string();
        let pages = |row: &str| {
            let mut lines = session.answer("kmem -i").lines();
            let rest = lines.find_map(|line| line.trim_start().strip_prefix(row)).unwrap_or("0");
            rest.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        findings.check(total == format!("{} kB", pages("TOTAL MEM") * 4), "TOTAL MEM", || total.clone());
        let all = pages("FREE") + pages("USED") == pages("TOTAL MEM") && pages("FREE") > 0;
        findings.check(all, "kmem -i", || session.answer("kmem -i").to_string());
    });
}

#[test]
fn crash_reads_memory() {
    on_each_output(|fixture, shape, findings| {
        let session = session(fixture, shape);
        for pfn in zero_pages(fixture) {
            let answer = session.answer(&read_page(pfn));
            // "ADDRESS:  WORD WORD   ................" 256 times
            let words = answer.lines().flat_map(|line| line.split_whitespace().skip(1).take(2));
            let zeros = words.filter(|word| *word == "0000000000000000").count();
            findings.check(zeros == 512, "zero page", || format!("page {pfn:#x}: {zeros} zero words: {answer:.200}"));
        }
        // init's first mapping is where its program begins
        let mappings = session.answer("vm 1").lines().skip_while(|line| !line.contains("START")).skip(1);
        let starts: Vec<u64> = mappings.filter_map(|line| Some(hex(line.split_whitespace().nth(1)?))).collect();
        findings.check(starts.len() > 3, "mappings of init", || session.answer("vm 1").to_string());
        let Some(start) = starts.first() else { return };
        let read = format!("rd -u {start:x} 1");
        let asked = ask(fixture.vmlinux(), &cut(fixture, shape), &["set 1", &read]);
        let answer = asked.answer(&read);
        let word = answer.split_whitespace().nth(1).map_or(0, hex);
        findings.check(word as u32 == u32::from_le_bytes(*b"\x7fELF"), "user memory of init", || answer.to_string());
    });
}

/// How crash ends a trace when it searches an exception stack that has no size.
const SIZELESS: &str = "bt: invalid size request: 0  type: \"stack contents\"";

#[test]
fn crash_traces_are_drgns() {
    on_each_output(|fixture, shape, findings| {
        let (session, facts) = (session(fixture, shape), facts(fixture, shape));
        let symbols = Symbols::read(fixture.vmlinux());
        let active: Vec<u64> = session.processes("ps").iter().filter(|p| p.active).map(|p| p.pid).collect();
        let of_drgn = |trace: &Trace| -> Option<&Task> {
            let idle = facts.idle.get(trace.cpu).filter(|_| trace.pid == 0);
            idle.or_else(|| facts.tasks.iter().find(|task| task.pid == trace.pid))
        };
        let every = session.traces("foreach bt");
        findings.check(every.len() == facts.tasks.len() + facts.idle.len(), "tasks", || every.len().to_string());
        for trace in every.iter().chain(&session.traces("bt -a")).chain(&session.traces("bt")) {
            let name = format!("{} {} on CPU {}", trace.pid, trace.comm, trace.cpu);
            let Some(task) = of_drgn(trace) else {
                findings.add("task that drgn does not know", name);
                continue;
            };
            let on_cpu = facts.on_cpu[trace.cpu].pid == trace.pid;
            if on_cpu && is_sizeless(&session, trace, task) {
                continue; // crash's own mistake, and nothing of the dump's
            }
            let expected = expected(&task.frames, on_cpu, &symbols);
            findings.check(!trace.pcs.is_empty() && trace.pcs == expected, "trace", || {
                format!("{name}: crash {:x?}, drgn {expected:x?}; {:?}", trace.pcs, trace.lines)
            });
        }
        // crash and drgn agree on who was running
        for (cpu, task) in facts.on_cpu.iter().enumerate() {
            findings.check(active.contains(&task.pid), "running task", || format!("CPU {cpu}: {}", task.pid));
        }
        findings.check(session.traces("bt -a").len() == fixture.vcpus().len(), "bt -a", String::new);
    });
}

/// What crash makes of a trace: the same program counters, but for two habits of its own.
fn expected(frames: &[Frame], on_cpu: bool, symbols: &Symbols) -> Vec<u64> {
    // it begins the trace of a running task that called panic() right there
    let panic = frames.iter().position(|frame| frame.name == "panic").filter(|_| on_cpu);
    let from = panic.unwrap_or(0);
    // and a return address that is the start of another function is none to it: so it is behind a call that ends its
    // function, as it never returns
    let real = |(at, frame): &(usize, &Frame)| *at == 0 || !symbols.starts_at(frame.pc);
    frames.iter().enumerate().skip(from).filter(real).map(|(_, frame)| frame.pc).collect()
}

/// Did crash stumble on an exception stack without a size, as it does on these CPUs unless it finds panic() first?
fn is_sizeless(session: &Session, trace: &Trace, task: &Task) -> bool {
    let stacks = session.sizeless_stacks(trace.cpu);
    let read = |line: &str| stacks.iter().any(|base| line == format!("bt: read of stack at {base:x} failed"));
    let panics = task.frames.iter().any(|frame| frame.name == "panic");
    !panics && matches!(&trace.lines[..], [size, stack] if size == SIZELESS && read(stack))
}

#[test]
fn crash_has_each_vcpus_registers() {
    on_each_output(|fixture, shape, findings| {
        let session = session(fixture, shape);
        // "  RDX: 0000000000000000  RDI:00007fd51fb36010" below "CPU 0:"
        let mut cpu = 0;
        let mut seen = BTreeMap::new();
        for line in session.answer("help -r").lines() {
            if let Some(number) = line.strip_prefix("CPU ") {
                cpu = number.trim_end_matches(':').parse::<usize>().unwrap();
            }
            let spaced = line.replace(':', ": ");
            let words: Vec<&str> = spaced.split_whitespace().collect();
            for pair in words.windows(2).filter(|pair| pair[1].len() >= 8) {
                if let Some(name) = pair[0].strip_suffix(':') {
                    seen.entry((cpu, name.to_lowercase())).or_insert(pair[1].to_string());
                }
            }
        }
        for vcpu in 0..fixture.vcpus().len() {
            for name in ["rip", "rsp", "rbp", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r12", "r15", "rflags"] {
                let is = seen.get(&(vcpu, name.to_string())).map(|value| hex(value));
                let told = fixture.register(vcpu, name);
                findings.check(is == Some(told), "register", || format!("CPU {vcpu} {name}: {is:x?} for {told:x}"));
            }
        }
    });
}

#[test]
fn drgn_sees_all_tasks() {
    on_each_output(|fixture, shape, findings| {
        let (session, facts) = (session(fixture, shape), facts(fixture, shape));
        findings.check(facts.release == kernel_release(fixture), "release", || facts.release.clone());
        let mut of_crash: Vec<(u64, String)> =
            session.processes("ps").into_iter().filter(|p| p.pid != 0).map(|p| (p.pid, p.comm)).collect();
        let mut of_drgn: Vec<(u64, String)> = facts.tasks.iter().map(|t| (t.pid, t.comm.clone())).collect();
        of_crash.sort();
        of_drgn.sort();
        findings.check(of_crash == of_drgn, "tasks", || format!("crash {of_crash:?}, drgn {of_drgn:?}"));
        findings.check(facts.init_magic == "7f454c46", "user memory of init", || facts.init_magic.clone());
        for task in facts.tasks.iter().chain(&facts.idle) {
            let traced = task.error.is_none() && !task.frames.is_empty();
            findings.check(traced, "no trace", || format!("{} {}: {:?}", task.pid, task.comm, task.error));
        }
        let symbols = Symbols::read(fixture.vmlinux());
        for vcpu in 0..fixture.vcpus().len() {
            running_task_is_where_the_vcpu_was(fixture, vcpu, &facts, &symbols, findings);
        }
    });
}

fn running_task_is_where_the_vcpu_was(
    fixture: &Fixture,
    vcpu: usize,
    facts: &Facts,
    symbols: &Symbols,
    findings: &mut Findings,
) {
    let (task, rip) = (&facts.on_cpu[vcpu], fixture.register(vcpu, "rip"));
    let Some(first) = task.frames.first() else {
        return findings.add("running task without a trace", format!("CPU {vcpu}: {:?}", task.error));
    };
    findings.check(first.pc == rip, "not at rip", || format!("CPU {vcpu}: {:#x} for {rip:#x}", first.pc));
    let (names, _) = symbols.at(rip);
    findings.check(names.contains(&first.name), "not in rip's function", || format!("{} for {names:?}", first.name));
    // a whole trace ends where the kernel was entered: by a system call or interrupt from a program, or at the start of
    // a task; drgn gives no name to a program's addresses
    let last = task.frames.last().unwrap();
    let starts =
        ["ret_from_fork", "ret_from_fork_asm", "startup_xen", "asm_cpu_bringup_and_idle", "secondary_startup_64"];
    let whole = last.pc < 1 << 47 || starts.iter().any(|start| last.name.starts_with(start));
    findings.check(whole, "trace ends early", || format!("CPU {vcpu}: {:?}", task.frames));
}

#[test]
fn drgn_and_crash_read_zlib_and_uncompressed_pages() {
    // lzo and snappy are in tests/codecs.rs
    on_each_fixture(|fixture, findings| {
        let default = facts(fixture, Shape::Kdump);
        for shape in [Shape::Zlib, Shape::Raw] {
            let same = format!("{:?}", facts(fixture, shape)) == format!("{default:?}");
            findings.check(same, "drgn sees something else", || format!("{shape:?}"));
            let asked = ask(fixture.vmlinux(), &cut(fixture, shape), &["sys", "ps"]);
            let same = asked.processes("ps") == session(fixture, Shape::Kdump).processes("ps");
            findings.check(same, "crash sees something else", || format!("{shape:?}: {}", asked.all));
        }
    });
}

#[test]
fn gdb_has_a_thread_for_each_vcpu() {
    on_each_fixture(|fixture, findings| {
        let mut command = Command::new(tool("gdb"));
        command.args(["-nx", "-batch", "-ex", "info threads", "-ex", "thread apply all info registers rip"]);
        // a variable of the kernel's image, by its own address
        command.args(["-ex", "print init_uts_ns.name.release"]);
        command.arg(fixture.vmlinux()).arg(cut(fixture, Shape::Elf));
        let ran = run(&mut command, Duration::from_secs(240));
        assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
        let after = |line: &str, mark: &str| Some(line.split_once(mark)?.1.split([')', ' ']).next()?.to_string());
        let mut rips = BTreeMap::new();
        let mut thread = None;
        for line in ran.stdout.lines() {
            if line.starts_with("Thread ") {
                thread = after(line, "LWP ");
            }
            if let (Some(rest), Some(lwp)) = (line.strip_prefix("rip "), &thread) {
                let rip = rest.split_whitespace().next().unwrap();
                rips.insert(lwp.parse::<usize>().unwrap(), hex(rip));
            }
        }
        let release = format!("$1 = \"{}\"", kernel_release(fixture));
        findings.check(ran.stdout.contains(&release), "no variable of the kernel", || ran.stdout.clone());
        // LWP is pr_pid: the number of the vCPU + 1
        let told = (0..fixture.vcpus().len()).map(|vcpu| (vcpu + 1, fixture.register(vcpu, "rip"))).collect();
        findings.check(rips == told, "threads", || format!("{rips:x?} for {told:x?}: {} {}", ran.stdout, ran.stderr));
    });
}

#[test]
fn makedumpfile_takes_it_for_a_kdump() {
    on_each_fixture(|fixture, findings| {
        // zlib, as Debian 12's makedumpfile is built without zstd; level 1, as it is older than some fixtures' kernels
        // and would take their slabs for free pages
        let (from, to) = (cut(fixture, Shape::Zlib), scratch().join(format!("{}.refiltered", fixture.name)));
        let mut command = Command::new(tool("makedumpfile"));
        command.args(["-c", "-d", "1"]).args([&from, &to]);
        let ran = run(&mut command, Duration::from_secs(240));
        assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
        let asked = ask(fixture.vmlinux(), &to, &["sys", "ps"]);
        let same = asked.processes("ps") == session(fixture, Shape::Kdump).processes("ps");
        findings.check(same, "crash sees something else", || asked.all.clone());
    });
}

fn kernel_release(fixture: &Fixture) -> &str {
    fixture.banner().split(' ').nth(2).unwrap()
}
