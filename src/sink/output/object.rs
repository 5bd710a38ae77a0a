//! An output that becomes an object of a store, which appears as a whole or not at all.

use crate::error::{Error, Result};
use crate::objects::{Free, begin, is_free, put, shown};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where an output goes when it is complete.
#[derive(Debug)]
pub(super) struct Object {
    url: String,
    free: Free,
}

impl Object {
    /// Looks whether the object can be written, and makes the private file that it is written to first.
    ///
    /// # Errors
    /// As [`super::Output::upload`].
    pub(super) fn create(url: &str, overwrite: bool, tmp_dir: Option<&Path>) -> Result<(File, PathBuf, Self)> {
        let free = if overwrite { Free::Overwrite } else { Free::MustBeNew };
        begin(url, free)?;
        let object = Self { url: url.into(), free };
        is_free(&object.incomplete(), free)?;
        let dir = tmp_dir.map_or_else(std::env::temp_dir, PathBuf::from);
        let failed = |e| Error::write(format!("a temporary file in {}; --tmp-dir names another", dir.display()), e);
        let file = tempfile::Builder::new().prefix("xdump-cut-").tempfile_in(&dir).map_err(failed)?;
        // Whoever has the file removes it.
        let (file, path) = file.keep().map_err(|e| failed(e.error))?;
        Ok((file, path, object))
    }

    fn incomplete(&self) -> String {
        format!("{}.incomplete", self.url)
    }

    /// Whether its name is still free, or need not be.
    ///
    /// # Errors
    /// [`Error::OutputExists`].
    pub(super) fn is_free(&self) -> Result<()> {
        is_free(&self.url, self.free)
    }

    /// Puts it into the store; where. If that fails, the file stays, and it is said where.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::Write`].
    pub(super) fn finish(self, file: &File, temporary: PathBuf, complete: bool) -> Result<String> {
        let url = if complete { self.url } else { self.incomplete() };
        let done = put(file, &url, self.free);
        let kept = || format!("{} (the cut is complete in {})", shown(Path::new(&url)), temporary.display());
        match done {
            Ok(()) => {
                let _ = std::fs::remove_file(&temporary);
                Ok(shown(Path::new(&url)))
            }
            Err(Error::Write { source, .. }) if complete => Err(Error::write(kept(), source)),
            Err(e) => {
                let _ = std::fs::remove_file(&temporary);
                Err(e)
            }
        }
    }
}
