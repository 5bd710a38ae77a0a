//! What a dump holds, without cutting it.

use crate::error::Result;
use crate::linux::{Kernel, note};
use crate::map::Map;
use crate::pipeline::Progress;
use crate::report::{VcpuReport, size};
use crate::source::{MachineMemory, ReadAt, Vmcore};
use crate::units::PAGE_BYTES;
use crate::xen::cpu::{PhysicalCpu, cpus};
use crate::xen::survey::Survey;
use crate::xen::vcpu::vcpus;
use crate::xen::{Domain, Host, P2m};
use serde::Serialize;
use std::fmt;

/// A dump, described. Field names are what `info --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Xen.
    pub xen: XenInfo,
    /// The notes of the file, in order.
    pub notes: Vec<NoteInfo>,
    /// The physical CPUs whose stacks the dump has.
    pub cpus: Vec<PhysicalCpu>,
    /// Domains by id.
    pub domains: Vec<DomainInfo>,
    /// Pages of the machine, by owner.
    pub pages: Survey,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Bytes that its headers promise beyond its end.
    pub cut_off_bytes: u64,
    /// What was doubtful or damaged.
    pub warnings: Vec<String>,
    /// The machine's memory, drawn; only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<Map>,
}

/// The hypervisor.
#[derive(Clone, Debug, Serialize)]
pub struct XenInfo {
    /// Version, `4.17.7`.
    pub version: String,
    /// Changeset, where the build says one.
    pub changeset: String,
    /// Compiler.
    pub compiler: String,
    /// When it was built.
    pub compiled: String,
    /// Taint bits.
    pub tainted: u64,
    /// Machine address of its image, in hex.
    pub phys_start: Option<String>,
    /// Physical CPUs that left a note.
    pub cpus: usize,
    /// Where the page state stands in count_info.
    pub page_state_bit: u32,
    /// Whether PDX and MFN are the same.
    pub pdx_linear: bool,
}

/// A note.
#[derive(Clone, Debug, Serialize)]
pub struct NoteInfo {
    /// Name.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: u32,
    /// Size of its descriptor in bytes.
    pub size: usize,
}

/// A domain.
#[derive(Clone, Debug, Serialize)]
pub struct DomainInfo {
    /// Its id.
    pub id: u16,
    /// Whether it is the one that managed the hardware.
    pub hardware: bool,
    /// `PV` if it told Xen of a P2M, else `PVH or HVM`.
    pub kind: &'static str,
    /// Ordinary pages by the frame table.
    pub pages: u64,
    /// Xen-heap pages shared with it.
    pub xen_heap: u64,
    /// Release of its kernel, of the hardware domain.
    pub release: Option<String>,
    /// Its vCPUs.
    pub vcpus: Vec<VcpuReport>,
}

impl Info {
    /// Reads it.
    ///
    /// # Errors
    /// As [`crate::cut::cut`], but a domain that cannot be cut is no error.
    pub fn read(source: &dyn ReadAt) -> Result<Self> {
        Self::describe(source, None)
    }

    /// Reads it, and draws the machine's memory, for which pages are looked at.
    ///
    /// # Errors
    /// As [`Info::read`].
    pub fn read_with_map(source: &dyn ReadAt, progress: &dyn Progress) -> Result<Self> {
        Self::describe(source, Some(progress))
    }

    fn describe(source: &dyn ReadAt, map: Option<&dyn Progress>) -> Result<Self> {
        let mut core = Vmcore::parse(source)?;
        let mem = MachineMemory::new(source, core.take_segments(source.len()));
        let host = Host::open(&mem, &core).map_err(|e| e.in_file(mem.segments().cut_off))?;
        let pages = Survey::take(&host);
        let mut registers = vcpus(&host, &host.domains.iter().collect::<Vec<_>>());
        let mut warnings = host.warnings.clone();
        let hardware = host.hardware_domain().map(|d| d.id);
        let release = host.hardware_domain().and_then(|d| match release(&host, d) {
            Ok(release) => Some(release),
            Err(why) => {
                warnings.push(why);
                None
            }
        });
        let domain = |d: &Domain| DomainInfo {
            id: d.id,
            hardware: Some(d.id) == hardware,
            kind: if d.shared_info.as_ref().is_some_and(|s| s.has_p2m()) { "PV" } else { "PVH or HVM" },
            pages: pages.domains.get(&d.id).copied().unwrap_or(0),
            xen_heap: pages.xen_heap.get(&d.id).copied().unwrap_or(0),
            release: release.clone().filter(|_| Some(d.id) == hardware),
            vcpus: registers.remove(&d.id).unwrap_or_default().iter().map(VcpuReport::new).collect(),
        };
        let domains = host.domains.iter().map(domain).collect();
        let [_, changeset, compiler, date, _] = host.strings.clone();
        let note =
            |(name, kind, size): &(String, u32, usize)| NoteInfo { name: name.clone(), kind: *kind, size: *size };
        Ok(Self {
            xen: XenInfo {
                version: host.version(),
                changeset,
                compiler,
                compiled: date,
                tainted: host.notes.crash.tainted,
                phys_start: host.notes.crash.phys_start.map(|a| a.to_string()),
                cpus: host.notes.cpus.len(),
                page_state_bit: host.state_bits.shift(),
                pdx_linear: host.frames.pdx().is_linear(),
            },
            notes: host.notes.list.iter().map(note).collect(),
            cpus: cpus(&host),
            domains,
            pages,
            bytes: source.len(),
            cut_off_bytes: mem.segments().cut_off,
            warnings,
            map: map.map(|progress| Map::take(&host, progress)),
        })
    }
}

/// The release of the hardware domain's kernel, or why it is not known.
fn release(host: &Host<'_>, domain: &Domain) -> Result<String, String> {
    let p2m = P2m::read(host, domain).map_err(|e| e.to_string())?;
    let kernel = Kernel::find(host, domain, &p2m).ok_or("no page table of the hardware domain maps a kernel")?;
    let notes = kernel.landmarks().notes;
    let found = note::find(&kernel, host.notes.linux.as_ref(), &notes).map_err(|why| {
        format!("no VMCOREINFO of the hardware domain's kernel could be believed: {}", why.join("; "))
    })?;
    Ok(found.uts[2].clone())
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x = &self.xen;
        writeln!(f, "Xen {}, {} physical CPUs", x.version, x.cpus)?;
        writeln!(f, "  built {} with {}", x.compiled, x.compiler)?;
        if !x.changeset.is_empty() {
            writeln!(f, "  changeset {}", x.changeset)?;
        }
        writeln!(
            f,
            "  image at {}, tainted {:#x}",
            x.phys_start.as_deref().unwrap_or("an unknown address"),
            x.tainted
        )?;
        let pdx = if x.pdx_linear { "the MFN" } else { "compressed" };
        writeln!(f, "  page state in count_info from bit {}, PDX is {pdx}", x.page_state_bit)?;
        writeln!(f, "notes")?;
        for n in &self.notes {
            writeln!(f, "  {:<16} type {:#x}, {} bytes", n.name, n.kind, n.size)?;
        }
        writeln!(f, "physical CPUs")?;
        self.cpus.iter().try_for_each(|cpu| writeln!(f, "  {cpu}"))?;
        writeln!(f, "domains")?;
        for d in &self.domains {
            let hardware = if d.hardware { ", hardware domain" } else { "" };
            let release = d.release.as_ref().map(|r| format!(", Linux {r}")).unwrap_or_default();
            writeln!(
                f,
                "  {}: {}{hardware}{release}, {} pages ({}), {} Xen-heap pages",
                d.id,
                d.kind,
                d.pages,
                size(d.pages * PAGE_BYTES),
                d.xen_heap
            )?;
            for v in &d.vcpus {
                let at = v.rip.as_ref().map(|rip| format!(", rip {rip}")).unwrap_or_default();
                writeln!(f, "    vCPU {}: {}{at}", v.id, v.state)?;
            }
        }
        let p = &self.pages;
        writeln!(f, "pages of the machine{}", if p.exact { "" } else { ", estimated from a sample" })?;
        let domains: u64 = p.domains.values().chain(p.xen_heap.values()).sum();
        let rows = [
            ("domains", domains),
            ("free", p.free),
            ("Xen", p.xen),
            ("I/O and low memory", p.io),
            ("offline", p.offline),
            ("of no known domain", p.unknown_owner),
            ("without an entry", p.no_entry),
        ];
        for (name, n) in rows.into_iter().filter(|r| r.1 > 0) {
            writeln!(f, "  {name:<20}{n:>12} {:>12}", size(n * PAGE_BYTES))?;
        }
        if self.cut_off_bytes > 0 {
            writeln!(f, "the dump is cut short: {} are missing at its end", size(self.cut_off_bytes))?;
        }
        self.warnings.iter().try_for_each(|w| writeln!(f, "warning: {w}"))
    }
}
