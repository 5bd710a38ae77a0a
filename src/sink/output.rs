//! The output file: complete under its name, or not there at all.

use crate::error::{Error, Result};
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that is written beside its name as `NAME.incomplete`, and renamed when it is complete and on the disk. Without
/// [`Output::commit`] it is removed again. A device is written in place.
#[derive(Debug)]
pub struct Output {
    file: File,
    path: PathBuf,
    temporary: Option<PathBuf>,
    overwrite: bool,
}

impl Output {
    /// Opens the output; with `overwrite`, what stands there is replaced at the end. A dump holds the secrets of a
    /// machine, so only the owner may read it.
    ///
    /// # Errors
    /// [`Error::OutputExists`], or [`Error::Write`] with what the operating system says.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self> {
        let name = path.display().to_string();
        let existing = std::fs::metadata(path).ok();
        if existing.as_ref().is_some_and(|m| m.is_dir()) {
            return Err(Error::Usage(format!("{name} is a folder, not a file to write")));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let no_link = OFlags::NOFOLLOW.bits() as i32;
        if existing.as_ref().is_some_and(|m| !m.is_file()) {
            let file = options.open(path).map_err(|e| Error::write(name, e))?;
            return Ok(Self { file, path: path.into(), temporary: None, overwrite });
        }
        if existing.is_some() && !overwrite {
            return Err(Error::OutputExists(name));
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".incomplete");
        let temporary = PathBuf::from(temporary);
        // One that was left behind by a run that was killed is taken over; the lock tells it from one at work.
        let file = options.create(true).custom_flags(no_link).open(&temporary).map_err(|e| Error::write(&name, e))?;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(Errno::WOULDBLOCK) {
            return Err(Error::Usage(format!("{name} is being written by another run")));
        }
        file.set_len(0).map_err(|e| Error::write(&name, e))?;
        Ok(Self { file, path: path.into(), temporary: Some(temporary), overwrite })
    }

    /// Whether it is a new file, whose unwritten parts read as zeros; a device's do not.
    pub fn is_new(&self) -> bool {
        self.temporary.is_some()
    }

    /// Writes at a position; from any thread.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|e| self.error(e))
    }

    /// Sets the size; what was not written reads as zeros.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn set_len(&self, len: u64) -> Result<()> {
        if self.temporary.is_none() {
            return Ok(());
        }
        self.file.set_len(len).map_err(|e| self.error(e))
    }

    /// Puts the file on the disk and gives it its name.
    ///
    /// # Errors
    /// [`Error::Write`], or [`Error::OutputExists`] if another file took the name meanwhile.
    pub fn commit(mut self) -> Result<()> {
        let Some(temporary) = self.temporary.as_ref() else { return Ok(()) };
        self.file.sync_all().map_err(|e| self.error(e))?;
        let renamed = if self.overwrite {
            std::fs::rename(temporary, &self.path)
        } else {
            match renameat_with(CWD, temporary, CWD, &self.path, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => return Err(Error::OutputExists(self.path.display().to_string())),
                // A file system that cannot refuse: the check at the start has to do.
                Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(temporary, &self.path),
                other => other.map_err(Into::into),
            }
        };
        renamed.map_err(|e| self.error(e))?;
        self.temporary = None;
        let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The name is on the disk when the folder is; not every file system lets a folder be synced.
        let _ = File::open(parent).and_then(|dir| dir.sync_all());
        Ok(())
    }

    fn error(&self, e: io::Error) -> Error {
        Error::write(self.path.display().to_string(), e)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}
