//! The manifest: a line of JSON for each input, the last one of an input counts.
//!
//! Lines are appended, each by one write, and put on the disk. A kill, or a disk that fills up, leaves one torn line at the end
//! at most: it is left out, and gone when the manifest is opened again for writing.

use super::Record;
use crate::error::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A line may be so long; a longer one is damaged.
const LONGEST: u64 = 16 << 20;

/// What became of all inputs so far.
#[derive(Debug, Default)]
pub struct Manifest {
    path: PathBuf,
    /// By the path of the first file.
    records: BTreeMap<PathBuf, Record>,
    file: Option<File>,
    /// Whether the last line was not written whole.
    torn: bool,
    /// Held as long as it is open for writing.
    _lock: Option<File>,
    /// Lines that make no sense.
    pub damaged: usize,
}

impl Manifest {
    /// Reads it; one that is not there is empty.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn read(path: &Path) -> Result<Self> {
        let mut all = Self { path: path.into(), ..Self::default() };
        match File::open(path) {
            Ok(file) => all.take(&mut BufReader::new(file)).map_err(|e| Error::read(path.display().to_string(), e))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::read(path.display().to_string(), e)),
        }
        Ok(all)
    }

    /// Opens it for writing, with a line for each input; only one process at a time can.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Read`], [`Error::Write`].
    pub fn open(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::write(folder.display().to_string(), e))?;
        }
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|e| Error::write(lock_path.display().to_string(), e))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Busy(name())),
            // A file system without locks: two runs at once make the same outputs twice, each whole.
            _ => {}
        }
        let mut all = Self { _lock: Some(lock), ..Self::read(path)? };
        all.rewrite()?;
        let file = OpenOptions::new().append(true).open(path).map_err(|e| Error::write(name(), e))?;
        all.file = Some(file);
        Ok(all)
    }

    /// Writes it anew, whole or not at all.
    fn rewrite(&self) -> Result<()> {
        let name = || self.path.display().to_string();
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(".new");
        let write = || {
            let mut file = BufWriter::new(File::create(&temporary)?);
            for record in self.records.values() {
                file.write_all(line(record)?.as_bytes())?;
            }
            file.into_inner()?.sync_all()?;
            std::fs::rename(&temporary, &self.path)
        };
        write().map_err(|e| Error::write(name(), e))
    }

    fn take(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let n = io::Read::take(&mut *from, LONGEST).read_until(b'\n', &mut bytes)?;
            if n == 0 {
                return Ok(());
            }
            // What has no end of line is torn.
            let whole = bytes.pop() == Some(b'\n');
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if whole && !record.files.is_empty() => self.learn(record),
                _ if bytes.is_empty() => {}
                _ => self.damaged += 1,
            }
        }
    }

    fn learn(&mut self, record: Record) {
        self.records.insert(record.input().to_owned(), record);
    }

    /// Takes over what another manifest has, where it knows more.
    pub fn merge(&mut self, other: Self) {
        self.damaged += other.damaged;
        for record in other.records.into_values() {
            let known = self.records.get(record.input());
            if known.is_none_or(|known| record.is_better_than(known)) {
                self.learn(record);
            }
        }
    }

    /// Puts on the disk what was merged.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&mut self) -> Result<()> {
        self.rewrite()?;
        let file = OpenOptions::new().append(true).open(&self.path);
        self.file = Some(file.map_err(|e| Error::write(self.path.display().to_string(), e))?);
        Ok(())
    }

    /// Adds a line, and puts it on the disk.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn add(&mut self, record: Record) -> Result<()> {
        let begin = if self.torn { "\n" } else { "" };
        let append = |file: &mut File| {
            file.write_all((begin.to_owned() + &line(&record)?).as_bytes())?;
            file.sync_data()
        };
        let file = self.file.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        let done = file.and_then(append);
        self.torn = done.is_err();
        done.map_err(|e| Error::write(self.path.display().to_string(), e))?;
        self.learn(record);
        Ok(())
    }

    /// What became of the input whose first file this is.
    pub fn of(&self, input: &Path) -> Option<&Record> {
        self.records.get(input)
    }

    /// All, by the names of their inputs.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn line(record: &Record) -> io::Result<String> {
    Ok(serde_json::to_string(record)? + "\n")
}
