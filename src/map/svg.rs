//! The map as a picture: one SVG file that needs nothing else, the same for the same map.
//!
//! Lighter shades are zeros. Each rectangle has a title, which browsers show under the pointer and screen readers read.

use super::grid::{Grid, Row, Square};
use super::{Cell, Entry, Map, bytes, hole_name, palette};
use crate::units::{Mfn, PAGE_BYTES};
use crate::xen::hole::{Hole, HoleKind};
use std::fmt::{Display, Write};

/// Squares per row. With the rows this bounds the number of rectangles to 8192.
const COLUMNS: u64 = 128;
/// Rows at most.
const MOST_ROWS: usize = 64;
/// Of a square, and what a row takes.
const SQUARE: u64 = 7;
const ROW: u64 = 11;
/// Where rows begin, and how wide they are.
const LEFT: u64 = 128;
const WIDTH: u64 = COLUMNS * SQUARE;
/// Where the first row begins, and how high a line of the legend is.
const TOP: u64 = 112;
const LINE: u64 = 21;
/// Where the bar is that shows everyone's share.
const BAR: u64 = 72;
/// Where the legend's numbers end: pages, size, share, zero pages, share of zeros.
const ENDS: [u64; 5] = [480, 590, 690, 805, 896];

const STYLE: &str = "text{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:13px;fill:#1d2327}\
.h{font-size:20px;font-weight:600}.s{fill:#5b646d;font-size:12px}.n{text-anchor:end}\
.a{font-family:ui-monospace,'DejaVu Sans Mono',monospace;font-size:10px;fill:#5b646d;text-anchor:end}\
.g{font-size:9px;fill:#5b646d}.b{font-weight:600}";

/// Draws the map and its legend.
pub fn draw(map: &Map) -> String {
    let grid = Grid::new(map, COLUMNS, MOST_ROWS);
    let below = TOP + grid.rows.len() as u64 * ROW + 34;
    let lines = map.legend.len() + map.holes.len() + 2 + usize::from(map.unread > 0);
    let (width, height) = (LEFT + WIDTH + 24, below + lines as u64 * LINE + 16);
    let title = format!("Memory of a Xen {} machine, {} of RAM", plain(&map.xen), bytes(map.pages));
    let mut out = String::new();
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"title desc\">"
    );
    let _ = writeln!(out, "<title id=\"title\">{title}</title>");
    let _ = writeln!(out, "<desc id=\"desc\">{}</desc>", described(map));
    let _ = writeln!(out, "<style>{STYLE}</style>");
    patterns(&mut out);
    let _ = writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>");
    text(&mut out, 24, 34, "h", &title);
    let sure = if map.exact { "" } else { "; estimated from a sample" };
    let square = bytes(grid.square_frames);
    let row = bytes(grid.square_frames.saturating_mul(COLUMNS));
    let about = format!(
        "each square is {square}, a row {row}, coloured as what has most of it; lighter where more than half of that is \
         zeros{sure}"
    );
    text(&mut out, 24, 56, "s", &about);
    bar(map, &mut out);
    for (i, row) in (0..).zip(&grid.rows) {
        draw_row(map, &grid, row, TOP + i * ROW, &mut out);
    }
    legend(map, below, &mut out);
    out.push_str("</svg>\n");
    out
}

/// The legend in a sentence, for those who do not see the picture.
fn described(map: &Map) -> String {
    let part = |e: &Entry| format!("{} {} pages, {} of them zeros", e.name, e.pages, e.zero);
    map.legend.iter().map(part).collect::<Vec<_>>().join("; ")
}

fn patterns(out: &mut String) {
    for (kind, back, line) in [
        (HoleKind::Mmio, "#fff", "#c3cad0"),
        (HoleKind::Withheld, "#f3ece0", "#a08c64"),
        (HoleKind::Nothing, "#fff", "#eef0f2"),
    ] {
        let _ = writeln!(
            out,
            "<pattern id=\"{}\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" \
             patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" fill=\"{back}\"/>\
             <rect width=\"1.5\" height=\"5\" fill=\"{line}\"/></pattern>",
            pattern(kind)
        );
    }
}

fn pattern(kind: HoleKind) -> &'static str {
    match kind {
        HoleKind::Mmio => "mmio",
        HoleKind::Withheld => "withheld",
        HoleKind::Nothing => "nothing",
    }
}

/// Everyone's share of RAM, zeros lighter.
fn bar(map: &Map, out: &mut String) {
    let place = |pages: u64| (u128::from(pages) * u128::from(WIDTH) / u128::from(map.pages.max(1))) as u64;
    let mut upto = 0;
    for e in &map.legend {
        for (zeros, pages, words) in [(false, e.pages - e.zero, "pages"), (true, e.zero, "pages of zeros")] {
            let (from, to) = (place(upto), place(upto + pages));
            upto += pages;
            if from < to {
                let title = format!("{}: {pages} {words}, {}", e.name, bytes(pages));
                rect([LEFT + from, BAR, to - from, 22], &shade(e, zeros), &title, out);
            }
        }
    }
}

/// Squares that look alike are one rectangle.
fn draw_row(map: &Map, grid: &Grid, row: &Row, y: u64, out: &mut String) {
    match row {
        Row::Squares { first, squares } => {
            label(*first, y, out);
            let mut column = 0;
            for run in squares.chunk_by(|a, b| look(a) == look(b)) {
                let (from, columns) = (Mfn(first.0 + column * grid.square_frames), run.len() as u64);
                let end = Mfn(from.0 + columns * grid.square_frames);
                column += columns;
                let Some(square) = run.first().filter(|s| **s != Square::Beyond) else { continue };
                let (fill, what) = match square {
                    Square::Ram(cell) => (fill(map, cell), contents(map, run)),
                    Square::Hole(hole) => (format!("url(#{})", pattern(hole.kind)), hole_name(hole.kind).into()),
                    Square::Beyond => continue,
                };
                let x = LEFT + (column - columns) * SQUARE;
                rect([x, y, columns * SQUARE, ROW - 1], &fill, &format!("{}: {what}", range(from, end)), out);
            }
        }
        Row::Fold { first, end, hole } => {
            label(*first, y, out);
            let kind = hole.map_or(HoleKind::Nothing, |h: Hole| h.kind);
            let what = format!("{}: {}", range(*first, *end), hole_name(kind));
            rect([LEFT, y + 1, WIDTH, ROW - 3], &format!("url(#{})", pattern(kind)), &what, out);
            let length = bytes(end.0 - first.0);
            let words = format!("{length}: {}", hole_name(kind));
            // On white, or the pattern would make it hard to read.
            let wide = words.len() as u64 * 5 + 8;
            let _ =
                writeln!(out, "<rect x=\"{}\" y=\"{}\" width=\"{wide}\" height=\"9\" fill=\"#fff\"/>", LEFT + 12, y);
            text(out, LEFT + 16, y + 8, "g", &words);
        }
    }
}

/// What is the same for squares that look the same.
fn look(square: &Square) -> Option<(bool, usize, bool)> {
    match square {
        Square::Ram(cell) => Some((true, cell.look().0, cell.look().1)),
        Square::Hole(hole) => Some((false, hole.kind as usize, false)),
        Square::Beyond => None,
    }
}

fn fill(map: &Map, cell: &Cell) -> String {
    let (at, zeros) = cell.look();
    map.legend.get(at).map_or_else(|| "none".into(), |e| shade(e, zeros))
}

fn shade(entry: &Entry, zeros: bool) -> String {
    let own = palette::colour(entry.owner);
    format!("#{:06x}", if zeros { palette::lighter(own) } else { own })
}

/// Who has how much of some squares.
fn contents(map: &Map, squares: &[Square]) -> String {
    let mut all = Cell { first: Mfn(0), parts: Vec::new() };
    for square in squares {
        if let Square::Ram(cell) = square {
            all.absorb(cell);
        }
    }
    all.parts.sort_by_key(|p| (std::cmp::Reverse(p.frames), p.entry));
    let part = |p: &super::Part| {
        let name = map.legend.get(p.entry).map_or("", |e| e.name.as_str());
        let zero = if p.zero > 0 { format!(" ({} zeros)", p.zero) } else { String::new() };
        format!("{name} {}{zero}", p.frames)
    };
    let mut list: Vec<String> = all.parts.iter().take(8).map(part).collect();
    if all.parts.len() > 8 {
        list.push("and others".into());
    }
    format!("pages of {}", list.join(", "))
}

fn range(first: Mfn, end: Mfn) -> String {
    let addr = |n: u64| format!("{:#x}", n.saturating_mul(PAGE_BYTES));
    format!("{} to {}", addr(first.0), addr(end.0))
}

fn label(first: Mfn, y: u64, out: &mut String) {
    text(out, LEFT - 8, y + 9, "a", format_args!("{:#x}", first.0.saturating_mul(PAGE_BYTES)));
}

fn legend(map: &Map, top: u64, out: &mut String) {
    let mut y = top;
    for (end, head) in ENDS.into_iter().zip(["pages", "size", "of all RAM", "zero pages", "of these"]) {
        text(out, LEFT + end, y, "s n", head);
    }
    let percent = |n: u64, of: u64| if of == 0 { 0.0 } else { n as f64 * 100.0 / of as f64 };
    let numbers = |out: &mut String, y: u64, class: &str, pages: u64, zero: u64| {
        let of_these = percent(zero, pages);
        let size = bytes(pages);
        let texts = [
            pages.to_string(),
            size,
            format!("{:.1} %", percent(pages, map.pages)),
            zero.to_string(),
            format!("{of_these:.1} %"),
        ];
        for (end, words) in ENDS.into_iter().zip(texts) {
            text(out, LEFT + end, y, &format!("{class}n"), &words);
        }
    };
    for e in &map.legend {
        y += LINE;
        for (x, zeros, words) in [(LEFT, false, "pages"), (LEFT + 22, true, "mostly zeros")] {
            rect([x, y - 12, 18, 14], &shade(e, zeros), &format!("{}, {words}", e.name), out);
        }
        text(out, LEFT + 52, y, "", &e.name);
        numbers(out, y, "", e.pages, e.zero);
    }
    y += LINE;
    text(out, LEFT + 52, y, "b", "all RAM");
    numbers(out, y, "b ", map.pages, map.zero);
    for (kind, pages) in &map.holes {
        y += LINE;
        rect([LEFT, y - 12, 40, 14], &format!("url(#{})", pattern(*kind)), hole_name(*kind), out);
        text(out, LEFT + 52, y, "s", format_args!("no RAM: {}", hole_name(*kind)));
        text(out, LEFT + 480, y, "s n", pages);
        text(out, LEFT + 590, y, "s n", bytes(*pages));
    }
    if map.unread > 0 {
        let words = format!("{} pages are missing from the dump, and do not count as zeros", map.unread);
        text(out, LEFT, y + LINE, "s", words);
    }
}

fn text(out: &mut String, x: u64, y: u64, class: &str, words: impl Display) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\"{class}>{words}</text>");
}

fn rect([x, y, width, height]: [u64; 4], fill: &str, title: &str, out: &mut String) {
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\">\
         <title>{title}</title></rect>"
    );
}

/// What stands between tags; a dump's own words may hold anything. All other words here are ours.
fn plain(words: &str) -> String {
    words.chars().map(|c| if c.is_ascii_alphanumeric() || ".+-_ ".contains(c) { c } else { '?' }).collect()
}
