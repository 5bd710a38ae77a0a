//! What `xl dump-core` writes: the memory of one domain, as an ELF64 core without program headers (Xen:
//! docs/misc/dump-core-format.txt, tools/libs/guest/xg_core.c).
//!
//! | section | content |
//! |---|---|
//! | `.note.Xen` | notes named `Xen`, below |
//! | `.xen_prstatus` | a `vcpu_guest_context` of each vCPU that ever was set up, in order |
//! | `.xen_shared_info` | the shared info page |
//! | `.xen_p2m` | of a PV domain: PFN and MFN of each page, `u64` each; both `~0` where a page went away meanwhile |
//! | `.xen_pfn` | of a translated domain (HVM, PVH): the PFN of each page, `u64` |
//! | `.xen_pages` | the pages, in the order of that list |
//!
//! | note | descriptor |
//! |---|---|
//! | 0x2000000 | nothing; the first one |
//! | 0x2000001 | magic 0xf00febed (PV) or 0xf00febee, vCPUs, pages, page size: `u64` each |
//! | 0x2000002 | Xen: major and minor `u64`, extra version (16), compiler (64), by (16), host (32), date (32), capabilities (1024), changeset (64), start of Xen's area `u64`, page size `u64` |
//! | 0x2000003 | version of the format, `u64`: 1 |
//!
//! List and section names come last in the file, so that of one that is cut short nobody can tell which page is which.

use super::notes::Notes;
use super::segments::{Load, Segments};
use super::storage::ReadAt;
use crate::bytes::{text, u16_at, u32_at, u64_at, words};
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::units::{FileOffset, MAX_FRAME, MachineAddr, Mfn, PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE, Pfn};

const EHDR_SIZE: usize = goblin::elf64::header::SIZEOF_EHDR;
const SHDR_SIZE: usize = goblin::elf64::section_header::SIZEOF_SHDR;
pub(crate) const SHT_NOTE: u32 = 7;
pub(crate) const NOTE_NONE: u32 = 0x200_0000;
pub(crate) const NOTE_HEADER: u32 = 0x200_0001;
pub(crate) const NOTE_XEN_VERSION: u32 = 0x200_0002;
pub(crate) const NOTE_FORMAT: u32 = 0x200_0003;
pub(crate) const MAGIC_PV: u64 = 0xf00f_ebed;
pub(crate) const MAGIC_TRANSLATED: u64 = 0xf00f_ebee;
/// Notes and section names are less than this.
const MOST_SMALL: u64 = 1 << 20;
/// `sizeof(vcpu_guest_context)` of a 64-bit guest; other sizes are other guests'.
pub const CONTEXT_SIZE: usize = 5168;
/// Where a 32-bit guest's context has `cs`, and a 64-bit one's.
const CS_32: usize = 516 + 36;
const CS_64: usize = 520 + 17 * 8;
/// Kernel code of 32-bit and 64-bit PV guests, and Linux's user code.
const FLAT_RING1_CS: u16 = 0xe019;
const FLAT_RING3_CS64: u16 = 0xe033;
const USER_CS_32: u16 = 0x73;
const USER_CS_64: u16 = 0x33;
/// Xen has no domain with more vCPUs.
const MOST_VCPUS: usize = 8192;
/// PFNs that are believed of a domain of any size: 8 GiB of them; and of none. Readers' bitmaps are as long as the highest
/// PFN says.
const PFN_BOUNDS: (u64, u64) = (1 << 21, 1 << 33);
/// A domain is never ballooned down to less than this part of what it may have.
const LEAST_PART: u64 = 64;
/// Bytes of the page list that are read at a time.
const LIST_PART: u64 = 1 << 20;
/// `start_info.magic` (Xen: public/xen.h) of a 64-bit PV domain, at the start of a page; `shared_info`, a machine address,
/// is at 40.
const START_INFO_MAGIC: &[u8] = b"xen-3.0-x86_64";
/// Pages that are looked at for the start_info: it stands behind kernel, initial RAM disk and first P2M.
const MOST_LOOKED: u64 = 1 << 21;
/// Pages that look like a start_info: copies of it, at most.
const MOST_CANDIDATES: usize = 64;

/// Pages that follow each other in the file, by PFN and by MFN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First PFN.
    pub pfn: Pfn,
    /// Its MFN; in a translated domain, whose file has none, the same number.
    pub mfn: Mfn,
    /// Where it stands in the file.
    pub offset: FileOffset,
    /// Number of pages.
    pub len: u64,
}

/// The version of Xen that wrote the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Major version.
    pub major: u64,
    /// Minor version.
    pub minor: u64,
    /// Extra version, changeset, compiler, compile date, and nothing.
    pub strings: [String; 5],
}

/// The shared info page, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedInfoPage {
    /// Its content.
    pub page: Vec<u8>,
    /// Its frame, where a start_info tells.
    pub mfn: Option<Mfn>,
    offset: FileOffset,
}

/// A file of `xl dump-core`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpCore {
    /// Whether its domain is a translated one (HVM, PVH).
    pub translated: bool,
    /// The pages, by PFN; no PFN twice.
    pub pieces: Vec<Piece>,
    /// One `vcpu_guest_context` after the other, of [`CONTEXT_SIZE`] bytes each.
    pub contexts: Vec<u8>,
    /// The shared info.
    pub shared_info: Option<SharedInfoPage>,
    /// Xen's version, if the file tells.
    pub xen: Version,
    /// Entries of the page list that name no page: gone while the file was written.
    pub gone: u64,
    /// Entries that make no sense, or repeat a PFN.
    pub odd: u64,
}

/// A section as its header has it.
#[derive(Clone, Debug)]
struct Section {
    name: String,
    kind: u32,
    offset: u64,
    size: u64,
    entry: u64,
}

/// The sections of an ELF64 file without program headers, if one is of `xl dump-core`'s.
#[derive(Debug)]
pub(super) struct Sections {
    list: Vec<Section>,
    file_len: u64,
}

impl Sections {
    /// Reads them; nothing if it is no such file. Its ELF header has been checked.
    pub(super) fn read(source: &dyn ReadAt) -> Option<Self> {
        let mut ehdr = [0; EHDR_SIZE];
        source.read_exact_at(FileOffset(0), &mut ehdr).ok()?;
        let (at, count) = (u64_at(&ehdr, 40)?, u16_at(&ehdr, 60)?);
        if u16_at(&ehdr, 56)? != 0 || usize::from(u16_at(&ehdr, 58)?) != SHDR_SIZE {
            return None;
        }
        let mut table = vec![0; usize::from(count) * SHDR_SIZE];
        source.read_exact_at(FileOffset(at), &mut table).ok()?;
        let field = |header: &[u8], at| u64_at(header, at).unwrap_or_default();
        let names_at = table.chunks_exact(SHDR_SIZE).nth(usize::from(u16_at(&ehdr, 62)?));
        let names = names_at.and_then(|h| part(source, field(h, 24), field(h, 32)));
        let name = |header: &[u8]| {
            let at = u32_at(header, 0).and_then(|at| usize::try_from(at).ok())?;
            Some(text(names.as_deref()?.get(at..)?))
        };
        let section = |header: &[u8]| Section {
            name: name(header).unwrap_or_default(),
            kind: u32_at(header, 4).unwrap_or_default(),
            offset: field(header, 24),
            size: field(header, 32),
            entry: field(header, 56),
        };
        let list: Vec<Section> = table.chunks_exact(SHDR_SIZE).map(section).collect();
        let sections = Self { list, file_len: source.len() };
        // Where the names are cut off, the first note tells.
        let named = sections.get(".xen_pages").is_some();
        (named || sections.notes(source).is_some()).then_some(sections)
    }

    /// One more than the last byte that a section has.
    pub(super) fn end(&self) -> u64 {
        self.list.iter().map(|s| s.offset.saturating_add(s.size)).max().unwrap_or(0)
    }

    /// Position, size and alignment of the notes.
    pub(super) fn notes(&self, source: &dyn ReadAt) -> Option<(FileOffset, u64)> {
        let all = self.list.iter().filter(|s| s.kind == SHT_NOTE);
        let mut ours = all.filter(|s| {
            let bytes = part(source, s.offset, s.size).unwrap_or_default();
            let first = Notes::new(&bytes, 4).next();
            first.is_some_and(|n| n.name == b"Xen" && n.kind == NOTE_NONE)
        });
        ours.next().map(|s| (FileOffset(s.offset), s.size))
    }

    fn get(&self, name: &str) -> Option<&Section> {
        self.list.iter().find(|s| s.name == name)
    }

    /// The same if some of it is in the file.
    fn there(&self, name: &str) -> Option<&Section> {
        self.get(name).filter(|s| s.size > 0 && s.offset < self.file_len)
    }
}

/// Whether a `vcpu_guest_context` is a 32-bit PV guest's, which the file gives the same size (Xen: xg_core.c,
/// vcpu_guest_context_any_t): by the code segment that it has there (public/arch-x86/xen-x86_32.h) and not as a 64-bit one.
fn is_of_32_bits(context: &[u8]) -> bool {
    let [narrow, wide] = [CS_32, CS_64].map(|at| u16_at(context, at).unwrap_or_default());
    (narrow & !3 == FLAT_RING1_CS & !3 || narrow == USER_CS_32)
        && wide & !3 != FLAT_RING3_CS64 & !3
        && wide != USER_CS_64
}

/// A small part of the file; nothing if it is not all there.
fn part(source: &dyn ReadAt, at: u64, size: u64) -> Option<Vec<u8>> {
    at.checked_add(size).filter(|end| size <= MOST_SMALL && *end <= source.len())?;
    let mut bytes = vec![0; size as usize];
    source.read_exact_at(FileOffset(at), &mut bytes).ok().map(|()| bytes)
}

impl DumpCore {
    /// Reads all but the pages. What is doubtful goes into `damage`.
    ///
    /// # Errors
    /// [`Error::Missing`] if the file is cut short before the list that says which page is which,
    /// [`Error::Unsupported`] for a 32-bit guest's, [`Error::Damaged`] for pages of another size.
    pub(super) fn read(source: &dyn ReadAt, sections: &Sections, damage: &mut Damage) -> Result<Self> {
        let mut core = Self::default();
        let short = |what: &str| {
            let why = format!(
                "{what} of this xl dump-core file is not in it, which has {} bytes of {}; without it nobody can tell which page is which",
                sections.file_len,
                sections.end()
            );
            Error::missing("the list of pages", why)
        };
        let (list, entry) = match (sections.there(".xen_p2m"), sections.there(".xen_pfn")) {
            (Some(list), _) => (list, 16),
            (None, Some(list)) => (list, 8),
            (None, None) => return Err(short("the section .xen_p2m or .xen_pfn")),
        };
        let pages = sections.there(".xen_pages").ok_or_else(|| short("the section .xen_pages"))?;
        core.translated = entry == 8;
        let told = core.take_notes(source, sections, damage)?;
        let listed = list.size.min(sections.file_len - list.offset) / entry;
        let stored = pages.size / PAGE_BYTES;
        if listed != stored || told.is_some_and(|n| n != stored) {
            let told = told.map_or("no header".into(), |n| format!("{n} by the header"));
            let what = format!("{stored} pages, but {listed} entries that say which they are, and {told}");
            damage.add_one("xl dump-core files whose numbers of pages differ", what);
        }
        core.take_list(source, (list.offset, entry), pages.offset, listed.min(stored))?;
        core.take_contexts(source, sections, damage)?;
        core.take_shared_info(source, sections);
        damage.add("entries of the list of pages that make no sense or repeat a page", core.odd);
        Ok(core)
    }

    /// The notes; returns the number of pages that they tell.
    fn take_notes(&mut self, source: &dyn ReadAt, sections: &Sections, damage: &mut Damage) -> Result<Option<u64>> {
        let (at, size) = sections.notes(source).unwrap_or_default();
        let bytes = part(source, at.0, size).unwrap_or_default();
        let mut told = None;
        for note in Notes::new(&bytes, 4).filter(|n| n.name == b"Xen") {
            let word = |at| u64_at(note.desc, at);
            let string = |at: usize, len: usize| note.desc.get(at..at + len).map(text).unwrap_or_default();
            match note.kind {
                NOTE_HEADER => {
                    told = word(16);
                    let page = word(24).unwrap_or(PAGE_BYTES);
                    if page != PAGE_BYTES {
                        return Err(Error::damaged("xl dump-core header", format!("pages of {page} bytes, not 4096")));
                    }
                    let magic = if self.translated { MAGIC_TRANSLATED } else { MAGIC_PV };
                    if word(0) != Some(magic) {
                        let what = format!("not {magic:#x}, as its sections have it");
                        damage.add_one("xl dump-core headers of another magic", what);
                    }
                }
                NOTE_XEN_VERSION => {
                    let strings = [string(16, 16), string(1200, 64), string(32, 64), string(144, 32), String::new()];
                    let (major, minor) = (word(0).unwrap_or_default(), word(8).unwrap_or_default());
                    self.xen = Version { major, minor, strings };
                }
                _ => {}
            }
        }
        Ok(told)
    }

    /// The list of pages, with the place of each.
    fn take_list(&mut self, source: &dyn ReadAt, (at, entry): (u64, u64), pages: u64, count: u64) -> Result<()> {
        let (least, most) = PFN_BOUNDS;
        let bound = count.saturating_mul(LEAST_PART).clamp(least, most);
        let mut buffer = Vec::new();
        let mut next = 0;
        while next < count {
            let n = (LIST_PART / entry).min(count - next);
            buffer.resize((n * entry) as usize, 0);
            let place = FileOffset(at.saturating_add(next * entry));
            source.read_exact_at(place, &mut buffer).map_err(|e| Error::read("the list of pages", e))?;
            for (i, bytes) in (next..).zip(buffer.chunks_exact(entry as usize)) {
                let mut words = words(bytes);
                let pfn = words.next().unwrap_or(u64::MAX);
                let mfn = words.next().unwrap_or(pfn);
                let offset = i.checked_mul(PAGE_BYTES).and_then(|o| pages.checked_add(o));
                match offset {
                    _ if pfn == u64::MAX || mfn == u64::MAX => self.gone += 1,
                    Some(offset) if pfn < bound && mfn <= MAX_FRAME => {
                        self.push(Piece { pfn: Pfn(pfn), mfn: Mfn(mfn), offset: FileOffset(offset), len: 1 });
                    }
                    _ => self.odd += 1,
                }
            }
            next += n;
        }
        // Xen writes it in order; anybody else may not.
        let mut all = std::mem::take(&mut self.pieces);
        all.sort_by_key(|p| p.pfn);
        let mut end = 0_u64;
        for piece in all {
            let skip = end.saturating_sub(piece.pfn.0).min(piece.len);
            self.odd += skip;
            end = end.max(piece.pfn.0 + piece.len);
            let rest = Piece {
                pfn: Pfn(piece.pfn.0 + skip),
                mfn: Mfn(piece.mfn.0 + skip),
                offset: FileOffset(piece.offset.0 + skip * PAGE_BYTES),
                len: piece.len - skip,
            };
            if rest.len > 0 {
                self.push(rest);
            }
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece) {
        let follows = |last: &Piece| {
            last.pfn.0 + last.len == piece.pfn.0
                && last.mfn.0 + last.len == piece.mfn.0
                && last.offset.0 + last.len * PAGE_BYTES == piece.offset.0
        };
        match self.pieces.last_mut() {
            Some(last) if follows(last) => last.len += piece.len,
            _ => self.pieces.push(piece),
        }
    }

    fn take_contexts(&mut self, source: &dyn ReadAt, sections: &Sections, damage: &mut Damage) -> Result<()> {
        let Some(section) = sections.there(".xen_prstatus") else {
            damage.add("xl dump-core files without .xen_prstatus: no vCPU has registers", 1);
            return Ok(());
        };
        let whole = section.size.is_multiple_of(CONTEXT_SIZE as u64);
        if !whole || (section.entry != 0 && section.entry != CONTEXT_SIZE as u64) {
            let why = format!(
                "{} bytes of vCPU contexts, {} each: not of a 64-bit guest, which has {CONTEXT_SIZE}",
                section.size, section.entry
            );
            return Err(Error::Unsupported(why));
        }
        let most = (MOST_VCPUS * CONTEXT_SIZE) as u64;
        let there = section.size.min(sections.file_len - section.offset).min(most);
        let there = there - there % CONTEXT_SIZE as u64;
        if there < section.size {
            damage.add("bytes of vCPU contexts that are missing", section.size - there);
        }
        self.contexts = vec![0; there as usize];
        let place = FileOffset(section.offset);
        source.read_exact_at(place, &mut self.contexts).map_err(|e| Error::read("the vCPU contexts", e))?;
        if !self.translated && self.contexts.chunks_exact(CONTEXT_SIZE).any(is_of_32_bits) {
            return Err(Error::Unsupported(
                "a vCPU has a 32-bit kernel's registers; only 64-bit domains can be cut".into(),
            ));
        }
        Ok(())
    }

    fn take_shared_info(&mut self, source: &dyn ReadAt, sections: &Sections) {
        let Some(section) = sections.there(".xen_shared_info").filter(|s| s.size >= PAGE_BYTES) else { return };
        let Some(page) = part(source, section.offset, PAGE_BYTES) else { return };
        let mfn = if self.translated { None } else { self.find_shared_info(source) };
        self.shared_info = Some(SharedInfoPage { page, mfn, offset: FileOffset(section.offset) });
    }

    /// The frame that the domain's start_info names, which is none of its pages.
    fn find_shared_info(&self, source: &dyn ReadAt) -> Option<Mfn> {
        let each = |p: &Piece| {
            let start = p.offset.0;
            (0..p.len).map(move |i| FileOffset(start + i * PAGE_BYTES))
        };
        let mut pages = self.pieces.iter().flat_map(each).take(MOST_LOOKED as usize);
        let mut candidates = 0;
        pages.find_map(|place| {
            let mut head = [0; 48];
            source.read_exact_at(place, &mut head).ok()?;
            let addr = u64_at(&head, 40).filter(|_| head.starts_with(START_INFO_MAGIC))?;
            let mfn = Mfn(addr >> PAGE_SHIFT);
            candidates += 1;
            let ours =
                candidates > MOST_CANDIDATES || self.pieces.iter().any(|p| mfn >= p.mfn && mfn.0 - p.mfn.0 < p.len);
            (addr != 0 && addr.is_multiple_of(PAGE_BYTES) && mfn.0 <= MAX_FRAME && !ours).then_some(mfn)
        })
    }

    /// The pages by MFN, as machine memory.
    pub(super) fn segments(&self, file_len: u64) -> Segments {
        let load = |mfn: Mfn, offset, pages: u64| {
            let size = pages * PAGE_BYTES;
            let start = MachineAddr(mfn.0 << PAGE_SHIFT);
            Load { start, offset, file_size: size, present: 0, mem_size: size }.in_file(file_len)
        };
        let shared = self.shared_info.as_ref().and_then(|s| Some(load(s.mfn?, s.offset, 1)));
        let pages = self.pieces.iter().map(|p| load(p.mfn, p.offset, p.len));
        Segments::new(pages.chain(shared).collect())
    }

    /// Where a page stood in the machine.
    pub fn mfn(&self, pfn: Pfn) -> Option<Mfn> {
        let before = self.pieces.partition_point(|p| p.pfn <= pfn).checked_sub(1)?;
        let piece = self.pieces.get(before).filter(|p| pfn.0 - p.pfn.0 < p.len)?;
        Some(Mfn(piece.mfn.0 + (pfn.0 - piece.pfn.0)))
    }

    /// Pages that the file has.
    pub fn pages(&self) -> u64 {
        self.pieces.iter().map(|p| p.len).sum()
    }
}

const _: () = assert!(PAGE_SIZE as u64 == PAGE_BYTES && CONTEXT_SIZE.is_multiple_of(16));
