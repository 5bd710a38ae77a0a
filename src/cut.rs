//! The whole way: a dump in, a domain's dump out, a report of what happened.

use crate::error::Result;
use crate::linux::kernel::Landmarks;
use crate::linux::names::Names;
use crate::linux::{Found, Kernel, marks, note, toolstack};
use crate::options::{Format, Options};
use crate::pick;
use crate::pipeline::Progress;
use crate::pipeline::walk::Walker;
use crate::plan::Plan;
use crate::plan::layout;
use crate::plan::selection::{Known, Selection};
use crate::report::Report;
use crate::sink::notes::NoteBlob;
use crate::sink::{Output, elf, kdump};
use crate::source::{MachineMemory, ReadAt, Vmcore};
use crate::units::{Pfn, VirtAddr};
use crate::xen::cpu::cpus as physical_cpus;
use crate::xen::survey::Survey;
use crate::xen::vcpu::vcpus;
use crate::xen::{Domain, Host, P2m};
use crate::{Error, report};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;

/// Cuts the domain that the options name out of `source` and writes it to `out`.
///
/// # Errors
/// The first structure without which no cut can be made, or what the operating system says of the output.
pub fn cut(source: &dyn ReadAt, options: &Options, out: Output, progress: &dyn Progress) -> Result<Report> {
    with_host(source, options, progress, |cutter| {
        let domain = cutter.pick()?;
        cutter.cut(domain, out)
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
    with_host(source, options, progress, |cutter| {
        let names = cutter.names();
        let one = |domain: &Domain| {
            let out = out(domain.id, toolstack::name_of(domain, &names));
            (domain.id, out.and_then(|out| cutter.cut(domain, out)))
        };
        Ok(cutter.host.domains.iter().map(one).collect())
    })
}

/// Reads what does not depend on one domain.
fn with_host<T>(
    source: &dyn ReadAt,
    options: &Options,
    progress: &dyn Progress,
    work: impl FnOnce(&Cutter<'_>) -> Result<T>,
) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| Error::Usage(format!("{} threads: {e}", options.threads)))?;
    progress.stage("reading headers and notes", None);
    let mut core = Vmcore::parse(source)?;
    let segments = core.take_segments(source.len());
    let mem = MachineMemory::new(source, segments);
    progress.stage("reading Xen's structures", None);
    let done = Host::open(&mem, &core).and_then(|host| {
        let machine = OnceCell::new();
        work(&Cutter { host: &host, core: &core, options, pool: &pool, progress, machine })
    });
    done.map_err(|e| e.in_file(mem.segments().cut_off))
}

/// Cuts domains of one host.
struct Cutter<'a> {
    host: &'a Host<'a>,
    core: &'a Vmcore,
    options: &'a Options,
    pool: &'a rayon::ThreadPool,
    progress: &'a dyn Progress,
    /// What else is on the machine; the same for all domains.
    machine: OnceCell<Survey>,
}

impl Cutter<'_> {
    /// The domain that the options name.
    fn pick(&self) -> Result<&Domain> {
        pick::pick(self.host, &self.options.domain, &|| self.names())
    }

    /// The names that dom0's toolstack gave to domains.
    fn names(&self) -> BTreeMap<toolstack::Handle, String> {
        self.progress.stage("finding the domains' names", None);
        self.pool.install(|| pick::names(self.host))
    }

    fn cut(&self, domain: &Domain, out: Output) -> Result<Report> {
        let Self { host, options, pool, progress, .. } = self;
        let mut report = Report::new(host, domain);
        progress.stage("reading the P2M", None);
        let p2m = pool.install(|| P2m::read(host, domain))?;
        report.p2m(&p2m);
        let cpus = vcpus(host, &[domain]).remove(&domain.id).unwrap_or_default();
        report.vcpus(&cpus, physical_cpus(host));

        progress.stage("finding the kernel", None);
        let kernel = Kernel::find(host, domain, &p2m);
        let landmarks = pool.install(|| kernel.as_ref().map(Kernel::landmarks)).unwrap_or_default();
        let found = kernel.as_ref().map(|k| pool.install(|| vmcoreinfo(k, host, &landmarks, options))).transpose()?;
        let found = report.vmcoreinfo(found);
        let find_names = |k| Names::find(k, found.as_ref(), options.symbols.as_ref());
        let names = kernel.as_ref().map(find_names).transpose()?;

        progress.stage("reading struct pages", None);
        let known =
            Known { kernel: kernel.as_ref(), found: found.as_ref(), names: names.as_ref(), landmarks: &landmarks };
        let choice = pool.install(|| Selection::make(&known, &p2m, options.level));
        report.selection(options.level, &choice);
        if let Some(why) = choice.shortfall(options.level).filter(|_| options.require_level) {
            return Err(Error::Level(format!("level {} cannot be applied in full: {why}", options.level)));
        }

        progress.stage("reading page tables", None);
        let mut plan = pool.install(|| Plan::in_layout(options.layout, host, domain, &p2m, choice));
        let machine = options.layout.is_machine();
        if let (false, Some(kernel), Some(names)) = (machine, &kernel, &names) {
            let (marks, doubts) = marks::find(kernel, found.as_ref(), names, &landmarks);
            report.warnings.extend(doubts);
            report.warnings.extend(plan.clear(kernel, marks));
        }
        let list = layout::frame_list_list(host, domain);
        report.plan(&plan, list);
        let about = report::about(host, domain, &plan);
        let text = found.as_ref().map(|f| f.info.text());
        let notes = match machine {
            true => NoteBlob::machine(self.core.notes(), list, text, &about),
            false => NoteBlob::new(&cpus, text, kernel.as_ref().map(|k| k.root), &about),
        };

        let walker = Walker::new(host, &plan);
        let written = match options.format {
            Format::Elf => {
                let base = layout::direct_map(kernel.as_ref());
                let mut windows = vec![elf::Window { base: VirtAddr(base), first: Pfn(0), end: plan.end() }];
                // Its frames need not run along with its addresses.
                if let Some((base, first, end)) = kernel.as_ref().filter(|_| !machine).and_then(Kernel::image_window) {
                    windows.push(elf::Window { base, first, end });
                }
                elf::write(&walker, &notes, &windows, &out, pool, *progress)?
            }
            Format::Kdump(codec) => {
                let uts = found.as_ref().map(|f| f.uts.clone()).unwrap_or_else(unknown_uts);
                let header = kdump::Header {
                    uts: &uts,
                    phys_base: found.as_ref().and_then(|f| f.info.number("phys_base")).unwrap_or(0),
                    cpus: if machine { host.notes.cpus.len() } else { cpus.len() } as u32,
                    notes: &notes,
                    codec,
                };
                kdump::write(&walker, &header, &out, pool, *progress)?
            }
        };
        progress.stage("syncing", None);
        out.commit()?;
        let machine = self.machine.get_or_init(|| pool.install(|| Survey::take(host)));
        report.written(options.format, written, machine.clone());
        Ok(report)
    }
}

/// The kernel's VMCOREINFO: the user's, the kernel's own, or one made from its vmlinux. The inner error says why none was
/// believed.
fn vmcoreinfo(
    kernel: &Kernel<'_>,
    host: &Host<'_>,
    landmarks: &Landmarks,
    options: &Options,
) -> Result<Result<Found, Vec<String>>> {
    let found = note::find(kernel, host.notes.linux.as_ref(), &landmarks.notes);
    if let Some(given) = &options.vmcoreinfo {
        // What it does not say, the kernel's own may.
        let own = found.ok();
        let info = given.clone().or(own.as_ref().map(|f| &f.info));
        let believed = note::believe(kernel, info, "given by the user");
        let pages = own.map(|f| f.pages).unwrap_or_default();
        let wrong = |why| Error::Usage(format!("the given VMCOREINFO is not of the kernel in the dump: it {why}"));
        return believed.map(|f| Ok(Found { pages, ..f })).map_err(wrong);
    }
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
