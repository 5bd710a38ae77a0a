//! Frames that were unpacked, or made, and may be asked for again: those used last, of so many bytes in all.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

/// Parts of a cache, each with a lock of its own; neighbours are in different ones.
const SHARDS: u64 = 16;
/// Bytes of a part, at least: fewer parts make a small cache. The largest frames fit.
const LEAST: u64 = 4 << 20;
/// Frames that a part looks through.
const MOST: usize = 256;

/// A frame: whoever asks first unpacks it, and others who want the same one wait for it, but nobody else.
type Cell = Arc<OnceLock<Result<Arc<Vec<u8>>, (io::ErrorKind, String)>>>;

#[derive(Debug)]
struct Entry {
    number: u64,
    bytes: usize,
    used: u64,
    cell: Cell,
}

#[derive(Debug, Default)]
struct Shard {
    entries: Vec<Entry>,
    now: u64,
}

impl Shard {
    /// The place of a frame of this size; `limit` bounds the sizes of all.
    fn cell(&mut self, number: u64, bytes: usize, limit: usize) -> Cell {
        self.now += 1;
        if let Some(entry) = self.entries.iter_mut().find(|e| e.number == number) {
            entry.used = self.now;
            return entry.cell.clone();
        }
        let mut sum: usize = self.entries.iter().map(|e| e.bytes).sum();
        while sum + bytes > limit || self.entries.len() >= MOST {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, e)| e.used).map(|(n, _)| n);
            let Some(oldest) = oldest else { break };
            sum -= self.entries.swap_remove(oldest).bytes;
        }
        let cell = Cell::default();
        self.entries.push(Entry { number, bytes, used: self.now, cell: cell.clone() });
        cell
    }
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: Vec<Mutex<Shard>>,
    /// Bytes that each of them keeps.
    limit: usize,
}

impl Cache {
    /// One that keeps so many bytes at most.
    pub(crate) fn new(bytes: u64) -> Self {
        let shards = (bytes / LEAST).clamp(1, SHARDS);
        let limit = usize::try_from(bytes / shards).unwrap_or(usize::MAX);
        Self { shards: (0..shards).map(|_| Mutex::default()).collect(), limit }
    }

    /// Whether a frame of this number is there, or being made.
    pub(crate) fn has(&self, number: u64) -> bool {
        let shard = self.shards.get((number % self.shards.len() as u64) as usize).and_then(|s| s.lock().ok());
        shard.is_some_and(|shard| shard.entries.iter().any(|e| e.number == number))
    }

    /// The frame of this number and size, which `make` makes if it is not there.
    pub(crate) fn get(
        &self,
        number: u64,
        bytes: usize,
        make: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> io::Result<Arc<Vec<u8>>> {
        let shard = self.shards.get((number % self.shards.len() as u64) as usize).filter(|_| bytes <= self.limit);
        // A worker that stopped in the middle took the lock with it: then there is no cache.
        let Some(mut shard) = shard.and_then(|shard| shard.lock().ok()) else { return make().map(Arc::new) };
        let cell = shard.cell(number, bytes, self.limit);
        drop(shard);
        let frame = cell.get_or_init(|| make().map(Arc::new).map_err(|e| (e.kind(), e.to_string())));
        frame.clone().map_err(|(kind, why)| io::Error::new(kind, why))
    }

    /// Bytes of all that it keeps.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap().entries.iter().map(|e| e.bytes).sum::<usize>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept() {
        let cache = Cache::new(256 << 20);
        let made = std::cell::Cell::new(0);
        let get = |number: u64, size: usize| {
            let unpack = || {
                made.set(made.get() + 1);
                Ok(vec![number as u8; size])
            };
            assert_eq!(cache.get(number * SHARDS, size, unpack).unwrap()[0], number as u8);
        };
        // Five of these fill a part of the cache.
        let size = (256 << 20) / SHARDS as usize / 5;
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
        (100..100 + 2 * MOST as u64).for_each(|number| get(number, 1));
        assert!(cache.shards.iter().all(|shard| shard.lock().unwrap().entries.len() <= MOST));
    }

    #[test]
    fn no_more_than_its_size_is_kept() {
        for size in [0, 1 << 10, 1 << 20, 9 << 20, 64 << 20] {
            let cache = Cache::new(size);
            for number in 0..2000 {
                let bytes = (number as usize * 7919) % (128 << 10);
                assert_eq!(cache.get(number, bytes, || Ok(vec![1; bytes])).unwrap().len(), bytes);
                assert!(cache.bytes() as u64 <= size, "{} of {size}", cache.bytes());
            }
            assert!(size < 1 << 20 || cache.bytes() as u64 >= size / 2, "{} of {size}", cache.bytes());
        }
    }

    #[test]
    fn a_bad_frame_is_bad_for_all() {
        let cache = Cache::new(1 << 20);
        for _ in 0..2 {
            let e = cache.get(3, 9, || Err(io::Error::new(io::ErrorKind::InvalidData, "bad"))).unwrap_err();
            assert!(e.kind() == io::ErrorKind::InvalidData && e.to_string() == "bad");
        }
    }
}
