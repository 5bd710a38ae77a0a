//! A file that is complete under its name, or not there at all.

use crate::error::{Error, Result};
use crate::units::FileOffset;
use rustix::fs::{Advice, CWD, FlockOperation, OFlags, RenameFlags, copy_file_range, fadvise, flock, renameat_with};
use rustix::io::Errno;
use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What is written to, and how it gets its name.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// The name until it is complete; none for a device or a pipe, which are written in place.
    temporary: Option<PathBuf>,
    overwrite: bool,
    /// Whether [`Self::share`] has failed: the files are not of one file system, say.
    alone: AtomicBool,
    /// The object that it becomes, which `path` is the URL of.
    #[cfg(feature = "objects")]
    object: Option<super::object::Object>,
}

impl Target {
    /// As [`super::Output::create`]. `append` says that it is written from the start to the end, so that a pipe will do.
    pub(super) fn create(path: &Path, overwrite: bool, keep: &Path, append: bool) -> Result<Self> {
        let name = path.display().to_string();
        spare(path, keep)?;
        if let Some(kind) = std::fs::metadata(path).ok().map(|m| m.file_type()).filter(|t| !t.is_file()) {
            return Self::in_place(path, kind, append);
        }
        // A link that leads nowhere is there too.
        if path.symlink_metadata().is_ok() && !overwrite {
            return Err(Error::OutputExists(name));
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".incomplete");
        let temporary = PathBuf::from(temporary);
        let file = claim(&temporary, overwrite, keep)?;
        Ok(Self::new(file, path.into(), Some(temporary), overwrite))
    }

    fn new(file: File, path: PathBuf, temporary: Option<PathBuf>, overwrite: bool) -> Self {
        #[cfg(feature = "objects")]
        let object = None;
        Self {
            file,
            path,
            temporary,
            overwrite,
            alone: AtomicBool::new(false),
            #[cfg(feature = "objects")]
            object,
        }
    }

    /// As [`super::Output::upload`].
    #[cfg(feature = "objects")]
    pub(super) fn upload(url: &str, overwrite: bool, tmp_dir: Option<&Path>) -> Result<Self> {
        let (file, path, object) = super::object::Object::create(url, overwrite, tmp_dir)?;
        let mut target = Self::new(file, url.into(), Some(path), overwrite);
        target.object = Some(object);
        Ok(target)
    }

    /// As [`super::Output::upload`].
    #[cfg(not(feature = "objects"))]
    pub(super) fn upload(url: &str, _: bool, _: Option<&Path>) -> Result<Self> {
        Err(crate::objects::without(url))
    }

    fn in_place(path: &Path, kind: FileType, append: bool) -> Result<Self> {
        let name = path.display().to_string();
        if kind.is_dir() {
            return Err(Error::Usage(format!("{name} is a folder, not a file to write")));
        }
        if (kind.is_fifo() || kind.is_socket()) && !append {
            return Err(Error::Usage(format!(
                "{name} is a pipe; give -F for a flattened stream, or a file or a device that the cut can seek in"
            )));
        }
        let file = OpenOptions::new().read(!append).write(true).open(path).map_err(|e| Error::write(name, e))?;
        Ok(Self::new(file, path.into(), None, true))
    }

    /// Whether it is a new file.
    pub(super) fn is_new(&self) -> bool {
        self.temporary.is_some()
    }

    /// Has the system take bytes of another file over; how many it took. Those that it did not are for the caller to write,
    /// and if there is a reason for that, such as a full disk, he will see it.
    pub(super) fn share(&self, file: &File, from: FileOffset, len: usize, at: u64) -> usize {
        let (mut from, mut to, mut done) = (from.0, at, 0);
        while done < len && !self.alone.load(Ordering::Relaxed) {
            match copy_file_range(file, Some(&mut from), &self.file, Some(&mut to), len - done) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(_) => self.alone.store(true, Ordering::Relaxed),
            }
        }
        done
    }

    /// The file once more, of which the system forgets what it has in memory, so that the disk has to tell.
    pub(super) fn reopen(&self) -> io::Result<File> {
        match self.file.sync_all() {
            Err(e) if e.kind() != io::ErrorKind::InvalidInput => return Err(e),
            _ => {}
        }
        let file = File::open(self.temporary.as_deref().unwrap_or(&self.path))?;
        // A file system in memory has nothing else.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Ok(file)
    }

    /// Puts it on the disk; with `rename` it gets its name, else it stays where it is. Where
    /// that is.
    pub(super) fn finish(mut self, rename: bool) -> Result<String> {
        #[cfg(feature = "objects")]
        if let Some((object, temporary)) = self.take_object() {
            return object.finish(&self.file, temporary, rename);
        }
        if !rename {
            // Kept even if it cannot be synced: where there is no more room, that is told here by some file systems.
            let kept = self.temporary.take();
            self.sync_file()?;
            return Ok(kept.as_ref().unwrap_or(&self.path).display().to_string());
        }
        self.sync_file()?;
        let Some(temporary) = self.temporary.take() else { return Ok(self.path.display().to_string()) };
        let renamed = if self.overwrite {
            std::fs::rename(&temporary, &self.path)
        } else {
            match renameat_with(CWD, &temporary, CWD, &self.path, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {
                    self.temporary = Some(temporary);
                    return Err(Error::OutputExists(self.path.display().to_string()));
                }
                // A file system that cannot refuse: the check at the start has to do.
                Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(&temporary, &self.path),
                other => other.map_err(Into::into),
            }
        };
        if let Err(e) = renamed {
            self.temporary = Some(temporary);
            return Err(self.error(e));
        }
        let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The name is on the disk when the folder is; not every file system lets a folder be synced.
        let _ = File::open(parent).and_then(|dir| dir.sync_all());
        Ok(self.path.display().to_string())
    }

    /// Leaves what there is of a new file; where.
    pub(super) fn abandon(mut self) -> Option<String> {
        #[cfg(feature = "objects")]
        if let Some((object, temporary)) = self.take_object() {
            return object.finish(&self.file, temporary, false).ok();
        }
        self.temporary.take().map(|path| path.display().to_string())
    }

    #[cfg(feature = "objects")]
    fn take_object(&mut self) -> Option<(super::object::Object, PathBuf)> {
        let object = self.object.take()?;
        Some((object, self.temporary.take()?))
    }

    fn sync_file(&self) -> Result<()> {
        match self.file.sync_all() {
            // Not every device, and no pipe, has anything to sync.
            Err(e) if e.kind() != io::ErrorKind::InvalidInput || self.temporary.is_some() => Err(self.error(e)),
            _ => Ok(()),
        }
    }

    /// Puts it on the disk, and looks whether its name is still free.
    pub(super) fn sync(&self) -> Result<()> {
        #[cfg(feature = "objects")]
        if let Some(object) = &self.object {
            return object.is_free();
        }
        self.sync_file()?;
        if self.temporary.is_some() && !self.overwrite && self.path.symlink_metadata().is_ok() {
            return Err(Error::OutputExists(self.path.display().to_string()));
        }
        Ok(())
    }

    pub(super) fn error(&self, e: io::Error) -> Error {
        Error::write(crate::objects::shown(&self.path), e)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Refuses `path` if it is the same file as `keep`.
pub(super) fn spare(path: &Path, keep: &Path) -> Result<()> {
    if same_file(path, keep) {
        let name = path.display();
        return Err(Error::Usage(format!("{name} is the dump itself; give another name for the cut")));
    }
    Ok(())
}

/// Makes the temporary file, locked. One that is there already is replaced only with `overwrite`, and never while
/// another run holds its lock.
fn claim(temporary: &Path, overwrite: bool, keep: &Path) -> Result<File> {
    let name = temporary.display().to_string();
    let failed = |e| Error::write(&name, e);
    let busy = || Error::Busy(name.clone());
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
