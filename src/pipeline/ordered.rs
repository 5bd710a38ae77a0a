//! Work in parallel, results in order, with a bounded number in flight.

use super::crew::Crew;
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

/// Runs `work` on each item with the threads of `crew` and hands the results to `sink` on the calling thread, in the order of the items.
///
/// At most [`Crew::window`] items are worked on or wait; a slow sink holds the workers back, not memory up. The caller is no
/// worker, so a pool of one thread cannot block itself. The first error, of `work` or of `sink`, ends it all.
///
/// # Errors
/// That first error.
pub fn ordered<T: Send, U: Send>(
    crew: &Crew,
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> Result<U> + Sync,
    mut sink: impl FnMut(U) -> Result<()>,
) -> Result<()> {
    let (work, stop, window) = (&work, &AtomicBool::new(false), crew.window());
    crew.pool().in_place_scope_fifo(|scope| {
        let mut in_flight: VecDeque<Receiver<Result<U>>> = VecDeque::with_capacity(window);
        let mut drain = |queue: &mut VecDeque<Receiver<Result<U>>>, down_to: usize| {
            while queue.len() > down_to {
                // A worker that panicked sends nothing; the scope raises its panic again when it ends.
                let result = queue.pop_front().and_then(|r| r.recv().ok());
                result.unwrap_or_else(|| Err(Error::Usage("a worker stopped".into()))).and_then(&mut sink)?;
            }
            Ok(())
        };
        let run = || {
            for item in items {
                drain(&mut in_flight, window.max(1) - 1)?;
                let (tx, rx) = sync_channel(1);
                scope.spawn_fifo(move |_| {
                    if !stop.load(Ordering::Relaxed) {
                        // The receiver is gone only if another error came first.
                        let _ = tx.send(work(item));
                    }
                });
                in_flight.push_back(rx);
            }
            drain(&mut in_flight, 0)
        };
        let done = run();
        stop.store(done.is_err(), Ordering::Relaxed);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crew(threads: usize) -> Crew {
        Crew::new(threads, Some(20 << 20)).unwrap()
    }

    #[test]
    fn order_holds_for_any_number_of_threads() {
        for threads in [1, 2, 7] {
            let mut seen = Vec::new();
            let work = |n: u64| {
                std::thread::sleep(std::time::Duration::from_micros(n * 37 % 100));
                Ok(n)
            };
            ordered(&crew(threads), 0..200, work, |n| {
                seen.push(n);
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, (0..200).collect::<Vec<_>>());
        }
    }

    #[test]
    fn errors_of_both_sides_end_it() {
        let fail = |n: u64, at| if n == at { Err(Error::Usage(format!("at {n}"))) } else { Ok(n) };
        for threads in [1, 3] {
            let worker = ordered(&crew(threads), 0..1000, |n| fail(n, 17), |_| Ok(()));
            assert_eq!(worker.unwrap_err().to_string(), "at 17");
            let sink = ordered(&crew(threads), 0..1000, Ok, |n| fail(n, 23).map(drop));
            assert_eq!(sink.unwrap_err().to_string(), "at 23");
        }
    }
}
