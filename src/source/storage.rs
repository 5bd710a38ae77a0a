//! Bytes of a file by position: the only place that maps memory, with the only `unsafe` code of the crate, but for the
//! feature `lzo`.

use super::holes::Holes;
use super::origin::Origin;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::units::FileOffset;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Random access to the bytes of a dump, from many threads at once.
pub trait ReadAt: Send + Sync + Debug {
    /// Size in bytes.
    fn len(&self) -> u64;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `at` on.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end, or what the operating system says.
    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()>;

    /// The bytes in place, where the storage is memory.
    fn slice(&self, at: FileOffset, len: usize) -> Option<&[u8]>;

    /// The file that bytes of [`Self::slice`] are mapped from, and where they stand in it: who writes a file can have the
    /// system share or copy them there.
    fn behind(&self, _slice: &[u8]) -> Option<(&File, FileOffset)> {
        None
    }

    /// The ranges that the file system has no blocks for: they read as zeros and need not be read.
    fn holes(&self) -> &Holes;

    /// Whether it is far away: a read takes long, many at once take no longer, and [`Self::expect`] is heard.
    fn is_far(&self) -> bool {
        false
    }

    /// Tells which bytes will be read soon, in order and apart from each other, so that they can be fetched meanwhile.
    fn expect(&self, _ranges: &[Range<u64>]) {}

    /// What the bytes went through before they came to be here.
    fn history(&self) -> &History {
        History::none()
    }

    /// The files of a split dump, each with where it begins in this storage; nothing for a single file.
    fn parts(&self) -> &[(Box<dyn ReadAt>, u64)] {
        &[]
    }
}

/// The same bytes as ranges in order and apart from each other.
pub(super) fn apart(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|r| r.start);
    ranges.dedup_by(|next, last| {
        let joined = next.start <= last.end;
        if joined {
            last.end = last.end.max(next.end);
        }
        joined
    });
    ranges
}

/// How a dump was wrapped, and what was found damaged on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Wrappers from the outside to the inside: `zstd`, `flattened`.
    pub layers: Vec<String>,
    /// What is wrong, and how much of it.
    pub damage: Damage,
    /// Where the flattened stream ends that it came as, in bytes from its start, if that is cut short.
    pub cut_at: Option<u64>,
    /// The objects that it is fetched from, if it is no file.
    pub origins: Vec<Arc<Origin>>,
}

impl History {
    /// A plain file.
    pub fn none() -> &'static Self {
        static NONE: History = History { layers: Vec::new(), damage: Damage::NONE, cut_at: None, origins: Vec::new() };
        &NONE
    }

    /// What it is, from the outside to the inside: `gzip, flattened, kdump version 6, zlib, dump level 1`.
    pub fn form(&self) -> String {
        self.layers.join(", ")
    }

    /// An error if anything is damaged.
    ///
    /// # Errors
    /// [`Error::Strict`], which tells all of it.
    pub fn must_be_sound(&self) -> Result<()> {
        if self.damage.is_empty() {
            return Ok(());
        }
        Err(Error::Strict(self.damage.to_string()))
    }

    /// Adds what another part of the same dump went through.
    pub fn add(&mut self, inner: &Self) {
        self.layers.extend(inner.layers.iter().cloned());
        self.damage.merge(&inner.damage);
        self.origins.extend(inner.origins.iter().cloned());
    }
}

/// A file read with `pread`.
#[derive(Debug)]
pub struct FileSource {
    pub(super) file: File,
    pub(super) len: u64,
    pub(super) holes: Holes,
    pub(super) history: History,
}

impl FileSource {
    /// Takes over an open file. Its size is read once, here.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be examined.
    pub fn new(file: File) -> Result<Self> {
        let meta = file.metadata().map_err(|e| Error::read("the dump's size", e))?;
        // /proc/vmcore has none, and no blocks either.
        let holes = if is_of_proc(&file) { Holes::default() } else { Holes::of(&file, &meta) };
        let len = match meta.len() {
            // A device says its size only to those who go to its end; /proc/vmcore says it in its metadata.
            0 if !meta.is_file() => (&file).seek(SeekFrom::End(0)).map_err(|e| Error::read("the device's size", e))?,
            len => len,
        };
        Ok(Self { len, file, holes, history: History::default() })
    }

    /// The same with a word on where it comes from.
    pub(super) fn with_history(self, history: History) -> Self {
        Self { history, ..self }
    }
}

impl ReadAt for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, at.0)
    }

    fn slice(&self, _: FileOffset, _: usize) -> Option<&[u8]> {
        None
    }

    fn holes(&self) -> &Holes {
        &self.holes
    }

    fn history(&self) -> &History {
        &self.history
    }
}

/// A file mapped as a whole.
#[derive(Debug)]
pub struct MapSource {
    file: File,
    map: memmap2::Mmap,
    holes: Holes,
    history: History,
}

impl MapSource {
    /// Maps the file; gives it back if the kernel refuses (an empty file, a limit on address space, a file system
    /// without mappings). The contract is that of [`super::open`].
    #[allow(clippy::result_large_err, reason = "the error is the caller's own file")]
    pub fn new(source: FileSource) -> Result<Self, FileSource> {
        if source.len == 0 {
            return Err(source);
        }
        // A device's mapping does not know its size.
        let Ok(len) = usize::try_from(source.len) else { return Err(source) };
        match map_part(&source.file, 0, len) {
            Ok(map) => Ok(Self { file: source.file, map, holes: source.holes, history: source.history }),
            Err(_) => Err(source),
        }
    }
}

/// Maps a part of a file.
pub(super) fn map_part(file: &File, at: u64, len: usize) -> io::Result<memmap2::Mmap> {
    // SAFETY: the mapping is private to this process and never written. Another process that truncates the file
    // causes SIGBUS, which `open` documents as the caller's contract; one that changes it makes us read other
    // bytes, and nothing here relies on two reads being equal: every value is checked after it was copied out.
    #[allow(unsafe_code)]
    unsafe {
        memmap2::MmapOptions::new().offset(at).len(len).map(file)
    }
}

/// Whether the file is on tmpfs.
pub(super) fn is_in_memory(file: &File) -> bool {
    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC)
}

/// Whether the file is one of procfs, as `/proc/vmcore` is: all that is in it is made as it is read.
pub(super) fn is_of_proc(file: &File) -> bool {
    const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;
    rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type == PROC_SUPER_MAGIC)
}

impl ReadAt for MapSource {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(self.slice(at, buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn slice(&self, at: FileOffset, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(at.0).ok()?;
        self.map.get(start..start.checked_add(len)?)
    }

    fn behind(&self, slice: &[u8]) -> Option<(&File, FileOffset)> {
        let at = slice.as_ptr().addr().checked_sub(self.map.as_ptr().addr())?;
        let ours = self.map.get(at..at.checked_add(slice.len())?)?;
        std::ptr::eq(ours, slice).then_some((&self.file, FileOffset(at as u64)))
    }

    fn holes(&self) -> &Holes {
        &self.holes
    }

    fn history(&self) -> &History {
        &self.history
    }
}

/// A dump in memory: for tests, and for callers that have one.
impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(ReadAt::slice(self, at, buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn slice(&self, at: FileOffset, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(at.0).ok()?;
        self.get(start..start.checked_add(len)?)
    }

    fn holes(&self) -> &Holes {
        Holes::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_mapped_knows_where_it_stands() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        let map = MapSource::new(FileSource::new(file).unwrap()).unwrap();
        let at = |slice: &[u8]| map.behind(slice).map(|(_, at)| at.0);
        let slice = map.slice(FileOffset(5_000), 5_000).unwrap();
        assert_eq!((at(slice), at(&slice[10..20])), (Some(5_000), Some(5_010)));
        let copy = slice.to_vec();
        assert_eq!((at(&[1; 10]), at(&copy)), (None, None));
    }
}
