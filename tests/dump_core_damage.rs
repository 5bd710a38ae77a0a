//! Damaged files of `xl dump-core`: every length, every byte but those of pages flipped, and lists that lie. Whatever comes,
//! it is an error or an answer; never a panic, an endless loop or a huge allocation.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::dump::{PAGE, Page};
use support::xc_core::{self, Domain};
use xdump_cut::Error;
use xdump_cut::error::Kind;
use xdump_cut::info::Info;
use xdump_cut::linux::Kernel;
use xdump_cut::plan::Plan;
use xdump_cut::plan::selection::Selection;
use xdump_cut::units::{Mfn, Pfn};
use xdump_cut::xen::vcpu::{VcpuState, vcpus};
use xdump_cut::xen::{Host, P2m};

/// MFN of PFN 0; the others follow downwards.
const TOP: u64 = 0x1234;
const SHARED_INFO: u64 = 0x777;

/// Eight pages: tables of four levels on PFN 1 to 4, a start_info on PFN 5.
fn domain(translated: bool) -> Domain {
    let mut pages: Vec<(u64, u64, Page)> = (0..8)
        .map(|pfn| (pfn, if translated { pfn } else { TOP - pfn }, vec![pfn as u8; PAGE].try_into().unwrap()))
        .collect();
    let mut tables = [(1, 0, 2), (2, 0, 3), (3, 0, 4), (4, 7, 6), (4, 8, SHARED_INFO), (4, 9, 0x5555)].into_iter();
    (1..=4).for_each(|pfn: usize| pages[pfn].2.fill(0));
    tables.by_ref().for_each(|(table, slot, to): (usize, usize, u64)| {
        let frame = if to < 8 { pages[to as usize].1 } else { to };
        pages[table].2[slot * 8..slot * 8 + 8].copy_from_slice(&(frame << 12 | 0x67).to_le_bytes());
    });
    pages[5].2.fill(0);
    pages[5].2[..14].copy_from_slice(b"xen-3.0-x86_64");
    pages[5].2[40..48].copy_from_slice(&(SHARED_INFO << 12).to_le_bytes());
    let mut regs = [0; 21];
    (regs[16], regs[17], regs[18], regs[19], regs[20]) =
        (0xffff_ffff_8100_1234, 0xe033, 0x246, 0xffff_c900_0000_1000, 0xe02b);
    let root = pages[1].1;
    let mut shared_info: Page = vec![0; PAGE].try_into().unwrap();
    shared_info[0xc10..0xc18].copy_from_slice(&8_u64.to_le_bytes());
    Domain { pages, vcpus: vec![(regs, root), (regs, root)], shared_info, translated }
}

/// Tables, pages of the plan, and one more than the highest PFN.
type Seen = (Vec<(Pfn, u8)>, u64, Pfn);

/// What a cut reads before it writes.
fn read_all(bytes: &Vec<u8>) -> Result<Seen, Error> {
    let (core, mem) = xdump_cut::source::read(bytes)?;
    let host = Host::open(&mem, &core)?;
    let domain = host.alone().unwrap_or(&host.domains[0]);
    let p2m = P2m::read(&host, domain)?;
    vcpus(&host, &[domain]);
    Kernel::find(&host, domain, &p2m);
    let tables: Vec<_> =
        p2m.tables.iter().map(|t| xdump_cut::plan::tables::Table { pfn: t.0, level: t.1, by_xen: true }).collect();
    let choice = Selection {
        tables,
        excluded: Default::default(),
        applied: xdump_cut::plan::level::Level::NOTHING,
        reasons: Vec::new(),
        doubts: Vec::new(),
        processes: 0,
        order: Default::default(),
    };
    let plan = Plan::new(&host, domain, &p2m, choice);
    Ok((p2m.tables.clone(), plan.pages(), plan.end()))
}

#[test]
fn a_sound_one() {
    let bytes = xc_core::write(&domain(false));
    let tables = (1..=4).map(|pfn| (Pfn(pfn), 5 - pfn as u8)).collect();
    // The shared info stands behind the last page.
    assert_eq!(read_all(&bytes).unwrap(), (tables, 9, Pfn(9)));
    let (core, mem) = xdump_cut::source::read(&bytes).unwrap();
    assert!(mem.history().damage.is_empty(), "{}", mem.history().damage);
    assert_eq!(mem.page(Mfn(TOP - 7)).unwrap()[0], 7);
    let host = Host::open(&mem, &core).unwrap();
    assert_eq!(host.version(), "4.20.5-pre");
    let vcpus = vcpus(&host, &[host.alone().unwrap()]);
    let vcpu = &vcpus.values().next().unwrap()[1];
    assert_eq!(
        (vcpu.id, vcpu.state, vcpu.offline, vcpu.regs.unwrap().rip),
        (1, VcpuState::Told, false, 0xffff_ffff_8100_1234)
    );
    let info = Info::read(&bytes).unwrap();
    assert!(info.to_string().contains("of unknown number: PV, 9 pages"), "{info}");
    assert_eq!(read_all(&xc_core::write(&domain(true))).unwrap(), (vec![], 8, Pfn(8)));
}

#[test]
fn of_every_length() {
    for translated in [false, true] {
        let bytes = xc_core::write(&domain(translated));
        for n in 0..bytes.len() {
            if let Err(e) = read_all(&bytes[..n].to_vec()) {
                assert_eq!(e.kind(), Kind::BadInput, "{n} bytes: {e}");
            }
        }
        // The list goes first, and that is said.
        let e = read_all(&bytes[..bytes.len() - 400].to_vec()).unwrap_err().to_string();
        assert!(e.contains("cut short") || e.contains("nobody can tell which page is which"), "{e}");
    }
}

#[test]
fn with_every_byte_flipped() {
    for translated in [false, true] {
        let mut bytes = xc_core::write(&domain(translated));
        let sound = read_all(&bytes).unwrap();
        // Bytes of contexts that mean nothing here are many.
        for at in 0..bytes.len() {
            let step = if (0x1000..bytes.len() - 0x400).contains(&at) { 61 } else { 1 };
            if at % step != 0 {
                continue;
            }
            for flip in [0x01, 0x80, 0xff] {
                bytes[at] ^= flip;
                if let Err(e) = read_all(&bytes) {
                    assert_eq!(e.kind(), Kind::BadInput, "byte {at:#x}: {e}");
                }
                bytes[at] ^= flip;
            }
        }
        assert_eq!(read_all(&bytes).unwrap(), sound);
    }
}

#[test]
fn lists_that_lie() {
    let mut lying = domain(false);
    lying.pages[6].0 = 5;
    lying.pages[7].0 = u64::MAX;
    lying.pages[0].0 = 1 << 39;
    let bytes = xc_core::write(&lying);
    // PFN 1 to 5, and the shared info.
    assert_eq!(read_all(&bytes).unwrap().1, 6);
    let (core, mem) = xdump_cut::source::read(&bytes).unwrap();
    let host = Host::open(&mem, &core).unwrap();
    assert_eq!(mem.history().damage.count("make no sense"), Some(2));
    assert!(
        host.warnings.iter().any(|w| w.starts_with("1 pages that the domain owned have an empty place")),
        "{:?}",
        host.warnings
    );
    // All pages on one frame, and tables that lead to themselves.
    let mut loops = domain(false);
    loops.pages.iter_mut().for_each(|p| {
        p.1 = TOP;
        p.2.chunks_exact_mut(8).for_each(|w| w.copy_from_slice(&(TOP << 12 | 1).to_le_bytes()));
    });
    loops.vcpus.iter_mut().for_each(|v| v.1 = TOP);
    let (tables, _, _) = read_all(&xc_core::write(&loops)).unwrap();
    assert_eq!(tables, [(Pfn(0), 4)]);
}
