//! The output file: complete under its name, or not there at all.

use crate::error::{Error, Result};
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
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
    /// Opens the output; with `overwrite`, what stands there is replaced at the end, and what a killed run left beside it
    /// now. `keep` is the input: it is never written to. A dump holds the secrets of a machine, so only the owner may
    /// read the new file.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::Usage`] for a folder, a pipe or the input itself, or [`Error::Write`] with what
    /// the operating system says.
    pub fn create(path: &Path, overwrite: bool, keep: &Path) -> Result<Self> {
        let name = path.display().to_string();
        Self::spare(path, keep)?;
        if let Some(kind) = std::fs::metadata(path).ok().map(|m| m.file_type()).filter(|t| !t.is_file()) {
            return Self::in_place(path, kind);
        }
        // A link that leads nowhere is there too.
        if path.symlink_metadata().is_ok() && !overwrite {
            return Err(Error::OutputExists(name));
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".incomplete");
        let temporary = PathBuf::from(temporary);
        let file = claim(&temporary, overwrite, keep)?;
        Ok(Self { file, path: path.into(), temporary: Some(temporary), overwrite })
    }

    /// Refuses `path` if it is the same file as `keep`.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn spare(path: &Path, keep: &Path) -> Result<()> {
        if same_file(path, keep) {
            let name = path.display();
            return Err(Error::Usage(format!("{name} is the dump itself; give another name for the cut")));
        }
        Ok(())
    }

    fn in_place(path: &Path, kind: FileType) -> Result<Self> {
        let name = path.display().to_string();
        if kind.is_dir() {
            return Err(Error::Usage(format!("{name} is a folder, not a file to write")));
        }
        if kind.is_fifo() || kind.is_socket() {
            return Err(Error::Usage(format!(
                "{name} is a pipe; the cut needs a file or a device that it can seek in"
            )));
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| Error::write(name, e))?;
        Ok(Self { file, path: path.into(), temporary: None, overwrite: true })
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
        let Some(temporary) = self.temporary.as_ref() else {
            return match self.file.sync_all() {
                // Not every device has anything to sync.
                Err(e) if e.kind() != io::ErrorKind::InvalidInput => Err(self.error(e)),
                _ => Ok(()),
            };
        };
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

/// Makes the temporary file, locked. One that is there already is replaced only with `overwrite`, and never while
/// another run holds its lock.
fn claim(temporary: &Path, overwrite: bool, keep: &Path) -> Result<File> {
    let name = temporary.display().to_string();
    let failed = |e| Error::write(&name, e);
    let busy = || Error::Usage(format!("{name} is being written by another run"));
    let lock = |file: &File| flock(file, FlockOperation::NonBlockingLockExclusive) != Err(Errno::WOULDBLOCK);
    let new = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(temporary);
    let file = match new() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if same_file(temporary, keep) {
                return Err(Error::Usage(format!("{name} is the dump itself; give another name for the cut")));
            }
            let no_link = OFlags::NOFOLLOW.bits() as i32;
            let old = OpenOptions::new().read(true).custom_flags(no_link).open(temporary).map_err(failed)?;
            if !lock(&old) {
                return Err(busy());
            }
            if !overwrite {
                return Err(Error::OutputExists(name));
            }
            std::fs::remove_file(temporary).map_err(failed)?;
            new().map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    // Between making and locking it another run may have taken it for one that was left behind.
    let ours = |m: std::fs::Metadata| file.metadata().is_ok_and(|f| (f.dev(), f.ino()) == (m.dev(), m.ino()));
    if !lock(&file) || !temporary.symlink_metadata().is_ok_and(ours) {
        return Err(busy());
    }
    Ok(file)
}

fn same_file(a: &Path, b: &Path) -> bool {
    let id = |p: &Path| p.metadata().ok().map(|m| (m.dev(), m.ino()));
    id(a).is_some() && id(a) == id(b)
}
