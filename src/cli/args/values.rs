//! Values of options.

use crate::pipeline::crew::LEAST_MEMORY;
use crate::plan::level::Level;
use std::time::Duration;

pub(super) fn level(s: &str) -> Result<Level, String> {
    s.parse().ok().and_then(Level::new).ok_or_else(|| "a number from 0 to 31".into())
}

/// Bytes, or with K, M, G or T behind the number.
pub(super) fn size(s: &str) -> Result<u64, String> {
    let (number, shift) = match s.char_indices().last() {
        Some((at, 'k' | 'K')) => (s.get(..at), 10),
        Some((at, 'm' | 'M')) => (s.get(..at), 20),
        Some((at, 'g' | 'G')) => (s.get(..at), 30),
        Some((at, 't' | 'T')) => (s.get(..at), 40),
        _ => (Some(s), 0),
    };
    let bytes = number.and_then(|n| n.parse::<u64>().ok()).and_then(|n| n.checked_mul(1 << shift));
    bytes.filter(|n| *n > 0).ok_or_else(|| "a number of bytes, or with K, M, G or T behind it".into())
}

/// A size that a cut can be held to.
pub(super) fn memory(s: &str) -> Result<u64, String> {
    let least = format!("{}M at least", LEAST_MEMORY >> 20);
    size(s).and_then(|n| if n < LEAST_MEMORY { Err(least) } else { Ok(n) })
}

/// Seconds, or with s, m or h behind the number.
pub(super) fn duration(s: &str) -> Result<Duration, String> {
    let (number, unit) = match s.char_indices().last() {
        Some((at, 's')) => (s.get(..at), 1),
        Some((at, 'm')) => (s.get(..at), 60),
        Some((at, 'h')) => (s.get(..at), 3600),
        _ => (Some(s), 1),
    };
    let seconds = number.and_then(|n| n.parse::<u64>().ok()).and_then(|n| n.checked_mul(unit));
    let most = u64::from(u32::MAX);
    let seconds = seconds.filter(|n| (1..=most).contains(n));
    seconds.map(Duration::from_secs).ok_or_else(|| "a number of seconds, or with s, m or h behind it".into())
}

/// The pool would take 0 for its own choice, and start any number.
pub(super) fn threads(s: &str) -> Result<usize, String> {
    s.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "a number from 1 to 1024".into())
}

/// At least one.
pub(super) fn number(s: &str) -> Result<usize, String> {
    s.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a number from 1 on".into())
}
