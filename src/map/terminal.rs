//! The map in characters.

use super::grid::{Grid, Row, Square};
use super::{Entry, Map, Owner, bytes, hole_name, hole_short, palette};
use crate::units::{Mfn, PAGE_BYTES};
use crate::xen::hole::HoleKind;
use std::fmt::Write;

/// Rows of the map at most: with the legend, a large terminal's.
const MOST_ROWS: usize = 32;

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Characters in a line.
    pub width: usize,
    /// Whether colours may be used; nothing is told by colour alone.
    pub colour: bool,
}

/// Draws the map and its legend.
pub fn draw(map: &Map, style: Style) -> String {
    let end = map.cells.last().map_or(0, |c| c.first.0 + map.cell_pages);
    let label = address(Mfn(end)).len();
    let room = style.width.saturating_sub(label + 2).clamp(16, 128) as u64;
    let columns = if room.is_power_of_two() { room } else { room.next_power_of_two() / 2 };
    let grid = Grid::new(map, columns, MOST_ROWS);
    let mut out = String::new();
    let square = bytes(grid.square_frames);
    // Writing to a string cannot fail.
    let _ = writeln!(out, "memory of the machine{}", if map.exact { "" } else { ", estimated from a sample" });
    let _ = writeln!(out, "  each character is {square}, drawn as what has most of it");
    for row in &grid.rows {
        match row {
            Row::Squares { first, squares } => {
                let _ = write!(out, "{:>label$}  ", address(*first));
                line(map, squares, style, &mut out);
            }
            Row::Fold { first, end, hole } => {
                let what = hole.map_or("nothing there", |h| hole_name(h.kind));
                let length = bytes(end.0 - first.0);
                let _ = writeln!(out, "{:>label$}  ... {length}: {what}", address(*first));
            }
        }
    }
    legend(map, style, &mut out);
    out
}

/// A machine address, with all the digits that machines have.
fn address(mfn: Mfn) -> String {
    format!("{:#012x}", mfn.0.saturating_mul(PAGE_BYTES))
}

fn line(map: &Map, squares: &[Square], style: Style, out: &mut String) {
    let last = squares.iter().rposition(|s| *s != Square::Beyond).map_or(0, |i| i + 1);
    let mut now = None;
    for square in squares.iter().take(last) {
        let (symbol, paint) = match square {
            Square::Ram(cell) => {
                let (at, zeros) = cell.look();
                match map.legend.get(at) {
                    Some(entry) => (symbol(entry, zeros), paint(entry, zeros)),
                    None => (' ', None),
                }
            }
            Square::Hole(hole) => (hole_symbol(hole.kind), None),
            Square::Beyond => (' ', None),
        };
        if style.colour && paint != now {
            out.push_str(paint.as_deref().unwrap_or(RESET));
            now = paint;
        }
        out.push(symbol);
    }
    if now.is_some() {
        out.push_str(RESET);
    }
    out.push('\n');
}

fn symbol(entry: &Entry, zeros: bool) -> char {
    if zeros { entry.zero_symbol } else { entry.symbol }
}

fn hole_symbol(kind: HoleKind) -> char {
    match kind {
        HoleKind::Mmio => '-',
        HoleKind::Withheld => '=',
        HoleKind::Nothing => '_',
    }
}

const RESET: &str = "\x1b[0m";

/// The escape sequence for an entry: its colour behind the character, of the 256 that terminals know. What is free has the
/// terminal's own.
fn paint(entry: &Entry, zeros: bool) -> Option<String> {
    if entry.owner == Owner::Free {
        return None;
    }
    let own = palette::colour(entry.owner);
    let back = if zeros { palette::lighter(own) } else { own };
    let part = |shift: u32| back >> shift & 0xff;
    // By the eye's weights, in thousandths.
    let bright = part(16) * 299 + part(8) * 587 + part(0) * 114 > 140_000;
    // The steps of the cube are 0, 95, and then 40 each.
    let step = |shift| if part(shift) < 48 { 0 } else { (part(shift).max(95) - 75 + 20) / 40 };
    let index = 16 + 36 * step(16) + 6 * step(8) + step(0);
    Some(format!("\x1b[48;5;{index}m\x1b[38;5;{}m", if bright { 16 } else { 231 }))
}

fn legend(map: &Map, style: Style, out: &mut String) {
    let width = map.legend.iter().map(|e| e.name.len()).max().unwrap_or(0).max(16);
    let percent = |n: u64, of: u64| if of == 0 { 0.0 } else { n as f64 * 100.0 / of as f64 };
    let heads = ["pages", "size", "of RAM", "zero", "of these"];
    let [pages, size, all, zero, own] = heads;
    let _ = writeln!(out, "\n{:7}{:<width$} {pages:>10} {size:>10} {all:>8} {zero:>10} {own:>8}", "", "");
    let mut row = |mark: [String; 2], name: &str, pages: u64, zero: u64| {
        let [plain, light] = mark;
        let (size, all, own) = (bytes(pages), percent(pages, map.pages), percent(zero, pages));
        let _ = writeln!(
            out,
            "  {plain} {light}  {name:<width$} {pages:>10} {size:>10} {all:>6.1} % {zero:>10} {own:>6.1} %"
        );
    };
    for entry in &map.legend {
        let mark = [false, true].map(|zeros| match paint(entry, zeros).filter(|_| style.colour) {
            Some(paint) => format!("{paint}{}{RESET}", symbol(entry, zeros)),
            None => symbol(entry, zeros).to_string(),
        });
        row(mark, &entry.name, entry.pages, entry.zero);
    }
    row([" ".into(), " ".into()], "all RAM", map.pages, map.zero);
    for (kind, pages) in &map.holes {
        let (name, size) = (hole_short(*kind), bytes(*pages));
        let _ = writeln!(out, "  {}    {name:<width$} {pages:>10} {size:>10}", hole_symbol(*kind));
    }
    let _ = writeln!(out, "  the second character stands where more than half of these pages are zeros");
    if map.holes.contains_key(&HoleKind::Withheld) {
        let _ = writeln!(out, "  withheld: {}", hole_name(HoleKind::Withheld));
    }
    if map.unread > 0 {
        let _ = writeln!(out, "  {} pages are missing from the dump, and do not count as zeros", map.unread);
    }
}
