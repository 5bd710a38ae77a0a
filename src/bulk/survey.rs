//! What there is to be done.

use super::record::Source;
use super::tree::{self, Found, Outputs, Tree};
use super::{Identity, Manifest, Record, Settings, Status};
use crate::error::{Error, Result};
use crate::source::{self, Looks};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A dump that is to be cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its file, or those of a split dump by their PFNs.
    pub files: Vec<Identity>,
    /// Its output, below the folder of all outputs.
    pub output: PathBuf,
    /// How many times more a byte of it costs than one of a plain ELF file.
    pub weight: u64,
}

impl Task {
    /// The name of the input: its first file.
    pub fn input(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |f| f.path.as_ref())
    }

    /// Bytes of the input.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// What a cut of it is expected to cost, in bytes of a plain ELF file that is cut in the time.
    pub fn cost(&self) -> u64 {
        self.bytes().saturating_mul(self.weight.max(1)).saturating_add(LEAST_COST)
    }
}

/// What any dump costs, however small.
const LEAST_COST: u64 = 32 << 20;

/// How many times more a byte of a file costs, by what it is wrapped in (`benches/README.md`, "What an archive costs").
fn weight(looks: &Looks) -> u64 {
    let of = |layer: &String| match layer.as_str() {
        "bzip2" => 300,
        "xz" => 200,
        "gzip" => 50,
        "zstd" => 40,
        "lz4" => 25,
        _ => 1,
    };
    looks.layers.iter().map(of).chain(looks.packed.then_some(25)).max().unwrap_or(1)
}

/// All inputs.
#[derive(Debug, Default)]
pub struct Surveyed {
    /// Those that are to be cut, the most expensive ones first: the last ones to end are small.
    pub tasks: Vec<Task>,
    /// Those of which nothing is to be done any more.
    pub settled: Vec<Record>,
    /// Those that are new and no dumps, or cannot be read.
    pub others: Vec<Record>,
}

/// Looks at each file: whether it was done already, and what it is.
///
/// # Errors
/// [`Error::Usage`] for two inputs of the same output, or a format that is unknown.
pub fn survey(found: Tree, settings: &Settings, known: &Manifest) -> Result<Surveyed> {
    let suffix = settings.wish.suffix()?;
    let look = |f: &Found| f.identity.clone().map_or_else(|| Identity::of(&f.path), Ok);
    let looked: Vec<Result<Identity>> = found.files.par_iter().map(look).collect();
    let outputs = Outputs::of(&settings.out)?;
    let mut all = Surveyed::default();
    let mut unknown: BTreeMap<PathBuf, (Identity, PathBuf)> = BTreeMap::new();
    for (file, looked) in found.files.into_iter().zip(looked) {
        match looked {
            Ok(identity) => {
                unknown.insert(file.path, (identity, file.mirror));
            }
            Err(e) => all.others.push(other(settings, &file.path, Status::of(&e), e.to_string())),
        }
    }
    let mirrors: BTreeMap<PathBuf, PathBuf> = unknown.iter().map(|(path, (_, m))| (path.clone(), m.clone())).collect();
    // A set before a part of it that was cut by itself once.
    let mut records: Vec<&Record> = known.records().collect();
    records.sort_by_key(|record| std::cmp::Reverse(record.files.len()));
    for record in records {
        let same = |f: &Identity| unknown.get(&f.path.0).is_some_and(|(seen, _)| seen == f);
        let mirror = unknown.get(record.input()).map(|(_, mirror)| tree::output(mirror, suffix));
        let there = record.status != Status::Done || record.output.as_ref().map(|o| &o.0) == mirror.as_ref();
        let settled = record.is_settled(&settings.wish, &outputs, settings.retry);
        if settled && there && record.files.iter().all(same) {
            record.files.iter().for_each(|f| drop(unknown.remove(&f.path.0)));
            // One that was moved or deleted, and is here again.
            all.settled.push(Record { source: Source::Kept, ..record.clone() });
        }
    }
    let looks: Vec<_> = unknown
        .into_par_iter()
        .map(|(path, (identity, mirror))| (source::peek(&path), path, identity, mirror))
        .collect();
    let mut parts = Vec::new();
    for (looks, path, identity, mirror) in looks {
        match looks {
            Ok(looks) => {
                let weight = weight(&looks);
                let Some((dump, range)) = looks.part else {
                    let output = tree::output(&mirror, suffix);
                    all.tasks.push(Task { files: vec![identity], output, weight });
                    continue;
                };
                let folder = path.parent().map(Path::to_owned).unwrap_or_default();
                parts.push(Part { of: (folder, dump), range, identity, mirror, weight });
            }
            Err(e) => {
                let record = Record { files: vec![identity], ..other(settings, &path, Status::of(&e), e.to_string()) };
                all.others.push(record);
            }
        }
    }
    unsettle(&mut all.settled, &mut parts, &mirrors);
    all.tasks.extend(join(parts, suffix));
    let without = |path: PathBuf, status, why: String| other(settings, &path, status, why);
    all.others.extend(found.others.into_iter().map(|(path, what)| without(path, Status::Left, what.into())));
    all.others.extend(found.unreadable.into_iter().map(|(path, why)| without(path, Status::Trouble, why)));
    all.tasks.sort_by(|a, b| b.cost().cmp(&a.cost()).then_with(|| a.input().cmp(b.input())));
    apart(&all)?;
    Ok(all)
}

fn other(settings: &Settings, path: &Path, status: Status, why: String) -> Record {
    let identity = Identity { path: path.into(), ..Identity::default() };
    Record { status, reason: Some(why), ..Record::started(vec![identity], None, &settings.wish) }
}

/// A file of a split dump.
struct Part {
    /// The folder, and what the parts of one dump have in common.
    of: (PathBuf, Vec<u8>),
    range: (u64, u64),
    identity: Identity,
    mirror: PathBuf,
    weight: u64,
}

/// Of dumps of which a further part has come, the parts that were cut already.
fn unsettle(settled: &mut Vec<Record>, parts: &mut Vec<Part>, mirrors: &BTreeMap<PathBuf, PathBuf>) {
    let new: BTreeSet<(PathBuf, Vec<u8>)> = parts.iter().map(|part| part.of.clone()).collect();
    let folders: BTreeSet<&Path> = new.iter().map(|of| of.0.as_path()).collect();
    settled.retain(|record| {
        let Some(folder) = record.input().parent().filter(|folder| folders.contains(folder)) else { return true };
        let again = record.files.iter().filter_map(|identity| {
            let looks = source::peek(identity.path.as_ref()).ok()?;
            let (weight, mirror) = (weight(&looks), mirrors.get(&identity.path.0)?.clone());
            let (dump, range) = looks.part?;
            let of = (folder.to_owned(), dump);
            new.contains(&of).then(|| Part { of, range, identity: identity.clone(), mirror, weight })
        });
        let again: Vec<Part> = again.collect();
        let stays = again.is_empty();
        parts.extend(again);
        stays
    });
}

/// Puts parts of one dump together: those of one folder that say so, and are of other pages each.
fn join(mut parts: Vec<Part>, suffix: &str) -> Vec<Task> {
    parts.sort_by(|a, b| (&a.of, a.range, &a.mirror).cmp(&(&b.of, b.range, &b.mirror)));
    // Of each set that is being put together: whose, and where it ends so far.
    let mut sets: Vec<((PathBuf, Vec<u8>), u64, Task)> = Vec::new();
    for part in parts {
        match sets.iter_mut().find(|(of, end, _)| *of == part.of && *end <= part.range.0) {
            Some((_, end, task)) => {
                *end = part.range.1;
                task.files.push(part.identity);
            }
            None => {
                let output = tree::output(&part.mirror, suffix);
                let task = Task { files: vec![part.identity], output, weight: part.weight };
                sets.push((part.of, part.range.1, task));
            }
        }
    }
    sets.into_iter().map(|set| set.2).collect()
}

/// No two inputs may have the same output.
fn apart(all: &Surveyed) -> Result<()> {
    let mut seen = BTreeSet::new();
    let done = all.settled.iter().filter_map(|r| Some((r.output.as_ref()?.as_ref(), r.input())));
    for (output, input) in all.tasks.iter().map(|t| (t.output.as_path(), t.input())).chain(done) {
        if !seen.insert(output) {
            let why = format!(
                "{}: another input would be written to {} as well; name a folder that they have in common",
                input.display(),
                output.display()
            );
            return Err(Error::Usage(why));
        }
    }
    Ok(())
}
