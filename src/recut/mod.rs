//! A cut as input: written in another format, with the same pages and notes. There is no Xen in it and nothing to decide:
//! pages stand at their PFNs already, and what one format's headers have and another's have not, the XDUMPCUT note tells
//! ([`mod@told`]). So a cut in one format, cut again into another, is the file that the full dump would have been cut into.

mod about;
mod kernel;
pub mod told;

pub use about::{About, about};
pub(crate) use kernel::with_kernel;
pub use told::Told;

use crate::error::{Absence, Error, Result};
use crate::options::{Format, Options, Which};
use crate::plan::Plan;
use crate::plan::filter::Excluded;
use crate::plan::layout::Layout;
use crate::plan::level::Level;
use crate::plan::order::Order;
use crate::report::{Report, VcpuReport};
use crate::sink::Facts;
use crate::sink::notes::NoteBlob;
use crate::source::notes::Note;
use crate::source::{MachineMemory, Vmcore};
use crate::units::{Mfn, Pfn};
use crate::xen::p2m::Run;

/// What to do about options that a cut has no answer to.
const WAY_OUT: &str = "give it with the full dump";

/// A cut, ready to be written again.
#[derive(Debug)]
pub struct Recut {
    /// What its note says.
    pub told: Told,
    /// Its pages.
    pub plan: Plan<'static>,
    /// What its headers say.
    pub facts: Facts,
    /// What is known before the pages are read.
    pub report: Report,
}

/// What the note of a cut tells; nothing if the dump is no cut in the native layout.
///
/// # Errors
/// [`Error::Missing`] if the note lacks what a cut needs to be read again.
pub fn told(core: &Vmcore) -> Result<Option<Told>> {
    Told::of(core).transpose().map_err(|key| {
        let why = format!("{key} is not there, or makes no sense; the full dump is needed to cut it once more");
        Error::missing("a line of the XDUMPCUT note", why)
    })
}

impl Recut {
    /// Reads a cut; nothing if the dump is none.
    ///
    /// # Errors
    /// [`Error::Missing`] if its note lacks what is needed, [`Error::Usage`] for options that need a full dump.
    pub fn open(core: &Vmcore, mem: &MachineMemory<'_>, options: &Options) -> Result<Option<Self>> {
        let Some(told) = told(core)? else { return Ok(None) };
        check(&told, options)?;
        let level = level(&told, options)?;
        let digest = options.digest || told.digest.is_some();
        let notes = NoteBlob::again(core.notes(), &told.text_at(level), digest);
        let order = match options.format {
            Format::Kdump(_) => kernel::order(&told, core, mem, level),
            _ => Order::default(),
        };
        let (plan, missing) = plan(&told, mem, level, order)?;
        let vcpus: Vec<VcpuReport> = core.notes().filter_map(|n| vcpu(&n)).collect();
        let facts = Facts {
            windows: told.windows(plan.end()),
            uts: told.uts.clone(),
            phys_base: told.phys_base,
            cpus: vcpus.len() as u32,
            notes,
            core: None,
        };
        let asked = if options.level_given { options.level } else { level };
        let mut report = Report::again(mem, &told);
        report.domain.vcpus = vcpus;
        report.cut_again(&plan, asked);
        if missing > 0 && options.strict {
            return Err(Error::Strict(format!("{missing} pages are missing that the cut's level did not leave out")));
        }
        if missing > 0 {
            report.output.absent.insert(Absence::NotInDump.to_string(), missing);
            report.warnings.push(format!(
                "{missing} pages of the domain are missing from the cut although its level did not leave them out, and so from the output"
            ));
        }
        let beyond: u64 = mem.map().stored_frames().map(|(first, end)| end - first.clamp(told.end.min(end), end)).sum();
        if beyond > 0 {
            report.warnings.push(format!("{beyond} pages beyond what the cut's note tells of were left out"));
        }
        if told.more_runs > 0 {
            let why = "the domain's memory is in more pieces than its note has room for";
            report.warnings.push(format!(
                "{why} ({} more): of pages that the level left out there, the output does not say that they were there",
                told.more_runs
            ));
        }
        Ok(Some(Self { told, plan, facts, report }))
    }

    /// Puts the digest that the cut came with into the notes, for an output whose pages are not read for it.
    pub fn keep_digest(&mut self) {
        let (Some(at), Some(digits)) = (self.facts.notes.digest.take(), &self.told.digest) else { return };
        if let Some(place) = self.facts.notes.bytes.get_mut(at..at + digits.len()) {
            place.copy_from_slice(digits.as_bytes());
        }
    }

    /// Holds the digest that was found against the one that the cut came with; whether they are the same, if there are both.
    pub fn same_digest(&self, found: Option<&str>) -> bool {
        self.told.digest.as_deref().zip(found).is_none_or(|(told, found)| told == found)
    }
}

/// Refuses a domain that the cut is not of.
pub(crate) fn check_domain(told: &Told, which: &Which) -> Result<()> {
    let whose = told.domain.map_or("a domain of unknown number".into(), |id| format!("domain {id}"));
    match which {
        Which::Id(id) if told.domain != Some(*id) => {
            usage(&format!("it has {whose} only: do without --domain, or {WAY_OUT}"))
        }
        Which::Name(_) => usage(&format!("it has {whose} only, and no names: do without --domain, or {WAY_OUT}")),
        Which::Hardware | Which::Id(_) => Ok(()),
    }
}

fn usage<T>(what: &str) -> Result<T> {
    Err(Error::Usage(format!("this is a cut, not a full dump; {what}")))
}

/// Refuses what needs Xen, or the domain's kernel.
fn check(told: &Told, options: &Options) -> Result<()> {
    check_domain(told, &options.domain)?;
    let given = [
        (options.layout != Layout::Native, "--layout machine"),
        (options.format == Format::XcCore, "--format xc-core"),
        (options.xen_syms.is_some(), "--xen-syms"),
        (options.vmcoreinfo.is_some(), "--vmcoreinfo"),
        (options.vmlinux.is_some(), "--vmlinux"),
        (options.symbols.is_some(), "--vmlinux or --system-map"),
    ];
    match given.iter().find(|g| g.0) {
        Some((_, option)) => usage(&format!("{option} does nothing for it: {WAY_OUT}")),
        None => Ok(()),
    }
}

/// The level of the output: the cut's own, and zero pages left out if that is asked for.
fn level(told: &Told, options: &Options) -> Result<Level> {
    let own = told.level;
    if !options.level_given {
        return Ok(own);
    }
    let both = own.with(options.level);
    if both != own && both != own.with(Level::ZEROS) {
        let asked = options.level;
        return Err(Error::Usage(format!(
            "this is a cut of level {own}, and only zero pages can be left out of a cut, not what level {asked} asks for: cut it from the full dump with that level, or filter the kdump format with makedumpfile"
        )));
    }
    Ok(both)
}

/// The pages, and how many are missing that no level left out.
fn plan(told: &Told, mem: &MachineMemory<'_>, level: Level, order: Order) -> Result<(Plan<'static>, u64)> {
    let map = mem.map();
    // A damaged header may promise any number of zero pages.
    let within = |(first, end): (u64, u64)| (first, end.min(told.end));
    let stored: Vec<(u64, u64)> = told::joined(map.stored_frames().map(within));
    // The format may say which were there; the note does, as far as it has room.
    let known = map.frames().map(within).chain(told.runs.iter().copied()).chain(stored.iter().copied());
    let mut known: Vec<(u64, u64)> = known.collect();
    known.sort_unstable();
    let known = told::joined(known.into_iter());
    let out = without(&known, &stored);
    let mut pages = crate::bitmap::Bitmap::new(out.last().map_or(0, |r| r.1));
    out.iter().for_each(|(first, end)| pages.set_range(*first, end - first));
    let left_out: u64 = told.excluded.values().sum();
    let missing = pages.count().saturating_sub(left_out);
    let run = |(first, end): (u64, u64)| Run { pfn: Pfn(first), mfn: Mfn(first), len: end - first };
    let runs: Vec<Run> = known.into_iter().map(run).collect();
    if runs.is_empty() {
        return Err(Error::missing("every page", "the cut has none"));
    }
    Ok((Plan::again(runs, Excluded { pages, ..Excluded::default() }, level, order), missing))
}

/// What of `all` is not in `some`; both in order and without overlaps.
fn without(all: &[(u64, u64)], some: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut rest = Vec::new();
    let mut next = 0;
    for (first, end) in all {
        let mut at = *first;
        while let Some((from, to)) = some.get(next).filter(|s| s.0 < *end) {
            if at < *from {
                rest.push((at, *from));
            }
            at = at.max(*to);
            if *to > *end {
                break;
            }
            next += 1;
        }
        if at < *end {
            rest.push((at, *end));
        }
    }
    rest
}

/// The vCPU of an NT_PRSTATUS.
fn vcpu(note: &Note<'_>) -> Option<VcpuReport> {
    if (note.name, note.kind) != (b"CORE", 1) {
        return None;
    }
    let [pid, rip, rsp] = crate::sink::notes::prstatus_words(note.desc)?;
    let hex = |n: u64| Some(format!("{n:#x}"));
    let id = u32::try_from(pid.saturating_sub(1)).unwrap_or(u32::MAX);
    Some(VcpuReport { id, state: "told by the cut".into(), rip: hex(rip), rsp: hex(rsp), ..VcpuReport::default() })
}

impl Report {
    /// The report of a cut that is read again.
    fn again(mem: &MachineMemory<'_>, told: &Told) -> Self {
        let mut report = Self::of_input(mem);
        report.source.xen = told.xen.clone();
        report.source.id = told.source_id.clone();
        report.source.form.push_str(", a cut");
        report.domain.id = told.domain.unwrap_or(crate::xen::alone::UNKNOWN_ID);
        report.domain.release = Some(told.uts[2].clone()).filter(|r| !r.is_empty());
        report.output.excluded = told.excluded.clone();
        report
    }

    fn cut_again(&mut self, plan: &Plan<'_>, asked: Level) {
        self.output.planned = plan.pages();
        self.output.layout = plan.layout.to_string();
        self.level.asked = asked.number();
        self.level.applied = plan.level.number();
        if asked != plan.level {
            self.level.reasons.push("what a cut has left out cannot come back".into());
            self.warnings.push(format!(
                "level {asked} was asked for, and the cut has level {}: what it has left out cannot come back",
                plan.level
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_difference_goes_by_bits(a in prop::collection::vec(any::<bool>(), 120), b in prop::collection::vec(any::<bool>(), 120)) {
            let ranges = |bits: &[bool]| {
                told::joined((0..).zip(bits).filter(|(_, set)| **set).map(|(n, _)| (n, n + 1)))
            };
            let rest: Vec<bool> = a.iter().zip(&b).map(|(a, b)| *a && !b).collect();
            prop_assert_eq!(without(&ranges(&a), &ranges(&b)), ranges(&rest));
        }
    }
}
