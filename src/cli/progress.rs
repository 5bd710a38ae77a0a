//! Progress on standard error: a bar per stage on a terminal (feature `bars`), plain lines elsewhere.

#[cfg(feature = "bars")]
mod bar;

use crate::pipeline::{Progress, Silent};
#[cfg(feature = "bars")]
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A line in the middle of a stage, at most this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// [`Progress`] that can be cleared away.
pub(super) trait Display: Progress {
    /// The work is done.
    fn finish(&self) {}
}

impl Display for Silent {}

/// What fits standard error.
pub(super) fn choose(quiet: bool) -> Box<dyn Display> {
    if quiet {
        return Box::new(Silent);
    }
    #[cfg(feature = "bars")]
    if std::io::stderr().is_terminal() {
        return Box::new(bar::Bar::default());
    }
    Box::new(Lines(Mutex::new(Stage::default())))
}

/// Whether standard error can show bars.
pub(super) fn has_bars() -> bool {
    #[cfg(feature = "bars")]
    return std::io::stderr().is_terminal();
    #[cfg(not(feature = "bars"))]
    return false;
}

#[derive(Debug, Default)]
struct Stage {
    name: String,
    total: u64,
    done: u64,
    said: Option<Instant>,
}

#[derive(Debug)]
struct Lines(Mutex<Stage>);

impl Progress for Lines {
    fn stage(&self, name: &str, total: Option<u64>) {
        if let Ok(mut stage) = self.0.lock() {
            *stage = Stage { name: name.into(), total: total.unwrap_or(0), done: 0, said: Some(Instant::now()) };
            let pages = total.map(|t| format!(", {t} pages")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "xdump-cut: {name}{pages}");
        }
    }

    fn advance(&self, pages: u64) {
        if let Ok(mut stage) = self.0.lock() {
            stage.done += pages;
            if stage.said.is_none_or(|t| t.elapsed() > LINE_EVERY) {
                stage.said = Some(Instant::now());
                let percent = (stage.done * 100).checked_div(stage.total).unwrap_or(0);
                let _ = writeln!(std::io::stderr(), "xdump-cut: {}: {percent} %", stage.name);
            }
        }
    }
}

impl Display for Lines {}
