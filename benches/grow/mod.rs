//! Grows a real dump into one of a larger machine: more RAM, more of dom0, more domains.
//!
//! The machine's new RAM begins at 4 GiB or behind the old, and has, in order, 2 MiB blocks of frame table and M2P for what
//! is in use, such blocks for free RAM, tables, dom0's new frames, those of the new domains, and free RAM: holes of the file.
//! All free RAM has the same block of the frame table and of the M2P, mapped again and again.
//!
//! What is as on a real machine: PT_LOADs, direct map, frame table, M2P, max_page, owners, dom0's P2M as it publishes it.
//! What is not: Xen's own counters and lists of pages (tot_pages, page_list, heap) do not have the new frames, and dom0's
//! kernel does not know its new ones: no struct pages, no linear P2M.

mod fixture;
mod memory;
mod tables;

use fixture::{Fixture, INFO, Info, Kind, Pv};
use memory::Memory;
use std::path::Path;
use tables::{Stock, Tables};
use xdump_cut::units::PAGE_BYTES;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const GIB: u64 = 1 << 30;
/// Frames per GiB.
const GIB_FRAMES: u64 = GIB / PAGE_BYTES;
/// Frames in 2 MiB.
const LARGE: u64 = 512;
/// Frames whose entries fill 2 MiB of the frame table, and of the M2P.
const PER_TABLE: u64 = (2 << 20) / INFO as u64;
const PER_M2P: u64 = (2 << 20) / 8;
/// Xen: RDWR_MPT_VIRT_START and RO_MPT_VIRT_START.
const M2P: [u64; 2] = [0xffff_8280_0000_0000, 0xffff_8000_0000_0000];
/// Entries of a page of the P2M's tree.
const FAN: u64 = 512;
/// In the shared info: arch.max_pfn with the top of the tree behind it, arch.p2m_cr3.
const MAX_PFN: u64 = 0xc10;
const P2M_CR3: u64 = 0xc28;
/// Of a new page: percent of zeros, page cache, processes' and the kernel's own.
const SHARES: [(Option<Kind>, u64); 4] =
    [(None, 25), (Some(Kind::Cache), 35), (Some(Kind::User), 20), (Some(Kind::Kernel), 20)];

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Bytes of RAM; rounded up to whole GiB of new RAM.
    pub(crate) machine: u64,
    /// Bytes of dom0; no less than the fixture's.
    pub(crate) dom0: Option<u64>,
    /// New domains, and bytes of each.
    pub(crate) domains: u16,
    pub(crate) domain: u64,
    /// Frames of dom0's that follow each other on the machine.
    pub(crate) run: u64,
}

/// Frames of a domain's in the new RAM, and the pages of its P2M's tree among them: the last ones.
#[derive(Clone, Debug)]
struct Share {
    first: u64,
    frames: u64,
    /// First new PFN.
    pfn: u64,
    owner: u64,
    run: u64,
}

impl Share {
    /// The frame of the n-th page: runs stand in reverse order, as Xen allocates from above.
    fn frame(&self, n: u64) -> u64 {
        let (runs, run) = (self.frames / self.run, n / self.run);
        if run < runs { self.first + (runs - 1 - run) * self.run + n % self.run } else { self.first + n }
    }

    /// The number of the page that has a frame.
    fn page(&self, mfn: u64) -> u64 {
        let (runs, n) = (self.frames / self.run, mfn - self.first);
        let run = n / self.run;
        if run < runs { (runs - 1 - run) * self.run + n % self.run } else { n }
    }

    fn leaves(&self) -> u64 {
        self.frames.div_ceil(FAN)
    }
}

/// Makes the dump.
///
/// # Errors
/// What cannot be grown, and why.
pub(crate) fn grow(fixture: &Path, out: &Path, wish: &Wish) -> Result<()> {
    let seed = Fixture::read(fixture)?;
    let mut memory = Memory::copy(&*seed.source, out)?;
    let start = (memory.end().max(4 * GIB).next_multiple_of(GIB)) / PAGE_BYTES;
    let more = wish.machine.saturating_sub(memory.len()).div_ceil(GIB) * GIB;
    let end = start + more / PAGE_BYTES;
    memory.add(start * PAGE_BYTES, more)?;
    let mut machine = Machine::new(&seed, &memory, start, end, wish)?;
    machine.map()?;
    machine.account()?;
    machine.fill()?;
    machine.chain()
}

struct Machine<'a> {
    seed: &'a Fixture,
    memory: &'a Memory,
    start: u64,
    end: u64,
    /// First frames of the blocks.
    infos: u64,
    m2p: u64,
    free_infos: u64,
    free_m2p: u64,
    tables: Tables<'a>,
    /// Frame of each new domain's struct and shared info, two of each.
    structs: u64,
    shares: Vec<Share>,
    /// Where free RAM begins.
    free: u64,
}

impl<'a> Machine<'a> {
    /// Lays it out.
    fn new(seed: &'a Fixture, memory: &'a Memory, start: u64, end: u64, wish: &Wish) -> Result<Self> {
        let dom0 = seed.pv.first().ok_or("no PV dom0")?;
        let asked = wish.dom0.unwrap_or(0).div_ceil(PAGE_BYTES).saturating_sub(seed.dom0_pages);
        let (domains, each) = (u64::from(wish.domains), wish.domain.div_ceil(PAGE_BYTES));
        // A domain's tree: the top, middle pages, leaves.
        let each = each + each.div_ceil(FAN) + each.div_ceil(FAN * FAN) + 2;
        let wanted = asked + domains * (each + 2);
        // Tables: of the direct map, the frame table and the M2P, each with its neighbours.
        let spare = 16 + (end - start) / GIB_FRAMES / 16;
        let mut blocks = 0;
        while blocks < (wanted + spare + (blocks + 2) * LARGE).div_ceil(PER_TABLE) * 2 {
            blocks = (wanted + spare + (blocks + 2) * LARGE).div_ceil(PER_TABLE) * 2;
        }
        let (infos, half) = (start, blocks / 2 * LARGE);
        let m2p = infos + half;
        let free_infos = m2p + half;
        let free_m2p = free_infos + LARGE;
        let stock = Stock { next: free_m2p + LARGE, end: free_m2p + LARGE + spare };
        let structs = stock.end;
        let mut next = structs + 2 * domains;
        let mut shares = Vec::new();
        let mut share = |frames: u64, pfn: u64, owner: u64, run: u64| {
            shares.push(Share { first: next, frames, pfn, owner, run: run.max(1) });
            next += frames;
        };
        share(asked, dom0.max_pfn.next_multiple_of(FAN), dom0.owner, wish.run);
        for n in 0..domains {
            share(each, 0, structs + 2 * n, FAN);
        }
        if next > end {
            let why = format!("{} MiB of new RAM are needed", (next - start) >> 8);
            return Err(format!("the machine is too small: {why}").into());
        }
        let tables = Tables { memory, root: seed.root, stock };
        Ok(Self { seed, memory, start, end, infos, m2p, free_infos, free_m2p, tables, structs, shares, free: next })
    }

    /// Maps the direct map, the frame table and the M2P of the new RAM.
    fn map(&mut self) -> Result<()> {
        let (start, end) = (self.start, self.end);
        let flags = self.tables.flags(self.seed.direct_map)?;
        for mfn in (start..end).step_by(GIB_FRAMES as usize) {
            self.tables.map(self.seed.direct_map + mfn * PAGE_BYTES, mfn, 3, flags)?;
        }
        let flags = self.tables.flags(self.seed.frame_table)?;
        for (n, mfn) in (0..).zip((start..end).step_by(PER_TABLE as usize)) {
            let block = if mfn < self.free { self.infos + n * LARGE } else { self.free_infos };
            self.tables.map(self.seed.frame_table + mfn * INFO as u64, block, 2, flags)?;
        }
        for base in M2P {
            let flags = self.tables.flags(base)?;
            for (n, mfn) in (0..).zip((start..end).step_by(PER_M2P as usize)) {
                let block = if mfn < self.free { self.m2p + n * LARGE } else { self.free_m2p };
                self.tables.map(base + mfn * 8, block, 2, flags)?;
            }
        }
        // PV domains' L4 tables have copies of Xen's entries.
        for mfn in (start..end).step_by((512 * GIB_FRAMES) as usize).chain([end - 1]) {
            let (index, entry) = self.tables.slot(self.seed.direct_map + mfn * PAGE_BYTES)?;
            for root in &self.seed.roots {
                self.memory.set_word(root * PAGE_BYTES + index * 8, entry)?;
            }
        }
        self.memory.set_word(self.seed.max_page, end)
    }

    /// Says of each new frame whose it is.
    fn account(&self) -> Result<()> {
        let seed = self.seed;
        let put = |first: u64, infos: &[Info]| {
            self.memory.write(self.infos * PAGE_BYTES + (first - self.start) * INFO as u64, &infos.concat())
        };
        put(self.start, &vec![seed.xens; (self.structs - self.start) as usize])?;
        let model = self.model();
        for (n, share) in (0..).zip(self.shares.iter().skip(1)) {
            for (at, addr) in [(0, model.domain), (1, model.shared_info)] {
                let mut info = Info::default();
                self.memory.read(self.info_of(addr / PAGE_BYTES)?, &mut info)?;
                if at == 1 {
                    info[24..28].copy_from_slice(&(share.owner as u32).to_le_bytes());
                }
                info[..8].fill(0xff);
                put(self.structs + 2 * n + at, &[info])?;
            }
        }
        for share in &self.shares {
            let mut info = seed.domains;
            info[24..28].copy_from_slice(&(share.owner as u32).to_le_bytes());
            put(share.first, &vec![info; share.frames as usize])?;
            let pfns: Vec<u64> =
                (share.first..share.first + share.frames).map(|mfn| share.pfn + share.page(mfn)).collect();
            self.memory.set_words(self.m2p * PAGE_BYTES + (share.first - self.start) * 8, &pfns)?;
        }
        let block_end = self.start + (self.free - self.start).next_multiple_of(PER_TABLE);
        put(self.free, &vec![seed.free; (block_end - self.free) as usize])?;
        let m2p_end = self.start + (self.free - self.start).next_multiple_of(PER_M2P);
        let invalid = |from: u64, to: u64| {
            self.memory
                .set_words(self.m2p * PAGE_BYTES + (from - self.start) * 8, &vec![u64::MAX; (to - from) as usize])
        };
        invalid(self.start, self.shares[0].first)?;
        invalid(self.free, m2p_end)?;
        self.memory.write(self.free_infos * PAGE_BYTES, &vec![seed.free; PER_TABLE as usize].concat())?;
        self.memory.set_words(self.free_m2p * PAGE_BYTES, &vec![u64::MAX; PER_M2P as usize])
    }

    /// Machine address of an entry of the fixture's frame table.
    fn info_of(&self, mfn: u64) -> Result<u64> {
        self.tables.find(self.seed.frame_table + mfn * INFO as u64)
    }

    /// The domain that new ones are copies of: the last PV domain.
    fn model(&self) -> &Pv {
        &self.seed.pv[self.seed.pv.len() - 1]
    }

    /// Writes the domains' pages and P2Ms.
    fn fill(&self) -> Result<()> {
        let dom0 = &self.seed.pv[0];
        let share = &self.shares[0];
        if share.frames > 0 {
            // Leaves and new middle pages are the last of the new pages.
            let end = share.pfn + share.frames;
            let first_new = dom0.max_pfn.div_ceil(FAN * FAN);
            let middles = end.div_ceil(FAN * FAN).saturating_sub(first_new);
            let leaves = share.leaves();
            let data = share.frames.checked_sub(leaves + middles).ok_or("dom0 grows by less than its P2M takes")?;
            let missing = self.memory.page(self.memory.word(dom0.top * PAGE_BYTES + (FAN - 1) * 8)?)?;
            for n in 0..middles {
                let page = share.frame(data + leaves + n);
                self.memory.write(page * PAGE_BYTES, &missing)?;
                self.memory.set_word(dom0.top * PAGE_BYTES + (first_new + n) * 8, page)?;
            }
            self.tree(share, data, dom0.top)?;
            self.memory.set_word(dom0.shared_info + MAX_PFN, end)?;
            self.content(share, data)?;
        }
        for share in self.shares.iter().skip(1) {
            let (leaves, middles) = (share.leaves(), share.frames.div_ceil(FAN * FAN));
            let data = share.frames - leaves - middles - 1;
            let top = share.frame(share.frames - 1);
            let empty = [u64::MAX; FAN as usize];
            for n in 0..middles {
                self.memory.set_words(share.frame(data + leaves + n) * PAGE_BYTES, &empty)?;
            }
            self.memory.set_words(top * PAGE_BYTES, &empty)?;
            for n in 0..middles {
                self.memory.set_word(top * PAGE_BYTES + n * 8, share.frame(data + leaves + n))?;
            }
            self.tree(share, data, top)?;
            self.content(share, data)?;
        }
        Ok(())
    }

    /// Writes the leaves of a tree, from page `data` on, into its middle pages.
    fn tree(&self, share: &Share, data: u64, top: u64) -> Result<()> {
        for leaf in 0..share.leaves() {
            let first = leaf * FAN;
            let entries: Vec<u64> =
                (first..first + FAN).map(|n| if n < share.frames { share.frame(n) } else { u64::MAX }).collect();
            let page = share.frame(data + leaf);
            self.memory.set_words(page * PAGE_BYTES, &entries)?;
            let number = share.pfn / FAN + leaf;
            let middle = self.memory.word(top * PAGE_BYTES + number / FAN * 8)?;
            self.memory.set_word(middle * PAGE_BYTES + number % FAN * 8, page)?;
        }
        Ok(())
    }

    /// Copies pages of dom0's to the first `count` pages.
    fn content(&self, share: &Share, count: u64) -> Result<()> {
        for n in 0..count {
            let dice = scatter(share.owner << 32 ^ n);
            let mut percent = dice % 100;
            let kind = SHARES.iter().find(|(_, of)| match percent.checked_sub(*of) {
                Some(rest) => {
                    percent = rest;
                    false
                }
                None => true,
            });
            let Some(kind) = kind.and_then(|k| k.0) else { continue };
            let pages = self.seed.pages.get(&kind).ok_or("a kind of page is not in the fixture")?;
            self.memory.write(share.frame(n) * PAGE_BYTES, &pages[(dice >> 32) as usize % pages.len()])?;
        }
        Ok(())
    }

    /// Appends the new domains to Xen's list.
    fn chain(&self) -> Result<()> {
        let seed = self.seed;
        let model = self.model();
        let mut before = seed.last;
        for (n, share) in (0..).zip(self.shares.iter().skip(1)) {
            let (domain, shared) = (self.structs + 2 * n, self.structs + 2 * n + 1);
            let va = |mfn: u64| seed.direct_map + mfn * PAGE_BYTES;
            let mut page = self.memory.page(model.domain / PAGE_BYTES)?;
            let id = seed.last_id + 1 + n as u16;
            page[..2].copy_from_slice(&id.to_le_bytes());
            let old = va(model.shared_info / PAGE_BYTES).to_le_bytes();
            let at =
                (8..64).step_by(8).find(|at| page[*at..*at + 8] == old).ok_or("struct domain has no shared info")?;
            page[at..at + 8].copy_from_slice(&va(shared).to_le_bytes());
            let next = seed.next_at as usize;
            page[next..next + 8].fill(0);
            self.memory.write(domain * PAGE_BYTES, &page)?;
            let info = self.memory.page(model.shared_info / PAGE_BYTES)?;
            self.memory.write(shared * PAGE_BYTES, &info)?;
            let shared = shared * PAGE_BYTES;
            self.memory.set_words(shared + MAX_PFN, &[share.frames, share.frame(share.frames - 1)])?;
            self.memory.set_words(shared + P2M_CR3, &[0; 2])?;
            self.memory.set_word(before + seed.next_at, va(domain))?;
            before = domain * PAGE_BYTES;
        }
        Ok(())
    }
}

/// A number without a pattern, always the same.
fn scatter(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x7fb5_d329_728e_a185);
    let n = (n ^ n >> 27).wrapping_mul(0x81da_def4_bc2d_d44d);
    n ^ n >> 33
}
