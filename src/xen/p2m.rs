//! A PV domain's P2M, from the three-level tree that it publishes for tools (Linux: arch/x86/xen/p2m.c).
//!
//! The top page holds MFNs of middle pages, these of leaf pages, these the entries: 512 words each, 2^27 PFNs in all.
//! Empty parts point to shared pages full of `~0`, never to zero, so `max_pfn` bounds the walk. An entry is `~0` for a
//! hole, bit 63 for a foreign frame (mapped from another domain), bit 62 for an identity (MMIO), else an MFN.
//!
//! Nothing in it is believed unseen: the domain can write what it likes, and so can damage.

use super::Domain;
use super::frame_table::Entry;
use super::host::Host;
use super::m2p::M2p;
use super::page_info::{PageInfo, TypeBits};
use crate::bytes::words;
use crate::error::{Error, Result};
use crate::units::{MAX_FRAME, Mfn, Pfn};
use std::collections::{BTreeSet, HashMap, HashSet};

const INVALID: u64 = u64::MAX;
const FOREIGN: u64 = 1 << 63;
const IDENTITY: u64 = 1 << 62;
/// Places in the tree at which the same page is looked at.
const MOST_VISITS: u8 = 8;
/// Entries in a page.
const FAN: u64 = 512;
/// PFNs that the tree can hold.
const CAPACITY: u64 = FAN * FAN * FAN;

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
    /// Not believed: the frame number is beyond the machine.
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
}

/// The P2M, as runs.
#[derive(Clone, Debug, Default)]
pub struct P2m {
    runs: Vec<Run>,
    by_mfn: Vec<Run>,
    /// PFNs of foreign frames, by MFN.
    foreign: Vec<(Mfn, Pfn)>,
    /// The end that the domain told Xen, as far as the tree reaches.
    told_end: Pfn,
    /// Live page tables among the pages, by PFN: level 1 to 4.
    pub tables: Vec<(Pfn, u8)>,
    /// The pages that the tree itself names, those of holes beyond the end too; not all of them are the domain's.
    pub tree: BTreeSet<Mfn>,
    /// Width of the type field, as the domain's own pages prove it.
    pub type_bits: Option<TypeBits>,
    /// How much of it was believed.
    pub check: P2mCheck,
}

impl P2m {
    /// Reads and checks the tree of `domain`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a domain that publishes none, [`Error::Missing`] if its top cannot be read.
    pub fn read_tree(host: &Host<'_>, domain: &Domain) -> Result<Self> {
        let shared = domain.shared_info.as_ref().ok_or_else(|| {
            Error::missing("the shared info page", format!("no pointer in struct domain at {} leads to it", domain.va))
        })?;
        let top = match shared.frame_list_list.0 {
            0 if !shared.has_p2m() => {
                let why = format!(
                    "domain {} publishes no P2M: it is PVH or HVM, or died while it booted; only PV domains can be cut so far",
                    domain.id
                );
                return Err(Error::Unsupported(why));
            }
            0 | INVALID => host.notes.crash.frame_list_list,
            _ => shared.frame_list_list,
        };
        let mut tree =
            Tree { host, domain, cursor: host.frames.cursor(), empty: HashSet::from([0]), visits: HashMap::new() };
        let top_page = tree.page(top).ok_or_else(|| {
            Error::missing(
                "the P2M list",
                format!("its top page, MFN {top}, is not in the dump or not owned by domain {}", domain.id),
            )
        })?;
        let entries = if shared.max_pfn == 0 { CAPACITY } else { shared.max_pfn.min(CAPACITY) };
        let mut p2m = Builder::new(host, domain);
        p2m.out.tree.insert(top);
        p2m.out.tree.extend(top_page.iter().map(|mid| Mfn(*mid)));
        p2m.out.told_end = Pfn(shared.max_pfn.min(CAPACITY));
        for (i, &mid) in (0..).step_by((FAN * FAN) as usize).zip(&top_page).take_while(|(i, _)| *i < entries) {
            let covered = (FAN * FAN).min(entries - i);
            if tree.empty.contains(&mid) {
                continue;
            }
            if !tree.visit(mid) {
                p2m.out.check.aliases += covered;
                continue;
            }
            let Some(mid_page) = tree.page(Mfn(mid)) else {
                p2m.out.check.unreadable += covered;
                continue;
            };
            p2m.out.tree.extend(mid_page.iter().map(|leaf| Mfn(*leaf)));
            let mut all_empty = true;
            for (j, &leaf) in (i..).step_by(FAN as usize).zip(&mid_page).take_while(|(j, _)| *j < entries) {
                if tree.empty.contains(&leaf) {
                    continue;
                }
                if !tree.visit(leaf) {
                    p2m.out.check.aliases += FAN.min(entries - j);
                    continue;
                }
                let Some(leaf_page) = tree.page(Mfn(leaf)) else {
                    all_empty = false;
                    p2m.out.check.unreadable += FAN.min(entries - j);
                    continue;
                };
                // The kernel's "missing" and "identity" pages stand in many places.
                if leaf_page.iter().all(|e| *e == INVALID || e & (FOREIGN | IDENTITY) == IDENTITY) {
                    p2m.out.check.identity += leaf_page.iter().filter(|e| **e != INVALID).count() as u64;
                    tree.empty.insert(leaf);
                    continue;
                }
                all_empty = false;
                for (pfn, &entry) in (j..entries).zip(&leaf_page) {
                    p2m.entry(&mut tree, &top_page, Pfn(pfn), entry);
                }
            }
            if all_empty {
                tree.empty.insert(mid);
            }
        }
        Ok(p2m.finish())
    }

    /// All runs of ordinary memory, by PFN.
    pub fn runs(&self) -> &[Run] {
        &self.runs
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
        if doubtful == 0 { self.end() } else { self.end().max(self.told_end) }
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

/// Reads pages of the tree.
struct Tree<'h> {
    host: &'h Host<'h>,
    domain: &'h Domain,
    cursor: super::frame_table::Cursor<'h>,
    /// MFNs of pages known to lead nowhere: the domain's "missing" and "identity" pages, and 0, which stands for a hole
    /// in XenLinux's lists.
    empty: HashSet<u64>,
    /// How often each other page was walked, by MFN.
    visits: HashMap<u64, u8>,
}

impl Tree<'_> {
    /// Whether to walk a page once more. In a sound tree each stands once; in a damaged one the M2P tells which place is
    /// right, so all are looked at, but not so many that the walk gets long.
    fn visit(&mut self, mfn: u64) -> bool {
        let visits = self.visits.entry(mfn).or_default();
        *visits = visits.saturating_add(1);
        *visits <= MOST_VISITS
    }

    /// A page of the tree, if it is the domain's.
    fn page(&mut self, mfn: Mfn) -> Option<Vec<u64>> {
        // Where the dump lacks the frame table's entry, what the page leads to is checked all the same.
        if self.cursor.look(mfn).info().is_some_and(|info| !self.domain.owns(self.host, &info)) {
            return None;
        }
        Some(words(&self.host.memory().page(mfn).ok()?).collect())
    }

    /// The raw entry of one PFN.
    fn lookup(&mut self, top: &[u64], pfn: Pfn) -> Option<u64> {
        let index = |shift: u32| (pfn.0 >> shift & (FAN - 1)) as usize;
        if pfn.0 >= CAPACITY {
            return None;
        }
        let mid = *top.get(index(18))?;
        let leaf = *self.page(Mfn(mid))?.get(index(9))?;
        self.page(Mfn(leaf))?.get(index(0)).copied()
    }
}

struct Builder<'h> {
    host: &'h Host<'h>,
    domain: &'h Domain,
    frames: super::frame_table::Cursor<'h>,
    m2p: M2p<'h>,
    /// PFN and type_info of pages that may be tables; which they are is decided when the layout is known.
    typed: Vec<(Pfn, PageInfo)>,
    votes: [u64; 2],
    out: P2m,
}

impl<'h> Builder<'h> {
    fn new(host: &'h Host<'h>, domain: &'h Domain) -> Self {
        Self {
            host,
            domain,
            frames: host.frames.cursor(),
            m2p: M2p::new(host.space),
            typed: Vec::new(),
            votes: [0; 2],
            out: P2m::default(),
        }
    }

    fn entry(&mut self, tree: &mut Tree<'_>, top: &[u64], pfn: Pfn, entry: u64) {
        let check = &mut self.out.check;
        if entry == INVALID {
            return;
        }
        let mfn = Mfn(entry & !(FOREIGN | IDENTITY));
        if entry & FOREIGN != 0 {
            check.foreign += 1;
            self.out.foreign.push((mfn, pfn));
            return;
        }
        if entry & IDENTITY != 0 {
            check.identity += 1;
            return;
        }
        if mfn.0 >= self.host.frames.max_page() || mfn.0 > MAX_FRAME {
            check.beyond_machine += 1;
            return;
        }
        let told = self.m2p.get(mfn);
        let info = match self.frames.look(mfn) {
            Entry::Info(info) if self.domain.owns(self.host, &info) => Some(info),
            Entry::Info(_) => {
                check.not_owned += 1;
                return;
            }
            // No evidence against it, and the M2P's word for it.
            Entry::None | Entry::Unreadable if told == Some(pfn) => None,
            Entry::None | Entry::Unreadable => {
                check.unreadable += 1;
                return;
            }
        };
        check.by_m2p_only += u64::from(info.is_none());
        match told {
            Some(p) if p == pfn => check.m2p_agrees += 1,
            Some(other) if tree.lookup(top, other) == Some(entry) => {
                check.aliases += 1;
                return;
            }
            _ => check.m2p_disagrees += 1,
        }
        check.believed += 1;
        if let Some(info) = info {
            match TypeBits::proven_by(info.kind) {
                Some(TypeBits::Four) => self.votes[0] += 1,
                Some(TypeBits::Three) => self.votes[1] += 1,
                None => {}
            }
            if info.table_level(TypeBits::Three).or(info.table_level(TypeBits::Four)).is_some() {
                self.typed.push((pfn, info));
            }
        }
        push(&mut self.out.runs, Run { pfn, mfn, len: 1 });
    }

    fn finish(mut self) -> P2m {
        let mut sorted = self.out.runs.clone();
        sorted.sort_unstable_by_key(|r| (r.mfn, r.pfn));
        let mut covered = 0;
        for run in sorted {
            // Frames that two PFNs have (where the M2P says nothing) go to the first run, or a search would miss some.
            let skip = u64::saturating_sub(covered, run.mfn.0);
            if skip < run.len {
                covered = run.mfn.0 + run.len;
                push(
                    &mut self.out.by_mfn,
                    Run { pfn: Pfn(run.pfn.0 + skip), mfn: Mfn(run.mfn.0 + skip), len: run.len - skip },
                );
            }
        }
        self.out.foreign.sort_unstable();
        // With four bits there are no types 14 and 15, but with three a locked table (bit 60) looks like type 7.
        let bits = if self.votes[0] > 0 && self.votes[1] == 0 { TypeBits::Four } else { TypeBits::Three };
        self.out.type_bits = Some(bits);
        self.out.tables = self.typed.iter().filter_map(|(pfn, i)| Some((*pfn, i.table_level(bits)?))).collect();
        self.out
    }
}

/// Appends, joining a run that goes on.
fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.pfn.0 + last.len == run.pfn.0 && last.mfn.0 + last.len == run.mfn.0 => last.len += run.len,
        _ => runs.push(run),
    }
}
