//! The temporary file that input goes to which cannot be read in place.

use super::{BLOCK, Kind, fill};
use crate::error::{Error, Result};
use crate::source::holes::Holes;
use crate::source::storage::{FileSource, History, ReadAt};
use crate::units::FileOffset;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Left free on the temporary file system.
const SPARE: u64 = 64 << 20;
/// Bytes that are written between looks at what is free.
const LOOK: u64 = 64 << 20;

/// The stream is bad from here on. What came before is used.
pub(super) fn broken_off(history: &mut History, outer: Kind, e: &io::Error, at: u64) {
    history.damage.add_one("streams that break off", format!("{}, after {at} bytes: {e}", outer.name()));
}

/// Copies all, `most` bytes at most.
pub(super) fn copy(
    input: &mut dyn Read,
    out: &mut Out<'_>,
    most: u64,
    outer: Kind,
    history: &mut History,
) -> Result<()> {
    let (mut block, mut at) = (vec![0; BLOCK], 0_u64);
    while at < most {
        let (n, broken) = fill(input, &mut block);
        out.write(at, block.get(..n).unwrap_or_default())?;
        at += n as u64;
        if let Some(e) = broken {
            broken_off(history, outer, &e, at);
            return Ok(());
        }
        if n < BLOCK {
            return Ok(());
        }
    }
    history.damage.add_one("streams that go on after all that headers tell of", format!("after {most} bytes"));
    Ok(())
}

/// The temporary file.
#[derive(Debug)]
pub(in crate::source) struct Out<'a> {
    file: File,
    dir: &'a Path,
    len: u64,
    /// The most bytes that it may need, if that is known.
    most: Option<u64>,
    /// What was free at first.
    free: u64,
    /// Bytes that can be written before the next look.
    room: u64,
}

impl<'a> Out<'a> {
    /// `least` bytes must find room, since nothing unpacks to less; `most` is what all of it may need. Zeros take no
    /// room, so that more than what is free may well do.
    pub(super) fn create(dir: Option<&'a Path>, least: u64, most: Option<u64>) -> Result<Self> {
        static DEFAULT: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
        let dir = dir.unwrap_or_else(|| DEFAULT.get_or_init(std::env::temp_dir));
        let file = tempfile::tempfile_in(dir).map_err(|e| {
            let what = "a temporary file, needed to unpack the input (see --tmp-dir), in";
            Error::write(format!("{what} {}", dir.display()), e)
        })?;
        let mut out = Self { file, dir, len: 0, most: most.map(|m| m.max(least)), free: 0, room: 0 };
        out.free = out.look(least)?;
        Ok(out)
    }

    /// What is free, which must be `bytes` at least.
    fn look(&mut self, bytes: u64) -> Result<u64> {
        let free = match rustix::fs::fstatvfs(&self.file) {
            Ok(fs) => fs.f_bavail.saturating_mul(fs.f_frsize),
            Err(e) => return Err(self.error(e.into())),
        };
        if self.free == 0 {
            self.free = free;
        }
        let left = free.saturating_sub(SPARE);
        if left < bytes || left == 0 {
            return Err(self.error(io::ErrorKind::StorageFull.into()));
        }
        self.room = left.min(LOOK);
        Ok(free)
    }

    fn error(&self, e: io::Error) -> Error {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let dir = self.dir.display();
        let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let what = match self.most {
            _ if !full => format!("the unpacked input in {dir} (see --tmp-dir)"),
            Some(most) => format!(
                "the unpacked input in {dir}, which had {} MiB free and may need up to {} MiB (another folder: --tmp-dir)",
                mib(self.free),
                mib(most)
            ),
            None => format!(
                "the unpacked input in {dir}, which had {} MiB free (another folder: --tmp-dir)",
                mib(self.free)
            ),
        };
        Error::write(what, e)
    }

    /// Learns the most bytes that it may need.
    pub(in crate::source) fn set_most(&mut self, most: u64) {
        self.most = Some(most);
    }

    /// Zeros where nothing was written yet stay a hole.
    pub(in crate::source) fn write(&mut self, at: u64, data: &[u8]) -> Result<()> {
        if at < self.len || data.iter().any(|b| *b != 0) {
            let bytes = data.len() as u64;
            if self.room < bytes {
                self.look(bytes)?;
            }
            self.room = self.room.saturating_sub(bytes);
            self.file.write_all_at(data, at).map_err(|e| self.error(e))?;
        }
        self.len = self.len.max(at + data.len() as u64);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<FileSource> {
        self.file.set_len(self.len).map_err(|e| self.error(e))?;
        FileSource::new(self.file)
    }
}

/// What was written so far; holes read as zeros.
impl ReadAt for Out<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.read_exact_at(buf, at.0)
    }

    fn slice(&self, _: FileOffset, _: usize) -> Option<&[u8]> {
        None
    }

    fn holes(&self) -> &Holes {
        Holes::none()
    }
}
