//! The kdump-compressed format, version 6 (makedumpfile: diskdump_mod.h; crash: diskdump.h). All little-endian here.
//!
//! Blocks of 4096 bytes: the header; the sub-header, with the notes behind it; bitmap 1, pages that exist; bitmap 2,
//! pages with a descriptor, so that readers say "excluded" of those that are in the first one only; a descriptor of 24
//! bytes (offset `i64`, size `u32`, flags `u32`, page flags `u64`) for each bit of bitmap 2, in order of PFN; page data. A zero page has a descriptor like any other, and all of them
//! share one raw zero page, so that readers see zeros and not "excluded". Pages that are one word over and over share the
//! first of their kind. Data of pages that readers need first stand first ([`crate::plan::order`]).
//!
//! Each file of a split dump has all headers and both bitmaps, but descriptors and data of its own range of PFNs only.
//!
//! Until it is complete, a file says that it is not, so that what a killed or stopped run leaves can be used: a new file's
//! last descriptors are zeros, which readers take for pages that were not written.

mod header;
mod pack;

use super::{Facts, Output, Written};
use crate::error::{Error, Result};
use crate::pipeline::codec::{Codec, Compressor};
use crate::pipeline::crew::Crew;
use crate::pipeline::digest::{Digest, HEX_DIGITS};
use crate::pipeline::find::find_data;
use crate::pipeline::ordered::ordered;
use crate::pipeline::walk::{Walker, chunks};
use crate::pipeline::{Progress, advance};
use crate::plan::order::Rank;
use crate::units::{PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE, Pfn};
use header::{DESCRIPTOR, Layout, notes_at, write_bitmap};
use pack::{Packed, Packer, Stored};
use std::collections::HashMap;

/// Pages that the bitmaps may speak of, 64 TiB: each takes 2 GiB then.
const MOST_MAPNR: u64 = 1 << 34;
/// Bytes of old descriptors that are cleared at once.
const CLEARED: usize = 1 << 20;
/// Words whose page is remembered.
const MOST_WORDS: usize = 4096;

/// Writes the dump, split over `outs` if there are several.
///
/// # Errors
/// [`Error::Write`], but for a full disk; [`Error::Usage`] if the domain has memory where the format cannot.
pub fn write(
    walker: &Walker<'_>,
    facts: &Facts,
    codec: Codec,
    outs: &[Output],
    crew: &Crew,
    progress: &dyn Progress,
) -> Result<Written> {
    let plan = walker.plan();
    let max_mapnr = plan.end().0;
    if max_mapnr > MOST_MAPNR {
        let why = "too high for the bitmaps of the kdump format; give --format elf";
        let at = (max_mapnr - 1) << PAGE_SHIFT;
        return Err(Error::Usage(format!("the domain has memory at machine address {at:#x}, {why}")));
    }
    let mut files = files(walker, facts, codec, outs, crew, progress)?;
    for file in &files {
        // A stream's header cannot be mended at its end; that it has none says that it was cut short.
        let unfinished = file.out.mode() == super::Mode::Positions;
        file.out.write_at(&file.layout.header(facts, codec, unfinished), 0)?;
        write_sub_header(file.out, &file.layout.sub_header(facts, plan.level), facts.notes.digest)?;
    }
    if let Some(file) = files.first() {
        let (first, second) = file.layout.bitmaps();
        write_bitmap(max_mapnr, plan.known(), outs, first)?;
        write_bitmap(max_mapnr, plan.pieces(), outs, second)?;
    }
    for file in &files {
        let padding = file.layout.zero_page - (file.layout.descriptors + file.pages * DESCRIPTOR);
        if file.out.mode() == super::Mode::Positions && !file.out.is_new() {
            // What stood on the device before must not be taken for descriptors.
            let end = file.layout.zero_page - padding;
            let parts = (file.layout.descriptors..end).step_by(CLEARED);
            parts
                .map(|at| (at, (end - at).min(CLEARED as u64)))
                .try_for_each(|(at, len)| file.out.write_at(&vec![0; len as usize], at))?;
        }
        let zeros = vec![0; padding as usize + PAGE_SIZE];
        file.out.write_at(&zeros, file.layout.zero_page - padding)?;
    }
    // The digest is one of pages in order of PFN.
    let earlier = match facts.notes.digest {
        Some(_) if !plan.order.is_flat() => find_data(walker, true, crew, progress)?.digest,
        _ => None,
    };
    progress.stage("writing pages", Some(plan.pages()));
    let mut written = Written::default();
    let mut digest = facts.notes.digest.filter(|_| earlier.is_none()).map(|_| Digest::default());
    let packer = Packer::new(walker, codec, digest.is_some());
    let mut write = |rank| {
        ordered(
            crew,
            walker.chunks(rank),
            |chunk| packer.pack(chunk, rank),
            |packed: Packed| {
                let current = files.partition_point(|f| f.first <= packed.first).saturating_sub(1);
                let Some(file) = files.get_mut(current) else { return Ok(()) };
                let pages = file.append(&packed, &mut written)?;
                if let Some(digest) = &mut digest {
                    digest.add(&packed.leaves);
                }
                packer.reuse(packed);
                advance(progress, pages)
            },
        )
    };
    let result = match plan.order.is_flat() {
        true => write(None),
        false => Rank::ALL.into_iter().try_for_each(|rank| write(Some(rank))),
    };
    match result {
        // What is there is worth having.
        Err(e) if e.ends_early() && outs.iter().all(|o| o.mode() == super::Mode::Positions) => {
            written.incomplete = Some(e.to_string());
        }
        other => other?,
    }
    let incomplete = written.incomplete.is_some();
    if let (Some(digest), Some(at)) = (earlier.or(digest.map(|d| d.text())), facts.notes.digest) {
        written.digest = Some(digest).filter(|_| !incomplete);
        let text = written.digest.clone().unwrap_or_else(|| "0".repeat(HEX_DIGITS));
        outs.iter().try_for_each(|out| out.write_at(text.as_bytes(), notes_at() + at as u64))?;
    }
    for file in &files {
        if file.out.mode() == super::Mode::Positions {
            file.out.write_at(&file.layout.header(facts, codec, incomplete), 0)?;
        }
        file.out.set_len(file.end)?;
    }
    written.bytes = files.iter().map(|f| f.end).sum();
    Ok(written)
}

/// Writes it, but for the digest, which comes at the end: readers of flattened files do not like records that overlap.
fn write_sub_header(out: &Output, bytes: &[u8], digest: Option<usize>) -> Result<()> {
    let Some(at) = digest else { return out.write_at(bytes, PAGE_BYTES) };
    let (first, end) = (header::SUB_HEADER + at, header::SUB_HEADER + at + HEX_DIGITS);
    out.write_at(bytes.get(..first).unwrap_or_default(), PAGE_BYTES)?;
    out.write_at(bytes.get(end..).unwrap_or_default(), PAGE_BYTES + end as u64)
}

/// One file as it grows.
#[derive(Debug)]
struct File<'o> {
    out: &'o Output,
    layout: Layout,
    /// Its first page's position among all pages of the plan, and how many it has.
    first: u64,
    pages: u64,
    /// Where the next data stand.
    end: u64,
    /// Where pages of one word stand, and how.
    words: HashMap<u64, (u64, u32, u32)>,
    compressor: Compressor,
    codec: Codec,
}

/// Shares the pages out: whole chunks, and as many that are not zero to each.
fn files<'o>(
    walker: &Walker<'_>,
    facts: &Facts,
    codec: Codec,
    outs: &'o [Output],
    crew: &Crew,
    progress: &dyn Progress,
) -> Result<Vec<File<'o>>> {
    let plan = walker.plan();
    let count = outs.len() as u64;
    // The first page of each: its position, and its PFN.
    let mut starts: Vec<(u64, Pfn)> = vec![(0, Pfn(0))];
    if count > 1 {
        // By pages that hold something: by all pages, the file with low memory would have nearly everything.
        let data = find_data(walker, false, crew, progress)?.data;
        let all = data.count();
        let mut before = 0;
        let mut left = chunks(plan).count();
        for chunk in chunks(plan) {
            let share = all * starts.len() as u64 / count;
            // Each gets one at least.
            let due = before >= share || left <= outs.len() - starts.len();
            left -= 1;
            if starts.len() < outs.len() && due && chunk.first > 0 {
                starts.push((chunk.first, walker.first_pfn(chunk)));
            }
            before += data.count_range(chunk.first, chunk.pages);
        }
        if starts.len() < outs.len() {
            return Err(Error::Usage(format!(
                "{} pages are too few for {count} files; {} can be had",
                plan.pages(),
                starts.len()
            )));
        }
    }
    let mut files = Vec::with_capacity(outs.len());
    for (n, (out, start)) in outs.iter().zip(&starts).enumerate() {
        let end = starts.get(n + 1).copied().unwrap_or((plan.pages(), plan.end()));
        let pages = end.0 - start.0;
        let layout = Layout::new(facts, plan.end().0, pages, (count > 1).then_some((start.1, end.1)));
        files.push(File {
            out,
            layout,
            first: start.0,
            pages,
            end: layout.zero_page + PAGE_BYTES,
            words: HashMap::new(),
            compressor: codec.compressor()?,
            codec,
        });
    }
    Ok(files)
}

impl File<'_> {
    /// Appends a chunk's pages: data, then descriptors, so that none speaks of what is not there. How many there were.
    fn append(&mut self, packed: &Packed, written: &mut Written) -> Result<u64> {
        // Descriptors in a row, and where they begin.
        let mut tables: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut next = self.layout.descriptors + (packed.first - self.first) * DESCRIPTOR;
        let mut done = 0;
        let mut offset = self.end;
        // Pages of one word that were not seen before stand behind the others.
        let (mut extra, extra_at) = (Vec::new(), self.end + packed.data.len() as u64);
        let (mut lost, mut zero, mut stored) = (Vec::new(), 0, 0);
        for page in &packed.pages {
            let here = next;
            next += DESCRIPTOR;
            let (place, size, flags) = match *page {
                Stored::Other => continue,
                Stored::Zero => {
                    zero += 1;
                    (self.layout.zero_page, PAGE_SIZE as u32, 0)
                }
                Stored::Lost(why) => {
                    lost.push(why);
                    (0, 0, 0)
                }
                Stored::Data { size, compressed } => {
                    stored += 1;
                    let place = offset;
                    offset += u64::from(size);
                    (place, size, if compressed { self.codec.flag() } else { 0 })
                }
                Stored::Word(word) => {
                    stored += 1;
                    self.word(word, &mut extra, extra_at)
                }
            };
            done += 1;
            if tables.last().is_none_or(|(at, table)| at + table.len() as u64 != here) {
                tables.push((here, Vec::with_capacity(packed.pages.len() * DESCRIPTOR as usize)));
            }
            if let Some((_, table)) = tables.last_mut() {
                table.extend(place.to_le_bytes());
                table.extend(size.to_le_bytes());
                table.extend(flags.to_le_bytes());
                table.extend(0_u64.to_le_bytes());
            }
        }
        self.out.write_at(&packed.data, self.end)?;
        self.out.write_at(&extra, extra_at)?;
        tables.iter().try_for_each(|(at, table)| self.out.write_at(table, *at))?;
        self.end = extra_at + extra.len() as u64;
        lost.into_iter().for_each(|why| *written.lost.entry(why).or_default() += 1);
        written.zero += zero;
        written.stored += stored;
        Ok(done)
    }

    /// The place of the page that is `word` over and over, its size and its flag; a new one goes to `extra`, which will
    /// stand at `at`.
    fn word(&mut self, word: u64, extra: &mut Vec<u8>, at: u64) -> (u64, u32, u32) {
        if let Some(place) = self.words.get(&word) {
            return *place;
        }
        let place = at + extra.len() as u64;
        let before = extra.len();
        let compressed = self.compressor.append(&word.to_le_bytes().repeat(PAGE_SIZE / 8), extra);
        let stored = (place, (extra.len() - before) as u32, if compressed { self.codec.flag() } else { 0 });
        if self.words.len() < MOST_WORDS {
            self.words.insert(word, stored);
        }
        stored
    }
}
