//! Where is looked: files and programs of the running system, or of a recorded tree.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a look at something gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// This.
    Is(T),
    /// It is not there.
    Absent,
    /// It could not be looked at, and why.
    Hidden(String),
}

impl<T> Seen<T> {
    /// What was seen, if anything was.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            _ => None,
        }
    }

    /// The same with what `f` makes of it; nothing of it is `Hidden`, with `what` as the reason.
    pub(super) fn read<U>(self, what: &str, f: impl FnOnce(T) -> Option<U>) -> Seen<U> {
        match self {
            Self::Is(value) => f(value).map_or_else(|| Seen::Hidden(format!("{what} makes no sense")), Seen::Is),
            Self::Absent => Seen::Absent,
            Self::Hidden(why) => Seen::Hidden(why),
        }
    }

    /// Another look where this one saw nothing.
    pub(super) fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Is(_) => self,
            Self::Absent => other(),
            Self::Hidden(why) => match other() {
                Self::Is(value) => Self::Is(value),
                _ => Self::Hidden(why),
            },
        }
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its exit status.
    pub status: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// The system that is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// The running one.
    Live,
    /// A tree of files below a folder, for tests. What programs said is in `commands/PROGRAM_ARGUMENT_ARGUMENT`, with the exit
    /// status in a last line `status N`; free bytes where dumps go, in `commands/room`; the user, in `commands/uid`.
    Recorded(PathBuf),
}

/// A program that takes longer is taken for one that hangs: scripts wait for this one.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any answer that is looked at, of a file or a program.
const MOST_BYTES: u64 = 16 << 20;
/// Where administrators' programs are; a monitoring script's PATH may lack them.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

impl Host {
    /// Whether nothing is hidden from this user.
    pub fn is_root(&self) -> bool {
        match self {
            Self::Live => rustix::process::geteuid().is_root(),
            Self::Recorded(_) => self.text("/commands/uid").get().is_none_or(|uid| uid == "0"),
        }
    }

    /// The place of an absolute path.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        match self {
            Self::Live => path.into(),
            Self::Recorded(root) => root.join(path.trim_start_matches('/')),
        }
    }

    /// A file's bytes, the first of them if there are more than `most`.
    pub(super) fn bytes(&self, path: &str, most: u64) -> Seen<Vec<u8>> {
        let mut bytes = Vec::new();
        // A file of /proc or /sys says nothing of its length.
        let read = std::fs::File::open(self.at(path)).and_then(|f| f.take(most).read_to_end(&mut bytes));
        match read {
            Ok(_) => Seen::Is(bytes),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Seen::Absent,
            Err(e) => Seen::Hidden(format!("{path}: {e}")),
        }
    }

    /// A file's text, without white space around it.
    pub(super) fn text(&self, path: &str) -> Seen<String> {
        self.bytes(path, MOST_BYTES).read(path, |b| Some(String::from_utf8_lossy(&b).trim().to_string()))
    }

    /// A file's number, decimal.
    pub(super) fn number<T: std::str::FromStr>(&self, path: &str) -> Seen<T> {
        self.text(path).read(path, |t| t.parse().ok())
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// Where a program is, as an absolute path of the host.
    pub(super) fn program(&self, name: &str) -> Option<String> {
        let path = match self {
            Self::Live => std::env::var("PATH").unwrap_or_default(),
            Self::Recorded(_) => String::new(),
        };
        let folders = path.split(':').filter(|f| f.starts_with('/')).chain(FOLDERS);
        let runs = |p: &String| self.at(p).metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        folders.map(|folder| format!("{folder}/{name}")).find(runs)
    }

    /// Runs a program, as root only: others would hear that there is nothing where there is something.
    pub(super) fn run(&self, program: &str, args: &[&str]) -> Seen<Ran> {
        if !self.is_root() {
            return Seen::Hidden(format!("only root may ask Xen ({program} {})", args.join(" ")));
        }
        match self {
            Self::Live => self.program(program).map_or(Seen::Absent, |path| run(Path::new(&path), program, args)),
            Self::Recorded(_) => {
                let name = format!("/commands/{program} {}", args.join(" ")).replace(' ', "_");
                self.text(&name).read(&name, |text| {
                    let (out, last) = text.rsplit_once('\n').unwrap_or(("", text.as_str()));
                    let status = last.strip_prefix("status ")?.parse().ok()?;
                    Some(Ran { status, out: out.to_string(), err: String::new() })
                })
            }
        }
    }

    /// Free bytes where a folder is, or would be made, and the folder that was asked.
    pub(super) fn room(&self, folder: &str) -> Seen<(String, u64)> {
        let there = Path::new(folder).ancestors().find(|f| self.at(&f.to_string_lossy()).is_dir());
        let there = there.unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        match self {
            Self::Live => match rustix::fs::statvfs(there.as_str()) {
                Ok(fs) => Seen::Is((there, fs.f_bavail.saturating_mul(fs.f_frsize))),
                Err(e) => Seen::Hidden(format!("{there}: {e}")),
            },
            Self::Recorded(_) => self.number("/commands/room").read("room", |bytes| Some((folder.to_string(), bytes))),
        }
    }
}

/// Runs it, for a while.
fn run(path: &Path, name: &str, args: &[&str]) -> Seen<Ran> {
    let command = format!("{name} {}", args.join(" "));
    // In the language that is looked for.
    let mut child = Command::new(path);
    child.args(args).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match child.spawn() {
        Ok(child) => child,
        Err(e) => return Seen::Hidden(format!("{command}: {e}")),
    };
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let Some(status) = wait(&mut child) else {
        return Seen::Hidden(format!("{command}: no answer within {} s", PATIENCE.as_secs()));
    };
    let said = |r: mpsc::Receiver<String>| r.recv_timeout(PATIENCE).unwrap_or_default();
    match status.code() {
        Some(status) => Seen::Is(Ran { status, out: said(out), err: said(err) }),
        None => Seen::Hidden(format!("{command}: {status}")),
    }
}

/// Reads beside the waiting: a pipe that is full would stop the program.
fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is what there is.
            let _ = pipe.take(MOST_BYTES).read_to_end(&mut bytes);
        }
        // Nobody listens any more if the program hung.
        let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    told
}

fn wait(child: &mut Child) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                // It may have ended by now; then there is nothing to end.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_run_and_one_that_is_missing_is_absent() {
        let sh = |script: &str| run(Path::new("/bin/sh"), "sh", &["-c", script]);
        let ran = sh("echo out; echo err >&2; exit 7");
        assert_eq!(ran, Seen::Is(Ran { status: 7, out: "out\n".into(), err: "err\n".into() }));
        // More than a pipe holds.
        assert!(sh("head -c 1000000 /dev/zero").get().is_some_and(|r| r.out.len() == 1_000_000));
        assert!(matches!(sh("kill -9 $$"), Seen::Hidden(why) if why.contains("signal")));
        assert!(matches!(run(Path::new("/nowhere"), "nowhere", &[]), Seen::Hidden(_)));
        assert_eq!(Host::Live.program("no-such-program"), None);
    }

    #[test]
    fn what_is_not_there_is_not_what_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::Recorded(dir.path().into());
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        assert_eq!(host.text("/none"), Seen::Absent);
        assert!(matches!(host.text("/folder"), Seen::Hidden(why) if why.starts_with("/folder: ")));
        std::fs::write(dir.path().join("number"), "12 \n").unwrap();
        assert_eq!(host.number("/number"), Seen::Is(12_u64));
        std::fs::write(dir.path().join("number"), "many").unwrap();
        assert!(matches!(host.number::<u64>("/number"), Seen::Hidden(_)));
        assert_eq!(host.run("xl", &["info"]), Seen::Absent);
    }
}
