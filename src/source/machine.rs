//! Machine memory: what the rest of the program reads from.

use super::container::{Container, Place, Unpacked};
use super::storage::{History, ReadAt, apart};
use crate::error::{Absence, Error, Result};
use crate::units::{FileOffset, MachineAddr, Mfn, PAGE_BYTES, PAGE_SIZE, Page};
use std::borrow::Cow;

/// The host's memory as a dump holds it. Reads say [`Absence`] for what is not there; nothing absent is read as zero.
#[derive(Debug)]
pub struct MachineMemory<'a> {
    source: &'a dyn ReadAt,
    map: Box<dyn Container + 'a>,
    about: History,
}

/// A run of frames as read from the dump.
#[derive(Debug, PartialEq, Eq)]
pub enum Run<'a> {
    /// The bytes.
    Bytes(&'a [u8]),
    /// All zeros, known without reading: a hole of the file, or beyond `p_filesz`.
    Zeros,
}

impl<'a> MachineMemory<'a> {
    /// Joins storage and the map of it.
    pub fn new(source: &'a dyn ReadAt, map: impl Container + 'a) -> Self {
        Self { source, map: Box::new(map), about: History::default() }
    }

    /// The same with a word on what the dump is.
    pub(super) fn with_losses(self, mut about: History) -> Self {
        let lost = [
            ("bytes missing at the end: the file is cut short", self.map.cut_off()),
            ("bytes that two headers claim", self.map.overlapping()),
        ];
        lost.into_iter().for_each(|(what, n)| about.damage.add(what, n));
        Self { about, ..self }
    }

    /// Its wrappers and its format, from the outside to the inside, and what is damaged in it.
    pub fn history(&self) -> &History {
        &self.about
    }

    /// The map of machine memory in the file.
    pub fn map(&self) -> &(dyn Container + 'a) {
        &*self.map
    }

    /// The storage below.
    pub fn source(&self) -> &'a dyn ReadAt {
        self.source
    }

    /// Tells storage that is far away which pages, runs of so many from a frame on, will be read soon.
    pub fn expect(&self, runs: impl Iterator<Item = (Mfn, u64)>) {
        if !self.source.is_far() {
            return;
        }
        let mut ranges = Vec::new();
        runs.for_each(|(mfn, count)| self.map.stored_at(mfn, count, &mut |range| ranges.push(range)));
        self.source.expect(&apart(ranges));
    }

    /// Fills `buf` from `addr` on, across segments and pages.
    ///
    /// # Errors
    /// The first reason why a byte of it cannot be had.
    pub fn read(&self, addr: MachineAddr, buf: &mut [u8]) -> Result<(), Absence> {
        let (mut addr, mut rest) = (addr, buf);
        let paged = self.map.is_paged();
        while !rest.is_empty() {
            let (place, len) = if paged { (Place::Packed, PAGE_BYTES) } else { self.map.find(addr) };
            let mut n = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            if place == Place::Packed {
                n = n.min(PAGE_SIZE - addr.in_page());
            }
            if n == 0 {
                return Err(Absence::NotInDump);
            }
            let (part, tail) = rest.split_at_mut(n);
            match place {
                Place::Zeros => part.fill(0),
                Place::Absent(why) => return Err(why),
                Place::File(at) => self.source.read_exact_at(at, part).map_err(why)?,
                Place::Packed => self.packed(addr, part)?,
            }
            rest = tail;
            addr = addr.checked_add(n as u64).ok_or(Absence::NotInDump)?;
        }
        Ok(())
    }

    /// A part of a packed page.
    fn packed(&self, addr: MachineAddr, part: &mut [u8]) -> Result<(), Absence> {
        let mut page: Page = [0; PAGE_SIZE];
        self.map.page(addr.mfn(), &mut page)?;
        let from = addr.in_page();
        part.copy_from_slice(page.get(from..from + part.len()).ok_or(Absence::NotInDump)?);
        Ok(())
    }

    /// [`Self::read`] with an error that names `what`.
    ///
    /// # Errors
    /// [`Error::Absent`].
    pub fn need(&self, what: &str, addr: MachineAddr, buf: &mut [u8]) -> Result<()> {
        self.read(addr, buf).map_err(|why| Error::Absent { what: what.to_owned(), addr, why })
    }

    /// Whether the dump stores any of `count` frames from `mfn` on, which zeros that the format implies are not.
    pub fn stores_any(&self, mfn: Mfn, count: u64) -> bool {
        let mut at = 0;
        while let Some(addr) = mfn.checked_add(at).and_then(Mfn::addr).filter(|_| at < count) {
            match self.map.find(addr) {
                (Place::File(_) | Place::Packed, _) => return true,
                (_, bytes) => at = at.saturating_add((bytes / PAGE_BYTES).max(1)),
            }
        }
        false
    }

    /// One frame, in place if the storage is mapped.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn page(&self, mfn: Mfn) -> Result<Cow<'_, [u8]>, Absence> {
        let addr = mfn.addr().ok_or(Absence::NotInDump)?;
        if !self.map.is_paged()
            && let (Place::File(at), len) = self.map.find(addr)
            && len >= PAGE_BYTES
            && let Some(page) = self.source.slice(at, PAGE_SIZE)
        {
            return Ok(Cow::Borrowed(page));
        }
        let mut page: Page = [0; PAGE_SIZE];
        self.read(addr, &mut page)?;
        Ok(Cow::Owned(page.to_vec()))
    }

    /// As many frames from `mfn` on as lie together in the file, `count` at most, and how many that is (at least one,
    /// if the first can be had). `buf` is used where the storage is not memory.
    ///
    /// # Errors
    /// Why the first frame cannot be had.
    pub fn run<'b>(&'b self, mfn: Mfn, count: usize, buf: &'b mut Vec<u8>) -> Result<(Run<'b>, usize), Absence> {
        let addr = mfn.addr().ok_or(Absence::NotInDump)?;
        let (place, len) = self.map.find(addr);
        let n = usize::try_from(len / PAGE_BYTES).unwrap_or(usize::MAX).min(count);
        if n == 0 {
            // The frame straddles segments, or is not there at all.
            buf.resize(PAGE_SIZE, 0);
            self.read(addr, buf)?;
            return Ok((Run::Bytes(buf), 1));
        }
        match place {
            Place::Zeros => Ok((Run::Zeros, n)),
            Place::Absent(why) => Err(why),
            Place::File(at) => self.stored(at, n, buf),
            Place::Packed => {
                buf.clear();
                match self.map.unpack(mfn, n, buf)? {
                    Unpacked::Zeros(n) => Ok((Run::Zeros, n)),
                    Unpacked::Pages(n) => Ok((Run::Bytes(buf), n)),
                    Unpacked::File(at, n) => self.stored(at, n, buf),
                }
            }
        }
    }

    /// `n` frames that stand in the file as they are.
    fn stored<'b>(&'b self, at: FileOffset, n: usize, buf: &'b mut Vec<u8>) -> Result<(Run<'b>, usize), Absence> {
        let bytes = n * PAGE_SIZE;
        if self.source.holes().covers(at.0, bytes as u64) {
            return Ok((Run::Zeros, n));
        }
        if let Some(slice) = self.source.slice(at, bytes) {
            return Ok((Run::Bytes(slice), n));
        }
        buf.resize(bytes, 0);
        if self.source.read_exact_at(at, buf).is_ok() {
            return Ok((Run::Bytes(buf), n));
        }
        // A bad spot in the run: only the first frame, so that no good one is lost with it.
        buf.truncate(PAGE_SIZE);
        self.source.read_exact_at(at, buf).map_err(why)?;
        Ok((Run::Bytes(buf), 1))
    }
}

/// Why bytes could not be read: storage that knows that they were lost says `UnexpectedEof`.
pub(super) fn why(e: std::io::Error) -> Absence {
    match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Absence::CutOff,
        std::io::ErrorKind::InvalidData => Absence::Damaged,
        _ => Absence::IoError,
    }
}
