//! Ranges of an object, again and again until they come.

use super::super::origin::Origin;
use super::extents::BLOCK;
use crate::error::{Error, Result};
use crate::objects::store::Spot;
use crate::objects::{may_pass, told};
use futures_util::StreamExt;
use object_store::{Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStoreExt};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How often the data of an answer may break off.
const MOST_BREAKS: u32 = 8;
/// Between such tries, at first.
const PAUSE: Duration = Duration::from_millis(100);

/// What the first request brings.
pub(super) struct First {
    pub(super) meta: ObjectMeta,
    pub(super) bytes: Vec<u8>,
}

/// Asks for the first block, which tells the object's size as well: a URL that is signed lets nothing be asked but to read.
pub(super) async fn first(spot: &Spot) -> Result<First> {
    let mut breaks = 0;
    loop {
        let options = GetOptions { range: Some(GetRange::Bounded(0..BLOCK)), ..GetOptions::default() };
        let done = match spot.store.get_opts(&spot.key, options).await {
            Ok(got) => {
                let meta = got.meta.clone();
                got.bytes().await.map(|bytes| First { meta, bytes: bytes.to_vec() })
            }
            // Of an empty object there is no range.
            Err(e) => match spot.store.head(&spot.key).await {
                Ok(meta) if meta.size == 0 => return Err(super::empty()),
                _ => return Err(reading(spot, &e)),
            },
        };
        match done {
            Ok(first) => return Ok(first),
            Err(e) if breaks >= MOST_BREAKS || !may_pass(&e) => return Err(reading(spot, &e)),
            Err(_) => breaks += 1,
        }
        tokio::time::sleep(PAUSE * breaks).await;
    }
}

fn reading(spot: &Spot, e: &StoreError) -> Error {
    let e = told(&spot.url, e);
    if e.kind() == io::ErrorKind::Unsupported {
        return Error::Usage(e.to_string());
    }
    Error::read("the object", e)
}

/// What fetches, of one object and no other that takes its name.
#[derive(Debug)]
pub(super) struct Fetcher {
    spot: Spot,
    meta: ObjectMeta,
    origin: Arc<Origin>,
}

impl Fetcher {
    pub(super) fn new(spot: Spot, meta: ObjectMeta, origin: Arc<Origin>) -> Self {
        Self { spot, meta, origin }
    }

    /// The bytes of a range. What came before the data broke off is kept.
    pub(super) async fn fetch(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        let mut breaks = 0;
        loop {
            let from = range.start + bytes.len() as u64;
            if from >= range.end {
                return Ok(bytes);
            }
            let before = bytes.len();
            let Err(e) = self.part(from..range.end, &mut bytes).await else { continue };
            breaks = if bytes.len() > before { 1 } else { breaks + 1 };
            match e {
                Broke::ForGood(e) => return Err(e),
                Broke::Off(e) if breaks > MOST_BREAKS => return Err(told(&self.spot.url, &e)),
                Broke::Off(_) => tokio::time::sleep(PAUSE * breaks).await,
            }
        }
    }

    async fn part(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), Broke> {
        self.origin.asked();
        // A weak one is the same for contents that differ, and never matches.
        let if_match = self.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), if_match, ..GetOptions::default() };
        let got = self.spot.store.get_opts(&self.spot.key, options).await;
        let got = got.map_err(|e| Broke::ForGood(told(&self.spot.url, &e)))?;
        if !self.is_same(&got.meta) {
            let why = format!("the object has changed meanwhile ({}); start again", self.change(&got.meta));
            return Err(Broke::ForGood(io::Error::other(why)));
        }
        let mut most = (range.end - range.start) as usize;
        let mut stream = got.into_stream();
        while let Some(part) = stream.next().await {
            let part = part.map_err(Broke::Off)?;
            self.origin.came(part.len() as u64);
            let part = part.get(..most).unwrap_or(&part);
            bytes.extend_from_slice(part);
            most -= part.len();
        }
        Ok(())
    }

    fn is_same(&self, now: &ObjectMeta) -> bool {
        let same_tag = match (&self.meta.e_tag, &now.e_tag) {
            (Some(then), Some(now)) => then == now,
            (None, None) => self.meta.last_modified == now.last_modified || self.meta.last_modified.timestamp() == 0,
            _ => false,
        };
        same_tag && self.meta.size == now.size
    }

    fn change(&self, now: &ObjectMeta) -> String {
        let tag = |meta: &ObjectMeta| meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_string());
        format!("{} bytes, {} before, {} bytes, {} now", self.meta.size, tag(&self.meta), now.size, tag(now))
    }
}

/// Why an answer was not all.
enum Broke {
    /// The data broke off.
    Off(StoreError),
    /// The library has tried often enough, or it is hopeless.
    ForGood(io::Error),
}
