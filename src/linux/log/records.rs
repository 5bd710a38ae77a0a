//! The ring of records of varying length: Linux 3.5 to 5.9 (kernel/printk.c, commits 7ff9554bb578 to 896fbe20b4e2).
//!
//! `struct printk_log` (`struct log` before 3.11, commit 62e32ac3505a), 16 bytes, 24 with CONFIG_PRINTK_CALLER: time in
//! nanoseconds, length of the whole record, of its text, of its dictionary (`u16` each), facility, and a byte with five
//! flags below the level. 3.5 itself has level and facility in one `u16`, and no flags. Text and dictionary follow, then
//! padding. Records run from `log_first_idx` to `log_next_idx`; one of length 0 means that the next is at the start.
//!
//! A record that is missing or damaged hides where the next one begins. It is looked for: the first place from which
//! well-formed records follow each other.

use super::{Losses, MOST_LOG, Memory, Record, Sink, lies, unreadable};
use crate::bytes::{u16_at, u64_at};
use crate::error::Result;
use crate::linux::release_numbers;
use crate::units::VirtAddr;
use crate::vmcoreinfo::Vmcoreinfo;

/// The line ends here (enum log_flags).
const NEWLINE: u8 = 2;
/// A prefix is wanted, whatever came before.
const PREFIX: u8 = 4;
/// A part of a line.
const CONT: u8 = 8;
/// Records begin at multiples of this (LOG_ALIGN; 8 in some builds).
const ALIGN: u64 = 4;
/// Padding is less than this.
const MOST_PADDING: u64 = 8;
/// Places that are looked at for a next record, in all.
const MOST_TRIES: u64 = 1 << 20;
/// Well-formed records in a row that prove a place, unless the ring ends before.
const PROOF: u32 = 8;
/// Bytes before the text, far above those of any kernel.
const MOST_HEADER: u64 = 256;

/// The ring's variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    buf: VirtAddr,
    len: u64,
    first: u64,
    next: u64,
    /// Bytes before a record's text.
    header: u64,
    /// Offsets of time, length, text length and dictionary length.
    at: [usize; 4],
    /// Whether there are flags: not in 3.5.
    flags: bool,
}

/// A record's head.
struct Head {
    time: u64,
    /// Of the whole record; 0 at the end of the ring.
    len: u64,
    text: u64,
    priority: u16,
    flags: u8,
}

impl Ring {
    /// Reads `log_buf`, `log_buf_len`, `log_first_idx` and `log_next_idx` from their places; `info` may lack keys.
    ///
    /// # Errors
    /// [`crate::Error::Missing`] if they cannot be read, [`crate::Error::Damaged`] if they make no sense.
    pub fn open<M: Memory>(mem: &M, [buf, len, first, next]: [VirtAddr; 4], info: &Vmcoreinfo) -> Result<Self> {
        let word = |name, va| mem.word(va).map(u64::from).ok_or_else(|| unreadable(name, va));
        let name = if info.size("log").is_some() { "log" } else { "printk_log" };
        let at = [("ts_nsec", 0), ("len", 8), ("text_len", 10), ("dict_len", 12)];
        let ring = Self {
            buf: mem.long(buf).map(VirtAddr).ok_or_else(|| unreadable("log_buf", buf))?,
            len: word("log_buf_len", len)?,
            first: word("log_first_idx", first)?,
            next: word("log_next_idx", next)?,
            header: info.size(name).unwrap_or(16),
            at: at.map(|(field, usual)| info.offset(&format!("{name}.{field}")).unwrap_or(usual) as usize),
            flags: info.get("OSRELEASE").map(release_numbers) != Some((3, 5)),
        };
        let inside = [ring.first, ring.next].iter().all(|i| *i <= ring.len && i % ALIGN == 0);
        if ring.len > MOST_LOG || !inside || !(16..=MOST_HEADER).contains(&ring.header) {
            return Err(lies(format!("{ring:?}")));
        }
        Ok(ring)
    }

    /// Reads it, oldest first.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn read<M: Memory>(&self, mem: &M, sink: &mut Sink<'_>) -> Result<Losses> {
        let mut losses = Losses::default();
        let (mut at, mut wrapped, mut tries) = (self.first, self.next > self.first, MOST_TRIES);
        let mut before = NEWLINE;
        loop {
            let end = if wrapped { self.next } else { self.len };
            if wrapped && at == end {
                break;
            }
            let head = self.head(mem, at, end);
            match head {
                Ok(Head { len: 0, .. }) if !wrapped => (at, wrapped) = (0, true),
                Ok(head) if head.len > 0 => {
                    let mut text = vec![0; head.text as usize];
                    if mem.fill(VirtAddr(self.buf.0.wrapping_add(at + self.header)), &mut text) {
                        let flags = head.flags;
                        sink(record(head_of(&head), text, before))?;
                        before = flags;
                    } else {
                        losses.absent += 1;
                        before = NEWLINE;
                    }
                    at += head.len;
                }
                bad => {
                    before = NEWLINE;
                    let found = self.resume(mem, at, wrapped, &mut tries);
                    losses.broken |= found.is_none();
                    let place = found.unwrap_or((self.next, true));
                    match bad {
                        Err(Bad::Absent) => losses.absent_bytes += self.distance((at, wrapped), place),
                        _ => losses.damaged += 1,
                    }
                    (at, wrapped) = place;
                }
            }
        }
        Ok(losses)
    }

    /// The head at an index, if it is one that leads on within `end`.
    fn head<M: Memory>(&self, mem: &M, at: u64, end: u64) -> Result<Head, Bad> {
        let mut bytes = [0; MOST_HEADER as usize];
        let bytes = bytes.get_mut(..self.header as usize).ok_or(Bad::Damaged)?;
        if at + self.header > end {
            return Err(Bad::Damaged);
        }
        if !mem.fill(VirtAddr(self.buf.0.wrapping_add(at)), bytes) {
            return Err(Bad::Absent);
        }
        let [time, len, text, dict] = self.at;
        let half = |at| u16_at(bytes, at).map(u64::from).ok_or(Bad::Damaged);
        let (len, text, dict) = (half(len)?, half(text)?, half(dict)?);
        // Facility and flags follow dict_len in every version.
        let byte = |n: usize| bytes.get(self.at[3] + n).copied().unwrap_or_default();
        let (priority, flags) = match self.flags {
            true => (u16::from(byte(2)) << 3 | u16::from(byte(3) >> 5), byte(3) & 31),
            false => (u16::from_le_bytes([byte(2), byte(3)]), NEWLINE | PREFIX),
        };
        let used = self.header + text + dict;
        let sound = len == 0 || (len % ALIGN == 0 && len >= used && len - used < MOST_PADDING && at + len <= end);
        let time = u64_at(bytes, time).ok_or(Bad::Damaged)?;
        if sound { Ok(Head { time, len, text, priority, flags }) } else { Err(Bad::Damaged) }
    }

    /// Bytes from one place to another, each an index and whether it is in the second part of the ring.
    fn distance(&self, (from, _): (u64, bool), (to, _): (u64, bool)) -> u64 {
        if to >= from { to - from } else { self.len - from + to }
    }

    /// The next place behind `at` from which records follow each other, and whether it is in the second part of the ring.
    fn resume<M: Memory>(&self, mem: &M, at: u64, wrapped: bool, tries: &mut u64) -> Option<(u64, bool)> {
        let (mut at, mut wrapped) = (at + ALIGN, wrapped);
        while *tries > 0 {
            let end = if wrapped { self.next } else { self.len };
            if at >= end {
                if wrapped {
                    return Some((end, true));
                }
                (at, wrapped) = (0, true);
            } else {
                *tries -= 1;
                if self.proven(mem, at, wrapped) {
                    return Some((at, wrapped));
                }
                at += ALIGN;
            }
        }
        None
    }

    fn proven<M: Memory>(&self, mem: &M, at: u64, wrapped: bool) -> bool {
        let (mut at, end) = (at, if wrapped { self.next } else { self.len });
        for n in 0..PROOF {
            match self.head(mem, at, end) {
                // A length of 0 proves nothing by itself: zeros are everywhere.
                Ok(head) if head.len == 0 => return n > 0 && !wrapped,
                Ok(head) => at += head.len,
                Err(_) => return false,
            }
            if wrapped && at == end {
                return true;
            }
        }
        true
    }
}

/// Why there is no head.
enum Bad {
    Absent,
    Damaged,
}

/// Time, priority and flags.
fn head_of(head: &Head) -> (u64, u16, u8) {
    (head.time, head.priority, head.flags)
}

/// A record after one with the flags `before`, by the kernel's own rules (3.6 to 4.8: msg_print_text; newer kernels join
/// lines before they store them, and set flags to which the rules do no harm).
fn record((time, priority, flags): (u64, u16, u8), text: Vec<u8>, before: u8) -> Record {
    let open = before & CONT != 0 && before & NEWLINE == 0;
    let joins = open && (flags & PREFIX == 0 || flags & CONT != 0);
    Record { time: Some(time), priority: Some(priority), text, joins, open: flags & CONT != 0 && flags & NEWLINE == 0 }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ram, all, texts};
    use super::super::{Log, Losses};
    use super::*;

    const VARIABLES: u64 = 0x1000;
    const BUF: u64 = 0x2000;
    const LINE: u8 = NEWLINE | PREFIX;

    /// A ring of 512 bytes that writes as the kernel does (log_store).
    #[derive(Default)]
    struct Writer {
        ram: Ram,
        first: u64,
        next: u64,
        count: usize,
        header: u64,
    }

    impl Writer {
        fn new() -> Self {
            let mut ram = Ram::default();
            ram.put(BUF, &[0; 512]);
            Self { ram, header: 16, ..Self::default() }
        }

        fn half(&self, at: u64) -> u64 {
            let mut two = [0; 2];
            assert!(self.ram.fill(VirtAddr(BUF + at), &mut two));
            u64::from(u16::from_le_bytes(two))
        }

        fn push(&mut self, text: &str, flags: u8) {
            let dict = "SUBSYSTEM=pci";
            let len = (self.header + (text.len() + dict.len()) as u64).next_multiple_of(ALIGN);
            let space = |w: &Self| {
                if w.next > w.first || w.count == 0 { (512 - w.next).max(w.first) } else { w.first - w.next }
            };
            while space(self) < len + self.header {
                let old = self.half(self.first + 8);
                self.first += old;
                if self.half(self.first + 8) == 0 {
                    self.first = 0;
                }
                self.count -= 1;
            }
            if self.next + len + self.header > 512 {
                self.ram.put(BUF + self.next, &vec![0; self.header as usize]);
                self.next = 0;
            }
            let mut head = 2_000_000_000_u64.to_le_bytes().to_vec();
            [len as usize, text.len(), dict.len()].iter().for_each(|n| head.extend((*n as u16).to_le_bytes()));
            head.extend([1, 5 << 5 | flags]);
            head.resize(self.header as usize, 0x77);
            self.ram.put(BUF + self.next, &[&head, text.as_bytes(), dict.as_bytes()].concat());
            self.next += len;
            self.count += 1;
        }

        fn done(mut self) -> Ram {
            self.ram.put(VARIABLES, &BUF.to_le_bytes());
            let words = [512, self.first as u32, self.next as u32];
            self.ram.put(VARIABLES + 8, &words.map(u32::to_le_bytes).concat());
            self.ram
        }
    }

    fn open_as(ram: &Ram, info: &str) -> Result<Log> {
        let variables = [0, 8, 12, 16].map(|o| VirtAddr(VARIABLES + o));
        Ring::open(ram, variables, &Vmcoreinfo::parse(info.as_bytes())).map(Log::Records)
    }

    fn lines(ram: &Ram) -> (Vec<String>, Losses) {
        let (records, losses) = all(&open_as(ram, "").unwrap(), ram);
        (texts(&records), losses)
    }

    #[test]
    fn a_few_records() {
        let mut w = Writer::new();
        ["one", "", "three\nlines"].iter().for_each(|t| w.push(t, LINE));
        let ram = w.done();
        let (records, losses) = all(&open_as(&ram, "OSRELEASE=3.10.0\nSIZE(log)=16\nOFFSET(log.len)=8").unwrap(), &ram);
        assert_eq!(texts(&records), ["one", "", "three\nlines"]);
        assert_eq!((records[0].time, records[0].priority), (Some(2_000_000_000), Some(1 << 3 | 5)));
        assert_eq!(losses, Losses::default());
        // 3.5 has the same bytes for a level alone.
        let (records, _) = all(&open_as(&ram, "OSRELEASE=3.5.7").unwrap(), &ram);
        assert_eq!(records[0].priority, Some(u16::from(5_u8 << 5 | LINE) << 8 | 1));
    }

    #[test]
    fn a_header_with_the_caller() {
        let mut w = Writer { header: 24, ..Writer::new() };
        (0..30).for_each(|n| w.push(&format!("line {n}"), LINE));
        let kept = w.count;
        let ram = w.done();
        let (records, losses) = all(&open_as(&ram, "SIZE(printk_log)=24").unwrap(), &ram);
        let expected: Vec<String> = (30 - kept..30).map(|n| format!("line {n}")).collect();
        assert_eq!((texts(&records), losses), (expected, Losses::default()));
    }

    /// What kernels 3.6 to 4.8 print of such flags.
    #[test]
    fn parts_of_lines_join() {
        let mut w = Writer::new();
        for (text, flags) in [("a", CONT | PREFIX), ("b", CONT), ("c", CONT | NEWLINE), ("d", LINE), ("e", LINE)] {
            w.push(text, flags);
        }
        let ram = w.done();
        let (records, _) = all(&open_as(&ram, "").unwrap(), &ram);
        let shape: Vec<(bool, bool)> = records.iter().map(|r| (r.joins, r.open)).collect();
        assert_eq!(shape, [(false, true), (true, true), (true, false), (false, false), (false, false)]);
    }

    #[test]
    fn the_ring_wraps() {
        for width in 1..60 {
            let mut w = Writer::new();
            let all: Vec<String> = (0..50).map(|n| format!("{n:0w$}", w = width + n % 3)).collect();
            all.iter().for_each(|t| w.push(t, LINE));
            let kept = w.count;
            assert_eq!(lines(&w.done()), (all[50 - kept..].to_vec(), Losses::default()), "{width}");
        }
    }

    #[test]
    fn behind_a_damaged_record_the_next_is_found() {
        let mut w = Writer::new();
        let all: Vec<String> = (0..8).map(|n| format!("{n:020}")).collect();
        all.iter().for_each(|t| w.push(t, LINE));
        let ram = w.done();
        let mut bad = ram.clone();
        bad.put(BUF + 52 * 2 + 8, &[0xff; 2]);
        let expected = [&all[..2], &all[3..]].concat();
        assert_eq!(lines(&bad), (expected, Losses { damaged: 1, ..Losses::default() }));
        // Bytes 128 to 191 go: the end of the third record's text and the head of the fourth.
        let mut gone = ram.clone();
        gone.drop_page(BUF + 128);
        let (kept, losses) = lines(&gone);
        assert_eq!(kept, [&all[..2], &all[4..]].concat());
        // The third record has a head but no text; the fourth is 52 bytes from the next.
        assert_eq!(losses, Losses { absent: 1, absent_bytes: 52, ..Losses::default() });
    }

    /// Zeros look like the end of the ring's first part, but prove nothing.
    #[test]
    fn zeros_behind_a_damaged_record_are_no_end() {
        let mut w = Writer::new();
        (0..9).for_each(|n| w.push(&format!("{n:035}"), LINE));
        let (first, kept) = (w.first, w.count);
        assert!(w.next < first);
        let mut ram = w.done();
        let whole = lines(&ram).0;
        assert_eq!(whole.len(), kept);
        ram.put(BUF + first + 8, &[0xff; 2]);
        ram.put(BUF + first + 12, &[0; 40]);
        assert_eq!(lines(&ram), (whole[1..].to_vec(), Losses { damaged: 1, ..Losses::default() }));
    }

    #[test]
    fn lying_variables_are_refused() {
        let mut w = Writer::new();
        w.push("x", LINE);
        let ram = w.done();
        for (at, value) in [(8, 0x8000_0004_u32), (12, 600), (16, 600), (12, 3)] {
            let mut bad = ram.clone();
            bad.put(VARIABLES + at, &value.to_le_bytes());
            assert!(open_as(&bad, "").is_err(), "{at} {value:#x}");
        }
        assert!(open_as(&ram, "SIZE(printk_log)=8").is_err() && open_as(&ram, "SIZE(printk_log)=99999").is_err());
    }

    /// Whatever byte is wrong, reading ends, and gives no more than the ring can hold.
    #[test]
    fn any_byte_may_be_wrong() {
        let mut w = Writer::new();
        (0..20).for_each(|n| w.push(&"abcdefghij".repeat(n % 4), LINE));
        let ram = w.done();
        let mut read = 0;
        for bad in ram.flips(0..BUF + 512) {
            if let Ok(log) = open_as(&bad, "") {
                let (records, _) = all(&log, &bad);
                assert!(records.len() <= 32 && records.iter().all(|r| r.text.len() <= 496));
                read += 1;
            }
        }
        assert!(read > 1000);
    }
}
