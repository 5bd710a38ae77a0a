//! Progress on standard error: a bar per stage on a terminal, plain lines elsewhere.

use crate::pipeline::{Progress, Silent};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
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
        Box::new(Silent)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bar(Mutex::new(None)))
    } else {
        Box::new(Lines(Mutex::new(Stage::default())))
    }
}

#[derive(Debug)]
struct Bar(Mutex<Option<ProgressBar>>);

impl Progress for Bar {
    fn stage(&self, name: &str, total: Option<u64>) {
        let bar = match total {
            Some(total) => {
                ProgressBar::new(total).with_style(style("{msg:26} [{bar:30}] {percent:>3}%  {pos} pages  {eta}"))
            }
            None => ProgressBar::new_spinner().with_style(style("{msg:26} {spinner}")),
        };
        bar.set_message(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        if let Ok(mut current) = self.0.lock()
            && let Some(last) = current.replace(bar)
        {
            last.finish_and_clear();
        }
    }

    fn advance(&self, pages: u64) {
        if let Ok(current) = self.0.lock()
            && let Some(bar) = current.as_ref()
        {
            bar.inc(pages);
        }
    }
}

impl Display for Bar {
    fn finish(&self) {
        if let Ok(mut current) = self.0.lock()
            && let Some(last) = current.take()
        {
            last.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
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
