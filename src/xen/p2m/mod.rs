//! A domain's P2M: which frame is behind each of its PFNs.
//!
//! A translated domain (HVM, PVH) has tables that its hardware walks ([`hap`]). A PV domain publishes it in up to two
//! ways, a tree ([`tree`]) and a linear list ([`linear`]), and its kernel knows where its own list is, published or not
//! ([`OwnList`]). For all of them Xen's M2P gives it the other way round ([`inverted`]). Each of them is a
//! [`source::Source`] of raw entries: `~0` for a hole, bit 63 for a foreign frame (mapped from another domain), bit 62 for
//! an identity (MMIO), else an MFN.
//!
//! Nothing in them is believed unseen: the domain can write what it likes, and so can damage. Each entry is held against the
//! frame's owner and the M2P; what one source lost is taken from the next.

mod build;
pub mod hap;
pub mod inverted;
pub mod linear;
pub mod source;
mod told;
pub mod tree;

use super::Domain;
use super::host::Host;
use super::page_info::TypeBits;
use crate::error::{Error, Result};
use crate::units::{Mfn, Pfn, VirtAddr};
use build::Builder;
use hap::Hap;
use inverted::Inverted;
use linear::Linear;
use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use tree::{CAPACITY, Tree};

/// Name of the linear list that a domain publishes.
const LINEAR: &str = "linear list";
/// Pages by which an estimate may be wrong, besides an eighth of it.
const MARGIN: u64 = 1 << 16;

/// PFNs that are believed on a machine of any size: 4 GiB of them.
const LEAST_BOUND: u64 = 1 << 20;
/// And on none, whatever it says of itself: 32 TiB of them. Xen supports 16 TiB.
const MOST_BOUND: u64 = 1 << 33;

/// No domain has PFNs from here on, whatever it tells: what it has is laid out as the machine is, with what stood in its
/// holes moved behind it.
fn bound(host: &Host<'_>) -> u64 {
    host.frames.max_page().max(LEAST_BOUND).saturating_mul(2).min(MOST_BOUND)
}

/// A run of PFNs whose MFNs run along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First PFN.
    pub pfn: Pfn,
    /// Its MFN.
    pub mfn: Mfn,
    /// Number of pages.
    pub len: u64,
}

/// How much of the P2M was believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct P2mCheck {
    /// Entries of ordinary memory that were believed.
    pub believed: u64,
    /// Of these, entries that the M2P confirms.
    pub m2p_agrees: u64,
    /// Believed because Xen says that the domain owns the frame, though the M2P says another PFN or nothing.
    pub m2p_disagrees: u64,
    /// Believed on the M2P's word alone, since the dump lacks the frame table's entry. A page table among them is not
    /// known as one.
    pub by_m2p_only: u64,
    /// Not believed: the frame is free or another domain's, or Xen's.
    pub not_owned: u64,
    /// Not believed: the frame's number is beyond the machine, or the PFN beyond what a domain of it can have.
    pub beyond_machine: u64,
    /// Not believed: a second PFN for a frame whose first one the M2P names (balloon scratch pages of old kernels), or a
    /// page of the tree that stands in it more than a few times.
    pub aliases: u64,
    /// Frames of other domains, mapped into this one.
    pub foreign: u64,
    /// Identity entries: MMIO and firmware ranges.
    pub identity: u64,
    /// Entries that could not be read, because a page of the tree is not in the dump or not the domain's; or not checked,
    /// because neither the frame table nor the M2P has the frame.
    pub unreadable: u64,
    /// Ordinary pages that the domain owns by the frame table, if all of that was counted.
    pub owned: Option<u64>,
    /// Xen-heap pages among the believed ones, which a translated domain has in its P2M.
    pub xen_heap: u64,
    /// Sources that the domain publishes, but that lead nowhere.
    pub refused: Vec<&'static str>,
    /// Where most of it was read.
    pub source: &'static str,
    /// Believed entries that it lacked, by the source that had them.
    pub repaired: BTreeMap<&'static str, u64>,
}

impl std::fmt::Display for P2mCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "P2M: {} entries from the {}, {} confirmed by the M2P", self.believed, self.source, self.m2p_agrees)?;
        if let Some(owned) = self.owned {
            write!(f, ", of {owned} pages that it owns")?;
        }
        let rest = [
            (self.m2p_disagrees, "not confirmed"),
            (self.by_m2p_only, "by the M2P's word alone"),
            (self.foreign, "foreign"),
            (self.identity, "identity"),
            (self.not_owned, "not its own"),
            (self.beyond_machine, "beyond the machine"),
            (self.aliases, "repeated"),
            (self.unreadable, "unreadable"),
        ];
        rest.iter().filter(|r| r.0 > 0).try_for_each(|(n, what)| write!(f, "; {n} {what}"))?;
        self.repaired.iter().try_for_each(|(source, n)| write!(f, "; {n} repaired from the {source}"))
    }
}

/// A P2M that the kernel keeps for itself: an array of all entries in its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnList {
    /// Root table of the address space.
    pub root: Mfn,
    /// Where the array begins.
    pub base: VirtAddr,
    /// Number of its entries.
    pub end: u64,
    /// Name of the variable that tells.
    pub name: &'static str,
}

/// Ordinary pages that a domain owns by the frame table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// How many.
    pub pages: u64,
    /// Whether all were counted; otherwise they are an estimate.
    pub exact: bool,
}

impl Owned {
    /// How many the domain's P2M must have at least.
    fn least(&self) -> u64 {
        if self.exact { self.pages } else { (self.pages - self.pages / 8).saturating_sub(MARGIN) }
    }
}

/// What else is known when a P2M is read.
#[derive(Clone, Copy)]
pub struct Help<'i> {
    /// A list that the kernel did not publish.
    pub own: Option<OwnList>,
    /// How many ordinary pages the domain owns, if the frame table was counted.
    pub owned: Option<Owned>,
    /// The way to the inverted M2P, which is costly.
    pub inverted: &'i (dyn Fn() -> &'i Inverted + Sync),
}

impl std::fmt::Debug for Help<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Help").field("own", &self.own).field("owned", &self.owned).finish_non_exhaustive()
    }
}

/// The P2M, as runs.
#[derive(Clone, Debug, Default)]
pub struct P2m {
    runs: Vec<Run>,
    by_mfn: Vec<Run>,
    /// PFNs of foreign frames, by MFN.
    foreign: Vec<(Mfn, Pfn)>,
    /// The end that the domain told Xen, if a domain of this machine can have that many.
    told_end: Pfn,
    /// Live page tables among the pages, by PFN: level 1 to 4.
    pub tables: Vec<(Pfn, u8)>,
    /// The pages that the tree itself names, those of holes beyond the end too; not all of them are the domain's.
    pub tree: BTreeSet<Mfn>,
    /// Width of the type field, as the domain's own pages prove it.
    pub type_bits: Option<TypeBits>,
    /// Whether the domain is a translated one (HVM, PVH), whose page tables hold PFNs.
    pub translated: bool,
    /// Whether nothing types pages, so that [`Self::tables`] has only what the vCPUs' root tables lead to.
    pub by_walk: bool,
    /// How much of it was believed.
    pub check: P2mCheck,
}

impl P2m {
    /// Reads and checks the P2M of `domain`.
    ///
    /// # Errors
    /// [`Error::Missing`] if no source has anything.
    pub fn read(host: &Host<'_>, domain: &Domain) -> Result<Self> {
        let made = OnceLock::new();
        let inverted = || made.get_or_init(|| Inverted::read(host, domain));
        Self::read_with(host, domain, &Help { own: None, owned: None, inverted: &inverted })
    }

    /// The same with what else is known.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_with(host: &Host<'_>, domain: &Domain, help: &Help<'_>) -> Result<Self> {
        if let Some(all) = &domain.told {
            return told::read(host, domain, all);
        }
        let shared = domain.shared_info.as_ref();
        let told = shared.map_or(0, |s| s.max_pfn);
        let mut refused = Vec::new();
        let mut tops = tree::tops(host, domain).peekable();
        let published = tops.peek().is_some();
        let mut opened = tops.enumerate().filter_map(|(n, top)| Some((n, Tree::open(host, domain, top, told)?)));
        let tree = opened.next();
        if published && tree.as_ref().is_none_or(|(n, _)| *n > 0) {
            refused.push(tree::NAME);
        }
        let tree = tree.map(|t| t.1);
        let told_list = shared.filter(|s| s.p2m_cr3.0 != 0);
        let list = told_list.and_then(|s| Linear::open(host, domain, (s.p2m_cr3.mfn(), s.p2m_vaddr), told, LINEAR));
        if told_list.is_some() && list.is_none() {
            refused.push(LINEAR);
        }
        let own = help.own.and_then(|o| Linear::open(host, domain, (o.root, o.base), o.end, o.name));
        let tree = tree.as_ref().map(|t| t as &dyn Source);
        let list = list.as_ref().map(|l| l as &dyn Source);
        let own = own.as_ref().map(|l| l as &dyn Source);
        // The tree ends at 2^27 PFNs; what lies beyond is in a list only.
        let sources = if told > CAPACITY { [list, own, tree] } else { [tree, list, own] };
        // What a translated domain writes into its shared info means nothing to Xen.
        let hap = domain.hap.map(|root| Hap::new(host, root));
        let sources = hap.as_ref().map_or(sources, |h| [Some(h as &dyn Source), None, None]);
        let mut sources = sources.into_iter().flatten();
        let first = sources.next();
        let mut builder = Builder::new(host, domain, first.map_or(Inverted::NAME, Source::name), told);
        builder.begin(first.unwrap_or_else(|| (help.inverted)()));
        for other in sources {
            builder.repair(other);
        }
        if builder.lacks(help.owned.map_or(0, |o| o.least())) && first.is_some() {
            builder.complete((help.inverted)());
        }
        let mut p2m = builder.finish();
        p2m.check.owned = help.owned.filter(|o| o.exact).map(|o| o.pages);
        if hap.is_none() {
            p2m.check.refused = refused;
        }
        // Every PV kernel has tables that Xen knows as such.
        p2m.translated = domain.hap.is_some() || (domain.may_be_translated() && p2m.tables.iter().all(|t| t.1 != 4));
        if p2m.translated {
            p2m.tables.clear();
        }
        if p2m.runs.is_empty() {
            let why =
                format!("domain {} publishes none that can be read, and owns no frame that the M2P knows", domain.id);
            return Err(Error::missing("the P2M", why));
        }
        Ok(p2m)
    }

    /// That of memory whose numbers are PFNs already, as these are.
    pub fn identity(runs: Vec<Run>) -> Self {
        Self { by_mfn: runs.clone(), runs, translated: true, ..Self::default() }
    }

    /// All runs of ordinary memory, by PFN.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The same by MFN; a frame that two PFNs have is in it once.
    pub fn runs_by_mfn(&self) -> &[Run] {
        &self.by_mfn
    }

    /// Pages of ordinary memory.
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|r| r.len).sum()
    }

    /// One more than the highest PFN of ordinary memory.
    pub fn end(&self) -> Pfn {
        Pfn(self.runs.last().map_or(0, |r| r.pfn.0 + r.len))
    }

    /// The frame of a PFN.
    pub fn mfn(&self, pfn: Pfn) -> Option<Mfn> {
        let next = self.runs.partition_point(|r| r.pfn <= pfn);
        let run = next.checked_sub(1).and_then(|i| self.runs.get(i))?;
        let into = pfn.0 - run.pfn.0;
        (into < run.len).then_some(Mfn(run.mfn.0 + into))
    }

    /// The PFN of a frame of the domain's own.
    pub fn pfn(&self, mfn: Mfn) -> Option<Pfn> {
        let next = self.by_mfn.partition_point(|r| r.mfn <= mfn);
        let run = next.checked_sub(1).and_then(|i| self.by_mfn.get(i))?;
        let into = mfn.0 - run.mfn.0;
        (into < run.len).then_some(Pfn(run.pfn.0 + into))
    }

    /// Where pages can be put that have no PFN: from here on no PFN is the domain's memory. Foreign frames may have one.
    ///
    /// Close to its memory, if every entry behind it was read and is a hole: makedumpfile takes the bitmaps of a dump that
    /// reaches beyond the kernel's last memory section for shorter than they are.
    pub fn vacant(&self) -> Pfn {
        let c = &self.check;
        let doubtful = c.unreadable + c.not_owned + c.beyond_machine + c.aliases;
        if doubtful == 0 && c.repaired.is_empty() { self.end() } else { self.end().max(self.told_end) }
    }

    /// Whether a list that the kernel keeps for itself could add anything: what it published is not there, or was not all
    /// of it.
    pub fn wants_own(&self) -> bool {
        let c = &self.check;
        !self.translated && !self.by_walk && (c.source == Inverted::NAME || !c.repaired.is_empty() || c.unreadable > 0)
    }

    /// The PFNs of foreign frames.
    pub fn foreign_pfns(&self) -> impl Iterator<Item = Pfn> {
        self.foreign.iter().map(|f| f.1)
    }

    /// The PFN under which the domain has mapped a foreign frame.
    pub fn foreign_pfn(&self, mfn: Mfn) -> Option<Pfn> {
        let at = self.foreign.binary_search_by_key(&mfn, |f| f.0).ok()?;
        self.foreign.get(at).map(|f| f.1)
    }
}
