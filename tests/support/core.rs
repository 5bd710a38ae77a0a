//! A reader of what `xl dump-core` writes (Xen: docs/misc/dump-core-format.txt).

use super::dump::{Dump, Note, PAGE, Page, parse_notes, u16_at, u32_at, u64_at};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A section of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) offset: usize,
    pub(crate) size: usize,
    pub(crate) align: u64,
    pub(crate) entry: u64,
}

/// A file that is read by its section names.
pub(crate) struct Core {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sections: Vec<Section>,
    notes: Vec<Note>,
    /// Place of each PFN in the list; of one that stands twice there is no reader's word.
    index: BTreeMap<u64, usize>,
}

impl Core {
    pub(crate) fn open(path: &Path) -> Self {
        Self::parse(std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    pub(crate) fn parse(bytes: Vec<u8>) -> Self {
        let [count, names] = [60, 62].map(|at| usize::from(u16_at(&bytes, at)));
        let table = &bytes[u64_at(&bytes, 40) as usize..];
        let word = |n: usize, at: usize| u64_at(table, n * 64 + at);
        let text = &bytes[word(names, 24) as usize..][..word(names, 32) as usize];
        let section = |n: usize| {
            let name = &text[u32_at(table, n * 64) as usize..];
            let name = &name[..name.iter().position(|b| *b == 0).unwrap()];
            Section {
                name: String::from_utf8(name.to_vec()).unwrap(),
                kind: u32_at(table, n * 64 + 4),
                offset: word(n, 24) as usize,
                size: word(n, 32) as usize,
                align: word(n, 48),
                entry: word(n, 56),
            }
        };
        let sections = (0..count).map(section).collect();
        let mut core = Self { bytes, sections, notes: Vec::new(), index: BTreeMap::new() };
        core.notes = core.sections.iter().filter(|s| s.kind == 7).flat_map(|s| parse_notes(core.of(s))).collect();
        let entries = core.entries();
        for (i, (pfn, _)) in entries.into_iter().enumerate().filter(|(_, e)| e.0 != u64::MAX) {
            assert!(core.index.insert(pfn, i).is_none(), "PFN {pfn:#x} twice");
        }
        core
    }

    fn of(&self, section: &Section) -> &[u8] {
        &self.bytes[section.offset..section.offset + section.size]
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.sections.iter().any(|s| s.name == name)
    }

    pub(crate) fn section(&self, name: &str) -> &[u8] {
        self.of(self.sections.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no section {name}")))
    }

    /// PFN and MFN of each page; of a translated domain the PFN twice.
    pub(crate) fn entries(&self) -> Vec<(u64, u64)> {
        let words = |name| self.section(name).chunks_exact(8).map(|w| u64_at(w, 0)).collect::<Vec<_>>();
        match self.has(".xen_p2m") {
            true => words(".xen_p2m").chunks_exact(2).map(|e| (e[0], e[1])).collect(),
            false => words(".xen_pfn").into_iter().map(|pfn| (pfn, pfn)).collect(),
        }
    }

    /// The `vcpu_guest_context`s.
    pub(crate) fn contexts(&self) -> Vec<&[u8]> {
        self.section(".xen_prstatus").chunks_exact(5168).collect()
    }

    /// The first 21 words of a context's registers.
    pub(crate) fn regs(context: &[u8]) -> Vec<u64> {
        (0..21).map(|i| u64_at(context, 520 + i * 8)).collect()
    }
}

impl Dump for Core {
    fn frames(&self) -> BTreeSet<u64> {
        self.index.keys().copied().collect()
    }

    fn page(&self, frame: u64) -> Option<Page> {
        let at = self.index.get(&frame)? * PAGE;
        Some(self.section(".xen_pages")[at..at + PAGE].to_vec().into_boxed_slice().try_into().unwrap())
    }

    fn is_there(&self, frame: u64) -> bool {
        self.page(frame).is_some()
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }
}
