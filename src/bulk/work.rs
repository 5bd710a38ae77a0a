//! The four commands: all of it here and now, a list of it, an entry of a list, and what became of a list.

use super::crew::Crew;
use super::list::Dump;
use super::survey::{self, Surveyed, Task};
use super::tree::Outputs;
use super::{Identity, List, Manifest, Record, Settings, Status, Summary, Watch, tree};
use crate::error::{Error, Result};
use crate::objects;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

/// The manifest, below the folder of all outputs.
const MANIFEST: &str = "manifest.jsonl";
/// The folder of the manifests of entries, likewise.
pub(super) const PIECES: &str = "manifest.d";

/// Cuts every dump under `sources`.
///
/// # Errors
/// [`Error::Read`] for a source that is not there, [`Error::Usage`] for two inputs of one output, [`Error::Busy`], and those of the
/// manifest. What goes wrong with one dump is in the manifest and the summary.
pub fn run(settings: &Settings, sources: &[PathBuf], watch: &dyn Watch) -> Result<Summary> {
    let started = Instant::now();
    let crew = Crew::new(settings, watch)?;
    let mut manifest = Manifest::open(&settings.manifests.join(MANIFEST))?;
    gather(settings, &mut manifest, watch)?;
    let found = tree::walk(sources, &settings.out, settings.follow)?;
    let Surveyed { tasks, settled, others } = crew.install(|| survey::survey(found, settings, &manifest))?;
    let inputs: Vec<PathBuf> = tasks.iter().map(|t| t.input().to_owned()).collect();
    for record in &others {
        manifest.add(record.clone())?;
    }
    let mut summary = Summary::default();
    settled.iter().for_each(|record| summary.add(record, true));
    others.iter().for_each(|record| summary.add(record, false));
    watch.begin(tasks.len(), tasks.iter().map(Task::bytes).sum());
    let shared = Mutex::new(&mut manifest);
    for mut record in settled {
        crew.dispose(&mut record, &shared)?;
    }
    crew.cut(tasks, &shared)?;
    finish(&mut summary, &manifest, &inputs, watch, started);
    Ok(summary)
}

/// Takes over what entries of lists have done.
fn gather(settings: &Settings, manifest: &mut Manifest, watch: &dyn Watch) -> Result<()> {
    let Ok(pieces) = std::fs::read_dir(settings.manifests.join(PIECES)) else { return damaged(manifest, watch) };
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

/// Adds what became of inputs that were to be cut.
fn finish(summary: &mut Summary, manifest: &Manifest, inputs: &[PathBuf], watch: &dyn Watch, started: Instant) {
    for input in inputs {
        // One that was not come to may have a record of before.
        match manifest.of(input).filter(|r| r.version == env!("CARGO_PKG_VERSION")) {
            Some(record) => summary.add(record, false),
            None => summary.missing(input.display().to_string(), "it was not begun"),
        }
    }
    summary.stopped = watch.stop();
    summary.seconds = started.elapsed().as_secs_f64();
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
    let crew = Crew::new(settings, watch)?;
    let mut manifest = Manifest::open(&settings.manifests.join(MANIFEST))?;
    gather(settings, &mut manifest, watch)?;
    let found = tree::walk(sources, &settings.out, settings.follow)?;
    let Surveyed { tasks, settled, others } = crew.install(|| survey::survey(found, settings, &manifest))?;
    let mut summary = Summary::default();
    settled.iter().for_each(|record| summary.add(record, true));
    for record in others {
        summary.add(&record, false);
        manifest.add(record)?;
    }
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
    let crew = Crew::new(settings, watch)?;
    let mut manifest = Manifest::open(&list.manifest(index))?;
    damaged(&manifest, watch)?;
    let all = Manifest::read(&settings.manifests.join(MANIFEST))?;
    let outputs = Outputs::of(&settings.out)?;
    let (mut summary, mut tasks) = (Summary::default(), Vec::new());
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
                    manifest.add(record)?;
                }
                continue;
            }
        };
        let known = [&manifest, &all].into_iter().filter_map(|m| m.of(task.input()));
        let there = |r: &Record| r.status != Status::Done || r.output.as_ref() == Some(&dump.output);
        let mut known = known.filter(|r| r.files == task.files && there(r));
        match known.find(|r| r.is_settled(&settings.wish, &outputs, settings.retry)) {
            Some(record) => summary.add(record, true),
            None => tasks.push(task),
        }
    }
    // What the list's maker knew to be ours, is.
    let ours: Vec<Record> =
        tasks.iter().filter_map(|t| all.of(t.input()).filter(|_| manifest.of(t.input()).is_none())).cloned().collect();
    ours.into_iter().try_for_each(|record| manifest.add(record))?;
    let inputs: Vec<PathBuf> = tasks.iter().map(|t| t.input().to_owned()).collect();
    watch.begin(tasks.len(), tasks.iter().map(Task::bytes).sum());
    crew.cut(tasks, &Mutex::new(&mut manifest))?;
    finish(&mut summary, &manifest, &inputs, watch, started);
    Ok(summary)
}

/// The record of a dump that was cut, and then moved or deleted.
fn done_and_gone(dump: &Dump, manifest: &Manifest, settings: &Settings, outputs: &Outputs) -> Option<Record> {
    let record = manifest.of(dump.files.first()?.as_ref())?;
    let gone = record.source != super::record::Source::Kept;
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
    let mut manifest = Manifest::open(&settings.manifests.join(MANIFEST))?;
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
