//! Cutting a fixture at a dump level.

use super::fixtures::Fixture;
use super::tools::{run, scratch};
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
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
    let number = level.to_string();
    let options = ["-d", &number, if format == Format::Elf { "-E" } else { "--format=kdump" }].map(OsStr::new);
    let name = format!("{format:?}.{level}");
    slot.get_or_init(|| Arc::new(with_options(&fixture.vmcore, &format!("{}.{name}", fixture.name), &options))).clone()
}

/// A dump cut with these options, to a file of this name.
pub(crate) fn with_options(vmcore: &Path, name: &str, options: &[&OsStr]) -> Leveled {
    let path = scratch().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.args(["-f", "--report", "json"]).args(options).arg(vmcore).arg(&path);
    let ran = run(&mut command, Duration::from_secs(300));
    assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
    let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stdout));
    Leveled { path, report }
}
