//! The hypervisor's own memory: image variables, directmap, frame table, M2P.

use super::build::{HIGH_PAGES, World};
use super::mem::{Frame, Owner, State};
use super::vmcoreinfo::{XenSymbols, xen_text};
use super::{Defect, Leaves};

pub const IMAGE_PAGES: u64 = 64;
pub const M2P: u64 = 0xffff_8280_0000_0000;
/// RO_MPT, what guests see of the M2P in slot 256.
pub const M2P_GUEST: u64 = 0xffff_8000_0000_0000;

/// Places in the image, from its first byte.
const FRAME_TABLE_PTR: u64 = 0x2858;
const DOM_IO: u64 = 0x3840;
const DOM_XEN: u64 = 0x3848;
const STRINGS: u64 = 0x4490;
const MAX_PAGE: u64 = 0x52f0;
/// xen_compile_date; the others behind it, 16 bytes apart.
const VERSION_CODE: u64 = 0x1000;
pub const BUILD_ID: u64 = 0x4800;
const DOMAIN_LIST: u64 = 0x7380;
pub const PGD_L4: u64 = 0x10000;
/// Some function that the CPUs stopped in (nmi_shootdown_cpus, do_nmi_crash).
pub const STOPPED_AT: u64 = 0x1ed72;

/// One RAM region's piece of the frame table.
pub struct Array {
    pub start: u64,
    pub end: u64,
    pub frame_table: Vec<u64>,
}

/// What the notes need of the image.
pub struct ImageInfo {
    pub vmcoreinfo: String,
    /// Machine addresses of extra version, changeset, compiler, date, time.
    pub strings: [u64; 5],
}

impl World {
    pub fn image_va(&self, off: u64) -> u64 {
        self.o.layout.virt_start + self.o.layout.image_offset + off
    }

    pub fn image_ma(&self, off: u64) -> u64 {
        (self.image_mfn << 12) + off
    }

    /// Maps `pages` zeroed pages at `va`: 2 MiB blocks if `large`.
    fn map_array(&mut self, va: u64, pages: u64, fill: u8) -> Vec<u64> {
        let mut mfns = Vec::new();
        if self.o.leaves == Leaves::Small {
            for i in 0..pages {
                let mfn = self.heap_page();
                self.map_xen(va + i * 4096, 1, mfn << 12 | 0x8000_0000_0000_0163);
                mfns.push(mfn);
            }
        } else {
            let block = self.large_blocks.pop().unwrap();
            self.map_xen(va, 2, block << 12 | 0x8000_0000_0000_01e3);
            mfns.extend(block..block + pages);
        }
        for &mfn in &mfns {
            self.frames.insert(mfn, Frame::ANONYMOUS);
            self.mem.page_mut(mfn).fill(fill);
        }
        mfns
    }
}

/// Everything in pgd_l4, before the remaining frames are called free.
pub fn map_all(w: &mut World) -> Vec<Array> {
    // Image: P|A|G, writable where data is.
    if w.o.leaves == Leaves::Small {
        for i in 0..IMAGE_PAGES {
            let flags = if i < 2 { 0x121 } else { 0x8000_0000_0000_0163 };
            w.map_xen(w.image_va(i << 12), 1, (w.image_mfn + i) << 12 | flags);
        }
    } else {
        w.map_xen(w.image_va(0) & !0x1f_ffff, 2, (w.image_mfn & !0x1ff) << 12 | 0x1e3);
    }
    let regions = w.ram.clone();
    match w.o.leaves {
        Leaves::Small => {
            for mfn in regions.iter().flat_map(|r| r.0..r.1) {
                w.map_xen(w.directmap(mfn), 1, mfn << 12 | 0x8000_0000_0000_0163);
            }
        }
        Leaves::Large => {
            for mfn in 0..0x200 {
                w.map_xen(w.directmap(mfn), 1, mfn << 12 | 0x63);
            }
            let high: Vec<u64> = w.o.high.iter().flat_map(|h| (*h..h + HIGH_PAGES).step_by(0x200)).collect();
            for mfn in (0x200..w.top).step_by(0x200).chain(high) {
                w.map_xen(w.directmap(mfn), 2, mfn << 12 | 0x8000_0000_0000_01e3);
            }
        }
        Leaves::Huge => {
            for mfn in [vec![0], w.o.high.clone()].concat() {
                w.map_xen(w.directmap(mfn), 3, mfn << 12 | 0x8000_0000_0000_01e3);
            }
        }
    }
    // Slot 258 leads back to the table itself.
    let root = w.root;
    w.mem.w64((root << 12) + 258 * 8, root << 12 | 0x8000_0000_0000_0063);
    let mut regions = vec![(0, w.top)];
    regions.extend(w.o.high.iter().map(|h| (*h, h + HIGH_PAGES)));
    let mut arrays = Vec::new();
    for (start, end) in regions {
        // The tail stays all ones: "no page".
        let size = w.o.layout.page_info().0;
        let va = w.o.layout.frame_table() + w.pdx(start) * size;
        let frame_table = w.map_array(va, ((end - start) * size).div_ceil(4096), 0xff);
        // M2P is indexed by MFN, whatever the PDX.
        let m2p = w.map_array(M2P + start * 8, (end - start).div_ceil(512), 0xff);
        for (i, &mfn) in m2p.iter().enumerate() {
            w.map_xen(M2P_GUEST + start * 8 + i as u64 * 4096, 1, mfn << 12 | 0x25);
            w.frames.insert(mfn, Frame { kind: 0, count: 1, ..Frame::shared(Owner::DomXen) });
            for k in 0..512 {
                let of = start + i as u64 * 512 + k;
                let known = w.m2p.get(&of).copied().filter(|_| !w.o.m2p_unset);
                let value = known.unwrap_or(u64::MAX);
                w.mem.w64((mfn << 12) + k * 8, value);
            }
        }
        arrays.push(Array { start, end, frame_table });
    }
    arrays
}

/// Page state and flags, by version of the bits.
fn count_info(w: &World, f: &Frame) -> u64 {
    let broken = if w.o.layout.state_shift == 55 { 57 } else { 60 };
    u64::from(f.allocated) << 63
        | u64::from(f.scrub) << w.o.layout.scrub_bit
        | f.other & w.o.layout.other_bits
        | u64::from(f.xen_heap) << 62
        | u64::from(f.broken) << broken
        | (f.state as u64) << w.o.layout.state_shift
        | f.count
}

fn type_info(w: &World, f: &Frame) -> u64 {
    if f.state == State::Free {
        // first_dirty and need_tlbflush of a buddy's head.
        return if f.list == u64::MAX { 0x7_ffff } else { 0 };
    }
    let locked = u64::from(w.o.locked_l3 && f.kind == 3) << 60;
    locked | f.kind << w.o.layout.type_shift | u64::from(f.pinned) << 59 | u64::from(f.validated) << 58 | f.type_count
}

/// Frame table and the image's variables.
pub fn fill(w: &mut World, arrays: &[Array]) -> ImageInfo {
    for Array { start, end, frame_table } in arrays {
        let known: Vec<(u64, Frame)> = w.frames.range(start..end).map(|(&mfn, f)| (mfn, *f)).collect();
        for (of, frame) in known {
            for (i, word) in page_info(w, &frame).into_iter().enumerate() {
                // Words do not run over a page's edge, entries of 48 bytes do.
                let at = (of - start) * w.o.layout.page_info().0 + i as u64 * 8;
                w.mem.w64((frame_table[(at >> 12) as usize] << 12) + (at & 0xfff), word);
            }
        }
    }
    frame_table_defects(w, &arrays[0].frame_table);
    image_variables(w, arrays.last().unwrap().end)
}

/// struct page_info: list (two u32; two u64 in BIGMEM builds), count_info, type_info, _domain, tlbflush_timestamp.
fn page_info(w: &World, f: &Frame) -> Vec<u64> {
    let owner = owner_word(w, f);
    let (count, kind) = (count_info(w, f), type_info(w, f));
    if w.o.layout.bigmem { vec![f.list, f.list, count, kind, owner, 0] } else { vec![f.list, count, kind, owner] }
}

/// `_domain` is the PDX of struct domain; free heads and old heap pages have an order there.
fn owner_word(w: &World, f: &Frame) -> u64 {
    let mfn = match f.owner {
        Owner::None => return f.order.into(),
        Owner::Dom(d) => w.domains[d].mfn,
        Owner::DomXen => w.domains.iter().find(|d| d.id == 0x7ff2).unwrap().mfn,
        Owner::DomIo => w.domains.iter().find(|d| d.id == 0x7ff1).unwrap().mfn,
    };
    let pdx = w.pdx(mfn);
    assert!(w.o.layout.bigmem || pdx >> 32 == 0, "too much memory for struct page_info of 32 bytes");
    pdx
}

fn frame_table_defects(w: &mut World, low: &[u64]) {
    // The page that tells of the most frames of dom0.
    let count = |i: u64| w.t.dom0.values().filter(|m| *m / 128 == i).count();
    let worst = (0..low.len() as u64).max_by_key(|&i| count(i)).unwrap();
    let hit = |w: &World| w.t.dom0.iter().filter(|(_, m)| *m / 128 == worst).map(|(&p, _)| p).collect();
    if w.o.has(Defect::FrameTableUnmapped) {
        assert!(w.o.leaves == Leaves::Small && !w.o.layout.bigmem);
        w.map_xen(w.o.layout.frame_table() + worst * 4096, 1, 0);
        w.t.defect_pfns = hit(w);
    }
    if w.o.has(Defect::FrameTableAbsent) {
        w.dropped.insert(low[worst as usize]);
        w.t.defect_pfns = hit(w);
    }
}

fn image_variables(w: &mut World, max_page: u64) -> ImageInfo {
    for i in 0..0x2000 / 8 {
        let word = w.rng.next();
        w.mem.w64(w.image_ma(i * 8), word);
    }
    let by_id = |w: &World, id: u16| {
        let mfn = w.domains.iter().find(|d| d.id == id).unwrap().mfn;
        w.directmap(mfn)
    };
    (w.t.dom_xen, w.t.dom_io) = (by_id(w, 0x7ff2), by_id(w, 0x7ff1));
    let first = w.directmap(w.domains[0].mfn);
    for (off, value) in [
        (DOMAIN_LIST, first),
        (FRAME_TABLE_PTR, w.o.layout.frame_table()),
        (MAX_PAGE, max_page),
        (DOM_XEN, w.t.dom_xen),
        (DOM_IO, w.t.dom_io),
    ] {
        w.mem.w64(w.image_ma(off), value);
    }
    (w.t.frame_table, w.t.max_page) = (w.o.layout.frame_table(), max_page);
    let mut at = w.image_ma(STRINGS);
    let strings = [w.o.layout.extra, "", "gcc (Synth 12.2.0-14) 12.2.0", "Wed Nov  4 16:52:28 UTC 2026", "16:52:28"]
        .map(|s| {
            let here = at;
            w.mem.write(at, s.as_bytes());
            at += s.len() as u64 + 1;
            here
        });
    version_code(w, strings);
    let id: Vec<u8> = (0..20).map(|_| w.rng.next() as u8).collect();
    let build_id = [&[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0][..], b"GNU\0", &id].concat();
    w.mem.write(w.image_ma(BUILD_ID), &build_id);
    let vmcoreinfo = xen_text(&XenSymbols {
        domain_list: w.image_va(DOMAIN_LIST),
        frame_table: w.image_va(FRAME_TABLE_PTR),
        max_page: w.image_va(MAX_PAGE),
        dom_xen: w.image_va(DOM_XEN),
        dom_io: w.image_va(DOM_IO),
        pgd_l4: w.image_va(PGD_L4),
        next_in_list: w.o.layout.next_in_list,
        page_info: w.o.layout.page_info(),
    });
    w.t.vmcoreinfo_xen.clone_from(&vmcoreinfo);
    ImageInfo { vmcoreinfo, strings }
}

/// Xen's common/version.c as gcc compiles it: date, time, by, domain, host, (deny,) compiler, major, minor, extra, changeset.
fn version_code(w: &mut World, [extra, changeset, compiler, date, time]: [u64; 5]) {
    let functions =
        [date, time, time, time, time, time, compiler, w.o.layout.major, w.o.layout.minor, extra, changeset];
    for (i, value) in functions.into_iter().enumerate() {
        let at = VERSION_CODE + i as u64 * 16;
        let mut code = if value < 100 {
            [&[0xb8][..], &(value as u32).to_le_bytes()].concat()
        } else {
            let here = w.image_ma(at) + 7;
            [&[0x48, 0x8d, 0x05][..], &((value as i64 - here as i64) as i32).to_le_bytes()].concat()
        };
        code.push(0xc3);
        code.resize(16, 0x90);
        w.mem.write(w.image_ma(at), &code);
    }
}
