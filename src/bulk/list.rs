//! Work lists: what is to be done, in entries of about the same cost, for engines that run one entry each.
//!
//! JSON lines. The first one is the [`Head`], each other one an [`Entry`], in order of their numbers from 0 on.

use super::{Identity, Name, Task, Wish};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The format's version.
const VERSION: u32 = 1;
/// A list of more bytes is none: a line per dump, of a few hundred bytes.
const LARGEST: u64 = 4 << 30;
/// Entries, unless the user wants another number: what an array job of Slurm may have by default, less one.
const MOST_ENTRIES: usize = 1000;

/// What all entries have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// What the file is: this format's version.
    #[serde(rename = "xdump-cut work list")]
    pub version: u32,
    /// Tells lists apart: names of manifests have it.
    pub id: String,
    /// How many entries there are.
    pub entries: usize,
    /// Where outputs go: an absolute path, or a URL.
    pub out: Name,
    /// The folder of manifests, likewise.
    pub manifests: Name,
    /// What the cuts are to be like.
    pub options: Wish,
    /// Whether what stands under the name of an output may be overwritten.
    pub overwrite: bool,
}

/// What one task of an engine does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub index: usize,
    /// What it is expected to cost, in bytes that a cut in place reads in the time.
    pub cost: u64,
    /// Its dumps.
    pub dumps: Vec<Dump>,
}

/// A dump of an entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// Its files.
    pub files: Vec<Name>,
    /// Its output, below the folder of all outputs.
    pub output: Name,
}

/// A work list.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// What all entries have in common.
    pub head: Head,
    /// The entries.
    pub entries: Vec<Entry>,
}

impl List {
    /// Shares tasks out, the most expensive first, each to the entry that has the least so far. Without a number of entries there
    /// are as many as keep each near the cost of the most expensive dump.
    pub fn make(
        tasks: &[Task],
        entries: Option<usize>,
        out: &Path,
        manifests: &Path,
        options: &Wish,
        overwrite: bool,
    ) -> Self {
        let total: u64 = tasks.iter().map(Task::cost).fold(0, u64::saturating_add);
        let largest = tasks.iter().map(Task::cost).max().unwrap_or(1);
        let good = usize::try_from(total.div_ceil(largest.max(1))).unwrap_or(usize::MAX).min(MOST_ENTRIES);
        let count = entries.unwrap_or(good).min(tasks.len());
        let mut all: Vec<Entry> = (0..count).map(|index| Entry { index, ..Entry::default() }).collect();
        let mut least: BinaryHeap<Reverse<(u64, usize)>> = (0..count).map(|index| Reverse((0, index))).collect();
        let mut sorted: Vec<&Task> = tasks.iter().collect();
        sorted.sort_by(|a, b| b.cost().cmp(&a.cost()).then_with(|| a.input().cmp(b.input())));
        let mut id = blake3::Hasher::new();
        for task in sorted {
            let Some(Reverse((cost, index))) = least.pop() else { break };
            let cost = cost.saturating_add(task.cost());
            least.push(Reverse((cost, index)));
            let Some(entry) = all.get_mut(index) else { continue };
            entry.cost = cost;
            let files = task.files.iter().map(|f: &Identity| f.path.clone()).collect();
            id.update(format!("{:?}", task.files).as_bytes());
            entry.dumps.push(Dump { files, output: Name(task.output.clone()) });
        }
        id.update(format!("{out:?} {options:?} {count}").as_bytes());
        let id = id.finalize().to_hex().chars().take(16).collect();
        let head = Head {
            version: VERSION,
            id,
            entries: count,
            out: out.into(),
            manifests: manifests.into(),
            options: options.clone(),
            overwrite,
        };
        Self { head, entries: all }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
            let mut file = BufWriter::new(temporary.as_file_mut());
            writeln!(file, "{}", serde_json::to_string(&self.head)?)?;
            for entry in &self.entries {
                writeln!(file, "{}", serde_json::to_string(entry)?)?;
            }
            file.flush()?;
            drop(file);
            temporary.as_file().sync_all()?;
            temporary.persist(path).map(drop).map_err(|e| e.error)
        };
        write().map_err(|e| Error::write(path.display().to_string(), e))
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Read`], and [`Error::Usage`] for what is no such list.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |e| Error::read(path.display().to_string(), e);
        let bad = |why: String| Error::Usage(format!("{}: not a work list of this version: {why}", path.display()));
        let size = File::open(path).and_then(|f| f.metadata()).map_err(failed)?.len();
        if size > LARGEST {
            return Err(bad(format!("it has {size} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let mut lines = text.lines();
        let head: Head = serde_json::from_str(lines.next().unwrap_or_default()).map_err(|e| bad(e.to_string()))?;
        if head.version != VERSION {
            return Err(bad(format!("it is of version {}", head.version)));
        }
        let entries: Vec<Entry> =
            lines.map(serde_json::from_str).collect::<Result<_, _>>().map_err(|e| bad(e.to_string()))?;
        if entries.len() != head.entries || entries.iter().enumerate().any(|(n, e)| e.index != n) {
            return Err(bad(format!("it has {} entries of {}; it is cut short", entries.len(), head.entries)));
        }
        let leads_out = |dump: &Dump| {
            use std::path::Component::Normal;
            dump.files.is_empty() || !dump.output.0.components().all(|c| matches!(c, Normal(_)))
        };
        if entries.iter().flat_map(|e| &e.dumps).any(leads_out) {
            return Err(bad("an output has a name that leads elsewhere".into()));
        }
        Ok(Self { head, entries })
    }

    /// Where the manifest of an entry is.
    pub fn manifest(&self, index: usize) -> PathBuf {
        self.head.manifests.0.join(super::manifest::PIECES).join(format!("{}-{index}.jsonl", self.head.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(sizes: &[u64]) -> Vec<Task> {
        let task = |(n, size): (usize, &u64)| Task {
            files: vec![Identity { path: Name(format!("/in/{n}").into()), size: *size << 30, ..Identity::default() }],
            output: format!("{n}.kdump").into(),
            weight: 1,
        };
        sizes.iter().enumerate().map(task).collect()
    }

    #[test]
    fn entries_are_of_about_the_same_cost_and_have_all() {
        let sizes = [8, 1, 7, 3, 2, 2, 1, 4, 4];
        for count in [None, Some(1), Some(2), Some(4), Some(9), Some(50)] {
            let list = List::make(&tasks(&sizes), count, Path::new("/out"), Path::new("/out"), &Wish::default(), false);
            assert_eq!(list.head.entries, list.entries.len());
            let costs: Vec<u64> = list.entries.iter().map(|e| e.cost >> 30).collect();
            let (least, most) = (costs.iter().min().unwrap(), costs.iter().max().unwrap());
            assert!(most - least <= 8 && list.entries.iter().all(|e| !e.dumps.is_empty()), "{costs:?}");
            let mut all: Vec<_> = list.entries.iter().flat_map(|e| &e.dumps).collect();
            all.sort_by(|a, b| a.output.cmp(&b.output));
            all.dedup();
            assert_eq!(all.len(), sizes.len());
        }
        assert_eq!(
            List::make(&tasks(&sizes), None, Path::new("/out"), Path::new("/out"), &Wish::default(), false)
                .entries
                .len(),
            5
        );
        assert_eq!(
            List::make(&[], None, Path::new("/out"), Path::new("/out"), &Wish::default(), false).entries.len(),
            0
        );
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let list =
            List::make(&tasks(&[1, 2, 3]), Some(2), Path::new("/out"), Path::new("/out"), &Wish::default(), true);
        list.write(&path).unwrap();
        assert_eq!(List::read(&path).unwrap(), list);
        let text = std::fs::read_to_string(&path).unwrap();
        // A list without its last entry, or a part of it, is none.
        for len in 0..text.len() - 1 {
            std::fs::write(&path, &text[..len]).unwrap();
            assert!(List::read(&path).is_err(), "{len}");
        }
        for (from, to) in
            [("0.kdump", "../0"), ("0.kdump", "/0"), ("list\":1", "list\":2"), ("\"index\":1", "\"index\":2")]
        {
            std::fs::write(&path, text.replace(from, to)).unwrap();
            assert!(matches!(List::read(&path), Err(Error::Usage(_))), "{to}");
        }
    }
}
