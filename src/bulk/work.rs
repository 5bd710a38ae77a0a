//! The four commands: all of it here and now, a list of it, an entry of a list, and what became of a list.

use super::jobs::Jobs;
use super::list::Dump;
use super::record::Source;
use super::survey::{self, Surveyed, Task};
use super::tree::Outputs;
use super::{After, Identity, List, Manifest, Record, Settings, Status, Summary, Watch, manifest, tree};
use crate::error::{Error, Result};
use crate::objects;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

/// Cuts every dump under `sources`.
///
/// # Errors
/// [`Error::Read`] for a source that is not there, [`Error::Usage`] for two inputs of one output, [`Error::Busy`], and those of the
/// manifest. What goes wrong with one dump is in the manifest and the summary.
pub fn run(settings: &Settings, sources: &[PathBuf], watch: &dyn Watch) -> Result<Summary> {
    let started = Instant::now();
    let jobs = Jobs::new(settings, watch)?;
    let Begun { mut manifest, mut summary, tasks, settled } = begin(settings, sources, &jobs, watch)?;
    cut(&mut summary, &jobs, tasks, settled, &mut manifest, watch)?;
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

/// What there is to be done, and what is known.
struct Begun {
    manifest: Manifest,
    summary: Summary,
    tasks: Vec<Task>,
    settled: Vec<Record>,
}

/// Looks at all that is there.
fn begin(settings: &Settings, sources: &[PathBuf], jobs: &Jobs<'_>, watch: &dyn Watch) -> Result<Begun> {
    let mut manifest = Manifest::open(&settings.manifests.join(manifest::NAME))?;
    gather(settings, &mut manifest, watch)?;
    end_what_was_begun(jobs, &mut manifest)?;
    let found = tree::walk(sources, &own_folders(settings), settings.follow)?;
    let Surveyed { tasks, settled, others } = jobs.install(|| survey::survey(found, settings, &manifest))?;
    let mut summary = Summary::default();
    settled.iter().for_each(|record| summary.add(record, true));
    for record in &others {
        summary.add(record, false);
        add(&mut manifest, record)?;
    }
    Ok(Begun { manifest, summary, tasks, settled })
}

/// Cuts what is to be cut, and lets go of what was cut before and should go.
fn cut(
    summary: &mut Summary,
    jobs: &Jobs<'_>,
    tasks: Vec<Task>,
    settled: Vec<Record>,
    manifest: &mut Manifest,
    watch: &dyn Watch,
) -> Result<()> {
    let inputs: Vec<PathBuf> = tasks.iter().map(|t| t.input().to_owned()).collect();
    watch.begin(tasks.len(), tasks.iter().map(Task::bytes).sum());
    let shared = Mutex::new(manifest);
    settled.into_iter().try_for_each(|mut record| jobs.dispose(&mut record, &shared))?;
    jobs.cut(tasks, &shared)?;
    let ended = jobs.ended();
    ended.iter().for_each(|record| summary.add(record, false));
    let ended: BTreeSet<&Path> = ended.iter().map(Record::input).collect();
    for input in inputs.iter().filter(|input| !ended.contains(input.as_path())) {
        summary.missing(objects::shown(input), "it was not begun, or stopped");
    }
    summary.stopped = watch.stop();
    Ok(())
}

/// Takes over what entries of lists have done.
fn gather(settings: &Settings, manifest: &mut Manifest, watch: &dyn Watch) -> Result<()> {
    let Ok(pieces) = std::fs::read_dir(settings.manifests.join(manifest::PIECES)) else {
        return damaged(manifest, watch);
    };
    let mut paths: Vec<PathBuf> = pieces.filter_map(|p| Some(p.ok()?.path())).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "jsonl"));
    paths.sort();
    for path in &paths {
        manifest.merge(Manifest::read(path)?);
    }
    if !paths.is_empty() {
        manifest.save()?;
    }
    damaged(manifest, watch)
}

fn damaged(manifest: &Manifest, watch: &dyn Watch) -> Result<()> {
    if manifest.damaged > 0 {
        let (path, n) = (manifest.path().display(), manifest.damaged);
        watch.warn(&format!("{path}: {n} lines make no sense; what they told of is done again"));
    }
    Ok(())
}

/// Folders that are none of the sources.
fn own_folders(settings: &Settings) -> Vec<&Path> {
    let moved = match &settings.after {
        After::Move(to) => Some(to.as_path()),
        _ => None,
    };
    [settings.out.as_path()].into_iter().chain(moved).collect()
}

/// Adds a record, unless it tells nothing of an input of which something is known.
fn add(manifest: &mut Manifest, record: &Record) -> Result<()> {
    if record.is_blind() && manifest.of(record.input()).is_some_and(|known| !known.is_blind()) {
        return Ok(());
    }
    manifest.add(record.clone())
}

/// Ends what a killed run began: dumps that were to go when their cuts were there.
fn end_what_was_begun(jobs: &Jobs<'_>, manifest: &mut Manifest) -> Result<()> {
    let going = manifest.records().filter(|r| matches!(r.source, Source::Going(_)));
    let going: Vec<Record> = going.cloned().collect();
    let shared = Mutex::new(manifest);
    going.into_iter().try_for_each(|mut record| jobs.dispose(&mut record, &shared))
}

/// Writes a list of what [`run`] would do.
///
/// # Errors
/// As [`run`].
pub fn plan(
    settings: &Settings,
    sources: &[PathBuf],
    list: &Path,
    entries: Option<usize>,
    watch: &dyn Watch,
) -> Result<(List, Summary)> {
    let started = Instant::now();
    let jobs = Jobs::new(settings, watch)?;
    let Begun { mut summary, tasks, manifest: _held, .. } = begin(settings, sources, &jobs, watch)?;
    let whole = |path: &Path| match objects::is_url(path) {
        true => Ok(path.to_owned()),
        false => std::path::absolute(path).map_err(|e| Error::read(path.display().to_string(), e)),
    };
    let (out, manifests) = (whole(&settings.out)?, whole(&settings.manifests)?);
    let made = List::make(&tasks, entries, &out, &manifests, &settings.wish, settings.overwrite);
    made.write(list)?;
    summary.seconds = started.elapsed().as_secs_f64();
    Ok((made, summary))
}

/// Does one entry of a list; what is done already is left as it is.
///
/// # Errors
/// [`Error::Busy`] if another process is at it, and as [`run`].
pub fn work(settings: &Settings, list: &List, index: usize, watch: &dyn Watch) -> Result<Summary> {
    let started = Instant::now();
    let entry = list.entries.get(index).ok_or_else(|| {
        let last = list.entries.len().wrapping_sub(1);
        Error::Usage(if list.entries.is_empty() {
            "the list has no entries".into()
        } else {
            format!("--index {index}: the entries are 0 to {last}")
        })
    })?;
    let jobs = Jobs::new(settings, watch)?;
    let mut manifest = Manifest::open(&list.manifest(index))?;
    damaged(&manifest, watch)?;
    end_what_was_begun(&jobs, &mut manifest)?;
    let all = Manifest::read(&settings.manifests.join(manifest::NAME))?;
    let outputs = Outputs::of(&settings.out)?;
    let (mut summary, mut tasks, mut settled) = (Summary::default(), Vec::new(), Vec::new());
    for dump in &entry.dumps {
        let task = match identify(dump) {
            Ok(task) => task,
            Err(e) => {
                let identity =
                    Identity { path: dump.files.first().cloned().unwrap_or_default(), ..Identity::default() };
                let gone = done_and_gone(dump, &manifest, settings, &outputs);
                let record = gone.unwrap_or_else(|| Record {
                    status: Status::of(&e),
                    reason: Some(e.to_string()),
                    ..Record::started(vec![identity], None, &settings.wish)
                });
                summary.add(&record, record.status == Status::Done);
                if record.status != Status::Done {
                    add(&mut manifest, &record)?;
                }
                continue;
            }
        };
        let known = [&manifest, &all].into_iter().filter_map(|m| m.of(task.input()));
        let there = |r: &Record| r.status != Status::Done || r.output.as_ref() == Some(&dump.output);
        let mut known = known.filter(|r| r.files == task.files && there(r));
        match known.find(|r| r.is_settled(&settings.wish, &outputs, settings.retry)) {
            Some(record) => settled.push(Record { source: Source::Kept, ..record.clone() }),
            None => tasks.push(task),
        }
    }
    settled.iter().for_each(|record| summary.add(record, true));
    // What the list's maker knew to be ours, is.
    let ours: Vec<Record> =
        tasks.iter().filter_map(|t| all.of(t.input()).filter(|_| manifest.of(t.input()).is_none())).cloned().collect();
    ours.into_iter().try_for_each(|record| manifest.add(record))?;
    cut(&mut summary, &jobs, tasks, settled, &mut manifest, watch)?;
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

/// The record of a dump that was cut, and then moved or deleted.
fn done_and_gone(dump: &Dump, manifest: &Manifest, settings: &Settings, outputs: &Outputs) -> Option<Record> {
    let record = manifest.of(dump.files.first()?.as_ref())?;
    let gone = record.source != Source::Kept;
    (gone && record.is_settled(&settings.wish, outputs, false)).then(|| record.clone())
}

fn identify(dump: &Dump) -> Result<Task> {
    let files = dump.files.iter().map(|f| Identity::of(f.as_ref())).collect::<Result<_>>()?;
    Ok(Task { files, output: dump.output.0.clone(), weight: 1 })
}

/// Merges the manifests of a list's entries, and tells what is missing.
///
/// # Errors
/// [`Error::Busy`], and those of the manifests.
pub fn collect(settings: &Settings, list: &List, watch: &dyn Watch) -> Result<Summary> {
    let mut manifest = Manifest::open(&settings.manifests.join(manifest::NAME))?;
    gather(settings, &mut manifest, watch)?;
    let outputs = Outputs::of(&settings.out)?;
    let mut summary = Summary::default();
    for entry in &list.entries {
        for dump in &entry.dumps {
            let Some(input) = dump.files.first() else { continue };
            let missing = |why: &str| format!("{why}: entry {}", entry.index);
            match manifest.of(input.as_ref()).filter(|r| settings.wish.is_met_by(&r.options)) {
                Some(record) if record.status == Status::Done && !record.has_output(&outputs) => {
                    let output = record.output.clone().unwrap_or_default();
                    summary.missing(input.to_string(), &missing(&format!("its output {output} is gone")));
                }
                Some(record) => {
                    let reason = record.reason.as_deref().unwrap_or("it was begun, and did not end");
                    let reason = (record.status != Status::Done).then(|| missing(reason));
                    summary.add(&Record { reason, ..record.clone() }, false);
                    summary.seconds += record.seconds;
                }
                None => summary.missing(input.to_string(), &missing("it was not begun")),
            }
        }
    }
    Ok(summary)
}
