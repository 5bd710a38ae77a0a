//! The ring of bytes: Linux before 3.5 (kernel/printk.c).
//!
//! `log_buf` points to `log_buf_len` bytes, a power of two. `log_end` counts the bytes ever written, so the newest ends at
//! its remainder; `logged_chars` counts those since the ring was last cleared. Each line is `<6>[    1.234567] text`.

use super::{Losses, MOST_LOG, Memory, Record, Sink, lies, unreadable};
use crate::error::Result;
use crate::units::{PAGE_BYTES, VirtAddr};

/// A longer line is given in parts.
const MOST_LINE: usize = 1 << 14;

/// The ring's variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    buf: VirtAddr,
    len: u64,
    /// Bytes that were ever written, modulo 2^32.
    end: u64,
    /// Bytes that are there.
    there: u64,
}

impl Ring {
    /// Reads `log_buf`, `log_buf_len` and `log_end` from their places, and `logged_chars` if that is known.
    ///
    /// # Errors
    /// [`crate::Error::Missing`] if they cannot be read, [`crate::Error::Damaged`] if they make no sense.
    pub fn open<M: Memory>(mem: &M, [buf, len, end]: [VirtAddr; 3], logged: Option<VirtAddr>) -> Result<Self> {
        let word = |name, va| mem.word(va).map(u64::from).ok_or_else(|| unreadable(name, va));
        let start = mem.long(buf).map(VirtAddr).ok_or_else(|| unreadable("log_buf", buf))?;
        let (len, end) = (word("log_buf_len", len)?, word("log_end", end)?);
        let logged = logged.and_then(|va| mem.word(va)).map_or(0, u64::from);
        if len > MOST_LOG || !len.is_power_of_two() {
            return Err(lies(format!("log_buf_len is {len:#x}")));
        }
        Ok(Self { buf: start, len, end, there: end.max(logged).min(len) })
    }

    /// Reads it, oldest first, line by line.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn read<M: Memory>(&self, mem: &M, sink: &mut Sink<'_>) -> Result<Losses> {
        let mut losses = Losses::default();
        let mut lines = Lines::default();
        let mut left = self.there;
        let mut piece = Vec::new();
        while left > 0 {
            let at = self.end.wrapping_sub(left) & (self.len - 1);
            let va = VirtAddr(self.buf.0.wrapping_add(at));
            // To the end of the page, or of the ring.
            let n = left.min(self.len - at).min(PAGE_BYTES - va.in_page() as u64);
            piece.resize(n as usize, 0);
            if mem.fill(va, &mut piece) {
                piece.iter().try_for_each(|byte| lines.push(*byte, sink))?;
            } else {
                losses.absent_bytes += n;
                lines.finish(sink)?;
            }
            left -= n;
        }
        lines.finish(sink)?;
        Ok(losses)
    }
}

/// Bytes to lines.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    joins: bool,
}

impl Lines {
    fn push(&mut self, byte: u8, sink: &mut Sink<'_>) -> Result<()> {
        if byte == b'\n' {
            return self.give(false, sink);
        }
        self.line.push(byte);
        if self.line.len() < MOST_LINE { Ok(()) } else { self.give(true, sink) }
    }

    fn finish(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        if self.line.is_empty() { Ok(()) } else { self.give(false, sink) }
    }

    fn give(&mut self, open: bool, sink: &mut Sink<'_>) -> Result<()> {
        let line = std::mem::take(&mut self.line);
        let joins = std::mem::replace(&mut self.joins, open);
        let (priority, text) = if joins { (None, &line[..]) } else { split(&line) };
        sink(Record { time: None, priority, text: text.to_vec(), joins, open })
    }
}

/// The number in angle brackets, and what follows.
fn split(line: &[u8]) -> (Option<u16>, &[u8]) {
    let parse = || {
        let end = line.iter().take(6).position(|b| *b == b'>')?;
        let digits = line.get(..end)?.strip_prefix(b"<")?;
        let number =
            digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok())??;
        Some((Some(number), line.get(end + 1..)?))
    };
    parse().unwrap_or((None, line))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ram, all, texts};
    use super::super::{Log, Losses};
    use super::*;

    const VARIABLES: u64 = 0x1000;
    const BUF: u64 = 0x2000;

    /// A ring of 256 bytes into which all of `text` was written, as emit_log_char does; `logged` since the last clear.
    fn ram(text: &str, logged: usize) -> Ram {
        let mut ram = Ram::default();
        ram.put(BUF, &[0; 256]);
        text.bytes().enumerate().for_each(|(i, b)| ram.put(BUF + (i as u64 & 255), &[b]));
        ram.put(VARIABLES, &BUF.to_le_bytes());
        ram.put(VARIABLES + 8, &[256, text.len() as u32, logged as u32].map(u32::to_le_bytes).concat());
        ram
    }

    fn open(ram: &Ram) -> Result<Log> {
        let variables = [0, 8, 12].map(|o| VirtAddr(VARIABLES + o));
        Ring::open(ram, variables, Some(VirtAddr(VARIABLES + 16))).map(Log::Bytes)
    }

    fn lines(ram: &Ram) -> (Vec<String>, Losses) {
        let (records, losses) = all(&open(ram).unwrap(), ram);
        (texts(&records), losses)
    }

    #[test]
    fn lines_have_their_level_apart() {
        let ram = ram("<6>[    0.000000] one\n<0>two\nthree\n<x>four", 5);
        let (records, losses) = all(&open(&ram).unwrap(), &ram);
        let told: Vec<_> =
            records.iter().map(|r| (r.priority, String::from_utf8_lossy(&r.text).into_owned())).collect();
        let line = |p, t: &str| (p, t.to_string());
        let expected =
            [line(Some(6), "[    0.000000] one"), line(Some(0), "two"), line(None, "three"), line(None, "<x>four")];
        assert_eq!(told, expected);
        assert_eq!(losses, Losses::default());
    }

    #[test]
    fn the_ring_wraps() {
        for count in 1..120 {
            let text: String = (0..count).map(|n| format!("<4>line {n}\n")).collect();
            let kept = &text[text.len().saturating_sub(256)..];
            let expected: Vec<String> = kept.lines().map(|l| l.strip_prefix("<4>").unwrap_or(l).to_string()).collect();
            assert_eq!(lines(&ram(&text, 0)).0, expected, "{count}");
        }
    }

    /// After 4 GiB the count of all bytes begins anew; the ring is full all the same.
    #[test]
    fn the_count_wraps_too() {
        let text: String = (0..40).map(|n| format!("<4>line {n}\n")).collect();
        let mut ram = ram(&text, text.len());
        let whole = lines(&ram);
        ram.put(VARIABLES + 12, &(text.len() as u32 % 256).to_le_bytes());
        assert_eq!(lines(&ram), whole);
    }

    #[test]
    fn missing_pages_are_counted() {
        let text: String = (0..10).map(|n| format!("<4>{n:011}\n")).collect();
        let mut ram = ram(&text, 0);
        ram.drop_page(BUF + 64);
        // This memory's pages are smaller than those that the ring is read by.
        assert_eq!(lines(&ram), (Vec::new(), Losses { absent_bytes: 150, ..Losses::default() }));
    }

    #[test]
    fn a_line_without_an_end_comes_in_parts() {
        let mut ram = Ram::default();
        ram.put(BUF, &[b'a'; 1 << 15]);
        ram.put(VARIABLES, &BUF.to_le_bytes());
        ram.put(VARIABLES + 8, &[1 << 15, u32::MAX, 0].map(u32::to_le_bytes).concat());
        let (records, _) = all(&open(&ram).unwrap(), &ram);
        assert_eq!(
            records.iter().map(|r| (r.joins, r.open, r.text.len())).collect::<Vec<_>>(),
            [(false, true, 1 << 14), (true, true, 1 << 14)]
        );
    }

    #[test]
    fn lying_sizes_are_refused() {
        for size in [0_u32, 255, 0xffff_ffff] {
            let mut bad = ram("x\n", 2);
            bad.put(VARIABLES + 8, &size.to_le_bytes());
            assert!(open(&bad).is_err());
        }
    }

    /// Whatever byte is wrong, reading ends, and gives no more than the ring can hold.
    #[test]
    fn any_byte_may_be_wrong() {
        let text: String = (0..40).map(|n| format!("<4>line {n}\n")).collect();
        let ram = ram(&text, 0);
        let mut read = 0;
        for bad in ram.flips(0..BUF + 256) {
            if let Ok(log) = open(&bad) {
                assert!(all(&log, &bad).0.iter().map(|r| r.text.len() + 1).sum::<usize>() <= 1 << 16);
                read += 1;
            }
        }
        assert!(read > 500);
    }
}
