//! Checks entries, and joins them to runs.

use super::source::{FOREIGN, IDENTITY, INVALID, Part, Source};
use super::{P2m, Run, bound};
use crate::units::{MAX_FRAME, Mfn, Pfn};
use crate::xen::frame_table::{Cursor, Entry};
use crate::xen::m2p::M2p;
use crate::xen::page_info::{PageInfo, TypeBits};
use crate::xen::{Domain, Host};
use std::collections::HashSet;
use std::ops::Range;

/// Stretches that a source lacked and another is asked for, at most; what is beyond stays missing.
const MOST_GAPS: usize = 1 << 20;
/// Frames that a balloon driver maps in many places, one per vCPU (Linux 3.12 to 3.18: balloon scratch pages).
const MOST_SCRATCH: usize = 64;

pub(super) struct Builder<'h> {
    host: &'h Host<'h>,
    domain: &'h Domain,
    frames: Cursor<'h>,
    m2p: M2p<'h>,
    /// PFN and type_info of pages that may be tables; which they are is decided when the layout is known.
    typed: Vec<(Pfn, PageInfo)>,
    votes: [u64; 2],
    /// No domain has PFNs from here on. Readers' bitmaps are as long as the highest PFN says.
    bound: u64,
    /// What could not be read: first PFN and number.
    gaps: Vec<(u64, u64)>,
    /// What is not there, but should be, in the same way.
    blanks: Vec<(u64, u64)>,
    /// What was read but not believed, in the same way.
    doubts: Vec<(u64, u64)>,
    /// Entries of the domain's own frames that are the M2P's word for another PFN.
    suspects: Vec<(Pfn, Mfn)>,
    /// PFNs whose frame the M2P gives to another, which has it.
    repeats: Vec<(u64, u64)>,
    /// Their frames.
    doubled: HashSet<Mfn>,
    pub(super) out: P2m,
}

impl<'h> Builder<'h> {
    /// `told` is the number of entries that the domain told Xen.
    pub(super) fn new(host: &'h Host<'h>, domain: &'h Domain, source: &'static str, told: u64) -> Self {
        let bound = bound(host);
        let mut out = P2m { told_end: Pfn(told.min(bound)), ..P2m::default() };
        out.check.source = source;
        Self {
            host,
            domain,
            frames: host.frames.cursor(),
            m2p: M2p::new(host.space),
            typed: Vec::new(),
            votes: [0; 2],
            bound,
            gaps: Vec::new(),
            blanks: Vec::new(),
            doubts: Vec::new(),
            suspects: Vec::new(),
            repeats: Vec::new(),
            doubled: HashSet::new(),
            out,
        }
    }

    /// Takes what a source has for a range of PFNs.
    pub(super) fn read(&mut self, source: &dyn Source, range: Range<u64>) {
        source.walk(range, &mut |part| match part {
            Part::Entries(first, entries) => {
                for (pfn, &entry) in (first..).zip(entries) {
                    self.entry(source, Pfn(pfn), entry);
                }
            }
            Part::Unreadable(first, count) => {
                self.out.check.unreadable += count;
                note(&mut self.gaps, first, count);
            }
            Part::Blank(first, count) => note(&mut self.blanks, first, count),
            Part::Repeated(first, count) => {
                self.out.check.aliases += count;
                note(&mut self.blanks, first, count);
            }
            Part::Identity(count) => self.out.check.identity += count,
            Part::Own(pages) => self.out.tree.extend(pages.iter().map(|p| Mfn(*p))),
        });
    }

    /// Reads the first source. What the domain told of beyond it is due from another.
    pub(super) fn begin(&mut self, source: &dyn Source) {
        self.read(source, 0..u64::MAX);
        let (end, told) = (source.end(), self.out.told_end.0);
        if end < told {
            note(&mut self.blanks, end, told - end);
        }
    }

    /// Whether anything is not there, could not be read, or was not believed without a good reason: a few frames that many
    /// PFNs have are the scratch pages of an old balloon driver. `least` is how many ordinary pages it must be.
    pub(super) fn lacks(&self, least: u64) -> bool {
        let ordinary = self.out.check.believed - self.out.check.xen_heap;
        let lists = [&self.gaps, &self.blanks, &self.doubts];
        ordinary == 0 || ordinary < least || lists.iter().any(|l| !l.is_empty()) || self.doubled.len() > MOST_SCRATCH
    }

    /// Takes from another source what the ones before lacked; and, where it has something that the M2P confirms, what was
    /// not believed of them.
    pub(super) fn repair(&mut self, source: &dyn Source) {
        let before = self.out.check.believed;
        let within = |first: u64, count: u64| source.end().clamp(first, first.saturating_add(count)) - first;
        for (first, count) in std::mem::take(&mut self.gaps) {
            // What this one lacks as well is counted anew; what is beyond it stays.
            let covered = within(first, count);
            self.out.check.unreadable = self.out.check.unreadable.saturating_sub(covered);
            self.read(source, first..first + covered);
            note(&mut self.gaps, first + covered, count - covered);
        }
        for (first, count) in std::mem::take(&mut self.blanks) {
            let covered = within(first, count);
            self.read(source, first..first + covered);
            note(&mut self.blanks, first + covered, count - covered);
        }
        let again = std::mem::take(&mut self.repeats);
        self.retry(source, again, |s| &mut s.repeats);
        let again = std::mem::take(&mut self.doubts);
        self.retry(source, again, |s| &mut s.doubts);
        self.repaired(source, before);
    }

    /// Believes of these PFNs what the M2P confirms of the source, and keeps the others on `list`.
    fn retry(&mut self, source: &dyn Source, again: Vec<(u64, u64)>, list: impl Fn(&mut Self) -> &mut Vec<(u64, u64)>) {
        for pfn in again.into_iter().flat_map(|(first, count)| first..first.saturating_add(count)).map(Pfn) {
            match source.lookup(pfn.0) {
                Some(entry) if entry <= MAX_FRAME && self.m2p.get(Mfn(entry)) == Some(pfn) => {
                    self.entry(source, pfn, entry);
                }
                _ => note(list(self), pfn.0, 1),
            }
        }
    }

    /// Takes from a source that has nothing but memory every PFN that the ones before do not have, whatever they say of it.
    pub(super) fn complete(&mut self, source: &dyn Source) {
        let before = self.out.check.believed;
        self.sort();
        let known = std::mem::take(&mut self.out.runs);
        source.walk(0..u64::MAX, &mut |part| {
            let Part::Entries(first, entries) = part else { return };
            for (pfn, &entry) in (first..).map(Pfn).zip(entries) {
                if !holds(&known, pfn) {
                    self.entry(source, pfn, entry);
                }
            }
        });
        self.out.runs.extend(known);
        // What it does not have is no memory.
        self.out.check.unreadable = 0;
        for list in [&mut self.gaps, &mut self.blanks, &mut self.doubts, &mut self.repeats] {
            list.clear();
        }
        self.repaired(source, before);
    }

    /// Counts what was believed since.
    fn repaired(&mut self, source: &dyn Source, before: u64) {
        let found = self.out.check.believed - before;
        if found > 0 {
            *self.out.check.repaired.entry(source.name()).or_default() += found;
        }
    }

    fn entry(&mut self, source: &dyn Source, pfn: Pfn, entry: u64) {
        let check = &mut self.out.check;
        if entry == INVALID {
            return;
        }
        let mfn = Mfn(entry & !(FOREIGN | IDENTITY));
        let on_machine = mfn.0 < self.host.frames.max_page() && mfn.0 <= MAX_FRAME;
        if entry & FOREIGN != 0 && on_machine && pfn.0 < self.bound {
            check.foreign += 1;
            self.out.foreign.push((mfn, pfn));
            return;
        }
        if entry & (FOREIGN | IDENTITY) == IDENTITY {
            check.identity += 1;
            return;
        }
        if entry & FOREIGN != 0 || !on_machine || pfn.0 >= self.bound {
            check.beyond_machine += 1;
            note(&mut self.doubts, pfn.0, 1);
            return;
        }
        let told = self.m2p.get(mfn);
        let info = match self.frames.look(mfn) {
            Entry::Info(info) if self.domain.owns(self.host, &info) => Some(info),
            Entry::Info(_) => {
                check.not_owned += 1;
                note(&mut self.doubts, pfn.0, 1);
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
            Some(other) if source.lookup(other.0) == Some(entry) => {
                check.aliases += 1;
                if self.doubled.len() <= MOST_SCRATCH {
                    self.doubled.insert(mfn);
                }
                note(&mut self.repeats, pfn.0, 1);
                return;
            }
            // Another source may have what the M2P confirms.
            Some(_) if self.suspects.len() < MOST_GAPS => {
                self.suspects.push((pfn, mfn));
                note(&mut self.doubts, pfn.0, 1);
                return;
            }
            _ => check.m2p_disagrees += 1,
        }
        self.believe(pfn, mfn, info);
    }

    fn believe(&mut self, pfn: Pfn, mfn: Mfn, info: Option<PageInfo>) {
        self.out.check.believed += 1;
        if let Some(info) = info {
            self.out.check.xen_heap += u64::from(info.is_xen_heap());
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

    pub(super) fn finish(mut self) -> P2m {
        self.sort();
        self.settle();
        self.out.runs.shrink_to_fit();
        self.out.by_mfn = by_mfn(&self.out.runs);
        self.out.foreign.sort_unstable();
        // With four bits there are no types 14 and 15, but with three a locked table (bit 60) looks like type 7.
        let bits = if self.votes[0] > 0 && self.votes[1] == 0 { TypeBits::Four } else { TypeBits::Three };
        self.out.type_bits = Some(bits);
        self.out.tables = self.typed.iter().filter_map(|(pfn, i)| Some((*pfn, i.table_level(bits)?))).collect();
        self.out
    }
}

impl Builder<'_> {
    /// Repairs come out of order.
    fn sort(&mut self) {
        self.out.runs.sort_unstable_by_key(|r| r.pfn);
        // In place: memory in single frames has a run for each page, and there is only so much memory.
        self.out.runs.dedup_by(|run, last| joins(last, *run));
        self.typed.sort_unstable_by_key(|t| t.0);
    }

    /// Believes those suspects that no source knew better: Xen says that the domain owns the frame.
    fn settle(&mut self) {
        let mut suspects = std::mem::take(&mut self.suspects);
        suspects.sort_unstable();
        suspects.dedup_by_key(|s| s.0);
        if suspects.is_empty() {
            return;
        }
        let known = std::mem::take(&mut self.out.runs);
        for (pfn, mfn) in suspects {
            if holds(&known, pfn) {
                continue;
            }
            self.out.check.m2p_disagrees += 1;
            let info = self.frames.look(mfn).info();
            self.believe(pfn, mfn, info);
        }
        self.out.runs.extend(known);
        self.sort();
    }
}

/// Whether one of these runs, sorted by PFN, has it.
fn holds(runs: &[Run], pfn: Pfn) -> bool {
    let next = runs.partition_point(|r| r.pfn <= pfn);
    next.checked_sub(1).and_then(|i| runs.get(i)).is_some_and(|r| pfn.0 - r.pfn.0 < r.len)
}

/// Appends a stretch, joining one that goes on.
fn note(list: &mut Vec<(u64, u64)>, first: u64, count: u64) {
    if count == 0 {
        return;
    }
    let full = list.len() >= MOST_GAPS;
    match list.last_mut() {
        Some(last) if last.0.saturating_add(last.1) == first => last.1 = last.1.saturating_add(count),
        _ if !full => list.push((first, count)),
        _ => {}
    }
}

/// The runs in order of MFN. Frames that two PFNs have (where the M2P says nothing) go to the first run, or a search would
/// miss some.
pub(super) fn by_mfn(runs: &[Run]) -> Vec<Run> {
    let mut sorted = runs.to_vec();
    sorted.sort_unstable_by_key(|r| (r.mfn, r.pfn));
    let mut covered = 0;
    sorted.retain_mut(|run| {
        let skip = u64::saturating_sub(covered, run.mfn.0);
        if skip >= run.len {
            return false;
        }
        covered = run.mfn.0 + run.len;
        *run = Run { pfn: Pfn(run.pfn.0 + skip), mfn: Mfn(run.mfn.0 + skip), len: run.len - skip };
        true
    });
    sorted.dedup_by(|run, last| joins(last, *run));
    sorted
}

/// Appends, joining a run that goes on.
pub(super) fn push(runs: &mut Vec<Run>, run: Run) {
    if !runs.last_mut().is_some_and(|last| joins(last, run)) {
        runs.push(run);
    }
}

/// Joins a run to the one that it goes on from, if it does.
fn joins(last: &mut Run, run: Run) -> bool {
    let goes_on = last.pfn.0 + last.len == run.pfn.0 && last.mfn.0 + last.len == run.mfn.0;
    if goes_on {
        last.len += run.len;
    }
    goes_on
}
