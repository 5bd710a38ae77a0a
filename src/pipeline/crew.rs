//! The threads that do the work, and how much memory that may take.

use super::walk::CHUNK;
use crate::error::{Error, Result};
use crate::units::PAGE_BYTES;
use std::sync::Arc;

/// The least that a cut can be held to, in bytes.
pub const LEAST_MEMORY: u64 = 16 << 20;
/// Bytes that the program takes with nothing in hand.
const PROGRAM: u64 = 8 << 20;
/// Bytes of a chunk's pages.
const CHUNK_BYTES: u64 = CHUNK * PAGE_BYTES;
/// Bytes that a thread works with: what it reads, what it makes of that, and a codec's context.
const PER_THREAD: u64 = 3 * CHUNK_BYTES;

/// Of a limit, what is for each of four: the input, the threads, what waits to be written, and what is known of pages.
pub fn share(memory: u64) -> u64 {
    memory.saturating_sub(PROGRAM) / 4
}

/// Threads, and a bound on what they have in hand.
#[derive(Debug)]
pub struct Crew {
    pool: Arc<rayon::ThreadPool>,
    window: usize,
    memory: Option<u64>,
}

impl Crew {
    /// `threads` of them, or as many as CPUs may be used (by affinity and the quota of the cgroup) if that is 0; fewer if
    /// `memory`, in bytes, has no room for them.
    ///
    /// # Errors
    /// [`Error::Usage`] if they cannot be started.
    pub fn new(threads: usize, memory: Option<u64>) -> Result<Self> {
        let most = memory.map_or(u64::MAX, |m| (share(m) / PER_THREAD).max(1));
        let wanted = if threads == 0 { rayon::ThreadPoolBuilder::new() } else { builder(threads) };
        let failed = |n| move |e| Error::Usage(format!("{n} threads: {e}"));
        let mut pool = wanted.build().map_err(failed(threads))?;
        let few = usize::try_from(most).unwrap_or(usize::MAX);
        if pool.current_num_threads() > few {
            pool = builder(few).build().map_err(failed(few))?;
        }
        Ok(Self::sharing(Arc::new(pool), memory))
    }

    /// Threads that others use too; `memory`, in bytes, is for this crew's part of the work.
    pub fn sharing(pool: Arc<rayon::ThreadPool>, memory: Option<u64>) -> Self {
        let threads = pool.current_num_threads();
        // Enough that a chunk full of data at the head of the queue does not stall those behind it, which may be all
        // zeros and done at once.
        let window = (3 * threads).max(32);
        let bound = |m| {
            // No more threads work for it at a time than it has chunks in hand.
            let working = (share(m) / PER_THREAD) as usize;
            (share(m) / CHUNK_BYTES).min(if working < threads { working as u64 } else { u64::MAX }) as usize
        };
        let window = window.min(memory.map_or(usize::MAX, bound)).max(2);
        Self { pool, window, memory }
    }

    /// How many threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Chunks, of [`CHUNK`] pages, that may be in hand or wait to be written.
    pub fn window(&self) -> usize {
        self.window
    }

    /// The threads themselves.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// Runs `work` where its parallel parts use these threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// A word of warning if `fixed` bytes, which no bound on the work makes fewer, do not fit.
    pub fn too_little(&self, fixed: u64) -> Option<String> {
        let memory = self.memory?;
        // Where there is little, one thread and two chunks are the least.
        let needed = (fixed.saturating_mul(4)).saturating_add(PROGRAM).min(fixed.saturating_add(LEAST_MEMORY));
        (needed > memory).then(|| {
            format!(
                "what has to be known of the domain's pages takes {} MiB; the limit of {} MiB cannot be kept, {} MiB could",
                (fixed >> 20) + 1,
                memory >> 20,
                (needed >> 20) + 1
            )
        })
    }
}

fn builder(threads: usize) -> rayon::ThreadPoolBuilder {
    rayon::ThreadPoolBuilder::new().num_threads(threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_memory_means_few_threads_and_little_in_hand() {
        let of = |threads, memory| {
            let crew = Crew::new(threads, memory).unwrap();
            (crew.threads(), crew.window())
        };
        assert_eq!(of(4, None), (4, 32));
        assert_eq!(of(16, None), (16, 48));
        assert_eq!(of(4, Some(64 << 20)), (4, 14));
        assert_eq!(of(16, Some(64 << 20)), (4, 14));
        assert_eq!(of(8, Some(LEAST_MEMORY)), (1, 2));
        assert_eq!(of(8, Some(0)), (1, 2));
    }

    #[test]
    fn of_threads_that_others_use_too_as_many_work_as_memory_allows() {
        let pool = Arc::new(builder(16).build().unwrap());
        let window = |memory| Crew::sharing(Arc::clone(&pool), memory).window();
        assert_eq!((window(None), window(Some(64 << 20)), window(Some(LEAST_MEMORY))), (48, 4, 2));
        assert_eq!(window(Some(4 << 30)), 48);
    }

    #[test]
    fn what_cannot_fit_is_told() {
        let crew = Crew::new(1, Some(64 << 20)).unwrap();
        assert_eq!(crew.too_little(8 << 20), None);
        assert!(crew.too_little(60 << 20).is_some_and(|why| why.contains("77 MiB could")));
        assert_eq!(Crew::new(1, None).unwrap().too_little(u64::MAX >> 1), None);
    }
}
