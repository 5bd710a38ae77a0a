//! What opens a file: storage, containers, and machine memory behind them.
//!
//! [`open`] finds out by content how a file is wrapped, [`read`] what is in it. [`ReadAt`] is the storage below (a mapping,
//! positioned reads, a flattened stream, several files), [`Container`] a format on top of it ([`elf`], [`kdump`], [`xc_core`]), and
//! [`MachineMemory`] what the rest of the program sees: machine addresses.

pub mod container;
pub mod elf;
mod flat;
mod frames;
pub mod holes;
pub mod kdump;
pub mod machine;
pub mod notes;
mod origin;
mod peek;
mod pieces;
#[cfg(feature = "objects")]
mod remote;
pub mod segments;
mod set;
mod storage;
mod unpack;
mod windows;
pub mod xc_core;

pub use container::Container;
pub use elf::Vmcore;
pub use machine::MachineMemory;
pub use origin::{Fetched, Origin};
pub use peek::{Looks, peek};
pub use set::Set;
pub use storage::{FileSource, History, MapSource, ReadAt};
pub use windows::WindowSource;

use crate::error::{Error, Result};
use crate::objects;
use kdump::Header;
use std::fs::File;
use std::io::Seek;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use unpack::{Kind, Packed};

/// Reads the headers and notes of a dump, ELF or kdump-compressed, in one file or several, and offers its memory.
///
/// # Errors
/// [`Error::NotElf`], [`Error::WrongElf`], [`Error::Damaged`], [`Error::Usage`] for files that do not belong together.
pub fn read(source: &dyn ReadAt) -> Result<(Vmcore, MachineMemory<'_>)> {
    read_files(source).map_err(|e| e.of_damaged(&source.history().damage))
}

fn read_files(source: &dyn ReadAt) -> Result<(Vmcore, MachineMemory<'_>)> {
    let alone = [(source, 0)];
    let set: Vec<(&dyn ReadAt, u64)> = source.parts().iter().map(|(file, base)| (&**file, *base)).collect();
    let files: &[(&dyn ReadAt, u64)] = if set.is_empty() { &alone } else { &set };
    if let Some(e) = files.iter().find_map(|(file, _)| flat::headers_lost(*file)) {
        return Err(e);
    }
    let mut about = source.history().clone();
    let packed = files.iter().filter(|(file, _)| is_kdump(*file)).count();
    if packed > 0 && packed < files.len() {
        return Err(Error::Usage("some of the files given with --split are kdump-compressed, some are not".into()));
    }
    if packed > 0 {
        let map = kdump::Kdump::open(files)?;
        let mut core = Vmcore::default();
        for (file, base) in files {
            core.join(Vmcore::of_kdump(*file, &Header::read(*file)?)?, *base)?;
        }
        about.layers.push(map.describe());
        about.damage.merge(&map.damage());
        about.damage.merge(&core.damage);
        let mem = MachineMemory::new(source, map);
        return Ok((core, mem.with_losses(about)));
    }
    let mut core = match files {
        [(file, _)] => Vmcore::parse(*file)?.with_dump_core(*file)?,
        _ => Vmcore::default(),
    };
    for (file, base) in files.iter().filter(|_| files.len() > 1) {
        core.join(Vmcore::parse(*file)?, *base)?;
    }
    let count = if files.len() > 1 { format!(", {} files", files.len()) } else { String::new() };
    about.layers.push(format!("ELF64{count}"));
    about.damage.merge(&core.damage);
    if core.incomplete {
        about.damage.add("files whose writer ran out of space, by their own flag", 1);
    }
    if let Some(dump) = core.dump_core() {
        about.layers.push("xl dump-core".into());
        let segments = dump.segments(source.len());
        return Ok((core, MachineMemory::new(source, segments).with_losses(about)));
    }
    let segments = core.take_segments();
    Ok((core, MachineMemory::new(source, segments).with_losses(about)))
}

/// Whether all of the storage is one ELF file.
pub(crate) fn is_elf(source: &dyn ReadAt) -> bool {
    let mut magic = [0; 4];
    let read = source.read_exact_at(Default::default(), &mut magic);
    source.parts().is_empty() && read.is_ok() && magic == *goblin::elf::header::ELFMAG
}

fn is_kdump(source: &dyn ReadAt) -> bool {
    let mut magic = [0; 8];
    source.read_exact_at(Default::default(), &mut magic).is_ok() && magic == *kdump::SIGNATURE
}

/// Unpacked bytes that are kept.
const CACHE: u64 = 256 << 20;

/// How to open the input.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Positioned reads instead of a mapping.
    pub no_mmap: bool,
    /// Where a compressed input is unpacked; the system's temporary folder if `None`.
    pub tmp_dir: Option<PathBuf>,
    /// Threads that unpack; 0 for as many as there are processors.
    pub threads: usize,
    /// Instead of threads of its own, those that several inputs share.
    pub pool: Option<Arc<rayon::ThreadPool>>,
    /// Ends unpacking, with [`Error::Stopped`], when it is no longer 0.
    pub stop: Option<Arc<AtomicUsize>>,
    /// Bytes, at most, that are kept of a compressed file that is read in place.
    pub cache: u64,
    /// Bytes of memory that may be taken for the input, if there is a limit.
    pub memory: Option<u64>,
}

impl OpenOptions {
    /// Bytes that a cache of unpacked pages may take.
    fn cached(&self) -> u64 {
        self.cache.min(self.memory.unwrap_or(u64::MAX))
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { no_mmap: false, tmp_dir: None, threads: 0, pool: None, stop: None, cache: CACHE, memory: None }
    }
}

/// Opens a dump for reading; a URL names an object ([`crate::objects`]), of which no more is fetched than is read; `-` is standard input, which is a file as any other if it is one. What it is, is found out by content. A plain file is mapped, or read
/// where a mapping is unwanted or refused; a flattened one, and zstd of many small frames, are read in place; all else
/// goes into an unnamed sparse temporary file first. `/proc/vmcore`, and any file where memory is limited, is mapped in windows
/// that come and go.
///
/// # Errors
/// [`Error::Read`] if the file cannot be opened or read, [`Error::Damaged`] for a compressed stream of which nothing can
/// be had, [`Error::Write`] for the temporary file.
///
/// # A mapped file must keep its size
/// If another process truncates the file while it is mapped, or its disk fails, the kernel ends this process with
/// SIGBUS. Nothing worse can happen, and `no_mmap` avoids it at the price of copies.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
    if let Some(url) = objects::url(path) {
        return open_object(url, options);
    }
    let file = if path == Path::new("-") {
        match standard_input() {
            Some(file) => file,
            None => return Packed::stream(Box::new(std::io::stdin().lock())).spool(options),
        }
    } else {
        File::open(path).map_err(|e| Error::read("the dump", e))?
    };
    open_file(file, options)
}

fn open_file(file: File, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
    let meta = file.metadata().map_err(|e| Error::read("the dump", e))?;
    if meta.is_dir() {
        return Err(Error::Usage("is a folder, not a dump".into()));
    }
    if meta.file_type().is_fifo() || meta.file_type().is_socket() {
        return Packed::stream(Box::new(file)).spool(options);
    }
    open_storage(unpack::mapped(FileSource::new(file)?, options), options)
}

fn open_object(url: &str, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
    let object = object(url, options)?;
    let history = object.history().clone();
    // What was unpacked as far as it came is no damaged dump.
    history.or_trouble(open_storage(object, options))
}

/// An object as it is.
fn object(url: &str, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
    #[cfg(feature = "objects")]
    return Ok(Box::new(remote::Remote::open(url, options)?));
    #[cfg(not(feature = "objects"))]
    {
        let _ = options;
        Err(objects::without(url))
    }
}

fn open_storage(mut source: Box<dyn ReadAt>, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
    // Each turn takes a wrapper off; a file that says that it is wrapped in itself without end is bounded.
    for _ in 0..MOST_WRAPPERS {
        source = match Kind::of_storage(&*source)? {
            Kind::Plain => return Ok(source),
            Kind::Flat => flat::Flat::open(source, options)?,
            Kind::Zstd => match frames::Frames::open(source, options.cached()) {
                Ok(frames) => Box::new(frames),
                Err(source) => return Packed::of(&*source, options).spool(options),
            },
            _ => return Packed::of(&*source, options).spool(options),
        };
    }
    Err(Error::Usage(format!("more than {MOST_WRAPPERS} compressions within each other")))
}

/// Standard input, if it is a file that can be read in place: one of which nothing was read yet.
fn standard_input() -> Option<File> {
    let mut file = File::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
    let unread = file.metadata().ok()?.is_file() && file.stream_position().ok()? == 0;
    unread.then_some(file)
}

/// Opens the parts of a split dump as one.
///
/// # Errors
/// As [`open`]; which of the files it was is in the message.
pub fn open_all(paths: &[&Path], options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
    let mut files = Vec::new();
    for path in paths {
        let one = paths.len() == 1;
        files.push(open(path, options).map_err(|e| if one { e } else { e.of_part(objects::shown(path)) })?);
    }
    Ok(joined(files))
}

/// Opens files that are open already, the parts of a split dump if there are several.
///
/// # Errors
/// As [`open`].
pub fn open_files(files: Vec<File>, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
    let opened: Result<Vec<_>> = files.into_iter().map(|file| open_file(file, options)).collect();
    Ok(joined(opened?))
}

fn joined(mut files: Vec<Box<dyn ReadAt>>) -> Box<dyn ReadAt> {
    match files.len() {
        1 => files.swap_remove(0),
        _ => Box::new(Set::new(files)),
    }
}

/// Wrappers within each other that are taken off in place.
const MOST_WRAPPERS: usize = 4;

/// All bytes of a file that is read here and there: mapped, under the contract of [`open`], or read where it cannot be.
///
/// # Errors
/// [`Error::Read`].
pub(crate) fn whole(path: &Path) -> Result<Whole> {
    let name = || path.display().to_string();
    let file = File::open(path).map_err(|e| Error::read(name(), e))?;
    match MapSource::new(FileSource::new(file)?) {
        Ok(map) => Ok(Whole::Map(map)),
        Err(_) => std::fs::read(path).map(Whole::Read).map_err(|e| Error::read(name(), e)),
    }
}

/// The bytes of a file.
#[derive(Debug)]
pub(crate) enum Whole {
    Map(MapSource),
    Read(Vec<u8>),
}

impl Whole {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Map(map) => {
                let len = usize::try_from(map.len()).unwrap_or(usize::MAX);
                map.slice(Default::default(), len).unwrap_or_default()
            }
            Self::Read(bytes) => bytes,
        }
    }
}
