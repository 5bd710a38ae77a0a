//! The map of machines that are not at hand: every layout of the frame table against what their writer states, machines
//! that are too large to look at in full, and drawings that must stay readable.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod synth;

use std::collections::{BTreeMap, BTreeSet};
use synth::mem::{Owner, State};
use synth::{Defect, Dump, Machine, Xen};
use xdump_cut::info::Info;
use xdump_cut::map::grid::{Grid, Row, Square};
use xdump_cut::map::{Map, svg, terminal};
use xdump_cut::pipeline::Silent;
use xdump_cut::source::{MachineMemory, Vmcore};
use xdump_cut::units::Mfn;
use xdump_cut::xen::Host;
use xdump_cut::xen::census::{Cell, Census, Count, Counts};
use xdump_cut::xen::class::Class;
use xdump_cut::xen::hole::{Hole, HoleKind};
use xdump_cut::xen::survey::Survey;
use xdump_cut::zero::is_zero;

/// Counts the machine's frames; every count must sum up.
fn census(bytes: &Vec<u8>) -> Census {
    let mut core = Vmcore::parse(bytes).unwrap();
    let mem = MachineMemory::new(bytes, core.take_segments());
    let host = Host::open(&mem, &core).unwrap();
    let census = Census::take(&host, Some(is_zero), &|_| ());
    let frames: u64 = mem.map().frames().map(|(a, b)| b - a).sum();
    let totals = census.totals();
    assert_eq!(totals.values().map(|n| n.frames).sum::<u64>(), frames);
    assert!(totals.values().all(|n| n.zero + n.unread <= n.frames), "{totals:?}");
    // Whoever looks at no contents counts the same frames.
    assert_eq!(Survey::take(&host), Survey::of(&census));
    let map = Map::take(&host, &Silent);
    assert_eq!(map.pages, frames);
    sums_up(&map);
    census
}

/// Cells, runs and legend say the same.
fn sums_up(map: &Map) {
    let mut sums = vec![(0, 0); map.legend.len()];
    for part in map.cells.iter().flat_map(|c| &c.parts) {
        sums[part.entry] = (sums[part.entry].0 + part.frames, sums[part.entry].1 + part.zero);
    }
    assert_eq!(sums, map.legend.iter().map(|e| (e.pages, e.zero)).collect::<Vec<_>>());
    assert_eq!(sums.iter().map(|s| s.0).sum::<u64>(), map.pages);
    assert!(map.legend.iter().all(|e| e.pages > 0));
    assert_eq!(map.runs.iter().map(|r| r.cells).sum::<u64>(), map.cells.len() as u64);
    for (columns, rows) in [(16, 10), (64, 32), (128, 64)] {
        let grid = Grid::new(map, columns, rows);
        assert!(grid.rows.len() <= rows, "{} rows", grid.rows.len());
        let mut frames = 0;
        for row in &grid.rows {
            let Row::Squares { squares, .. } = row else { continue };
            assert_eq!(squares.len() as u64, columns);
            let ram = squares.iter().filter_map(|s| if let Square::Ram(cell) = s { Some(cell) } else { None });
            frames += ram.flat_map(|c| &c.parts).map(|p| p.frames).sum::<u64>();
        }
        assert_eq!(frames, map.pages);
    }
}

/// Frames and zero frames of each class as the machine's writer states them.
fn stated(dump: &Dump) -> BTreeMap<Class, (u64, u64)> {
    let mut all = BTreeMap::new();
    for mfn in dump.saved.iter().flat_map(|(start, end)| start.div_ceil(4096)..end / 4096) {
        let id = |i: usize| dump.truth.domains[i].0;
        let class = match dump.frames.get(&mfn) {
            None => Class::NoEntry,
            Some(f) => match (f.state, f.owner) {
                (State::Free, _) => Class::Free,
                (State::Offlined, _) => Class::Offline,
                (_, Owner::None | Owner::DomXen) => Class::Xen,
                (_, Owner::DomIo) => Class::Io,
                (_, Owner::Dom(i)) if f.xen_heap => Class::XenHeap(id(i)),
                (_, Owner::Dom(i)) => Class::Domain(id(i)),
            },
        };
        let sum: &mut (u64, u64) = all.entry(class).or_default();
        *sum = (sum.0 + 1, sum.1 + u64::from(dump.page(mfn).iter().all(|b| *b == 0)));
    }
    all
}

fn counted(census: &Census) -> BTreeMap<Class, (u64, u64)> {
    census.totals().into_iter().map(|(class, n)| (class, (n.frames, n.zero))).collect()
}

#[test]
fn each_frame_is_what_the_machine_says() {
    let of = Machine::new;
    let machines = Xen::ALL.into_iter().map(|xen| (format!("{xen:?}"), of().xen(xen)));
    let others = [
        ("PDX hole", of().pdx_hole(true)),
        ("many domains", of().domus(6).domu_pages(128)),
        ("many PT_LOADs", of().with_elf(|e| (e.loads, e.unsorted) = (40, true))),
        ("p_memsz", of().with_elf(|e| e.memsz_only = 8)),
        ("none free", of().no_free(true)),
    ];
    for (name, machine) in machines.chain(others.map(|(name, machine)| (name.to_string(), machine))) {
        let dump = machine.build();
        let census = census(&dump.bytes);
        assert!(census.exact, "{name}");
        assert_eq!(counted(&census), stated(&dump), "{name}");
    }
}

#[test]
fn what_cannot_be_told_is_a_class_too() {
    let dump = Machine::new().defect(Defect::FrameTableAbsent).build();
    let all = counted(&census(&dump.bytes));
    assert!(all[&Class::NoEntry].0 >= 128, "{all:?}");
    // Headers promise more than the file has: that is not read as zeros.
    let whole = Machine::new().build().bytes;
    let short = enlarged(enlarged(whole.clone(), P_FILESZ, 64 * 4096), P_MEMSZ, 64 * 4096);
    let (sound, damaged) = (census(&whole).totals(), census(&short).totals());
    let sum = |counts: &Counts, of: fn(&Count) -> u64| counts.values().map(of).sum::<u64>();
    assert_eq!(sum(&damaged, |n| n.frames), sum(&sound, |n| n.frames) + 64);
    assert_eq!((sum(&sound, |n| n.unread), sum(&damaged, |n| n.unread)), (0, 64));
    assert_eq!(sum(&damaged, |n| n.zero), sum(&sound, |n| n.zero));
    let info = Info::read_with(&short, None, Some(&Silent)).unwrap();
    assert!(terminal::draw(info.map.as_ref().unwrap(), STYLE).contains("64 pages are missing from the dump"));
}

const P_FILESZ: usize = 32;
const P_MEMSZ: usize = 40;

/// The PT_LOAD of the highest memory claims `more` bytes.
fn enlarged(mut bytes: Vec<u8>, field: usize, more: u64) -> Vec<u8> {
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (start, count) = (word(&bytes, 32) as usize, usize::from(u16::from_le_bytes([bytes[56], bytes[57]])));
    let loads = (0..count).map(|i| start + i * 56).filter(|at| bytes[*at..at + 4] == [1, 0, 0, 0]);
    let last = loads.max_by_key(|at| word(&bytes, at + 24)).unwrap() + field;
    let size = word(&bytes, last) + more;
    bytes[last..last + 8].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// A machine of more than 8 GiB is sampled; it sums up all the same.
#[test]
fn a_large_machine_is_estimated() {
    let small = Machine::new().build();
    let stated = stated(&small);
    for more in [64_u64 << 30, (1 << 40) + 4096 * 77] {
        let large = census(&enlarged(small.bytes.clone(), P_MEMSZ, more));
        let all = counted(&large);
        assert!(!large.exact && large.cells.len() as u64 <= xdump_cut::xen::census::MOST_CELLS);
        // Behind the machine's end there are neither entries nor anything but zeros. A cell is 8 MiB and more.
        let (frames, zero) = all[&Class::NoEntry];
        assert!(frames.abs_diff(more / 4096) <= 2 * large.cell_frames && frames == zero, "{frames} {zero}");
        if more < 1 << 40 {
            assert!(all.keys().any(|class| stated.contains_key(class) && *class != Class::NoEntry), "{all:?}");
        }
    }
    let info = Info::read_with(&enlarged(small.bytes, P_MEMSZ, 64 << 30), None, Some(&Silent)).unwrap();
    assert!(!info.pages.exact && terminal::draw(info.map.as_ref().unwrap(), STYLE).contains("estimated from a sample"));
}

/// Headers may claim anything.
#[test]
fn claims_beyond_reason_are_drawn_too() {
    let bytes = Machine::new().build().bytes;
    for more in [1 << 50, 1 << 62, (1 << 63) + 12345, u64::MAX - (1 << 31)] {
        let bytes = enlarged(bytes.clone(), P_MEMSZ, more);
        let all = census(&bytes).totals();
        assert!(all.values().map(|n| n.frames).sum::<u64>() >= more / 4096, "{all:?}");
        let map = Info::read_with(&bytes, None, Some(&Silent)).unwrap().map.unwrap();
        assert!(terminal::draw(&map, STYLE).lines().count() < 60 && svg::draw(&map).len() < 1 << 20);
    }
}

const STYLE: terminal::Style = terminal::Style { width: 80, colour: false };

/// The map of a machine that was never there: 1 TiB behind a hole of 64 TiB, 40 domains.
fn large() -> Map {
    let size = 1 << 15;
    let count = |frames, zero| Count { frames, zero, unread: 0 };
    let cell = |i: u64, first: u64| {
        let one = Class::Domain((i % 41) as u16);
        let counts = [(one, count(size - 1000 - i % 41, i * 3)), (Class::XenHeap(3), count(1000 + i % 41, 5))];
        Cell { first: Mfn(first), counts: counts.into_iter().collect() }
    };
    let low = (0..24).map(|i| cell(i, i * size));
    let high = (24..8192).map(|i| cell(i, (1 << 34) + i * size));
    let census = Census { cell_frames: size, cells: low.chain(high).collect(), exact: true };
    let hole = |first, end, kind| Hole { first: Mfn(first), end: Mfn(end), kind };
    let holes = vec![hole(24 * size, 1 << 20, HoleKind::Mmio), hole(1 << 20, (1 << 34) + 24 * size, HoleKind::Nothing)];
    Map::new(&census, Some(0), holes)
}

#[test]
fn a_huge_hole_is_folded_and_many_domains_share_an_entry() {
    let map = large();
    sums_up(&map);
    let text = terminal::draw(&map, STYLE);
    assert!(text.lines().count() < 70 && text.contains("TiB: nothing there"), "{text}");
    assert!(text.contains("dom0  ") && text.contains("20 smaller domains"), "{text}");
    let symbols: BTreeSet<char> = map.legend.iter().flat_map(|e| [e.symbol, e.zero_symbol]).collect();
    assert_eq!(symbols.len(), 2 * map.legend.len(), "a character for each");
    let picture = svg::draw(&map);
    assert!(picture.len() < 4 << 20 && picture.matches("<rect").count() < 8192 + 100, "{}", picture.len());
    assert_eq!(picture, svg::draw(&large()));
}

/// Colour alone tells nothing: without it the same characters are left.
#[test]
fn colour_adds_nothing_but_colour() {
    let map = large();
    let coloured = terminal::draw(&map, terminal::Style { colour: true, ..STYLE });
    let mut rest = coloured.as_str();
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert!(coloured != plain && plain == terminal::draw(&map, STYLE));
    for width in [0, 1, 40, 79, 200, usize::MAX] {
        let text = terminal::draw(&map, terminal::Style { width, colour: false });
        let label = text.lines().find_map(|l| l.starts_with("0x").then(|| l.find("  ").unwrap() + 2)).unwrap();
        let long = text.lines().filter(|l| l.starts_with("0x") && !l.contains("...")).map(str::len).max().unwrap();
        assert!(long <= width.clamp(label + 16, label + 128), "{width}: {long}");
    }
}

/// A version string is the dump's, and anything may stand in it.
#[test]
fn words_of_the_dump_cannot_break_the_picture() {
    let map = Map { xen: "4.17</title><script>\u{1b}&\u{ffff}\"".into(), ..large() };
    let picture = svg::draw(&map);
    assert!(!picture.contains("script>") && !picture.contains('\u{1b}') && !picture.contains('&'));
    // Nor can a dump without a single frame.
    let empty = Map::new(&Census { cell_frames: 1, cells: Vec::new(), exact: true }, None, Vec::new());
    assert!(svg::draw(&empty).ends_with("</svg>\n") && terminal::draw(&empty, STYLE).contains("all RAM"));
}
