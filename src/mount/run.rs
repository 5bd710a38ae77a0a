//! Mounts, waits for the end, unmounts.

use super::Event;
use super::folder::{Desks, Folder, attr};
use super::keeper::House;
use crate::cache::Cache;
use crate::cut::Shown;
use crate::error::{Error, Result};
use fuser::{BackgroundSession, Config, MountOption, Session};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// What stands for the file in a command.
const PLACE: &[u8] = b"{}";
/// What a command has to end itself, once it was told to.
const PATIENCE: Duration = Duration::from_secs(3);
/// Threads that read a file.
const READERS: (usize, usize) = (2, 8);

/// Where the files go, and until when.
#[derive(Clone, Copy, Debug)]
pub enum Target<'t> {
    /// To this folder, until it is unmounted or a signal comes.
    Folder(&'t Path),
    /// To a folder of their own, until this command has ended, in which `{}` stands for a file.
    Command(&'t [OsString]),
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// The folder was unmounted.
    Unmounted,
    /// The command ended so.
    Command(ExitStatus),
    /// The command could not be started.
    NotStarted(String, io::Error),
    /// This signal came before it was.
    Signal(i32),
}

/// Mounts what a dump has to show. `cache` is how many bytes are kept; `tell` gets warnings, and word that the folder is
/// there. `leave` is called in place of a return where a file is still being made, which could last: all is unmounted then,
/// and the process may as well end.
///
/// # Errors
/// [`Error::Mount`]; [`Error::Usage`] for a command that cannot be; why the command's own file cannot be made.
pub fn mount(
    shown: &Shown<'_>,
    target: Target<'_>,
    cache: u64,
    tell: &(dyn Fn(&str) + Sync),
    leave: &dyn Fn(&Result<End>),
) -> Result<End> {
    if let Target::Command(words) = target
        && !words.iter().any(|w| memchr::memmem::find(w.as_bytes(), PLACE).is_some())
    {
        return Err(Error::Usage("no {} in the command, where the file's name would go".into()));
    }
    shown.warnings().iter().for_each(|line| tell(&format!("warning: {line}")));
    let (events, inbox) = mpsc::channel();
    // Before there is anything to clean up.
    let signals = watch(&events)?;
    let readers = thread::available_parallelism().map_or(READERS.0, |n| n.get().clamp(READERS.0, READERS.1));
    let (cache, made) = (Cache::new(cache), SystemTime::now());
    let house = House { shown, cache, readers, busy: AtomicUsize::new(0), made, events: events.clone(), tell };
    let (seek, seeks) = mpsc::channel();
    let (files, desks): (Vec<_>, Vec<_>) = (0..shown.files()).map(|_| mpsc::channel()).unzip();
    let open = Arc::new(Mutex::new(Some(Desks { seek, files: files.clone() })));
    let ended = thread::scope(|scope| {
        let house = &house;
        scope.spawn(move || house.seek(seeks, &files));
        for (n, desk) in desks.into_iter().enumerate() {
            scope.spawn(move || house.keep(n, desk));
        }
        let folder = Folder { desks: open.clone(), events, attr: attr(None, 0, made) };
        let ended = run(shown, target, folder, &inbox, tell);
        if let Ok(mut desks) = open.lock() {
            *desks = None;
        }
        if house.busy.load(Ordering::SeqCst) > 0 {
            leave(&ended);
        }
        ended
    });
    signals.close();
    ended
}

fn run(
    shown: &Shown<'_>,
    target: Target<'_>,
    folder: Folder,
    inbox: &Receiver<Event>,
    tell: &dyn Fn(&str),
) -> Result<End> {
    let warn = |n: usize, e: &Error| tell(&format!("{}: warning: {e}", shown.known_name(n)));
    match target {
        Target::Folder(path) => {
            let mounted = Mounted::new(folder, path)?;
            tell(&format!("shown in {}, until that is unmounted", path.display()));
            loop {
                match inbox.recv() {
                    Ok(Event::Failed(n, e)) => warn(n, &e),
                    Ok(Event::Signal(SIGCHLD) | Event::Looked(_)) => {}
                    Ok(Event::Unmounted) => return Ok(End::Unmounted),
                    Ok(Event::Signal(_)) | Err(_) => return mounted.unmount().map(|()| End::Unmounted),
                }
            }
        }
        Target::Command(words) => {
            let private = Private::new()?;
            let events = folder.events.clone();
            let mounted = Mounted::new(folder, &private.0)?;
            let ended = shown.pick().and_then(|(n, name)| {
                let file = private.0.join(name);
                match wait_for(n, &file, events, inbox, &warn)? {
                    Some(end) => Ok(end),
                    None => command(words, &file, inbox, &warn),
                }
            });
            let unmounted = mounted.unmount();
            drop(private);
            ended.and_then(|end| unmounted.map(|()| end))
        }
    }
}

/// Waits until the command's file is there, so that it is told if it cannot be made; or until a signal comes.
fn wait_for(
    n: usize,
    file: &Path,
    events: Sender<Event>,
    inbox: &Receiver<Event>,
    warn: &dyn Fn(usize, &Error),
) -> Result<Option<End>> {
    let gone = || Error::Mount {
        folder: file.display().to_string(),
        source: io::ErrorKind::NotConnected.into(),
        help: "; it was unmounted before the command could be started",
    };
    let path = file.to_path_buf();
    thread::spawn(move || events.send(Event::Looked(path.metadata().is_ok())));
    loop {
        match inbox.recv() {
            Ok(Event::Looked(true)) => return Ok(None),
            Ok(Event::Failed(m, e)) if m == n => return Err(e),
            Ok(Event::Failed(m, e)) => warn(m, &e),
            Ok(Event::Signal(SIGCHLD)) => {}
            Ok(Event::Signal(signal)) => return Ok(Some(End::Signal(signal))),
            Ok(Event::Looked(false) | Event::Unmounted) | Err(_) => return Err(gone()),
        }
    }
}

/// Runs the command to its end. What a terminal sends is for it to mind; what shall end us, ends it.
fn command(words: &[OsString], file: &Path, inbox: &Receiver<Event>, warn: &dyn Fn(usize, &Error)) -> Result<End> {
    let mut words = words.iter().map(|word| put(word, file.as_os_str()));
    let name = words.next().unwrap_or_default();
    let mut child = match Command::new(&name).args(words).spawn() {
        Ok(child) => child,
        Err(e) => return Ok(End::NotStarted(name.to_string_lossy().into_owned(), e)),
    };
    let mut until: Option<Instant> = None;
    loop {
        let event = match until {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => inbox.recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(Event::Failed(n, e)) => warn(n, &e),
            Ok(Event::Signal(SIGTERM)) => until = Some(end(&child, Signal::TERM)),
            Ok(Event::Signal(SIGHUP)) => until = Some(end(&child, Signal::HUP)),
            Ok(_) => {}
            Err(_) => {
                // It may be gone already.
                let _ = child.kill();
                until = None;
            }
        }
        if let Some(status) = child.try_wait().map_err(|e| Error::read("how the command ended", e))? {
            return Ok(End::Command(status));
        }
    }
}

/// Tells a command to end; until when it should have.
fn end(child: &Child, signal: Signal) -> Instant {
    let _ = rustix::process::kill_process(Pid::from_child(child), signal);
    Instant::now() + PATIENCE
}

/// A word of a command with the file's name in place of `{}`.
fn put(word: &OsStr, file: &OsStr) -> OsString {
    let (mut all, mut rest) = (Vec::new(), word.as_bytes());
    while let Some((before, after)) =
        memchr::memmem::find(rest, PLACE).and_then(|at| Some((rest.get(..at)?, rest.get(at + PLACE.len()..)?)))
    {
        all.extend(before);
        all.extend(file.as_bytes());
        rest = after;
    }
    all.extend(rest);
    OsString::from_vec(all)
}

/// Turns signals into events; those that are ignored, as a shell's background job has it, stay so.
fn watch(events: &Sender<Event>) -> Result<signal_hook::iterator::Handle> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let heeded = |signal: &i32| *signal == SIGCHLD || mask.unwrap_or(0) & 1 << (signal - 1) == 0;
    let signals = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM].into_iter().filter(heeded);
    let mut signals = Signals::new(signals).map_err(|e| Error::read("signals", e))?;
    let (handle, events) = (signals.handle(), events.clone());
    thread::spawn(move || signals.forever().try_for_each(|signal| events.send(Event::Signal(signal))));
    Ok(handle)
}

/// A folder of our own below the temporary one, which nobody else may look into.
struct Private(PathBuf);

impl Private {
    fn new() -> Result<Self> {
        let made = tempfile::Builder::new().prefix("xdump-cut.").tempdir();
        Ok(Self(made.map_err(|e| Error::write("a temporary folder", e))?.keep()))
    }
}

impl Drop for Private {
    /// Never what is in it: that would be the mount, if it is still there.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// What is mounted.
struct Mounted {
    folder: PathBuf,
    /// The device that the folder was on, and is again.
    device: u64,
    /// It would unmount what it finds, even where this mount is gone and another is below.
    session: ManuallyDrop<BackgroundSession>,
}

impl Mounted {
    fn new(files: Folder, folder: &Path) -> Result<Self> {
        let failed = |source, help| Error::Mount { folder: folder.display().to_string(), help, source };
        let device = folder.metadata().map_err(|e| failed(e, ""))?.dev();
        let real = folder.canonicalize().map_err(|e| failed(e, ""))?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::NoExec, MountOption::FSName("xdump-cut".into())];
        let session = Session::new(files, &real, &config).and_then(Session::spawn);
        let session = session.map_err(|e| {
            let help = help(&e);
            failed(e, help)
        })?;
        Ok(Self { folder: real, device, session: ManuallyDrop::new(session) })
    }

    /// Unmounts, also if it is in use: whoever has a file open gets errors from then on.
    fn unmount(self) -> Result<()> {
        let Self { folder, device, session } = self;
        if rustix::mount::unmount(&folder, UnmountFlags::DETACH).is_ok() {
            return Ok(());
        }
        // Not root: fusermount3 does it.
        drop(ManuallyDrop::into_inner(session));
        match folder.metadata() {
            Ok(meta) if meta.dev() == device => Ok(()),
            still => Err(Error::Mount {
                folder: folder.display().to_string(),
                source: still.err().unwrap_or_else(|| io::ErrorKind::ResourceBusy.into()),
                help: "; it could not be unmounted: try fusermount3 -u",
            }),
        }
    }
}

/// What helps where nothing can be mounted.
fn help(e: &io::Error) -> &'static str {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let denied = matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
    match () {
        () if !Path::new("/dev/fuse").exists() => {
            "; there is no /dev/fuse: load the kernel's module (modprobe fuse), or give the container the device"
        }
        () if denied && !["fusermount3", "fusermount"].into_iter().any(there) => {
            "; all users but root need fusermount3 for it: apt install fuse3"
        }
        () => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_goes_where_it_is_wanted() {
        let put = |word: &str| put(OsStr::new(word), OsStr::new("/a/b")).into_string().unwrap();
        assert_eq!(put("crash"), "crash");
        assert_eq!(put("{}"), "/a/b");
        assert_eq!(put("--core={}.x{}"), "--core=/a/b.x/a/b");
        assert_eq!(put("{ }{"), "{ }{");
    }
}
