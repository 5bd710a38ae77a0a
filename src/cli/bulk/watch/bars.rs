//! A bar for each dump that is being cut, and one for all of them.

use crate::bulk::Task;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// All bars.
#[derive(Debug)]
pub(super) struct Bars {
    all: MultiProgress,
    /// The one below the others.
    sum: ProgressBar,
    shown: bool,
}

impl Bars {
    /// Hidden unless they are to be `shown`.
    pub(super) fn new(shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { all: MultiProgress::with_draw_target(target), sum: ProgressBar::hidden(), shown }
    }

    pub(super) fn begin(&self, dumps: usize, bytes: u64) {
        if !self.shown {
            return;
        }
        self.sum
            .set_style(style("{msg:38} [{bar:30}] {percent:>3}%  {bytes} of {total_bytes}  {bytes_per_sec}  {eta}"));
        self.sum.set_length(bytes);
        self.sum.set_message(format!("0 of {dumps} dumps"));
        self.sum.set_prefix(dumps.to_string());
        self.sum.enable_steady_tick(Duration::from_millis(500));
        let _ = self.all.add(self.sum.clone());
    }

    pub(super) fn dump(&self, task: &Task) -> Bar {
        if !self.shown {
            return Bar(ProgressBar::hidden(), String::new());
        }
        let name = tail(&task.input().display().to_string());
        let bar = self.all.insert_before(&self.sum, ProgressBar::new_spinner());
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar(bar, name)
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.sum.inc(bytes);
    }

    pub(super) fn ended(&self) {
        if self.shown {
            let ended = self.sum.message().split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) + 1;
            self.sum.set_message(format!("{ended} of {} dumps", self.sum.prefix()));
        }
    }

    pub(super) fn say(&self, line: &str) {
        let _ = self.all.println(line);
    }

    pub(super) fn finish(&self) {
        self.sum.finish_and_clear();
        let _ = self.all.clear();
    }
}

/// The bar of a dump, and its name.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar, String);

impl Bar {
    pub(super) fn stage(&self, name: &str, total: Option<u64>) {
        match total {
            Some(total) => {
                self.0.set_style(style("{msg:38} [{bar:30}] {percent:>3}%  {prefix}"));
                self.0.set_length(total);
                self.0.set_position(0);
            }
            None => self.0.set_style(style("{msg:38} {spinner} {prefix}")),
        }
        self.0.set_message(self.1.clone());
        self.0.set_prefix(name.to_owned());
    }

    pub(super) fn advance(&self, pages: u64) {
        self.0.inc(pages);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The last part of a long name.
fn tail(name: &str) -> String {
    const ROOM: usize = 38;
    let over = name.chars().count().saturating_sub(ROOM);
    if over == 0 { name.into() } else { format!("…{}", name.chars().skip(over + 1).collect::<String>()) }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
