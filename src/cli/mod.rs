//! The command line: thin, above everything else.

pub mod args;
mod bulk;
pub mod check;
pub mod exit;
mod logs;
pub mod map;
mod memory;
mod mount;
mod outputs;
mod progress;
mod stop;

use crate::cut;
use crate::error::{Error, Kind, Result};
use crate::info::Info;
use crate::linux::symbols::Symbols;
use crate::log::{self, LogOptions, Whose};
use crate::map::{svg, terminal};
use crate::objects::{self, shown};
use crate::options::{Format, Options};
use crate::pipeline::crew::share;
use crate::plan::layout::Layout;
use crate::recut;
use crate::report::Report;
use crate::sink::Output;
use crate::source::{self, OpenOptions, ReadAt};
use crate::vmcoreinfo::Vmcoreinfo;
use crate::xen::XenSyms;
use args::{Args, Command, Cut, InfoArgs, LogArgs, OutputLayout, ReportFormat};
use clap::Parser;
use exit::Exit;
use map::MapTo;
use progress::Display;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use stop::Stop;

/// Runs the command; the exit status is what the caller hands to the system.
pub fn run() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            // --help and --version are no errors; nobody can be told if printing fails.
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage } else { Exit::Success }.into();
        }
    };
    let (path, done) = match args.command {
        Some(Command::Info(info)) => match map::sort_out(&info) {
            Ok((path, map)) => (path.clone(), print_info(&info, &path, &map)),
            Err(e) => ("info".into(), Err(e)),
        },
        Some(Command::Log(log)) => (log.vmcore.clone(), print_log(&log)),
        Some(Command::Bulk(args)) => return bulk::bulk(&args).into(),
        Some(Command::Check(args)) => return check::check(&args).into(),
        Some(Command::Mount(args)) => return ExitCode::from(mount::mount(args)),
        None => {
            let vmcore = args.cut.vmcore.clone().unwrap_or_default();
            match args.cut.settle() {
                Ok(cut) => (cut.vmcore.clone().unwrap_or(vmcore), cut_out(&cut)),
                Err(e) => (vmcore, Err(e)),
            }
        }
    };
    match done {
        Ok(()) => Exit::Success,
        Err(e) => failed(&path, &e),
    }
    .into()
}

fn failed(path: &Path, e: &Error) -> Exit {
    complain(&format!("xdump-cut: {}: {e}", shown(path)));
    Exit::from(e.kind())
}

fn cut_out(args: &Cut) -> Result<()> {
    let format = outputs::format(&args.form, args.out.as_deref())?;
    outputs::check(args, format)?;
    if let Format::Kdump(codec) = format {
        // Whether it can be had is better told now than after the dump was read.
        codec.compressor()?;
    }
    let layout = match (args.layout, args.keep_xen) {
        (OutputLayout::Native, false) => Layout::Native,
        (OutputLayout::Machine, keep_xen) => Layout::Machine { keep_xen },
        (OutputLayout::Native, true) => {
            return Err(Error::Usage(
                "--keep-xen needs --layout machine; the native layout has no place for Xen".into(),
            ));
        }
    };
    format.layout(layout)?;
    let symbols = match (&args.vmlinux, &args.system_map) {
        (Some(path), _) => Some(Symbols::vmlinux(path)?),
        (None, Some(path)) => Some(Symbols::system_map(path)?),
        (None, None) => None,
    };
    let level = args.form.exclude.or(args.form.level);
    let options = Options {
        domain: args.form.domain.clone().unwrap_or_default(),
        format,
        layout,
        level: level.unwrap_or(format.default_level()),
        level_given: level.is_some(),
        require_level: args.form.require_level,
        symbols,
        vmcoreinfo: args.vmcoreinfo.as_deref().map(Vmcoreinfo::open).transpose()?,
        vmlinux: args.vmlinux.clone(),
        xen_syms: args.xen_syms.as_deref().map(XenSyms::open).transpose()?,
        strict: args.strict,
        full_only: false,
        digest: args.digest,
        verify: args.verify,
        threads: args.threads.unwrap_or(0),
        pool: None,
        memory: args.limits.memory.or_else(|| memory::default_limit(&args.inputs())),
    };
    let display = progress::choose(args.quiet);
    let started = Instant::now();
    // The input first: a wrong file should not cost a look at the output.
    display.stage("opening", None);
    let how = OpenOptions {
        no_mmap: args.no_mmap,
        tmp_dir: args.tmp_dir.clone(),
        threads: options.threads,
        memory: options.memory.map(share),
        ..OpenOptions::default()
    };
    let source = source::open_all(&args.inputs(), &how)?;
    let progress = Stop::watch(&*display, started, args.limits.timeout);
    let saved = logs::save(args, &*source, &options, &progress);
    if args.out.is_none() && !args.dry_run {
        progress.finish();
        return saved;
    }
    if let Err(e) = saved {
        warn(args, &e);
    }
    if args.dry_run {
        let all = cut::dry_run(&*source, &options, args.all_domains, &progress);
        progress.finish();
        return tell_all(args, all?);
    }
    let Some(out) = &args.out else { return Ok(()) };
    if args.all_domains {
        return cut_all(args, &options, &*source, &progress);
    }
    let outs = outputs::open(args, out, &options)?;
    let report = cut::cut_split(&*source, &options, outs, &progress);
    progress.finish();
    tell(args, &report?)
}

/// Cuts every domain, each into a file of the folder OUT.
fn cut_all(args: &Cut, options: &Options, source: &dyn ReadAt, progress: &dyn Display) -> Result<()> {
    let Some(folder) = &args.out else { return Ok(()) };
    let suffix = options.format.suffix();
    let output = |id: u16, name: Option<&str>| {
        if !objects::is_url(folder) {
            std::fs::create_dir_all(folder).map_err(|e| Error::write(folder.display().to_string(), e))?;
        }
        let path = folder.join(cut::file_name(id, name) + suffix);
        outputs::one(args, &path, options.format)
    };
    let all = cut::cut_all(source, options, &output, progress);
    progress.finish();
    tell_all(args, all?)
}

/// Prints the reports of several cuts, or of one that was not made.
fn tell_all(args: &Cut, all: Vec<cut::Outcome>) -> Result<()> {
    let name = shown(args.vmcore.as_deref().unwrap_or(Path::new("")));
    let count = all.len();
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for (id, done) in all {
        match done {
            Ok(report) => reports.push(report),
            Err(e) => {
                complain(&format!("xdump-cut: {name}: domain {id}: {e}"));
                failed.push(e);
            }
        }
    }
    match args.report {
        ReportFormat::Json if !args.quiet && args.all_domains => print(&format!("{}\n", json(&reports)))?,
        _ => reports.iter().try_for_each(|report| tell_report(args, report))?,
    }
    let incomplete = reports.iter().filter_map(|report| outputs::judge(report).err());
    failed.extend(incomplete.inspect(|e| complain(&format!("xdump-cut: {name}: {e}"))));
    if args.dry_run {
        outputs::room(args, &reports)?;
    }
    let failures = failed.len();
    if !args.all_domains && failures == 1 {
        return failed.pop().map_or(Ok(()), Err);
    }
    // What may pass is worth another try.
    failed.sort_by_key(|e| e.kind() == Kind::Trouble);
    failed.pop().map_or(Ok(()), |last| Err(Error::Partly { failed: failures, all: count, last: Box::new(last) }))
}

/// Prints the report of a cut, and says what became of an output that is not complete.
fn tell(args: &Cut, report: &Report) -> Result<()> {
    tell_report(args, report)?;
    outputs::judge(report)
}

fn tell_report(args: &Cut, report: &Report) -> Result<()> {
    if args.quiet {
        let name = args.vmcore.as_deref().map(shown);
        let Some(name) = name else { return Ok(()) };
        let whose = if args.all_domains { format!("domain {}: ", report.domain.id) } else { String::new() };
        report.warnings.iter().for_each(|w| complain(&format!("xdump-cut: {name}: {whose}warning: {w}")));
        return Ok(());
    }
    let text = match args.report {
        ReportFormat::Text => report.to_string(),
        ReportFormat::Json => json(report),
    };
    if outputs::has_stdout(args) {
        // Standard output has the dump.
        complain(&text);
        return Ok(());
    }
    print(&format!("{text}\n"))
}

fn print_info(args: &InfoArgs, vmcore: &Path, map: &MapTo) -> Result<()> {
    let options = OpenOptions { no_mmap: args.no_mmap, tmp_dir: args.tmp_dir.clone(), ..OpenOptions::default() };
    let inputs: Vec<&Path> = std::iter::once(vmcore).chain(args.more.iter().map(|p| p.as_path())).collect();
    let source = source::open_all(&inputs, &options)?;
    let syms = args.xen_syms.as_deref().map(XenSyms::open).transpose()?;
    if let Some(about) = source.history().or_trouble(recut::about(&*source))? {
        if *map != MapTo::None || syms.is_some() {
            return Err(Error::Usage("this is a cut, not a full dump; --map and --xen-syms need that".into()));
        }
        return print(&if args.json { format!("{}\n", json(&about)) } else { about.to_string() });
    }
    if *map == MapTo::None {
        let info = source.history().or_trouble(Info::read_with(&*source, syms.as_ref(), None))?;
        return print(&if args.json { format!("{}\n", json(&info)) } else { info.to_string() });
    }
    let picture = match map {
        MapTo::File(path) => Some((path, Output::create(path, args.force, vmcore)?)),
        _ => None,
    };
    // Scripts want to hear of nothing but trouble.
    let progress = progress::choose(!std::io::stderr().is_terminal());
    let info = Info::read_with(&*source, syms.as_ref(), Some(&*progress));
    progress.finish();
    let info = source.history().or_trouble(info)?;
    let mut text = if args.json { format!("{}\n", json(&info)) } else { info.to_string() };
    if let Some(drawn) = &info.map {
        match picture {
            Some((path, out)) => {
                out.write_at(svg::draw(drawn).as_bytes(), 0)?;
                out.commit()?;
                if !args.json {
                    text.push_str(&format!("map of the machine's memory: {}\n", shown(path)));
                }
            }
            None if !args.json => text.push_str(&terminal::draw(drawn, map::style())),
            None => {}
        }
    }
    print(&text)
}

fn print_log(args: &LogArgs) -> Result<()> {
    let options = OpenOptions { no_mmap: args.no_mmap, tmp_dir: args.tmp_dir.clone(), ..OpenOptions::default() };
    let inputs: Vec<&Path> = std::iter::once(&args.vmcore).chain(&args.more).map(|p| p.as_path()).collect();
    let source = source::open_all(&inputs, &options)?;
    let whose = if args.xen { Whose::Xen } else { Whose::Domain(args.domain.clone().unwrap_or_default()) };
    let xen_syms = args.xen_syms.as_deref().map(XenSyms::open).transpose()?;
    let options = LogOptions { whose, raw: args.raw, xen_syms };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let done = source.history().or_trouble(log::write(&*source, &options, &mut out)).and_then(|warnings| {
        out.flush().map_err(|e| Error::write("standard output", e))?;
        Ok(warnings)
    });
    match done {
        // As in print.
        Err(Error::Write { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(e),
        Ok(warnings) => {
            let name = shown(&args.vmcore);
            warnings.iter().for_each(|w| complain(&format!("xdump-cut: {name}: warning: {w}")));
            Ok(())
        }
    }
}

fn warn(args: &Cut, what: &dyn std::fmt::Display) {
    let name = shown(args.vmcore.as_deref().unwrap_or(Path::new("")));
    complain(&format!("xdump-cut: {name}: warning: {what}"));
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A reader that went away (`| head`) is no error of ours.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::write("standard output", e)),
        _ => Ok(()),
    }
}

fn complain(line: &str) {
    // Where standard error is gone, nobody can be told.
    let _ = writeln!(std::io::stderr(), "{line}");
}
