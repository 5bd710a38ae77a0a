//! Symbols from the kernel's own table, through the addresses that VMCOREINFO has exported since Linux 6.0
//! (commits f09bddbd8661 and following).
//!
//! Names are compressed (Linux: scripts/kallsyms.c): per symbol a length (one byte, or two with the first's top bit
//! set since 6.1), then as many indices into 256 tokens, which are strings. The first character is the type. Offsets
//! are 32 bits per symbol, in one of three encodings, and the one that gives `_stext` its known address is right:
//! base + offset; base - 1 - offset for negative ones (per-CPU symbols are absolute, x86 up to 6.14); or relative to
//! the offset's own place.

use super::kernel::Kernel;
use crate::bytes::{text, u16_at, u32_at, u64_at};
use crate::units::VirtAddr;
use crate::vmcoreinfo::Vmcoreinfo;
use std::collections::BTreeMap;

/// No kernel has more symbols (Debian's have 150,000).
const MOST_SYMBOLS: u32 = 1 << 22;
/// Bytes of a token (KSYM_NAME_LEN bounds whole names).
const MOST_TOKEN: usize = 512;
/// Reading goes in pieces of this size.
const PIECE: usize = 1 << 16;

/// Looks names up; those that are not there are left out of the answer. `None` if there is no table that can be
/// trusted.
pub fn lookup(kernel: &Kernel<'_>, info: &Vmcoreinfo, names: &[&str]) -> Option<BTreeMap<String, VirtAddr>> {
    let stext = info.symbol("_stext")?;
    let mut wanted: Vec<&str> = names.to_vec();
    wanted.push("_stext");
    let indices = find_names(kernel, info, &wanted)?;
    let offsets = info.symbol("kallsyms_offsets")?;
    let offset = |index: u32| {
        let place = offsets.checked_add(u64::from(index) * 4)?;
        let mut bytes = [0; 4];
        kernel.read("kallsyms_offsets", place, &mut bytes).ok()?;
        Some((place, i32::from_le_bytes(bytes)))
    };
    let base = info.symbol("kallsyms_relative_base").and_then(|va| {
        let mut bytes = [0; 8];
        kernel.read("kallsyms_relative_base", va, &mut bytes).ok()?;
        u64_at(&bytes, 0)
    });
    let decode = |encoding: Encoding, index: u32| {
        let (place, off) = offset(index)?;
        encoding.address(base, place, off)
    };
    let known = *indices.get("_stext")?;
    let encoding = Encoding::ALL.into_iter().find(|e| decode(*e, known) == Some(stext))?;
    Some(indices.into_iter().filter_map(|(name, index)| Some((name, decode(encoding, index)?))).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    PerCpuAbsolute,
    PlaceRelative,
}

impl Encoding {
    const ALL: [Self; 3] = [Self::PerCpuAbsolute, Self::Plain, Self::PlaceRelative];

    fn address(self, base: Option<u64>, place: VirtAddr, offset: i32) -> Option<VirtAddr> {
        let signed = i64::from(offset);
        Some(VirtAddr(match self {
            Self::Plain => base?.wrapping_add(u64::from(offset as u32)),
            Self::PerCpuAbsolute if offset >= 0 => signed as u64,
            Self::PerCpuAbsolute => base?.wrapping_sub(1).wrapping_add_signed(-signed),
            Self::PlaceRelative => place.0.wrapping_add_signed(signed),
        }))
    }
}

/// Walks all names once and gives the index of each wanted one.
fn find_names(kernel: &Kernel<'_>, info: &Vmcoreinfo, wanted: &[&str]) -> Option<BTreeMap<String, u32>> {
    let mut count = [0; 4];
    kernel.read("kallsyms_num_syms", info.symbol("kallsyms_num_syms")?, &mut count).ok()?;
    let count = u32_at(&count, 0).filter(|n| *n <= MOST_SYMBOLS)?;
    let tokens = tokens(kernel, info)?;
    let mut names = Stream { kernel, next: info.symbol("kallsyms_names")?, piece: Vec::new(), at: 0 };
    let mut found = BTreeMap::new();
    let mut name = Vec::new();
    for index in 0..count {
        let mut len = usize::from(names.byte()?);
        if len & 0x80 != 0 {
            len = len & 0x7f | usize::from(names.byte()?) << 7;
        }
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

fn tokens(kernel: &Kernel<'_>, info: &Vmcoreinfo) -> Option<Vec<Vec<u8>>> {
    let table = info.symbol("kallsyms_token_table")?;
    let mut index = [0; 512];
    kernel.read("kallsyms_token_index", info.symbol("kallsyms_token_index")?, &mut index).ok()?;
    let token = |i: usize| {
        let at = table.checked_add(u64::from(u16_at(&index, i * 2)?))?;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_encodings() {
        let (base, place) = (Some(0xffff_ffff_8100_0000), VirtAddr(0xffff_ffff_8200_0000));
        let address = |e: Encoding, o| e.address(base, place, o).unwrap().0;
        assert_eq!(address(Encoding::Plain, 0x1000), 0xffff_ffff_8100_1000);
        assert_eq!(address(Encoding::PerCpuAbsolute, -0x1001), 0xffff_ffff_8100_1000);
        assert_eq!(address(Encoding::PerCpuAbsolute, 0x1000), 0x1000);
        assert_eq!(address(Encoding::PlaceRelative, -0x1000), 0xffff_ffff_81ff_f000);
    }
}
