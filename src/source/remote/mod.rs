//! An object as storage: only what is asked for is fetched, in ranges, several at once.
//!
//! Three things are read of a dump. Structures, here and there: blocks around what is read. Tables, from one end to the other:
//! more and more at once, before it is asked for. Pages, of which the walker tells beforehand: these alone, joined where they
//! are near each other. [`extents`] decides, this module fetches. What it gets is of one object: each answer has to have the
//! ETag of the first.

mod extents;
mod fetch;

use super::OpenOptions;
use super::holes::Holes;
use super::origin::Origin;
use super::storage::{History, ReadAt};
use crate::error::{Error, Result};
use crate::objects::store::{Patience, Spot, runtime, wait};
use crate::units::FileOffset;
use extents::{Extents, Look, Why};
use fetch::{Fetcher, first};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use tokio::sync::Semaphore;

/// Requests at a time of what nobody waits for yet.
const AT_ONCE: usize = 16;

/// An object of a store.
#[derive(Debug)]
pub(super) struct Remote {
    shared: Arc<Shared>,
    len: u64,
    history: History,
}

/// What the readers and the requests share.
#[derive(Debug)]
struct Shared {
    fetcher: Fetcher,
    origin: Arc<Origin>,
    extents: Mutex<Extents>,
    /// Something came, or failed.
    news: Condvar,
    slots: Semaphore,
}

impl Remote {
    /// Opens an object: its first bytes are fetched.
    ///
    /// # Errors
    /// [`Error::Usage`] for a URL that names none, [`Error::Read`] with what the server says.
    pub(super) fn open(url: &str, options: &OpenOptions) -> Result<Self> {
        let hasty = Spot::of_object(url, Patience::Little)?;
        let found = wait(first(&hasty))??;
        let spot = Spot::of_object(url, Patience::Much)?;
        let len = found.meta.size;
        let origin = Arc::new(Origin::new(spot.url.clone(), len));
        origin.asked();
        origin.came(found.bytes.len() as u64);
        let mut extents = Extents::new(len, options.cached());
        for range in extents.miss(0, (found.bytes.len() as u64).min(len)) {
            let there = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            extents.came(range.start, there.and_then(|(from, to)| Some(found.bytes.get(from..to)?.to_vec())));
        }
        let fetcher = Fetcher::new(spot, found.meta, Arc::clone(&origin));
        let history = History { origins: vec![Arc::clone(&origin)], ..History::default() };
        let (extents, news, slots) = (Mutex::new(extents), Condvar::new(), Semaphore::new(AT_ONCE));
        Ok(Self { shared: Arc::new(Shared { fetcher, origin, extents, news, slots }), len, history })
    }
}

impl Shared {
    fn extents(&self) -> io::Result<MutexGuard<'_, Extents>> {
        self.extents.lock().map_err(|_| io::Error::other("a worker stopped"))
    }

    /// Fetches ranges that the extents know to be on their way.
    fn fetch(self: &Arc<Self>, ranges: Vec<Range<u64>>, why: Why) -> io::Result<()> {
        if ranges.is_empty() {
            return Ok(());
        }
        let runtime = runtime().map_err(|e| io::Error::other(e.to_string()))?;
        for range in ranges {
            let shared = Arc::clone(self);
            runtime.spawn(async move {
                let _slot = if why == Why::Told { shared.slots.acquire().await.ok() } else { None };
                let start = range.start;
                let bytes = match shared.origin.trouble() {
                    None => shared.fetcher.fetch(range).await,
                    Some(e) => Err(e),
                };
                let bytes = bytes.map_err(|e| shared.origin.fail(e.kind(), e.to_string())).ok();
                if let Ok(mut extents) = shared.extents.lock() {
                    extents.came(start, bytes);
                }
                shared.news.notify_all();
            });
        }
        Ok(())
    }
}

impl ReadAt for Remote {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        let end = at.0.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (mut at, mut rest) = (at.0, buf);
        let mut extents = self.shared.extents()?;
        while !rest.is_empty() {
            if let Some(e) = self.shared.origin.trouble() {
                return Err(e);
            }
            match extents.look(at) {
                Look::Here(bytes, from) => {
                    let n = rest.len().min(bytes.len().saturating_sub(from));
                    let ahead = extents.ahead(at + n as u64);
                    drop(extents);
                    self.shared.fetch(ahead, Why::Asked)?;
                    let (part, tail) = rest.split_at_mut(n);
                    part.copy_from_slice(bytes.get(from..from + n).unwrap_or_default());
                    (at, rest) = (at + n as u64, tail);
                    extents = self.shared.extents()?;
                }
                Look::Coming => {
                    extents = self.shared.news.wait(extents).map_err(|_| io::Error::other("a worker stopped"))?;
                }
                Look::Nothing => {
                    let missing = extents.miss(at, end);
                    drop(extents);
                    self.shared.fetch(missing, Why::Asked)?;
                    extents = self.shared.extents()?;
                }
            }
        }
        Ok(())
    }

    fn slice(&self, _: FileOffset, _: usize) -> Option<&[u8]> {
        None
    }

    fn holes(&self) -> &Holes {
        Holes::none()
    }

    fn is_far(&self) -> bool {
        true
    }

    fn expect(&self, ranges: &[Range<u64>]) {
        // Where it fails, the read that follows tells.
        if let Ok(mut extents) = self.shared.extents() {
            let missing = extents.tell(ranges);
            drop(extents);
            let _ = self.shared.fetch(missing, Why::Told);
        }
    }

    fn history(&self) -> &History {
        &self.history
    }
}

/// The error of an object that is no dump because it is empty.
fn empty() -> Error {
    Error::damaged("object", "it is empty")
}
