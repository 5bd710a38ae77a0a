//! Input that cannot be read in place, put into an unnamed sparse temporary file: a cut needs random access.
//!
//! Compressed files and pipes come through here, whatever is in them: a stream within a stream is unpacked in one go, and
//! a flattened one is rearranged as it comes. A stream that breaks off is used as far as it goes.

use super::flat::{self, Flat, Index, RECORD_HEADER, Record};
use super::kdump::{self, Header};
use super::pieces::Pieces;
use super::storage::{FileSource, History, MapSource, ReadAt};
use super::{OpenOptions, Vmcore};
use crate::error::{Error, Result};
use crate::units::FileOffset;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Granularity of holes in the temporary file.
const BLOCK: usize = 64 << 10;
/// Left free on the temporary file system.
const SPARE: u64 = 64 << 20;
/// `zstd --long=31`, the longest window there is.
const LONGEST_WINDOW: u32 = 31;
/// Memory that an xz stream may want, in KiB; `xz -9` wants 65 MiB.
const XZ_MEMORY: u32 = 512 << 10;
/// Wrappers within each other.
const MOST_LAYERS: usize = 4;
/// What is looked at to know how large the whole can be: headers.
const HEAD: usize = 1 << 20;
/// Bytes behind all that headers speak of, as section tables, that are no bomb.
const TAIL: u64 = 64 << 20;

/// What a stream is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Zstd,
    Gzip,
    Xz,
    Bzip2,
    Lz4,
    Flat,
    /// A dump, or nothing that is known.
    Plain,
}

impl Kind {
    pub(super) fn of(head: &[u8]) -> Self {
        let magics: [(&[u8], Self); 8] = [
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
            // A skippable frame, with which pzstd begins.
            (&[0x50, 0x2a, 0x4d, 0x18], Self::Zstd),
            (&[0x1f, 0x8b, 8], Self::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Self::Xz),
            (b"BZh", Self::Bzip2),
            (&[0x04, 0x22, 0x4d, 0x18], Self::Lz4),
            (&[0x02, 0x21, 0x4c, 0x18], Self::Lz4),
            (flat::MAGIC, Self::Flat),
        ];
        magics.iter().find(|(magic, _)| head.starts_with(magic)).map_or(Self::Plain, |m| m.1)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
            Self::Flat => "flattened",
            Self::Plain => "plain",
        }
    }

    pub(super) fn decoder<'r>(self, input: Box<dyn Read + 'r>) -> Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Self::Zstd => {
                let opened = zstd::stream::read::Decoder::new(input);
                let mut decoder = opened.map_err(|e| Error::read("the zstd stream", e))?;
                let _ = decoder.window_log_max(LONGEST_WINDOW);
                Box::new(decoder)
            }
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(input)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(BufReader::new(input), true, XZ_MEMORY)),
            Self::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(input)),
            Self::Lz4 => Box::new(Lz4(lz4_flex::frame::FrameDecoder::new(BufReader::new(input)))),
            Self::Flat | Self::Plain => input,
        })
    }
}

/// lz4 frames one behind the other.
struct Lz4<R: Read>(lz4_flex::frame::FrameDecoder<BufReader<R>>);

impl<R: Read> Read for Lz4<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buf)? {
                0 if !buf.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() => {}
                n => return Ok(n),
            }
        }
    }
}

/// Storage as a stream.
struct Stream<'a> {
    source: &'a dyn ReadAt,
    at: u64,
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (self.source.len().saturating_sub(self.at)).min(buf.len() as u64) as usize;
        self.source.read_exact_at(FileOffset(self.at), buf.get_mut(..n).unwrap_or_default())?;
        self.at += n as u64;
        Ok(n)
    }
}

/// What is to be unpacked.
pub(super) struct Packed<'r> {
    input: Box<dyn Read + 'r>,
    /// The compression that was taken off last.
    outer: Kind,
    /// Bytes that will come at least.
    least: u64,
    history: History,
}

impl<'r> Packed<'r> {
    /// From a pipe.
    pub(super) fn stream(input: Box<dyn Read + 'r>) -> Self {
        Self { input, outer: Kind::Plain, least: 0, history: History::default() }
    }

    /// From storage, by several threads if the outermost compression lets them.
    pub(super) fn of(source: &'r dyn ReadAt, options: &OpenOptions) -> Self {
        let history = source.history().clone();
        let all = usize::try_from(source.len()).ok().and_then(|len| source.slice(FileOffset(0), len));
        let kind = all.map_or(Kind::Plain, Kind::of);
        let packed = Self { least: source.len(), history, ..Self::stream(Box::new(Stream { source, at: 0 })) };
        match all.and_then(|all| Pieces::find(kind, all, options.threads)) {
            Some(pieces) => packed.within(kind, Box::new(pieces)),
            None => packed,
        }
    }

    /// What came out of a compression.
    fn within(mut self, kind: Kind, input: Box<dyn Read + 'r>) -> Self {
        self.history.layers.push(kind.name().into());
        Self { input, outer: kind, ..self }
    }

    /// Puts all of it into a temporary file.
    ///
    /// # Errors
    /// [`Error::Write`] if the temporary file cannot take it, [`Error::Damaged`] if nothing of it can be unpacked,
    /// [`Error::NotElf`] if it holds no dump.
    pub(super) fn spool(mut self, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
        for _ in 0..=MOST_LAYERS {
            let mut head = vec![0; HEAD];
            let (n, broken) = fill(&mut self.input, &mut head);
            head.truncate(n);
            if let (0, Some(e)) = (n, &broken) {
                return Err(broken_off(self.outer, e, 0));
            }
            let kind = Kind::of(&head);
            let most = if kind == Kind::Plain { most_bytes(&head)? } else { u64::MAX };
            self.input = Box::new(Cursor::new(head).chain(Broken(broken)).chain(self.input));
            if matches!(kind, Kind::Flat | Kind::Plain) {
                return self.copy(kind, most, options);
            }
            let empty = Box::new(io::empty());
            let decoder = kind.decoder(std::mem::replace(&mut self.input, empty))?;
            self = self.within(kind, decoder);
        }
        Err(Error::Usage(format!("more than {MOST_LAYERS} compressions within each other")))
    }

    fn copy(mut self, kind: Kind, most: u64, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
        let mut out = Out::create(options.tmp_dir.as_deref(), self.least)?;
        let mut index = Index::default();
        let mut copier = Copier { input: self.input, outer: self.outer, history: &mut self.history };
        if kind == Kind::Flat {
            copier.rearrange(&mut out, &mut index)?;
            self.history.layers.push("flattened".into());
        } else {
            copier.copy(&mut out, most)?;
        }
        let file = out.finish()?;
        if kind == Kind::Flat && !index.complete {
            // Where nothing was written is no zero.
            index.sort();
            return Ok(Box::new(Flat::with(mapped(file, options), index, self.history)));
        }
        Ok(mapped(file.with_history(self.history), options))
    }
}

/// The file mapped, if that is wanted and can be.
pub(super) fn mapped(file: FileSource, options: &OpenOptions) -> Box<dyn ReadAt> {
    if options.no_mmap {
        return Box::new(file);
    }
    match MapSource::new(file) {
        Ok(mapped) => Box::new(mapped),
        Err(file) => Box::new(file),
    }
}

fn broken_off(kind: Kind, e: &io::Error, at: u64) -> Error {
    match kind {
        Kind::Plain | Kind::Flat => Error::read("the stream", io::Error::new(e.kind(), e.to_string())),
        _ => Error::damaged("stream", format!("the {} stream is bad after {at} bytes: {e}", kind.name())),
    }
}

/// The most that a dump with these headers can have: a stream that goes on and on is no dump.
fn most_bytes(head: &[u8]) -> Result<u64> {
    let head = head.to_vec();
    let most = match head.starts_with(kdump::SIGNATURE) {
        true => Header::read(&head)?.most_bytes(),
        // More program headers than were read: their data has no bound that is known yet.
        false => match Vmcore::parse(&head) {
            Ok(core) => core.most_bytes(),
            Err(Error::Damaged { .. }) if head.len() == HEAD => u64::MAX,
            Err(e) => return Err(e),
        },
    };
    Ok(most.saturating_add(TAIL))
}

/// An error that came when the head was read comes again behind it.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Reads until `buf` is full or the stream ends or breaks off.
fn fill(from: &mut impl Read, buf: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut n = 0;
    while let Some(rest) = buf.get_mut(n..).filter(|r| !r.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(got) => n += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (n, Some(e)),
        }
    }
    (n, None)
}

struct Copier<'r, 'h> {
    input: Box<dyn Read + 'r>,
    /// The innermost compression.
    outer: Kind,
    history: &'h mut History,
}

impl Copier<'_, '_> {
    /// The stream is bad from here on.
    fn broken(&mut self, e: &io::Error, at: u64) -> Result<()> {
        if e.raw_os_error().is_some() {
            return Err(broken_off(Kind::Plain, e, at));
        }
        let name = self.outer.name();
        self.history.damage.push((format!("{name} streams that break off ({e}, after {at} bytes)"), 1));
        Ok(())
    }

    /// Copies all, `most` bytes at most.
    fn copy(&mut self, out: &mut Out, most: u64) -> Result<()> {
        let (mut block, mut at) = (vec![0; BLOCK], 0_u64);
        while at < most {
            let (n, broken) = fill(&mut self.input, &mut block);
            out.write(at, block.get(..n).unwrap_or_default())?;
            at += n as u64;
            if let Some(e) = broken {
                return self.broken(&e, at);
            }
            if n < BLOCK {
                return Ok(());
            }
        }
        self.history
            .damage
            .push((format!("streams that go on after {most} bytes, which is all that headers tell of"), 1));
        Ok(())
    }

    /// Puts each record of a flattened stream where it belongs.
    fn rearrange(&mut self, out: &mut Out, index: &mut Index) -> Result<()> {
        let mut block = vec![0; BLOCK];
        let (n, broken) = fill(&mut self.input, block.get_mut(..flat::RECORDS as usize).unwrap_or_default());
        let (mut at, mut broken, mut most) = (n as u64, broken, u64::MAX);
        loop {
            let mut header = [0; RECORD_HEADER];
            let (n, why) = fill(&mut self.input, &mut header);
            broken = broken.or(why);
            if n < RECORD_HEADER {
                index.cut_short(0);
                break;
            }
            let (start, size) = match Record::parse(header) {
                Record::End => {
                    index.complete = true;
                    break;
                }
                Record::Data(start, size) if start.saturating_add(size) <= most => (start, size),
                _ => {
                    index.bad(at);
                    break;
                }
            };
            at += RECORD_HEADER as u64;
            let mut done = 0;
            while done < size {
                let want = (size - done).min(BLOCK as u64) as usize;
                let (n, why) = fill(&mut self.input, block.get_mut(..want).unwrap_or_default());
                broken = broken.or(why);
                let data = block.get(..n).unwrap_or_default();
                if start + done == 0 {
                    most = most_bytes(data).unwrap_or(u64::MAX);
                }
                out.write(start + done, data)?;
                done += n as u64;
                if n < want {
                    break;
                }
            }
            at += done;
            let room = index.add(start, done, start);
            if done < size || !room {
                index.cut_short(size - done);
                break;
            }
        }
        match broken {
            Some(e) => self.broken(&e, at),
            None => Ok(()),
        }
    }
}

/// The temporary file.
struct Out<'a> {
    file: File,
    dir: &'a Path,
    len: u64,
}

impl<'a> Out<'a> {
    /// `least` bytes must find room, since nothing unpacks to less.
    fn create(dir: Option<&'a Path>, least: u64) -> Result<Self> {
        static DEFAULT: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
        let dir = dir.unwrap_or_else(|| DEFAULT.get_or_init(std::env::temp_dir));
        let file = tempfile::tempfile_in(dir).map_err(|e| {
            let what = "a temporary file, needed to unpack the input (see --tmp-dir), in";
            Error::write(format!("{what} {}", dir.display()), e)
        })?;
        let out = Self { file, dir, len: 0 };
        out.room(least).map_err(|e| out.error(e))?;
        Ok(out)
    }

    fn error(&self, e: io::Error) -> Error {
        Error::write(format!("the unpacked input in {} (see --tmp-dir)", self.dir.display()), e)
    }

    /// Zeros where nothing was written yet stay a hole.
    fn write(&mut self, at: u64, data: &[u8]) -> Result<()> {
        if at < self.len || data.iter().any(|b| *b != 0) {
            let wrote = self.room(0).and_then(|()| self.file.write_all_at(data, at));
            wrote.map_err(|e| self.error(e))?;
        }
        self.len = self.len.max(at + data.len() as u64);
        Ok(())
    }

    fn room(&self, bytes: u64) -> io::Result<()> {
        let fs = rustix::fs::fstatvfs(&self.file)?;
        match fs.f_bavail.saturating_mul(fs.f_frsize) {
            left if left < SPARE.saturating_add(bytes) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<FileSource> {
        self.file.set_len(self.len).map_err(|e| self.error(e))?;
        FileSource::new(self.file)
    }
}
