//! Cutting a fixture with the program under test.

use super::fixtures::Fixture;
use super::tools::{run, scratch};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// The forms of output that the readers are tried on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Shape {
    /// kdump-compressed with zstd, the default.
    Kdump,
    Zlib,
    /// Only in builds with the feature.
    Lzo,
    Snappy,
    Raw,
    Elf,
}

impl Shape {
    /// All pages of dom0 but the zero ones; tests/levels.rs has the other levels.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Kdump => &["-d", "1"],
            Self::Zlib => &["-d", "1", "--compress", "zlib"],
            Self::Lzo => &["-d", "1", "--compress", "lzo"],
            Self::Snappy => &["-d", "1", "--compress", "snappy"],
            Self::Raw => &["-d", "1", "--compress", "none"],
            Self::Elf => &["-d", "1", "-E"],
        }
    }
}

/// The fixture cut to this shape; each is cut once for a test process.
pub(crate) fn cut(fixture: &Fixture, shape: Shape) -> PathBuf {
    type Slot = Arc<OnceLock<PathBuf>>;
    static CUTS: Mutex<Option<HashMap<(String, Shape), Slot>>> = Mutex::new(None);
    let key = (fixture.name.clone(), shape);
    // a test that failed while cutting must not fail all others with it
    let mut cuts = CUTS.lock().unwrap_or_else(|e| e.into_inner());
    let slot = cuts.get_or_insert_default().entry(key).or_default().clone();
    drop(cuts);
    slot.get_or_init(|| cut_with(fixture, &format!("{shape:?}"), shape.options())).clone()
}

/// The fixture cut with these options, to a file of this name.
pub(crate) fn cut_with(fixture: &Fixture, name: &str, options: &[&str]) -> PathBuf {
    let out = scratch().join(format!("{}.{name}", fixture.name));
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.arg(&fixture.vmcore).arg(&out).args(options);
    let ran = run(&mut command, Duration::from_secs(300));
    assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
    out
}
