//! What became of an archive, in figures.

use super::{Record, Status};
use crate::report::size;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Names of failures that the text tells one by one.
const MOST_TOLD: usize = 20;

/// Inputs of one status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// How many.
    pub inputs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of their outputs.
    pub output_bytes: u64,
}

impl Row {
    fn add(&mut self, record: &Record) {
        self.inputs += 1;
        self.bytes += record.input_bytes();
        self.output_bytes += record.bytes.unwrap_or(0);
    }
}

/// What became of all inputs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Cut now.
    pub cut: Row,
    /// Cut before.
    pub before: Row,
    /// Failed for good.
    pub failed: Row,
    /// Not overwritten.
    pub refused: Row,
    /// Failed, or not done, for a reason that may pass.
    pub trouble: Row,
    /// No Xen dumps.
    pub left: Row,
    /// Of those cut, those with warnings.
    pub with_warnings: u64,
    /// How long it took.
    pub seconds: f64,
    /// What was not cut, and why.
    pub failures: Vec<Failure>,
    /// What was left, by what it is.
    pub left_because: BTreeMap<String, u64>,
    /// What the work ended with, if it ended before its time.
    pub stopped: Option<String>,
}

/// What was not cut.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The input.
    pub input: String,
    /// How it ended.
    pub status: Status,
    /// Why.
    pub reason: String,
}

impl Summary {
    /// Adds what became of an input; `before` tells that it was so when the work began.
    pub fn add(&mut self, record: &Record, before: bool) {
        let row = match record.status {
            Status::Done if before => &mut self.before,
            Status::Done => &mut self.cut,
            Status::Failed => &mut self.failed,
            Status::Refused => &mut self.refused,
            Status::Started | Status::Trouble => &mut self.trouble,
            Status::Left => &mut self.left,
        };
        row.add(record);
        let reason = record.reason.clone().unwrap_or_else(|| "it was begun, and did not end".into());
        match record.status {
            Status::Done => {
                self.with_warnings += u64::from(record.figures.as_ref().is_some_and(|f| !f.warnings.is_empty()));
            }
            Status::Left => {
                let what = reason.split(';').next().unwrap_or_default();
                let what = if what.starts_with("neither ELF") { "no dump, by their first bytes" } else { what };
                *self.left_because.entry(what.into()).or_default() += 1;
            }
            status => self.failures.push(Failure { input: record.input().display().to_string(), status, reason }),
        }
    }

    /// Adds a dump that nothing is known of.
    pub fn missing(&mut self, input: String, reason: &str) {
        self.trouble.inputs += 1;
        self.failures.push(Failure { input, status: Status::Started, reason: reason.into() });
    }

    /// How many dumps were to be cut, then or now.
    pub fn dumps(&self) -> u64 {
        [self.cut, self.before, self.failed, self.refused, self.trouble].iter().map(|r| r.inputs).sum()
    }

    /// How many of them are.
    pub fn done(&self) -> u64 {
        self.cut.inputs + self.before.inputs
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28} {:>7} {:>12} {:>12}", "", "inputs", "size", "outputs")?;
        let mut row = |name: &str, row: &Row, out: bool| {
            let outputs = if out { size(row.output_bytes) } else { String::new() };
            let line = format!("{name:<28} {:>7} {:>12} {outputs:>12}", row.inputs, size(row.bytes));
            writeln!(f, "{}", line.trim_end())
        };
        let rows = [
            ("cut", self.cut, true),
            ("cut before", self.before, true),
            ("failed for good", self.failed, false),
            ("not overwritten", self.refused, false),
            ("to be tried again", self.trouble, false),
            ("left: no Xen dumps", self.left, false),
        ];
        rows.iter().filter(|r| r.1.inputs > 0).try_for_each(|(name, of, out)| row(name, of, *out))?;
        for (what, n) in &self.left_because {
            writeln!(f, "    {n} of them: {what}")?;
        }
        if self.with_warnings > 0 {
            writeln!(f, "{} of those cut with warnings; the manifest has them", self.with_warnings)?;
        }
        for failure in self.failures.iter().take(MOST_TOLD) {
            writeln!(f, "not cut: {}: {}", failure.input, failure.reason)?;
        }
        let more = self.failures.len().saturating_sub(MOST_TOLD);
        if more > 0 {
            writeln!(f, "not cut: {more} more; the manifest has them")?;
        }
        if let Some(why) = &self.stopped {
            writeln!(f, "stopped: {why}; the same command goes on from here")?;
        }
        let rate = self.cut.bytes as f64 / self.seconds.max(0.001);
        let rate = if self.cut.inputs > 0 { format!(", {}/s", size(rate as u64)) } else { String::new() };
        writeln!(f, "{:.1} s{rate}", self.seconds)
    }
}
