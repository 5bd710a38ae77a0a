//! The whole way: a dump in, a domain's dump out, a report of what happened.

use crate::error::{Absence, Kind, Result};
use crate::linux::kernel::Landmarks;
use crate::linux::names::Names;
use crate::linux::{Found, Kernel, marks, note, own_list, toolstack};
use crate::options::{Format, Options};
use crate::pick;
use crate::pipeline::Progress;
use crate::pipeline::walk::Walker;
use crate::plan::Plan;
use crate::plan::layout::{self, Layout};
use crate::plan::selection::{Known, Selection};
use crate::report::Report;
use crate::sink::notes::NoteBlob;
use crate::sink::{Output, elf, kdump, xc_core};
use crate::source::container::Place;
use crate::source::{self, ReadAt, Vmcore};
use crate::units::{Mfn, PAGE_BYTES, Pfn, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;
use crate::xen::p2m::inverted::Inverted;
use crate::xen::p2m::{Help, Owned, Run};
use crate::xen::survey::Survey;
use crate::xen::vcpu::{physical_cpus, vcpus};
use crate::xen::{Domain, Host, P2m};
use crate::{Error, report};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

/// Cuts the domain that the options name out of `source` and writes it to `out`.
///
/// # Errors
/// The first structure without which no cut can be made, or what the operating system says of the output.
pub fn cut(source: &dyn ReadAt, options: &Options, out: Output, progress: &dyn Progress) -> Result<Report> {
    with_host(source, options, progress, false, |cutter| {
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
    with_host(source, options, progress, true, |cutter| {
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
    several: bool,
    work: impl FnOnce(&Cutter<'_>) -> Result<T>,
) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| Error::Usage(format!("{} threads: {e}", options.threads)))?;
    progress.stage("reading headers and notes", None);
    let (core, mem) = source::read(source)?;
    if options.strict {
        mem.history().must_be_sound()?;
    }
    progress.stage("reading Xen's structures", None);
    let done = Host::open_with(&mem, &core, options.xen_syms.as_ref()).and_then(|host| {
        let (inverted, machine) = (OnceLock::new(), OnceLock::new());
        work(&Cutter { host: &host, core: &core, options, pool: &pool, progress, several, inverted, machine })
    });
    done.map_err(|e| e.of_damaged(&mem.history().damage))
}

/// Cuts domains of one host.
struct Cutter<'a> {
    host: &'a Host<'a>,
    core: &'a Vmcore,
    options: &'a Options,
    pool: &'a rayon::ThreadPool,
    progress: &'a dyn Progress,
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
            Some(self.pool.install(|| toolstack::names(self.host.memory(), &p2m)))
        };
        self.host.hardware_domain().and_then(read).unwrap_or_default()
    }

    fn machine(&self) -> &Survey {
        self.machine.get_or_init(|| self.pool.install(|| Survey::take(self.host)))
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
        self.pool.install(|| own_list::read(self.host, domain, self.options.symbols.as_ref(), &help))
    }

    /// What the user gave is of one kernel; where several domains are cut, others do without it, and it is said.
    fn not_this_kernels(&self, error: Error, report: &mut Report) -> Result<()> {
        if !self.several || error.kind() != Kind::Usage {
            return Err(error);
        }
        report.warnings.push(error.to_string());
        Ok(())
    }

    fn cut(&self, domain: &Domain, out: Output) -> Result<Report> {
        let Self { host, options, pool, progress, .. } = self;
        let layout = options.format.layout(options.layout)?;
        if host.alone().is_some() && layout.is_machine() {
            let why = "the machine layout is for dumps of a whole host; this one is of a domain alone";
            return Err(Error::Usage(why.into()));
        }
        let mut report = Report::new(host, domain);
        progress.stage("reading the P2M", None);
        let p2m = self.p2m(domain)?;
        if !p2m.runs().iter().any(|run| host.memory().stores_any(run.mfn, run.len)) {
            let why = format!(
                "the dump stores none of its {} pages; makedumpfile -X leaves out all domains but dom0: cut it from the dump of the whole machine",
                p2m.pages()
            );
            return Err(Error::missing("the domain", why));
        }
        report.p2m(&p2m);
        if !p2m.translated && domain.shared_info.as_ref().is_some_and(|s| s.p2m_changing) {
            report
                .warnings
                .push("the kernel was changing the mapping of its P2M; entries of that moment may be old".into());
        }
        // A CPU that QEMU saw in a guest is known by that guest's vCPUs.
        let by_qemu = host.notes.cpus.iter().any(|c| c.qemu.is_some());
        let mut cpus =
            if by_qemu { vcpus(host, &host.domains.iter().collect::<Vec<_>>()) } else { vcpus(host, &[domain]) };
        let physical = physical_cpus(host, &cpus);
        let cpus = cpus.remove(&domain.id).unwrap_or_default();
        report.vcpus(&cpus, physical);

        progress.stage("finding the kernel", None);
        let kernel = pool.install(|| Kernel::find(host, domain, &p2m));
        let landmarks = pool.install(|| kernel.as_ref().map(Kernel::landmarks)).unwrap_or_default();
        let given = (options.vmcoreinfo.as_ref(), options.vmlinux.as_deref());
        let info = |k, given| pool.install(|| vmcoreinfo(k, host, &landmarks, given));
        let info =
            |k| info(k, given).or_else(|e| self.not_this_kernels(e, &mut report).and_then(|()| info(k, (None, None))));
        let found = kernel.as_ref().map(info).transpose()?;
        let found = report.vmcoreinfo(found);
        let find_names = |k, given| Names::find(k, found.as_ref(), given);
        let find_names = |k| {
            let given = options.symbols.as_ref();
            find_names(k, given).or_else(|e| self.not_this_kernels(e, &mut report).and_then(|()| find_names(k, None)))
        };
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
        let mut plan = pool.install(|| Plan::in_layout(layout, host, domain, &p2m, choice));
        let machine = layout.is_machine();
        if let (Layout::Native, Some(kernel), Some(names)) = (layout, &kernel, &names) {
            let (marks, doubts) = marks::find(kernel, found.as_ref(), names, &landmarks);
            report.warnings.extend(doubts);
            report.warnings.extend(plan.clear(kernel, marks));
        }
        let list = layout::frame_list_list(host, domain);
        report.plan(&plan, list);
        report.unstored(unstored(host, &plan));
        if options.strict {
            sound_pages(plan.absent.iter().map(|(why, n)| (*why, *n)))?;
        }
        let about = report::about(host, domain, &plan);
        let text = found.as_ref().map(|f| f.info.text());
        let notes = match machine {
            true => NoteBlob::machine(self.core.notes(), &host.notes.crash, list, text, &about),
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
                    cpus: if machine { host.notes.cpus.len() } else { cpus.iter().filter(|v| v.has_note()).count() }
                        as u32,
                    notes: &notes,
                    codec,
                };
                kdump::write(&walker, &header, &out, pool, *progress)?
            }
            Format::XcCore => {
                let root = kernel.as_ref().and_then(|k| p2m.mfn(k.root));
                let content = xc_core::Content::of(host, self.core.dump_core(), (domain, &p2m), (&cpus, root), &about);
                report.warnings.extend(content.doubt(&plan));
                xc_core::write(&walker, &content, &out, pool, *progress)?
            }
        };
        if options.strict {
            sound_pages(written.lost.iter().map(|(why, n)| (*why, *n)))?;
        }
        progress.stage("syncing", None);
        out.commit()?;
        report.written(options.format, written, self.machine().clone());
        Ok(report)
    }
}

/// Pages of the plan that the dump's headers tell of but the file does not store.
fn unstored(host: &Host<'_>, plan: &Plan<'_>) -> u64 {
    let map = host.memory().map();
    let of = |piece: Run| {
        let (mut at, mut sum) = (0, 0);
        while let Some(addr) = Mfn(piece.mfn.0 + at).addr().filter(|_| at < piece.len) {
            let (place, bytes) = map.find(addr);
            let pages = (bytes / PAGE_BYTES).clamp(1, piece.len - at);
            sum += if place == Place::Zeros { pages } else { 0 };
            at += pages;
        }
        sum
    };
    // Packed pages are all stored.
    if map.stores_all() { 0 } else { plan.pieces().map(of).sum() }
}

/// Pages of the domain that should be in the dump. What was left out of it on purpose, or never was in it, is no damage.
fn sound_pages(absent: impl Iterator<Item = (Absence, u64)>) -> Result<()> {
    let damaged = |why: &Absence| !matches!(why, Absence::NotInDump | Absence::Excluded);
    let all: Vec<String> =
        absent.filter(|(why, _)| damaged(why)).map(|(why, n)| format!("{n} pages: each {why}")).collect();
    if all.is_empty() { Ok(()) } else { Err(Error::Strict(all.join("; "))) }
}

/// The kernel's VMCOREINFO: the user's, the kernel's own, or one made from its vmlinux. The inner error says why none was
/// believed.
fn vmcoreinfo(
    kernel: &Kernel<'_>,
    host: &Host<'_>,
    landmarks: &Landmarks,
    (given, vmlinux): (Option<&Vmcoreinfo>, Option<&Path>),
) -> Result<Result<Found, Vec<String>>> {
    let found = note::find(kernel, host.notes.linux.as_ref(), &landmarks.notes);
    if let Some(given) = given {
        // What it does not say, the kernel's own may.
        let own = found.ok();
        let info = given.clone().or(own.as_ref().map(|f| &f.info));
        let believed = note::believe(kernel, info, "given by the user");
        let pages = own.map(|f| f.pages).unwrap_or_default();
        let wrong = |why| Error::Usage(format!("the given VMCOREINFO is not of the kernel in the dump: it {why}"));
        return believed.map(|f| Ok(Found { pages, ..f })).map_err(wrong);
    }
    match (found, vmlinux) {
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
