//! Where the output goes, and in which format.

use super::args::{Cut, Form, OutputFormat};
use crate::error::{Error, Result};
use crate::objects;
use crate::options::{ELF_ZST_LEVEL, Format, Options};
use crate::pipeline::codec::Codec;
use crate::report::{Report, size};
use crate::sink::{Mode, Output};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The format that the options and the output's name ask for.
pub(super) fn format(form: &Form, out: Option<&Path>) -> Result<Format> {
    let name = out.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    let ends = |end: &str| name.as_ref().is_some_and(|n| n.ends_with(end));
    let elf_zst = || match form.compression.codec() {
        None => Ok(Format::ElfZst(ELF_ZST_LEVEL)),
        Some(Codec::Zstd(level)) => Ok(Format::ElfZst(level)),
        Some(codec) => Err(Error::Usage(format!("elf.zst is compressed by zstd, not by {codec}"))),
    };
    match form.format {
        Some(OutputFormat::XcCore) if form.compression.codec().is_some() => {
            Err(Error::Usage("--compress is for the kdump format; xc-core has none".into()))
        }
        Some(OutputFormat::XcCore) => Ok(Format::XcCore),
        Some(OutputFormat::Elf) if form.compression.codec().is_some() => {
            Err(Error::Usage("--compress, -z, -c, -l and -p are for the kdump format; ELF has no compression".into()))
        }
        Some(OutputFormat::Elf) => Ok(Format::Elf),
        Some(OutputFormat::ElfZst) => elf_zst(),
        Some(OutputFormat::Kdump) => Ok(Format::Kdump(form.compression.codec().unwrap_or_default())),
        None if form.elf => Ok(Format::Elf),
        None if ends(".elf.zst") => elf_zst(),
        None if ends(".elf") && form.compression.codec().is_none() => Ok(Format::Elf),
        None => Ok(Format::Kdump(form.compression.codec().unwrap_or_default())),
    }
}

/// Refuses what does not go together.
pub(super) fn check(args: &Cut, format: Format) -> Result<()> {
    let usage = |why: &str| Err(Error::Usage(why.into()));
    let elf = !matches!(format, Format::Kdump(_));
    match () {
        () if args.parts().is_some() && elf => usage("only the kdump format can be split over several files"),
        () if args.parts().is_some() && (args.all_domains || streams(args)) => {
            usage("--split with a number does not go with --all-domains, -F or standard output")
        }
        () if args.all_domains && is_stdout(args) => usage("--all-domains needs a folder, not standard output"),
        () if args.verify && streams(args) => usage("--verify needs an output that can be read again, not a stream"),
        () if args.verify && matches!(format, Format::ElfZst(_)) && args.out.as_deref().is_some_and(is_device) => {
            usage("--verify finds the table of an elf.zst at its end, and that of a device is further on; give a file")
        }
        () if args.flatten && matches!(format, Format::ElfZst(_)) => usage("elf.zst is a stream already; leave -F out"),
        () if args.dry_run => Ok(()),
        () if is_stdout(args) && std::io::stdout().is_terminal() => {
            usage("standard output is a terminal; a dump should go into a pipe or a file")
        }
        () => Ok(()),
    }
}

/// Whether the dump goes to standard output.
pub(super) fn is_stdout(args: &Cut) -> bool {
    args.out.as_deref() == Some(Path::new("-"))
}

/// Whether standard output has the dump, under whatever name.
pub(super) fn has_stdout(args: &Cut) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |out: &PathBuf| {
        let (there, ours) = (out.metadata().ok()?, rustix::fs::fstat(std::io::stdout()).ok()?);
        Some((there.dev(), there.ino()) == (ours.st_dev, ours.st_ino))
    };
    is_stdout(args) || args.out.as_ref().and_then(same).unwrap_or(false)
}

/// Whether it can be written from its start to its end only.
fn streams(args: &Cut) -> bool {
    args.flatten || is_stdout(args)
}

/// Opens the output, or the parts of it.
pub(super) fn open(args: &Cut, out: &Path, options: &Options) -> Result<Vec<Output>> {
    match args.parts() {
        None => Ok(vec![one(args, out, options.format)?]),
        Some(parts) => (1..=parts).map(|n| one(args, &part(out, n), options.format)).collect(),
    }
}

/// The name of a part.
fn part(out: &Path, number: usize) -> PathBuf {
    let mut name = OsString::from(out);
    name.push(format!(".{number}"));
    name.into()
}

/// Opens one output.
pub(super) fn one(args: &Cut, out: &Path, format: Format) -> Result<Output> {
    let mode = match format {
        Format::ElfZst(_) => Mode::Append,
        _ if streams(args) => Mode::Flattened,
        _ => Mode::Positions,
    };
    let limit = args.limit.unwrap_or(u64::MAX);
    if is_stdout(args) && !args.all_domains {
        return Ok(Output::pipe(mode, std::io::stdout())?.with_limit(limit));
    }
    if let Some(url) = objects::url(out) {
        let mode = if mode == Mode::Append { Mode::Positions } else { mode };
        if args.inputs().contains(&out) {
            return Err(Error::Usage(format!(
                "{} is the dump itself; give another name for the cut",
                objects::shown(out)
            )));
        }
        return Ok(Output::upload(mode, url, args.force, args.tmp_dir.as_deref())?.with_limit(limit));
    }
    // Nor is an input what a killed run left.
    let mut left = OsString::from(out);
    left.push(".incomplete");
    let apart = |input: &Path| Output::spare(out, input).and_then(|()| Output::spare(Path::new(&left), input));
    args.inputs().into_iter().try_for_each(apart)?;
    let input = args.vmcore.as_deref().unwrap_or(Path::new(""));
    // A file can be mended where it was cut short.
    let mode = if mode == Mode::Append && !is_pipe(out) { Mode::Positions } else { mode };
    Ok(Output::create_in(mode, out, args.force, input)?.with_limit(limit))
}

fn is_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir())
}

fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.metadata().is_ok_and(|m| m.file_type().is_fifo() || m.file_type().is_socket())
}

/// An error if the output is not complete.
pub(super) fn judge(report: &Report) -> Result<()> {
    let Some(why) = &report.output.incomplete else { return Ok(()) };
    let files = report.output.files.join(", ");
    let (there, all) = (report.output.pages, report.output.planned);
    Err(Error::Incomplete(format!("{files} has {there} of {all} pages: {why}")))
}

/// Says whether there is room for what a dry run tells of, if it has the name of an output.
pub(super) fn room(args: &Cut, reports: &[Report]) -> Result<()> {
    let Some(out) = args.out.as_ref().filter(|_| !is_stdout(args)) else { return Ok(()) };
    if objects::is_url(out) {
        return Ok(());
    }
    let folder = if args.all_domains { out } else { out.parent().unwrap_or(Path::new("")) };
    let folder = folder.ancestors().find(|f| f.is_dir()).unwrap_or(Path::new("."));
    let Some(room) = rustix::fs::statvfs(folder).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize)) else {
        return Ok(());
    };
    // A device or a pipe is in no folder that could be full.
    if out.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        return Ok(());
    }
    let likely: u64 = reports.iter().map(|r| r.output.bytes).sum();
    let most: u64 = reports.iter().filter_map(|r| Some(r.estimate.as_ref()?.at_most)).sum();
    let free = size(room);
    if likely > room {
        let why = format!("about {} are needed in {}, which has {free}", size(likely), folder.display());
        return Err(Error::write(out.display().to_string(), std::io::Error::new(std::io::ErrorKind::StorageFull, why)));
    }
    if most > room {
        let name = out.display();
        super::complain(&format!("xdump-cut: {name}: warning: {free} are enough for what is likely, not for the most"));
    }
    Ok(())
}
