//! What is known of objects that a dump is fetched from: how much was, and whether it failed.

use super::storage::History;
use crate::error::{Error, Result};
use serde::Serialize;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// An object of a store, as it is read. All who read of it share this.
#[derive(Debug)]
pub struct Origin {
    /// Its URL, without secrets.
    pub url: String,
    /// Its size in bytes.
    pub size: u64,
    bytes: AtomicU64,
    requests: AtomicU64,
    trouble: OnceLock<(io::ErrorKind, String)>,
}

/// Two are the same only if they are one.
impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Origin {}

/// How much was fetched of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// How many objects there are.
    pub objects: u64,
    /// Their sizes, in bytes.
    pub of_bytes: u64,
    /// Bytes of them that came over the network.
    pub bytes: u64,
    /// Requests that were made for that.
    pub requests: u64,
}

#[cfg_attr(not(feature = "objects"), allow(dead_code, reason = "objects are read with the feature only"))]
impl Origin {
    pub(super) fn new(url: String, size: u64) -> Self {
        Self { url, size, bytes: AtomicU64::new(0), requests: AtomicU64::new(0), trouble: OnceLock::new() }
    }

    pub(super) fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn came(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Nothing more can be read of it, and nothing of what was read should be used: the first reason stays.
    pub(super) fn fail(&self, kind: io::ErrorKind, why: String) {
        let _ = self.trouble.set((kind, why));
    }

    /// Why nothing more can be read of it, if that is so.
    pub(super) fn trouble(&self) -> Option<io::Error> {
        self.trouble.get().map(|(kind, why)| io::Error::new(*kind, why.clone()))
    }
}

impl History {
    /// How much was fetched, if the dump comes from objects.
    pub fn fetched(&self) -> Option<Fetched> {
        let (first, all) = (self.origins.first(), &self.origins);
        first.map(|_| Fetched {
            objects: all.len() as u64,
            of_bytes: all.iter().map(|o| o.size).sum(),
            bytes: all.iter().map(|o| o.bytes.load(Ordering::Relaxed)).sum(),
            requests: all.iter().map(|o| o.requests.load(Ordering::Relaxed)).sum(),
        })
    }

    /// An error if an object could not be read, in which case nothing that was made of it should be believed: a page of it
    /// that is missing is no damage, and may be had the next time.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn came_through(&self) -> Result<()> {
        match self.origins.iter().find_map(|o| o.trouble().map(|e| (o, e))) {
            Some((origin, e)) => Err(Error::read(&origin.url, e)),
            None => Ok(()),
        }
    }

    /// What was done with it, or the trouble with reading it, which is the cause of all else.
    ///
    /// # Errors
    /// As [`Self::came_through`], or that of `done`.
    pub fn or_trouble<T>(&self, done: Result<T>) -> Result<T> {
        self.came_through().and(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::sync::Arc;

    #[test]
    fn the_first_trouble_comes_before_what_follows_from_it() {
        let origins = vec![Arc::new(Origin::new("s3://b/a".into(), 10)), Arc::new(Origin::new("s3://b/k".into(), 5))];
        let mut history = History { origins, ..History::default() };
        assert_eq!(History::none().fetched(), None);
        history.origins[0].asked();
        history.origins[1].came(3);
        let fetched = Fetched { objects: 2, of_bytes: 15, bytes: 3, requests: 1 };
        assert_eq!(history.fetched(), Some(fetched));
        assert_eq!(history.or_trouble(Ok(1)).unwrap(), 1);
        history.origins[1].fail(io::ErrorKind::Other, "gone".into());
        history.origins[1].fail(io::ErrorKind::Other, "still gone".into());
        let e = history.or_trouble::<()>(Err(Error::NotXen("no notes".into()))).unwrap_err();
        assert_eq!((e.to_string().as_str(), e.kind()), ("reading s3://b/k: gone", Kind::Trouble));
        history.origins.clear();
        assert!(history.came_through().is_ok());
    }
}
