//! Cutting a fixture at a dump level.

use super::fixtures::Fixture;
use super::tools::{run, scratch};
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// The formats that leave pages out in ways of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Format {
    Kdump,
    Elf,
}

/// An output, and what xdump-cut said of it.
pub(crate) struct Leveled {
    pub(crate) path: PathBuf,
    pub(crate) report: Value,
}

/// The fixture cut at this level; each is cut once for a test process.
pub(crate) fn at_level(fixture: &Fixture, format: Format, level: u8) -> Arc<Leveled> {
    type Key = (String, Format, u8);
    type Slot = Arc<OnceLock<Arc<Leveled>>>;
    static CUTS: Mutex<Option<HashMap<Key, Slot>>> = Mutex::new(None);
    let key = (fixture.name.clone(), format, level);
    // a test that failed while cutting must not fail all others with it
    let mut cuts = CUTS.lock().unwrap_or_else(|e| e.into_inner());
    let slot = cuts.get_or_insert_default().entry(key).or_default().clone();
    drop(cuts);
    slot.get_or_init(|| Arc::new(cut(fixture, format, level))).clone()
}

fn cut(fixture: &Fixture, format: Format, level: u8) -> Leveled {
    let path = scratch().join(format!("{}.{format:?}.{level}", fixture.name));
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.args(["-d", &level.to_string(), "--report", "json"]).arg(&fixture.vmcore).arg(&path);
    if format == Format::Elf {
        command.arg("-E");
    }
    let ran = run(&mut command, Duration::from_secs(300));
    assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
    let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stdout));
    Leveled { path, report }
}
