//! The map in rows, as many as fit: cells joined, and long holes folded.

use super::{Cell, Map};
use crate::units::Mfn;
use crate::xen::hole::Hole;

/// The rows of a map.
#[derive(Debug)]
pub struct Grid {
    /// Frames per square, a power of two.
    pub square_frames: u64,
    /// Squares per row.
    pub columns: u64,
    /// The rows, by address.
    pub rows: Vec<Row>,
}

/// A row.
#[derive(Debug)]
pub enum Row {
    /// Squares, of which at least one has RAM.
    Squares {
        /// The first frame: a multiple of the row's length.
        first: Mfn,
        /// As many as the grid has columns.
        squares: Vec<Square>,
    },
    /// One or more rows' worth without RAM.
    Fold {
        /// The first frame of it.
        first: Mfn,
        /// The frame behind it.
        end: Mfn,
        /// The hole that it is a part of.
        hole: Option<Hole>,
    },
}

/// A square of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Square {
    /// RAM.
    Ram(Cell),
    /// None.
    Hole(Hole),
    /// Behind the end of RAM.
    Beyond,
}

impl Grid {
    /// Lays a map out: the smallest squares that make no more than `most_rows` rows. `columns` is a power of two.
    pub fn new(map: &Map, columns: u64, most_rows: usize) -> Self {
        let columns = columns.clamp(1, 1 << 12).next_power_of_two();
        let mut square = map.cell_pages;
        while square < 1 << 52 && count(map, square * columns) > most_rows {
            square *= 2;
        }
        let mut grid = Self { square_frames: square, columns, rows: Vec::new() };
        let row_frames = square * columns;
        let mut next = 0;
        for cells in map.cells.chunk_by(|a, b| a.first.0 / row_frames == b.first.0 / row_frames) {
            let Some(start) = cells.first().map(|c| c.first.0 - c.first.0 % row_frames) else { continue };
            if next < start {
                let (first, end) = (Mfn(next), Mfn(start));
                grid.rows.push(Row::Fold { first, end, hole: map.hole(first).copied() });
            }
            grid.rows.push(Row::Squares { first: Mfn(start), squares: grid.squares(map, cells, start) });
            next = start + row_frames;
        }
        grid
    }

    fn squares(&self, map: &Map, cells: &[Cell], start: u64) -> Vec<Square> {
        let mut joined: Vec<Cell> = Vec::new();
        for cell in cells {
            let first = Mfn(cell.first.0 - cell.first.0 % self.square_frames);
            match joined.last_mut().filter(|c| c.first == first) {
                Some(there) => there.absorb(cell),
                None => joined.push(Cell { first, parts: cell.parts.clone() }),
            }
        }
        let mut joined = joined.into_iter().peekable();
        let square = |i| {
            let first = Mfn(start + i * self.square_frames);
            match joined.next_if(|c| c.first == first) {
                Some(cell) => Square::Ram(cell),
                None => map.hole(first).map_or(Square::Beyond, |hole| Square::Hole(*hole)),
            }
        };
        (0..self.columns).map(square).collect()
    }
}

/// The rows that rows of so many frames make.
fn count(map: &Map, row_frames: u64) -> usize {
    let (mut rows, mut next) = (0, 0);
    for cell in &map.cells {
        let row = cell.first.0 / row_frames;
        if row >= next {
            rows += 1 + usize::from(row > next);
            next = row + 1;
        }
    }
    rows
}
