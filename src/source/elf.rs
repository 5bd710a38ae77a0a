//! The ELF64 vmcore: header, program headers (also past 65,535), notes.

use super::kdump::Header;
use super::notes::{Note, Notes};
use super::segments::{Load, Segments};
use super::storage::ReadAt;
use super::xc_core::{DumpCore, Sections};
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::units::{FileOffset, MachineAddr};
use goblin::elf::header::{EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_CORE};
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};

const EHDR_SIZE: usize = goblin::elf64::header::SIZEOF_EHDR;
const PHDR_SIZE: usize = goblin::elf64::program_header::SIZEOF_PHDR;
const SHDR_SIZE: usize = goblin::elf64::section_header::SIZEOF_SHDR;
/// `e_phnum` of a file with more headers: the number is in `sh_info` of section header 0 (ELF gABI, "PN_XNUM").
pub const PN_XNUM: u16 = 0xffff;
/// No host has more notes than this: 8192 CPUs need 4 MiB.
const MOST_NOTE_BYTES: u64 = 64 << 20;
/// One program header per 64 KiB of a TiB: no dump has more.
const MOST_HEADERS: u32 = 1 << 24;

/// The parts of a vmcore file.
#[derive(Debug, Default)]
pub struct Vmcore {
    loads: Vec<Load>,
    note_segments: Vec<(Vec<u8>, u64)>,
    /// What is wrong with headers and notes.
    pub(super) damage: Damage,
    /// Whether makedumpfile says of itself that it could not write all (`e_flags` bit 0: DUMP_ELF_INCOMPLETE).
    pub incomplete: bool,
    /// What `xl dump-core` wrote, if it is such a file.
    dump_core: Option<DumpCore>,
    /// One more than the last byte of headers and notes, or of the sections of `xl dump-core`.
    headers_end: u64,
}

impl Vmcore {
    /// Reads the headers and notes of `source`.
    ///
    /// # Errors
    /// [`Error::NotElf`], [`Error::WrongElf`], [`Error::Damaged`] for headers outside the file.
    pub fn parse(source: &dyn ReadAt) -> Result<Self> {
        let len = source.len();
        let mut ehdr = vec![0; EHDR_SIZE.min(usize::try_from(len).unwrap_or(usize::MAX))];
        source.read_exact_at(FileOffset(0), &mut ehdr).map_err(|e| Error::read("the ELF header", e))?;
        if !ehdr.starts_with(ELFMAG) {
            let magic = ehdr.iter().take(8).map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
            return Err(Error::NotElf {
                magic: if magic.is_empty() { "nothing: the file is empty".into() } else { magic },
            });
        }
        let wrong = |what, value: String| Err(Error::WrongElf { what, value });
        match ehdr.get(EI_CLASS) {
            Some(&ELFCLASS64) => {}
            Some(1) => return wrong("the ELF class", "32-bit".into()),
            other => return wrong("the ELF class", format!("{other:?}")),
        }
        match ehdr.get(EI_DATA) {
            Some(&ELFDATA2LSB) => {}
            Some(2) => return wrong("the byte order", "big-endian".into()),
            other => return wrong("the byte order", format!("{other:?}")),
        }
        let short =
            || Error::damaged("ELF header", format!("the file has {len} bytes of {EHDR_SIZE}; it is cut short"));
        let kind = u16_at(&ehdr, 16).ok_or_else(short)?;
        let machine = u16_at(&ehdr, 18).ok_or_else(short)?;
        let phoff = u64_at(&ehdr, 32).ok_or_else(short)?;
        let shoff = u64_at(&ehdr, 40).ok_or_else(short)?;
        let phentsize = u16_at(&ehdr, 54).ok_or_else(short)?;
        let phnum = u16_at(&ehdr, 56).ok_or_else(short)?;
        if ehdr.len() < EHDR_SIZE {
            return Err(short());
        }
        if kind != ET_CORE {
            return wrong("the ELF type", format!("{kind}, not a core (4)"));
        }
        if machine != EM_X86_64 {
            return wrong("the machine", format!("{machine}, not x86_64 (62)"));
        }
        if usize::from(phentsize) != PHDR_SIZE {
            return wrong("the size of a program header", format!("{phentsize}, not {PHDR_SIZE}"));
        }
        let phnum = if phnum == PN_XNUM { extended_count(source, shoff)? } else { u32::from(phnum) };
        if phnum > MOST_HEADERS {
            return Err(Error::damaged("ELF header", format!("{phnum} program headers; no dump has so many")));
        }
        let bytes = u64::from(phnum) * PHDR_SIZE as u64;
        if phoff.checked_add(bytes).is_none_or(|end| end > len) {
            let why = format!("{phnum} of them at {phoff:#x} do not fit in a file of {len} bytes; it is cut short");
            return Err(Error::damaged("program headers", why));
        }
        let mut table = vec![0; bytes as usize];
        source.read_exact_at(FileOffset(phoff), &mut table).map_err(|e| Error::read("the program headers", e))?;
        let mut core = Self { incomplete: ehdr.get(48).is_some_and(|f| f & 1 != 0), ..Self::default() };
        core.headers_end = (phoff + bytes).max(shoff.saturating_add(SHDR_SIZE as u64));
        for phdr in table.chunks_exact(PHDR_SIZE) {
            core.program_header(source, phdr)?;
        }
        if phnum == 0 {
            core.headers_end = Sections::read(source).map_or(core.headers_end, |s| s.end().max(core.headers_end));
        }
        Ok(core)
    }

    /// Reads what `xl dump-core` wrote, if it did.
    ///
    /// # Errors
    /// As [`DumpCore::read`], and [`Error::Read`].
    pub(super) fn with_dump_core(mut self, source: &dyn ReadAt) -> Result<Self> {
        let Some(sections) = Sections::read(source).filter(|_| self.loads.is_empty()) else { return Ok(self) };
        if let Some((at, size)) = sections.notes(source) {
            self.take_notes(source, at, size, 4)?;
        }
        self.dump_core = Some(DumpCore::read(source, &sections, &mut self.damage)?);
        Ok(self)
    }

    /// The one domain that is in the file, if `xl dump-core` wrote it.
    pub fn dump_core(&self) -> Option<&DumpCore> {
        self.dump_core.as_ref()
    }

    fn program_header(&mut self, source: &dyn ReadAt, phdr: &[u8]) -> Result<()> {
        let word = |at| u64_at(phdr, at).unwrap_or_default();
        let (offset, paddr, file_size, mem_size) = (word(8), word(24), word(32), word(40));
        match u32_at(phdr, 0) {
            Some(PT_LOAD) => {
                let load = Load {
                    start: MachineAddr(paddr),
                    offset: FileOffset(offset),
                    file_size,
                    present: 0,
                    mem_size: mem_size.max(file_size),
                }
                .in_file(source.len());
                if paddr.checked_add(load.mem_size).is_none() || offset.checked_add(file_size).is_none() {
                    self.damage
                        .add_one("PT_LOADs that wrap around 64 bits and were left out", format!("at {paddr:#x}"));
                } else if load.mem_size > 0 {
                    self.loads.push(load);
                }
            }
            Some(PT_NOTE) => {
                self.take_notes(source, FileOffset(offset), file_size, word(48))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads `size` bytes of notes, or as many as the file has.
    fn take_notes(&mut self, source: &dyn ReadAt, at: FileOffset, size: u64, align: u64) -> Result<()> {
        let present = source.len().saturating_sub(at.0).min(size);
        if present < size {
            self.damage.add("bytes of notes that are cut off", size - present);
        }
        let before: u64 = self.note_segments.iter().map(|s| s.0.len() as u64).sum();
        if before + present > MOST_NOTE_BYTES {
            let why = format!("{} bytes of notes or more; no host has so many", before + present);
            return Err(Error::damaged("notes", why));
        }
        if present == 0 {
            return Ok(());
        }
        let mut notes = vec![0; present as usize];
        match source.read_exact_at(at, &mut notes) {
            // Xen can be found without them.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.damage.add("bytes of notes that are cut off", present);
                return Ok(());
            }
            done => done.map_err(|e| Error::read("the notes", e))?,
        }
        let mut walk = Notes::new(&notes, align);
        walk.by_ref().for_each(drop);
        if walk.rest().iter().any(|b| *b != 0) {
            self.damage.add("bytes behind notes that are no note", walk.rest().len() as u64);
        }
        self.note_segments.push((notes, align));
        Ok(())
    }

    /// The notes of a kdump-compressed file, and VMCOREINFO where it stands outside them: version 3 has nothing else.
    pub(super) fn of_kdump(source: &dyn ReadAt, header: &Header) -> Result<Self> {
        let mut core = Self { incomplete: header.incomplete, ..Self::default() };
        if let Some((at, size)) = header.notes {
            core.take_notes(source, at, size, 4)?;
        }
        let Some((at, size)) = header.vmcoreinfo else { return Ok(core) };
        let size = usize::try_from(size.min(source.len().saturating_sub(at.0)).min(MOST_NOTE_BYTES));
        let mut text = vec![0; size.unwrap_or_default()];
        source.read_exact_at(at, &mut text).map_err(|e| Error::read("VMCOREINFO", e))?;
        let linux = text.starts_with(b"OSRELEASE=");
        let name: &[u8] = if linux { b"VMCOREINFO" } else { b"VMCOREINFO_XEN" };
        if !core.notes().any(|n| n.name == name) {
            let mut note = Vec::new();
            [name.len() as u32 + 1, text.len() as u32, 0].iter().for_each(|n| note.extend(n.to_le_bytes()));
            for part in [name, &text] {
                note.extend(part);
                // The name ends in a NUL; the text may go without.
                note.resize((note.len() + usize::from(part == name)).next_multiple_of(4), 0);
            }
            core.note_segments.push((note, 4));
        }
        Ok(core)
    }

    /// Adds a further file of the same dump, which begins at `base` in the storage of them all.
    ///
    /// # Errors
    /// [`Error::Usage`] if its notes are of another dump.
    pub(super) fn join(&mut self, other: Self, base: u64) -> Result<()> {
        let moved = |l: Load| Some(Load { offset: l.offset.checked_add(base)?, ..l });
        self.loads.extend(other.loads.into_iter().filter_map(moved));
        self.incomplete |= other.incomplete;
        self.damage.merge(&other.damage);
        let bytes =
            |segments: &[(Vec<u8>, u64)]| segments.iter().flat_map(|s| s.0.iter().copied()).collect::<Vec<u8>>();
        let (ours, theirs) = (bytes(&self.note_segments), bytes(&other.note_segments));
        // Those of a file that is cut short are a part.
        if ours.iter().zip(&theirs).any(|(a, b)| a != b) {
            return Err(Error::Usage("the files given with --split are not parts of one dump".into()));
        }
        if theirs.len() > ours.len() {
            self.note_segments = other.note_segments;
        }
        Ok(())
    }

    /// All notes in order of the file.
    pub fn notes(&self) -> impl Iterator<Item = Note<'_>> {
        self.note_segments.iter().flat_map(|(bytes, align)| Notes::new(bytes, *align))
    }

    /// Takes the PT_LOADs out and makes them searchable.
    pub fn take_segments(&mut self) -> Segments {
        Segments::new(std::mem::take(&mut self.loads))
    }

    /// The most that the file can hold by its headers, in bytes.
    pub(super) fn most_bytes(&self) -> u64 {
        let ends = self.loads.iter().map(|l| l.offset.0.saturating_add(l.file_size));
        ends.chain([self.headers_end]).max().unwrap_or(0)
    }
}

fn extended_count(source: &dyn ReadAt, shoff: u64) -> Result<u32> {
    let mut shdr = [0; SHDR_SIZE];
    let what = "section header 0";
    if shoff == 0 || shoff.checked_add(SHDR_SIZE as u64).is_none_or(|end| end > source.len()) {
        return Err(Error::damaged(what, format!("at {shoff:#x}, needed for more than 65,534 program headers")));
    }
    source.read_exact_at(FileOffset(shoff), &mut shdr).map_err(|e| Error::read(what, e))?;
    u32_at(&shdr, 44).ok_or_else(|| Error::damaged(what, "too short"))
}
