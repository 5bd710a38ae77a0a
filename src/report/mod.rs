//! What was kept, dropped and altered, and why: for people, for scripts, and for the note in the output.

mod text;

pub use text::size;

use crate::linux::note::Found;
use crate::options::Format;
use crate::pipeline::estimate::Estimate;
use crate::plan::Plan;
use crate::plan::layout::Layout;
use crate::plan::level::Level;
use crate::plan::selection::Selection;
use crate::plan::tables::Tally;
use crate::sink::Written;
use crate::source::{Fetched, MachineMemory};
use crate::units::{Mfn, VirtAddr};
use crate::xen::cpu::PhysicalCpu;
use crate::xen::p2m::P2mCheck;
use crate::xen::p2m::inverted::Inverted;
use crate::xen::survey::Survey;
use crate::xen::vcpu::{Vcpu, VcpuState};
use crate::xen::{Domain, Host, P2m};
use serde::Serialize;
use std::collections::BTreeMap;

/// Tables that Xen does not know which the XDUMPCUT note tells one by one.
const MOST_TOLD: usize = 256;

/// The report of a cut. Field names are what `--report json` prints; counts are pages of 4096 bytes unless said
/// otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Version of this program.
    pub version: String,
    /// What was read.
    pub source: SourceReport,
    /// The physical CPUs whose stacks the dump has.
    pub cpus: Vec<PhysicalCpu>,
    /// The domain that was cut out.
    pub domain: DomainReport,
    /// How much of the P2M was believed.
    pub p2m: P2mCheck,
    /// The dump level.
    pub level: LevelReport,
    /// Struct pages and page tables that only Linux knows.
    pub memory_map: MemoryMapReport,
    /// Page tables.
    pub tables: Tally,
    /// Words that were cleared.
    pub cleared: Vec<Cleared>,
    /// The rest of the machine, by owner.
    pub machine: Survey,
    /// The file that was written.
    pub output: OutputReport,
    /// What would be written, of a dry run.
    pub estimate: Option<Estimate>,
    /// What was doubtful or damaged.
    pub warnings: Vec<String>,
}

/// What was read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceReport {
    /// Xen's version.
    pub xen: String,
    /// Identity of the dump: a hash of its notes.
    pub id: String,
    /// Its wrappers and format, from the outside to the inside: `gzip, flattened, ELF64`.
    pub form: String,
    /// What is damaged in it, and how much of that: files, pages or bytes, as the name says.
    pub damage: BTreeMap<String, u64>,
    /// Size of what is within the wrappers, in bytes.
    pub bytes: u64,
    /// Bytes of it in holes, which read as zeros.
    pub hole_bytes: u64,
    /// How much of it was fetched over the network; only if it was given by URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetched: Option<Fetched>,
    /// Bytes that its headers promise beyond its end.
    pub cut_off_bytes: u64,
    /// Bytes that two headers claim.
    pub overlapping_bytes: u64,
    /// Where the page states stand in count_info, and how many free pages proved it.
    pub page_state_bit: u32,
    /// Free pages that proved it.
    pub page_state_votes: u64,
    /// Whether PDX and MFN are the same.
    pub pdx_linear: bool,
}

/// The domain that was cut out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DomainReport {
    /// Its id; 32756 (DOMID_INVALID) if the dump does not tell.
    pub id: u16,
    /// Its kernel's release.
    pub release: Option<String>,
    /// How its VMCOREINFO was found.
    pub vmcoreinfo: Option<String>,
    /// Its vCPUs.
    pub vcpus: Vec<VcpuReport>,
}

/// The dump level, in makedumpfile's bits.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LevelReport {
    /// What was asked for.
    pub asked: u8,
    /// What could be applied.
    pub applied: u8,
    /// Why the rest could not.
    pub reasons: Vec<String>,
}

/// Struct pages and page tables that only Linux knows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemoryMapReport {
    /// Pages kept because their struct page could not be read.
    pub unreadable: u64,
    /// Pages kept because their struct page makes no sense.
    pub odd: u64,
    /// Pages kept because they are page tables by Xen's word, or of the P2M, the VMCOREINFO or the start_info, although
    /// their struct page says that they can be left out.
    pub guarded: u64,
    /// Processes whose page tables were looked for on pgd_list.
    pub processes: u64,
}

/// A vCPU.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VcpuReport {
    /// vcpu_id.
    pub id: u32,
    /// Where its registers were.
    pub state: String,
    /// Whether Xen did not run it: brought down, not brought up, or paused with its domain.
    pub offline: bool,
    /// Whether nothing but likelihood says that these are its registers.
    pub guessed: bool,
    /// Its instruction pointer, in hex.
    pub rip: Option<String>,
    /// Its stack pointer, in hex.
    pub rsp: Option<String>,
    /// Of a translated domain (HVM, PVH): what its registers were held against.
    pub checked_by: Option<String>,
}

/// A word that was cleared.
#[derive(Clone, Debug, Serialize)]
pub struct Cleared {
    /// The variable.
    pub name: String,
    /// Its address, in hex.
    pub address: String,
    /// What it held, in hex.
    pub old: String,
    /// How it was found.
    pub found_by: String,
}

/// The file that was written.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OutputReport {
    /// Its format.
    pub format: String,
    /// Its layout: `pseudo-physical`, `machine`, or `machine-xen`.
    pub layout: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Pages of the domain, and of Xen if they stay, that readers see.
    pub pages: u64,
    /// Pages that it should have; more than it has if it is incomplete, or some could not be read.
    pub planned: u64,
    /// Of the pages that it has, those that the file holds.
    pub kept: u64,
    /// Of these, zero pages that it does not hold.
    pub zero: u64,
    /// Pages of the domain left out for what they are: `free`, `offline`, `cache`, `cache-private`, `user`, `hwpoison`.
    pub excluded: BTreeMap<String, u64>,
    /// Xen-heap pages of the domain, in the native layout put above its highest PFN.
    pub xen_heap: u64,
    /// Pages of Xen's own that stay.
    pub xen: u64,
    /// Pages of the domain that the dump does not have, by reason.
    pub absent: BTreeMap<String, u64>,
    /// Pages that stand beyond `p_filesz` of the dump and were taken for zeros.
    pub unstored: u64,
    /// Where the output is: its name, or that with `.incomplete`; the parts of a split one.
    pub files: Vec<String>,
    /// Why it ends early, if it does.
    pub incomplete: Option<String>,
    /// The digest of all pages, if it was asked for.
    pub digest: Option<String>,
    /// How many pages were read again and found to be right, if that was asked for.
    pub verified: Option<u64>,
}

impl Report {
    pub(crate) fn new(host: &Host<'_>, domain: &Domain) -> Self {
        let mut report = Self::of_input(host.memory());
        let s = &mut report.source;
        (s.xen, s.id) = (host.version(), source_id(host));
        (s.page_state_bit, s.page_state_votes) = (host.state_bits.shift(), host.state_votes);
        s.pdx_linear = host.frames.pdx().is_linear();
        report.domain.id = domain.id;
        // What was wrong with Xen comes before what was wrong with the file.
        report.warnings = host.warnings.iter().cloned().chain(report.warnings).collect();
        report
    }

    /// What the file alone tells.
    pub(crate) fn of_input(mem: &MachineMemory<'_>) -> Self {
        let source = SourceReport {
            form: mem.history().form(),
            damage: mem.history().damage.counts(),
            bytes: mem.source().len(),
            hole_bytes: mem.source().holes().total(),
            cut_off_bytes: mem.map().cut_off(),
            overlapping_bytes: mem.map().overlapping(),
            ..SourceReport::default()
        };
        let warnings = mem.history().damage.lines().map(|line| format!("damaged input: {line}")).collect();
        Self { version: env!("CARGO_PKG_VERSION").into(), source, warnings, ..Self::default() }
    }

    pub(crate) fn p2m(&mut self, p2m: &P2m) {
        self.p2m = p2m.check.clone();
        let c = &self.p2m;
        let doubts = [
            (c.not_owned, "P2M entries name frames that Xen does not give to the domain; they were left out"),
            (
                c.by_m2p_only,
                "P2M entries were believed on the M2P's word, since the dump lacks their frame table entries; page tables among them keep machine frames",
            ),
            (c.beyond_machine, "P2M entries name frames beyond the machine; they were left out"),
            (c.aliases, "P2M entries repeat a frame that the M2P gives to another PFN; they were left out"),
            (c.m2p_disagrees, "P2M entries were believed although the M2P does not confirm them"),
            (c.unreadable, "P2M entries could not be read; their pages are missing"),
        ];
        self.warnings.extend(doubts.iter().filter(|d| d.0 > 0).map(|(n, what)| format!("{n} {what}")));
        let repaired = c.repaired.iter();
        self.warnings.extend(repaired.map(|(source, n)| {
            format!("{n} P2M entries that the {} lacked, or had wrong, were taken from the {source}", c.source)
        }));
        for source in &c.refused {
            self.warnings.push(format!(
                "the {source} that the domain publishes leads nowhere; its P2M was read from the {}",
                c.source
            ));
        }
        let short = c.owned.unwrap_or(0).saturating_sub(c.believed - c.xen_heap);
        // Up to Xen 4.9 a translated domain's tables count as its own pages.
        if short > 0 && !p2m.translated {
            self.warnings.push(format!(
                "{short} pages that Xen gives to the domain have no PFN that is known; they are not in the output"
            ));
        }
        if c.source == Inverted::NAME {
            self.warnings.push(format!(
                "the domain's own P2M cannot be read; it was made up from Xen's {}, which knows no foreign frames",
                c.source
            ));
        }
    }

    pub(crate) fn vcpus(&mut self, vcpus: &[Vcpu], cpus: Vec<PhysicalCpu>) {
        self.cpus = cpus;
        self.domain.vcpus = vcpus.iter().map(VcpuReport::new).collect();
        let unknown = vcpus.iter().filter(|v| v.regs.is_none() && v.state != VcpuState::NeverRan).count();
        let guessed = vcpus.iter().filter(|v| v.guessed).count();
        if guessed > 0 {
            self.warnings.push(format!("nothing proves whose registers the CPU held that {guessed} vCPUs ran on last; the likely ones were taken"));
        }
        if vcpus.is_empty() {
            self.warnings.push("no vCPU of the domain was found; the output has no registers".into());
        } else if unknown > 0 {
            self.warnings.push(format!("{unknown} vCPUs have no registers that could be found; theirs read as 0"));
        }
    }

    pub(crate) fn vmcoreinfo(&mut self, found: Option<Result<Found, Vec<String>>>) -> Option<Found> {
        match found {
            Some(Ok(found)) => {
                self.domain.release = Some(found.uts[2].clone());
                self.domain.vmcoreinfo = Some(found.how.into());
                Some(found)
            }
            Some(Err(reasons)) if reasons.is_empty() => {
                self.warnings.push("the kernel's VMCOREINFO was not found in its memory".into());
                None
            }
            Some(Err(reasons)) => {
                let all = reasons.iter().take(4).cloned().collect::<Vec<_>>().join("; ");
                self.warnings.push(format!("no VMCOREINFO could be believed: {all}"));
                None
            }
            None => {
                self.warnings.push("no page table of the domain maps a kernel".into());
                None
            }
        }
    }

    pub(crate) fn selection(&mut self, asked: Level, choice: &Selection) {
        self.level =
            LevelReport { asked: asked.number(), applied: choice.applied.number(), reasons: choice.reasons.clone() };
        let e = &choice.excluded;
        self.memory_map =
            MemoryMapReport { unreadable: e.unreadable, odd: e.odd, guarded: e.guarded, processes: choice.processes };
        self.output.excluded = e.by_class.iter().map(|(class, n)| (class.to_string(), *n)).collect();
        if choice.applied != asked {
            let why = choice.reasons.join("; ");
            self.warnings
                .push(format!("level {asked} was asked for, but only level {} applied: {why}", choice.applied));
        }
        self.warnings.extend(choice.doubts.iter().cloned());
        let kept = [
            (e.unreadable, "pages were kept because their struct pages could not be read"),
            (e.odd, "pages were kept because their struct pages make no sense"),
            (
                e.guarded,
                "pages were kept although their struct pages say that they are free, cache or a process's: Xen knows them as page tables, or they belong to the P2M, VMCOREINFO or start_info",
            ),
        ];
        self.warnings.extend(kept.iter().filter(|k| k.0 > 0).map(|(n, what)| format!("{n} {what}")));
    }

    pub(crate) fn plan(&mut self, plan: &Plan<'_>, list: Mfn) {
        self.output.planned = plan.pages();
        self.tables = plan.tally.clone();
        self.cleared = plan
            .patches
            .iter()
            .map(|p| Cleared {
                name: p.mark.name.into(),
                address: hex(p.mark.va),
                old: format!("{:#x}", p.mark.old),
                found_by: p.mark.how.into(),
            })
            .collect();
        self.output.absent = plan.absent.iter().map(|(why, n)| (why.to_string(), *n)).collect();
        self.output.xen_heap = plan.extra.len() as u64;
        self.output.layout = plan.layout.to_string();
        self.output.xen = plan.own.pages();
        if plan.layout.is_machine() && matches!(list, Mfn(0 | u64::MAX)) {
            self.warnings.push(
                "the domain publishes no frame list, by which crash translates addresses in the machine layout: crash cannot open its kernel there; the native layout has no such need".into(),
            );
        }
        if plan.own.unknown > 0 {
            self.warnings.push(format!(
                "{} pages may be Xen's or anybody's, since the dump lacks their frame table entries; they were left out",
                plan.own.unknown
            ));
        }
        let absent: u64 = plan.absent.values().sum();
        if absent > 0 {
            self.warnings
                .push(format!("{absent} pages of the domain are missing from the dump, and so from the output"));
        }
        if self.tables.tables_absent > 0 {
            self.warnings.push(format!("{} page tables are missing from the dump", self.tables.tables_absent));
        }
        if self.tables.large > 0 {
            self.warnings.push(format!(
                "{} large-page entries, which a PV domain cannot have, were left as they were",
                self.tables.large
            ));
        }
    }

    /// Pages that ELF calls zeros, and makedumpfile excluded: only with `-d 0` or `-d 1`, and of dom0, these are the same.
    pub(crate) fn unstored(&mut self, pages: u64) {
        self.output.unstored = pages;
        if pages > 0 {
            self.warnings.push(format!(
                "{pages} pages stand beyond p_filesz in the dump and were taken for zeros, as ELF has it; if makedumpfile left them out for another reason (other domains' with -X, or a level above 1), they held data"
            ));
        }
    }

    pub(crate) fn would_be(&mut self, format: Format, estimate: Estimate, machine: Survey) {
        self.output.format = format.to_string();
        (self.output.pages, self.output.planned, self.output.zero) = (estimate.pages, estimate.pages, estimate.zero);
        self.output.bytes = estimate.bytes.get(&self.output.format).copied().unwrap_or(estimate.at_most);
        self.output.kept = estimate.pages - estimate.zero;
        self.estimate = Some(estimate);
        self.machine = machine;
    }

    pub(crate) fn written(&mut self, format: Format, written: Written, machine: Survey) {
        let out = &mut self.output;
        out.format = format.to_string();
        out.bytes = written.bytes;
        out.kept = written.stored;
        out.zero = written.zero;
        out.pages = written.stored + written.zero;
        (out.digest, out.incomplete) = (written.digest.clone(), written.incomplete.clone());
        if written.lost() > 0 {
            self.warnings.push(format!("{} pages could not be had; they are missing from the output", written.lost()));
        }
        for (why, n) in written.lost {
            *out.absent.entry(why.to_string()).or_default() += n;
        }
        self.machine = machine;
    }
}

impl VcpuReport {
    /// Describes a vCPU.
    pub fn new(v: &Vcpu) -> Self {
        let state = match v.state {
            VcpuState::Running(cpu) => format!("on CPU {cpu}"),
            VcpuState::Lazy(cpu) => format!("still on idle CPU {cpu}"),
            VcpuState::Saved => "saved".into(),
            VcpuState::NeverRan => "never ran".into(),
            VcpuState::Told => "told by Xen".into(),
            VcpuState::Vmcb => "in the VMCB only".into(),
            VcpuState::Unknown => "unknown".into(),
        };
        let hex = |n: u64| format!("{n:#x}");
        let by_vmcb = v.vmcb.map(|vmcb| match v.regs {
            Some(r) if vmcb.agrees(r.rip, r.rsp) => "the VMCB, which agrees",
            Some(_) => "the VMCB, which has others",
            None => "the VMCB",
        });
        let copies = v.control.map(|_| "nothing: its VMCS cannot be read; they are of its last exit");
        let by_qemu = v.by_qemu.then_some("QEMU, which saw the processor in the guest");
        let checked_by = by_qemu.or(by_vmcb).or(copies).map(String::from);
        Self {
            id: v.id,
            state,
            offline: v.offline,
            guessed: v.guessed,
            rip: v.regs.map(|r| hex(r.rip)),
            rsp: v.regs.map(|r| hex(r.rsp)),
            checked_by,
        }
    }
}

/// The text of the XDUMPCUT note. It holds nothing that depends on the container of the source or on its name, so that
/// cuts of the same dump are the same.
pub(crate) fn about(host: &Host<'_>, domain: &Domain, plan: &Plan<'_>) -> String {
    let t = &plan.tally;
    let mut lines = vec![
        format!("XDUMPCUT={}", env!("CARGO_PKG_VERSION")),
        format!("LAYOUT={}", plan.layout),
        format!("SOURCE_ID={}", source_id(host)),
        format!("SOURCE_XEN={}", host.version()),
        format!("DOMAIN={}", if domain.told.is_some() { "unknown".into() } else { domain.id.to_string() }),
        format!("LEVEL={}", plan.level.number()),
        format!("TABLES_REWRITTEN={}", t.tables),
        format!("ENTRIES_REWRITTEN={}", t.own + t.xen_heap + t.foreign),
        format!("ENTRIES_CLEARED={}", t.mmio_lost + t.lost + t.xen_slots),
    ];
    lines.extend(
        plan.excluded
            .by_class
            .iter()
            .map(|(class, n)| format!("EXCLUDED_{}={n}", class.to_string().to_uppercase().replace('-', "_"))),
    );
    if plan.layout != Layout::Native {
        lines.push(format!("PAGES_OF_XEN={}", plan.own.pages()));
        lines.push(String::new());
        return lines.join("\n");
    }
    lines.push(format!("TABLES_UNPINNED={}", t.tables_unpinned));
    let unpinned = plan.tables().iter().filter(|t| !t.by_xen).take(MOST_TOLD);
    lines.extend(unpinned.map(|t| format!("TABLE_UNPINNED={} level={}", t.pfn, t.level)));
    lines.extend(plan.extra.iter().map(|(mfn, pfn)| format!("XEN_HEAP_PAGE={mfn} at PFN {pfn}")));
    lines.extend(plan.patches.iter().map(|p| {
        let m = &p.mark;
        format!("CLEARED={} address={} pfn={} offset={:#x} old={:#x}", m.name, hex(m.va), p.pfn, p.at, m.old)
    }));
    lines.push(String::new());
    lines.join("\n")
}

fn source_id(host: &Host<'_>) -> String {
    format!("{:016x}", host.notes.identity)
}

fn hex(va: VirtAddr) -> String {
    format!("{:#x}", va.0)
}
