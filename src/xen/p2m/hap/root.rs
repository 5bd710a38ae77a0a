//! The root of a domain's tables, by shape.
//!
//! struct domain points to a struct p2m_domain (`arch.p2m`; Xen: asm/p2m.h) that points back and holds the root's MFN as
//! `phys_table`; before Xen 4.1 struct domain held it itself. Nested and alternative views have the same shape, so the
//! root under which the M2P confirms most is taken. A PV domain has a struct p2m_domain too, without a root; where that of
//! another domain stands behind it, only the owner of the pages tells whose the root is.

use super::entry::{Item, Kind, Types, item};
use crate::bytes::words;
use crate::units::{Mfn, PAGE_BYTES, Pfn, VirtAddr};
use crate::xen::Hypervisor;
use crate::xen::m2p::M2p;
use crate::xen::page_info::PageInfo;
use crate::xen::paging::{PSE, frame};

/// Bytes of a struct p2m_domain that are looked at; the root comes early, behind a lock.
const OBJECT: usize = 2048;
/// Leaves and tables that are tried under a root.
const MOST_LEAVES: u32 = 1024;
const MOST_TABLES: u32 = 256;

/// Where a translated domain's tables begin, and how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The L4 table.
    pub mfn: Mfn,
    /// Whose tables.
    pub kind: Kind,
    /// How types are written.
    pub types: Types,
}

/// Finds the root for the struct domain at `va`, with these bytes. `None` for a PV domain, which has no tables.
pub fn find(xen: &Hypervisor<'_>, va: VirtAddr, bytes: &[u8]) -> Option<Root> {
    let owner = xen.owner_code(va)?;
    let mut best: Option<(u32, Root)> = None;
    let mut seen = std::collections::BTreeSet::new();
    let mut look = |object: &[u8]| {
        for mfn in words(object).map(Mfn).filter(|m| (1..xen.frames.max_page()).contains(&m.0)) {
            if seen.insert(mfn)
                && let Some((confirmed, root)) = probe(xen, mfn, owner)
                && best.is_none_or(|b| confirmed > b.0)
            {
                best = Some((confirmed, root));
            }
        }
    };
    look(bytes);
    for pointer in words(bytes).filter(|p| *p >= xen.direct_map && p % 8 == 0) {
        if let Some(object) = object(xen, VirtAddr(pointer)).filter(|o| words(o).any(|w| w == va.0)) {
            look(&object);
        }
    }
    best.map(|b| b.1)
}

/// Xen's own memory from `va` on: as much of an object as can be read.
fn object(xen: &Hypervisor<'_>, va: VirtAddr) -> Option<Vec<u8>> {
    let at = xen.space.translate(va).ok()?;
    // A pointer to the domain's own memory leads to what the domain likes to be believed.
    if !may_be_table(xen, at.addr.mfn()) && !xen.frames.get(at.addr.mfn())?.is_xen_heap() {
        return None;
    }
    let page = (PAGE_BYTES - at.addr.in_page() as u64) as usize;
    [OBJECT, page.min(OBJECT)].into_iter().find_map(|len| {
        let mut bytes = vec![0; len];
        xen.space.read("struct p2m_domain", va, &mut bytes).is_ok().then_some(bytes)
    })
}

/// Whether a frame can hold one of the tables: Xen's own, or of the pool that it accounts to a domain (before Xen 4.10 with
/// the domain as owner), but not memory that was given to a domain. True if nothing is known of it.
pub(super) fn may_be_table(xen: &Hypervisor<'_>, mfn: Mfn) -> bool {
    xen.frames.get(mfn).is_none_or(|info| !info.is_allocated())
}

/// The kind of an L4 table; `None` if the page cannot be one.
fn kind(xen: &Hypervisor<'_>, entries: &[u64]) -> Option<Kind> {
    let kind = entries.iter().find_map(|e| Kind::of_upper(*e))?;
    let fits = |e: &u64| kind.is_blank(*e) || Kind::of_upper(*e) == Some(kind) && frame(*e).0 < xen.frames.max_page();
    entries.iter().all(fits).then_some(kind)
}

/// Tries a frame as root: how many leaves lead to the owner's pages, as the M2P confirms.
fn probe(xen: &Hypervisor<'_>, mfn: Mfn, owner: u64) -> Option<(u32, Root)> {
    let entries: Vec<u64> = words(&xen.memory().page(mfn).ok()?).collect();
    let kind = kind(xen, &entries).filter(|_| may_be_table(xen, mfn))?;
    let mut probe = Probe { xen, kind, owner, m2p: M2p::new(xen.space), tables: 0, leaves: 0, votes: [0; 3] };
    probe.table(mfn, 4, 0);
    let (at, votes) = probe.votes.iter().enumerate().rev().max_by_key(|v| *v.1)?;
    let types = *Types::ALL.get(at)?;
    (*votes > 0).then_some((*votes, Root { mfn, kind, types }))
}

struct Probe<'x> {
    xen: &'x Hypervisor<'x>,
    kind: Kind,
    /// What stands in `_domain` of the domain's pages.
    owner: u64,
    m2p: M2p<'x>,
    tables: u32,
    leaves: u32,
    /// Confirmed leaves by what they prove, in the order of [`Types::ALL`].
    votes: [u32; 3],
}

impl Probe<'_> {
    /// Whether a frame is the domain's. True if nothing is known of it.
    fn ours(&self, mfn: Mfn) -> bool {
        let stranger = |info: PageInfo| info.has_owner(self.xen.state_bits) && info.owner != self.owner;
        !self.xen.frames.get(mfn).is_some_and(stranger)
    }

    fn table(&mut self, mfn: Mfn, level: u32, base: u64) {
        let Ok(page) = self.xen.memory().page(mfn) else { return };
        let entries: Vec<u64> = words(&page).collect();
        for (i, entry) in (0..).zip(entries) {
            if self.leaves >= MOST_LEAVES || self.tables >= MOST_TABLES {
                return;
            }
            let gfn = base + (i << (9 * (level - 1)));
            if level > 1 && entry & PSE == 0 {
                let below = item(self.kind, Types::Since42, level, entry);
                if let Item::Table(below) = below
                    && may_be_table(self.xen, below)
                {
                    self.tables += 1;
                    self.table(below, level - 1, gfn);
                }
                continue;
            }
            let Some(types) = self.kind.proves(entry) else { continue };
            if let Item::Leaf(mfn, _) = item(self.kind, types, level, entry) {
                self.leaves += 1;
                let confirmed = self.m2p.get(mfn) == Some(Pfn(gfn)) && self.ours(mfn);
                let vote = Types::ALL.iter().zip(&mut self.votes).find(|v| *v.0 == types);
                if let Some((_, votes)) = vote.filter(|_| confirmed) {
                    *votes += 1;
                }
            }
        }
    }
}
