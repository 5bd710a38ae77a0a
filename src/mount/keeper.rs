//! The threads that make files and read them.

use super::Event;
use super::cached::Cached;
use super::folder::{ALWAYS, Ask, Seek, attr, list};
use crate::cache::Cache;
use crate::cut::Shown;
use crate::source::ReadAt;
use crate::units::FileOffset;
use fuser::{Errno, Generation};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::SystemTime;

/// Failed reads of a file that are told.
const MOST_TOLD: usize = 5;

/// What all keepers share.
pub(super) struct House<'a> {
    pub(super) shown: &'a Shown<'a>,
    pub(super) cache: Cache,
    /// Threads that read a file.
    pub(super) readers: usize,
    /// Files that are being made, and names that are searched for.
    pub(super) busy: AtomicUsize,
    pub(super) made: SystemTime,
    pub(super) events: Sender<Event>,
    /// Where warnings go.
    pub(super) tell: &'a (dyn Fn(&str) + Sync),
}

/// Something that takes long, counted while it lasts.
struct Busy<'h>(&'h AtomicUsize);

impl<'h> Busy<'h> {
    fn new(count: &'h AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The next question; nothing if there will be none.
fn next<T>(desk: &Mutex<Receiver<T>>) -> Option<T> {
    desk.lock().ok()?.recv().ok()
}

impl House<'_> {
    /// Finds files by name, until the end.
    pub(super) fn seek(&self, desk: Receiver<Seek>, files: &[Sender<Ask>]) {
        for seek in desk {
            let _busy = Busy::new(&self.busy);
            match seek {
                Seek::List(from, reply) => list(&self.shown.names(), from, reply),
                Seek::Name(name, reply) => match name.to_str().and_then(|n| self.shown.find(n)) {
                    Some(n) => {
                        let _ = files.get(n).map(|desk| desk.send(Ask::Entry(reply)));
                    }
                    None => reply.error(Errno::ENOENT),
                },
            }
        }
    }

    /// Keeps a file: makes it for the first who asks, and answers until the end.
    pub(super) fn keep(&self, n: usize, desk: Receiver<Ask>) {
        let desk = Mutex::new(desk);
        let mut first = next(&desk);
        if first.is_none() {
            return;
        }
        let mut busy = Some(Busy::new(&self.busy));
        let done = self.shown.open(n, &mut |file, said| {
            busy = None;
            let name = || self.shown.known_name(n);
            said.iter().for_each(|line| (self.tell)(&format!("{}: warning: {line}", name())));
            let cached = Cached::new(file, &self.cache, n);
            // What is kept by the source, or is memory, need not be kept twice.
            let file: &dyn ReadAt = if self.shown.is_as_it_is() { file } else { &cached };
            let kept = Kept { house: self, n, file, failed: AtomicUsize::new(0) };
            if let Some(ask) = first.take() {
                kept.answer(ask);
            }
            thread::scope(|scope| {
                for _ in 0..self.readers {
                    scope.spawn(|| std::iter::from_fn(|| next(&desk)).for_each(|ask| kept.answer(ask)));
                }
            });
        });
        drop(busy);
        if let Err(e) = done {
            // First, so that it is known why when the answer is there.
            let _ = self.events.send(Event::Failed(n, e));
            first.into_iter().chain(std::iter::from_fn(|| next(&desk))).for_each(Ask::refuse);
        }
    }
}

/// A file that is there.
struct Kept<'k> {
    house: &'k House<'k>,
    n: usize,
    file: &'k dyn ReadAt,
    failed: AtomicUsize,
}

impl Kept<'_> {
    fn answer(&self, ask: Ask) {
        let attr = || attr(Some(self.n), self.file.len(), self.house.made);
        match ask {
            Ask::Entry(reply) => reply.entry(&ALWAYS, &attr(), Generation(0)),
            Ask::Attr(reply) => reply.attr(&ALWAYS, &attr()),
            Ask::Read { at, size, reply } => {
                let size = self.file.len().saturating_sub(at).min(u64::from(size)) as usize;
                if let Some(bytes) = self.file.slice(FileOffset(at), size) {
                    return reply.data(bytes);
                }
                let mut bytes = vec![0; size];
                match self.file.read_exact_at(FileOffset(at), &mut bytes) {
                    Ok(()) => reply.data(&bytes),
                    Err(e) => {
                        reply.error(Errno::EIO);
                        self.failed(at, size, &e);
                    }
                }
            }
        }
    }

    /// Tells of a read that failed, but not without end.
    fn failed(&self, at: u64, size: usize, e: &std::io::Error) {
        let before = self.failed.fetch_add(1, Ordering::Relaxed);
        let more = if before + 1 == MOST_TOLD { " (no more is told of this file)" } else { "" };
        if before < MOST_TOLD {
            let name = self.house.shown.known_name(self.n);
            (self.house.tell)(&format!("{name}: warning: {size} bytes at {at:#x} cannot be read: {e}{more}"));
        }
    }
}
