//! The order of building, the frames' allocator, and what is left to do at the end.

use super::mem::{Frame, Mem, Owner, Rng, State, map};
use super::truth::{Dump, TableTruth, Truth, expect_entry, expect_unpinned};
use super::{Leaves, Machine, Pdx, dom0, domains, elf, xen};
use std::collections::{BTreeMap, BTreeSet};

/// Pages of each further RAM region.
pub const HIGH_PAGES: u64 = 1024;
/// A reserved range inside low RAM (ACPI NVS), whose numbers are also PFNs of dom0's RAM.
pub const RESERVED: (u64, u64) = (0x400, 0x408);
/// MFNs of machine RAM end 16 frames below the top: the last ones stay free and zero.
pub const TAIL: u64 = 16;

pub struct World {
    pub o: Machine,
    pub mem: Mem,
    pub frames: BTreeMap<u64, Frame>,
    pub m2p: BTreeMap<u64, u64>,
    /// Half-open MFN ranges of RAM.
    pub ram: Vec<(u64, u64)>,
    pub top: u64,
    pub phys_start: u64,
    pub image_mfn: u64,
    pub root: u64,
    pub large_blocks: Vec<u64>,
    heap: Vec<u64>,
    general: Vec<u64>,
    pub rng: Rng,
    pub domains: Vec<domains::Domain>,
    /// MFNs of each domU, by its PFN.
    pub domu_pages: Vec<Vec<u64>>,
    pub t: Truth,
    /// Frames that the dump must not hold, beside the crash area.
    pub dropped: BTreeSet<u64>,
    /// Live tables of dom0 by MFN: level, pinned.
    pub tables: BTreeMap<u64, (u64, bool)>,
    /// Dom0's tables that Xen takes for data: level by MFN.
    pub unpinned: BTreeMap<u64, u64>,
}

impl World {
    fn new(mut o: Machine) -> World {
        if o.leaves != Leaves::Small {
            o.ram_mib = o.ram_mib.max(32);
        }
        let top = o.ram_mib << 8;
        let phys_start = (top - 0x400) & !0x1ff;
        let image_mfn = phys_start + (o.layout.image_offset >> 12);
        let mut ram = vec![(0, 0xa0), (0x100, RESERVED.0), (RESERVED.1, top)];
        ram.extend(o.high.iter().map(|h| (*h, h + HIGH_PAGES)));
        // Frame table and M2P of each region; a large page of a translated domain.
        let hap = u64::from(o.hap.is_some());
        let blocks = if o.leaves == Leaves::Small { 0 } else { 2 + hap + 2 * o.high.len() as u64 };
        let large_blocks: Vec<u64> = (0..blocks).map(|i| phys_start - 0x200 * (i + 1)).collect();
        let crash = (top - 0x140, top - 0x100);
        let stacks = (top - 0x100, top - 0x100 + 8 * o.pcpus as u64);
        assert!(stacks.1 < top - TAIL, "too many CPUs");
        let taken = |m: &u64| {
            (image_mfn..image_mfn + xen::IMAGE_PAGES).contains(m)
                || (crash.0..crash.1).contains(m)
                || (stacks.0..stacks.1).contains(m)
        };
        let mut rng = Rng::new(o.seed);
        let mut heap: Vec<u64> = (phys_start..top - TAIL).filter(|m| !taken(m)).collect();
        let low = phys_start - 0x200 * blocks;
        let mut general: Vec<u64> = (0x100..RESERVED.0).chain(RESERVED.1..low).collect();
        for end in o.high.iter().map(|h| h + HIGH_PAGES) {
            // Part of a high region is Xen's heap, so that `_domain` holds PDX values that are no MFNs.
            heap.extend(end - 64..end);
            general.extend(end - HIGH_PAGES..end - 64);
        }
        let general = shuffle_runs(&general, &mut rng);
        let mut w = World {
            mem: Mem::default(),
            frames: BTreeMap::new(),
            m2p: BTreeMap::new(),
            ram,
            top,
            phys_start,
            image_mfn,
            root: image_mfn + (xen::PGD_L4 >> 12),
            large_blocks,
            heap,
            general,
            rng,
            domains: Vec::new(),
            domu_pages: Vec::new(),
            t: Truth::default(),
            dropped: BTreeSet::new(),
            tables: BTreeMap::new(),
            unpinned: BTreeMap::new(),
            o,
        };
        for mfn in image_mfn..image_mfn + xen::IMAGE_PAGES {
            w.frames.insert(mfn, Frame::ANONYMOUS);
        }
        for mfn in (crash.0..crash.1).chain(w.large_blocks.iter().flat_map(|&b| b..b + 0x200)) {
            w.frames.insert(mfn, Frame::ANONYMOUS);
        }
        for mfn in stacks.0..stacks.1 {
            w.frames.insert(mfn, Frame::heap());
        }
        // The first MiB and every hole of the E820 map belong to dom_io.
        for mfn in (0..0x100).chain(RESERVED.0..RESERVED.1) {
            let frame = Frame { count: 1, ..Frame::data(Owner::DomIo) };
            w.frames.insert(mfn, frame);
        }
        w.t.crash_area = (crash.0 << 12, crash.1 << 12);
        w.t.xen_phys_start = phys_start << 12;
        w.t.pgd_l4_mfn = w.root;
        w
    }

    pub fn pdx(&self, mfn: u64) -> u64 {
        match self.o.pdx {
            Pdx::None => mfn,
            Pdx::Mask => mfn & 0xf_ffff | mfn >> 4 & !0xf_ffff,
            Pdx::Offset => {
                let region = self.o.high.iter().filter(|h| mfn >= *h & !0xf_ffff).count() as u64;
                region << 20 | mfn & 0xf_ffff
            }
        }
    }

    pub fn directmap(&self, mfn: u64) -> u64 {
        self.o.layout.directmap() + (self.pdx(mfn) << 12)
    }

    pub fn stack_mfn(&self, cpu: usize) -> u64 {
        self.top - 0x100 + 8 * cpu as u64
    }

    fn take(heap: &mut Vec<u64>, general: &mut Vec<u64>) -> u64 {
        heap.pop().or_else(|| general.pop()).expect("machine memory is used up")
    }

    /// A page of Xen's heap.
    pub fn heap_page(&mut self) -> u64 {
        let mfn = Self::take(&mut self.heap, &mut self.general);
        self.frames.insert(mfn, Frame::heap());
        mfn
    }

    /// A frame for a domain; runs of neighbours, the runs in any order.
    pub fn domain_page(&mut self) -> u64 {
        self.general.pop().expect("machine memory is used up")
    }

    pub fn map_xen(&mut self, va: u64, level: u64, entry: u64) {
        let World { mem, heap, general, frames, root, .. } = self;
        map(mem, *root, va, level, entry, 0x63, &mut |_| {
            let mfn = Self::take(heap, general);
            frames.insert(mfn, Frame::ANONYMOUS);
            mfn
        });
    }

    /// Frames that nobody took are free, in buddies whose heads carry order and links.
    fn mark_free(&mut self) {
        if self.o.no_free {
            for mfn in self.ram.clone().into_iter().flat_map(|r| r.0..r.1) {
                self.frames.entry(mfn).or_insert_with(Frame::heap);
            }
            return;
        }
        let ranges: Vec<(u64, u64)> = self.ram.iter().copied().filter(|r| r.0 >= 0x100).collect();
        for (start, end) in ranges {
            let mut mfn = start;
            while mfn < end {
                if self.frames.contains_key(&mfn) {
                    mfn += 1;
                    continue;
                }
                let mut order = 0;
                while order < 9
                    && mfn & ((2 << order) - 1) == 0
                    && mfn + (2 << order) <= end
                    && self.frames.range(mfn..mfn + (2 << order)).next().is_none()
                {
                    order += 1;
                }
                for m in mfn..mfn + (1 << order) {
                    let head = m == mfn;
                    let frame = Frame {
                        order: if head { order } else { 0 },
                        list: if head { u64::MAX } else { 0 },
                        scrub: m % 7 == 3,
                        ..Frame::free()
                    };
                    self.frames.insert(m, frame);
                    self.t.free_frames.insert(m);
                }
                mfn += 1 << order;
            }
        }
        // One offlined frame: poison, its content must not be asked for.
        if let Some(&mfn) = self.t.free_frames.iter().find(|m| *m % 64 == 5) {
            self.frames.insert(mfn, Frame { state: State::Offlined, broken: true, ..Frame::ANONYMOUS });
            self.t.free_frames.remove(&mfn);
        }
    }

    fn expect_tables(&mut self) {
        let mut rev: BTreeMap<u64, u64> = self.t.foreign.iter().map(|(&p, &m)| (m, p)).collect();
        rev.extend(self.t.dom0.iter().map(|(&p, &m)| (m, p)));
        let mut out = BTreeMap::new();
        for (&mfn, &(level, pinned)) in &self.tables {
            let page = self.mem.page(mfn);
            let entries = page
                .chunks_exact(8)
                .enumerate()
                .map(|(i, e)| {
                    let raw = u64::from_le_bytes(e.try_into().unwrap());
                    expect_entry(&self.t, &self.frames, &rev, level, i, raw)
                })
                .collect();
            out.insert(rev[&mfn], TableTruth { level, pinned, entries });
        }
        self.t.tables = out;
        for (&mfn, &level) in &self.unpinned {
            let words = self.mem.page(mfn).chunks_exact(8).map(|e| u64::from_le_bytes(e.try_into().unwrap()));
            let entries = words.map(|raw| expect_unpinned(&self.t, &rev, raw)).collect();
            self.t.unpinned.insert(rev[&mfn], TableTruth { level, pinned: false, entries });
        }
        self.t.zero_pfns =
            self.t.dom0.iter().filter(|(_, m)| self.mem.page(**m).iter().all(|&b| b == 0)).map(|(&p, _)| p).collect();
    }
}

/// Cuts `frames` into runs of 1 to 12 and puts the runs into another order: neighbours in PFN are often,
/// but not always, neighbours in MFN.
fn shuffle_runs(frames: &[u64], rng: &mut Rng) -> Vec<u64> {
    let mut runs = Vec::new();
    let mut rest = frames;
    while !rest.is_empty() {
        let n = (1 + rng.below(12) as usize).min(rest.len());
        runs.push(&rest[..n]);
        rest = &rest[n..];
    }
    for i in (1..runs.len()).rev() {
        runs.swap(i, rng.below(i as u64 + 1) as usize);
    }
    // Taken from the end, so that a run comes out ascending.
    runs.iter().flat_map(|r| r.iter().rev().copied()).collect()
}

pub fn build(o: Machine) -> Dump {
    let mut w = World::new(o);
    domains::create(&mut w);
    domains::take_domus(&mut w);
    dom0::create(&mut w);
    domains::fill_domus(&mut w);
    domains::fill_heads(&mut w);
    let cpus = domains::fill_cpus(&mut w);
    super::log::fill_xen(&mut w);
    let arrays = xen::map_all(&mut w);
    w.mark_free();
    let info = xen::fill(&mut w, &arrays);
    w.expect_tables();
    let notes = elf::Notes::new(&w, &cpus, &info);
    let saved = elf::saved_ranges(&w);
    let bytes = elf::write(&w, &notes, &saved);
    Dump { bytes, truth: w.t, mem: w.mem, frames: w.frames, saved }
}
