//! What a dump holds, without cutting it.

use crate::error::Result;
use crate::linux::{Kernel, note, own_list, toolstack};
use crate::map::Map;
use crate::pipeline::Progress;
use crate::report::{VcpuReport, size};
use crate::source::ReadAt;
use crate::units::PAGE_BYTES;
use crate::xen::alone::number;
use crate::xen::cpu::PhysicalCpu;
use crate::xen::notes::Origin;
use crate::xen::p2m::inverted::Inverted;
use crate::xen::p2m::{Help, Owned, P2mCheck};
use crate::xen::survey::Survey;
use crate::xen::vcpu::{physical_cpus, vcpus};
use crate::xen::{Domain, Host, P2m, XenSyms};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

/// A dump, described. Field names are what `info --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// The file's wrappers and format, from the outside to the inside: `gzip, flattened, ELF64`.
    pub form: String,
    /// What is damaged in it, and how much of that.
    pub damage: BTreeMap<String, u64>,
    /// The same for people, a line each, with details.
    pub damage_lines: Vec<String>,
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
    /// Taint bits, if they are known.
    pub tainted: Option<u64>,
    /// Where all this comes from: the dump's notes, its memory, or its memory with xen-syms.
    pub found_by: Origin,
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
    /// Its id; 32756 (DOMID_INVALID) if the dump does not tell.
    pub id: u16,
    /// The name that dom0's toolstack gave it, if that is still in dom0's page cache.
    pub name: Option<String>,
    /// Whether it is the one that managed the hardware.
    pub hardware: bool,
    /// `PV`, or `PVH or HVM` for a translated one.
    pub kind: &'static str,
    /// Ordinary pages by the frame table.
    pub pages: u64,
    /// Xen-heap pages shared with it.
    pub xen_heap: u64,
    /// Release of its kernel.
    pub release: Option<String>,
    /// Its P2M: from where, and how much of it was believed; nothing if there is none.
    pub p2m: Option<P2mCheck>,
    /// Its vCPUs.
    pub vcpus: Vec<VcpuReport>,
}

impl Info {
    /// Reads it.
    ///
    /// # Errors
    /// As [`crate::cut::cut`], but a domain that cannot be cut is no error.
    pub fn read(source: &dyn ReadAt) -> Result<Self> {
        Self::read_with(source, None, None)
    }

    /// The same with the `xen-syms` of the host; with `map`, which hears of the work, it also draws the machine's memory, for
    /// which pages are looked at.
    ///
    /// # Errors
    /// As [`Self::read`], and [`crate::Error::Usage`] for a `xen-syms` of another build.
    pub fn read_with(source: &dyn ReadAt, syms: Option<&XenSyms>, map: Option<&dyn Progress>) -> Result<Self> {
        let (core, mem) = crate::source::read(source)?;
        let host = Host::open_with(&mem, &core, syms).map_err(|e| e.of_damaged(&mem.history().damage))?;
        let pages = Survey::take(&host);
        let mut registers = vcpus(&host, &host.domains.iter().collect::<Vec<_>>());
        let physical = physical_cpus(&host, &registers);
        let mut warnings = host.warnings.clone();
        let hardware = host.hardware_domain().map(|d| d.id);
        let inverted = OnceLock::new();
        let p2m = |d: &Domain| {
            let owned = pages.domains.get(&d.id).map(|n| Owned { pages: *n, exact: pages.exact });
            let all = || Inverted::of_all(&host);
            let inverted = || inverted.get_or_init(all).get(&d.id).unwrap_or(Inverted::NOTHING);
            own_list::read(&host, d, None, &Help { own: None, owned, inverted: &inverted })
        };
        let first = host.hardware_domain().map(|d| (d.id, p2m(d)));
        let of_dom0 = first.as_ref().and_then(|(_, p2m)| p2m.as_ref().ok());
        let names = of_dom0.map(|p2m| toolstack::names(host.memory(), p2m)).unwrap_or_default();
        let mut first = first;
        let mut domains = Vec::new();
        for d in &host.domains {
            // One at a time: each takes memory.
            let p2m = match first.take_if(|(id, _)| *id == d.id) {
                Some((_, p2m)) => p2m,
                None => p2m(d),
            };
            let p2m = match &p2m {
                Ok(p2m) => Some(p2m),
                Err(e) => {
                    warnings.push(e.to_string());
                    None
                }
            };
            let release = p2m.and_then(|p2m| match release(&host, d, p2m) {
                Ok(release) => Some(release),
                Err(why) => {
                    warnings.push(format!("domain {}: {why}", d.id));
                    None
                }
            });
            let translated = p2m.map_or_else(|| d.may_be_translated(), |p2m| p2m.translated);
            domains.push(DomainInfo {
                id: d.id,
                name: toolstack::name_of(d, &names).map(String::from),
                hardware: Some(d.id) == hardware,
                kind: if translated { "PVH or HVM" } else { "PV" },
                pages: pages.domains.get(&d.id).copied().unwrap_or(0),
                xen_heap: pages.xen_heap.get(&d.id).copied().unwrap_or(0),
                release,
                p2m: p2m.map(|p2m| p2m.check.clone()),
                vcpus: registers.remove(&d.id).unwrap_or_default().iter().map(VcpuReport::new).collect(),
            });
        }
        let map = map.map(|progress| {
            Map::take(&host, progress).named(|id| domains.iter().find(|d| d.id == id)?.name.as_deref())
        });
        let [_, changeset, compiler, date, _] = host.strings.clone();
        let note =
            |(name, kind, size): &(String, u32, usize)| NoteInfo { name: name.clone(), kind: *kind, size: *size };
        Ok(Self {
            form: mem.history().form(),
            damage: mem.history().damage.counts(),
            damage_lines: mem.history().damage.lines().collect(),
            xen: XenInfo {
                version: host.version(),
                changeset,
                compiler,
                compiled: date,
                tainted: host.notes.crash.tainted,
                found_by: host.notes.origin,
                phys_start: host.notes.crash.phys_start.map(|a| a.to_string()),
                cpus: host.notes.cpus.len(),
                page_state_bit: host.state_bits.shift(),
                pdx_linear: host.frames.pdx().is_linear(),
            },
            notes: host.notes.list.iter().map(note).collect(),
            cpus: physical,
            domains,
            pages,
            bytes: source.len(),
            cut_off_bytes: mem.map().cut_off(),
            warnings,
            map,
        })
    }
}

/// The release of a domain's kernel, or why it is not known.
fn release(host: &Host<'_>, domain: &Domain, p2m: &P2m) -> Result<String, String> {
    let kernel = Kernel::find(host, domain, p2m).ok_or("no page table maps a kernel")?;
    let notes = kernel.landmarks().notes;
    let found = note::find(&kernel, host.notes.linux.as_ref(), &notes)
        .map_err(|why| format!("no VMCOREINFO of its kernel could be believed: {}", why.join("; ")))?;
    Ok(found.uts[2].clone())
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x = &self.xen;
        writeln!(f, "Xen {}, {} physical CPUs", x.version, x.cpus)?;
        writeln!(f, "  in a file of {}, {}", size(self.bytes), self.form)?;
        if x.found_by == Origin::DumpCore {
            writeln!(f, "  a domain alone, without Xen's memory")?;
        }
        if !x.compiler.is_empty() || x.found_by != Origin::DumpCore {
            writeln!(f, "  built {} with {}", x.compiled, x.compiler)?;
        }
        if !x.changeset.is_empty() {
            writeln!(f, "  changeset {}", x.changeset)?;
        }
        if x.found_by != Origin::DumpCore {
            let at = x.phys_start.as_deref().unwrap_or("an unknown address");
            writeln!(f, "  image at {at}{}", x.tainted.map(|t| format!(", tainted {t:#x}")).unwrap_or_default())?;
        }
        let some = self.notes.iter().any(|n| matches!(n.name.as_str(), "Xen" | "VMCOREINFO_XEN"));
        let lack = if some { "not all notes of Xen's" } else { "no notes of Xen's" };
        match x.found_by {
            Origin::Notes | Origin::DumpCore => {}
            Origin::XenSyms => writeln!(f, "  {lack}; found in memory with xen-syms")?,
            Origin::Memory => writeln!(f, "  {lack}; found in memory")?,
        }
        if x.found_by != Origin::DumpCore {
            let pdx = if x.pdx_linear { "the MFN" } else { "compressed" };
            writeln!(f, "  page state in count_info from bit {}, PDX is {pdx}", x.page_state_bit)?;
        }
        writeln!(f, "notes")?;
        for n in &self.notes {
            writeln!(f, "  {:<16} type {:#x}, {} bytes", n.name, n.kind, n.size)?;
        }
        writeln!(f, "physical CPUs")?;
        self.cpus.iter().try_for_each(|cpu| writeln!(f, "  {cpu}"))?;
        writeln!(f, "domains")?;
        for d in &self.domains {
            let hardware = if d.hardware { ", hardware domain" } else { "" };
            let name = d.name.as_ref().map(|n| format!(" {n}")).unwrap_or_default();
            let release = d.release.as_ref().map(|r| format!(", Linux {r}")).unwrap_or_default();
            writeln!(
                f,
                "  {}{name}: {}{hardware}{release}, {} pages ({}), {} Xen-heap pages",
                number(d.id),
                d.kind,
                d.pages,
                size(d.pages * PAGE_BYTES),
                d.xen_heap
            )?;
            if let Some(p2m) = &d.p2m {
                writeln!(f, "    {p2m}")?;
            }
            for v in &d.vcpus {
                let at = v.rip.as_ref().map(|rip| format!(", rip {rip}")).unwrap_or_default();
                let offline = if v.offline { ", offline" } else { "" };
                let guessed = if v.guessed { ", likely" } else { "" };
                writeln!(f, "    vCPU {}: {}{offline}{guessed}{at}", v.id, v.state)?;
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
        self.damage_lines.iter().try_for_each(|line| writeln!(f, "damaged input: {line}"))?;
        self.warnings.iter().try_for_each(|w| writeln!(f, "warning: {w}"))
    }
}
