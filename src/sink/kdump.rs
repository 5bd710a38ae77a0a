//! The kdump-compressed format, version 6 (makedumpfile: diskdump_mod.h; crash: diskdump.h). All little-endian here.
//!
//! Blocks of 4096 bytes: the header; the sub-header, with the notes behind it; bitmap 1, pages that exist; bitmap 2,
//! pages with a descriptor, so that readers say "excluded" of those that are in the first one only; a descriptor of 24 bytes (offset `i64`, size `u32`, flags `u32`, page flags `u64`) for
//! each bit of bitmap 2, in order of PFN; page data. A zero page has a descriptor like any other, and all of them
//! share one raw zero page, so that readers see zeros and not "excluded".

use super::notes::NoteBlob;
use super::{Output, Written};
use crate::bitmap::Bitmap;
use crate::error::{Absence, Error, Result};
use crate::pipeline::Progress;
use crate::pipeline::codec::{Codec, Compressor};
use crate::pipeline::ordered::ordered;
use crate::pipeline::walk::{Chunk, Piece, Walker, chunks};
use crate::plan::level::Level;
use crate::units::{PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE};
use crate::xen::p2m::Run;
use crate::zero::is_zero;
use std::sync::Mutex;

const SUB_HEADER: usize = 104;
const DESCRIPTOR: u64 = 24;
/// Bytes of a bitmap that are written at once, or left out.
const BITMAP_PART: usize = 1 << 16;
/// Pages that the bitmaps may speak of, 64 TiB: each takes 2 GiB then.
const MOST_MAPNR: u64 = 1 << 34;
/// Chunks in flight: enough that a chunk full of data at the head of the queue does not stall those behind it, which may
/// be all zeros and done at once. Each holds 1 MiB of output at most.
fn window(threads: usize) -> usize {
    (3 * threads).max(32)
}

/// What stands in the headers.
#[derive(Debug)]
pub struct Header<'a> {
    /// sysname, nodename, release, version, machine, domainname.
    pub uts: &'a [String; 6],
    /// VMCOREINFO's phys_base; 0 in a PV kernel.
    pub phys_base: i64,
    /// Number of CPUs that the notes have registers of.
    pub cpus: u32,
    /// All notes.
    pub notes: &'a NoteBlob,
    /// How pages are compressed.
    pub codec: Codec,
}

/// A worker's result: data, and for each page where in it and how.
struct Packed {
    data: Vec<u8>,
    pages: Vec<Stored>,
}

#[derive(Clone, Copy)]
enum Stored {
    Zero,
    Lost(Absence),
    Data { size: u32, compressed: bool },
}

/// Writes the dump.
///
/// # Errors
/// [`Error::Write`].
pub fn write(
    walker: &Walker<'_>,
    header: &Header<'_>,
    out: &Output,
    pool: &rayon::ThreadPool,
    progress: &dyn Progress,
) -> Result<Written> {
    let plan = walker.plan();
    let pages = plan.pages();
    if plan.end().0 > MOST_MAPNR {
        let why = "too high for the bitmaps of the kdump format; give --format elf";
        return Err(Error::Usage(format!(
            "the domain has memory at machine address {:#x}, {why}",
            (plan.end().0 - 1) << PAGE_SHIFT
        )));
    }
    let head_blocks = 1 + blocks((SUB_HEADER + header.notes.bytes.len()) as u64);
    let bitmap_blocks = 2 * blocks(plan.end().0.div_ceil(8));
    let descriptors = (head_blocks + bitmap_blocks) * PAGE_BYTES;
    let zero_page = (descriptors + pages * DESCRIPTOR).next_multiple_of(PAGE_BYTES);
    out.write_at(&header_block(header, head_blocks - 1, bitmap_blocks, plan.end().0), 0)?;
    out.write_at(&sub_header(header, plan.level, plan.end().0), PAGE_BYTES)?;
    out.write_at(&header.notes.bytes, PAGE_BYTES + SUB_HEADER as u64)?;
    let bitmap = |runs: &mut dyn Iterator<Item = Run>| {
        let mut bitmap = Bitmap::new(plan.end().0);
        runs.for_each(|r| bitmap.set_range(r.pfn.0, r.len));
        bitmap
    };
    let bitmap_2 = (head_blocks + bitmap_blocks / 2) * PAGE_BYTES;
    write_bitmap(&bitmap(&mut plan.known()), out, head_blocks * PAGE_BYTES)?;
    write_bitmap(&bitmap(&mut plan.pieces()), out, bitmap_2)?;
    out.write_at(&[0; PAGE_SIZE], zero_page)?;

    progress.stage("writing pages", Some(pages));
    let mut written = Written::default();
    let mut at = zero_page + PAGE_BYTES;
    let mut next = descriptors;
    let compressors = Mutex::new(Vec::new());
    ordered(
        pool,
        window(pool.current_num_threads()),
        chunks(plan),
        |chunk| pack(walker, chunk, header.codec, &compressors),
        |packed: Packed| {
            let mut table = Vec::with_capacity(packed.pages.len() * DESCRIPTOR as usize);
            let mut offset = at;
            for page in &packed.pages {
                let (place, size, flags) = match *page {
                    Stored::Zero => (zero_page, PAGE_SIZE as u32, 0),
                    Stored::Lost(_) => (0, 0, 0),
                    Stored::Data { size, compressed } => {
                        let place = offset;
                        offset += u64::from(size);
                        (place, size, if compressed { header.codec.flag() } else { 0 })
                    }
                };
                match *page {
                    Stored::Zero => written.zero += 1,
                    Stored::Lost(why) => *written.lost.entry(why).or_default() += 1,
                    Stored::Data { .. } => written.stored += 1,
                }
                table.extend(place.to_le_bytes());
                table.extend(size.to_le_bytes());
                table.extend(flags.to_le_bytes());
                table.extend(0_u64.to_le_bytes());
            }
            out.write_at(&table, next)?;
            out.write_at(&packed.data, at)?;
            next += table.len() as u64;
            at = offset;
            progress.advance(packed.pages.len() as u64);
            Ok(())
        },
    )?;
    out.set_len(at)?;
    written.bytes = at;
    Ok(written)
}

fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES)
}

fn pack(walker: &Walker<'_>, chunk: Chunk, codec: Codec, idle: &Mutex<Vec<Compressor>>) -> Result<Packed> {
    let stopped = |_| Error::Usage("a worker stopped".into());
    let reused = idle.lock().map_err(|_| stopped(()))?.pop();
    let mut compressor = reused.map_or_else(|| codec.compressor(), Ok)?;
    let mut packed = Packed { data: Vec::new(), pages: Vec::with_capacity(chunk.pages as usize) };
    let drop_zero = walker.plan().level.drops_zeros();
    walker.visit(chunk, |_, piece| {
        let mut store = |page: &[u8]| {
            if drop_zero && is_zero(page) {
                packed.pages.push(Stored::Zero);
                return;
            }
            let before = packed.data.len();
            let compressed = compressor.append(page, &mut packed.data);
            packed.pages.push(Stored::Data { size: (packed.data.len() - before) as u32, compressed });
        };
        match piece {
            Piece::Plain(bytes) => bytes.chunks_exact(PAGE_SIZE).for_each(store),
            Piece::Altered(page) => store(page),
            Piece::Zeros(n) if drop_zero => (0..n).for_each(|_| packed.pages.push(Stored::Zero)),
            Piece::Zeros(n) => (0..n).for_each(|_| store(&[0; PAGE_SIZE])),
            Piece::Lost(why) => packed.pages.push(Stored::Lost(why)),
        }
        Ok(())
    })?;
    idle.lock().map_err(|_| stopped(()))?.push(compressor);
    Ok(packed)
}

/// `struct disk_dump_header`.
fn header_block(header: &Header<'_>, sub_blocks: u64, bitmap_blocks: u64, max_mapnr: u64) -> Vec<u8> {
    let mut b = Vec::with_capacity(PAGE_SIZE);
    b.extend(b"KDUMP   ");
    b.extend(6_u32.to_le_bytes());
    for (i, name) in header.uts.iter().enumerate() {
        b.extend(name.as_bytes().iter().take(64));
        b.resize(12 + (i + 1) * 65, 0);
    }
    // 6 bytes of padding, then the time of the crash, which a Xen dump does not tell reliably.
    b.resize(424, 0);
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let words = [
        header.codec.flag(),
        PAGE_SIZE as u32,
        narrow(sub_blocks),
        narrow(bitmap_blocks),
        narrow(max_mapnr),
        0, // total_ram_blocks
        0, // device_blocks
        0, // written_blocks
        0, // current_cpu
        header.cpus.max(1),
    ];
    words.iter().for_each(|w| b.extend(w.to_le_bytes()));
    b.resize(PAGE_SIZE, 0);
    b
}

/// `struct kdump_sub_header`; offsets are positions in the file.
fn sub_header(header: &Header<'_>, level: Level, max_mapnr: u64) -> Vec<u8> {
    let notes_at = PAGE_BYTES + SUB_HEADER as u64;
    let (info_at, info_len) = header.notes.vmcoreinfo.map_or((0, 0), |(at, len)| (notes_at + at as u64, len as u64));
    let mut b = Vec::with_capacity(SUB_HEADER);
    b.extend(header.phys_base.to_le_bytes());
    b.extend(u32::from(level.number()).to_le_bytes());
    b.extend(0_u32.to_le_bytes()); // split
    let words = [
        0, // start_pfn, obsolete
        0, // end_pfn, obsolete
        info_at,
        info_len,
        notes_at,
        header.notes.bytes.len() as u64,
        0, // offset_eraseinfo
        0, // size_eraseinfo
        0, // start_pfn_64, for split dumps
        0, // end_pfn_64
        max_mapnr,
    ];
    words.iter().for_each(|w: &u64| b.extend(w.to_le_bytes()));
    b
}

fn write_bitmap(bitmap: &Bitmap, out: &Output, start: u64) -> Result<()> {
    let mut at = start;
    let mut bytes = bitmap.bytes().peekable();
    let mut part = Vec::with_capacity(BITMAP_PART);
    while bytes.peek().is_some() {
        part.clear();
        part.extend(bytes.by_ref().take(BITMAP_PART));
        // Of a domain that is sparse most of it is zeros, which a new file has by itself.
        if !out.is_new() || part.iter().any(|byte| *byte != 0) {
            out.write_at(&part, at)?;
        }
        at += part.len() as u64;
    }
    Ok(())
}
