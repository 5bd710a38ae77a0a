//! Several cuts at once, with the threads and the memory of one.

use super::record::Source;
use super::{Figures, Manifest, Record, Settings, Status, Task, Watch, fate};
use crate::cut;
use crate::error::{Error, Kind, Result};
use crate::objects;
use crate::report::Report;
use crate::sink::{Mode, Output};
use crate::source::{self, OpenOptions};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Memory for one cut, below which others wait rather than share it: what unpacking may take (`xz -9`, `zstd --long`) fits.
const GOOD: u64 = 192 << 20;
/// Of each thread: one that waits for its part of a dump may begin with another's, and so on.
const STACK: usize = 16 << 20;
/// Cuts at once, at most, unless the user wants more: each reads elsewhere on the disk.
const MOST_JOBS: usize = 16;

/// Cuts dumps.
#[derive(Debug)]
pub struct Jobs<'a> {
    settings: &'a Settings,
    watch: &'a dyn Watch,
    pool: Arc<rayon::ThreadPool>,
    /// What became of those that were cut, or tried.
    ended: Mutex<Vec<Record>>,
}

impl<'a> Jobs<'a> {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`Error::Usage`] if they cannot be started.
    pub fn new(settings: &'a Settings, watch: &'a dyn Watch) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(settings.threads).stack_size(STACK).build();
        let pool = pool.map_err(|e| Error::Usage(format!("{} threads: {e}", settings.threads)))?;
        Ok(Self { settings, watch, pool: Arc::new(pool), ended: Mutex::default() })
    }

    /// Runs `work` where its parallel parts use these threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// What became of those that were cut, or tried; taken out.
    pub fn ended(&self) -> Vec<Record> {
        self.ended.lock().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default()
    }

    /// How many cuts run at once, of so many.
    fn at_once(&self, tasks: usize) -> usize {
        let room = self.settings.memory.map_or(usize::MAX, |m| (m / GOOD) as usize);
        let good = self.pool.current_num_threads().min(MOST_JOBS).min(room);
        self.settings.jobs.unwrap_or(good).min(tasks).max(1)
    }

    /// Cuts them all, and tells the manifest and the watch what became of each. What fails for a passing reason is tried once more
    /// when all else is done, alone: others may have been the reason.
    ///
    /// # Errors
    /// Those of the manifest: without it nothing more is begun.
    pub fn cut(&self, tasks: Vec<Task>, manifest: &Mutex<&mut Manifest>) -> Result<()> {
        let jobs = self.at_once(tasks.len());
        let again = self.round(tasks, jobs, jobs > 1, manifest)?;
        if again.is_empty() || self.watch.stop().is_some() {
            Ok(())
        } else {
            self.round(again, 1, false, manifest).map(drop)
        }
    }

    /// One round; those that should be tried again, if that is wanted.
    fn round(
        &self,
        tasks: Vec<Task>,
        jobs: usize,
        put_off: bool,
        manifest: &Mutex<&mut Manifest>,
    ) -> Result<Vec<Task>> {
        let (queue, again) = (Mutex::new(VecDeque::from(tasks)), Mutex::new(Vec::new()));
        let next = || queue.lock().ok()?.pop_front();
        let work = || -> Result<()> {
            while self.watch.stop().is_none()
                && let Some(task) = next()
            {
                let passing = self.one(&task, jobs, put_off, manifest).inspect_err(|_| {
                    // What cannot be told of is not begun.
                    queue.lock().map(|mut q| q.clear()).unwrap_or_default();
                })?;
                if passing && let Ok(mut again) = again.lock() {
                    again.push(task);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..jobs).map(|_| scope.spawn(work)).collect();
            let own = work();
            let ended = |t: std::thread::ScopedJoinHandle<'_, Result<()>>| t.join().unwrap_or_else(|_| Err(stopped()));
            threads.into_iter().map(ended).fold(own, Result::and)
        })?;
        Ok(again.into_inner().unwrap_or_default())
    }

    /// Cuts one; whether it should be tried again.
    fn one(&self, task: &Task, jobs: usize, put_off: bool, manifest: &Mutex<&mut Manifest>) -> Result<bool> {
        let add = |record: Record| manifest.lock().map_err(|_| stopped())?.add(record);
        let known = manifest.lock().map_err(|_| stopped())?.of(task.input()).cloned();
        let ours = known.as_ref().is_some_and(|r| r.may_replace(&task.files, &task.output));
        // All that is left of another dump: neither its cut nor what is known of it is replaced.
        let at_stake = !ours && known.is_some_and(|r| r.status == Status::Done && r.source != Source::Kept);
        let settings = self.settings;
        let started = Instant::now();
        let mut record = Record::started(task.files.clone(), Some(&task.output), &settings.wish);
        let path = objects::below(&settings.out, &task.output)?;
        let overwrite = settings.overwrite || ours;
        let free = if overwrite { Ok(true) } else { exists(&path).map(|there| !there) };
        let mut begun = false;
        let done = match free {
            Ok(true) => {
                add(record.clone())?;
                begun = true;
                self.write(task, &path, overwrite, jobs)
            }
            Ok(false) => Err(Error::OutputExists(objects::shown(&path))),
            Err(e) => Err(e),
        };
        match done {
            Ok(report) => {
                (record.status, record.bytes) = (Status::Done, Some(report.output.bytes));
                record.figures = Some(Figures::of(&report));
            }
            Err(e) => {
                // Another's, that came meanwhile, is not ours.
                begun &= !matches!(e, Error::OutputExists(_));
                (record.status, record.reason) = (Status::of(&e), Some(e.to_string()));
            }
        }
        if record.status != Status::Done {
            // What a killed run, or an earlier one of an input that changed since, left there is ours.
            let there = exists(&path).unwrap_or(true);
            record.output = record.output.filter(|_| begun && (there || record.status == Status::Trouble));
        }
        record.seconds = started.elapsed().as_secs_f64();
        record.at = super::record::now();
        let passing = put_off && record.status == Status::Trouble && self.watch.stop().is_none();
        if at_stake && record.status == Status::Refused {
            let why = "what stands there is the cut of an earlier dump of this name, which is gone; give -f, or another --out";
            record.reason = Some(format!("{}: {why}", objects::shown(&path)));
        }
        if begun || !at_stake {
            add(record.clone())?;
        }
        if passing {
            return Ok(true);
        }
        self.dispose(&mut record, manifest)?;
        self.watch.ended(&record);
        self.ended.lock().map_err(|_| stopped())?.push(record);
        Ok(false)
    }

    /// Lets the input of a cut go where it should.
    ///
    /// # Errors
    /// Those of the manifest.
    pub fn dispose(&self, record: &mut Record, manifest: &Mutex<&mut Manifest>) -> Result<()> {
        let after = &self.settings.after;
        let mirror = record.output.clone().unwrap_or_default();
        let add = |record: &Record| manifest.lock().map_err(|_| stopped())?.add(record.clone());
        let begun = matches!(record.source, Source::Going(_));
        if !begun {
            if *after == fate::After::Keep || record.status != Status::Done || record.source != Source::Kept {
                return Ok(());
            }
            let going = fate::going(after, &mirror.0);
            let may = match (fate::must_stay(record), &going) {
                (Some(why), _) => Err(Error::Usage(why)),
                (None, Source::Going(to)) => fate::may_go(&record.files, to.as_ref()),
                (None, _) => Ok(()),
            };
            if let Err(why) = may {
                return self.stays(record, &why, manifest);
            }
            record.source = going;
            add(record)?;
        }
        match fate::send(&record.files, &record.source) {
            Ok(source) => record.source = source,
            Err(why) => return self.stays(record, &why, manifest),
        }
        add(record)
    }

    /// A dump that should go stays; of one of several files those that went are gone.
    fn stays(&self, record: &mut Record, why: &Error, manifest: &Mutex<&mut Manifest>) -> Result<()> {
        self.watch.warn(&format!("{}: the dump stays where it is: {why}", record.input().display()));
        record.kept_because = Some(why.to_string());
        if record.files.iter().all(|f| f.path.0.exists()) {
            record.source = Source::Kept;
        }
        manifest.lock().map_err(|_| stopped())?.add(record.clone())
    }

    fn write(&self, task: &Task, path: &Path, overwrite: bool, jobs: usize) -> Result<Report> {
        let progress = self.watch.dump(task);
        let settings = self.settings;
        progress.stage("opening", None);
        let memory = settings.memory.map(|m| m / jobs as u64);
        let open = OpenOptions {
            pool: Some(Arc::clone(&self.pool)),
            threads: self.pool.current_num_threads(),
            cache: settings.open.cache / jobs as u64,
            memory: memory.map(crate::pipeline::crew::share),
            ..settings.open.clone()
        };
        let mut options = settings.wish.options()?;
        (options.pool, options.memory) = (Some(Arc::clone(&self.pool)), memory);
        let names: Vec<&Path> = task.files.iter().map(|f| f.path.as_ref()).collect();
        let source = source::open_all(&names, &open)?;
        let out = match objects::url(path) {
            Some(url) => Output::upload(Mode::Positions, url, overwrite, open.tmp_dir.as_deref())?,
            None => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(|e| Error::write(folder.display().to_string(), e))?;
                }
                names.iter().try_for_each(|name| Output::spare(path, name))?;
                Output::create_in(Mode::Positions, path, overwrite, task.input())?
            }
        };
        let report = cut::cut(&*source, &options, out, &*progress).map_err(|e| self.why(e))?;
        match &report.output.incomplete {
            None => Ok(report),
            Some(why) => {
                // The whole dump is there, so that half a cut is good for nothing.
                report.output.files.iter().for_each(|left| remove(Path::new(left)));
                Err(Error::Incomplete(why.clone()))
            }
        }
    }

    /// An input that goes away while the work is stopped is none that is bad.
    fn why(&self, e: Error) -> Error {
        match self.watch.stop() {
            Some(why) if e.kind() != Kind::Trouble => Error::Stopped(why),
            _ => e,
        }
    }
}

/// Whether something has this name.
fn exists(path: &Path) -> Result<bool> {
    objects::url(path).map_or_else(|| Ok(path.symlink_metadata().is_ok()), objects::exists)
}

/// Removes what is of no use; if it cannot be, it says of itself that it is incomplete.
fn remove(path: &Path) {
    match objects::url(path) {
        Some(url) => drop(objects::remove(url)),
        None => drop(std::fs::remove_file(path)),
    }
}

fn stopped() -> Error {
    Error::Stopped("a thread did not end as it should".into())
}
