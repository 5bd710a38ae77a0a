//! What opens a file: storage, containers, and machine memory behind them.
//!
//! [`open`] finds out by content what a file is. [`ReadAt`] is the storage below (a mapping or positioned reads),
//! [`elf`] the ELF64 vmcore on top of it, [`MachineMemory`] what the rest of the program sees: machine addresses.

pub mod elf;
pub mod holes;
pub mod machine;
pub mod notes;
pub mod segments;
mod storage;
mod unpack;

pub use elf::Vmcore;
pub use machine::MachineMemory;
pub use storage::{FileSource, MapSource, ReadAt};

use crate::error::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// How to open the input.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Positioned reads instead of a mapping.
    pub no_mmap: bool,
    /// Where a compressed input is unpacked; the system's temporary folder if `None`.
    pub tmp_dir: Option<PathBuf>,
}

/// Opens a dump for reading: maps it, or reads it where a mapping is unwanted or refused. A zstd-compressed file is
/// first unpacked into an unnamed sparse temporary file.
///
/// # Errors
/// [`Error::Read`] if the file cannot be opened or read, [`Error::Damaged`] for a bad zstd stream.
///
/// # A mapped file must keep its size
/// If another process truncates the file while it is mapped, or its disk fails, the kernel ends this process with
/// SIGBUS. Nothing worse can happen, and `no_mmap` avoids it at the price of copies.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn ReadAt>> {
    let file = File::open(path).map_err(|e| Error::read("the dump", e))?;
    let meta = file.metadata().map_err(|e| Error::read("the dump", e))?;
    if meta.is_dir() {
        return Err(Error::Usage("is a folder, not a dump".into()));
    }
    let source = FileSource::new(file)?;
    let mut magic = [0; 4];
    if source.len() >= 4 {
        source.read_exact_at(Default::default(), &mut magic).map_err(|e| Error::read("the dump", e))?;
    }
    let source = if unpack::is_zstd(magic) { unpack::zstd(source, options.tmp_dir.as_deref())? } else { source };
    if options.no_mmap {
        return Ok(Box::new(source));
    }
    Ok(match MapSource::new(source) {
        Ok(mapped) => Box::new(mapped),
        Err(file) => Box::new(file),
    })
}

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
