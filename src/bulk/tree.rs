//! The files under some folders, and where their outputs go.

use super::Identity;
use crate::error::{Error, Result};
use crate::objects;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is: an absolute path, or a URL.
    pub path: PathBuf,
    /// What it is known by again, if that is told already: of an object.
    pub identity: Option<Identity>,
    /// Where it would be below the folder of all outputs.
    pub mirror: PathBuf,
}

/// What is under the sources.
#[derive(Debug, Default)]
pub struct Tree {
    /// Files, by name.
    pub files: Vec<Found>,
    /// What is no file: a link that is not followed, a pipe, a device; with what it is.
    pub others: Vec<(PathBuf, &'static str)>,
    /// What could not be read, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Lists all files under `sources`, folders or files, but those under any folder of `not`, our own ones. Each is mirrored by its path below its source; of
/// several sources, below the last name of each.
///
/// # Errors
/// [`Error::Read`] for a source that is not there, [`Error::Usage`] for one that is a folder of our own.
pub fn walk(sources: &[PathBuf], not: &[&Path], follow: bool) -> Result<Tree> {
    let mut tree = Tree::default();
    let own_folders: Vec<PathBuf> = not.iter().filter_map(|path| path.canonicalize().ok()).collect();
    for source in sources {
        let several = sources.len() > 1;
        if let Some(url) = objects::url(source) {
            objects_below(url, not, several, &mut tree)?;
            continue;
        }
        let failed = |e| Error::read(source.display().to_string(), e);
        // What the user names is followed.
        let top = source.canonicalize().map_err(failed)?;
        let own = if several { top.file_name().map(PathBuf::from) } else { None };
        let is_own = |path: &Path| own_folders.iter().any(|own| own == path);
        if is_own(&top) {
            let why = format!("{} is where cuts, manifests or done dumps go; name another folder", source.display());
            return Err(Error::Usage(why));
        }
        let below = WalkDir::new(&top).follow_links(follow).sort_by_file_name().into_iter();
        for entry in below.filter_entry(|e| !is_own(e.path())) {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) if entry.file_type().is_file() => {
                    let path = entry.into_path();
                    let within = path.strip_prefix(&top).ok().filter(|p| !p.as_os_str().is_empty());
                    let name = path.file_name().map(Path::new).unwrap_or(Path::new("dump"));
                    let mirror = within.map_or_else(|| name.into(), |p| own.clone().unwrap_or_default().join(p));
                    tree.files.push(Found { path, identity: None, mirror });
                }
                Ok(entry) => {
                    let what = if entry.path_is_symlink() { "a link; --follow follows it" } else { "no regular file" };
                    tree.others.push((entry.into_path(), what));
                }
                Err(e) => {
                    let path = e.path().unwrap_or(&top).to_owned();
                    let why = e.io_error().map_or_else(|| e.to_string(), ToString::to_string);
                    tree.unreadable.push((path, why));
                }
            }
        }
    }
    // One that several sources lead to is one.
    let mut seen = std::collections::BTreeSet::new();
    tree.files.retain(|f| seen.insert(f.path.clone()));
    Ok(tree)
}

/// All objects below a URL, or the one that has it.
fn objects_below(url: &str, not: &[&Path], several: bool, tree: &mut Tree) -> Result<()> {
    let top = url.trim_end_matches('/');
    // Other schemes have no lists.
    let listed = ["s3://", "gs://"].iter().any(|s| top.starts_with(s));
    let mut found = if listed { objects::list(top)? } else { Vec::new() };
    let own = top.rsplit('/').next().unwrap_or_default();
    let own = own.split(['?', '#']).next().unwrap_or_default();
    if found.is_empty() {
        let object = objects::head(top)?;
        let (path, identity) = (PathBuf::from(&object.url), Some(Identity::of_object(&object)));
        tree.files.push(Found { path, identity, mirror: own.into() });
        return Ok(());
    }
    let own_urls = not.iter().filter_map(|path| objects::url(path));
    let own_urls: Vec<String> = own_urls.map(|url| format!("{}/", url.trim_end_matches('/'))).collect();
    found.retain(|o| !own_urls.iter().any(|own| o.url.starts_with(own)));
    for object in found {
        let within = object.url.strip_prefix(top).unwrap_or(&object.url).trim_start_matches('/');
        let mirror = if several { Path::new(own).join(within) } else { within.into() };
        // A key may have any name; one that leads elsewhere has no place below a folder.
        if !mirror.components().all(|c| matches!(c, std::path::Component::Normal(_))) {
            tree.others.push((object.url.into(), "an object whose name is no path"));
            continue;
        }
        let identity = Some(Identity::of_object(&object));
        tree.files.push(Found { path: object.url.into(), identity, mirror });
    }
    Ok(())
}

/// The outputs that are there.
#[derive(Debug)]
pub struct Outputs {
    folder: PathBuf,
    /// Sizes of all objects below the folder, if it is a URL.
    listed: Option<BTreeMap<PathBuf, u64>>,
}

impl Outputs {
    /// Those below a folder, or a URL.
    ///
    /// # Errors
    /// [`Error::Read`] with what the server says.
    pub fn of(folder: &Path) -> Result<Self> {
        let Some(url) = objects::url(folder) else { return Ok(Self { folder: folder.into(), listed: None }) };
        let all = objects::list(url.trim_end_matches('/'))?;
        let listed = all.into_iter().map(|o| (PathBuf::from(o.url), o.size)).collect();
        Ok(Self { folder: url.trim_end_matches('/').into(), listed: Some(listed) })
    }

    /// The size of one, if it is there.
    pub fn size_of(&self, name: &Path) -> Option<u64> {
        let path = objects::below(&self.folder, name).ok()?;
        match &self.listed {
            Some(listed) => listed.get(&path).copied(),
            None => size_of(&path),
        }
    }
}

/// The size of a file, if it is there.
fn size_of(path: &Path) -> Option<u64> {
    path.metadata().ok().filter(|m| m.is_file()).map(|m| m.len())
}

/// The name of the output of a file that is mirrored here.
pub(super) fn output(mirror: &Path, suffix: &str) -> PathBuf {
    let mut name = mirror.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_is_mirrored_and_its_output_is_none_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for name in ["a/x/1", "a/2", "b/x/1", "a/out/old.kdump", "c"] {
            std::fs::create_dir_all(top.join(name).parent().unwrap()).unwrap();
            std::fs::write(top.join(name), name).unwrap();
        }
        symlink("../b", top.join("a/link")).unwrap();
        symlink("a", top.join("a/loop")).unwrap();
        let mirrors = |sources: &[&str], follow| -> (Vec<String>, usize, usize) {
            let sources: Vec<_> = sources.iter().map(|s| top.join(s)).collect();
            let tree = walk(&sources, &[&top.join("a/out")], follow).unwrap();
            let names = tree.files.iter().map(|f| f.mirror.display().to_string()).collect();
            (names, tree.others.len(), tree.unreadable.len())
        };
        assert_eq!(mirrors(&["a"], false), (vec!["2".into(), "x/1".into()], 2, 0));
        assert_eq!(mirrors(&["a/2"], false), (vec!["2".into()], 0, 0));
        let (names, _, _) = mirrors(&["a", "b", "c", "a/x"], false);
        assert_eq!(names, ["a/2", "a/x/1", "b/x/1", "c"]);
        // A link that leads round in a circle is told, and ends.
        let (names, _, unreadable) = mirrors(&["a"], true);
        assert_eq!((names, unreadable), (vec!["2".into(), "link/x/1".into(), "x/1".into()], 1));
        assert!(walk(&[top.join("nowhere")], &[], false).is_err());
        assert!(matches!(walk(std::slice::from_ref(&top), &[&top], false), Err(Error::Usage(_))));
        assert_eq!(output(Path::new("x/1"), ".kdump"), Path::new("x/1.kdump"));
    }
}
