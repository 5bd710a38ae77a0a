//! What becomes of a dump when its cut is there.

use super::record::Source;
use super::{Identity, Name, Record};
use crate::error::{Error, Result};
use crate::objects;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What is to become of a dump that was cut, verified and sound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// It stays.
    #[default]
    Keep,
    /// It goes into this folder, below which the tree is mirrored.
    Move(PathBuf),
    /// It is deleted.
    Delete,
}

/// Why a dump has to stay although its cut is there, if it has.
pub fn must_stay(record: &Record) -> Option<String> {
    let Some(figures) = &record.figures else { return Some("nothing is known of the cut".into()) };
    let missing: u64 = figures.absent.values().sum();
    match (figures.verified, figures.warnings.first()) {
        (None, _) => Some("the cut was not verified".into()),
        _ if missing > 0 => Some(format!("{missing} pages of the domain are not in it")),
        // Whatever it is, there may be more in the dump than in the cut.
        (_, Some(warning)) => Some(warning.clone()),
        _ => None,
    }
}

/// Where the dumps of a tree go, as a record has it before they do.
pub fn going(after: &After, mirror: &Path) -> Source {
    match after {
        After::Keep => Source::Kept,
        After::Move(to) => Source::Going(Some(Name(to.join(mirror.parent().unwrap_or(Path::new("")))))),
        After::Delete => Source::Going(None),
    }
}

/// Whether a dump can go there: it is still what was cut, and nothing stands where it goes.
///
/// # Errors
/// [`Error::Read`], [`Error::Usage`] if it has changed, and [`Error::OutputExists`] if something is there already.
pub fn may_go(files: &[Identity], to: Option<&Name>) -> Result<()> {
    if files.iter().any(|f| objects::is_url(f.path.as_ref())) {
        return Err(Error::Usage("objects of stores are not moved or deleted".into()));
    }
    for file in files {
        if !file.holds()? {
            return Err(Error::Usage(format!("{} has changed since it was cut", file.path)));
        }
        let to = to.map(|folder| target(file, folder));
        if let Some(to) = to.filter(|to| to.symlink_metadata().is_ok()) {
            return Err(Error::OutputExists(to.display().to_string()));
        }
    }
    Ok(())
}

/// Lets go of those files of a dump that are still there, as its record says. What a killed run began is ended so.
///
/// # Errors
/// As [`may_go`], and [`Error::Write`].
pub fn send(files: &[Identity], source: &Source) -> Result<Source> {
    let Source::Going(to) = source else { return Ok(source.clone()) };
    if let Some(folder) = to {
        std::fs::create_dir_all(folder).map_err(|e| Error::write(folder.to_string(), e))?;
    }
    for file in files {
        match file.path.0.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            _ => may_go(std::slice::from_ref(file), to.as_ref())?,
        }
        let failed = |e| Error::write(file.path.to_string(), e);
        match to {
            None => std::fs::remove_file(&file.path).map_err(failed)?,
            Some(folder) => move_file(file, &target(file, folder))?,
        }
    }
    Ok(to.clone().map_or(Source::Deleted, Source::Moved))
}

fn target(file: &Identity, folder: &Name) -> PathBuf {
    folder.0.join(file.path.0.file_name().unwrap_or_default())
}

/// Renames, or copies to another file system: then the file goes when its copy, and the copy's name, are on the disk.
fn move_file(file: &Identity, to: &Path) -> Result<()> {
    let from: &Path = file.path.as_ref();
    let failed = |e: io::Error| Error::write(to.display().to_string(), e);
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::XDEV) => {}
        Err(Errno::EXIST) => return Err(Error::OutputExists(to.display().to_string())),
        // A file system that cannot refuse; it was looked at before.
        Err(Errno::INVAL | Errno::NOSYS) => return std::fs::rename(from, to).map_err(failed),
        other => return other.map_err(|e| failed(e.into())),
    }
    let folder = to.parent().unwrap_or(Path::new("."));
    let copy = || -> io::Result<()> {
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        let mut source = File::open(from)?;
        io::copy(&mut source, temporary.as_file_mut())?;
        let meta = source.metadata()?;
        temporary.as_file().set_permissions(meta.permissions())?;
        temporary.as_file().set_modified(meta.modified()?)?;
        temporary.as_file().sync_all()?;
        temporary.persist_noclobber(to).map_err(|e| e.error)?;
        // The folders that lead there too.
        folder.ancestors().try_for_each(|dir| File::open(dir).and_then(|d| d.sync_all()).or(Ok(())))
    };
    copy().map_err(failed)?;
    if !file.holds()? {
        return Err(Error::Usage(format!("{} has changed while it was copied", file.path)));
    }
    std::fs::remove_file(from).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::Figures;

    fn go(files: &[Identity], after: &After) -> Result<Source> {
        let source = going(after, Path::new("in/vmcore.kdump"));
        let to = match &source {
            Source::Going(to) => to.clone(),
            _ => None,
        };
        may_go(files, to.as_ref())?;
        send(files, &source)
    }

    #[test]
    fn what_changed_or_is_in_doubt_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (file, away) = (dir.path().join("in/vmcore"), dir.path().join("away"));
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::write(&file, b"dump").unwrap();
        let files = [Identity::of(&file).unwrap()];
        let (to, delete) = (After::Move(away.clone()), After::Delete);
        assert_eq!(go(&files, &After::Keep).unwrap(), Source::Kept);
        assert_eq!(go(&files, &to).unwrap(), Source::Moved(Name(away.join("in"))));
        assert!(!file.exists() && std::fs::read(away.join("in/vmcore")).unwrap() == b"dump");
        std::fs::write(&file, b"DUMP").unwrap();
        assert!(matches!(go(&files, &delete), Err(Error::Usage(_))));
        let files = [Identity::of(&file).unwrap()];
        assert!(matches!(go(&files, &to), Err(Error::OutputExists(_))));
        assert_eq!(go(&files, &delete).unwrap(), Source::Deleted);
        assert!(!file.exists());
        // What a killed run began is ended.
        assert_eq!(send(&files, &Source::Going(None)).unwrap(), Source::Deleted);
    }

    #[test]
    fn only_sound_and_verified_dumps_go() {
        let good = Figures { verified: Some(1), ..Figures::default() };
        let of = |figures| must_stay(&Record { figures: Some(figures), ..Record::default() });
        assert_eq!(of(good.clone()), None);
        assert!(of(Figures::default()).is_some() && must_stay(&Record::default()).is_some());
        assert!(of(Figures { absent: [("is gone".into(), 3)].into(), ..good.clone() }).is_some());
        assert!(of(Figures { warnings: vec!["2 P2M entries could not be read".into()], ..good }).is_some());
    }

    #[test]
    fn a_copy_is_as_good_as_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        let (from, to) = (dir.path().join("a"), elsewhere.path().join("a"));
        std::fs::write(&from, b"dump").unwrap();
        let stamp = from.metadata().unwrap().modified().unwrap();
        move_file(&Identity::of(&from).unwrap(), &to).unwrap();
        assert!(!from.exists() && to.metadata().unwrap().modified().unwrap() == stamp);
        assert_eq!(std::fs::read(&to).unwrap(), b"dump");
        std::fs::write(&from, b"other").unwrap();
        assert!(move_file(&Identity::of(&from).unwrap(), &to).is_err() && from.exists());
    }
}
