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

/// The manifest, below the folder of manifests.
pub(super) const NAME: &str = "manifest.jsonl";
/// The folder of the manifests of entries, likewise.
pub(super) const PIECES: &str = "manifest.d";
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
        // On a file system without locks two runs at once make the same outputs twice, each whole.
        if flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
            return Err(Error::Busy(name()));
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
                _ if whole && bytes.is_empty() => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::{Identity, Name, Status, Wish};

    fn record(n: usize, status: Status) -> Record {
        let path = Name(format!("/in/{n}").into());
        let files = vec![Identity { path, size: n as u64, ..Identity::default() }];
        Record { status, ..Record::started(files, Some(Path::new("out.kdump")), &Wish::default()) }
    }

    fn statuses(manifest: &Manifest) -> Vec<Status> {
        manifest.records().map(|r| r.status).collect()
    }

    #[test]
    fn the_last_line_counts_and_one_process_at_a_time_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m/manifest.jsonl");
        assert_eq!(Manifest::read(&path).unwrap().records().count(), 0);
        let mut manifest = Manifest::open(&path).unwrap();
        for (n, status) in [(0, Status::Started), (1, Status::Left), (0, Status::Done), (2, Status::Started)] {
            manifest.add(record(n, status)).unwrap();
        }
        let want = [Status::Done, Status::Left, Status::Started];
        assert_eq!(statuses(&manifest), want);
        assert_eq!(statuses(&Manifest::read(&path).unwrap()), want);
        assert!(matches!(Manifest::open(&path), Err(Error::Busy(_))));
        drop(manifest);
        let manifest = Manifest::open(&path).unwrap();
        assert_eq!((statuses(&manifest), std::fs::read_to_string(&path).unwrap().lines().count()), (want.to_vec(), 3));
    }

    /// Torn anywhere, and with any byte flipped: lines that are whole are read, and the others are counted.
    #[test]
    fn damage_costs_the_lines_that_it_hits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.jsonl");
        let mut manifest = Manifest::open(&path).unwrap();
        (0..3).for_each(|n| manifest.add(record(n, Status::Done)).unwrap());
        drop(manifest);
        let bytes = std::fs::read(&path).unwrap();
        let line_of = |at: usize| bytes[..at].iter().filter(|b| **b == b'\n').count();
        let read = |bytes: &[u8]| {
            let mut all = Manifest::default();
            all.take(&mut &bytes[..]).unwrap();
            (all.records().count(), all.damaged)
        };
        for len in 0..bytes.len() {
            let torn = usize::from(len > 0 && bytes[len - 1] != b'\n');
            assert_eq!(read(&bytes[..len]), (line_of(len), torn), "{len}");
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x80;
            let (records, damaged) = read(&bad);
            assert!(records >= 1 && records + damaged <= 4, "{at}");
        }
        // What is appended after a write that broke off is not lost with it.
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        let mut manifest = Manifest::open(&path).unwrap();
        manifest.torn = true;
        manifest.add(record(9, Status::Done)).unwrap();
        drop(manifest);
        let manifest = Manifest::read(&path).unwrap();
        assert_eq!((manifest.records().count(), manifest.damaged), (3, 0));
    }

    #[test]
    fn what_is_done_stays_done_whoever_speaks_last() {
        let merged = |first: Record, second: Record| {
            let of = |record: Record| {
                let mut manifest = Manifest::default();
                manifest.learn(record);
                manifest
            };
            let mut all = of(first);
            all.merge(of(second));
            statuses(&all)[0]
        };
        let later = |r: Record| Record { at: r.at + 1000, ..r };
        assert_eq!(merged(record(1, Status::Done), later(record(1, Status::Trouble))), Status::Done);
        assert_eq!(merged(record(1, Status::Trouble), record(1, Status::Done)), Status::Done);
        assert_eq!(merged(later(record(1, Status::Failed)), record(1, Status::Trouble)), Status::Failed);
        // Of another state of the input the later word counts.
        let mut changed = later(record(1, Status::Failed));
        changed.files[0].size = 99;
        assert_eq!(merged(record(1, Status::Done), changed), Status::Failed);
    }
}
