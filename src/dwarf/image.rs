//! The ELF file: sections, symbols, initial contents of memory.

use crate::bytes::{u16_at, u32_at, u64_at};
use goblin::elf::compression_header::{ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD};
use goblin::elf::header::{ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64};
use goblin::elf::section_header::{SHF_ALLOC, SHF_COMPRESSED, SHN_UNDEF, SHT_NOBITS, SHT_NOTE, SHT_SYMTAB};
use goblin::elf::sym::{STB_GLOBAL, STT_FILE, st_bind, st_type};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;

const SHDR_SIZE: usize = goblin::elf64::section_header::SIZEOF_SHDR;
const SYM_SIZE: usize = goblin::elf64::sym::SIZEOF_SYM;
/// `Elf64_Chdr`, before the data of a compressed section.
const CHDR_SIZE: usize = 24;
const NT_GNU_BUILD_ID: u32 = 3;
/// The largest section of a debug kernel, .debug_info, has a quarter of this.
const MOST_UNPACKED: u64 = 1 << 30;

/// A vmlinux in memory.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    sections: Vec<Section<'a>>,
    symbols: HashMap<String, Symbol>,
}

#[derive(Debug)]
struct Section<'a> {
    name: &'a [u8],
    kind: u32,
    flags: u64,
    address: u64,
    link: u32,
    /// Empty if the file does not hold them.
    bytes: &'a [u8],
}

/// A symbol of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) address: u64,
    /// Bytes; 0 for those of assembly.
    pub(crate) size: u64,
    rank: u8,
}

impl<'a> Image<'a> {
    /// Reads the section headers, and the symbols that are asked for.
    ///
    /// # Errors
    /// Why it is no vmlinux.
    pub(crate) fn parse(file: &'a [u8], wanted: impl Fn(&str) -> bool) -> Result<Self, String> {
        if !file.starts_with(ELFMAG) {
            return Err("not an ELF file (a vmlinuz must be unpacked first)".into());
        }
        if file.get(4..6) != Some(&[ELFCLASS64, ELFDATA2LSB]) || u16_at(file, 18) != Some(EM_X86_64) {
            return Err("not an ELF file of x86_64".into());
        }
        let sections = Section::all(file).ok_or("its section headers lie outside the file")?;
        let mut image = Self { sections, symbols: HashMap::new() };
        image.symbols = image.read_symbols(wanted);
        Ok(image)
    }

    /// Symbols by name. One name can stand for many static variables: a global one is meant, or printk's own.
    fn read_symbols(&self, wanted: impl Fn(&str) -> bool) -> HashMap<String, Symbol> {
        let mut found: HashMap<String, Symbol> = HashMap::new();
        let Some(table) = self.sections.iter().find(|s| s.kind == SHT_SYMTAB) else { return found };
        let names = self.sections.get(table.link as usize).map_or(&[][..], |s| s.bytes);
        let mut in_printk = false;
        for entry in table.bytes.chunks_exact(SYM_SIZE) {
            let fields = (u32_at(entry, 0), entry.get(4), u16_at(entry, 6), u64_at(entry, 8), u64_at(entry, 16));
            let (Some(name), Some(&info), Some(section), Some(address), Some(size)) = fields else { continue };
            let Ok(name) = std::str::from_utf8(c_string(names, name as usize)) else { continue };
            if st_type(info) == STT_FILE {
                in_printk = name == "printk.c";
            } else if u32::from(section) != SHN_UNDEF && wanted(name) {
                let rank = if st_bind(info) == STB_GLOBAL { 2 } else { u8::from(in_printk) };
                if found.get(name).is_none_or(|s| s.rank < rank) {
                    found.insert(name.to_owned(), Symbol { address, size, rank });
                }
            }
        }
        found
    }

    /// A symbol that was asked for.
    pub(crate) fn symbol(&self, name: &str) -> Option<Symbol> {
        self.symbols.get(name).copied()
    }

    /// What the file puts at an address: `len` bytes, or fewer at the end of a section.
    pub(crate) fn at(&self, address: u64, len: usize) -> Option<&'a [u8]> {
        self.sections.iter().filter(|s| s.flags & u64::from(SHF_ALLOC) != 0 && s.address != 0).find_map(|s| {
            let from = usize::try_from(address.checked_sub(s.address)?).ok()?;
            let rest = s.bytes.get(from..)?;
            (!rest.is_empty()).then(|| rest.get(..len).unwrap_or(rest))
        })
    }

    /// The linker's hash of the file, in hex.
    pub(crate) fn build_id(&self) -> Option<String> {
        let notes = self.sections.iter().filter(|s| s.kind == SHT_NOTE);
        let id = notes.filter_map(|s| build_id(s.bytes)).next()?;
        Some(id.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// A section of debugging information, unpacked; empty if there is none.
    ///
    /// # Errors
    /// Why it cannot be unpacked.
    pub(crate) fn debug(&self, name: &str) -> Result<Cow<'a, [u8]>, String> {
        let Some(section) = self.sections.iter().find(|s| s.name == name.as_bytes()) else {
            return Ok(Cow::Borrowed(&[]));
        };
        if section.flags & u64::from(SHF_COMPRESSED) == 0 {
            return Ok(Cow::Borrowed(section.bytes));
        }
        unpack(section.bytes).map(Cow::Owned).map_err(|why| format!("{name}: {why}"))
    }
}

impl<'a> Section<'a> {
    fn all(file: &'a [u8]) -> Option<Vec<Self>> {
        let shoff = usize::try_from(u64_at(file, 40)?).ok()?;
        let (count, names) = (u16_at(file, 60)?, u16_at(file, 62)?);
        let headers = file.get(shoff..shoff.checked_add(usize::from(count) * SHDR_SIZE)?)?;
        let mut sections: Vec<(u32, Self)> =
            headers.chunks_exact(SHDR_SIZE).map(|header| Self::parse(file, header)).collect::<Option<_>>()?;
        let names = sections.get(usize::from(names))?.1.bytes;
        for (name, section) in &mut sections {
            section.name = c_string(names, *name as usize);
        }
        Some(sections.into_iter().map(|(_, section)| section).collect())
    }

    fn parse(file: &'a [u8], header: &[u8]) -> Option<(u32, Self)> {
        let kind = u32_at(header, 4)?;
        let from = usize::try_from(u64_at(header, 24)?).ok()?;
        let len = usize::try_from(u64_at(header, 32)?).ok()?;
        let bytes = match kind {
            SHT_NOBITS => &[][..],
            // Of a file that is cut short, what is there.
            _ => file.get(from..).map_or(&[][..], |rest| rest.get(..len).unwrap_or(rest)),
        };
        let (flags, address, link) = (u64_at(header, 8)?, u64_at(header, 16)?, u32_at(header, 40)?);
        Some((u32_at(header, 0)?, Self { name: &[], kind, flags, address, link, bytes }))
    }
}

/// The bytes before the next NUL; none outside the table.
fn c_string(table: &[u8], at: usize) -> &[u8] {
    let rest = table.get(at..).unwrap_or_default();
    rest.split(|&b| b == 0).next().unwrap_or_default()
}

/// The build ID among notes.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (name, desc, kind) = (u32_at(notes, 0)? as usize, u32_at(notes, 4)? as usize, u32_at(notes, 8)?);
        let desc_at = 12 + name.checked_next_multiple_of(4)?;
        let id = notes.get(desc_at..desc_at.checked_add(desc)?)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..12 + name) == Some(b"GNU\0") {
            return Some(id);
        }
        notes = notes.get(desc_at + desc.checked_next_multiple_of(4)?..)?;
    }
}

/// A section under SHF_COMPRESSED. The stated size bounds the work, not the allocation: that grows with what comes.
fn unpack(section: &[u8]) -> Result<Vec<u8>, String> {
    let fields = (u32_at(section, 0), u64_at(section, 8), section.get(CHDR_SIZE..));
    let (Some(kind), Some(size), Some(packed)) = fields else { return Err("its compression header is cut".into()) };
    if size > MOST_UNPACKED {
        return Err(format!("{size} bytes unpacked, more than any kernel has"));
    }
    let mut bytes = Vec::new();
    let read = match kind {
        ELFCOMPRESS_ZLIB => flate2::read::ZlibDecoder::new(packed).take(size).read_to_end(&mut bytes),
        ELFCOMPRESS_ZSTD => zstd::stream::read::Decoder::new(packed).and_then(|d| d.take(size).read_to_end(&mut bytes)),
        other => return Err(format!("compressed in an unknown way ({other})")),
    };
    match read {
        Ok(_) if bytes.len() as u64 == size => Ok(bytes),
        Ok(n) => Err(format!("{n} of {size} bytes could be unpacked")),
        Err(e) => Err(format!("cannot be unpacked: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_with_a_build_id() {
        let note = |name: &[u8], kind: u32, desc: &[u8]| {
            let mut n = [name.len() as u32, desc.len() as u32, kind].map(u32::to_le_bytes).concat();
            for part in [name, desc] {
                n.extend_from_slice(part);
                n.resize(n.len().next_multiple_of(4), 0);
            }
            n
        };
        let notes = [note(b"Xen\0", 3, b"\0\0\0\x80\xff"), note(b"GNU\0", 3, b"\xab\x01")].concat();
        assert_eq!(build_id(&notes), Some(&b"\xab\x01"[..]));
        (0..notes.len() - 2).for_each(|n| assert_eq!(build_id(&notes[..n]), None));
    }

    #[test]
    fn a_name_in_a_table() {
        assert_eq!(c_string(b"\0abc\0d", 1), b"abc");
        assert_eq!(c_string(b"\0abc\0d", 5), b"d");
        assert_eq!(c_string(b"\0abc\0d", 7), b"");
    }

    #[test]
    fn a_size_that_lies() {
        let chdr = |kind: u32, size: u64| [kind as u64, size, 1].map(u64::to_le_bytes).concat();
        let packed = zstd::bulk::compress(b"0123456789", 1).unwrap();
        let with = |size| unpack(&[chdr(ELFCOMPRESS_ZSTD, size), packed.clone()].concat());
        assert_eq!(with(10).as_deref(), Ok(&b"0123456789"[..]));
        assert!(with(11).is_err() && with(u64::MAX).is_err() && unpack(&chdr(9, 0)).is_err());
    }
}
