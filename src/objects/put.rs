//! A file as an object: all of it, or nothing.

use super::store::{Patience, Spot, wait};
use super::told::told;
use crate::error::{Error, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::{
    Error as StoreError, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a part, at least.
const PART: u64 = 8 << 20;
/// Parts that an object may have: S3 takes 10000.
const MOST_PARTS: u64 = 9000;
/// Bytes in memory: parts on their way.
const MOST_MEMORY: u64 = 32 << 20;

/// What may be written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Free {
    /// Anything.
    Overwrite,
    /// Nothing: there must be no object of this name.
    MustBeNew,
}

/// Looks whether an object can be written: its name is free, and the server lets us.
///
/// # Errors
/// [`Error::OutputExists`], [`Error::Usage`], [`Error::Write`].
pub(crate) fn begin(url: &str, free: Free) -> Result<()> {
    if url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http")) {
        return Err(Error::Usage("nothing can be written to http:// and https://; give s3://, gs:// or a file".into()));
    }
    is_free(url, free)?;
    let spot = Spot::of_object(url, Patience::Little)?;
    // It is better told now than after all is cut: who may not write may not begin to.
    wait(async {
        let mut upload = spot.store.put_multipart(&spot.key).await?;
        // What is left of it holds nothing.
        let _ = upload.abort().await;
        Ok(())
    })?
    .map_err(|e| Error::write(&spot.url, told(&spot.url, &e)))
}

/// Looks whether a name is free, if it must be.
///
/// # Errors
/// [`Error::OutputExists`], [`Error::Usage`], [`Error::Write`].
pub(crate) fn is_free(url: &str, free: Free) -> Result<()> {
    let spot = Spot::of_object(url, Patience::Little)?;
    let taken = free == Free::MustBeNew && exists(&spot)?;
    if taken { Err(Error::OutputExists(spot.url)) } else { Ok(()) }
}

/// Whether there is an object of this name, as far as the server tells: those who may only write are not told.
pub(super) fn exists(spot: &Spot) -> Result<bool> {
    match wait(spot.store.head(&spot.key))? {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. } | StoreError::PermissionDenied { .. }) => Ok(false),
        Err(e) => Err(Error::write(&spot.url, told(&spot.url, &e))),
    }
}

/// Puts a file into a store, in parts. Its name appears with the last of them.
///
/// # Errors
/// [`Error::OutputExists`], [`Error::Write`].
pub(crate) fn put(file: &File, url: &str, free: Free) -> Result<()> {
    let spot = Spot::of_object(url, Patience::Much)?;
    let len = file.metadata().map_err(|e| Error::write(&spot.url, e))?.len();
    if len <= PART {
        let bytes = read(file, 0, len).map_err(|e| Error::write(&spot.url, e))?;
        return small(&spot, bytes, free);
    }
    let part = PART.max(len.div_ceil(MOST_PARTS).next_multiple_of(1 << 20));
    wait(parts(&spot, file, len, part, free))?
}

fn read(file: &File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn small(spot: &Spot, bytes: Vec<u8>, free: Free) -> Result<()> {
    let payload = PutPayload::from(bytes);
    let put = |mode| {
        let options = PutOptions { mode, ..PutOptions::default() };
        wait(spot.store.put_opts(&spot.key, payload.clone(), options))
    };
    let failed = |e: &StoreError| Error::write(&spot.url, told(&spot.url, e));
    if free == Free::Overwrite {
        return put(PutMode::Overwrite)?.map(drop).map_err(|e| failed(&e));
    }
    match put(PutMode::Create)? {
        Ok(_) => Ok(()),
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
            Err(Error::OutputExists(spot.url.clone()))
        }
        // A store that cannot refuse: a look before it has to do.
        Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
            if exists(spot)? {
                return Err(Error::OutputExists(spot.url.clone()));
            }
            put(PutMode::Overwrite)?.map(drop).map_err(|e| failed(&e))
        }
        Err(e) => Err(failed(&e)),
    }
}

async fn parts(spot: &Spot, file: &File, len: u64, part: u64, free: Free) -> Result<()> {
    let failed = |e: &StoreError| Error::write(&spot.url, told(&spot.url, e));
    let mut upload = spot.store.put_multipart(&spot.key).await.map_err(|e| failed(&e))?;
    let done = all_parts(spot, &mut *upload, file, len, part).await;
    // Stores know no condition on objects of parts.
    let taken = done.is_ok() && free == Free::MustBeNew && spot.store.head(&spot.key).await.is_ok();
    let done = match done {
        Ok(()) if taken => Err(Error::OutputExists(spot.url.clone())),
        Ok(()) => upload.complete().await.map(drop).map_err(|e| failed(&e)),
        Err(e) => Err(e),
    };
    if done.is_err() {
        let _ = upload.abort().await;
    }
    done
}

async fn all_parts(spot: &Spot, upload: &mut dyn MultipartUpload, file: &File, len: u64, part: u64) -> Result<()> {
    let most = (MOST_MEMORY / part).max(1) as usize;
    let (mut at, mut on_the_way) = (0, FuturesUnordered::new());
    while at < len || !on_the_way.is_empty() {
        if at < len && on_the_way.len() < most {
            let n = part.min(len - at);
            let bytes = read(file, at, n).map_err(|e| Error::write(&spot.url, e))?;
            on_the_way.push(upload.put_part(PutPayload::from(bytes)));
            at += n;
        } else if let Some(Err(e)) = on_the_way.next().await {
            return Err(Error::write(&spot.url, told(&spot.url, &e)));
        }
    }
    Ok(())
}
