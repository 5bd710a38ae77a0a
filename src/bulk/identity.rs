//! By what a file is known again.

use super::Name;
use crate::error::{Error, Result};
use crate::objects::{self, Object};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Bytes at each end of a file that the digest is of: headers and notes are at the start, what is appended is at the end.
const LOOKED_AT: u64 = 64 << 10;

/// A file as it was when it was looked at. It is taken for unchanged if all of this is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Where it is.
    pub path: Name,
    /// Bytes.
    pub size: u64,
    /// When it was changed last, in nanoseconds since 1970.
    pub mtime: i128,
    /// BLAKE3 of its first and its last 64 KiB, in hex; of an object in a store, its ETag, if the server tells.
    pub digest: String,
}

impl Identity {
    /// Looks at a file, or asks the server of an object.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn of(path: &Path) -> Result<Self> {
        if let Some(url) = objects::url(path) {
            return Ok(Self::of_object(&objects::head(url)?));
        }
        let failed = |e| Error::read(path.display().to_string(), e);
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let size = meta.len();
        let mut hash = blake3::Hasher::new();
        let mut buf = vec![0; LOOKED_AT.min(size) as usize];
        for at in [0, size.saturating_sub(LOOKED_AT)] {
            file.read_exact_at(&mut buf, at).map_err(failed)?;
            hash.update(&buf);
        }
        let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Ok(Self { path: path.into(), size, mtime, digest: hash.finalize().to_hex().to_string() })
    }

    /// What a server says of an object.
    pub fn of_object(object: &Object) -> Self {
        let mtime = object.modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        let digest = object.etag.clone().unwrap_or_default();
        Self { path: Name(object.url.clone().into()), size: object.size, mtime, digest }
    }

    /// Whether the file is still what it was.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn holds(&self) -> Result<bool> {
        Ok(Self::of(&self.path.0)? == *self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_anywhere_that_counts_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let first = Identity::of(&path).unwrap();
        assert!(first.holds().unwrap());
        let stamp = File::open(&path).unwrap().metadata().unwrap().modified().unwrap();
        for change in [0, 299_999] {
            let mut other = bytes.clone();
            other[change] ^= 1;
            std::fs::write(&path, &other).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
            let seen = Identity::of(&path).unwrap();
            assert_eq!((seen.size, seen.mtime), (first.size, first.mtime));
            assert_ne!(seen.digest, first.digest);
        }
        std::fs::write(&path, &bytes).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
        assert!(first.holds().unwrap());
        std::fs::write(&path, []).unwrap();
        assert_eq!(Identity::of(&path).unwrap().size, 0);
        assert!(Identity::of(dir.path()).is_err());
    }
}
