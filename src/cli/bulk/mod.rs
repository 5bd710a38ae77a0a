//! `bulk`: every dump under some folders.

mod watch;

use super::args::{BulkArgs, ReportFormat};
use super::exit::Exit;
use super::progress;
use super::stop::Stop;
use crate::bulk::{self, After, List, Settings, Summary, Wish};
use crate::error::{Error, Result};
use crate::objects;
use crate::options::{Format, Which};
use crate::pipeline::Silent;
use crate::source::OpenOptions;
use std::path::Path;
use std::time::Instant;
use watch::Watcher;

/// Does it; what became of the dumps is the exit status.
pub(super) fn bulk(args: &BulkArgs) -> Exit {
    match done(args) {
        Ok(exit) => exit,
        Err(e) => {
            super::complain(&format!("xdump-cut: bulk: {e}"));
            Exit::from(e.kind())
        }
    }
}

fn done(args: &BulkArgs) -> Result<Exit> {
    let stop = Stop::watch(&Silent, Instant::now(), args.limits.timeout);
    let watch = Watcher::new(args, &stop);
    if let Some(path) = &args.collect {
        let list = List::read(path)?;
        let summary = bulk::collect(&settings(args, &stop, Some(&list))?, &list, &watch)?;
        return tell(args, &summary);
    }
    if args.index.is_some() && args.work.is_none() {
        return Err(Error::Usage("--index is the number of an entry; --work names the list".into()));
    }
    if let (Some(path), Some(index)) = (&args.work, args.index) {
        let list = List::read(path)?;
        let summary = bulk::work(&settings(args, &stop, Some(&list))?, &list, index, &watch)?;
        watch.finish();
        return tell(args, &summary);
    }
    let settings = settings(args, &stop, None)?;
    let Some(path) = &args.plan else {
        let summary = bulk::run(&settings, &args.sources, &watch)?;
        watch.finish();
        return tell(args, &summary);
    };
    let (list, summary) = bulk::plan(&settings, &args.sources, path, args.entries, &watch)?;
    tell_plan(args, path, &list, &summary)?;
    Ok(if summary.trouble.inputs > 0 { Exit::Trouble } else { Exit::Success })
}

fn settings(args: &BulkArgs, stop: &Stop<'_>, list: Option<&List>) -> Result<Settings> {
    let after = match &args.move_to {
        Some(folder) => After::Move(folder.clone()),
        None if args.delete_source => After::Delete,
        None => After::Keep,
    };
    let (out, manifests, mut wish, overwrite) = match list {
        Some(List { head, .. }) => (head.out.0.clone(), head.manifests.0.clone(), head.options.clone(), head.overwrite),
        None => {
            let out = args.out.clone().unwrap_or_default();
            let manifests = args.manifest.clone().unwrap_or_else(|| out.clone());
            (out, manifests, wish(args)?, false)
        }
    };
    if objects::is_url(&manifests) {
        return Err(Error::Usage("--out is a URL; --manifest names the folder where its manifest is kept".into()));
    }
    if after != After::Keep && args.sources.iter().any(|s| objects::is_url(s)) {
        return Err(Error::Usage("--move and --delete-source are for files; objects of stores stay".into()));
    }
    if let Format::Kdump(codec) = wish.format()? {
        // Whether it can be had is better told once.
        codec.compressor()?;
    }
    wish.verify |= after != After::Keep;
    Ok(Settings {
        wish,
        out,
        manifests,
        open: OpenOptions {
            no_mmap: args.no_mmap,
            tmp_dir: args.tmp_dir.clone(),
            stop: Some(stop.signal()),
            ..OpenOptions::default()
        },
        threads: args.threads.unwrap_or(0),
        memory: args.limits.memory,
        jobs: args.jobs,
        overwrite: overwrite || args.force,
        retry: args.retry,
        follow: args.follow,
        after,
    })
}

fn wish(args: &BulkArgs) -> Result<Wish> {
    let format = super::outputs::format(&args.form, None)?;
    let domain = match &args.form.domain {
        None | Some(Which::Hardware) => None,
        Some(Which::Id(id)) => Some(id.to_string()),
        Some(Which::Name(name)) => Some(name.clone()),
    };
    let level = args.form.exclude.or(args.form.level).unwrap_or(format.default_level());
    Ok(Wish {
        domain,
        format: format.to_string(),
        level: level.number(),
        require_level: args.form.require_level,
        strict: args.strict,
        digest: args.digest,
        verify: args.verify,
    })
}

/// Prints what became of the dumps, and judges it.
fn tell(args: &BulkArgs, summary: &Summary) -> Result<Exit> {
    if args.quiet {
        for f in &summary.failures {
            super::complain(&format!("xdump-cut: {}: {}", f.input, f.reason));
        }
    } else {
        match args.report {
            ReportFormat::Json => super::print(&format!("{}\n", super::json(summary)))?,
            ReportFormat::Text => super::print(&summary.to_string())?,
        }
    }
    Ok(match summary {
        s if s.trouble.inputs > 0 || s.stopped.is_some() => Exit::Trouble,
        s if s.done() == 0 => Exit::Nothing,
        s if s.done() < s.dumps() => Exit::BadInput,
        _ => Exit::Success,
    })
}

/// Prints what a list has.
fn tell_plan(args: &BulkArgs, path: &Path, list: &List, summary: &Summary) -> Result<()> {
    for f in summary.failures.iter().filter(|_| args.quiet) {
        super::complain(&format!("xdump-cut: {}: {}", f.input, f.reason));
    }
    if args.quiet {
        return Ok(());
    }
    let dumps: usize = list.entries.iter().map(|e| e.dumps.len()).sum();
    if args.report == ReportFormat::Json {
        let told = serde_json::json!({
            "list": path.display().to_string(), "entries": list.head.entries, "dumps": dumps, "summary": summary
        });
        return super::print(&format!("{}\n", super::json(&told)));
    }
    let most = list.entries.iter().map(|e| e.cost).max().unwrap_or(0);
    let least = list.entries.iter().map(|e| e.cost).min().unwrap_or(0);
    let balance =
        (least * 100).checked_div(most).map(|n| format!(", the cheapest at {n} % of the dearest")).unwrap_or_default();
    super::print(&format!(
        "{}: {} entries, {dumps} dumps{balance}; cut before: {}, left: {}\n",
        path.display(),
        list.head.entries,
        summary.before.inputs,
        summary.left.inputs
    ))?;
    summary.failures.iter().for_each(|f| super::complain(&format!("xdump-cut: {}: {}", f.input, f.reason)));
    Ok(())
}

/// Whether bars can be shown.
fn on_terminal() -> bool {
    progress::has_bars()
}
