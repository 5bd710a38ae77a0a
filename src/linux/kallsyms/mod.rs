//! Symbols from the kernel's own table, which every distribution's kernel carries.
//!
//! Where it is, VMCOREINFO has told since Linux 6.0 (commits f09bddbd8661 and following); in older kernels it is found
//! by its shape, see [`search`]. Names are compressed (Linux: scripts/kallsyms.c): per symbol a length (one byte, or two
//! with the first's top bit set since 6.1), then as many indices into 256 tokens, which are strings. The first character
//! is the type. Addresses come in one of four encodings, and the one that gives `_stext` its known address is right:
//! * a 32-bit offset from a base, except that per-CPU symbols are absolute and the others are base - 1 - offset
//!   (4.6 to 6.14 on x86);
//! * a 32-bit offset from a base;
//! * a 32-bit offset from its own place;
//! * 64-bit addresses (before 4.6, commit 2213e9a66bb8).

pub mod search;

use super::kernel::Kernel;
use crate::bytes::{text, u16_at, u32_at};
use crate::units::VirtAddr;
use crate::vmcoreinfo::Vmcoreinfo;
use std::collections::BTreeMap;

/// No kernel has more symbols (Debian's have 150,000).
const MOST_SYMBOLS: u32 = 1 << 22;
/// Bytes of a token (KSYM_NAME_LEN bounds whole names).
const MOST_TOKEN: usize = 512;
/// Reading goes in pieces of this size.
const PIECE: usize = 1 << 16;

/// Where the parts of the table are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tables {
    count: u32,
    names: VirtAddr,
    token_table: VirtAddr,
    token_index: VirtAddr,
    /// 32-bit offsets or, with the last encoding, 64-bit addresses.
    addresses: VirtAddr,
    relative_base: Option<u64>,
}

/// What a lookup found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// The addresses of those names that the table has.
    pub found: BTreeMap<String, VirtAddr>,
    /// Whether VMCOREINFO told where the table is.
    pub exported: bool,
}

/// Looks names up; those that are not there are left out of the answer. `None` if there is no table that can be
/// trusted.
pub fn lookup(kernel: &Kernel<'_>, info: &Vmcoreinfo, names: &[&str]) -> Option<Symbols> {
    let stext = info.symbol("_stext")?;
    let found = |tables: &Tables| resolve(kernel, tables, stext, names);
    if let Some(found) = exported(kernel, info).as_ref().and_then(found) {
        return Some(Symbols { found, exported: true });
    }
    let found = search::candidates(kernel).iter().find_map(found)?;
    Some(Symbols { found, exported: false })
}

/// The tables where VMCOREINFO says they are.
fn exported(kernel: &Kernel<'_>, info: &Vmcoreinfo) -> Option<Tables> {
    let symbol = |name: &str| info.symbol(&format!("kallsyms_{name}"));
    let mut count = [0; 4];
    kernel.read("kallsyms_num_syms", symbol("num_syms")?, &mut count).ok()?;
    Some(Tables {
        count: u32_at(&count, 0).filter(|n| *n <= MOST_SYMBOLS)?,
        names: symbol("names")?,
        token_table: symbol("token_table")?,
        token_index: symbol("token_index")?,
        addresses: symbol("offsets")?,
        relative_base: symbol("relative_base").and_then(|va| kernel.space.read_u64("kallsyms_relative_base", va).ok()),
    })
}

fn resolve(
    kernel: &Kernel<'_>,
    tables: &Tables,
    stext: VirtAddr,
    names: &[&str],
) -> Option<BTreeMap<String, VirtAddr>> {
    let mut wanted: Vec<&str> = names.to_vec();
    wanted.push("_stext");
    let tokens = tokens(kernel, tables)?;
    let indices = find_names(kernel, tables, &tokens, &wanted)?;
    let known = *indices.get("_stext")?;
    let decode = |encoding: Encoding, index| encoding.address(kernel, tables, index);
    let encoding = Encoding::ALL.into_iter().find(|e| decode(*e, known) == Some(stext))?;
    Some(indices.into_iter().filter_map(|(name, index)| Some((name, decode(encoding, index)?))).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    PerCpuAbsolute,
    Plain,
    PlaceRelative,
    Absolute,
}

impl Encoding {
    const ALL: [Self; 4] = [Self::PerCpuAbsolute, Self::Plain, Self::PlaceRelative, Self::Absolute];

    fn address(self, kernel: &Kernel<'_>, tables: &Tables, index: u32) -> Option<VirtAddr> {
        let width = if self == Self::Absolute { 8 } else { 4 };
        let place = tables.addresses.checked_add(u64::from(index) * width)?;
        if self == Self::Absolute {
            return kernel.space.read_u64("kallsyms_addresses", place).ok().map(VirtAddr);
        }
        let mut bytes = [0; 4];
        kernel.read("kallsyms_offsets", place, &mut bytes).ok()?;
        self.decode(tables.relative_base, place, i32::from_le_bytes(bytes))
    }

    fn decode(self, base: Option<u64>, place: VirtAddr, offset: i32) -> Option<VirtAddr> {
        let signed = i64::from(offset);
        Some(VirtAddr(match self {
            Self::PerCpuAbsolute if offset >= 0 => signed as u64,
            Self::PerCpuAbsolute => base?.wrapping_sub(1).wrapping_add_signed(-signed),
            Self::Plain => base?.wrapping_add(u64::from(offset as u32)),
            Self::PlaceRelative => place.0.wrapping_add_signed(signed),
            Self::Absolute => return None,
        }))
    }
}

/// Walks all names once and gives the index of each wanted one.
fn find_names(
    kernel: &Kernel<'_>,
    tables: &Tables,
    tokens: &[Vec<u8>],
    wanted: &[&str],
) -> Option<BTreeMap<String, u32>> {
    let mut names = Stream { kernel, next: tables.names, piece: Vec::new(), at: 0 };
    let mut found = BTreeMap::new();
    let mut name = Vec::new();
    for index in 0..tables.count {
        let len = names.length()?;
        name.clear();
        for _ in 0..len {
            name.extend_from_slice(tokens.get(usize::from(names.byte()?))?);
        }
        // The first character is the type.
        if let Some(hit) = name.get(1..).and_then(|n| wanted.iter().find(|w| w.as_bytes() == n)) {
            found.entry((*hit).to_owned()).or_insert(index);
        }
    }
    Some(found)
}

fn tokens(kernel: &Kernel<'_>, tables: &Tables) -> Option<Vec<Vec<u8>>> {
    let mut index = [0; 512];
    kernel.read("kallsyms_token_index", tables.token_index, &mut index).ok()?;
    let token = |i: usize| {
        let at = tables.token_table.checked_add(u64::from(u16_at(&index, i * 2)?))?;
        let mut bytes = [0; MOST_TOKEN];
        // The last token may stand right before an unmapped page.
        let n = MOST_TOKEN.min(4096 - at.in_page());
        let got = match kernel.read("a kallsyms token", at, &mut bytes) {
            Ok(()) => &bytes[..],
            Err(_) => {
                let part = bytes.get_mut(..n)?;
                kernel.read("a kallsyms token", at, part).ok()?;
                part
            }
        };
        Some(text(got).into_bytes())
    };
    (0..256).map(token).collect()
}

/// Kernel memory as a stream of bytes.
struct Stream<'k> {
    kernel: &'k Kernel<'k>,
    next: VirtAddr,
    piece: Vec<u8>,
    at: usize,
}

impl Stream<'_> {
    fn byte(&mut self) -> Option<u8> {
        if self.at == self.piece.len() {
            // Up to a page border each time, so that the end of the table may be the end of what is mapped.
            let mut len = PIECE - self.next.in_page();
            self.piece.resize(len, 0);
            if self.kernel.read("kallsyms_names", self.next, &mut self.piece).is_err() {
                len = 4096 - self.next.in_page();
                self.piece.resize(len, 0);
                self.kernel.read("kallsyms_names", self.next, &mut self.piece).ok()?;
            }
            self.next = self.next.checked_add(len as u64)?;
            self.at = 0;
        }
        let b = self.piece.get(self.at).copied();
        self.at += 1;
        b
    }

    /// A name's length.
    fn length(&mut self) -> Option<usize> {
        let low = usize::from(self.byte()?);
        if low & 0x80 == 0 { Some(low) } else { Some(low & 0x7f | usize::from(self.byte()?) << 7) }
    }

    /// Where the next byte is.
    fn place(&self) -> u64 {
        self.next.0 - (self.piece.len() - self.at) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_encodings() {
        let (base, place) = (Some(0xffff_ffff_8100_0000), VirtAddr(0xffff_ffff_8200_0000));
        let address = |e: Encoding, o| e.decode(base, place, o).unwrap().0;
        assert_eq!(address(Encoding::Plain, 0x1000), 0xffff_ffff_8100_1000);
        assert_eq!(address(Encoding::PerCpuAbsolute, -0x1001), 0xffff_ffff_8100_1000);
        assert_eq!(address(Encoding::PerCpuAbsolute, 0x1000), 0x1000);
        assert_eq!(address(Encoding::PlaceRelative, -0x1000), 0xffff_ffff_81ff_f000);
    }
}
