//! Machine memory: pages by MFN, what Xen knows of each frame, page-table writing.

use std::collections::BTreeMap;

pub const PAGE: usize = 4096;
pub type Page = [u8; PAGE];
pub const ZERO_PAGE: Page = [0; PAGE];

/// Frame number bits of an x86_64 page-table entry; bit 52 up belongs to software and NX.
pub const PTE_FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Pages that were written; all others are zero.
#[derive(Clone, Default)]
pub struct Mem {
    pub pages: BTreeMap<u64, Box<Page>>,
}

impl Mem {
    pub fn page(&self, mfn: u64) -> &Page {
        self.pages.get(&mfn).map_or(&ZERO_PAGE, |p| p)
    }

    pub fn page_mut(&mut self, mfn: u64) -> &mut Page {
        self.pages.entry(mfn).or_insert_with(|| Box::new(ZERO_PAGE))
    }

    pub fn clear(&mut self, mfn: u64) {
        self.pages.remove(&mfn);
    }

    /// Writes at a machine address; may run over frames.
    pub fn write(&mut self, ma: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = ma + done as u64;
            let off = (at & 0xfff) as usize;
            let n = (PAGE - off).min(bytes.len() - done);
            self.page_mut(at >> 12)[off..off + n].copy_from_slice(&bytes[done..done + n]);
            done += n;
        }
    }

    pub fn w16(&mut self, ma: u64, v: u16) {
        self.write(ma, &v.to_le_bytes());
    }

    pub fn w32(&mut self, ma: u64, v: u32) {
        self.write(ma, &v.to_le_bytes());
    }

    pub fn w64(&mut self, ma: u64, v: u64) {
        self.write(ma, &v.to_le_bytes());
    }

    pub fn r64(&self, ma: u64) -> u64 {
        let off = (ma & 0xff8) as usize;
        u64::from_le_bytes(self.page(ma >> 12)[off..off + 8].try_into().unwrap())
    }
}

/// xorshift64*: the same machine for the same seed.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

/// Recognisable content of a guest page: a name at its start, then words that only this page has.
pub fn pattern_page(domain: u64, pfn: u64) -> Page {
    let mut page = ZERO_PAGE;
    let mut rng = Rng::new((domain << 40) ^ pfn ^ 0x5eed_0000_0000);
    for word in page.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next().to_le_bytes());
    }
    let name = format!("SYNTH-dom{domain}-PFN-{pfn:08x};");
    page[..name.len()].copy_from_slice(name.as_bytes());
    page
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    None,
    /// Index in the machine's list of domains.
    Dom(usize),
    DomXen,
    DomIo,
}

/// PGC_state: 0 in use, 1 offlining, 2 offlined, 3 free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    InUse = 0,
    Offlining = 1,
    Offlined = 2,
    Free = 3,
}

/// One struct page_info in meaning; bits are put together by [`super::xen`].
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub state: State,
    pub allocated: bool,
    pub xen_heap: bool,
    pub broken: bool,
    /// Free frames: PGC_need_scrub, wherever this hypervisor has it.
    pub scrub: bool,
    /// Further bits of count_info; those are set that the hypervisor has.
    pub other: u64,
    pub count: u64,
    pub kind: u64,
    pub pinned: bool,
    pub validated: bool,
    pub type_count: u64,
    pub owner: Owner,
    /// Left-over order or the order of a free buddy, in the word of `_domain`.
    pub order: u32,
    pub list: u64,
}

impl Frame {
    pub const ANONYMOUS: Frame = Frame {
        state: State::InUse,
        allocated: false,
        xen_heap: false,
        broken: false,
        scrub: false,
        other: 0,
        count: 0,
        kind: 0,
        pinned: false,
        validated: false,
        type_count: 0,
        owner: Owner::None,
        order: 0,
        list: 0,
    };

    pub fn free() -> Frame {
        Frame { state: State::Free, ..Self::ANONYMOUS }
    }

    /// Xen's own heap: seen as 0x4000000000000000 with no owner.
    pub fn heap() -> Frame {
        Frame { xen_heap: true, ..Self::ANONYMOUS }
    }

    /// Heap page shared with a domain (shared_info, grant frames): 0xc000000000000002, writable.
    pub fn shared(owner: Owner) -> Frame {
        Frame { xen_heap: true, ..Self::data(owner) }
    }

    pub fn data(owner: Owner) -> Frame {
        Frame { allocated: true, count: 2, kind: 7, validated: true, type_count: 1, owner, ..Self::ANONYMOUS }
    }

    pub fn table(owner: Owner, level: u64, pinned: bool) -> Frame {
        Frame { kind: level, pinned, count: 3, ..Self::data(owner) }
    }
}

/// Writes one leaf at `level` (1: 4 KiB, 2: 2 MiB, 3: 1 GiB) into a four-level tree; `table` gives the
/// frame of a new table of the level it is asked for. Answers the machine address of the entry.
pub fn map(
    mem: &mut Mem,
    root: u64,
    va: u64,
    level: u64,
    entry: u64,
    table_flags: u64,
    table: &mut dyn FnMut(u64) -> u64,
) -> u64 {
    let mut mfn = root;
    for l in (level..=4).rev() {
        let slot = (mfn << 12) + ((va >> (12 + 9 * (l - 1))) & 511) * 8;
        if l == level {
            mem.w64(slot, entry);
            return slot;
        }
        let old = mem.r64(slot);
        mfn = if old & 1 == 1 {
            (old & PTE_FRAME) >> 12
        } else {
            let new = table(l - 1);
            mem.clear(new);
            mem.page_mut(new);
            mem.w64(slot, new << 12 | table_flags);
            new
        };
    }
    unreachable!("levels end at the leaf")
}
