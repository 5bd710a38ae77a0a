//! How the work gets on: bars, lines, or lines of JSON, on standard error.

#[cfg(feature = "bars")]
mod bars;

use super::super::args::{BulkArgs, ProgressForm};
use super::super::complain;
use super::super::stop::Stop;
use crate::bulk::{Record, Status, Task, Watch};
use crate::pipeline::Progress;
use crate::report::size;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Tells of all dumps.
#[derive(Debug)]
pub(super) struct Watcher<'s> {
    stop: &'s Stop<'s>,
    form: Option<ProgressForm>,
    counts: Mutex<Counts>,
    /// Bytes of inputs that are done, of those that are being cut in part.
    done: AtomicU64,
    #[cfg(feature = "bars")]
    bars: bars::Bars,
}

#[derive(Debug, Default)]
struct Counts {
    ended: usize,
    dumps: usize,
    bytes: u64,
    began: Option<Instant>,
}

impl Counts {
    /// How long it will take, by bytes.
    fn left(&self, done: u64) -> Option<Duration> {
        let took = self.began?.elapsed();
        let rest = self.bytes.checked_sub(done).filter(|_| done > 0)?;
        Some(took.mul_f64((rest as f64 / done as f64).min(1e6)))
    }
}

impl<'s> Watcher<'s> {
    pub(super) fn new(args: &BulkArgs, stop: &'s Stop<'s>) -> Self {
        let plain = if super::on_terminal() { ProgressForm::Bars } else { ProgressForm::Lines };
        let form = Some(args.progress.unwrap_or(plain)).filter(|_| !args.quiet);
        // Without the feature there are no bars to be had.
        let form =
            form.map(|f| if cfg!(feature = "bars") || f != ProgressForm::Bars { f } else { ProgressForm::Lines });
        Self {
            stop,
            form,
            counts: Mutex::default(),
            done: AtomicU64::new(0),
            #[cfg(feature = "bars")]
            bars: bars::Bars::new(form == Some(ProgressForm::Bars)),
        }
    }

    /// Takes bars away.
    pub(super) fn finish(&self) {
        #[cfg(feature = "bars")]
        self.bars.finish();
    }

    fn say(&self, line: &str) {
        #[cfg(feature = "bars")]
        if self.form == Some(ProgressForm::Bars) {
            return self.bars.say(line);
        }
        complain(line);
    }

    fn event(&self, event: &serde_json::Value) {
        complain(&event.to_string());
    }

    fn ended_line(&self, record: &Record) {
        let Ok(mut counts) = self.counts.lock() else { return };
        counts.ended += 1;
        let (n, of, name) = (counts.ended, counts.dumps, record.input().display());
        let what = match (record.status, record.bytes) {
            (Status::Done, Some(bytes)) => format!("{} to {}", size(record.input_bytes()), size(bytes)),
            _ => record.reason.clone().unwrap_or_default(),
        };
        let warned = record.figures.as_ref().map_or(0, |f| f.warnings.len());
        let warned = if warned > 0 { format!(", {warned} warnings") } else { String::new() };
        let left = counts.left(self.done.load(Ordering::Relaxed)).filter(|_| n < of);
        let left = left.map(|t| format!("; {} s left", t.as_secs())).unwrap_or_default();
        let status = match record.status {
            Status::Done => "cut",
            Status::Left => "left",
            _ => "NOT CUT",
        };
        self.say(&format!("xdump-cut: [{n}/{of}] {name}: {status}: {what} in {:.1} s{warned}{left}", record.seconds));
    }
}

impl Watch for Watcher<'_> {
    fn begin(&self, dumps: usize, bytes: u64) {
        if let Ok(mut counts) = self.counts.lock() {
            *counts = Counts { ended: 0, dumps, bytes, began: Some(Instant::now()) };
        }
        match self.form {
            Some(ProgressForm::Json) => {
                self.event(&serde_json::json!({"event": "begin", "dumps": dumps, "bytes": bytes}));
            }
            Some(ProgressForm::Lines) => self.say(&format!("xdump-cut: {dumps} dumps to cut, {}", size(bytes))),
            _ => {}
        }
        #[cfg(feature = "bars")]
        self.bars.begin(dumps, bytes);
    }

    fn dump(&self, task: &Task) -> Box<dyn Progress + '_> {
        if self.form == Some(ProgressForm::Json) {
            let input = task.input().display().to_string();
            self.event(&serde_json::json!({"event": "dump", "input": input, "bytes": task.bytes()}));
        }
        Box::new(One {
            all: self,
            bytes: task.bytes(),
            stage: Mutex::default(),
            counted: AtomicU64::new(0),
            #[cfg(feature = "bars")]
            bar: self.bars.dump(task),
        })
    }

    fn ended(&self, record: &Record) {
        match self.form {
            Some(ProgressForm::Json) => self.event(&serde_json::json!({"event": "ended", "record": record})),
            Some(ProgressForm::Lines) => self.ended_line(record),
            // What went well is in the bars.
            Some(ProgressForm::Bars) if record.status != Status::Done => self.ended_line(record),
            Some(ProgressForm::Bars) => {
                if let Ok(mut counts) = self.counts.lock() {
                    counts.ended += 1;
                }
            }
            None => {}
        }
        #[cfg(feature = "bars")]
        self.bars.ended();
    }

    fn stop(&self) -> Option<String> {
        self.stop.stop()
    }

    fn warn(&self, what: &str) {
        self.say(&format!("xdump-cut: warning: {what}"));
    }
}

/// Tells of one dump.
#[derive(Debug)]
struct One<'w> {
    all: &'w Watcher<'w>,
    bytes: u64,
    /// Pages of the stage, and those that are done.
    stage: Mutex<(u64, u64)>,
    /// Its bytes that count as done.
    counted: AtomicU64,
    #[cfg(feature = "bars")]
    bar: bars::Bar,
}

impl One<'_> {
    /// Counts bytes up to this many as done.
    fn count(&self, bytes: u64) {
        let before = self.counted.fetch_max(bytes, Ordering::Relaxed);
        let more = bytes.saturating_sub(before);
        self.all.done.fetch_add(more, Ordering::Relaxed);
        #[cfg(feature = "bars")]
        self.all.bars.advance(more);
    }
}

impl Progress for One<'_> {
    fn stage(&self, name: &str, total: Option<u64>) {
        if let Ok(mut stage) = self.stage.lock() {
            *stage = (total.unwrap_or(0), 0);
        }
        #[cfg(feature = "bars")]
        self.bar.stage(name, total);
        #[cfg(not(feature = "bars"))]
        let _ = name;
    }

    fn advance(&self, pages: u64) {
        let part = self.stage.lock().ok().and_then(|mut stage| {
            stage.1 += pages;
            (u128::from(self.bytes) * u128::from(stage.1)).checked_div(stage.0.into())
        });
        if let Some(part) = part {
            self.count(u64::try_from(part).unwrap_or(u64::MAX).min(self.bytes));
        }
        #[cfg(feature = "bars")]
        self.bar.advance(pages);
    }

    fn stop(&self) -> Option<String> {
        self.all.stop.stop()
    }
}

impl Drop for One<'_> {
    /// Whatever became of it, it is done with.
    fn drop(&mut self) {
        self.count(self.bytes);
    }
}
