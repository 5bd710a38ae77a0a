//! The table's parts by their shape, for kernels before 6.0, which do not tell where they are.
//!
//! Linux up to 6.1 lays them out one after the other, each aligned to 8 (scripts/kallsyms.c):
//!
//! | part | content |
//! |---|---|
//! | offsets, base | `i32` per symbol and a `u64`; before 4.6 a `u64` address per symbol and no base |
//! | num_syms | a number, 32 bits wide or 64 (before 4.20) |
//! | names | compressed |
//! | markers | for each 256 names, where they begin in names; 32 bits wide or 64 (before 4.20) |
//! | token_table | 256 strings |
//! | token_index | 256 `u16`: where each string begins |
//!
//! The index is unmistakable: it begins with 0, rises 256 times, and a NUL stands before each place that it names in
//! the table before it. From there each part leads to the one before, and the names must end where the markers begin.

use super::{MOST_SYMBOLS, Stream, Tables};
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::linux::kernel::Kernel;
use crate::units::VirtAddr;

const INDEX: usize = 512;
/// The last token and the padding behind it.
const MOST_TAIL: u64 = 512;
/// Markers of [`MOST_SYMBOLS`] symbols.
const MOST_MARKERS: usize = (MOST_SYMBOLS / 256) as usize * 8;
/// No 256 names take more.
const MOST_GROUP: u64 = 256 * 512;

/// All places that look like a table. The image is read once.
pub(super) fn candidates(kernel: &Kernel<'_>) -> Vec<Tables> {
    let indices = kernel.scan(INDEX, |va, window, own| {
        let at = (0..own).step_by(8).filter(|at| window.get(*at..*at + INDEX).is_some_and(is_index));
        at.map(|at| VirtAddr(va.0 + at as u64)).collect()
    });
    indices.into_iter().flat_map(|index| tables(kernel, index)).collect()
}

fn is_index(bytes: &[u8]) -> bool {
    let rises = |i: usize| u16_at(bytes, i * 2) < u16_at(bytes, i * 2 + 2);
    // The first test throws nearly everything out.
    bytes.starts_with(&[0, 0]) && rises(0) && (1..255).all(rises)
}

/// The tables that end with this index: with offsets, and with addresses; what they give tells which it is.
fn tables(kernel: &Kernel<'_>, token_index: VirtAddr) -> Vec<Tables> {
    let Some(token_table) = token_table(kernel, token_index) else { return Vec::new() };
    let named = markers(kernel, token_table).into_iter().find_map(|m| names(kernel, &m));
    let Some((num_syms, count)) = named else { return Vec::new() };
    let names = VirtAddr(num_syms.0 + 8);
    let before = |end: u64, bytes: u64| end.checked_sub(bytes.next_multiple_of(8)).map(VirtAddr);
    let base = before(num_syms.0, 8);
    let offsets = base.and_then(|b| before(b.0, u64::from(count) * 4));
    let relative_base = base.and_then(|b| kernel.space.read_u64("kallsyms_relative_base", b).ok());
    let absolute = before(num_syms.0, u64::from(count) * 8);
    let parts = [(offsets, relative_base), (absolute, None)];
    let table = |(addresses, relative_base): (Option<VirtAddr>, _)| {
        Some(Tables { count, names, token_table, token_index, addresses: addresses?, relative_base })
    };
    parts.into_iter().filter_map(table).collect()
}

/// The table that the index at `index` is of: right before it, with a NUL before each token.
fn token_table(kernel: &Kernel<'_>, index: VirtAddr) -> Option<VirtAddr> {
    let mut places = [0; INDEX];
    kernel.read("kallsyms_token_index", index, &mut places).ok()?;
    let place = |i: usize| u16_at(&places, i * 2).map_or(0, usize::from);
    let len = place(255) as u64 + MOST_TAIL;
    let mut bytes = vec![0; len as usize];
    let start = index.0.checked_sub(len)?;
    kernel.read("kallsyms_token_table", VirtAddr(start), &mut bytes).ok()?;
    let fits = |table: &u64| {
        let table = bytes.get((table - start) as usize..).unwrap_or_default();
        // Each token ends where the next begins, and has no NUL before.
        (0..255).all(|i| {
            table.get(place(i)..place(i + 1)).is_some_and(|t| t.iter().position(|b| *b == 0) == Some(t.len() - 1))
        })
    };
    (start.next_multiple_of(8)..index.0 - place(255) as u64).step_by(8).find(fits).map(VirtAddr)
}

/// Markers, by both widths.
#[derive(Debug)]
struct Markers {
    start: VirtAddr,
    values: Vec<u64>,
}

fn markers(kernel: &Kernel<'_>, end: VirtAddr) -> Vec<Markers> {
    let wide = walk_back(kernel, end, 8);
    // An odd number of narrow ones is followed by padding.
    let narrow = walk_back(kernel, end, 4);
    let padded = end.0.checked_sub(4).and_then(|end| walk_back(kernel, VirtAddr(end), 4));
    [wide, narrow, padded].into_iter().flatten().filter(|m| m.start.0.is_multiple_of(8)).collect()
}

/// Numbers that fall to 0, from `end` back.
fn walk_back(kernel: &Kernel<'_>, end: VirtAddr, width: usize) -> Option<Markers> {
    let mut values = Vec::new();
    let mut at = end.0;
    let mut bytes = [0; 8];
    while values.last() != Some(&0) && values.len() * width < MOST_MARKERS {
        at = at.checked_sub(width as u64)?;
        kernel.read("kallsyms_markers", VirtAddr(at), bytes.get_mut(..width)?).ok()?;
        let value = if width == 8 { u64_at(&bytes, 0)? } else { u64::from(u32_at(&bytes, 0)?) };
        if values.last().is_some_and(|last| value >= *last) {
            return None;
        }
        values.push(value);
    }
    values.reverse();
    (values.len() > 1).then_some(Markers { start: VirtAddr(at), values })
}

/// The place of num_syms, and its value: the names behind it agree with the first marker and end at the markers.
fn names(kernel: &Kernel<'_>, markers: &Markers) -> Option<(VirtAddr, u32)> {
    let last = *markers.values.last()?;
    let groups = markers.values.len() as u32;
    let latest = markers.start.0.checked_sub(last)?;
    let places = (0..MOST_GROUP / 8).map_while(|i| latest.checked_sub(i * 8 + 8)).map(|at| at - at % 8);
    for num_syms in places {
        let mut bytes = [0; 8];
        kernel.read("kallsyms_num_syms", VirtAddr(num_syms), &mut bytes).ok()?;
        let count = u64_at(&bytes, 0)?;
        if count.div_ceil(256) != u64::from(groups) || count > u64::from(MOST_SYMBOLS) {
            continue;
        }
        let mut stream = Stream { kernel, next: VirtAddr(num_syms + 8), piece: Vec::new(), at: 0 };
        let agrees = (0..count).all(|i| {
            let begins =
                i % 256 != 0 || markers.values.get((i / 256) as usize) == Some(&(stream.place() - num_syms - 8));
            begins && stream.length().is_some_and(|len| (0..len).all(|_| stream.byte().is_some()))
        });
        if agrees && stream.place().next_multiple_of(8) == markers.start.0 {
            return Some((VirtAddr(num_syms), count as u32));
        }
    }
    None
}
