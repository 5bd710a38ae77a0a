//! What a fixture's truth and its uncut dump say of dom0's memory.

use super::dump::{Dump, PAGE, Page, u64_at};
use super::elf::Elf;
use super::fixtures::{Fixture, hex};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where an x86-64 page-table entry has its frame.
pub(crate) const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// A line of truth.tsv.
pub(crate) struct Line {
    pub(crate) mfn: u64,
    /// 1 to 4 for a page table.
    pub(crate) level: Option<u8>,
    pub(crate) zero: bool,
    /// The first 16 hex digits of the machine page's SHA-256.
    pub(crate) hash: u64,
}

/// dom0's memory as it was.
pub(crate) struct Truth {
    /// By page frame number.
    pub(crate) lines: BTreeMap<u64, Line>,
    /// From dom0's machine frames to its page frame numbers.
    pub(crate) pfn_of: HashMap<u64, u64>,
    /// Other domains' frames that dom0's P2M has, by their page frame number.
    pub(crate) foreign: BTreeMap<u64, u64>,
    /// Pages that hold dom0's P2M.
    pub(crate) p2m: BTreeSet<u64>,
    machine: Elf,
}

impl Truth {
    pub(crate) fn read(fixture: &Fixture) -> Self {
        let mut lines = BTreeMap::new();
        for text in fixture.table().lines() {
            let fields: Vec<&str> = text.split_whitespace().collect();
            let level = fields[2].strip_prefix('l').map(|level| level.parse().unwrap());
            let (mfn, hash) = (hex(fields[1]), hex(fields[4]));
            lines.insert(hex(fields[0]), Line { mfn, level, zero: fields[3] == "zero", hash });
        }
        let pfn_of: HashMap<u64, u64> = lines.iter().map(|(&pfn, line)| (line.mfn, pfn)).collect();
        let machine = Elf::open(&fixture.vmcore);
        let (foreign, tree) = foreign(fixture, &machine);
        let p2m = tree.iter().filter_map(|mfn| pfn_of.get(mfn).copied()).collect();
        Self { lines, pfn_of, foreign, p2m, machine }
    }

    /// Above all of dom0's pages, and of no foreign frame.
    pub(crate) fn is_vacant(&self, pfn: u64) -> bool {
        self.lines.keys().next_back().is_some_and(|last| pfn > *last) && !self.foreign.contains_key(&pfn)
    }

    /// A page of the uncut dump, if it is memory.
    pub(crate) fn machine_page(&self, mfn: u64) -> Option<Page> {
        self.machine.page(mfn)
    }

    /// The page of the uncut dump that is dom0's page `pfn`.
    pub(crate) fn original(&self, pfn: u64) -> Page {
        let mfn = self.lines[&pfn].mfn;
        self.machine_page(mfn).unwrap_or_else(|| panic!("the uncut dump has no machine frame {mfn:#x}"))
    }
}

/// dom0's P2M entries with the FOREIGN bit, by our own walk of the frame lists; checked against the truth's. And the
/// machine frames of the lists.
fn foreign(fixture: &Fixture, machine: &Elf) -> (BTreeMap<u64, u64>, BTreeSet<u64>) {
    let words = |mfn: u64| {
        let page = machine.page(mfn).unwrap_or_else(|| panic!("no machine frame {mfn:#x} of the P2M"));
        (0..PAGE / 8).map(move |at| u64_at(&page[..], at * 8))
    };
    let root = hex(fixture.json["p2m_frame_list_list_mfn"].as_str().expect("p2m_frame_list_list_mfn"));
    // Linux fills the rest with one list, and one leaf, that stand for "missing": the last ones
    let last = |mfn: u64| words(mfn).next_back();
    let missing_list = last(root);
    let missing_leaf = missing_list.and_then(last);
    let mut found = BTreeMap::new();
    let mut tree: BTreeSet<u64> = [Some(root), missing_list, missing_leaf].into_iter().flatten().collect();
    for (top, list) in words(root).enumerate().filter(|(_, mfn)| *mfn != 0 && Some(*mfn) != missing_list) {
        tree.insert(list);
        for (middle, leaf) in words(list).enumerate().filter(|(_, mfn)| *mfn != 0 && Some(*mfn) != missing_leaf) {
            tree.insert(leaf);
            let first = ((top << 9 | middle) << 9) as u64;
            for (low, entry) in words(leaf).enumerate() {
                if entry != u64::MAX && entry >> 63 == 1 {
                    found.insert(first + low as u64, entry & (FRAME >> 12));
                }
            }
        }
    }
    let told = fixture.json["dom0"]["foreign_pfns"].as_array().expect("foreign_pfns");
    let told: BTreeSet<u64> = told.iter().map(|pfn| hex(pfn.as_str().unwrap())).collect();
    assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), told, "{}: foreign frames", fixture.name);
    (found, tree)
}
