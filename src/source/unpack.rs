//! Compressed input, unpacked into an unnamed sparse temporary file: a cut needs random access.

use super::storage::{FileSource, ReadAt};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Granularity of holes in the temporary file.
const BLOCK: usize = 64 << 10;
/// Left free on the temporary file system.
const SPARE: u64 = 64 << 20;
/// `zstd --long=31`, the longest window there is.
const LONGEST_WINDOW: u32 = 31;

pub(super) fn is_zstd(magic: [u8; 4]) -> bool {
    magic == [0x28, 0xb5, 0x2f, 0xfd]
}

/// Unpacks zstd frames. What they hold is bounded by the space of the temporary file system, which is watched.
pub(super) fn zstd(source: FileSource, tmp_dir: Option<&Path>) -> Result<FileSource> {
    let dir = tmp_dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let mut out = tempfile::tempfile_in(&dir).map_err(|e| {
        Error::write(format!("a temporary file in {}, needed to unpack the input (see --tmp-dir)", dir.display()), e)
    })?;
    let mut input = source.file();
    let opened = input.seek(SeekFrom::Start(0)).and_then(|_| zstd::stream::read::Decoder::new(input));
    let mut decoder = opened.map_err(|e| Error::read("the zstd stream", e))?;
    let _ = decoder.window_log_max(LONGEST_WINDOW);
    let (mut block, mut len) = (vec![0; BLOCK], 0_u64);
    loop {
        let n = fill(&mut decoder, &mut block)
            .map_err(|e| Error::damaged("zstd stream", format!("{e} after {len} bytes")))?;
        let Some(data) = block.get(..n).filter(|d| !d.is_empty()) else { break };
        let wrote = if data.iter().all(|&b| b == 0) {
            out.seek(SeekFrom::Current(n as i64)).map(drop)
        } else {
            space_left(&out).and_then(|()| out.write_all(data))
        };
        wrote.map_err(|e| Error::write(format!("the unpacked input in {} (see --tmp-dir)", dir.display()), e))?;
        len += n as u64;
    }
    out.set_len(len).map_err(|e| Error::write("the unpacked input", e))?;
    let unpacked = FileSource::new(out)?;
    debug_assert_eq!(unpacked.len(), len);
    Ok(unpacked)
}

fn fill(from: &mut impl Read, block: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = block.get_mut(n..).filter(|r| !r.is_empty()) {
        match from.read(rest)? {
            0 => break,
            got => n += got,
        }
    }
    Ok(n)
}

fn space_left(file: &File) -> std::io::Result<()> {
    let fs = rustix::fs::fstatvfs(file)?;
    match fs.f_bavail.saturating_mul(fs.f_frsize) {
        left if left < SPARE => Err(std::io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    }
}
