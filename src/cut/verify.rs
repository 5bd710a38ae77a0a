//! Reading the output again, by the program's own input side, and holding each page against the source.

use crate::error::{Absence, Error, Result};
use crate::pipeline::crew::Crew;
use crate::pipeline::digest::HEX_DIGITS;
use crate::pipeline::ordered::ordered;
use crate::pipeline::walk::{Chunk, Piece, Walker};
use crate::pipeline::{Progress, advance};
use crate::sink::{Facts, Output, Written};
use crate::source::machine::Run;
use crate::source::notes::Notes;
use crate::source::xc_core::DumpCore;
use crate::source::{self, MachineMemory, OpenOptions};
use crate::units::{Mfn, PAGE_SIZE, Pfn};
use crate::zero::is_zero;

/// Compares all that was written with what `walker` has; how many pages that is.
///
/// # Errors
/// [`Error::Unverified`] with the first difference.
pub(super) fn verify(
    walker: &Walker<'_>,
    facts: &Facts,
    written: &Written,
    outs: &[Output],
    crew: &Crew,
    progress: &dyn Progress,
) -> Result<u64> {
    progress.stage("verifying", Some(walker.plan().pages()));
    let mut files = Vec::new();
    for out in outs {
        let Some(file) = out.reopen() else {
            return Err(Error::Usage("a stream cannot be verified".into()));
        };
        files.push(file?);
    }
    // Reads of a disk that fails are errors then, and nothing worse.
    let options = OpenOptions { no_mmap: true, ..OpenOptions::default() };
    let unreadable = |e: Error| Error::Unverified(e.to_string());
    let output = source::open_files(files, &options).map_err(unreadable)?;
    let (core, mem) = source::read(&*output).map_err(unreadable)?;
    let dump_core = core.dump_core();
    // The first frame of ELF in zstd, with the digest, is long written when it ends early.
    let old_digest = written.incomplete.is_some() && facts.notes.digest.is_some();
    if dump_core.is_none() && !old_digest {
        same_notes(facts, written, core.notes().map(|n| (n.name, n.kind, n.desc)))?;
    }
    let check = Check { walker, output: &mem, dump_core, incomplete: written.incomplete.is_some() };
    let mut found = 0;
    ordered(
        crew,
        walker.chunks(None),
        |c| check.chunk(c),
        |pages| {
            found += pages;
            advance(progress, pages)
        },
    )?;
    let expected = written.stored + written.zero;
    // Of what was being written when there was no more room, some may be there.
    if found != expected && !(written.incomplete.is_some() && found > expected) {
        return Err(Error::Unverified(format!("it has {found} pages, and {expected} were written")));
    }
    Ok(found)
}

/// Compares the notes, of which the digest was found while the pages were written.
fn same_notes<'n>(
    facts: &Facts,
    written: &Written,
    mut there: impl Iterator<Item = (&'n [u8], u32, &'n [u8])>,
) -> Result<()> {
    let mut bytes = facts.notes.bytes.clone();
    let digits = facts.notes.digest.and_then(|at| bytes.get_mut(at..at + HEX_DIGITS));
    if let Some((place, text)) = digits.zip(written.digest.as_ref()).filter(|(place, text)| place.len() == text.len()) {
        place.copy_from_slice(text.as_bytes());
    }
    for note in Notes::new(&bytes, 4) {
        if there.next() != Some((note.name, note.kind, note.desc)) {
            let name = String::from_utf8_lossy(note.name);
            return Err(Error::Unverified(format!("its note {name} (type {:#x}) differs", note.kind)));
        }
    }
    Ok(())
}

struct Check<'c, 'a> {
    walker: &'c Walker<'a>,
    output: &'c MachineMemory<'c>,
    /// Of a file of xl dump-core: where each page stands.
    dump_core: Option<&'c DumpCore>,
    incomplete: bool,
}

impl Check<'_, '_> {
    /// How many pages of the chunk are there, and right.
    fn chunk(&self, chunk: Chunk) -> Result<u64> {
        let (mut buffer, mut found) = (Vec::new(), 0);
        self.walker.visit(chunk, |pfn, piece| {
            match piece {
                Piece::Plain(bytes) => {
                    found += self.pages(
                        pfn,
                        bytes.len() / PAGE_SIZE,
                        |n, page| bytes.get(n * PAGE_SIZE..n * PAGE_SIZE + page.len()) == Some(page),
                        &mut buffer,
                    )?;
                }
                Piece::Altered(page) => found += self.pages(pfn, 1, |_, there| there == &page[..], &mut buffer)?,
                Piece::Zeros(n) => found += self.pages(pfn, n as usize, |_, there| is_zero(there), &mut buffer)?,
                Piece::Lost(_) => {
                    if self.output(pfn, 1, &mut buffer).is_ok() {
                        return Err(Error::Unverified(format!(
                            "PFN {pfn} is in it, but could not be read from the source"
                        )));
                    }
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Pages of the output from `pfn` on, `count` at most.
    fn output<'b>(&'b self, pfn: Pfn, count: usize, buffer: &'b mut Vec<u8>) -> Result<(Run<'b>, usize), Absence> {
        match self.dump_core {
            // Neighbours there need not have been neighbours in the machine.
            Some(core) => self.output.run(core.mfn(pfn).ok_or(Absence::NotInDump)?, 1, buffer),
            None => self.output.run(Mfn(pfn.0), count, buffer),
        }
    }

    /// Compares `count` pages of the output from `pfn` on; `same` has the position of the first page of some, and them.
    fn pages(&self, pfn: Pfn, count: usize, same: impl Fn(usize, &[u8]) -> bool, buffer: &mut Vec<u8>) -> Result<u64> {
        let (mut at, mut found) = (0, 0);
        while at < count {
            let number = Pfn(pfn.0 + at as u64);
            match self.output(number, count - at, buffer) {
                Ok((Run::Bytes(bytes), n)) if same(at, bytes) => (at, found) = (at + n, found + n as u64),
                Ok((Run::Zeros, n)) if (at..at + n).all(|i| same(i, &[0; PAGE_SIZE])) => {
                    (at, found) = (at + n, found + n as u64);
                }
                Ok((_, n)) => {
                    let what = if n == 1 {
                        format!("PFN {number}")
                    } else {
                        format!("PFN {number}, or one of {n} from there,")
                    };
                    return Err(Error::Unverified(format!("{what} has other content than in the source")));
                }
                Err(Absence::Incomplete | Absence::CutOff | Absence::NotInDump) if self.incomplete => at += 1,
                Err(why) => return Err(Error::Unverified(format!("PFN {number} {why}"))),
            }
        }
        Ok(found)
    }
}
