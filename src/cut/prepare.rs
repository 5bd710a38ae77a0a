//! Everything about a cut that is decided before a page is written.

use super::{Cutter, Input, sound_pages};
use crate::error::{Error, Result};
use crate::linux::kernel::Landmarks;
use crate::linux::names::Names;
use crate::linux::{Found, Kernel, marks, note};
use crate::options::Format;
use crate::plan::Plan;
use crate::plan::layout::{self, Layout};
use crate::plan::selection::{Known, Selection};
use crate::recut::told;
use crate::report::{self, Report};
use crate::sink::Facts;
use crate::sink::elf::Window;
use crate::sink::notes::NoteBlob;
use crate::sink::xc_core::Content;
use crate::source::container::Place;
use crate::units::{Mfn, PAGE_BYTES, Pfn, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;
use crate::xen::p2m::Run;
use crate::xen::vcpu::{physical_cpus, vcpus};
use crate::xen::{Domain, Host, P2m};
use std::path::Path;

/// A cut that only has to be written.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// The pages.
    pub plan: Plan<'a>,
    /// What the headers say.
    pub facts: Facts,
    /// What is known before the pages are read.
    pub report: Report,
}

impl Cutter<'_> {
    /// Decides everything about the cut of a domain, of which this is the P2M, before anything is written.
    pub(super) fn prepare<'d>(&'d self, domain: &'d Domain, p2m: &'d P2m) -> Result<Prepared<'d>> {
        let host = self.host;
        let Input { options, crew, progress, .. } = self.input;
        let layout = options.format.layout(options.layout)?;
        if host.alone().is_some() && layout.is_machine() {
            let why = "the machine layout is for dumps of a whole host; this one is of a domain alone";
            return Err(Error::Usage(why.into()));
        }
        let mut report = Report::new(host, domain);
        if !p2m.runs().iter().any(|run| host.memory().stores_any(run.mfn, run.len)) {
            let why = format!(
                "the dump stores none of its {} pages; makedumpfile -X leaves out all domains but dom0: cut it from the dump of the whole machine",
                p2m.pages()
            );
            return Err(Error::missing("the domain", why));
        }
        report.p2m(p2m);
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
        let kernel = crew.install(|| Kernel::find(host, domain, p2m));
        let landmarks = crew.install(|| kernel.as_ref().map(Kernel::landmarks)).unwrap_or_default();
        let given = (options.vmcoreinfo.as_ref(), options.vmlinux.as_deref());
        let info = |k, given| crew.install(|| vmcoreinfo(k, host, &landmarks, given));
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
        let ordered = layout == Layout::Native && matches!(options.format, Format::Kdump(_));
        let known =
            Known { kernel: kernel.as_ref(), found: found.as_ref(), names: names.as_ref(), landmarks: &landmarks };
        let choice = crew.install(|| Selection::make(&known, p2m, options.level, ordered));
        report.selection(options.level, &choice);
        if let Some(why) = choice.shortfall(options.level).filter(|_| options.require_level) {
            return Err(Error::Level(format!("level {} cannot be applied in full: {why}", options.level)));
        }

        progress.stage("reading page tables", None);
        let mut plan = crew.install(|| Plan::in_layout(layout, host, domain, p2m, choice));
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
        let base = layout::direct_map(kernel.as_ref());
        let mut windows = vec![Window { base: VirtAddr(base), first: Pfn(0), end: plan.end() }];
        // Its frames need not run along with its addresses.
        if let Some((base, first, end)) = kernel.as_ref().filter(|_| !machine).and_then(Kernel::image_window) {
            windows.push(Window { base, first, end });
        }
        let uts = found.as_ref().map(|f| f.uts.clone()).unwrap_or_else(unknown_uts);
        let phys_base = found.as_ref().and_then(|f| f.info.number("phys_base")).unwrap_or(0);
        let about = report::about(host, domain, &plan);
        let text = found.as_ref().map(|f| f.info.text());
        let digest = options.digest;
        let notes = match machine {
            true => NoteBlob::machine(self.core.notes(), &host.notes.crash, list, text, &about, digest),
            false => {
                let about = about + &told::lines(&windows, &uts, phys_base, plan.known());
                NoteBlob::new(&cpus, text, kernel.as_ref().map(|k| k.root), &about, digest)
            }
        };
        let core = (options.format == Format::XcCore).then(|| {
            let root = kernel.as_ref().and_then(|k| p2m.mfn(k.root));
            let about = report::about(host, domain, &plan);
            Content::of(host, self.core.dump_core(), (domain, p2m), (&cpus, root), &about)
        });
        report.warnings.extend(core.as_ref().and_then(|content| content.doubt(&plan)));
        let with_notes = cpus.iter().filter(|v| v.has_note()).count();
        let cpus = if machine { host.notes.cpus.len() } else { with_notes } as u32;
        let facts = Facts { notes, windows, uts, phys_base, cpus, core };
        Ok(Prepared { plan, facts, report })
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
