//! A map of the machine's memory by owner: what is where, and how much of it is zeros.
//!
//! The map is linear in machine addresses, in cells of equal size. Each frame of RAM counts in exactly one entry of the
//! legend, that of its owner; pages of zeros are counted within it, and drawn in a lighter shade or as another character.
//! A cell is drawn as the entry that has most of its frames, as zeros if more than half of those are.

pub mod grid;
mod palette;
pub mod svg;
pub mod terminal;

use crate::pipeline::Progress;
use crate::report::size;
use crate::units::{Mfn, PAGE_BYTES};
use crate::xen::Host;
use crate::xen::census::{Census, Count, Counts};
use crate::xen::class::Class;
use crate::xen::hole::{Hole, HoleKind, holes};
use crate::zero::is_zero;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Domains besides dom0 that have an entry of their own: as many as there are letters for them.
const MOST_DOMAINS: usize = palette::LETTERS.len();

/// Characters of a domain's name that a legend has room for.
const MOST_NAME: usize = 24;

/// The map. Field names are what `info --json --map` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Map {
    /// Xen's version.
    #[serde(skip)]
    pub xen: String,
    /// Whether every page was looked at; otherwise the counts are scaled up from a sample.
    pub exact: bool,
    /// Pages of RAM that the dump's headers describe: the sum of the legend's.
    pub pages: u64,
    /// Those of them that are all zeros.
    pub zero: u64,
    /// Those that the dump does not have, though its headers say so; they do not count as zeros.
    pub unread: u64,
    /// Who has how much. Entries without a page are not there.
    pub legend: Vec<Entry>,
    /// Pages up to the end of RAM that are none, by what is there.
    pub holes: BTreeMap<HoleKind, u64>,
    /// Pages per cell, a power of two.
    pub cell_pages: u64,
    /// The cells that have RAM, by address.
    #[serde(skip)]
    pub cells: Vec<Cell>,
    /// The same, neighbours that look alike as one.
    pub runs: Vec<Run>,
    /// The holes by address.
    #[serde(skip)]
    pub hole_list: Vec<Hole>,
}

/// Cells that follow each other and look alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Machine address of the first, in hex.
    pub start: String,
    /// How many.
    pub cells: u64,
    /// Place in the legend, from 0, of what has most of each cell.
    pub most: usize,
    /// Whether more than half of that is zeros.
    pub zeros: bool,
}

/// What an entry of the legend stands for, in the legend's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The hardware domain.
    Dom0(u16),
    /// Another domain, and how many such are before it.
    Domain(u16, usize),
    /// So many more domains, for which there are no letters: those with the least memory.
    Others(usize),
    /// Pages of the Xen heap that Xen shares with domains.
    Shared,
    /// Xen.
    Xen,
    /// Free.
    Free,
    /// DOMID_IO.
    Io,
    /// Offline.
    Offline,
    /// Of no known domain.
    Unknown,
    /// Without an entry in the frame table.
    NoEntry,
}

/// An entry of the legend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What it stands for.
    #[serde(skip)]
    pub owner: Owner,
    /// The same in words.
    pub name: String,
    /// The domain's id, if it is a domain's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<u16>,
    /// The character that stands for it on a terminal.
    pub symbol: char,
    /// The same where most pages are zeros.
    pub zero_symbol: char,
    /// Its pages.
    pub pages: u64,
    /// Those of them that are all zeros.
    pub zero: u64,
}

/// Frames of one entry in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Place in the legend.
    pub entry: usize,
    /// Frames.
    pub frames: u64,
    /// Those of them that are all zeros.
    pub zero: u64,
}

/// A cell that has RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its first frame: a multiple of the cells' size.
    pub first: Mfn,
    /// Its RAM, in the legend's order; at least one part.
    pub parts: Vec<Part>,
}

impl Cell {
    /// What it is drawn as: place in the legend, and whether as zeros.
    pub fn look(&self) -> (usize, bool) {
        let most = self.parts.iter().max_by_key(|p| (p.frames, Reverse(p.entry)));
        most.map_or((0, false), |p| (p.entry, p.zero > p.frames / 2))
    }

    /// Takes in what another has.
    pub fn absorb(&mut self, other: &Self) {
        for part in &other.parts {
            match self.parts.iter_mut().find(|p| p.entry == part.entry) {
                Some(p) => (p.frames, p.zero) = (p.frames + part.frames, p.zero + part.zero),
                None => self.parts.push(*part),
            }
        }
        self.parts.sort_by_key(|p| p.entry);
    }
}

impl Map {
    /// Surveys the machine and looks at its pages, all or, on a machine of more than 8 GiB, a sample of 8 GiB.
    pub fn take(host: &Host<'_>, progress: &dyn Progress) -> Self {
        let frames = host.memory().map().frames().map(|(a, b)| b - a).sum();
        progress.stage("looking at pages", Some(frames));
        let census = Census::take(host, Some(is_zero), &|n| progress.advance(n));
        let dom0 = host.hardware_domain().map(|d| d.id);
        Self { xen: host.version(), ..Self::new(&census, dom0, holes(host)) }
    }

    /// The map of a count. `dom0` is the hardware domain's id.
    pub fn new(census: &Census, dom0: Option<u16>, hole_list: Vec<Hole>) -> Self {
        let totals = census.totals();
        let owners = owners(&totals, dom0);
        let mut legend: Vec<Entry> = Vec::new();
        for owner in owners.values() {
            if legend.iter().all(|e| e.owner != *owner) {
                legend.push(Entry::new(*owner));
            }
        }
        legend.sort_by_key(|e| e.owner);
        let place: BTreeMap<Class, usize> = owners
            .iter()
            .filter_map(|(class, owner)| Some((*class, legend.iter().position(|e| e.owner == *owner)?)))
            .collect();
        let part = |(class, n): (&Class, &Count)| {
            Some(Cell {
                first: Mfn(0),
                parts: vec![Part { entry: *place.get(class)?, frames: n.frames, zero: n.zero }],
            })
        };
        let cell = |counts: &Counts, first| {
            let mut cell = Cell { first, parts: Vec::new() };
            counts.iter().filter(|(_, n)| n.frames > 0).filter_map(part).for_each(|p| cell.absorb(&p));
            cell
        };
        let cells: Vec<Cell> = census.cells.iter().map(|c| cell(&c.counts, c.first)).collect();
        for part in cells.iter().flat_map(|c| &c.parts) {
            if let Some(entry) = legend.get_mut(part.entry) {
                (entry.pages, entry.zero) = (entry.pages + part.frames, entry.zero + part.zero);
            }
        }
        let mut holes = BTreeMap::new();
        hole_list.iter().for_each(|h| *holes.entry(h.kind).or_default() += h.end.0 - h.first.0);
        Self {
            xen: String::new(),
            exact: census.exact,
            pages: legend.iter().map(|e| e.pages).sum(),
            zero: legend.iter().map(|e| e.zero).sum(),
            unread: totals.values().map(|n| n.unread).sum(),
            legend,
            holes,
            cell_pages: census.cell_frames,
            runs: runs(&cells, census.cell_frames),
            cells,
            hole_list,
        }
    }

    /// What there is instead of RAM at a frame; `None` in RAM and behind its end.
    pub fn hole(&self, mfn: Mfn) -> Option<&Hole> {
        let next = self.hole_list.partition_point(|h| h.first <= mfn);
        next.checked_sub(1).and_then(|i| self.hole_list.get(i)).filter(|h| mfn < h.end)
    }
}

/// The entry of each class that there is.
fn owners(totals: &Counts, dom0: Option<u16>) -> BTreeMap<Class, Owner> {
    let mut domains: Vec<(u64, u16)> = Vec::new();
    for (class, n) in totals {
        match class {
            Class::Domain(id) if Some(*id) != dom0 => domains.push((n.frames, *id)),
            _ => {}
        }
    }
    domains.sort_by_key(|(frames, id)| (Reverse(*frames), *id));
    let others = domains.len().saturating_sub(MOST_DOMAINS);
    domains.truncate(MOST_DOMAINS);
    let mut own: Vec<u16> = domains.into_iter().map(|(_, id)| id).collect();
    own.sort_unstable();
    let owner = |class: &Class| match class {
        Class::Domain(id) if Some(*id) == dom0 => Owner::Dom0(*id),
        Class::Domain(id) => match own.binary_search(id) {
            Ok(place) => Owner::Domain(*id, place),
            Err(_) => Owner::Others(others),
        },
        Class::XenHeap(_) => Owner::Shared,
        Class::Xen => Owner::Xen,
        Class::Free => Owner::Free,
        Class::Io => Owner::Io,
        Class::Offline => Owner::Offline,
        Class::UnknownOwner => Owner::Unknown,
        Class::NoEntry => Owner::NoEntry,
    };
    totals.iter().filter(|(_, n)| n.frames > 0).map(|(class, _)| (*class, owner(class))).collect()
}

impl Map {
    /// Adds the names that the toolstack gave to domains to the legend.
    #[must_use]
    pub fn named<'n>(mut self, name: impl Fn(u16) -> Option<&'n str>) -> Self {
        for entry in &mut self.legend {
            if let (Owner::Domain(id, _), Some(name)) = (entry.owner, name_of(&name, entry)) {
                entry.name = format!("domain {id} {name}");
            }
        }
        self
    }
}

/// As much of a domain's name as a legend has room for, of characters that mean nothing to anybody.
fn name_of<'n>(name: &impl Fn(u16) -> Option<&'n str>, entry: &Entry) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    Some(name(entry.domain?)?.chars().take(MOST_NAME).map(plain).collect())
}

impl Entry {
    fn new(owner: Owner) -> Self {
        let name = match owner {
            Owner::Dom0(0) => "dom0".into(),
            Owner::Dom0(id) => format!("domain {id} (hardware)"),
            Owner::Domain(id, _) => format!("domain {id}"),
            Owner::Others(n) => format!("{n} smaller domains"),
            Owner::Shared => "Xen heap of domains".into(),
            Owner::Xen => "Xen".into(),
            Owner::Free => "free".into(),
            Owner::Io => "I/O and low memory".into(),
            Owner::Offline => "offline".into(),
            Owner::Unknown => "of no known domain".into(),
            Owner::NoEntry => "without an entry".into(),
        };
        let domain = match owner {
            Owner::Dom0(id) | Owner::Domain(id, _) => Some(id),
            _ => None,
        };
        let (symbol, zero_symbol) = palette::symbols(owner);
        Self { owner, name, domain, symbol, zero_symbol, pages: 0, zero: 0 }
    }
}

/// The size of pages, for people.
fn bytes(pages: u64) -> String {
    size(pages.saturating_mul(PAGE_BYTES))
}

/// What a hole is, in a few words.
fn hole_short(kind: HoleKind) -> &'static str {
    match kind {
        HoleKind::Mmio => "no RAM: devices'",
        HoleKind::Withheld => "no RAM: withheld",
        HoleKind::Nothing => "no RAM: nothing",
    }
}

/// The same in words.
fn hole_name(kind: HoleKind) -> &'static str {
    match kind {
        HoleKind::Mmio => "devices' memory (MMIO)",
        HoleKind::Withheld => "kept out of the dump, as kdump's own kernel",
        HoleKind::Nothing => "nothing there",
    }
}

/// Cells as scripts want them: neighbours that look alike as one.
fn runs(cells: &[Cell], cell_pages: u64) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    let mut next = None;
    for cell in cells {
        let (most, zeros) = cell.look();
        match all.last_mut().filter(|r| next == Some(cell.first.0) && (r.most, r.zeros) == (most, zeros)) {
            Some(run) => run.cells += 1,
            None => {
                let start = cell.first.addr().unwrap_or_default().to_string();
                all.push(Run { start, cells: 1, most, zeros });
            }
        }
        next = cell.first.0.checked_add(cell_pages);
    }
    all
}
