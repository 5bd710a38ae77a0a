//! What dom0's kernel and Xen had to say: the three rings of Linux (kernel/printk.c, kernel/printk/printk_ringbuffer.c) and
//! Xen's (drivers/char/console.c), each as small as can be, and filled as the original fills it.

use super::build::World;
use super::kallsyms::Symbol;
use super::kernel::KernelImage;
use super::{Kernel, Machine};
use std::collections::VecDeque;
use std::fmt::Write;

/// Which ring dom0's kernel has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogRing {
    /// By the kernel: descriptors and text apart since 5.10, records before.
    OfKernel,
    /// Text alone, as before 3.5; no kernel here is as old.
    Bytes,
}

/// Bytes of each ring, and descriptors of the newest one.
pub const SIZE: usize = 4096;
const DESCS: u64 = 64;

/// From the image's first byte; nothing else is there.
const VARIABLES: u64 = 0x30000;
const RINGBUFFER: u64 = 0x30100;
const DESC_ARRAY: u64 = 0x31000;
const INFO_ARRAY: u64 = 0x32000;
const DATA: u64 = 0x33800;

/// The page of the image that `log_absent` takes away: from half of the text on.
pub const ABSENT: u64 = 0x34;

/// The time of the n-th line in nanoseconds, and its facility and level.
pub fn time(n: usize) -> u64 {
    n as u64 * 1_002_003_004
}

pub const FACILITY: u8 = 3;
pub const LEVEL: u8 = 5;

fn lockless(o: &Machine) -> bool {
    o.kernel >= Kernel::V5_10 && o.log_ring == LogRing::OfKernel
}

/// Variables and where they are.
fn variables(o: &Machine) -> &'static [(&'static str, u64)] {
    match o.log_ring {
        _ if o.log.is_empty() => &[],
        LogRing::OfKernel if lockless(o) => &[("prb", 0)],
        LogRing::OfKernel => &[("log_buf", 8), ("log_buf_len", 16), ("log_first_idx", 20), ("log_next_idx", 24)],
        LogRing::Bytes => &[("log_buf", 8), ("log_buf_len", 16), ("log_end", 28), ("logged_chars", 32)],
    }
}

/// VMCOREINFO's lines (log_buf_vmcoreinfo_setup).
pub fn keys(o: &Machine, base: u64) -> String {
    let mut t = String::new();
    for (name, at) in variables(o) {
        writeln!(t, "SYMBOL({name})={:x}", base + VARIABLES + at).unwrap();
    }
    if !o.log.is_empty() && lockless(o) {
        t += "SIZE(printk_ringbuffer)=88\nOFFSET(printk_ringbuffer.desc_ring)=0\n\
              OFFSET(printk_ringbuffer.text_data_ring)=48\nOFFSET(prb_desc_ring.count_bits)=0\n\
              OFFSET(prb_desc_ring.descs)=8\nOFFSET(prb_desc_ring.infos)=16\nOFFSET(prb_desc_ring.head_id)=24\n\
              OFFSET(prb_desc_ring.tail_id)=32\nSIZE(prb_desc)=24\nOFFSET(prb_desc.state_var)=0\n\
              OFFSET(prb_desc.text_blk_lpos)=8\nOFFSET(prb_data_blk_lpos.begin)=0\nOFFSET(prb_data_blk_lpos.next)=8\n\
              SIZE(printk_info)=88\nOFFSET(printk_info.ts_nsec)=8\nOFFSET(printk_info.text_len)=16\n\
              OFFSET(prb_data_ring.size_bits)=0\nOFFSET(prb_data_ring.data)=8\nOFFSET(atomic_long_t.counter)=0\n";
    } else if !o.log.is_empty() && o.log_ring == LogRing::OfKernel {
        let name = if o.kernel == Kernel::V3_10 { "log" } else { "printk_log" };
        writeln!(t, "SIZE({name})=16").unwrap();
        for (field, at) in [("ts_nsec", 0), ("len", 8), ("text_len", 10), ("dict_len", 12)] {
            writeln!(t, "OFFSET({name}.{field})={at}").unwrap();
        }
    }
    t
}

/// Writes the ring, and returns what it still has: lines with their number.
pub fn fill(o: &Machine, image: &mut KernelImage) -> Vec<(usize, String)> {
    for (name, at) in variables(o) {
        image.symbols.push(Symbol::new(image.base + VARIABLES + at, 'b', name));
    }
    match o.log_ring {
        _ if o.log.is_empty() => Vec::new(),
        LogRing::OfKernel if lockless(o) => fill_lockless(o, image),
        LogRing::OfKernel => fill_records(o, image),
        LogRing::Bytes => fill_bytes(o, image),
    }
}

fn words(image: &mut KernelImage, at: u64, words: &[u64]) {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    image.put(image.base + at, &bytes);
}

/// Ids and positions begin a little below the point where they wrap, as the kernel itself has it (DESC0_ID, BLK0_LPOS).
fn fill_lockless(o: &Machine, image: &mut KernelImage) -> Vec<(usize, String)> {
    let top = (1_u64 << 62) - 1;
    let first = (0_u64.wrapping_sub(DESCS + 1)) & top;
    let size = SIZE as u64;
    let mut head = 0_u64.wrapping_sub(size);
    let mut live: VecDeque<(u64, u64, usize)> = VecDeque::new();
    for (n, line) in o.log.iter().enumerate() {
        let id = first.wrapping_add(n as u64 + 1) & top;
        let need = (8 + line.len() as u64).div_ceil(8) * 8;
        let fits = head / size == head.wrapping_add(need) / size;
        let (begin, next) = (
            head,
            if fits { head.wrapping_add(need) } else { (head / size + 1).wrapping_mul(size).wrapping_add(need) },
        );
        let at = if fits { begin % size } else { 0 };
        head = next;
        while live.len() as u64 >= DESCS || live.front().is_some_and(|l| head.wrapping_sub(l.1) > size) {
            live.pop_front();
        }
        live.push_back((id, begin, n));
        words(image, DATA + at, &[id]);
        image.put(image.base + DATA + at + 8, line.as_bytes());
        words(image, DESC_ARRAY + id % DESCS * 24, &[2 << 62 | id, begin, next]);
        let packed = line.len() as u64 | u64::from(FACILITY) << 16 | u64::from(LEVEL) << 29;
        words(image, INFO_ARRAY + id % DESCS * 88, &[n as u64, time(n), packed]);
    }
    let (tail, last) = (live[0].0, live[live.len() - 1].0);
    let va = |at: u64| image.base + at;
    let ring = [6, va(DESC_ARRAY), va(INFO_ARRAY), last, tail, 0, 12, va(DATA), head, live[0].1];
    words(image, VARIABLES, &[va(RINGBUFFER)]);
    words(image, RINGBUFFER, &ring);
    live.iter().map(|l| (l.2, o.log[l.2].clone())).collect()
}

fn fill_records(o: &Machine, image: &mut KernelImage) -> Vec<(usize, String)> {
    let mut ring = vec![0; SIZE];
    let mut live: VecDeque<(usize, usize, usize)> = VecDeque::new();
    let mut next = 0;
    for (n, line) in o.log.iter().enumerate() {
        let dict = if n % 3 == 0 { "SUBSYSTEM=acpi" } else { "" };
        let used = 16 + line.len() + dict.len();
        let len = used.div_ceil(4) * 4;
        if next + len + 16 > SIZE {
            live.retain(|l| l.0 < next);
            ring[next..(next + 16).min(SIZE)].fill(0);
            next = 0;
        }
        live.retain(|l| l.0 >= next + len + 16 || l.0 + l.1 <= next);
        ring[next..next + 8].copy_from_slice(&time(n).to_le_bytes());
        for (i, half) in [len, line.len(), dict.len()].into_iter().enumerate() {
            ring[next + 8 + 2 * i..next + 10 + 2 * i].copy_from_slice(&(half as u16).to_le_bytes());
        }
        // LOG_NEWLINE and LOG_PREFIX.
        (ring[next + 14], ring[next + 15]) = (FACILITY, LEVEL << 5 | 6);
        ring[next + 16..next + used].copy_from_slice(&[line.as_bytes(), dict.as_bytes()].concat());
        live.push_back((next, len, n));
        next += len;
    }
    image.put(image.base + DATA, &ring);
    let half = |low: usize, high: usize| low as u64 | (high as u64) << 32;
    words(image, VARIABLES + 8, &[image.base + DATA, half(SIZE, live[0].0), next as u64]);
    live.iter().map(|l| (l.2, o.log[l.2].clone())).collect()
}

fn fill_bytes(o: &Machine, image: &mut KernelImage) -> Vec<(usize, String)> {
    let line = |(n, line): (usize, &String)| {
        let (s, us) = (time(n) / 1_000_000_000, time(n) % 1_000_000_000 / 1000);
        format!("<{}>[{s:5}.{us:06}] {line}\n", FACILITY << 3 | LEVEL)
    };
    let text: Vec<String> = o.log.iter().enumerate().map(line).collect();
    let all = text.concat();
    let mut ring = vec![0; SIZE];
    all.bytes().enumerate().for_each(|(i, byte)| ring[i % SIZE] = byte);
    image.put(image.base + DATA, &ring);
    let end = all.len() as u64;
    words(image, VARIABLES + 8, &[image.base + DATA, SIZE as u64, end << 32 | end]);
    // Whole lines only.
    let mut left = SIZE;
    let mut kept: Vec<(usize, String)> = Vec::new();
    for (n, line) in text.iter().enumerate().rev() {
        let Some(rest) = left.checked_sub(line.len()) else { break };
        left = rest;
        kept.insert(0, (n, o.log[n].clone()));
    }
    kept
}

/// Pages of Xen's ring.
pub const XEN_PAGES: u64 = 4;
/// Its variables, from the image's first byte: size and pointer here, the counters there.
const CONRING: u64 = 0x30d60;
const COUNTERS: u64 = 0x389d0;

/// Writes Xen's ring into its heap.
pub fn fill_xen(w: &mut World) {
    let Some(text) = w.o.conring.clone() else { return };
    let mut taken: Vec<u64> = Vec::new();
    let run = loop {
        taken.push(w.heap_page());
        taken.sort_unstable();
        let run = taken.windows(XEN_PAGES as usize).find(|r| r[0] + XEN_PAGES - 1 == r[XEN_PAGES as usize - 1]);
        if let Some(run) = run {
            break run[0];
        }
    };
    let size = XEN_PAGES * 4096;
    for (i, byte) in text.bytes().enumerate() {
        w.mem.write((run << 12) + i as u64 % size, &[byte]);
    }
    let p = text.len() as u64;
    // Cleared at the end: xl dmesg -c.
    let c = if w.o.conring_cleared { p } else { p.saturating_sub(size) };
    w.mem.w64(w.image_ma(CONRING), size);
    let va = w.directmap(run);
    w.mem.w64(w.image_ma(CONRING + 8), va);
    if !w.o.conring_uncounted {
        w.mem.w64(w.image_ma(COUNTERS), c << 32 | p);
    }
    if w.o.log_absent {
        w.dropped.insert(run + 1);
    }
    w.t.conring = (0..XEN_PAGES).map(|i| run + i).collect();
}
