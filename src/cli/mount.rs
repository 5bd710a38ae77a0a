//! `xdump-cut mount`.

use super::args::MountArgs;

/// Mounts, and tells with which status to end.
#[cfg(not(feature = "mount"))]
pub(super) fn mount(args: MountArgs) -> u8 {
    let e = crate::Error::Usage("this program was built without the feature mount".into());
    super::failed(&args.dump, &e) as u8
}

#[cfg(feature = "mount")]
pub(super) use with::mount;

#[cfg(feature = "mount")]
mod with {
    use super::super::exit::Exit;
    use super::super::{complain, failed};
    use super::MountArgs;
    use crate::cut;
    use crate::error::{Error, Result};
    use crate::mount::{CACHE, End, Target};
    use crate::options::Options;
    use crate::pipeline::Silent;
    use crate::plan::level::Level;
    use crate::source::{self, OpenOptions};
    use crate::xen::XenSyms;
    use std::os::unix::process::ExitStatusExt;
    use std::path::{Path, PathBuf};

    /// Statuses of a command that could not be started, and of one that a signal ended: as a shell has them.
    const CANNOT_RUN: u8 = 126;
    const NOT_FOUND: u8 = 127;
    const SIGNAL: i32 = 128;

    pub(in super::super) fn mount(mut args: MountArgs) -> u8 {
        let dump = args.dump.clone();
        let done = shown(&mut args, &dump);
        status(&dump, &done)
    }

    fn shown(args: &mut MountArgs, dump: &Path) -> Result<End> {
        let mut inputs: Vec<PathBuf> = std::iter::once(dump.to_path_buf()).chain(args.dir.take()).collect();
        inputs.append(&mut args.more);
        let dir = if args.run.is_empty() { inputs.pop() } else { None };
        let target = match &dir {
            Some(dir) => Target::Folder(dir),
            None if inputs.len() > 1 && !args.split => {
                return Err(Error::Usage("a folder and a command; a command has a folder of its own".into()));
            }
            None => Target::Command(&args.run),
        };
        // What a compressed input keeps, and what is made of it, share the bound.
        let cache = args.cache.unwrap_or(CACHE) / 2;
        let how = OpenOptions { no_mmap: args.no_mmap, tmp_dir: args.tmp_dir.take(), cache, ..OpenOptions::default() };
        let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
        let source = source::open_all(&inputs, &how)?;
        let options = Options {
            domain: args.domain.take().unwrap_or_default(),
            level: args.level.unwrap_or(Level::NOTHING),
            level_given: args.level.is_some(),
            xen_syms: args.xen_syms.as_deref().map(XenSyms::open).transpose()?,
            ..Options::default()
        };
        let tell = |line: &str| complain(&format!("xdump-cut: {}: {line}", crate::objects::shown(dump)));
        let leave = |done: &Result<End>| std::process::exit(i32::from(status(dump, done)));
        cut::show(&*source, &options, &Silent, |shown| crate::mount::mount(shown, target, cache, &tell, &leave))
    }

    fn status(dump: &Path, done: &Result<End>) -> u8 {
        let of_signal = |signal: i32| u8::try_from(SIGNAL + signal).unwrap_or(u8::MAX);
        match done {
            Ok(End::Unmounted) => Exit::Success as u8,
            Ok(End::Command(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
                (None, signal) => of_signal(signal.unwrap_or_default()),
            },
            Ok(End::NotStarted(name, e)) => {
                complain(&format!("xdump-cut: {name}: {e}"));
                if e.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN }
            }
            Ok(End::Signal(signal)) => of_signal(*signal),
            Err(e) => failed(dump, e) as u8,
        }
    }
}
