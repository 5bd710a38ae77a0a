//! Unpacked frames that may be asked for again: those used last, of so many bytes in all.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

/// Parts of the cache, each with a lock of its own; neighbours are in different ones.
const SHARDS: usize = 16;
/// Bytes that all of them keep.
const BYTES: usize = 256 << 20;
/// Frames that a part looks through.
const MOST: usize = 256;

/// A frame: whoever asks first unpacks it, and others who want the same one wait for it, but nobody else.
type Cell = Arc<OnceLock<Result<Arc<Vec<u8>>, (io::ErrorKind, String)>>>;

#[derive(Debug)]
struct Entry {
    number: usize,
    used: u64,
    cell: Cell,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.cell.get().and_then(|frame| frame.as_ref().ok()).map_or(0, |frame| frame.len())
    }
}

#[derive(Debug, Default)]
struct Shard {
    entries: Vec<Entry>,
    now: u64,
}

impl Shard {
    fn cell(&mut self, number: usize) -> Cell {
        self.now += 1;
        if let Some(entry) = self.entries.iter_mut().find(|e| e.number == number) {
            entry.used = self.now;
            return entry.cell.clone();
        }
        // Before it comes: what is being unpacked has no size yet, and is not more than there are threads.
        let mut bytes: usize = self.entries.iter().map(Entry::bytes).sum();
        while bytes > BYTES / SHARDS || self.entries.len() >= MOST {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, e)| e.used).map(|(n, _)| n);
            let Some(oldest) = oldest else { break };
            bytes = bytes.saturating_sub(self.entries.swap_remove(oldest).bytes());
        }
        let cell = Cell::default();
        self.entries.push(Entry { number, used: self.now, cell: cell.clone() });
        cell
    }
}

/// The cache.
#[derive(Debug)]
pub(super) struct Cache(Vec<Mutex<Shard>>);

impl Default for Cache {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Cache {
    /// The frame of this number, which `unpack` makes if it is not there.
    pub(super) fn get(&self, number: usize, unpack: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Arc<Vec<u8>>> {
        let shard = self.0.get(number % SHARDS).and_then(|shard| shard.lock().ok());
        // A worker that stopped in the middle took the lock with it: then there is no cache.
        let Some(mut shard) = shard else { return unpack().map(Arc::new) };
        let cell = shard.cell(number);
        drop(shard);
        let frame = cell.get_or_init(|| unpack().map(Arc::new).map_err(|e| (e.kind(), e.to_string())));
        frame.clone().map_err(|(kind, why)| io::Error::new(kind, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept() {
        let cache = Cache::default();
        let made = std::cell::Cell::new(0);
        let get = |number: usize, size: usize| {
            let unpack = || {
                made.set(made.get() + 1);
                Ok(vec![number as u8; size])
            };
            assert_eq!(cache.get(number * SHARDS, unpack).unwrap()[0], number as u8);
        };
        // Four of these fill a part of the cache, and one more is let in.
        let size = BYTES / SHARDS / 4;
        for number in [1, 2, 3, 4, 5, 1, 2, 1, 2, 5] {
            get(number, size);
        }
        assert_eq!(made.get(), 5);
        for number in [6, 1, 2, 7, 1, 2, 8, 1, 2] {
            get(number, size);
        }
        assert_eq!(made.get(), 8, "what is used again and again stays");
        get(3, size);
        assert_eq!(made.get(), 9);
        (100..100 + 2 * MOST).for_each(|number| get(number, 1));
        assert!(cache.0.iter().all(|shard| shard.lock().unwrap().entries.len() <= MOST));
    }

    #[test]
    fn a_bad_frame_is_bad_for_all() {
        let cache = Cache::default();
        for _ in 0..2 {
            let e = cache.get(3, || Err(io::Error::new(io::ErrorKind::InvalidData, "bad"))).unwrap_err();
            assert!(e.kind() == io::ErrorKind::InvalidData && e.to_string() == "bad");
        }
    }
}
