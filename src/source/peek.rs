//! What a file is, by its first bytes only: for whoever looks at thousands of them.

use super::OpenOptions;
use super::elf::Vmcore;
use super::flat::{self, Judge, RECORD_HEADER, Step};
use super::kdump::{self, Header};
use super::storage::{FileSource, ReadAt};
use super::unpack::{HEAD, Packed};
use crate::bytes::array_at;
use crate::error::{Error, Result};
use crate::objects;
use std::fs::File;
use std::path::Path;

/// What a file is, as far as its first bytes tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looks {
    /// What it is wrapped in, from the outside to the inside: `gzip`, `flattened`.
    pub layers: Vec<String>,
    /// Whether its pages are compressed, each by itself.
    pub packed: bool,
    /// Of a file of a split dump: what it has in common with the others, and its PFNs, first and one more than the last.
    pub part: Option<(Vec<u8>, (u64, u64))>,
}

/// Looks at the first bytes of a file, or of an object.
///
/// # Errors
/// [`Error::NotElf`] and [`Error::WrongElf`] for what is no dump at all; those of the operating system; others for what may be a
/// dump that is damaged.
pub fn peek(path: &Path) -> Result<Looks> {
    if let Some(url) = objects::url(path) {
        // Of all that may be looked at, a little is.
        let options = OpenOptions { cache: 4 * HEAD as u64, threads: 1, ..OpenOptions::default() };
        return look(&*super::object(url, &options)?);
    }
    let file = File::open(path).map_err(|e| Error::read("the dump", e))?;
    look(&FileSource::new(file)?)
}

fn look(source: &dyn ReadAt) -> Result<Looks> {
    let (layers, mut head) = Packed::plainly(source).peek()?;
    if layers.last().is_some_and(|l| l == flat::LAYER) {
        head = flattened(&head);
    }
    let elf = |layers| Looks { layers, packed: false, part: None };
    if !head.starts_with(kdump::SIGNATURE) {
        return match Vmcore::parse(&head) {
            // More program headers than were read.
            Err(Error::Damaged { .. }) if head.len() >= HEAD => Ok(elf(layers)),
            // Where a flattened stream has its headers last.
            Err(Error::NotElf { .. }) if layers.iter().any(|l| l == flat::LAYER) => Ok(elf(layers)),
            Err(e) => Err(e),
            Ok(_) => Ok(elf(layers)),
        };
    }
    let header = Header::read(&head)?;
    let same = [&header.machine[..], &header.max_mapnr.to_le_bytes(), &header.level.to_le_bytes()].concat();
    Ok(Looks { layers, packed: header.codecs != 0, part: header.split.map(|range| (same, range)) })
}

/// What the first records of a stream write to the first bytes of the file.
fn flattened(stream: &[u8]) -> Vec<u8> {
    let (mut judge, mut at, mut head) = (Judge::default(), flat::RECORDS as usize, Vec::new());
    while let Some(header) = array_at::<RECORD_HEADER>(stream, at) {
        let data = at + RECORD_HEADER;
        let left = stream.len().saturating_sub(data);
        let Step::Use(start, size) = judge.step(header, u64::MAX) else { break };
        let (start, size) = (usize::try_from(start).unwrap_or(HEAD), usize::try_from(size).unwrap_or(usize::MAX));
        if start < HEAD {
            let bytes = stream.get(data..data + size.min(left).min(HEAD - start)).unwrap_or_default();
            if head.len() < start + bytes.len() {
                head.resize(start + bytes.len(), 0);
            }
            if let Some(there) = head.get_mut(start..start + bytes.len()) {
                there.copy_from_slice(bytes);
            }
        }
        if size > left {
            break;
        }
        at = data + size;
    }
    head
}
