//! What becomes of a dump when its cut is there.

use super::record::Source;
use super::{Identity, Name, Record};
use crate::error::{Absence, Error, Result};
use crate::objects;
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
    let harmless = |why: &str| [Absence::NotInDump, Absence::Excluded].iter().any(|a| a.to_string() == why);
    let lost: u64 = figures.absent.iter().filter(|(why, _)| !harmless(why)).map(|(_, n)| n).sum();
    let damaged = figures.warnings.iter().find(|w| w.starts_with("damaged input"));
    match (figures.verified, damaged) {
        (None, _) => Some("the cut was not verified".into()),
        (_, Some(damaged)) => Some(damaged.clone()),
        _ if lost > 0 => Some(format!("{lost} pages of the domain could not be had")),
        _ => None,
    }
}

/// Lets a dump go where it should, if it is still what was cut. `mirror` is its place below a folder.
///
/// # Errors
/// [`Error::Read`], [`Error::Write`], and [`Error::OutputExists`] if something is there already.
pub fn send(files: &[Identity], after: &After, mirror: &Path) -> Result<Source> {
    if *after == After::Keep {
        return Ok(Source::Kept);
    }
    if files.iter().any(|f| objects::is_url(f.path.as_ref())) {
        return Err(Error::Usage("objects of stores are not moved or deleted".into()));
    }
    for file in files {
        if !file.holds()? {
            return Err(Error::Usage(format!("{} has changed since it was cut", file.path)));
        }
    }
    let Some(folder) = (match after {
        After::Move(to) => Some(to.join(mirror.parent().unwrap_or(Path::new("")))),
        _ => None,
    }) else {
        for file in files {
            std::fs::remove_file(&file.path).map_err(|e| Error::write(file.path.to_string(), e))?;
        }
        return Ok(Source::Deleted);
    };
    std::fs::create_dir_all(&folder).map_err(|e| Error::write(folder.display().to_string(), e))?;
    for file in files {
        let to = folder.join(file.path.0.file_name().unwrap_or_default());
        if to.symlink_metadata().is_ok() {
            return Err(Error::OutputExists(to.display().to_string()));
        }
        move_file(&file.path.0, &to).map_err(|e| Error::write(to.display().to_string(), e))?;
    }
    Ok(Source::Moved(Name(folder)))
}

/// Renames, or copies to another file system: then the file goes when its copy is on the disk.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
        other => return other,
    }
    let mut temporary = to.as_os_str().to_owned();
    temporary.push(".incomplete");
    let copy = || {
        let mut source = File::open(from)?;
        let mut target = File::create(&temporary)?;
        io::copy(&mut source, &mut target)?;
        let meta = source.metadata()?;
        target.set_permissions(meta.permissions())?;
        target.set_modified(meta.modified()?)?;
        target.sync_all()?;
        std::fs::rename(&temporary, to)
    };
    copy().inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    std::fs::remove_file(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::Figures;

    #[test]
    fn what_changed_or_is_in_doubt_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (file, away) = (dir.path().join("in/vmcore"), dir.path().join("away"));
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::write(&file, b"dump").unwrap();
        let files = [Identity::of(&file).unwrap()];
        let mirror = Path::new("in/vmcore");
        assert_eq!(send(&files, &After::Keep, mirror).unwrap(), Source::Kept);
        let moved = send(&files, &After::Move(away.clone()), mirror).unwrap();
        assert_eq!(moved, Source::Moved(Name(away.join("in"))));
        assert!(!file.exists() && std::fs::read(away.join(mirror)).unwrap() == b"dump");
        std::fs::write(&file, b"DUMP").unwrap();
        assert!(matches!(send(&files, &After::Delete, mirror), Err(Error::Usage(_))));
        let files = [Identity::of(&file).unwrap()];
        assert!(matches!(send(&files, &After::Move(away), mirror), Err(Error::OutputExists(_))));
        assert_eq!(send(&files, &After::Delete, mirror).unwrap(), Source::Deleted);
        assert!(!file.exists());
    }

    #[test]
    fn only_sound_and_verified_dumps_go() {
        let good = Figures { verified: Some(1), ..Figures::default() };
        let of = |figures| must_stay(&Record { figures: Some(figures), ..Record::default() });
        assert_eq!(of(good.clone()), None);
        assert!(of(Figures::default()).is_some() && must_stay(&Record::default()).is_some());
        let absent = |why: Absence| Figures { absent: [(why.to_string(), 3)].into(), ..good.clone() };
        assert_eq!(of(absent(Absence::NotInDump)), None);
        assert!(of(absent(Absence::CutOff)).is_some());
        assert!(of(Figures { warnings: vec!["damaged input: x".into()], ..good }).is_some());
    }

    #[test]
    fn a_copy_is_as_good_as_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        let (from, to) = (dir.path().join("a"), elsewhere.path().join("a"));
        std::fs::write(&from, b"dump").unwrap();
        let stamp = from.metadata().unwrap().modified().unwrap();
        move_file(&from, &to).unwrap();
        assert!(!from.exists() && to.metadata().unwrap().modified().unwrap() == stamp);
        assert_eq!(std::fs::read(&to).unwrap(), b"dump");
    }
}
