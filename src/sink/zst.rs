//! An ELF vmcore in seekable zstd: frames of a fixed size of content, each to be unpacked alone, and a table of them.
//!
//! `zstd -d` restores the very file that `--format elf` writes. The table (zstd: contrib/seekable_format) is a skippable
//! frame, `5e 2a 4d 18` and its size, of entries of 8 bytes: a frame's compressed and plain size, `u32` each; then the number
//! of frames `u32`, a descriptor 0 (no checksums: each frame has its own), and `b1 ea 92 8f`.

use super::elf::{View, lay_out};
use super::{Facts, Output, Written};
use crate::error::{Error, Result};
use crate::pipeline::crew::Crew;
use crate::pipeline::find::find_data;
use crate::pipeline::ordered::ordered;
use crate::pipeline::walk::Walker;
use crate::pipeline::{Progress, advance};
use crate::source::ReadAt;
use crate::units::FileOffset;
use std::sync::Mutex;
use zstd::zstd_safe::{CCtx, CParameter};

/// Bytes of content in a frame: a reader that wants a page has to unpack one. Frames of 1 MiB would be 2 % smaller
/// (`benches/README.md`).
const FRAME: u64 = 128 << 10;
const SKIPPABLE: u32 = 0x184d_2a5e;
const FOOTER: u32 = 0x8f92_eab1;
/// Bytes of the table beside its entries.
const TABLE: u64 = 17;
const ENTRY: u64 = 8;
/// Frames that the table may have (zstd: ZSTD_SEEKABLE_MAXFRAMES).
const MOST_FRAMES: u64 = 0x800_0000;

/// Writes the dump.
///
/// # Errors
/// [`Error::Write`], but for a full disk or a limit, where it ends with the last frame that fits.
pub fn write(
    walker: &Walker<'_>,
    facts: &Facts,
    level: i32,
    out: &Output,
    crew: &Crew,
    progress: &dyn Progress,
) -> Result<Written> {
    let plan = walker.plan();
    let found = find_data(walker, facts.notes.digest.is_some(), crew, progress)?;
    let layout = lay_out(walker, facts, &found);
    let view = View::new(walker, layout);
    let frames = view.len().div_ceil(FRAME);
    if frames > MOST_FRAMES {
        return Err(Error::Usage(format!("{} bytes are too many for the table of seekable zstd", view.len())));
    }
    let mut written = Written::all(plan, &found);
    progress.stage("writing frames", Some(plan.pages()));
    let idle = Mutex::new(Vec::new());
    let pack = |n: u64| pack(&view, n, level, &idle);
    let mut table: Vec<[u32; 2]> = Vec::new();
    let (mut at, mut told) = (0, 0);
    let limit = out.limit();
    let expect = |n: &u64| view.expect(std::slice::from_ref(&(n * FRAME..(n + 1) * FRAME)));
    let result = ordered(crew, (0..frames).inspect(expect), pack, |(plain, packed)| {
        // Room for the table, if there is a limit.
        let table_bytes = TABLE + ENTRY * (table.len() as u64 + 1);
        if at + packed.len() as u64 + table_bytes > limit {
            let full = std::io::Error::new(
                std::io::ErrorKind::StorageFull,
                format!("it would grow beyond the limit of {limit} bytes"),
            );
            return Err(Error::write("the next frame", full));
        }
        out.write_at(&packed, at)?;
        at += packed.len() as u64;
        table.push([packed.len() as u32, plain]);
        let upto = (table.len() as u128 * u128::from(plan.pages()) / u128::from(frames)) as u64;
        let more = upto - std::mem::replace(&mut told, upto);
        advance(progress, more)
    });
    let mut full = match result {
        Err(e) if e.ends_early() && out.is_new() => Some(e),
        other => other.map(|()| None)?,
    };
    // Frames give way to the table, until it fits.
    while let Err(e) = out.set_len(at).and_then(|()| out.write_at(&seek_table(&table), at)) {
        let Some([packed, _]) = table.pop().filter(|_| e.ends_early() && out.is_new()) else { return Err(e) };
        at -= u64::from(packed);
        full = full.or(Some(e));
    }
    if let Some(e) = full {
        let plain: u64 = table.iter().map(|t| u64::from(t[1])).sum();
        if plain < view.layout().head.len() as u64 {
            return Err(e);
        }
        let done = view.layout().done_at(plain, plan.pages());
        (written.stored, written.zero) = view.layout().seen(&found, done, plan.pages());
        (written.incomplete, written.digest) = (Some(e.to_string()), None);
    }
    written.bytes = at + TABLE + ENTRY * table.len() as u64;
    out.set_len(written.bytes)?;
    Ok(written)
}

/// A frame: its plain size, and its bytes.
fn pack(view: &View<'_, '_>, n: u64, level: i32, idle: &Mutex<Vec<CCtx<'static>>>) -> Result<(u32, Vec<u8>)> {
    let stopped = |_| Error::Usage("a worker stopped".into());
    let at = n * FRAME;
    let mut plain = vec![0; FRAME.min(view.len() - at) as usize];
    view.read_exact_at(FileOffset(at), &mut plain).map_err(|e| Error::read("a page a second time", e))?;
    let reused = idle.lock().map_err(|_| stopped(()))?.pop();
    let mut context = reused.map_or_else(|| context(level), Ok)?;
    let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(plain.len()));
    let done = context.compress2(&mut packed, &plain);
    done.map_err(|code| Error::Usage(format!("zstd: {}", zstd::zstd_safe::get_error_name(code))))?;
    idle.lock().map_err(|_| stopped(()))?.push(context);
    Ok((plain.len() as u32, packed))
}

fn context(level: i32) -> Result<CCtx<'static>> {
    let mut context = CCtx::create();
    let set = [CParameter::CompressionLevel(level), CParameter::ChecksumFlag(true)];
    let done = set.into_iter().try_for_each(|p| context.set_parameter(p).map(drop));
    done.map_err(|code| Error::Usage(format!("zstd level {level}: {}", zstd::zstd_safe::get_error_name(code))))?;
    Ok(context)
}

fn seek_table(frames: &[[u32; 2]]) -> Vec<u8> {
    let size = TABLE - 8 + ENTRY * frames.len() as u64;
    let mut b = Vec::with_capacity(size as usize + 8);
    let mut word = |n: u32| b.extend(n.to_le_bytes());
    word(SKIPPABLE);
    word(u32::try_from(size).unwrap_or(u32::MAX));
    frames.iter().flatten().for_each(|n| word(*n));
    word(frames.len() as u32);
    b.push(0);
    b.extend(FOOTER.to_le_bytes());
    b
}
