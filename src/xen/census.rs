//! A count of the machine's frames by class, in cells of equal size: what surveys and maps are made from.
//!
//! A whole frame table is 8 GiB per TiB of machine, and a cut must cost what the domain costs. So at most 64 MiB of it
//! are read, evenly spread; figures of a machine of more than 8 GiB are estimates and say so. Where contents are looked
//! at too, it is at those of the same frames: at most 8 GiB of the dump.
//!
//! The sample is taken from each cell by itself and scaled to it, so that sums come out exactly.

use super::class::{Class, Classifier};
use super::frame_table::Cursor;
use super::host::Host;
use crate::source::MachineMemory;
use crate::source::machine::Run;
use crate::units::{Mfn, PAGE_SIZE};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// Frames per block: a page of the frame table.
const BLOCK: u64 = 128;
/// Blocks that are read at most, but for one of each cell and each range: all of an 8 GiB machine.
const MOST_BLOCKS: u64 = 1 << 14;
/// Cells that there are at most.
pub const MOST_CELLS: u64 = 1 << 13;
/// Cells that one task counts at least, so that they share what a cursor holds.
const TASK: usize = 16;

/// Frames of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub frames: u64,
    /// Those that are all zeros; 0 if nobody looked.
    pub zero: u64,
    /// Those that the dump does not have, and so may be zeros or not.
    pub unread: u64,
}

impl Count {
    /// Adds.
    pub fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.zero += other.zero;
        self.unread += other.unread;
    }
}

/// Frames by class.
pub type Counts = BTreeMap<Class, Count>;

/// A part of the machine: as many frames as all cells have, from a multiple of that on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its first frame.
    pub first: Mfn,
    /// The frames of RAM in it.
    pub counts: Counts,
}

/// The machine's frames, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Frames per cell, RAM or not: a power of two.
    pub cell_frames: u64,
    /// The cells that have RAM, by address; [`MOST_CELLS`] at most.
    pub cells: Vec<Cell>,
    /// Whether every frame was looked at; otherwise the counts are scaled up from a sample.
    pub exact: bool,
}

/// Says whether a page is all zeros.
pub type ZeroTest = fn(&[u8]) -> bool;

impl Census {
    /// Counts; with `zero`, contents are looked at too. `advance` is told of frames that are done.
    pub fn take(host: &Host<'_>, zero: Option<ZeroTest>, advance: &(dyn Fn(u64) + Sync)) -> Self {
        let grid = Grid::new(host.memory().map().frames());
        let counter = Counter { host, classifier: Classifier::new(host), zero, step: grid.step() };
        let worker = || (host.frames.cursor(), Vec::new());
        let cells = grid.cells.par_iter().with_min_len(TASK).map_init(worker, |(cursor, buf), (index, pieces)| {
            let mut counts = Counts::new();
            for piece in grid.pieces.get(pieces.clone()).unwrap_or_default() {
                counter.piece(*piece, cursor, buf).into_iter().for_each(|(c, n)| counts.entry(c).or_default().add(n));
                advance(piece.1 - piece.0);
            }
            Cell { first: Mfn(index << grid.shift), counts }
        });
        Self { cell_frames: 1 << grid.shift, cells: cells.collect(), exact: counter.step == 1 }
    }

    /// All cells together.
    pub fn totals(&self) -> Counts {
        let mut all = Counts::new();
        for (class, count) in self.cells.iter().flat_map(|c| &c.counts) {
            all.entry(*class).or_default().add(*count);
        }
        all
    }
}

/// Cells over the machine's ranges.
#[derive(Debug, Default, PartialEq, Eq)]
struct Grid {
    /// log2 of the frames per cell.
    shift: u32,
    /// Ranges, divided where cells end: first frame and one more than the last.
    pieces: Vec<(u64, u64)>,
    /// Each cell's number, counted from frame 0, and its pieces.
    cells: Vec<(u64, Range<usize>)>,
}

impl Grid {
    /// The smallest cells of which there are not too many.
    fn new(ranges: impl Iterator<Item = (u64, u64)>) -> Self {
        let ranges: Vec<(u64, u64)> = ranges.collect();
        let too_many = |shift: u32| {
            let (mut count, mut next) = (0, 0);
            for (start, end) in &ranges {
                let last = (end - 1) >> shift;
                count += (last + 1).saturating_sub(next.max(start >> shift));
                next = last + 1;
            }
            count > MOST_CELLS
        };
        let shift = (0..52).find(|shift| !too_many(*shift)).unwrap_or(52);
        let mut grid = Self { shift, ..Self::default() };
        for (start, end) in ranges {
            let mut at = start;
            while at < end {
                let index = at >> shift;
                let upto = ((index + 1) << shift).min(end);
                let piece = grid.pieces.len();
                grid.pieces.push((at, upto));
                match grid.cells.last_mut().filter(|c| c.0 == index) {
                    Some(cell) => cell.1.end = piece + 1,
                    None => grid.cells.push((index, piece..piece + 1)),
                }
                at = upto;
            }
        }
        grid
    }

    /// Of how many blocks one is looked at.
    fn step(&self) -> u64 {
        let total: u64 = self.pieces.iter().map(|(a, b)| b - a).sum();
        total.div_ceil(BLOCK).div_ceil(MOST_BLOCKS).max(1)
    }
}

struct Counter<'a> {
    host: &'a Host<'a>,
    classifier: Classifier,
    zero: Option<ZeroTest>,
    step: u64,
}

impl Counter<'_> {
    /// Counts a piece, or a sample of it.
    fn piece(&self, (start, end): (u64, u64), cursor: &mut Cursor<'_>, buf: &mut Vec<u8>) -> Counts {
        let mut counts = Counts::new();
        let (blocks, mut k, mut seen) = ((end - start).div_ceil(BLOCK), 0, 0);
        while k < blocks {
            // Any one of the next blocks, but always the same: what is allocated in large units begins at round numbers.
            let room = self.step.min(blocks - k);
            let first = start + (k + spread(start + k) % room) * BLOCK;
            let upto = first.saturating_add(BLOCK).min(end);
            self.block(first, upto, cursor, buf, &mut counts);
            seen += upto - first;
            k = k.saturating_add(self.step);
        }
        scale(&mut counts, end - start, seen);
        counts
    }

    fn block(&self, first: u64, upto: u64, cursor: &mut Cursor<'_>, buf: &mut Vec<u8>, counts: &mut Counts) {
        let (zeros, unread) = match self.zero {
            Some(test) => zeros(self.host.memory(), first, upto, test, buf),
            None => (0, 0),
        };
        for (bit, mfn) in (first..upto).enumerate() {
            let count = counts.entry(self.classifier.class(cursor.look(Mfn(mfn)))).or_default();
            let is = |bits: u128| (bits >> bit & 1) as u64;
            count.add(Count { frames: 1, zero: is(zeros), unread: is(unread) });
        }
    }
}

/// A bit for each frame of a block that is all zeros, and for each that the dump does not have.
fn zeros(mem: &MachineMemory<'_>, first: u64, upto: u64, test: ZeroTest, buf: &mut Vec<u8>) -> (u128, u128) {
    let (mut zero, mut unread, mut at) = (0, 0, first);
    while at < upto {
        let bit = at - first;
        match mem.run(Mfn(at), (upto - at) as usize, buf) {
            Ok((Run::Zeros, n)) => {
                (0..n as u64).for_each(|i| zero |= 1 << (bit + i));
                at += n as u64;
            }
            Ok((Run::Bytes(bytes), n)) => {
                let pages = bytes.chunks_exact(PAGE_SIZE).enumerate();
                pages.for_each(|(i, page)| zero |= u128::from(test(page)) << (bit + i as u64));
                at += n as u64;
            }
            Err(_) => {
                unread |= 1 << bit;
                at += 1;
            }
        }
    }
    (zero, unread)
}

/// A number without a pattern.
fn spread(n: u64) -> u64 {
    n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// Scales counts of `seen` frames so that they are `total` together: what rounding leaves goes to those that lost most.
fn scale(counts: &mut Counts, total: u64, seen: u64) {
    if seen == 0 || seen == total {
        return;
    }
    let times = |n: u64| (u128::from(n) * u128::from(total), u128::from(seen));
    let mut lost = Vec::new();
    let mut sum = 0;
    for (class, count) in counts.iter_mut() {
        let (product, seen) = times(count.frames);
        let down = |n: u64| (times(n).0 / seen) as u64;
        (count.frames, count.zero, count.unread) = (down(count.frames), down(count.zero), down(count.unread));
        sum += count.frames;
        lost.push((product % seen, *class));
    }
    lost.sort_by_key(|(rest, class)| (std::cmp::Reverse(*rest), *class));
    for (_, class) in lost.into_iter().take(total.saturating_sub(sum) as usize) {
        counts.entry(class).or_default().frames += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cover_the_ranges_and_stay_few() {
        for ranges in [
            vec![],
            vec![(0, 1)],
            vec![(0, 0x9f), (0x100, 0xd123), (0x11123, 0x137dd)],
            vec![(0, 1 << 20), (1 << 36, (1 << 36) + 77)],
            (0..40_000).map(|i| (i << 20, (i << 20) + 3)).collect(),
            vec![((1 << 52) - 5, 1 << 52)],
        ] {
            let grid = Grid::new(ranges.iter().copied());
            assert!(grid.cells.len() as u64 <= MOST_CELLS);
            let frames = |of: &[(u64, u64)]| of.iter().map(|(a, b)| b - a).sum::<u64>();
            assert_eq!(frames(&grid.pieces), frames(&ranges));
            let mut next = 0;
            for (index, pieces) in &grid.cells {
                assert_eq!(pieces.start, next);
                next = pieces.end;
                let inside =
                    |(a, b): &(u64, u64)| a < b && a >> grid.shift == *index && (b - 1) >> grid.shift == *index;
                assert!(grid.pieces[pieces.clone()].iter().all(inside));
            }
            assert_eq!(next, grid.pieces.len());
            // Half the size would be too many.
            if grid.shift > 0 {
                let halves: std::collections::BTreeSet<u64> =
                    ranges.iter().flat_map(|(a, b)| (a >> (grid.shift - 1))..=((b - 1) >> (grid.shift - 1))).collect();
                assert!(halves.len() as u64 > MOST_CELLS);
            }
        }
    }

    #[test]
    fn scaled_counts_sum_up() {
        let of = |frames| Count { frames, zero: frames / 2, unread: 0 };
        for (parts, total) in [([1, 1, 1], 100), ([7, 0, 121], 65_537), ([128, 0, 0], 129), ([3, 5, 11], 20)] {
            let classes = [Class::Domain(0), Class::Xen, Class::Free];
            let mut counts: Counts = classes.into_iter().zip(parts.map(of)).collect();
            scale(&mut counts, total, parts.iter().sum());
            assert_eq!(counts.values().map(|c| c.frames).sum::<u64>(), total);
            assert!(counts.values().all(|c| c.zero <= c.frames));
        }
    }
}
