//! What is taken from the fixture: where its structures are, and pages of each kind.

use super::Result;
use std::collections::BTreeMap;
use std::path::Path;
use xdump_cut::linux::mm::Class;
use xdump_cut::linux::names::Names;
use xdump_cut::linux::{Kernel, note};
use xdump_cut::plan::level::Level;
use xdump_cut::plan::selection::{Known, Selection};
use xdump_cut::source::{self, OpenOptions, ReadAt};
use xdump_cut::units::{MachineAddr, Mfn, PAGE_BYTES, PAGE_SIZE, Page, VirtAddr};
use xdump_cut::xen::page_info::PageState;
use xdump_cut::xen::{Domain, Host, P2m};
use xdump_cut::zero::is_zero;

/// Bytes of an entry of the frame table.
pub(crate) const INFO: usize = 32;
/// One of them.
pub(crate) type Info = [u8; INFO];

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The page cache.
    Cache,
    /// A process's.
    User,
    /// The kernel's: its image, heap, stacks and tables.
    Kernel,
}

/// A PV domain.
#[derive(Clone, Debug)]
pub(crate) struct Pv {
    /// What stands in `_domain` of its frames.
    pub(crate) owner: u64,
    /// Machine addresses of its struct domain and its shared info.
    pub(crate) domain: u64,
    pub(crate) shared_info: u64,
    pub(crate) max_pfn: u64,
    /// The top of its P2M's tree.
    pub(crate) top: u64,
}

/// A fixture, read.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) source: Box<dyn ReadAt>,
    /// The L4 table of Xen.
    pub(crate) root: u64,
    pub(crate) direct_map: u64,
    pub(crate) frame_table: u64,
    /// Machine address of the variable.
    pub(crate) max_page: u64,
    /// Where `next_in_list` stands in struct domain.
    pub(crate) next_at: u64,
    /// Entries of the frame table, as most frames of their kind have them, without links.
    pub(crate) xens: Info,
    pub(crate) free: Info,
    pub(crate) domains: Info,
    /// PV domains in order; the first is dom0.
    pub(crate) pv: Vec<Pv>,
    /// `struct domain` of the last of the list.
    pub(crate) last: u64,
    pub(crate) last_id: u16,
    pub(crate) dom0_pages: u64,
    /// L4 tables of dom0's.
    pub(crate) roots: Vec<u64>,
    /// Pages of dom0's that are not zeros.
    pub(crate) pages: BTreeMap<Kind, Vec<Page>>,
}

impl Fixture {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let source = source::open(path, &OpenOptions::default())?;
        let (core, mem) = source::read(&*source)?;
        let host = Host::open(&mem, &core)?;
        let dom0 = host.hardware_domain().ok_or("no dom0")?;
        let p2m = P2m::read(&host, dom0)?;
        if p2m.translated || !host.frames.pdx().is_linear() {
            return Err("dom0 is not PV, or PDX are not MFNs: such a machine cannot be grown".into());
        }
        let machine =
            |va: u64| host.space.translate(VirtAddr(va)).map(|m| m.addr.0).map_err(|e| format!("{va:#x}: {e}"));
        let symbol = |name| host.notes.symbol(name).map(|va| va.0).ok_or(format!("no {name}"));
        let info = &host.notes.info;
        if info.size("page_info") != Some(INFO as u64) || info.offset("page_info.count_info") != Some(8) {
            return Err("page_info is not that of Xen 4.0 and later".into());
        }
        let frame_table = host.notes.variable(&host.space, "frame_table")?;
        let entry = |mfn: u64| -> Result<Info> {
            let mut entry = [0; INFO];
            host.space.read("the frame table", VirtAddr(frame_table + mfn * INFO as u64), &mut entry)?;
            Ok(entry)
        };
        // What most of these have, but for what differs from frame to frame: links, and the time stamp.
        let usual = |frames: &mut dyn Iterator<Item = u64>| -> Result<Info> {
            let mut seen: BTreeMap<Info, u64> = BTreeMap::new();
            for mfn in frames {
                let mut entry = entry(mfn)?;
                entry[..8].fill(0xff);
                entry[28..].fill(0);
                *seen.entry(entry).or_default() += 1;
            }
            Ok(*seen.iter().max_by_key(|s| s.1).ok_or("no frame of some kind")?.0)
        };
        let max_page = host.frames.max_page();
        let mut frames = host.frames.cursor();
        let is_free = |info: xdump_cut::xen::page_info::PageInfo| info.state(host.state_bits) == PageState::Free;
        let mut free = (0..max_page).filter(|mfn| frames.look(Mfn(*mfn)).info().is_some_and(is_free));
        let mut own = p2m.runs().iter().flat_map(|r| r.mfn.0..r.mfn.0 + r.len);
        let mut xens = (machine(frame_table)? / PAGE_BYTES..).take(1);
        let pv = |d: &Domain| -> Result<Option<Pv>> {
            let Some(shared) = d.shared_info.as_ref().filter(|s| s.has_p2m()) else { return Ok(None) };
            Ok(Some(Pv {
                owner: d.owner_code,
                domain: machine(d.va.0)?,
                shared_info: shared.mfn.0 * PAGE_BYTES,
                max_pfn: shared.max_pfn,
                top: shared.frame_list_list.0,
            }))
        };
        let all: Result<Vec<Option<Pv>>> = host.domains.iter().map(pv).collect();
        let last = host.domains.last().ok_or("no domain")?;
        Ok(Self {
            root: host.space.root().0,
            direct_map: host.direct_map,
            frame_table,
            max_page: machine(symbol("max_page")?)?,
            next_at: info.offset("domain.next_in_list").ok_or("no next_in_list")?,
            xens: usual(&mut xens)?,
            free: usual(&mut free)?,
            domains: usual(&mut own)?,
            pv: all?.into_iter().flatten().collect(),
            last: machine(last.va.0)?,
            last_id: last.id,
            dom0_pages: p2m.pages(),
            roots: p2m.tables.iter().filter(|t| t.1 == 4).filter_map(|t| p2m.mfn(t.0)).map(|mfn| mfn.0).collect(),
            pages: pages(&host, dom0, &p2m)?,
            // The other one is lent to what was read.
            source: source::open(path, &OpenOptions::default())?,
        })
    }
}

/// dom0's pages that are not zeros, by what its kernel uses them for.
fn pages(host: &Host<'_>, dom0: &Domain, p2m: &P2m) -> Result<BTreeMap<Kind, Vec<Page>>> {
    let kernel = Kernel::find(host, dom0, p2m).ok_or("no kernel in dom0")?;
    let landmarks = kernel.landmarks();
    let found = note::find(&kernel, host.notes.linux.as_ref(), &landmarks.notes).map_err(|e| e.join("; "))?;
    let names = Names::find(&kernel, Some(&found), None)?;
    let known = Known { kernel: Some(&kernel), found: Some(&found), names: Some(&names), landmarks: &landmarks };
    let of = |classes: &[Class]| {
        let level = (0..32).filter_map(Level::new).find(|l| {
            Class::ALL
                .iter()
                .all(|c| *c == Class::HwPoison || *c == Class::Offline || l.drops(*c) == classes.contains(c))
        });
        let choice = Selection::make(&known, p2m, level.unwrap_or(Level::NOTHING), false);
        choice.excluded.pages
    };
    let cache = of(&[Class::Cache, Class::CachePrivate]);
    let user = of(&[Class::User]);
    let free = of(&[Class::Free]);
    let mut pages: BTreeMap<Kind, Vec<Page>> = BTreeMap::new();
    for pfn in p2m.runs().iter().flat_map(|r| r.pfn.0..r.pfn.0 + r.len).filter(|pfn| !free.get(*pfn)) {
        let kind = match () {
            () if cache.get(pfn) => Kind::Cache,
            () if user.get(pfn) => Kind::User,
            () => Kind::Kernel,
        };
        let mut page = [0; PAGE_SIZE];
        let addr = p2m.mfn(xdump_cut::units::Pfn(pfn)).and_then(Mfn::addr).ok_or("a frame beyond all")?;
        host.memory().need("a page", MachineAddr(addr.0), &mut page)?;
        if !is_zero(&page) {
            pages.entry(kind).or_default().push(page);
        }
    }
    Ok(pages)
}
