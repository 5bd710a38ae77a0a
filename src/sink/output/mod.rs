//! The output: a file, a device, a pipe or standard output, by position or flattened.

mod file;
mod flat;
#[cfg(feature = "objects")]
mod object;

use crate::error::{Error, Result};
use crate::objects;
use crate::units::FileOffset;
use file::Target;
use flat::Flat;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

/// Bytes in a row that are worth a system call and an extent of their own.
const WORTH_SHARING: usize = 64 << 10;

/// How bytes reach the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By position, from any thread.
    Positions,
    /// As records of a flattened stream (makedumpfile -F), in the order in which they are written; a pipe will do.
    Flattened,
    /// One after the other: each write begins where the last one ended; a pipe will do.
    Append,
}

/// What a dump is written to. A file is written beside its name as `NAME.incomplete`, and renamed when it is complete and on
/// the disk; without [`Output::commit`] or [`Output::leave`] it is removed again. A device or a pipe is written in place.
pub struct Output {
    /// Nothing for standard output.
    target: Option<Target>,
    mode: Mode,
    stream: Option<Mutex<Stream>>,
    limit: u64,
}

/// Bytes that come one after the other.
enum Stream {
    Flat(Flat<Box<dyn Write + Send>>),
    Append { to: io::BufWriter<Box<dyn Write + Send>>, at: u64 },
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("target", &self.target).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Output {
    /// Opens the output, to be written by position; with `overwrite`, what stands there is replaced at the end, and what a
    /// killed run left beside it now. `keep` is the input: it is never written to. A dump holds the secrets of a machine, so
    /// only the owner may read the new file.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::Usage`] for a folder, a pipe or the input itself, or [`Error::Write`] with what
    /// the operating system says.
    pub fn create(path: &Path, overwrite: bool, keep: &Path) -> Result<Self> {
        Self::create_in(Mode::Positions, path, overwrite, keep)
    }

    /// The same in another mode.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_in(mode: Mode, path: &Path, overwrite: bool, keep: &Path) -> Result<Self> {
        if let Some(url) = objects::url(path) {
            return Self::upload(mode, url, overwrite, None);
        }
        let target = Target::create(path, overwrite, keep, mode != Mode::Positions)?;
        Self::to(mode, target)
    }

    /// An object, by its URL: written to a private file in `tmp_dir`, or the system's temporary folder, and put into the store
    /// when it is complete.
    ///
    /// # Errors
    /// [`Error::OutputExists`]; [`Error::Write`] with what the server says; [`Error::Usage`] for a store that takes nothing.
    pub fn upload(mode: Mode, url: &str, overwrite: bool, tmp_dir: Option<&Path>) -> Result<Self> {
        Self::to(mode, Target::upload(url, overwrite, tmp_dir)?)
    }

    fn to(mode: Mode, target: Target) -> Result<Self> {
        let to = target.file.try_clone().map_err(|e| target.error(e))?;
        Self { target: Some(target), mode, stream: None, limit: u64::MAX }.begin(Box::new(to))
    }

    /// A pipe, standard output for example. [`Mode::Positions`] becomes [`Mode::Flattened`].
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn pipe(mode: Mode, to: impl Write + Send + 'static) -> Result<Self> {
        let mode = if mode == Mode::Positions { Mode::Flattened } else { mode };
        Self { target: None, mode, stream: None, limit: u64::MAX }.begin(Box::new(to))
    }

    fn begin(mut self, to: Box<dyn Write + Send>) -> Result<Self> {
        self.stream = match self.mode {
            Mode::Positions => None,
            Mode::Flattened => Some(Mutex::new(Stream::Flat(Flat::new(to)))),
            Mode::Append => Some(Mutex::new(Stream::Append { to: io::BufWriter::with_capacity(1 << 20, to), at: 0 })),
        };
        Ok(self)
    }

    /// The same with a limit of its size in bytes: what would be written beyond it fails as on a full disk.
    pub fn with_limit(self, bytes: u64) -> Self {
        Self { limit: bytes, ..self }
    }

    /// Refuses `path` if it is the same file as `keep`.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn spare(path: &Path, keep: &Path) -> Result<()> {
        file::spare(path, keep)
    }

    /// Whether unwritten parts of it read as zeros, as those of a new file do and a device's do not.
    pub fn is_new(&self) -> bool {
        self.mode == Mode::Positions && self.target.as_ref().is_some_and(Target::is_new)
    }

    /// How bytes reach it.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Its limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The file, to be read while it has not got its name yet, from the disk; nothing if it is a stream.
    pub fn reopen(&self) -> Option<Result<File>> {
        let target = self.target.as_ref().filter(|_| self.mode == Mode::Positions)?;
        Some(target.reopen().map_err(|e| self.error(e)))
    }

    /// Writes at a position; by position from any thread.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        if self.end_of(bytes, at) > self.limit {
            let why = format!("it would grow beyond the limit of {} bytes", self.limit);
            return Err(self.error(io::Error::new(io::ErrorKind::StorageFull, why)));
        }
        let done = match (&self.stream, &self.target) {
            (Some(stream), _) => match stream.lock().as_deref_mut() {
                Ok(Stream::Flat(flat)) => flat.write_at(bytes, at),
                Ok(Stream::Append { to, at: end }) if *end == at => {
                    *end += bytes.len() as u64;
                    to.write_all(bytes)
                }
                _ => Err(io::Error::other("written out of order")),
            },
            (None, Some(target)) => target.file.write_all_at(bytes, at),
            (None, None) => Err(io::ErrorKind::NotConnected.into()),
        };
        done.map_err(|e| self.error(e))
    }

    /// Writes bytes that also stand in `file` from `from` on, at a position. Where the file system can, the two files share
    /// them, which costs next to nothing; else the system copies them itself, which costs no more than to be handed them.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn copy_at(&self, file: &File, from: FileOffset, bytes: &[u8], at: u64) -> Result<()> {
        let mut done = 0;
        if let Some(target) = self.target.as_ref().filter(|_| bytes.len() >= WORTH_SHARING && self.is_new())
            && self.end_of(bytes, at) <= self.limit
        {
            done = target.share(file, from, bytes.len(), at);
        }
        match bytes.get(done..) {
            Some(rest) if !rest.is_empty() => self.write_at(rest, at + done as u64),
            _ => Ok(()),
        }
    }

    /// How large it is with this, of a stream too.
    fn end_of(&self, bytes: &[u8], at: u64) -> u64 {
        let stream = self.stream.as_ref().and_then(|s| s.lock().ok());
        match stream.as_deref() {
            Some(Stream::Flat(flat)) => flat.with(bytes.len()),
            _ => at.saturating_add(bytes.len() as u64),
        }
    }

    /// Sets the size; what was not written reads as zeros. Of a new file written by position only.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn set_len(&self, len: u64) -> Result<()> {
        match &self.target {
            Some(target) if self.is_new() => target.file.set_len(len).map_err(|e| self.error(e)),
            _ => Ok(()),
        }
    }

    /// Puts the file on the disk as it is, and looks whether its name is still free.
    ///
    /// # Errors
    /// [`Error::Write`], or [`Error::OutputExists`].
    pub fn sync(&self) -> Result<()> {
        self.target.as_ref().map_or(Ok(()), Target::sync)
    }

    /// Puts the file on the disk and gives it its name, or ends the stream; what its name is, and how
    /// many bytes the stream has.
    ///
    /// # Errors
    /// [`Error::Write`], or [`Error::OutputExists`] if another file took the name meanwhile.
    pub fn commit(self) -> Result<(String, Option<u64>)> {
        self.finish(true)
    }

    /// Puts an incomplete file on the disk, and leaves it beside its name; where it is.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn leave(self) -> Result<(String, Option<u64>)> {
        self.finish(false)
    }

    /// Leaves a stream that was cut short, where it is a file: what is in it can be read. Where it is.
    pub fn abandon(mut self) -> Option<String> {
        let target = self.target.take()?;
        // The rest of the buffer finds no room either, or all of it does.
        self.stream = None;
        target.abandon()
    }

    fn finish(self, rename: bool) -> Result<(String, Option<u64>)> {
        let mut bytes = None;
        if let Some(stream) = &self.stream {
            let ended = match stream.lock().as_deref_mut() {
                Ok(Stream::Flat(flat)) => flat.end().map(|len| bytes = Some(len)),
                Ok(Stream::Append { to, .. }) => to.flush(),
                Err(_) => Err(io::Error::other("a worker stopped")),
            };
            ended.map_err(|e| self.error(e))?;
        }
        let name = self.target.map_or(Ok("standard output".into()), |target| target.finish(rename))?;
        Ok((name, bytes))
    }

    fn error(&self, e: io::Error) -> Error {
        match &self.target {
            Some(target) => target.error(e),
            None => Error::write("standard output", e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Copies a part of a file in `folder` to a position.
    fn copies(folder: &Path, from: usize, at: u64) {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut file = tempfile::tempfile_in(folder).unwrap();
        file.write_all(&bytes).unwrap();
        let path = dir.path().join("out");
        let out = Output::create(&path, false, Path::new("no dump")).unwrap();
        let part = &bytes[from..from + 200_000];
        out.copy_at(&file, FileOffset(from as u64), part, at).unwrap();
        out.commit().unwrap();
        let mut written = std::fs::read(path).unwrap();
        let rest = written.split_off(at as usize);
        assert!(written.iter().all(|b| *b == 0) && rest == part, "{from} {at}");
    }

    #[test]
    fn bytes_of_another_file_come_over_wherever_it_is() {
        for (from, at) in [(0, 0), (4096, 8192), (1, 4096), (4096, 4095), (77, 99)] {
            copies(&std::env::temp_dir(), from, at);
            // Another file system, as a rule.
            copies(Path::new("/dev/shm"), from, at);
        }
    }

    #[test]
    fn what_the_file_does_not_have_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let out = Output::create(&path, false, Path::new("no dump")).unwrap();
        let mut short = tempfile::tempfile_in(dir.path()).unwrap();
        short.write_all(&[7; 70_000]).unwrap();
        out.copy_at(&short, FileOffset(0), &[7; 200_000], 0).unwrap();
        out.commit().unwrap();
        assert!(std::fs::read(path).unwrap() == [7; 200_000]);
    }

    #[test]
    fn what_is_shared_counts_for_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = tempfile::tempfile_in(dir.path()).unwrap();
        let bytes = vec![7; 200_000];
        file.write_all(&bytes).unwrap();
        let out = Output::create(&dir.path().join("out"), false, Path::new("no dump")).unwrap().with_limit(200_000);
        out.copy_at(&file, FileOffset(0), &bytes, 0).unwrap();
        let error = out.copy_at(&file, FileOffset(0), &bytes, 1).unwrap_err();
        assert!(error.ends_early() && error.to_string().contains("200000"), "{error}");
    }
}
