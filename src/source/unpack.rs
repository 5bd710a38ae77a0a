//! Input that cannot be read in place, put into an unnamed sparse temporary file: a cut needs random access.
//!
//! Compressed files and pipes come through here, whatever is in them: a stream within a stream is unpacked in one go, and
//! a flattened one is rearranged as it comes. A stream that breaks off is used as far as it goes.

mod gzip;
#[cfg(feature = "packed")]
mod lz4;
mod spool;

pub(super) use spool::Out;

use super::flat::{self, Flat, Rearranger, TAIL};
use super::kdump::{self, Header};
use super::pieces::{self, Pieces};
use super::storage::{FileSource, History, MapSource, ReadAt, is_in_memory, is_of_proc};
use super::windows::WindowSource;
use super::{OpenOptions, Vmcore};
use crate::bytes::u32_at;
use crate::error::{Error, Result};
use crate::units::FileOffset;
#[cfg(feature = "packed")]
use std::io::BufReader;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Granularity of holes in the temporary file.
pub(super) const BLOCK: usize = 64 << 10;
/// `zstd --long=31`, the longest window there is.
const LONGEST_WINDOW: u32 = 31;
/// Memory that an xz stream may want, in KiB; `xz -9` wants 65 MiB.
#[cfg(feature = "packed")]
const XZ_MEMORY: u32 = 512 << 10;
/// Wrappers within each other.
const MOST_LAYERS: usize = 4;
/// What is looked at to know how large the whole can be: headers.
pub(super) const HEAD: usize = 1 << 20;
/// Skippable frames before the first one that is none.
const MOST_SKIPPED: usize = 1 << 12;
/// Magic and size of a skippable frame.
const SKIPPABLE_HEAD: usize = 8;

/// Whether a frame of this magic has nothing of the file: lz4 and zstd have these in common.
pub(super) fn is_skippable(magic: u32) -> bool {
    magic & 0xffff_fff0 == 0x184d_2a50
}

/// What a stream is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Zstd,
    Gzip,
    Xz,
    Bzip2,
    Lz4,
    /// A frame of zstd or lz4 with nothing of the file in it: which of them it is, the next one tells.
    Skippable,
    Flat,
    /// A dump, or nothing that is known.
    Plain,
}

impl Kind {
    pub(super) fn of(head: &[u8]) -> Self {
        let magics: [(&[u8], Self); 7] = [
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
            (&[0x1f, 0x8b, 8], Self::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Self::Xz),
            (b"BZh", Self::Bzip2),
            (&[0x04, 0x22, 0x4d, 0x18], Self::Lz4),
            (&[0x02, 0x21, 0x4c, 0x18], Self::Lz4),
            (flat::MAGIC, Self::Flat),
        ];
        if u32_at(head, 0).is_some_and(is_skippable) {
            return Self::Skippable;
        }
        magics.iter().find(|(magic, _)| head.starts_with(magic)).map_or(Self::Plain, |m| m.1)
    }

    /// The same of storage, behind skippable frames.
    pub(super) fn of_storage(source: &dyn ReadAt) -> Result<Self> {
        let mut at = 0_u64;
        for _ in 0..MOST_SKIPPED {
            let mut head = [0; 16];
            let n = source.len().saturating_sub(at).min(head.len() as u64) as usize;
            let head = head.get_mut(..n).unwrap_or_default();
            source.read_exact_at(FileOffset(at), head).map_err(|e| Error::read("the dump", e))?;
            match Self::of(head) {
                Self::Skippable => {
                    let size = u64::from(u32_at(head, 4).unwrap_or_default());
                    at = at.saturating_add(SKIPPABLE_HEAD as u64 + size);
                }
                kind if at == 0 || matches!(kind, Self::Zstd | Self::Lz4) => return Ok(kind),
                _ => break,
            }
        }
        Ok(Self::Skippable)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
            Self::Skippable => "skippable",
            Self::Flat => flat::LAYER,
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
            Self::Gzip => Box::new(gzip::Gzip::new(input)),
            #[cfg(feature = "packed")]
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(BufReader::new(input), true, XZ_MEMORY)),
            #[cfg(feature = "packed")]
            Self::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(input)),
            #[cfg(feature = "packed")]
            Self::Lz4 => Box::new(lz4::Lz4::new(input)),
            #[cfg(not(feature = "packed"))]
            Self::Xz | Self::Bzip2 | Self::Lz4 => {
                let name = self.name();
                let why = format!(
                    "is packed with {name}, and this program was built without the feature packed: unpack it first"
                );
                return Err(Error::Usage(why));
            }
            Self::Skippable | Self::Flat | Self::Plain => input,
        })
    }
}

/// Storage as a stream.
struct Stream<'a> {
    source: &'a dyn ReadAt,
    at: u64,
    /// What was told to be read soon ends here.
    told: u64,
}

/// Bytes that storage is told of that is far away, at once and beforehand.
const TOLD: u64 = 8 << 20;

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (self.source.len().saturating_sub(self.at)).min(buf.len() as u64) as usize;
        if self.source.is_far() && self.at + n as u64 + TOLD > self.told && self.told < self.source.len() {
            let upto = (self.told + TOLD).min(self.source.len());
            self.source.expect(std::slice::from_ref(&(self.told..upto)));
            self.told = upto;
        }
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
    /// Bytes that will come at least, and at most if the compression tells.
    least: u64,
    most: Option<u64>,
    history: History,
}

impl<'r> Packed<'r> {
    /// From a pipe.
    pub(super) fn stream(input: Box<dyn Read + 'r>) -> Self {
        Self { input, outer: Kind::Plain, least: 0, most: None, history: History::default() }
    }

    /// From storage, by this thread alone.
    pub(super) fn plainly(source: &'r dyn ReadAt) -> Self {
        Self::stream(Box::new(Stream { source, at: 0, told: 0 }))
    }

    /// From storage, by several threads if the outermost compression lets them.
    pub(super) fn of(source: &'r dyn ReadAt, options: &OpenOptions) -> Self {
        let history = source.history().clone();
        let all = usize::try_from(source.len()).ok().and_then(|len| source.slice(FileOffset(0), len));
        let kind = all.and_then(|_| Kind::of_storage(source).ok()).unwrap_or(Kind::Plain);
        let most = all.and_then(|all| pieces::plain_size(kind, all));
        let packed = Self { least: source.len(), most, history, ..Self::plainly(source) };
        match all.and_then(|all| Pieces::find(kind, all, options)) {
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
        let kind = self.unwrap()?;
        let (head, broken) = self.head();
        let most = if kind == Kind::Plain { most_bytes(&head)? } else { u64::MAX };
        self.put_back(head, broken);
        self.copy(kind, most, options)
    }

    /// What it was wrapped in, from the outside to the inside, and its first bytes, of a flattened stream those of the stream.
    ///
    /// # Errors
    /// As [`Self::spool`].
    pub(super) fn peek(mut self) -> Result<(Vec<String>, Vec<u8>)> {
        let kind = self.unwrap()?;
        let mut layers = self.history.layers.clone();
        layers.extend((kind == Kind::Flat).then(|| flat::LAYER.into()));
        Ok((layers, self.head().0))
    }

    /// Takes all compressions off; what is in them.
    fn unwrap(&mut self) -> Result<Kind> {
        for _ in 0..=MOST_LAYERS {
            let (mut head, mut broken) = self.head();
            let skipped = Kind::of(&head) == Kind::Skippable;
            if skipped {
                self.put_back(head, broken);
                self.skip_frames();
                (head, broken) = self.head();
            }
            if let (0, Some(e)) = (head.len(), &broken) {
                return Err(unusable(self.outer, e));
            }
            let kind = Kind::of(&head);
            if skipped && !matches!(kind, Kind::Zstd | Kind::Lz4) {
                return Err(Error::damaged("stream", "no frame of zstd or lz4 follows those that are to be skipped"));
            }
            self.put_back(head, broken);
            if matches!(kind, Kind::Flat | Kind::Plain) {
                return Ok(kind);
            }
            let empty = Box::new(io::empty());
            let decoder = kind.decoder(std::mem::replace(&mut self.input, empty))?;
            // What was told is what the outermost unpacks to.
            self.most = self.most.filter(|_| self.outer == Kind::Plain);
            self.history.layers.push(kind.name().into());
            (self.input, self.outer) = (decoder, kind);
        }
        Err(Error::Usage(format!("more than {MOST_LAYERS} compressions within each other")))
    }

    /// What it begins with, and why there is no more of it.
    fn head(&mut self) -> (Vec<u8>, Option<io::Error>) {
        let mut head = vec![0; HEAD];
        let (n, broken) = fill(&mut self.input, &mut head);
        head.truncate(n);
        (head, broken)
    }

    fn put_back(&mut self, head: Vec<u8>, broken: Option<io::Error>) {
        let rest = std::mem::replace(&mut self.input, Box::new(io::empty()));
        self.input = Box::new(Cursor::new(head).chain(Broken(broken)).chain(rest));
    }

    /// Takes skippable frames off.
    fn skip_frames(&mut self) {
        for _ in 0..MOST_SKIPPED {
            let mut head = [0; SKIPPABLE_HEAD];
            let (n, broken) = fill(&mut self.input, &mut head);
            let size = u32_at(&head, 4).filter(|_| n == head.len() && Kind::of(&head) == Kind::Skippable);
            let Some(size) = size else {
                return self.put_back(head.get(..n).unwrap_or_default().to_vec(), broken);
            };
            if let Err(e) = io::copy(&mut self.input.by_ref().take(size.into()), &mut io::sink()) {
                return self.put_back(Vec::new(), Some(e));
            }
        }
    }

    fn copy(mut self, kind: Kind, most: u64, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
        let Some(stop) = options.stop.clone() else { return self.copy_all(kind, most, options) };
        self.input = Box::new(Until(std::mem::replace(&mut self.input, Box::new(io::empty())), Arc::clone(&stop)));
        let done = self.copy_all(kind, most, options);
        // What came so far is not all that there is.
        if stop.load(Ordering::Relaxed) == 0 {
            done
        } else {
            Err(Error::Stopped("while the input was unpacked".into()))
        }
    }

    fn copy_all(mut self, kind: Kind, most: u64, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
        let told = self.most.or(Some(most).filter(|m| *m < u64::MAX));
        let mut out = Out::create(options.tmp_dir.as_deref(), self.least, told)?;
        if kind != Kind::Flat {
            spool::copy(&mut self.input, &mut out, most, self.outer, &mut self.history)?;
            return Ok(mapped(out.finish()?.with_history(self.history), options));
        }
        let mut work = Rearranger::new(&mut out);
        work.run(&mut self.input)?;
        let (mut index, broken) = (work.index, work.broken);
        self.history.layers.push(flat::LAYER.into());
        if let Some((e, at)) = broken {
            spool::broken_off(&mut self.history, self.outer, &e, at);
        }
        let file = out.finish()?;
        index.finish(&file);
        if index.is_whole() && index.len() == file.len() {
            index.tell(&mut self.history);
            return Ok(mapped(file.with_history(self.history), options));
        }
        // Where nothing was written is no zero.
        Ok(Box::new(Flat::with(mapped(file, options), index, self.history)))
    }
}

/// A stream that ends when somebody says so.
struct Until<'r>(Box<dyn Read + 'r>, Arc<AtomicUsize>);

impl Read for Until<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.1.load(Ordering::Relaxed) == 0 { self.0.read(buf) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

/// Bytes of windows on a file of procfs, where nothing else is said.
const ON_PROC: u64 = 16 << 20;

/// The file mapped, or windows of it, if that is wanted and can be.
pub(super) fn mapped(file: FileSource, options: &OpenOptions) -> Box<dyn ReadAt> {
    if options.no_mmap {
        return Box::new(file);
    }
    // On tmpfs a hole that is looked at in a mapping takes memory, and where none is left, SIGBUS.
    if file.holes.total() > 0 && is_in_memory(&file.file) {
        return Box::new(file);
    }
    if options.memory.is_some() || is_of_proc(&file.file) {
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        return Box::new(WindowSource::new(file, threads, options.memory.unwrap_or(ON_PROC)));
    }
    match MapSource::new(file) {
        Ok(mapped) => Box::new(mapped),
        Err(file) => Box::new(file),
    }
}

/// Nothing came of it.
fn unusable(kind: Kind, e: &io::Error) -> Error {
    match kind {
        _ if e.raw_os_error().is_some() => Error::read("the stream", io::Error::new(e.kind(), e.to_string())),
        Kind::Plain | Kind::Flat => Error::read("the stream", io::Error::new(e.kind(), e.to_string())),
        _ => Error::damaged("stream", format!("the {} stream is bad after 0 bytes: {e}", kind.name())),
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
pub(super) fn fill(from: &mut (impl Read + ?Sized), buf: &mut [u8]) -> (usize, Option<io::Error>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that fails after some bytes.
    struct Failing<'a>(&'a [u8]);

    impl Read for Failing<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buf)? {
                0 => Err(io::Error::from_raw_os_error(5)),
                n => Ok(n),
            }
        }
    }

    /// An ELF header, and a PT_LOAD of all that is behind it.
    fn elf(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        [(16, 4), (18, 62), (32, 64), (54, 56), (56, 1), (64, 1)].iter().for_each(|(at, byte)| out[*at] = *byte);
        out[96..104].copy_from_slice(&(len as u64 - 120).to_le_bytes());
        out[72] = 120;
        let mut noise = 1_u32;
        out[120..].iter_mut().for_each(|byte| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (noise >> 24) as u8 | 1;
        });
        out
    }

    /// What came before an error of the disk is used, and the error is told.
    #[test]
    fn a_disk_that_fails_breaks_the_stream_off() {
        let plain = elf(5 << 20);
        let flat = [&[&flat::MAGIC[..], &[0; 7], &[1], &[0; 7], &[1], &[0; 4064]].concat()[..], &[0; 8]].concat();
        let flat = [&flat[..], &(plain.len() as u64).to_be_bytes(), &plain].concat();
        for (bytes, layers) in [(&plain, "zstd"), (&flat, "zstd, flattened")] {
            let packed = zstd::encode_all(&bytes[..], 1).unwrap();
            let input = Packed::stream(Box::new(Failing(&packed[..packed.len() / 2])));
            let file = input.spool(&OpenOptions::default()).unwrap();
            assert_eq!(file.history().form(), layers);
            assert!(file.history().damage.to_string().contains("os error 5"), "{:?}", file.history());
            let mut got = vec![0; file.len() as usize];
            file.read_exact_at(FileOffset(0), &mut got).unwrap();
            assert!(got.len() > 64 << 10 && plain.starts_with(&got), "{}", got.len());
        }
        let nothing = Packed::stream(Box::new(Failing(&[]))).spool(&OpenOptions::default()).err().unwrap();
        assert!(matches!(nothing, Error::Read { .. }), "{nothing}");
    }

    #[test]
    fn who_is_told_to_stop_does() {
        let plain = elf(1 << 20);
        let packed = zstd::encode_all(&plain[..], 1).unwrap();
        let stop = Arc::new(AtomicUsize::new(0));
        let options = OpenOptions { stop: Some(Arc::clone(&stop)), ..OpenOptions::default() };
        let spool = || Packed::stream(Box::new(&packed[..])).spool(&options);
        assert_eq!(spool().unwrap().len(), 1 << 20);
        stop.store(15, Ordering::Relaxed);
        assert!(matches!(spool(), Err(Error::Stopped(_))));
    }

    #[test]
    fn a_folder_without_room_is_named_with_what_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let e = Out::create(Some(dir.path()), 1 << 60, Some(1 << 61)).err().unwrap();
        assert!(matches!(&e, Error::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull));
        let said = e.to_string();
        let words = ["MiB free", "up to 2199023255552 MiB", "--tmp-dir", &dir.path().display().to_string()];
        assert!(words.iter().all(|w| said.contains(w)), "{said}");
        // More than is free is no proof that it fails: zeros take no room.
        let mut out = Out::create(Some(dir.path()), 0, Some(1 << 60)).unwrap();
        out.write(0, &[1; 100]).unwrap();
        (0..40).for_each(|n| out.write(100 + (n << 30), &[0; 4096]).unwrap());
        assert_eq!(out.finish().unwrap().len(), 100 + (39 << 30) + 4096);
    }
}
