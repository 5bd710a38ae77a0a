//! The ring without locks: Linux 5.10 and later (kernel/printk/printk_ringbuffer.h, commit b6cf8b3f3312).
//!
//! Descriptors are numbered by ids that wrap at 62 bits and live at id modulo their count, a power of two. Each has a
//! state in the top two bits of its `state_var`, its id below, and two logical positions in the text ring, begin and
//! next, that wrap with the word. A block begins with the id of its descriptor, 8 bytes, then the text; one that would
//! run over the ring's end stands at its start. Positions with bit 0 set have no block: 3 is an empty line, 1 one that
//! found no room. `printk_info` (time, length, facility, level) has an array of its own.

use super::{Losses, MOST_LOG, Memory, Record, Sink, lies, unreadable};
use crate::bytes::{u16_at, u64_at};
use crate::error::Result;
use crate::units::VirtAddr;
use crate::vmcoreinfo::Vmcoreinfo;

/// Bits of an id; those above are the state.
const ID: u64 = !(3 << 62);
/// States (printk_ringbuffer.h: enum desc_state).
const COMMITTED: u64 = 1;
const FINALIZED: u64 = 2;
const REUSABLE: u64 = 3;
/// A position of a line without text.
const EMPTY_LINE: u64 = 3;
/// Bytes before a block's text.
const BLOCK_HEAD: u64 = 8;
/// log2 of the bytes of text that each descriptor stands for (PRB_AVGBITS); so bounds their count.
const AVERAGE: u32 = 5;
/// Sizes of structures, far above those of any kernel.
const MOST_STRUCT: u64 = 4096;

/// The ring's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    layout: Layout,
    /// Number of descriptors.
    count: u64,
    descs: VirtAddr,
    infos: VirtAddr,
    head: u64,
    tail: u64,
    data: VirtAddr,
    /// Bytes of text ring.
    size: u64,
}

/// Sizes and offsets in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layout {
    desc: u64,
    state: usize,
    begin: usize,
    next: usize,
    info: u64,
    time: usize,
    text_len: usize,
}

impl Ring {
    /// Reads the head that `prb` points to; `info` may lack keys.
    ///
    /// # Errors
    /// [`crate::Error::Missing`] if it cannot be read, [`crate::Error::Damaged`] if it makes no sense.
    pub fn open<M: Memory>(mem: &M, prb: VirtAddr, info: &Vmcoreinfo) -> Result<Self> {
        let offset = |name: &str, usual: u64| info.offset(name).filter(|o| *o < MOST_STRUCT).unwrap_or(usual);
        let counter = offset("atomic_long_t.counter", 0);
        let block = offset("prb_desc.text_blk_lpos", 8);
        let layout = Layout {
            desc: info.size("prb_desc").unwrap_or(24),
            state: (offset("prb_desc.state_var", 0) + counter) as usize,
            begin: (block + offset("prb_data_blk_lpos.begin", 0)) as usize,
            next: (block + offset("prb_data_blk_lpos.next", 8)) as usize,
            info: info.size("printk_info").unwrap_or(88),
            time: offset("printk_info.ts_nsec", 8) as usize,
            text_len: offset("printk_info.text_len", 16) as usize,
        };
        if layout.desc > MOST_STRUCT || layout.info > MOST_STRUCT || layout.desc == 0 || layout.info == 0 {
            return Err(lies(format!("SIZE(prb_desc) {} and SIZE(printk_info) {}", layout.desc, layout.info)));
        }
        let head = mem.long(prb).map(VirtAddr).ok_or_else(|| unreadable("prb", prb))?;
        let descs = offset("printk_ringbuffer.desc_ring", 0);
        let texts = offset("printk_ringbuffer.text_data_ring", 48);
        let at = |base: u64, into: u64| VirtAddr(head.0.wrapping_add(base).wrapping_add(into));
        let word = |va: VirtAddr| mem.word(va).ok_or_else(|| unreadable("struct printk_ringbuffer", va));
        let long = |va: VirtAddr| mem.long(va).ok_or_else(|| unreadable("struct printk_ringbuffer", va));
        let count_bits = word(at(descs, offset("prb_desc_ring.count_bits", 0)))?;
        let size_bits = word(at(texts, offset("prb_data_ring.size_bits", 0)))?;
        let most = MOST_LOG.trailing_zeros();
        if count_bits > most - AVERAGE || !(AVERAGE..=most).contains(&size_bits) {
            return Err(lies(format!("at {head}: 2^{count_bits} descriptors, 2^{size_bits} bytes of text")));
        }
        let ring = Self {
            layout,
            count: 1 << count_bits,
            descs: VirtAddr(long(at(descs, offset("prb_desc_ring.descs", 8)))?),
            infos: VirtAddr(long(at(descs, offset("prb_desc_ring.infos", 16)))?),
            head: long(at(descs, offset("prb_desc_ring.head_id", 24) + counter))? & ID,
            tail: long(at(descs, offset("prb_desc_ring.tail_id", 32) + counter))? & ID,
            data: VirtAddr(long(at(texts, offset("prb_data_ring.data", 8)))?),
            size: 1 << size_bits,
        };
        if ring.records() > ring.count {
            let (tail, head, count) = (ring.tail, ring.head, ring.count);
            return Err(lies(format!("ids {tail:#x} to {head:#x} in a ring of {count}")));
        }
        Ok(ring)
    }

    /// Records from the oldest to the newest, both included.
    fn records(&self) -> u64 {
        (self.head.wrapping_sub(self.tail) & ID) + 1
    }

    /// Reads it, oldest first.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn read<M: Memory>(&self, mem: &M, sink: &mut Sink<'_>) -> Result<Losses> {
        let mut losses = Losses::default();
        let mut desc = vec![0; self.layout.desc as usize];
        let mut info = vec![0; self.layout.info as usize];
        for n in 0..self.records() {
            let id = self.tail.wrapping_add(n) & ID;
            let at = id & (self.count - 1);
            let place = |base: VirtAddr, size: u64| VirtAddr(base.0.wrapping_add(at.wrapping_mul(size)));
            if !mem.fill(place(self.descs, self.layout.desc), &mut desc) {
                losses.absent += 1;
                continue;
            }
            let state = u64_at(&desc, self.layout.state).unwrap_or_default();
            match state >> 62 {
                // The first descriptor of a ring that was never used has this state too.
                REUSABLE => continue,
                _ if state & ID != id => {
                    losses.damaged += 1;
                    continue;
                }
                COMMITTED | FINALIZED => {}
                _ => {
                    losses.unfinished += 1;
                    continue;
                }
            }
            if !mem.fill(place(self.infos, self.layout.info), &mut info) {
                losses.absent += 1;
                continue;
            }
            let lpos = |at| u64_at(&desc, at).unwrap_or_default();
            match self.text(mem, id, [lpos(self.layout.begin), lpos(self.layout.next)], &info) {
                Text::Is(text) => sink(self.record(&info, text))?,
                Text::Absent => losses.absent += 1,
                Text::Damaged => losses.damaged += 1,
                Text::Dropped => losses.dropped += 1,
            }
        }
        Ok(losses)
    }

    fn record(&self, info: &[u8], text: Vec<u8>) -> Record {
        // Facility, then flags in the low five bits and the level above, follow text_len in every version.
        let byte = |n: usize| info.get(self.layout.text_len + n).map_or(0, |b| u16::from(*b));
        let priority = Some(byte(2) << 3 | byte(3) >> 5);
        Record { time: u64_at(info, self.layout.time), priority, text, ..Record::default() }
    }

    /// The text of a block between two logical positions.
    fn text<M: Memory>(&self, mem: &M, id: u64, [begin, next]: [u64; 2], info: &[u8]) -> Text {
        let Some(len) = u16_at(info, self.layout.text_len) else { return Text::Damaged };
        if begin & 1 == 1 && next & 1 == 1 {
            return if begin == EMPTY_LINE && next == EMPTY_LINE { Text::Is(Vec::new()) } else { Text::Dropped };
        }
        let mask = self.size - 1;
        let wraps = (next >> self.size.trailing_zeros()).wrapping_sub(begin >> self.size.trailing_zeros());
        let wraps = wraps & u64::MAX >> self.size.trailing_zeros();
        let (at, room) = match wraps {
            0 if begin < next => (begin & mask, next - begin),
            // It fills the ring to its end (newer kernels), or stands at its start.
            1 if next & mask == 0 => (begin & mask, self.size - (begin & mask)),
            1 => (0, next & mask),
            _ => return Text::Damaged,
        };
        if at % 8 != 0 || room < BLOCK_HEAD || u64::from(len) > room - BLOCK_HEAD {
            return Text::Damaged;
        }
        let block = VirtAddr(self.data.0.wrapping_add(at));
        match mem.long(block) {
            None => return Text::Absent,
            Some(owner) if owner & ID != id => return Text::Damaged,
            Some(_) => {}
        }
        let mut text = vec![0; usize::from(len)];
        let read = mem.fill(VirtAddr(block.0.wrapping_add(BLOCK_HEAD)), &mut text);
        if read { Text::Is(text) } else { Text::Absent }
    }
}

/// What became of a text.
enum Text {
    Is(Vec<u8>),
    Absent,
    Damaged,
    Dropped,
}

#[cfg(test)]
mod tests {
    use super::super::Log;
    use super::super::testing::{Ram, all, texts};
    use super::*;

    const PRB: u64 = 0x1000;
    const HEAD: u64 = 0x2000;
    const DESCS: u64 = 0x3000;
    const INFOS: u64 = 0x4000;
    const DATA: u64 = 0x8000;

    /// A ring of 8 descriptors and 256 bytes that writes as the kernel does (data_alloc, prb_reserve).
    struct Writer {
        ram: Ram,
        next_id: u64,
        lpos: u64,
        live: Vec<(u64, u64)>,
    }

    impl Writer {
        fn new(first_id: u64, lpos: u64) -> Self {
            Self { ram: Ram::default(), next_id: first_id & ID, lpos, live: Vec::new() }
        }

        fn desc(&mut self, id: u64, state: u64, begin: u64, next: u64) {
            let words = [state << 62 | id, begin, next];
            self.ram.put(DESCS + id % 8 * 24, &words.map(u64::to_le_bytes).concat());
        }

        fn push(&mut self, text: &str) -> u64 {
            let id = self.next_id;
            self.next_id = (id + 1) & ID;
            let size = (8 + text.len() as u64).next_multiple_of(8);
            let (mut begin, mut next) = (self.lpos, self.lpos.wrapping_add(size));
            let mut at = begin % 256;
            if text.is_empty() {
                (begin, next) = (3, 3);
            } else {
                if begin >> 8 != next >> 8 {
                    next = (next >> 8 << 8) + size;
                    at = 0;
                }
                self.ram.put(DATA + at, &id.to_le_bytes());
                self.ram.put(DATA + at + 8, text.as_bytes());
                self.lpos = next;
            }
            self.desc(id, FINALIZED, begin, next);
            let mut info = [0; 88];
            info[0..8].copy_from_slice(&(id & 0xffff).to_le_bytes());
            info[8..16].copy_from_slice(&1_500_000_000_u64.to_le_bytes());
            info[16..18].copy_from_slice(&(text.len() as u16).to_le_bytes());
            (info[18], info[19]) = (3, 6 << 5 | 2);
            self.ram.put(INFOS + id % 8 * 88, &info);
            self.live.push((id, begin));
            // Old blocks whose bytes were taken, and old descriptors, are gone.
            let floor = self.lpos.wrapping_sub(256);
            self.live.retain(|(old, b)| id.wrapping_sub(*old) & ID < 8 && (*b == 3 || b.wrapping_sub(floor) < 256));
            id
        }

        fn done(mut self) -> Ram {
            let tail = self.live.first().map_or(0, |l| l.0);
            self.ram.put(PRB, &HEAD.to_le_bytes());
            let head = self.next_id.wrapping_sub(1) & ID;
            let words = [3, DESCS, INFOS, head, tail, 0, 8, DATA, self.lpos, 0, 0];
            self.ram.put(HEAD, &words.map(u64::to_le_bytes).concat());
            self.ram
        }
    }

    fn open(ram: &Ram) -> Result<Log> {
        Ring::open(ram, VirtAddr(PRB), &Vmcoreinfo::default()).map(Log::Lockless)
    }

    fn lines(ram: &Ram) -> (Vec<String>, Losses) {
        let (records, losses) = all(&open(ram).unwrap(), ram);
        (texts(&records), losses)
    }

    #[test]
    fn a_few_records() {
        let mut w = Writer::new(0, 0);
        ["one", "", "three\nlines\nof it"].iter().for_each(|t| _ = w.push(t));
        let ram = w.done();
        let (records, losses) = all(&open(&ram).unwrap(), &ram);
        assert_eq!(texts(&records), ["one", "", "three\nlines\nof it"]);
        assert_eq!((records[0].time, records[0].priority), (Some(1_500_000_000), Some(3 << 3 | 6)));
        assert_eq!(losses, Losses::default());
    }

    /// Ids wrap at 62 bits, positions at 64, and blocks at the end of the ring.
    #[test]
    fn everything_wraps() {
        for (first, lpos) in [(0, 0), (ID - 10, 0), (5, u64::MAX - 0x3ff), (ID - 3, u64::MAX - 0xff)] {
            let mut w = Writer::new(first, lpos);
            let all: Vec<String> = (0..40).map(|n| format!("{n:0width$}", width = 1 + n * 7 % 50)).collect();
            all.iter().for_each(|t| _ = w.push(t));
            let kept = w.live.len();
            assert!((2..=8).contains(&kept));
            assert_eq!(lines(&w.done()), (all[40 - kept..].to_vec(), Losses::default()), "{first:#x} {lpos:#x}");
        }
    }

    /// Newer kernels let a block end where the ring does.
    #[test]
    fn a_block_may_fill_the_ring_to_its_end() {
        let mut w = Writer::new(0, 256 - 16);
        let id = w.push("12345678");
        w.ram.put(DATA + 240, &[&id.to_le_bytes()[..], b"12345678"].concat());
        w.desc(id, FINALIZED, 240, 256);
        assert_eq!(lines(&w.done()).0, ["12345678"]);
    }

    #[test]
    fn states_tell_what_is_whole() {
        let mut w = Writer::new(0, 0);
        let ids = ["committed", "reserved", "reusable", "dropped", "another's"].map(|t| w.push(t));
        for (id, state) in [(ids[0], COMMITTED), (ids[1], 0), (ids[2], REUSABLE)] {
            let begin = w.live[id as usize].1;
            w.desc(id, state, begin, begin + 24);
        }
        w.desc(ids[3], FINALIZED, 1, 1);
        w.ram.put(DESCS + ids[4] * 24, &(FINALIZED << 62 | 99).to_le_bytes());
        let losses = Losses { unfinished: 1, dropped: 1, damaged: 1, ..Losses::default() };
        assert_eq!(lines(&w.done()), (vec!["committed".to_string()], losses));
    }

    #[test]
    fn a_block_knows_whose_it_is_and_has_room_for_its_text() {
        let mut w = Writer::new(0, 0);
        ["mine", "another's", "too long"].iter().for_each(|t| _ = w.push(t));
        w.ram.put(DATA + 16, &77_u64.to_le_bytes());
        w.ram.put(INFOS + 2 * 88 + 16, &9_u16.to_le_bytes());
        assert_eq!(lines(&w.done()), (vec!["mine".to_string()], Losses { damaged: 2, ..Losses::default() }));
    }

    #[test]
    fn missing_pages_cost_their_records_only() {
        let mut w = Writer::new(0, 0);
        let all: Vec<String> = (0..6).map(|n| format!("{n:024}")).collect();
        all.iter().for_each(|t| _ = w.push(t));
        let ram = w.done();
        let mut text = ram.clone();
        text.drop_page(DATA + 64);
        assert_eq!(lines(&text), ([&all[..2], &all[4..]].concat(), Losses { absent: 2, ..Losses::default() }));
        let mut descs = ram.clone();
        descs.drop_page(DESCS);
        assert_eq!(lines(&descs), (all[3..].to_vec(), Losses { absent: 3, ..Losses::default() }));
        let mut head = ram.clone();
        head.drop_page(HEAD);
        assert!(open(&head).is_err());
    }

    #[test]
    fn lying_sizes_are_refused() {
        let mut w = Writer::new(0, 0);
        w.push("x");
        let ram = w.done();
        for (at, value) in [(0, 27_u64), (0, 0xffff_ffff), (48, 32), (48, 4), (24, 1 << 40)] {
            let mut bad = ram.clone();
            bad.put(HEAD + at, &value.to_le_bytes());
            assert!(open(&bad).is_err(), "{at} {value:#x}");
        }
    }

    /// Whatever byte is wrong, reading ends, and gives no more than the ring can hold.
    #[test]
    fn any_byte_may_be_wrong() {
        let mut w = Writer::new(ID - 4, 0);
        (0..12).for_each(|n| _ = w.push(&"abcdefghij".repeat(n % 3)));
        let ram = w.done();
        let mut read = 0;
        for bad in ram.flips(0..DATA + 256) {
            if let Ok(log) = open(&bad) {
                let (records, _) = all(&log, &bad);
                assert!(records.len() <= 8 && records.iter().all(|r| r.text.len() <= 248));
                read += 1;
            }
        }
        assert!(read > 1000);
    }
}
