//! Which pages stay and which of them are page tables, from all that the kernel tells of itself.

use super::filter::{Excluded, exclude};
use super::level::Level;
use super::order::Order;
use super::tables::Table;
use crate::bitmap::Bitmap;
use crate::linux::kernel::Landmarks;
use crate::linux::mm::{Class, MemMap};
use crate::linux::names::Names;
use crate::linux::{Found, Kernel, pgds};
use crate::units::{Pfn, VirtAddr};
use crate::xen::P2m;

/// What is known of the domain's kernel.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its address space, if any page table maps a kernel.
    pub kernel: Option<&'a Kernel<'a>>,
    /// Its VMCOREINFO, if one was believed.
    pub found: Option<&'a Found>,
    /// Where its variables are.
    pub names: Option<&'a Names<'a>>,
    /// What its image points to.
    pub landmarks: &'a Landmarks,
}

/// The choice.
#[derive(Clone, Debug)]
pub struct Selection {
    /// All page tables, by PFN.
    pub tables: Vec<Table>,
    /// Pages that leave for what they are.
    pub excluded: Excluded,
    /// The part of the level that could be applied.
    pub applied: Level,
    /// Why the rest could not.
    pub reasons: Vec<String>,
    /// What was doubtful.
    pub doubts: Vec<String>,
    /// Processes whose page tables were looked for.
    pub processes: u64,
    /// Which pages come first, if anybody wants to know.
    pub order: Order,
}

impl Selection {
    /// Chooses at `level`; with `ordered`, also which pages come first.
    pub fn make(known: &Known<'_>, p2m: &P2m, level: Level, ordered: bool) -> Self {
        let by_xen = |t: &(Pfn, u8)| Table { pfn: t.0, level: t.1, by_xen: true };
        let mut choice = Self {
            tables: p2m.tables.iter().map(by_xen).collect(),
            excluded: Excluded::default(),
            applied: level.zeros_only(),
            reasons: Vec::new(),
            doubts: Vec::new(),
            processes: 0,
            order: Order::default(),
        };
        let map = match open_map(known) {
            Ok(map) => map,
            Err(why) => {
                if level.needs_memory_map() {
                    choice.reasons.push(why);
                }
                return choice;
            }
        };
        // The tables of a translated domain hold PFNs already.
        if !p2m.translated {
            choice.unpinned(known, &map, p2m);
        }
        choice.applied = level;
        for class in Class::ALL.into_iter().filter(|c| level.drops(*c)) {
            if let Some(why) = map.layout.gap(class) {
                choice.applied = choice.applied.without(class);
                choice.reasons.push(why.into());
            }
        }
        // At level 1 only bad memory is looked for, which not every kernel can tell.
        if choice.applied.needs_memory_map() || (level != Level::NOTHING && map.layout.hwpoison.is_some()) {
            choice.excluded = exclude(&map, p2m, &choice.guard(known, p2m), choice.applied);
        }
        if let Some(kernel) = known.kernel.filter(|_| ordered) {
            choice.order = Order::new(kernel, &map, p2m, (choice.applied, &choice.excluded));
        }
        // Its use is over.
        choice.excluded.reserved = Bitmap::default();
        choice
    }

    /// Why the level could not be applied in full, if it could not.
    pub fn shortfall(&self, asked: Level) -> Option<String> {
        let unreadable = self.excluded.unreadable;
        if self.applied != asked {
            Some(self.reasons.join("; "))
        } else {
            (unreadable > 0).then(|| format!("the struct pages of {unreadable} pages cannot be read"))
        }
    }

    /// Adds the tables of processes that were being made.
    fn unpinned(&mut self, known: &Known<'_>, map: &MemMap<'_>, p2m: &P2m) {
        let list = known.names.and_then(|n| n.get("pgd_list"));
        let (Some(kernel), Some(list)) = (known.kernel, list) else {
            let whose = if p2m.by_walk { "on no CPU" } else { "being made or ended" };
            let why = format!("pgd_list was not found; page tables of processes that were {whose} keep machine frames");
            self.doubts.push(why);
            return;
        };
        let found = pgds::unpinned(kernel, map, list, &p2m.tables);
        self.processes = found.processes;
        if found.broken {
            self.doubts.push(format!(
                "the list of page tables at pgd_list, {list}, is broken after {} processes; tables of ones behind that were just being made keep machine frames",
                found.processes
            ));
        }
        let mut tables = found.tables;
        if p2m.by_walk {
            // Pinned, but where the P2M has no hole, no table leads to them (arch/x86/xen/p2m.c).
            let pointers = ["p2m_missing_pte", "p2m_identity_pte"].map(|n| known.names.and_then(|names| names.get(n)));
            let shared =
                pointers.into_iter().flatten().filter_map(|at| kernel.space.read_u64("a shared table", at).ok());
            let shared = shared.filter_map(|va| kernel.pfn(VirtAddr(va)));
            tables.extend(
                shared.filter(|pfn| p2m.tables.binary_search_by_key(pfn, |t| t.0).is_err()).map(|pfn| (pfn, 1)),
            );
        }
        self.tables.extend(tables.iter().map(|(pfn, level)| Table { pfn: *pfn, level: *level, by_xen: false }));
        self.tables.sort_unstable();
    }

    /// Pages that never leave, whatever their struct page says.
    fn guard(&self, known: &Known<'_>, p2m: &P2m) -> Vec<Pfn> {
        let start_info = known.landmarks.start_info.and_then(|va| known.kernel?.pfn(va));
        let note = known.found.map(|f| f.pages.as_slice()).unwrap_or_default();
        let other_notes = known.landmarks.notes.iter().filter_map(|va| known.kernel?.pfn(*va));
        let tree = p2m.tree.iter().filter_map(|mfn| p2m.pfn(*mfn));
        let tables = self.tables.iter().map(|t| t.pfn);
        let mut all: Vec<Pfn> =
            tables.chain(tree).chain(start_info).chain(note.iter().copied()).chain(other_notes).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn open_map<'a>(known: &Known<'a>) -> Result<MemMap<'a>, String> {
    let kernel = known.kernel.ok_or("no page table of the domain maps a kernel")?;
    let found = known.found.ok_or("the kernel's VMCOREINFO was not found, or not believed")?;
    MemMap::open(kernel, &found.info, known.names.and_then(|n| n.get("free_huge_page")))
}
