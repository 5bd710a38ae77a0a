//! A xen-syms of the synthetic Xen: an ELF file with .rodata, build ID and .symtab, as Debian's is (no DWARF).

use super::truth::Dump;
use super::xen::BUILD_ID;

/// Writes one; without build ID, its read-only data must prove it.
pub fn xen_syms(dump: &Dump, build_id: bool) -> Vec<u8> {
    let info = &dump.truth.vmcoreinfo_xen;
    let symbols: Vec<(String, u64)> = info
        .lines()
        .filter_map(|l| l.strip_prefix("SYMBOL(")?.split_once(")="))
        .map(|(name, value)| (name.to_owned(), u64::from_str_radix(value, 16).unwrap()))
        .collect();
    let pgd = symbols.iter().find(|s| s.0 == "pgd_l4").unwrap().1;
    // PGD_L4 is 64 KiB into the image.
    let image = pgd - 0x1_0000;
    let read = |va: u64, len: usize| {
        let at = (va & 0x3fff_ffff) + dump.truth.xen_phys_start;
        let page = &dump.mem.pages[&(at >> 12)];
        page[(at & 0xfff) as usize..][..len].to_vec()
    };
    let mut strtab = vec![0];
    let mut symtab = vec![0; 24];
    for (name, value) in &symbols {
        let name = match name.as_str() {
            "pgd_l4" => "idle_pg_table",
            "frame_table" => "_frame_table.0",
            other => other,
        };
        symtab.extend((strtab.len() as u32).to_le_bytes());
        symtab.extend([0x11, 0, 1, 0]);
        symtab.extend(value.to_le_bytes());
        symtab.extend(8u64.to_le_bytes());
        strtab.extend(name.bytes().chain([0]));
    }
    let (note, rodata) = (image + BUILD_ID, image);
    let mut sections: Vec<(&str, u32, u64, u64, Vec<u8>)> = vec![("", 0, 0, 0, Vec::new())];
    sections.push((".rodata", 1, 2, rodata, read(rodata, 0x1000)));
    if build_id {
        sections.push((".note.gnu.build-id", 7, 2, note, read(note, 36)));
    }
    let link = sections.len() as u32 + 1;
    sections.push((".symtab", 2, 0, 0, symtab));
    sections.push((".strtab", 3, 0, 0, strtab));
    let mut names = vec![0];
    let mut starts: Vec<u32> = Vec::new();
    for s in sections.iter().map(|s| s.0).chain([".shstrtab"]) {
        starts.push(if s.is_empty() { 0 } else { names.len() as u32 });
        names.extend(s.bytes().chain([0]));
    }
    sections.push((".shstrtab", 3, 0, 0, names));
    let mut file = vec![0; 64];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut headers = Vec::new();
    for ((_, kind, flags, address, bytes), name) in sections.iter().zip(starts) {
        let offset = file.len().next_multiple_of(16);
        file.resize(offset, 0);
        file.extend(bytes);
        let size = if *kind == 0 { 0 } else { bytes.len() as u64 };
        headers.extend([name, *kind].map(u32::to_le_bytes).concat());
        headers.extend([*flags, *address, offset as u64, size].map(u64::to_le_bytes).concat());
        let of = if *kind == 2 { link } else { 0 };
        headers.extend([of, 0].map(u32::to_le_bytes).concat());
        headers.extend([1, if *kind == 2 { 24u64 } else { 0 }].map(u64::to_le_bytes).concat());
    }
    let shoff = file.len().next_multiple_of(16);
    file.resize(shoff, 0);
    file.extend(headers);
    for (at, value) in [(16, 2u16), (18, 62), (52, 64), (54, 56), (58, 64), (60, sections.len() as u16)] {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    file[62..64].copy_from_slice(&(sections.len() as u16 - 1).to_le_bytes());
    file[20] = 1;
    file[40..48].copy_from_slice(&(shoff as u64).to_le_bytes());
    file
}
