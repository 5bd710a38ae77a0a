//! The whole way: a dump in, a domain's dump out, a report of what happened.

use crate::error::Result;
use crate::linux::kernel::Landmarks;
use crate::linux::kernel::START_KERNEL_MAP;
use crate::linux::names::Names;
use crate::linux::{Found, Kernel, marks, note};
use crate::options::{Format, Options};
use crate::pipeline::Progress;
use crate::pipeline::walk::Walker;
use crate::plan::Plan;
use crate::plan::selection::{Known, Selection};
use crate::report::Report;
use crate::sink::notes::NoteBlob;
use crate::sink::{Output, elf, kdump};
use crate::source::{MachineMemory, ReadAt, Vmcore};
use crate::units::{Pfn, VirtAddr};
use crate::xen::survey::Survey;
use crate::xen::vcpu::vcpus;
use crate::xen::{Host, P2m};
use crate::{Error, report};
use std::path::Path;

/// Cuts the hardware domain out of `source` and writes it to `out`.
///
/// # Errors
/// The first structure without which no cut can be made, or what the operating system says of the output.
pub fn cut(source: &dyn ReadAt, options: &Options, out: Output, progress: &dyn Progress) -> Result<Report> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| Error::Usage(format!("{} threads: {e}", options.threads)))?;
    progress.stage("reading headers and notes", None);
    let mut core = Vmcore::parse(source)?;
    let segments = core.take_segments(source.len());
    let mem = MachineMemory::new(source, segments);
    let cut_off = mem.segments().cut_off;
    cut_memory(&mem, &core, options, out, &pool, progress).map_err(|e| e.in_file(cut_off))
}

fn cut_memory(
    mem: &MachineMemory<'_>,
    core: &Vmcore,
    options: &Options,
    out: Output,
    pool: &rayon::ThreadPool,
    progress: &dyn Progress,
) -> Result<Report> {
    progress.stage("reading Xen's structures", None);
    let host = Host::open_with(mem, core, options.xen_syms.as_ref())?;
    let domain = host.hardware_domain().ok_or_else(|| {
        let ids: Vec<_> = host.domains.iter().map(|d| d.id.to_string()).collect();
        Error::missing("domain 0", format!("the domain list has {} only", ids.join(", ")))
    })?;
    let mut report = Report::new(&host, domain);
    progress.stage("reading the P2M", None);
    let p2m = pool.install(|| P2m::read(&host, domain))?;
    report.p2m(&p2m);
    let cpus = vcpus(&host, &[domain]).remove(&domain.id).unwrap_or_default();
    report.vcpus(&cpus);

    progress.stage("finding the kernel", None);
    let kernel = Kernel::find(&host, domain, &p2m);
    let landmarks = pool.install(|| kernel.as_ref().map(Kernel::landmarks)).unwrap_or_default();
    let found = kernel.as_ref().map(|k| pool.install(|| vmcoreinfo(k, &host, &landmarks, options))).transpose()?;
    let found = report.vmcoreinfo(found);
    let find_names = |k| Names::find(k, found.as_ref(), options.symbols.as_ref());
    let names = kernel.as_ref().map(find_names).transpose()?;

    progress.stage("reading struct pages", None);
    let known = Known { kernel: kernel.as_ref(), found: found.as_ref(), names: names.as_ref(), landmarks: &landmarks };
    let choice = pool.install(|| Selection::make(&known, &p2m, options.level));
    report.selection(options.level, &choice);
    if options.require_level && choice.applied != options.level {
        let why = choice.reasons.join("; ");
        return Err(Error::Level(format!("level {} cannot be applied in full: {why}", options.level)));
    }

    progress.stage("reading page tables", None);
    let mut plan = pool.install(|| Plan::new(&host, domain, &p2m, choice));
    if let (Some(kernel), Some(names)) = (&kernel, &names) {
        let (marks, doubts) = marks::find(kernel, found.as_ref(), names, &landmarks);
        report.warnings.extend(doubts);
        report.warnings.extend(plan.clear(kernel, marks));
    }
    report.plan(&plan);
    let about = report::about(&host, domain, &plan);
    let text = found.as_ref().map(|f| f.info.text());
    let notes = NoteBlob::new(&cpus, text, kernel.as_ref().map(|k| k.root), &about);

    let walker = Walker::new(&host, &plan);
    let written = match options.format {
        Format::Elf => {
            let base = kernel.as_ref().map_or(0xffff_8880_0000_0000, Kernel::direct_map);
            let mut windows = vec![elf::Window { base: VirtAddr(base), first: Pfn(0), end: plan.end() }];
            if let Some((first, end)) = kernel.as_ref().and_then(Kernel::image_pfns) {
                windows.push(elf::Window { base: VirtAddr(START_KERNEL_MAP), first, end });
            }
            elf::write(&walker, &notes, &windows, &out, pool, progress)?
        }
        Format::Kdump(codec) => {
            let uts = found.as_ref().map(|f| f.uts.clone()).unwrap_or_else(unknown_uts);
            let header = kdump::Header {
                uts: &uts,
                phys_base: found.as_ref().and_then(|f| f.info.number("phys_base")).unwrap_or(0),
                cpus: cpus.len() as u32,
                notes: &notes,
                codec,
            };
            kdump::write(&walker, &header, &out, pool, progress)?
        }
    };
    progress.stage("syncing", None);
    out.commit()?;
    report.written(options.format, written, pool.install(|| Survey::take(&host)));
    Ok(report)
}

/// The kernel's VMCOREINFO: the user's, the kernel's own, or one made from its vmlinux. The inner error says why none was
/// believed.
fn vmcoreinfo(
    kernel: &Kernel<'_>,
    host: &Host<'_>,
    landmarks: &Landmarks,
    options: &Options,
) -> Result<Result<Found, Vec<String>>> {
    if let Some(given) = &options.vmcoreinfo {
        let found = note::believe(kernel, given.clone(), "given by the user");
        return found
            .map(Ok)
            .map_err(|why| Error::Usage(format!("the given VMCOREINFO is not of the kernel in the dump: it {why}")));
    }
    let found = note::find(kernel, host.notes.linux.as_ref(), &landmarks.notes);
    match (found, &options.vmlinux) {
        (Err(reasons), Some(path)) => made(kernel, path, reasons),
        (found, _) => Ok(found),
    }
}

/// One made from the kernel's vmlinux, where the others were not believed for `reasons`.
#[cfg(feature = "dwarf")]
fn made(kernel: &Kernel<'_>, path: &Path, _: Vec<String>) -> Result<Result<Found, Vec<String>>> {
    let info = crate::linux::dwarf::vmcoreinfo(path)?;
    let found = note::believe(kernel, info, "made from the vmlinux");
    let wrong =
        |why| Error::Usage(format!("{} is not of the kernel in the dump: its VMCOREINFO {why}", path.display()));
    found.map(Ok).map_err(wrong)
}

#[cfg(not(feature = "dwarf"))]
fn made(_: &Kernel<'_>, path: &Path, mut reasons: Vec<String>) -> Result<Result<Found, Vec<String>>> {
    reasons.push(format!("{} could tell, but this program was built without the feature dwarf", path.display()));
    Ok(Err(reasons))
}

/// crash wants to know the machine at least.
fn unknown_uts() -> [String; 6] {
    ["Linux", "", "", "", "x86_64", ""].map(String::from)
}
