//! Xen's console ring: what `xl dmesg` would have said (Xen: drivers/char/console.c; held against 4.14, 4.17 and 4.20).
//!
//! `conring` points to `conring_size` bytes, a power of two, and `conringp` counts the bytes ever written modulo 2^32, so
//! the newest ends at its remainder; `conringc` is where reading begins: behind what `xl dmesg -c` cleared, never more than
//! the size before `conringp`. The ring is first an array of Xen's image, then memory of Xen's heap.
//!
//! VMCOREINFO_XEN tells nothing of it, so it is found by shape: a pointer in Xen's image with a power of two near it, to
//! memory with lines that begin with `(XEN) `; and two counters side by side that fit the text: the byte before the end is a
//! newline, no line of Xen's stands behind it, and what is between them has no zero. Where no counters fit, the text
//! itself tells the end: zeros, or in a full ring the one line that lost its beginning.

use super::XenSyms;
use super::host::Host;
use super::paging::AddressSpace;
use crate::bytes::{u32_at, words};
use crate::error::{Error, Result};
use crate::units::{PAGE_BYTES, PAGE_SIZE, VirtAddr};
use memchr::memmem;
use std::collections::BTreeMap;

/// What Xen's own lines begin with.
const PREFIX: &[u8] = b"(XEN) ";
/// Sizes of rings that are believed (Xen's default is 16 KiB or more; the boot option `conring_size` takes any).
const SIZES: std::ops::RangeInclusive<u32> = 4096..=1 << 24;
/// Bytes before and behind the pointer in which its size is looked for.
const NEAR: usize = 64;
/// Xen's image lies in one GiB.
const IMAGE: u64 = 1 << 30;
/// Xen's image is at most this large; it has some MiB.
const MOST_IMAGE: usize = 1 << 26;
/// Bytes of a ring that are searched for a line of Xen's, before all of it is read.
const GLANCE: usize = 1 << 16;
/// Pointers that are followed, and rings that are read whole.
const MOST_POINTERS: usize = 1 << 14;
const MOST_RINGS: usize = 16;
/// Lines that the newest part must have, for memory to be taken for a ring.
const LINES: usize = 4;

/// Addresses of the ring's variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbols {
    /// `conring`, a pointer.
    pub ring: VirtAddr,
    /// `conring_size`, 32 bits.
    pub size: VirtAddr,
    /// `conringc`, 32 bits.
    pub consumer: VirtAddr,
    /// `conringp`, 32 bits.
    pub producer: VirtAddr,
}

impl Symbols {
    /// Those of a `xen-syms`, if it has all of them.
    pub fn of(syms: &XenSyms) -> Option<Self> {
        Some(Self {
            ring: syms.get("conring")?,
            size: syms.get("conring_size")?,
            consumer: syms.get("conringc")?,
            producer: syms.get("conringp")?,
        })
    }
}

/// The ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    at: VirtAddr,
    size: u64,
    part: Part,
    /// What is doubtful about it.
    pub doubt: Option<&'static str>,
}

/// The bytes of a ring that were written: where the oldest is, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    first: u64,
    len: u64,
}

impl Console {
    /// Finds it: by its symbols, or by its shape.
    ///
    /// # Errors
    /// [`Error::Missing`] if nothing proves to be the ring; [`Error::Damaged`] if the symbols' values make no sense.
    pub fn find(host: &Host<'_>, symbols: Option<&Symbols>) -> Result<Self> {
        match symbols {
            Some(symbols) => Self::by_symbols(&host.space, symbols),
            None => Self::by_shape(host),
        }
    }

    fn by_symbols(space: &AddressSpace<'_>, symbols: &Symbols) -> Result<Self> {
        let word = |what, va| {
            let mut bytes = [0; 4];
            space.read(what, va, &mut bytes).map(|()| u32::from_le_bytes(bytes))
        };
        let at = VirtAddr(space.read_u64("conring", symbols.ring)?);
        let size = word("conring_size", symbols.size)?;
        let (c, p) = (word("conringc", symbols.consumer)?, word("conringp", symbols.producer)?);
        if !size.is_power_of_two() || !SIZES.contains(&size) || p.wrapping_sub(c) > size {
            let why = format!("conring_size {size:#x}, conringc {c:#x}, conringp {p:#x}");
            return Err(Error::damaged("Xen's console ring", why));
        }
        let ring = load(space, at, size as usize);
        Ok(Self { at, size: size.into(), part: written(&ring, c, p), doubt: None })
    }

    fn by_shape(host: &Host<'_>) -> Result<Self> {
        // Without Xen's notes not every variable's place is known.
        let known = ["domain_list", "pgd_l4"].iter().find_map(|name| host.notes.info.symbol(name));
        let base = known.map(|va| VirtAddr(va.0 & !(IMAGE - 1)));
        let image = base.map(|base| image(&host.space, base)).unwrap_or_default();
        let in_image = |w: u64| base.is_some_and(|b| w.wrapping_sub(b.0) < IMAGE);
        let pointer =
            |w: u64| (w >= host.direct_map && w.is_multiple_of(PAGE_BYTES)) || (in_image(w) && w.is_multiple_of(8));
        let rings = candidates(&image, pointer, &|at| glance(&host.space, at));
        let mut by_text = None;
        for (at, size) in rings {
            let ring = load(&host.space, at, size as usize);
            if let Some(part) = by_counters(&ring, &image) {
                return Ok(Self { at, size: size.into(), part, doubt: None });
            }
            if let Some((part, doubt)) = by_text_alone(&ring)
                && by_text.is_none()
            {
                by_text = Some(Self { at, size: size.into(), part, doubt: Some(doubt) });
            }
        }
        by_text.ok_or_else(|| {
            Error::missing("Xen's console ring", "no pointer in Xen's image leads to memory that proves to be it")
        })
    }

    /// Hands its bytes to `sink`, oldest first, and returns how many are missing.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn read(&self, space: &AddressSpace<'_>, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let (mut done, mut missing) = (0, 0);
        let mut piece = [0; PAGE_SIZE];
        while done < self.part.len {
            let at = (self.part.first + done) & (self.size - 1);
            let va = VirtAddr(self.at.0.wrapping_add(at));
            let n = (self.part.len - done).min(self.size - at).min(PAGE_BYTES - va.in_page() as u64);
            let Some(part) = piece.get_mut(..n as usize) else { break };
            if space.read("Xen's console ring", va, part).is_ok() {
                sink(part)?;
            } else {
                // What follows is another line.
                sink(b"\n")?;
                missing += n;
            }
            done += n;
        }
        Ok(missing)
    }
}

/// The mapped parts of Xen's image.
fn image(space: &AddressSpace<'_>, base: VirtAddr) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let (mut at, mut total, mut follows) = (0, 0, false);
    while at < IMAGE && total < MOST_IMAGE {
        let va = VirtAddr(base.0.wrapping_add(at));
        let mut page = [0; PAGE_SIZE];
        match space.translate(va) {
            Ok(_) if space.read("Xen's image", va, &mut page).is_ok() => {
                match parts.last_mut() {
                    Some(part) if follows => part.extend_from_slice(&page),
                    _ => parts.push(page.to_vec()),
                }
                total += PAGE_SIZE;
                at += PAGE_BYTES;
                follows = true;
            }
            // Nothing below a whole table: 2 MiB at once.
            Err(super::paging::Fault::NotPresent(2..) | super::paging::Fault::Table(..)) => {
                at = (at + 1).next_multiple_of(1 << 21);
                follows = false;
            }
            _ => {
                at += PAGE_BYTES;
                follows = false;
            }
        }
    }
    parts
}

/// Pointers with a size near them, to what looks like a ring; the nearest size first.
fn candidates(
    image: &[Vec<u8>],
    pointer: impl Fn(u64) -> bool,
    looks: &dyn Fn(VirtAddr) -> bool,
) -> Vec<(VirtAddr, u32)> {
    let mut found: Vec<(usize, VirtAddr, u32)> = Vec::new();
    let mut seen: BTreeMap<u64, bool> = BTreeMap::new();
    for part in image {
        for (i, word) in words(part).enumerate().filter(|w| pointer(w.1)) {
            let at = i * 8;
            let size = |place: usize| {
                let size = u32_at(part, place).filter(|s| s.is_power_of_two() && SIZES.contains(s))?;
                Some((place.abs_diff(at), VirtAddr(word), size))
            };
            let near = (at.saturating_sub(NEAR)..at).step_by(4).chain((at + 8..at + NEAR).step_by(4));
            let sizes: Vec<_> = near.filter_map(size).collect();
            if sizes.is_empty() || seen.len() >= MOST_POINTERS {
                continue;
            }
            if *seen.entry(word).or_insert_with(|| looks(VirtAddr(word))) {
                found.extend(sizes);
            }
        }
    }
    found.sort_unstable_by_key(|f| f.0);
    let mut rings: Vec<(VirtAddr, u32)> = Vec::new();
    for (_, at, size) in found {
        if rings.len() < MOST_RINGS && !rings.contains(&(at, size)) {
            rings.push((at, size));
        }
    }
    rings
}

/// Whether some line of Xen's begins in the first bytes.
fn glance(space: &AddressSpace<'_>, at: VirtAddr) -> bool {
    // A ring is at least a page, but may end in a hole.
    let mut page = [0; PAGE_SIZE];
    (0..(GLANCE / PAGE_SIZE) as u64).any(|n| {
        let va = VirtAddr(at.0.wrapping_add(n * PAGE_BYTES));
        space.read("Xen's console ring", va, &mut page).is_ok() && memmem::find(&page, PREFIX).is_some()
    })
}

/// All of a ring, with `?` for what is missing.
fn load(space: &AddressSpace<'_>, at: VirtAddr, size: usize) -> Vec<u8> {
    let mut ring = vec![b'?'; size];
    let mut rest = &mut ring[..];
    let mut va = at;
    while !rest.is_empty() {
        let n = (PAGE_SIZE - va.in_page()).min(rest.len());
        let (piece, tail) = rest.split_at_mut(n);
        if space.read("Xen's console ring", va, piece).is_err() {
            piece.fill(b'?');
        }
        rest = tail;
        va = VirtAddr(va.0.wrapping_add(n as u64));
    }
    ring
}

/// The byte at a count.
fn byte(ring: &[u8], count: u32) -> u8 {
    ring.get(count as usize & (ring.len() - 1)).copied().unwrap_or_default()
}

/// Whether a line of Xen's begins at a count; it may go on at the ring's start.
fn begins(ring: &[u8], count: u32) -> bool {
    (0..).zip(PREFIX).all(|(i, expected)| byte(ring, count.wrapping_add(i)) == *expected)
}

/// Lines of Xen's.
fn lines_in(text: &[u8]) -> usize {
    let first = |at: &usize| at.checked_sub(1).is_none_or(|before| text.get(before) == Some(&b'\n'));
    memmem::find_iter(text, PREFIX).filter(first).count()
}

/// What was written between two counts, and what stands before it and is text still: cleared, but there.
fn written(ring: &[u8], c: u32, p: u32) -> Part {
    let is_text = |b: u8| matches!(b, b'\n' | b'\t' | b'\r' | b' '..=b'~');
    let most = (p as usize).min(ring.len()) as u64;
    let mut len = u64::from(p.wrapping_sub(c)).min(most);
    while len < most && is_text(byte(ring, p.wrapping_sub(len as u32 + 1))) {
        len += 1;
    }
    Part { first: u64::from(p).wrapping_sub(len) & (ring.len() as u64 - 1), len }
}

/// What of a ring's text counters are held against.
struct Text<'r> {
    ring: &'r [u8],
    /// Where the last line of Xen's begins, in a ring that is not full.
    last: usize,
    /// The last zero before that, and the first behind it or else the end.
    zeros: (Option<usize>, usize),
    full: bool,
}

impl<'r> Text<'r> {
    /// `None` if it is no text of Xen's.
    fn new(ring: &'r [u8]) -> Option<Self> {
        let last = memmem::rfind(ring, PREFIX).filter(|_| lines_in(ring) >= LINES)?;
        let (before, behind) = ring.split_at(last);
        let end = memchr::memchr(0, behind).map_or(ring.len(), |at| last + at);
        let zeros = (memchr::memrchr(0, before), end);
        Some(Self { ring, last, zeros, full: zeros.0.is_none() && end == ring.len() })
    }

    /// How well two counters fit, as a rank. Only a few bytes are looked at: an image may have millions of pairs.
    fn fits(&self, c: u32, p: u32) -> Option<u8> {
        let size = self.ring.len();
        let (n, end) = (p.wrapping_sub(c) as usize, p as usize);
        if p == 0 || n > size || byte(self.ring, p.wrapping_sub(1)) != b'\n' {
            return None;
        }
        if end < size {
            let whole = c <= p && self.zeros.0.is_none_or(|zero| (c as usize) > zero);
            let ends = end > self.last && end <= self.zeros.1;
            return (whole && ends).then_some(if end == self.zeros.1 { 2 } else { 1 });
        }
        // A full ring has no zeros at all, and its oldest line has lost its beginning.
        if n == size {
            return self.full.then_some(2);
        }
        let cut = !begins(self.ring, p) && byte(self.ring, c.wrapping_sub(1)) == b'\n';
        (self.full && cut).then_some(1)
    }
}

/// The part that two counters of the image tell, if no others that fit as well tell another end.
fn by_counters(ring: &[u8], image: &[Vec<u8>]) -> Option<Part> {
    let text = Text::new(ring)?;
    let (mut best, mut found, mut many) = (0, None, false);
    for part in image {
        let halves = || words(part).flat_map(|w| [w as u32, (w >> 32) as u32]);
        for (a, b) in halves().zip(halves().skip(1)) {
            for (c, p) in [(a, b), (b, a)] {
                let Some(rank) = text.fits(c, p).filter(|rank| *rank >= best) else { continue };
                let same = |old: &(u32, u32)| (old.0 ^ p) as usize & (ring.len() - 1) == 0;
                many = rank == best && (many || !found.as_ref().is_none_or(same));
                // Of several beginnings the last begins what surely was written.
                found = if rank == best { found.max(Some((p, c))) } else { Some((p, c)) };
                best = rank;
            }
        }
    }
    let (p, c) = found.filter(|_| !many)?;
    Some(written(ring, c, p))
}

/// The part that the text itself tells, and why that is doubtful.
fn by_text_alone(ring: &[u8]) -> Option<(Part, &'static str)> {
    let size = ring.len() as u64;
    if let Some(zero) = memchr::memchr(0, ring) {
        let (text, behind) = ring.split_at(zero);
        let whole = memchr::memrchr(b'\n', text)? + 1;
        let proven = lines_in(text.get(..whole)?) >= LINES && memmem::find(behind, PREFIX).is_none();
        let doubt = "Xen's console ring: its counters were not found; it was read up to the first zero";
        return proven.then_some((Part { first: 0, len: whole as u64 }, doubt));
    }
    let starts = memchr::memchr_iter(b'\n', ring).map(|at| (at + 1) & (ring.len() - 1));
    let mut cut = starts.filter(|at| !begins(ring, *at as u32));
    let (first, second) = (cut.next(), cut.next());
    if lines_in(ring) < LINES {
        return None;
    }
    Some(match (first, second) {
        (Some(start), None) => {
            let doubt = "Xen's console ring: its counters were not found; it begins where a line lost its beginning";
            (Part { first: start as u64, len: size }, doubt)
        }
        _ => {
            let doubt =
                "Xen's console ring: it is full, and its counters were not found: the oldest line may stand anywhere";
            (Part { first: 0, len: size }, doubt)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring of 4096 bytes into which all of `text` was written (conring_puts).
    fn ring(text: &str) -> (Vec<u8>, u32, u32) {
        let mut ring = vec![0; 4096];
        text.bytes().enumerate().for_each(|(i, b)| ring[i & 4095] = b);
        let p = text.len() as u32;
        (ring, p.saturating_sub(4096), p)
    }

    fn text(lines: usize) -> String {
        (0..lines).map(|n| format!("(XEN) line {n}{}\n", "-".repeat(n * 13 % 70))).collect()
    }

    /// An image that is full of numbers, with two counters in it.
    fn image(c: u32, p: u32) -> Vec<Vec<u8>> {
        let noise = (0..3000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> (n % 32)).to_le_bytes());
        let counters = [c, p].into_iter().flat_map(u32::to_le_bytes);
        vec![noise.clone().chain(counters).chain(noise).collect()]
    }

    fn bytes(ring: &[u8], part: Part) -> Vec<u8> {
        (0..part.len).map(|n| byte(ring, (part.first + n) as u32)).collect()
    }

    #[test]
    fn counters_tell_the_part() {
        for lines in [5, 20, 60, 75, 80, 100, 1000] {
            let text = text(lines);
            let (ring, c, p) = ring(&text);
            let expected = &text.as_bytes()[text.len().saturating_sub(4096)..];
            for (a, b) in [(c, p), (p, c)] {
                let part = by_counters(&ring, &image(a, b));
                assert_eq!(part.map(|part| bytes(&ring, part)).as_deref(), Some(expected), "{lines}");
            }
            // xl dmesg -c clears nothing but a counter.
            let clear = p - (text.len() - text.trim_end_matches('\n').rfind('\n').unwrap() - 1) as u32;
            let part = written(&ring, clear, p);
            assert_eq!(bytes(&ring, part), expected);
        }
    }

    /// Where lines fill the ring without a rest, none has lost its beginning, and only the counters tell the oldest.
    #[test]
    fn a_ring_may_begin_with_a_whole_line() {
        let text: String = (0..200).map(|n| format!("(XEN) line {n:052}\n")).collect();
        let (ring, c, p) = ring(&text);
        let part = by_counters(&ring, &image(c, p)).unwrap();
        assert!(text.len().is_multiple_of(64) && bytes(&ring, part) == text.as_bytes()[text.len() - 4096..]);
        assert!(by_text_alone(&ring).unwrap().1.contains("may stand anywhere"));
    }

    #[test]
    fn without_counters_the_text_tells() {
        for lines in [5, 20, 60, 75, 1000, 1001, 1002] {
            let text = text(lines);
            let (ring, ..) = ring(&text);
            let (part, _) = by_text_alone(&ring).unwrap();
            let expected = &text.as_bytes()[text.len().saturating_sub(4096)..];
            assert!(bytes(&ring, part) == expected, "{lines}");
        }
    }

    #[test]
    fn what_is_no_ring_is_not_taken_for_one() {
        let (ring, c, p) = ring(&text(20));
        // Memory without lines of Xen's, a page of the binary with one format string, and text behind the end.
        let plain = vec![b'a'; 4096];
        let mut binary = vec![0; 4096];
        binary[100..114].copy_from_slice(b"(XEN) a line\n\0");
        let mut behind = ring.clone();
        behind[3000..3012].copy_from_slice(b"(XEN) later\n");
        for memory in [&plain, &binary, &behind] {
            assert_eq!(by_counters(memory, &image(c, p)), None);
        }
        for memory in [&binary, &behind] {
            assert_eq!(by_text_alone(memory), None);
        }
        assert_eq!(by_text_alone(&plain), None);
        assert_eq!(by_counters(&ring, &image(c, p - 1)), None);
        // The end of a line, but not of the last one.
        let line = ring[..p as usize - 1].iter().rposition(|b| *b == b'\n').unwrap() as u32 + 1;
        let alone = |p: u32| vec![[c, p].map(u32::to_le_bytes).concat()];
        assert!(by_counters(&ring, &alone(p)).is_some() && by_counters(&ring, &alone(line)).is_none());
    }

    /// Early text that did not fit the first ring is not in the second, and what stands in its place is no text.
    #[test]
    fn memory_that_never_was_written_stays_out() {
        let text = text(40);
        let (mut ring, _, p) = ring(&text);
        let c = text.find("(XEN) line 9").unwrap();
        ring[..c].fill(0xaa);
        assert_eq!(bytes(&ring, written(&ring, c as u32, p)), &text.as_bytes()[c..]);
    }

    #[test]
    fn pointers_need_a_size_and_text() {
        let mut part = vec![0; 256];
        part[64..72].copy_from_slice(&0x5000_u64.to_le_bytes());
        part[60..64].copy_from_slice(&0x4000_u32.to_le_bytes());
        part[128..132].copy_from_slice(&0x8000_u32.to_le_bytes());
        let pointer = |w: u64| w == 0x5000;
        assert_eq!(candidates(&[part.clone()], pointer, &|_| true), [(VirtAddr(0x5000), 0x4000)]);
        assert_eq!(candidates(&[part.clone()], pointer, &|_| false), []);
        part[60..64].copy_from_slice(&0x4001_u32.to_le_bytes());
        assert_eq!(candidates(&[part], pointer, &|_| true), []);
    }

    /// Whatever byte is wrong, a part is never larger than the ring.
    #[test]
    fn any_byte_may_be_wrong() {
        let (ring, c, p) = ring(&text(80));
        let image = vec![[c, p].into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()];
        for at in 0..ring.len() {
            let mut bad = ring.clone();
            bad[at] ^= 0xff;
            let parts = [by_counters(&bad, &image), by_text_alone(&bad).map(|p| p.0)];
            assert!(parts.into_iter().flatten().all(|part| part.len <= 4096 && part.first < 4096));
        }
        for at in 0..8 {
            let mut bad = image.clone();
            bad[0][at] ^= 0xff;
            assert!(by_counters(&ring, &bad).is_none_or(|part| part.len <= 4096));
        }
    }
}
