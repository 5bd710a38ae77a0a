//! A domU as a translated domain: the tables that its hardware walks, written as each version of Xen writes them.

use super::Leaves;
use super::build::World;
use super::mem::{Frame, Owner, map, pattern_page};

/// How to write them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Npt42,
    Npt40,
    /// Since 4.6, with accessed and dirty bits, recalculation, suppressed #VE.
    Ept46,
    Ept42,
    Ept41,
    Ept40,
}

impl Format {
    pub const ALL: [Format; 6] =
        [Format::Npt42, Format::Npt40, Format::Ept46, Format::Ept42, Format::Ept41, Format::Ept40];

    fn is_npt(self) -> bool {
        matches!(self, Format::Npt42 | Format::Npt40)
    }

    fn blank(self) -> u64 {
        if self == Format::Ept46 { 1 << 63 } else { 0 }
    }

    fn leaf(self, mfn: u64, kind: Type, large: bool) -> u64 {
        let modern = matches!(self, Format::Npt42 | Format::Ept46 | Format::Ept42);
        let n = match kind {
            Type::Ram => u64::from(!modern),
            Type::Invalid => u64::from(modern),
            Type::LogDirty => 2,
            Type::Direct => 5,
            Type::PopulateOnDemand => 6,
            Type::Grant => 7,
            Type::Foreign => 14,
        };
        let present = !matches!(kind, Type::PopulateOnDemand | Type::Invalid);
        let low = match (self.is_npt(), present) {
            (_, false) => 0,
            (true, true) => 0x67,
            // write-back, read, write, execute; accessed and dirty
            (false, true) => 0x37 | if self == Format::Ept46 { 0x300 } else { 0 },
        };
        let high = match self {
            Format::Npt42 => n << 52,
            Format::Npt40 => (n & 7) << 9 | n >> 3 << 52,
            Format::Ept46 => 1 << 63 | 7 << 58 | n << 52,
            Format::Ept42 | Format::Ept41 => 7 << 58 | n << 52,
            Format::Ept40 => n << 8,
        };
        mfn << 12 | low | high | u64::from(large) << 7
    }

    fn upper(self, recalculate: bool) -> u64 {
        match (self.is_npt(), recalculate) {
            (true, false) => 0x67,
            (true, true) => 0x63,
            (false, false) => 7,
            (false, true) => 0x3f,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Ram,
    Invalid,
    LogDirty,
    Direct,
    PopulateOnDemand,
    Grant,
    Foreign,
}

/// A domU that is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hap {
    pub format: Format,
    /// struct domain holds the root itself, and the domain owns its tables (Xen before 4.1 and 4.10).
    pub old: bool,
    /// Loops, tables outside the machine and in the domain's own memory, large pages of others' memory.
    pub damaged: bool,
}

/// GFNs of what is no ordinary page; those of the shared info, of a large page, of a grant and of a foreign frame.
pub const SHARED_INFO: u64 = 0xf_f000;
pub const LARGE: u64 = 0x4000;
pub const GRANT: u64 = 0x8000;
pub const FOREIGN: u64 = 0x8001;
/// Devices: where the machine has it, and elsewhere.
pub const DIRECT: u64 = 0xf_ee00;
pub const MOVED: u64 = 0xf_ef00;
/// A stretch that was never populated.
pub const EMPTY: std::ops::Range<u64> = 20..24;

struct Tables<'w> {
    w: &'w mut World,
    hap: Hap,
    owner: Owner,
    root: u64,
}

impl Tables<'_> {
    fn page(&mut self) -> u64 {
        table(self.w, self.hap, self.owner)
    }

    fn put(&mut self, gfn: u64, level: u64, entry: u64) {
        let (hap, owner, root) = (self.hap, self.owner, self.root);
        let mut mem = std::mem::take(&mut self.w.mem);
        let mut new = Vec::new();
        // found by bit 0, which both formats set in what leads to a table
        map(&mut mem, root, gfn << 12, level, entry, hap.format.upper(false), &mut |_| {
            new.push(table(self.w, hap, owner));
            *new.last().unwrap()
        });
        self.w.mem = mem;
        // a blank entry is not zero in each version
        let blank = self.hap.format.blank();
        for mfn in new {
            for i in (0..512).filter(|_| blank != 0) {
                if self.w.mem.r64((mfn << 12) + i * 8) == 0 {
                    self.w.mem.w64((mfn << 12) + i * 8, blank);
                }
            }
        }
    }

    fn leaf(&mut self, gfn: u64, mfn: u64, kind: Type) {
        let entry = self.hap.format.leaf(mfn, kind, false);
        self.put(gfn, 1, entry);
    }
}

fn table(w: &mut World, hap: Hap, owner: Owner) -> u64 {
    let mfn = w.heap_page();
    let frame = if hap.old { Frame { owner, count: 1, ..Frame::ANONYMOUS } } else { Frame::ANONYMOUS };
    w.frames.insert(mfn, frame);
    w.mem.page_mut(mfn);
    mfn
}

/// Makes domU `d` a translated one.
pub fn fill(w: &mut World, d: usize, hap: Hap) {
    let owner = Owner::Dom(d);
    let shared = w.domains[d].shared_info;
    for off in [0xc10, 0xc18, 0xc28, 0xc30] {
        w.mem.w64((shared << 12) + off, 0);
    }
    let pages = w.domu_pages[d - 1].clone();
    for (pfn, &mfn) in pages.iter().enumerate() {
        w.frames.insert(mfn, Frame::data(owner));
        *w.mem.page_mut(mfn) = pattern_page(d as u64, pfn as u64);
    }
    let root = table(w, hap, owner);
    let strangers: Vec<u64> = w.t.dom0.values().copied().take(3).collect();
    let mut t = Tables { w, hap, owner, root };
    for (gfn, &mfn) in pages.iter().enumerate() {
        let gfn = gfn as u64;
        if EMPTY.contains(&gfn) {
            t.w.m2p.remove(&mfn);
            t.leaf(gfn, 0, Type::PopulateOnDemand);
        } else {
            t.leaf(gfn, mfn, if gfn % 16 == 9 { Type::LogDirty } else { Type::Ram });
        }
    }
    t.leaf(pages.len() as u64 + 1, 0, Type::Invalid);
    t.leaf(SHARED_INFO, shared, Type::Ram);
    t.w.m2p.insert(shared, SHARED_INFO);
    t.leaf(GRANT, strangers[0], Type::Grant);
    if matches!(hap.format, Format::Npt42 | Format::Ept42 | Format::Ept46) {
        t.leaf(FOREIGN, strangers[1], Type::Foreign);
    }
    t.leaf(DIRECT, DIRECT, Type::Direct);
    t.leaf(MOVED, DIRECT + 1, Type::Direct);
    if t.w.o.leaves != Leaves::Small {
        let block = t.w.large_blocks.remove(0);
        let entry = hap.format.leaf(block, Type::Ram, true);
        t.put(LARGE, 2, entry);
        for i in 0..512 {
            t.w.frames.insert(block + i, Frame::data(owner));
            t.w.m2p.insert(block + i, LARGE + i);
            t.w.t.domu_frames.insert(block + i, d);
            *t.w.mem.page_mut(block + i) = pattern_page(d as u64, LARGE + i);
        }
    }
    // The second GiB is to be recalculated: nothing in it, but its table is there.
    let (below, upper) = (t.page(), hap.format.upper(true));
    t.put(1 << 18, 3, below << 12 | upper);
    if hap.damaged {
        damage(&mut t, &pages, strangers[2]);
    }
    let (mfn, va) = (t.w.domains[d].mfn, t.w.directmap(t.w.domains[d].mfn));
    if hap.old {
        t.w.mem.w64((mfn << 12) + 0x440, root);
        return;
    }
    // struct p2m_domain: a lock, the root, the domain; and one of a nested view that is empty.
    for (at, root, used) in [(0x440, root, true), (0x448, 0, false)] {
        let object = t.w.heap_page();
        let object_va = t.w.directmap(object) + 0x240;
        t.w.mem.w64((mfn << 12) + at, object_va);
        let base = (object << 12) + 0x240;
        for (off, value) in [(0x10, 0x1_0000), (0x20, root), (0x30, va), (0x90, u64::from(used) << 20)] {
            t.w.mem.w64(base + off, value);
        }
        // A PV domain has one too, without a root, and the allocator puts the two side by side.
        if used {
            let (pv, pv_va) = (t.w.domains[0].mfn, t.w.directmap(t.w.domains[0].mfn));
            t.w.mem.w64((pv << 12) + at, object_va - 0x200);
            t.w.mem.w64(base - 0x200 + 0x30, pv_va);
        }
    }
}

/// What no Xen writes.
fn damage(t: &mut Tables<'_>, pages: &[u64], stranger: u64) {
    let (root, upper) = (t.root, t.hap.format.upper(false));
    // the table of the third GiB is the root, that of the fourth is in the domain's own memory, of the fifth nowhere
    t.put(2 << 18, 3, root << 12 | upper);
    t.put(3 << 18, 3, pages[7] << 12 | upper);
    t.put(4 << 18, 3, 0xff_ffff << 12 | upper);
    // large pages: of all memory, whosever it is, and of none
    for (gfn, mfn) in [(0xa000, 0x200), (0xa200, 0x7fff_fe00)] {
        let entry = t.hap.format.leaf(mfn, Type::Ram, true);
        t.put(gfn, 2, entry);
    }
    // another domain's page as this one's
    t.leaf(0x9000, stranger, Type::Ram);
}
