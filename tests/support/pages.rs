//! What dom0's kernel itself thinks of each of its pages, as drgn sees it in an output that lacks nothing
//! (tests/support/drgn_pages.py), and what follows from it: which pages a dump level leaves out.

use super::dump::{u32_at, u64_at};
use super::fixtures::Fixture;
use super::levels::{Format, at_level};
use super::tools::{run, scratch, tool};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Bits of dump levels.
pub(crate) const CACHE: u8 = 2;
pub(crate) const CACHE_PRIVATE: u8 = 4;
pub(crate) const USER: u8 = 8;
pub(crate) const FREE: u8 = 16;

/// The kernel's view of all page frames that it has a struct page for.
pub(crate) struct Pages {
    list: Vec<Page>,
    flags: BTreeMap<String, u32>,
    /// Pages with the VMCOREINFO in them.
    pub(crate) vmcoreinfo: BTreeSet<u64>,
    /// Slabs are told by a page type and not by a flag (Linux 6.10 on).
    pub(crate) slab_is_type: bool,
}

#[derive(Clone, Copy)]
struct Page {
    flags: u32,
    /// Of a compound page's head, or of a block of free pages.
    order: u32,
    /// The head of a tail.
    first: u64,
}

/// The kernel's view of the fixture; drgn is asked once in a test process.
pub(crate) fn pages(fixture: &Fixture) -> Arc<Pages> {
    type Slot = Arc<OnceLock<Arc<Pages>>>;
    static ALL: Mutex<Option<HashMap<String, Slot>>> = Mutex::new(None);
    let mut all = ALL.lock().unwrap_or_else(|e| e.into_inner());
    let slot = all.get_or_insert_default().entry(fixture.name.clone()).or_default().clone();
    drop(all);
    slot.get_or_init(|| Arc::new(Pages::ask(fixture))).clone()
}

impl Pages {
    fn ask(fixture: &Fixture) -> Self {
        let [script, out] = ["pages.py", "pages"].map(|ext| scratch().join(format!("{}.{ext}", fixture.name)));
        std::fs::write(&script, include_str!("drgn_pages.py")).unwrap();
        let mut command = Command::new(tool("drgn"));
        command.args(["-q", "--no-default-symbols", "-c"]).arg(&at_level(fixture, Format::Kdump, 0).path);
        command.arg("-s").arg(fixture.vmlinux()).arg(&script).env("PAGES_OUT", &out);
        let ran = run(&mut command, Duration::from_secs(240));
        assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
        let told: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stdout));
        let bytes = std::fs::read(&out).unwrap();
        std::fs::remove_file(out).unwrap();
        let page = |bytes: &[u8]| Page { flags: u32_at(bytes, 0), order: u32_at(bytes, 4), first: u64_at(bytes, 8) };
        let names = told["flags"].as_array().unwrap().iter().enumerate();
        Self {
            list: bytes.chunks_exact(16).map(page).collect(),
            flags: names.map(|(at, name)| (name.as_str().unwrap().to_string(), 1 << at)).collect(),
            vmcoreinfo: told["vmcoreinfo"].as_array().unwrap().iter().map(|pfn| pfn.as_u64().unwrap()).collect(),
            slab_is_type: told["slab_is_type"].as_bool().unwrap(),
        }
    }

    fn has(&self, page: Page, flag: &str) -> bool {
        page.flags & self.flags[flag] != 0
    }

    /// The frames with all of these flags, and none of those.
    pub(crate) fn with(&self, all: &[&str], none: &[&str]) -> BTreeSet<u64> {
        let numbered = (0u64..).zip(&self.list);
        let fits =
            |page: Page| all.iter().all(|flag| self.has(page, flag)) && !none.iter().any(|flag| self.has(page, flag));
        numbered.filter(|(_, page)| fits(**page)).map(|(pfn, _)| pfn).collect()
    }

    /// Does it have a struct page that could be read?
    pub(crate) fn is_known(&self, pfn: u64) -> bool {
        self.list.get(pfn as usize).is_some_and(|page| self.has(*page, "present"))
    }

    /// What a level leaves out, and as what. In this order, of single pages and the heads of compound ones:
    ///
    /// 1. 16: a block of free pages, all of it.
    /// 2. 2 and 4: cache, which is a page on an LRU list or in the swap cache that is not anonymous; 2 only without, 4
    ///    with and without private data of a file system.
    /// 3. 8: a process's, which is anonymous (merged ones too) or of hugetlb.
    /// 4. Any level: a page with bad memory, tails too; 16: an offline one.
    ///
    /// A compound page goes as a whole, and a page counts as the first of these that it is.
    pub(crate) fn left_out(&self, level: u8) -> BTreeMap<u64, &'static str> {
        let mut out = BTreeMap::new();
        for (pfn, &page) in (0u64..).zip(&self.list) {
            let is = |flag| self.has(page, flag);
            if !is("present") || out.contains_key(&pfn) {
                continue;
            }
            let (class, count) = if is("tail") {
                (None, 1)
            } else if is("buddy") {
                ((level & FREE != 0).then_some("free"), 1 << page.order)
            } else {
                (self.class_of_used(page, level), if is("head") { 1 << page.order } else { 1 })
            };
            if let Some(class) = class {
                out.extend((pfn..pfn + count).map(|pfn| (pfn, class)));
            } else if is("hwpoison") && level != 0 {
                out.insert(pfn, "hwpoison");
            } else if is("offline") && level & FREE != 0 {
                out.insert(pfn, "offline");
            }
        }
        out
    }

    fn class_of_used(&self, page: Page, level: u8) -> Option<&'static str> {
        let is = |flag| self.has(page, flag);
        let cache = (is("lru") || is("swapcache")) && !is("anon");
        let (class, bits) = match () {
            () if cache && is("private") => ("cache-private", CACHE_PRIVATE),
            () if cache => ("cache", CACHE | CACHE_PRIVATE),
            () if is("anon") || is("hugetlb") => ("user", USER),
            () => return None,
        };
        (level & bits != 0).then_some(class)
    }

    /// What is known of a frame, for telling of a difference.
    pub(crate) fn say(&self, pfn: u64) -> String {
        let names = |page: Page| -> Vec<&str> {
            self.flags.iter().filter(|(_, bit)| page.flags & *bit != 0).map(|(name, _)| name.as_str()).collect()
        };
        let Some(&page) = self.list.get(pfn as usize) else { return format!("page {pfn:#x}: no struct page") };
        let of = if page.first == pfn { Vec::new() } else { names(self.list[page.first as usize]) };
        format!("page {pfn:#x}: {:?}, order {}, of {:#x} {of:?}", names(page), page.order, page.first)
    }
}
