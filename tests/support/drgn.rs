//! Running drgn on an output of ours.

use super::cut::{Shape, cut};
use super::fixtures::Fixture;
use super::tools::{run, scratch, tool};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// A frame of a trace.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) pc: u64,
    pub(crate) name: String,
}

/// What drgn sees of a task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) pid: u64,
    pub(crate) tgid: u64,
    pub(crate) comm: String,
    /// The innermost first, inlined ones left out, as they share the program counter of what they are inlined into.
    pub(crate) frames: Vec<Frame>,
    pub(crate) error: Option<String>,
}

/// What drgn sees in an output.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) release: String,
    /// All tasks but the idle ones.
    pub(crate) tasks: Vec<Task>,
    /// The idle task of each CPU.
    pub(crate) idle: Vec<Task>,
    /// What each CPU runs.
    pub(crate) on_cpu: Vec<Task>,
    /// The first bytes of init's lowest mapping, in hex, or why they cannot be read.
    pub(crate) init_magic: String,
    /// And of its stack.
    pub(crate) init_stack: String,
}

/// drgn's view of this output; each is asked for once in a test process.
pub(crate) fn facts(fixture: &Fixture, shape: Shape) -> Arc<Facts> {
    type Slot = Arc<OnceLock<Arc<Facts>>>;
    static ALL: Mutex<Option<HashMap<(String, Shape), Slot>>> = Mutex::new(None);
    let mut all = ALL.lock().unwrap_or_else(|e| e.into_inner());
    let slot = all.get_or_insert_default().entry((fixture.name.clone(), shape)).or_default().clone();
    drop(all);
    slot.get_or_init(|| Arc::new(ask(fixture, &cut(fixture, shape)))).clone()
}

/// drgn's view of any output.
pub(crate) fn ask(fixture: &Fixture, dump: &Path) -> Facts {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let script = scratch().join(format!("drgn-{}.py", COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::write(&script, include_str!("drgn_facts.py")).unwrap();
    let mut command = Command::new(tool("drgn"));
    // --no-default-symbols: nothing of the machine's own, and no search of the network
    command.args(["-q", "--no-default-symbols", "-c"]).arg(dump);
    command.arg("-s").arg(fixture.vmlinux()).arg(&script);
    let ran = run(&mut command, Duration::from_secs(240));
    assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
    let value: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stdout));
    let tasks = |key: &str| value[key].as_array().unwrap().iter().map(task).collect();
    Facts {
        release: text(&value["release"]),
        tasks: tasks("tasks"),
        idle: tasks("idle"),
        on_cpu: tasks("on_cpu"),
        init_magic: text(&value["init_magic"]),
        init_stack: text(&value["init_stack"]),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

fn task(value: &Value) -> Task {
    let frames = value["frames"].as_array().unwrap().iter().filter(|frame| frame["inline"] == false);
    let number = |key: &str| value[key].as_u64().unwrap();
    Task {
        pid: number("pid"),
        tgid: number("tgid"),
        comm: text(&value["comm"]),
        frames: frames.map(|f| Frame { pc: f["pc"].as_u64().unwrap(), name: text(&f["name"]) }).collect(),
        error: value["error"].as_str().map(str::to_string),
    }
}
