//! The whole way: a dump in, a domain's dump out, a report of what happened.

mod prepare;
mod show;
mod verify;

pub use prepare::Prepared;
pub use show::{Shown, file_name, show};

use crate::error::{Absence, Error, Kind, Result};
use crate::linux::{own_list, toolstack};
use crate::options::{ELF_ZST_LEVEL, Format, Options};
use crate::pick;
use crate::pipeline::Progress;
use crate::pipeline::codec::Codec;
use crate::pipeline::crew::Crew;
use crate::pipeline::estimate::estimate;
use crate::pipeline::walk::Walker;
use crate::recut::{self, Recut};
use crate::report::Report;
use crate::sink::{self, Facts, Mode, Output, Written};
use crate::source::{self, MachineMemory, ReadAt, Vmcore};
use crate::xen::p2m::inverted::Inverted;
use crate::xen::p2m::{Help, Owned};
use crate::xen::survey::Survey;
use crate::xen::{Domain, Host, P2m};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// Cuts the domain that the options name out of `source` and writes it to `out`.
///
/// # Errors
/// The first structure without which no cut can be made, or what the operating system says of the output.
pub fn cut(source: &dyn ReadAt, options: &Options, out: Output, progress: &dyn Progress) -> Result<Report> {
    cut_split(source, options, vec![out], progress)
}

/// The same, split over several outputs.
///
/// # Errors
/// As [`cut`]; [`Error::Usage`] if the format cannot be split.
pub fn cut_split(source: &dyn ReadAt, options: &Options, outs: Vec<Output>, progress: &dyn Progress) -> Result<Report> {
    with_input(source, options, progress, |input| match input.recut()? {
        Some(_) if options.full_only => Err(Error::NotXen("it is a cut already".into())),
        Some(recut) => input.cut_again(recut, outs),
        None => input.with_host(false, |cutter| {
            let domain = cutter.pick()?;
            cutter.cut(domain, outs)
        }),
    })
}

/// Tells what a cut would be like, without writing anything: the report of it, with an estimate of its size in each format,
/// for one domain, or with `all` for every one.
///
/// # Errors
/// As [`cut`].
pub fn dry_run(source: &dyn ReadAt, options: &Options, all: bool, progress: &dyn Progress) -> Result<Vec<Outcome>> {
    with_input(source, options, progress, |input| match input.recut()? {
        Some(_) if all => Err(no_domains()),
        Some(mut recut) => {
            let walker = Walker::unaltered(input.mem, &recut.plan);
            let notes = recut.facts.notes.bytes.len();
            input.estimate(&walker, notes, &mut recut.report, Survey::default())?;
            Ok(vec![(recut.report.domain.id, Ok(recut.report))])
        }
        None => input.with_host(all, |cutter| match all {
            true => Ok(cutter.host.domains.iter().map(|d| (d.id, cutter.dry_run(d))).collect()),
            false => {
                let domain = cutter.pick()?;
                Ok(vec![(domain.id, Ok(cutter.dry_run(domain)?))])
            }
        }),
    })
}

/// What became of a domain: its id, and the report of its cut.
pub type Outcome = (u16, Result<Report>);

/// Cuts every domain out of `source`, each to the output that `out` makes for its id and name. One that cannot be cut does
/// not keep the others from it.
///
/// # Errors
/// The first structure without which no domain can be cut.
pub fn cut_all(
    source: &dyn ReadAt,
    options: &Options,
    out: &dyn Fn(u16, Option<&str>) -> Result<Output>,
    progress: &dyn Progress,
) -> Result<Vec<Outcome>> {
    with_input(source, options, progress, |input| {
        if recut::told(input.core)?.is_some() {
            return Err(no_domains());
        }
        input.with_host(true, |cutter| {
            let names = cutter.names();
            let one = |domain: &Domain| {
                let out = out(domain.id, toolstack::name_of(domain, &names));
                (domain.id, out.and_then(|out| cutter.cut(domain, vec![out])))
            };
            Ok(cutter.host.domains.iter().map(one).collect())
        })
    })
}

fn no_domains() -> Error {
    Error::Usage("this is a cut, of one domain; --all-domains needs the full dump".into())
}

/// Reads what any dump has.
fn with_input<T>(
    source: &dyn ReadAt,
    options: &Options,
    progress: &dyn Progress,
    work: impl FnOnce(&Input<'_>) -> Result<T>,
) -> Result<T> {
    let crew = match &options.pool {
        Some(pool) => Crew::sharing(Arc::clone(pool), options.memory),
        None => Crew::new(options.threads, options.memory)?,
    };
    progress.stage("reading headers and notes", None);
    let (core, mem) = source.history().or_trouble(source::read(source))?;
    if options.strict {
        mem.history().must_be_sound()?;
    }
    let done = work(&Input { core: &core, mem: &mem, options, crew: &crew, progress });
    mem.history().or_trouble(done).map_err(|e| e.of_damaged(&mem.history().damage))
}

/// A dump, and what is to be done with it.
#[derive(Clone, Copy, Debug)]
struct Input<'a> {
    core: &'a Vmcore,
    mem: &'a MachineMemory<'a>,
    options: &'a Options,
    crew: &'a Crew,
    progress: &'a dyn Progress,
}

impl<'a> Input<'a> {
    /// The input as a cut that is to be written again; nothing if it is none.
    fn recut(self) -> Result<Option<Recut>> {
        let Self { core, mem, options, crew, .. } = self;
        crew.install(|| Recut::open(core, mem, options))
    }

    /// Reads what does not depend on one domain.
    fn with_host<T>(self, several: bool, work: impl FnOnce(&Cutter<'_>) -> Result<T>) -> Result<T> {
        self.progress.stage("reading Xen's structures", None);
        let host = Host::open_with(self.mem, self.core, self.options.xen_syms.as_ref())?;
        let (inverted, machine) = (OnceLock::new(), OnceLock::new());
        work(&Cutter { host: &host, input: self, several, inverted, machine })
    }

    /// Writes a cut once more.
    fn cut_again(self, mut recut: Recut, outs: Vec<Output>) -> Result<Report> {
        let walker = Walker::unaltered(self.mem, &recut.plan);
        let mut report = std::mem::take(&mut recut.report);
        self.write(&walker, &recut.facts, &mut report, outs, Survey::default(), &|written| {
            if recut.same_digest(written.digest.as_deref()) {
                return Ok(None);
            }
            let why = "the digest in the cut's note is not that of its pages: they were damaged, or some are missing";
            if self.options.strict { Err(Error::Strict(why.into())) } else { Ok(Some(why.into())) }
        })?;
        Ok(report)
    }

    /// Estimates what a cut would be like.
    fn estimate(self, walker: &Walker<'_>, notes: usize, report: &mut Report, machine: Survey) -> Result<()> {
        self.progress.stage("looking at a sample of the pages", None);
        let (mut codecs, mut levels) = (Codec::ALL.to_vec(), vec![ELF_ZST_LEVEL]);
        match self.options.format {
            Format::Kdump(codec) if !codecs.contains(&codec) => codecs.push(codec),
            Format::ElfZst(level) if !levels.contains(&level) => levels.push(level),
            _ => {}
        }
        let estimate = estimate(walker, &codecs, &levels, notes as u64, self.crew)?;
        report.source.fetched = self.mem.history().fetched();
        report.would_be(self.options.format, estimate, machine);
        Ok(())
    }

    /// Writes the pages of a plan. `check` looks at what was written, before it gets its name: an error, or a warning.
    fn write(
        self,
        walker: &Walker<'_>,
        facts: &Facts,
        report: &mut Report,
        outs: Vec<Output>,
        machine: Survey,
        check: &dyn Fn(&Written) -> Result<Option<String>>,
    ) -> Result<()> {
        let Self { options, crew, progress, .. } = self;
        if options.verify && outs.iter().any(|out| out.mode() != Mode::Positions) {
            return Err(Error::Usage("--verify needs an output that can be read again, not a stream".into()));
        }
        report.warnings.extend(crew.too_little(walker.plan().bytes()));
        let written = match sink::write(options.format, walker, facts, &outs, crew, progress) {
            Err(e) if e.ends_early() && outs.iter().any(|out| out.mode() == Mode::Flattened) => {
                let left: Vec<String> = outs.into_iter().filter_map(Output::abandon).collect();
                let why = || Error::Incomplete(format!("{} is a stream that was cut short: {e}", left.join(", ")));
                return Err(if left.is_empty() { e } else { why() });
            }
            written => self.mem.history().or_trouble(written)?,
        };
        if options.strict {
            sound_pages(written.lost.iter().map(|(why, n)| (*why, *n)))?;
        }
        report.warnings.extend(check(&written)?);
        if options.verify {
            report.output.verified = Some(verify::verify(walker, facts, &written, &outs, crew, progress)?);
        }
        self.mem.history().came_through()?;
        let done = finish(outs, &written, progress)?;
        report.source.fetched = self.mem.history().fetched();
        report.written(options.format, written, machine);
        report.output.bytes = done.iter().map(|d| d.1).sum::<Option<u64>>().unwrap_or(report.output.bytes);
        report.output.files = done.into_iter().map(|d| d.0).collect();
        Ok(())
    }
}

/// Cuts domains of one host.
#[derive(Debug)]
struct Cutter<'a> {
    host: &'a Host<'a>,
    input: Input<'a>,
    /// Whether more than one domain is cut.
    several: bool,
    /// All domains' frames as the M2P has them, if several are cut; and if any of them needs that.
    inverted: OnceLock<BTreeMap<u16, Inverted>>,
    /// What else is on the machine; the same for all domains.
    machine: OnceLock<Survey>,
}

impl Cutter<'_> {
    /// The domain that the options name.
    fn pick(&self) -> Result<&Domain> {
        pick::pick(self.host, &self.options.domain, &|| self.names())
    }

    /// The names that dom0's toolstack gave to domains.
    fn names(&self) -> BTreeMap<toolstack::Handle, String> {
        self.progress.stage("finding the domains' names", None);
        let read = |dom0| {
            let p2m = self.p2m(dom0).ok()?;
            Some(self.crew.install(|| toolstack::names(self.host.memory(), &p2m)))
        };
        self.host.hardware_domain().and_then(read).unwrap_or_default()
    }

    fn machine(&self) -> &Survey {
        self.machine.get_or_init(|| self.crew.install(|| Survey::take(self.host)))
    }

    fn p2m(&self, domain: &Domain) -> Result<P2m> {
        let one = OnceLock::new();
        let all = || Inverted::of_all(self.host);
        let inverted = || match self.several {
            true => self.inverted.get_or_init(all).get(&domain.id).unwrap_or(Inverted::NOTHING),
            false => one.get_or_init(|| Inverted::read(self.host, domain)),
        };
        let machine = self.machine();
        // A domain that owns nothing has no entry.
        let owned = machine.domains.get(&domain.id).map(|pages| Owned { pages: *pages, exact: machine.exact });
        let help = Help { own: None, owned, inverted: &inverted };
        self.crew.install(|| own_list::read(self.host, domain, self.options.symbols.as_ref(), &help))
    }

    /// What the user gave is of one kernel; where several domains are cut, others do without it, and it is said.
    fn not_this_kernels(&self, error: Error, report: &mut Report) -> Result<()> {
        if !self.several || error.kind() != Kind::Usage {
            return Err(error);
        }
        report.warnings.push(error.to_string());
        Ok(())
    }

    fn dry_run(&self, domain: &Domain) -> Result<Report> {
        self.progress.stage("reading the P2M", None);
        let p2m = self.p2m(domain)?;
        let Prepared { plan, mut report, facts } = self.prepare(domain, &p2m)?;
        let notes = facts.notes.bytes.len();
        self.estimate(&Walker::new(self.host, &plan), notes, &mut report, self.machine().clone())?;
        Ok(report)
    }

    fn cut(&self, domain: &Domain, outs: Vec<Output>) -> Result<Report> {
        self.progress.stage("reading the P2M", None);
        let p2m = self.p2m(domain)?;
        let Prepared { plan, facts, mut report } = self.prepare(domain, &p2m)?;
        let walker = Walker::new(self.host, &plan);
        self.write(&walker, &facts, &mut report, outs, self.machine().clone(), &|_| Ok(None))?;
        Ok(report)
    }
}

impl<'a> Deref for Cutter<'a> {
    type Target = Input<'a>;

    fn deref(&self) -> &Input<'a> {
        &self.input
    }
}

/// Puts the outputs on the disk, under their names if they are complete. Where they are, and bytes of streams.
fn finish(outs: Vec<Output>, written: &Written, progress: &dyn Progress) -> Result<Vec<(String, Option<u64>)>> {
    progress.stage("syncing", None);
    let complete = written.incomplete.is_none();
    // No part gets its name before all are on the disk.
    if complete && outs.len() > 1 {
        outs.iter().try_for_each(Output::sync)?;
    }
    let one = |out: Output| if complete { out.commit() } else { out.leave() };
    outs.into_iter().map(one).collect()
}

/// Pages of the domain that should be in the dump. What was left out of it on purpose, or never was in it, is no damage.
fn sound_pages(absent: impl Iterator<Item = (Absence, u64)>) -> Result<()> {
    let damaged = |why: &Absence| !matches!(why, Absence::NotInDump | Absence::Excluded);
    let all: Vec<String> =
        absent.filter(|(why, _)| damaged(why)).map(|(why, n)| format!("{n} pages: each {why}")).collect();
    if all.is_empty() { Ok(()) } else { Err(Error::Strict(all.join("; "))) }
}
