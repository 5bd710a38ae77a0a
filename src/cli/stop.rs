//! Ending a cut before it is done: signals, and the time that it was given.

use super::progress::Display;
use crate::pipeline::Progress;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Those that end a cut: what is there is left in a state that can be used.
const SIGNALS: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];
/// Added to a signal's number for the status of who was ended by it, as shells have it.
const BY_SIGNAL: i32 = 128;

/// [`Progress`] that knows when to stop.
#[derive(Debug)]
pub(super) struct Stop<'d> {
    display: &'d dyn Display,
    /// The number of the signal that came; 0 if none has.
    signal: Arc<AtomicUsize>,
    end: Option<(Instant, Duration)>,
}

impl<'d> Stop<'d> {
    /// Watches from now on. A second signal ends the program at once. Those that were ignored when it was started, by nohup
    /// for example, stay so.
    pub(super) fn watch(display: &'d dyn Display, started: Instant, timeout: Option<Duration>) -> Self {
        let (signal, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let ignored = ignored();
        for number in SIGNALS.into_iter().filter(|n| ignored >> (n - 1) & 1 == 0) {
            // In this order the first signal does not find the flag that it sets. Where a signal cannot be caught, it ends
            // the program as it always did.
            let _ = signal_hook::flag::register_conditional_shutdown(number, BY_SIGNAL + number, Arc::clone(&again));
            let _ = signal_hook::flag::register(number, Arc::clone(&again));
            let _ = signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize);
        }
        // Beyond a limit (ulimit -f) writing fails, as on a full disk, once nothing dies of it.
        let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
        let end = timeout.and_then(|t| Some((started.checked_add(t)?, t)));
        Self { display, signal, end }
    }
}

impl Stop<'_> {
    /// The number of the signal that came, when one has; 0 before.
    pub(super) fn signal(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.signal)
    }
}

impl Progress for Stop<'_> {
    fn stage(&self, name: &str, total: Option<u64>) {
        self.display.stage(name, total);
    }

    fn advance(&self, pages: u64) {
        self.display.advance(pages);
    }

    fn stop(&self) -> Option<String> {
        match self.signal.load(Ordering::Relaxed) as i32 {
            0 => {}
            SIGHUP => return Some("by SIGHUP".into()),
            SIGINT => return Some("by SIGINT".into()),
            _ => return Some("by SIGTERM".into()),
        }
        let (end, timeout) = self.end?;
        (Instant::now() >= end).then(|| format!("the {} s of --timeout are over", timeout.as_secs()))
    }
}

impl Display for Stop<'_> {
    fn finish(&self) {
        self.display.finish();
    }
}

/// A bit for each signal that is ignored, from the lowest on for signal 1 (Linux: fs/proc/array.c).
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
