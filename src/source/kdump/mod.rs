//! kdump-compressed files (makedumpfile, QEMU, this program), whole or split, as machine memory.
//!
//! After the headers ([`header`]) come bitmap 1, pages that exist, and bitmap 2, pages that have a descriptor; then a
//! descriptor of 24 bytes for each bit of bitmap 2 in order of PFN; then page data. Which descriptor is a page's follows
//! from the number of bits before its own, so that nothing of it need be listed in memory. PFNs of a full Xen dump are
//! MFNs. A page that exists without a descriptor was left out by the dump's own level: it is missing, and no zero page.

mod bits;
mod decode;
pub mod header;

pub use header::{Header, SIGNATURE};

use super::container::{Container, Place, Ranges, Unpacked};
use super::machine;
use super::storage::ReadAt;
use crate::damage::Damage;
use crate::error::{Absence, Error, Result};
use crate::units::{FileOffset, MachineAddr, Mfn, PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE, Page};
use crate::zero::is_zero;
use bits::{Bits, Ranks};
use decode::{Decoder, Descriptor};
use header::DESCRIPTOR;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pages whose descriptors one look examines.
const LOOK_AHEAD: u64 = 256;
/// Pages whose bits one look examines, where they are alike.
const FAR: u64 = 1 << 20;
/// Pages that were read for a part of them and may be asked for again: 4 MiB.
const CACHED: usize = 1024;

/// Files that end before all is in them.
const OUT_OF_SPACE: &str = "files whose writer ran out of space, by their own flag";
const STOPPED: &str = "files whose writer stopped before it wrote the last page";
/// Bytes of notes that are compared.
const MOST_COMPARED: u64 = 1 << 20;
/// Where the zero page is before any was seen: no page can be there.
const NOWHERE: u64 = u64::MAX;
/// Descriptors that are looked at to know where the data ends: the last ones may be of the zero page, which comes first.
const LAST: u64 = 4096;

/// One file.
#[derive(Debug)]
struct Part<'a> {
    source: &'a dyn ReadAt,
    /// Where it begins in the storage of the whole set.
    base: u64,
    header: Header,
    exists: Bits<'a>,
    stored: Bits<'a>,
    ranks: Ranks,
    /// PFNs that it is for.
    first: u64,
    end: u64,
    /// Descriptors of PFNs before `first`, which are in other parts.
    before: u64,
    /// Descriptors that it should have.
    count: u64,
    /// Where page data may begin.
    data: FileOffset,
    /// Where a raw page was seen that is zero: all zero pages share one.
    zero_at: AtomicU64,
}

impl<'a> Part<'a> {
    fn open(source: &'a dyn ReadAt, base: u64) -> Result<Self> {
        let header = Header::read(source)?;
        let exists = Bits::read(source, header.bitmap_1, header.max_mapnr)?;
        let stored = Bits::read(source, header.bitmap_2, header.max_mapnr)?;
        let ranks = Ranks::new(&stored);
        let (first, end) = header.split.unwrap_or((0, header.max_mapnr));
        let end = end.min(header.max_mapnr);
        let before = ranks.rank(&stored, first);
        let count = ranks.rank(&stored, end).saturating_sub(before);
        let data = FileOffset(header.descriptors.0.saturating_add(count * DESCRIPTOR));
        let zero_at = AtomicU64::new(NOWHERE);
        Ok(Self { source, base, header, exists, stored, ranks, first, end, before, count, data, zero_at })
    }

    /// The last descriptors: data is written in order. Nothing if the file has not all of them.
    fn last(&self) -> Option<Vec<Descriptor>> {
        let size = self.count.min(LAST) * DESCRIPTOR;
        let mut last = vec![0; size as usize];
        let at = FileOffset(self.data.0.saturating_sub(size));
        let there = self.data.0 <= self.source.len() && self.source.read_exact_at(at, &mut last).is_ok();
        let parsed = last.chunks_exact(DESCRIPTOR as usize).filter_map(Descriptor::parse).collect();
        there.then_some(parsed)
    }

    /// Bytes that are missing at its end; where descriptors are, those of descriptors.
    fn cut_off(&self) -> u64 {
        let len = self.source.len();
        let Some(last) = self.last() else { return self.data.0.saturating_sub(len) };
        let beyond = last.iter().filter(|d| self.check(**d) == Err(Absence::CutOff));
        beyond.map(|d| d.at.0 + u64::from(d.size) - len).max().unwrap_or(0)
    }

    /// Whether its writer stopped before the end, without a word or with.
    fn is_unfinished(&self) -> bool {
        let unwritten = |d: &Descriptor| self.check(*d) == Err(Absence::Incomplete);
        self.header.incomplete || self.last().is_some_and(|last| last.last().is_some_and(unwritten))
    }

    /// Descriptors of `count` pages from `pfn` on, all of which have one; fewer where the file ends.
    fn descriptors(&self, pfn: u64, count: u64) -> Result<Vec<Descriptor>, Absence> {
        let index = self.ranks.rank(&self.stored, pfn).saturating_sub(self.before);
        let at = index.checked_mul(DESCRIPTOR).and_then(|o| self.header.descriptors.checked_add(o));
        let at = at.ok_or(Absence::Damaged)?;
        let room = self.source.len().saturating_sub(at.0) / DESCRIPTOR;
        let bytes = count.min(LOOK_AHEAD).min(room) * DESCRIPTOR;
        if bytes == 0 {
            return Err(Absence::CutOff);
        }
        let parse = |bytes: &[u8]| bytes.chunks_exact(DESCRIPTOR as usize).filter_map(Descriptor::parse).collect();
        if let Some(slice) = self.source.slice(at, bytes as usize) {
            return Ok(parse(slice));
        }
        let mut buf = vec![0; bytes as usize];
        if self.source.read_exact_at(at, &mut buf).is_err() {
            // A bad spot: only the first, so that no good one is lost with it.
            buf.truncate(DESCRIPTOR as usize);
            self.source.read_exact_at(at, &mut buf).map_err(machine::why)?;
        }
        Ok(parse(&buf))
    }

    /// Whether both tell of the same machine at the same time: size, level, notes, and which pages are in the dump.
    fn is_of_one_dump_with(&self, other: &Self) -> bool {
        let (a, b) = (&self.header, &other.header);
        let notes = |part: &Self| {
            let (at, size) = part.header.notes.unwrap_or_default();
            let size = size.min(part.source.len().saturating_sub(at.0)).min(MOST_COMPARED);
            let mut bytes = vec![0; size as usize];
            part.source.read_exact_at(at, &mut bytes).map(|()| bytes).unwrap_or_default()
        };
        // Of one that is cut short, as far as it goes.
        let same_start = |a: Vec<u8>, b: Vec<u8>| a.iter().zip(&b).all(|(a, b)| a == b);
        (a.max_mapnr, a.level, a.notes.map(|n| n.1)) == (b.max_mapnr, b.level, b.notes.map(|n| n.1))
            && a.machine == b.machine
            && self.stored.is_same(&other.stored)
            && same_start(notes(self), notes(other))
    }

    fn check(&self, descriptor: Descriptor) -> Result<(), Absence> {
        descriptor.check(self.data, self.source.len())
    }

    /// Whether the page is known to be the shared zero page.
    fn is_known_zero(&self, d: Descriptor) -> bool {
        d.is_raw() && d.size as usize == PAGE_SIZE && d.at.0 == self.zero_at.load(Ordering::Relaxed)
    }

    /// Fills `page`; learns where the zero page is.
    fn decode(&self, d: Descriptor, decoder: &mut Decoder, page: &mut Page) -> Result<(), Absence> {
        self.check(d)?;
        let size = d.size as usize;
        match self.source.slice(d.at, size) {
            Some(bytes) => decoder.decode(d.flags, bytes, page)?,
            None => {
                let mut input = std::mem::take(&mut decoder.input);
                input.resize(size, 0);
                let read = self.source.read_exact_at(d.at, &mut input).map_err(machine::why);
                let done = read.and_then(|()| decoder.decode(d.flags, &input, page));
                decoder.input = input;
                done?;
            }
        }
        if d.is_raw() && is_zero(page) {
            self.zero_at.store(d.at.0, Ordering::Relaxed);
        }
        Ok(())
    }
}

type Slot = Mutex<Option<(u64, Box<Page>)>>;

/// A kdump-compressed dump: one file, or the parts of a split one.
#[derive(Debug)]
pub struct Kdump<'a> {
    /// In order of their PFNs.
    parts: Vec<Part<'a>>,
    idle: Mutex<Vec<Decoder>>,
    cache: Vec<Slot>,
}

impl<'a> Kdump<'a> {
    /// Reads headers and bitmaps of each file; with each comes where it begins in the storage of them all.
    ///
    /// # Errors
    /// [`Error::Damaged`] for headers that do not hold together, [`Error::Usage`] for parts that do not belong together.
    pub fn open(files: &[(&'a dyn ReadAt, u64)]) -> Result<Self> {
        let parts = files.iter().map(|(source, base)| Part::open(*source, *base)).collect::<Result<Vec<_>>>()?;
        let mut parts: Vec<Part<'a>> = parts;
        if let ([one, rest @ ..], true) = (parts.as_slice(), parts.len() > 1) {
            if rest.iter().any(|p| !p.is_of_one_dump_with(one)) {
                return Err(Error::Usage("the files given with --split are not parts of one dump".into()));
            }
            if parts.iter().any(|p| p.header.split.is_none()) {
                return Err(Error::Usage("a file given with --split is no part of a split kdump dump".into()));
            }
        }
        parts.sort_by_key(|p| (p.first, p.end));
        let cache = (0..CACHED).map(|_| Mutex::new(None)).collect();
        Ok(Self { parts, idle: Mutex::new(Vec::new()), cache })
    }

    /// The first part's header.
    pub fn header(&self) -> Option<&Header> {
        self.parts.first().map(|p| &p.header)
    }

    /// Names the format: version, codec, level, parts.
    pub fn describe(&self) -> String {
        let Some(h) = self.header() else { return "kdump".into() };
        let codecs = decode::codec_names(self.parts.iter().fold(0, |all, p| all | p.header.codecs));
        let parts = match (self.parts.len(), h.split) {
            (1, None) => String::new(),
            (1, Some(_)) => ", one part of a split dump".into(),
            (n, _) => format!(", {n} parts of a split dump"),
        };
        format!("kdump version {}, {codecs}, dump level {}{parts}", h.version, h.level)
    }

    /// What the headers alone show to be wrong, each with its amount.
    pub fn damage(&self) -> Damage {
        let mut all = Damage::default();
        for part in self.parts.iter().filter(|p| p.is_unfinished()) {
            all.add(if part.header.incomplete { OUT_OF_SPACE } else { STOPPED }, 1);
        }
        let (mut unknown, mut doubly, mut at) = (0, 0, 0);
        let last = self.parts.first().map_or(0, |p| p.header.max_mapnr);
        for (first, end) in self.parts.iter().map(|p| (p.first, p.end)).chain([(last, last)]) {
            if first > at {
                unknown += self.missing_part(at, first);
            }
            doubly += at.min(end).saturating_sub(first);
            at = at.max(end);
        }
        all.add("pages in parts of the split dump that were not given", unknown);
        all.add("page frames that two parts of the split dump claim", doubly);
        all
    }

    /// Pages with a descriptor from `first` to before `end`, by the bitmap that all parts have.
    fn missing_part(&self, first: u64, end: u64) -> u64 {
        self.parts.first().map_or(0, |p| p.ranks.rank(&p.stored, end).saturating_sub(p.ranks.rank(&p.stored, first)))
    }

    fn part(&self, pfn: u64) -> Option<&Part<'a>> {
        self.parts.iter().find(|p| (p.first..p.end).contains(&pfn))
    }

    /// What a frame is, and how many frames from it on are alike.
    fn look(&self, pfn: u64) -> (Place, u64) {
        let absent = |why, upto: u64| (Place::Absent(why), upto.saturating_sub(pfn).max(1));
        let Some(one) = self.parts.first() else { return absent(Absence::NotInDump, u64::MAX) };
        if pfn >= one.stored.len() {
            return absent(Absence::NotInDump, u64::MAX >> PAGE_SHIFT);
        }
        let near = pfn + FAR;
        let Some(part) = self.part(pfn) else {
            let next = self.parts.iter().map(|p| p.first).filter(|first| *first > pfn).min().unwrap_or(near);
            let stored = one.stored.get(pfn);
            let upto = one.stored.find(!stored, pfn, near.min(next));
            return absent(if stored { Absence::NotInSet } else { Absence::Excluded }, upto);
        };
        if !part.stored.get(pfn) {
            let exists = part.exists.get(pfn);
            let upto = part.stored.find(true, pfn, near.min(part.end));
            let why = if exists { Absence::Excluded } else { Absence::NotInDump };
            return absent(why, part.exists.find(!exists, pfn, upto));
        }
        let upto = part.stored.find(false, pfn, part.end.min(pfn + LOOK_AHEAD));
        let descriptors = match part.descriptors(pfn, upto - pfn) {
            Ok(all) => all,
            Err(why) => return absent(why, pfn + 1),
        };
        let mut checked = descriptors.iter().map(|d| part.check(*d).err());
        match checked.next().flatten() {
            Some(why) => absent(why, pfn + 1 + checked.take_while(|c| *c == Some(why)).count() as u64),
            None => (Place::Packed, 1 + checked.take_while(Option::is_none).count() as u64),
        }
    }

    fn with_decoder<T>(&self, work: impl FnOnce(&mut Decoder) -> T) -> T {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let mut decoder = idle.unwrap_or_else(Decoder::new);
        let done = work(&mut decoder);
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(decoder);
        }
        done
    }
}

impl Container for Kdump<'_> {
    fn find(&self, addr: MachineAddr) -> (Place, u64) {
        let (place, pages) = self.look(addr.mfn().0);
        (place, pages.saturating_mul(PAGE_BYTES).saturating_sub(addr.in_page() as u64))
    }

    fn stored_at(&self, mfn: Mfn, count: u64, each: &mut dyn FnMut(Range<u64>)) {
        let (mut at, end) = (mfn.0, mfn.0.saturating_add(count));
        while at < end {
            let (place, pages) = self.look(at);
            let upto = end.min(at.saturating_add(pages));
            while place == Place::Packed && at < upto {
                let Some(part) = self.part(at) else { break };
                let Ok(all) = part.descriptors(at, upto - at) else { break };
                let stored = all.iter().filter(|d| !part.is_known_zero(**d) && part.check(**d).is_ok());
                stored.for_each(|d| each(part.base + d.at.0..part.base + d.at.0 + u64::from(d.size)));
                at += (all.len() as u64).max(1);
            }
            at = upto;
        }
    }

    fn is_paged(&self) -> bool {
        true
    }

    fn ranges(&self) -> Ranges<'_> {
        ranges(self.parts.first().map(|p| &p.exists))
    }

    fn stored(&self) -> Ranges<'_> {
        ranges(self.parts.first().map(|p| &p.stored))
    }

    fn unpack(&self, mfn: Mfn, count: usize, buf: &mut Vec<u8>) -> Result<Unpacked, Absence> {
        let part = self.part(mfn.0).ok_or(Absence::NotInSet)?;
        let end = part.stored.find(false, mfn.0, part.end.min(mfn.0.saturating_add(count as u64)));
        if end <= mfn.0 {
            return Err(Absence::Excluded);
        }
        let all = part.descriptors(mfn.0, end - mfn.0)?;
        let first = all.first().copied().ok_or(Absence::Damaged)?;
        part.check(first)?;
        let zeros = all.iter().take_while(|d| part.is_known_zero(**d)).count();
        if zeros > 0 {
            return Ok(Unpacked::Zeros(zeros));
        }
        let raw = |(n, d): (u64, &Descriptor)| {
            d.is_raw() && Some(d.at) == first.at.checked_add(n * PAGE_BYTES) && part.check(*d).is_ok()
        };
        let in_row = (0..).zip(&all).take_while(|pair| raw(*pair)).count();
        if in_row > 1 {
            return Ok(Unpacked::File(FileOffset(first.at.0 + part.base), in_row));
        }
        self.with_decoder(|decoder| {
            let mut page: Page = [0; PAGE_SIZE];
            let mut done = 0;
            for d in &all {
                if done > 0 && part.is_known_zero(*d) {
                    break;
                }
                match part.decode(*d, decoder, &mut page) {
                    Ok(()) => buf.extend_from_slice(&page),
                    Err(why) if done == 0 => return Err(why),
                    Err(_) => break,
                }
                done += 1;
            }
            Ok(Unpacked::Pages(done))
        })
    }

    fn page(&self, mfn: Mfn, page: &mut Page) -> Result<(), Absence> {
        let slot = self.cache.get(mfn.0 as usize % CACHED).ok_or(Absence::NotInDump)?;
        if let Ok(cached) = slot.lock()
            && let Some((number, bytes)) = cached.as_ref()
            && *number == mfn.0
        {
            *page = **bytes;
            return Ok(());
        }
        let Some(part) = self.part(mfn.0).filter(|p| p.stored.get(mfn.0)) else {
            // Which of all reasons it is.
            let (Place::Absent(why), _) = self.look(mfn.0) else { return Err(Absence::NotInDump) };
            return Err(why);
        };
        let d = part.descriptors(mfn.0, 1)?.first().copied().ok_or(Absence::Damaged)?;
        part.check(d)?;
        if part.is_known_zero(d) {
            page.fill(0);
            return Ok(());
        }
        self.with_decoder(|decoder| part.decode(d, decoder, page))?;
        if let Ok(mut cached) = slot.lock() {
            *cached = Some((mfn.0, Box::new(*page)));
        }
        Ok(())
    }

    fn cut_off(&self) -> u64 {
        self.parts.iter().map(Part::cut_off).sum()
    }
}

/// The pages of a bitmap.
fn ranges<'b>(bits: Option<&'b Bits<'_>>) -> Ranges<'b> {
    let mut at = 0;
    Box::new(std::iter::from_fn(move || {
        let first = bits?.find(true, at, u64::MAX);
        let end = bits?.find(false, first, u64::MAX);
        at = end;
        (first < end).then_some((MachineAddr(first << PAGE_SHIFT), MachineAddr(end << PAGE_SHIFT)))
    }))
}
