//! Compressed files that consist of independent pieces, unpacked by several threads: blocks of xz (`xz -T`), frames of zstd
//! (`pzstd`, or several behind each other), streams of bzip2 (`pbzip2`).
//!
//! A piece that is bad, or larger than is good for memory, ends that: from it on all is unpacked in one go, as any other
//! stream, with the same outcome.

mod xz;

use super::OpenOptions;
use super::unpack::Kind;
use rayon::prelude::*;
use std::collections::VecDeque;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::sync::Arc;
use zstd::zstd_safe;

/// Plain bytes of a piece, at most: `xz -9 -T` makes blocks of 192 MiB.
const MOST_PLAIN: u64 = 192 << 20;
/// What is expected of a piece that does not tell its size.
const UNTOLD: u64 = 16 << 20;
/// How a bzip2 stream begins, but for the level, which is the fourth byte.
const BZIP2_BLOCK: &[u8] = &[0x31, 0x41, 0x59, 0x26, 0x53, 0x59];

/// An independent part of a compressed file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    /// Its bytes.
    packed: Range<usize>,
    /// What it unpacks to, in bytes, if that is known before.
    plain: Option<u64>,
    /// What must stand before and behind it to make a file of its own.
    frame: Option<xz::Frame>,
}

/// All of them, as a stream of what they unpack to.
pub(super) struct Pieces<'a> {
    kind: Kind,
    all: &'a [u8],
    pieces: VecDeque<Piece>,
    pool: Arc<rayon::ThreadPool>,
    /// Plain bytes that are in memory, at most, where the pieces tell their size.
    at_once: u64,
    ready: VecDeque<Cursor<Vec<u8>>>,
    /// Memory that was read out, for the next pieces: fresh memory costs more than unpacking zeros into it.
    used: Vec<Vec<u8>>,
    /// What is left when pieces are of no more use.
    rest: Option<Box<dyn Read + 'a>>,
}

impl<'a> Pieces<'a> {
    /// Nothing if there are not at least two, or there is one thread only.
    pub(super) fn find(kind: Kind, all: &'a [u8], options: &OpenOptions) -> Option<Self> {
        let pieces = match kind {
            Kind::Xz => xz::blocks(all)?,
            Kind::Zstd => zstd_frames(all)?,
            Kind::Bzip2 => bzip2_streams(all),
            _ => return None,
        };
        let own = || rayon::ThreadPoolBuilder::new().num_threads(options.threads).build().map(Arc::new);
        let pool = options.pool.clone().map_or_else(own, Ok).ok()?;
        let useful = pieces.len() > 1 && pool.current_num_threads() > 1;
        let all_known = pieces.iter().all(|p| p.plain.is_none_or(|n| n <= MOST_PLAIN));
        let pieces = VecDeque::from(pieces);
        (useful && all_known).then_some(Self {
            kind,
            all,
            pieces,
            pool,
            // As much as a file that is read in place may keep, twice: what is made, and what is copied away.
            at_once: 2 * options.cache,
            ready: VecDeque::new(),
            used: Vec::new(),
            rest: None,
        })
    }

    /// Unpacks as many as there are threads, or as memory allows.
    fn next_batch(&mut self) {
        let (mut batch, mut bytes) = (Vec::new(), 0_u64);
        while let Some(piece) = self.pieces.front() {
            bytes = bytes.saturating_add(piece.plain.unwrap_or(UNTOLD));
            if !batch.is_empty() && (batch.len() >= 2 * self.pool.current_num_threads() || bytes > self.at_once) {
                break;
            }
            let memory = self.used.pop().unwrap_or_default();
            batch.extend(self.pieces.pop_front().map(|piece| (piece, memory)));
        }
        let (kind, all) = (self.kind, self.all);
        let done: Vec<(Piece, io::Result<Vec<u8>>)> =
            self.pool.install(|| batch.into_par_iter().map(|(p, m)| (p.clone(), unpack(kind, all, &p, m))).collect());
        for (piece, done) in done {
            match done {
                Ok(plain) => self.ready.push_back(Cursor::new(plain)),
                Err(_) => {
                    self.rest = Some(rest(kind, all, &piece));
                    self.pieces.clear();
                    return;
                }
            }
        }
    }
}

/// All of a piece; an error if it is not whole, or too large.
fn unpack(kind: Kind, all: &[u8], piece: &Piece, mut plain: Vec<u8>) -> io::Result<Vec<u8>> {
    plain.clear();
    plain.reserve(piece.plain.unwrap_or(0).min(MOST_PLAIN) as usize);
    let packed = all.get(piece.packed.clone()).unwrap_or_default();
    if let (Kind::Zstd, Some(size @ 1..=MOST_PLAIN)) = (kind, piece.plain) {
        // At once, without a window of its own.
        let n = zstd::bulk::decompress_to_buffer(packed, &mut plain)?;
        return if n as u64 == size { Ok(plain) } else { Err(io::ErrorKind::InvalidData.into()) };
    }
    let input: Box<dyn Read + '_> = match &piece.frame {
        Some(frame) => Box::new(frame.head.chain(packed).chain(frame.tail.as_slice())),
        None => Box::new(packed),
    };
    let decoder = kind.decoder(input).map_err(|e| io::Error::other(e.to_string()))?;
    decoder.take(MOST_PLAIN + 1).read_to_end(&mut plain)?;
    let whole = piece.plain.map_or(plain.len() as u64 <= MOST_PLAIN, |n| n == plain.len() as u64);
    if whole { Ok(plain) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Everything from `piece` on.
fn rest<'a>(kind: Kind, all: &'a [u8], piece: &Piece) -> Box<dyn Read + 'a> {
    let packed = all.get(piece.packed.start..).unwrap_or_default();
    let input: Box<dyn Read + 'a> = match &piece.frame {
        // The blocks behind it cannot be told from it any more: it takes what is left for its own.
        Some(frame) => Box::new(Cursor::new(frame.head).chain(packed)),
        None => Box::new(packed),
    };
    kind.decoder(input).unwrap_or_else(|e| Box::new(Bad(e.to_string())))
}

/// A stream that cannot be begun.
struct Bad(String);

impl Read for Bad {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::InvalidData, self.0.clone()))
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(front) = self.ready.front_mut() {
                match front.read(buf)? {
                    0 if !buf.is_empty() => self.used.extend(self.ready.pop_front().map(Cursor::into_inner)),
                    n => return Ok(n),
                };
            } else if let Some(rest) = &mut self.rest {
                return rest.read(buf);
            } else if self.pieces.is_empty() {
                return Ok(0);
            } else {
                self.next_batch();
            }
        }
    }
}

/// Frames by their own headers.
fn zstd_frames(all: &[u8]) -> Option<Vec<Piece>> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    while let Some(rest) = all.get(at..).filter(|r| !r.is_empty()) {
        // The last one may be cut short.
        let size = zstd_safe::find_frame_compressed_size(rest).ok().filter(|n| *n > 0).unwrap_or(rest.len());
        let plain = zstd_safe::get_frame_content_size(rest).ok().flatten();
        pieces.push(Piece { packed: at..at + size, plain, frame: None });
        at += size;
    }
    Some(pieces)
}

/// What a file of one of these compressions unpacks to, in bytes, if it tells.
pub(super) fn plain_size(kind: Kind, all: &[u8]) -> Option<u64> {
    let pieces = match kind {
        Kind::Xz => xz::blocks(all)?,
        Kind::Zstd => zstd_frames(all)?,
        _ => return None,
    };
    pieces.iter().try_fold(0_u64, |sum, p| sum.checked_add(p.plain?))
}

/// Streams by how they begin: one that seems to begin within another is found out when that one does not end before it.
fn bzip2_streams(all: &[u8]) -> Vec<Piece> {
    let begins = memchr::memmem::find_iter(all, BZIP2_BLOCK)
        .filter_map(|at| at.checked_sub(4))
        .filter(|at| all.get(*at..).is_some_and(|head| head.starts_with(b"BZh")));
    let mut starts: Vec<usize> = begins.chain([all.len()]).collect();
    if let Some(first) = starts.first_mut() {
        *first = 0;
    }
    let piece = |pair: &[usize]| Some(Piece { packed: *pair.first()?..*pair.get(1)?, plain: None, frame: None });
    starts.windows(2).filter_map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// What is random enough not to vanish.
    fn noise(len: usize) -> Vec<u8> {
        let mut x = 1_u32;
        let mut next = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 24) as u8 & 0x1f
        };
        (0..len).map(|_| next()).collect()
    }

    fn xz(plain: &[u8], block: u64) -> Vec<u8> {
        let mut options = lzma_rust2::XzOptions::with_preset(0);
        // No block is smaller than the dictionary.
        options.lzma_options.dict_size = 4096;
        options.set_block_size(std::num::NonZeroU64::new(block));
        let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    /// With a checksum, as zstd(1) makes it.
    fn zstd(plain: &[u8]) -> Vec<u8> {
        let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        writer.include_checksum(true).unwrap();
        writer.set_pledged_src_size(Some(plain.len() as u64)).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    fn bzip2(plain: &[u8]) -> Vec<u8> {
        let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    /// Of each kind, a file of several pieces, and how many.
    fn files(plain: &[u8]) -> Vec<(Kind, Vec<u8>, usize)> {
        let halves = plain.split_at(plain.len() / 2);
        let two = |pack: &dyn Fn(&[u8]) -> Vec<u8>| [pack(halves.0), pack(halves.1)].concat();
        let mut padded = xz(halves.0, 1 << 20);
        padded.extend([0; 8]);
        padded.extend(xz(halves.1, 50_000));
        vec![
            (Kind::Xz, xz(plain, 40_000), plain.len().div_ceil(40_000)),
            (Kind::Xz, padded, 1 + halves.1.len().div_ceil(50_000)),
            (Kind::Zstd, two(&zstd), 2),
            (Kind::Bzip2, two(&bzip2), 2),
        ]
    }

    fn threads(threads: usize) -> OpenOptions {
        OpenOptions { threads, ..OpenOptions::default() }
    }

    fn read(kind: Kind, packed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let ok = match Pieces::find(kind, packed, &threads(3)) {
            Some(mut pieces) => pieces.read_to_end(&mut out),
            None => kind.decoder(Box::new(packed)).unwrap().read_to_end(&mut out),
        };
        (out, ok.is_ok())
    }

    #[test]
    fn pieces_give_the_whole() {
        let plain = noise(300_000);
        for (kind, packed, count) in files(&plain) {
            let pieces = Pieces::find(kind, &packed, &threads(3)).unwrap();
            assert_eq!(pieces.pieces.len(), count, "{kind:?}");
            assert_eq!(read(kind, &packed), (plain.clone(), true), "{kind:?}");
            assert!(Pieces::find(kind, &packed, &threads(1)).is_none());
        }
        assert!(Pieces::find(Kind::Xz, &xz(&plain, 1 << 20), &threads(3)).is_none());
    }

    /// Wherever it is cut or damaged: what comes is a prefix of the truth, and its end is told, or it is all.
    #[test]
    fn damage_gives_a_prefix() {
        let plain = noise(60_000);
        for (kind, packed, _) in files(&plain) {
            for len in (0..packed.len()).step_by(97) {
                let (got, _) = read(kind, &packed[..len]);
                assert!(plain.starts_with(&got), "{kind:?} of {len} bytes");
            }
            for at in (0..packed.len()).step_by(31) {
                let mut bad = packed.clone();
                bad[at] ^= 0x10;
                let (got, ok) = read(kind, &bad);
                // Checksums come behind what they are of: a block of it may be wrong, but then it is said.
                assert!(!ok || plain.starts_with(&got), "{kind:?} with byte {at} flipped");
            }
        }
    }

    /// What looks like the start of a bzip2 stream within one.
    #[test]
    fn no_stream_begins_within_another() {
        let plain = noise(50_000);
        let mut packed = bzip2(&plain);
        let len = packed.len();
        packed.extend(bzip2(b"BZh91AY&SY"));
        packed.extend(b"BZh91AY&SY");
        let pieces = bzip2_streams(&packed);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[0].packed, 0..len);
        let (got, ok) = read(Kind::Bzip2, &packed);
        assert!(!ok && got == [&plain[..], b"BZh91AY&SY"].concat());
    }
}
