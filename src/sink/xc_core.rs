//! What `xl dump-core` writes (Xen: tools/libs/guest/xg_core.c of 4.20; what is in it: [`crate::source::xc_core`]).
//!
//! In this order: ELF header, section headers, notes, `.xen_prstatus`, `.xen_shared_info`, at a multiple of 4096
//! `.xen_pages`, `.xen_p2m` or `.xen_pfn`, `.shstrtab`. Section numbers, sizes, alignments and names are xl's.
//!
//! Pages are the domain's own, by PFN, nothing in them altered. Zero pages are in the list like all others, as readers take
//! a page that is not there for an error, and are holes of the file. What differs from xl's:
//! * xl does not look for PFN 0xa0 to 0xbf and 0xf0000 to 0xfffff of a translated domain, and leaves as many entries empty at
//!   the end as it counts pages there. Here they are in the list.
//! * Who compiled Xen, where, and its capabilities are empty: no dump tells.
//! * Fields of contexts that nothing tells are 0 ([`crate::xen::guest_context`]).
//! * A page that turns out damaged while the file is written has an empty entry, as xl has it for one that went away.
//!
//! What other formats' `XDUMPCUT` note says has a section of its own, `.note.XDUMPCUT` before `.shstrtab`: behind Xen's notes
//! crash 8.0.6 dies of it. Further sections are no trouble, to libkdumpfile 0.5.1 either.

use super::notes::{NoteBlob, XDUMPCUT_TYPE};
use super::{Output, Written};
use crate::bitmap::Bitmap;
use crate::error::{Absence, Error, Result};
use crate::pipeline::crew::Crew;
use crate::pipeline::walk::{Chunk, Piece, Walker, chunks};
use crate::pipeline::{Progress, advance};
use crate::plan::Plan;
use crate::source::xc_core::{
    CONTEXT_SIZE, DumpCore, MAGIC_PV, MAGIC_TRANSLATED, NOTE_FORMAT, NOTE_HEADER, NOTE_NONE, NOTE_XEN_VERSION, SHT_NOTE,
};
use crate::units::{Mfn, PAGE_BYTES, PAGE_SIZE};
use crate::xen::vcpu::Vcpu;
use crate::xen::{Domain, Host, P2m, guest_context};
use crate::zero::is_zero;
use goblin::elf::header::{ELFCLASS64, ELFDATA2LSB, ELFMAG, ELFOSABI_NONE, EM_X86_64, ET_CORE, EV_CURRENT};
use goblin::elf::section_header::{SHT_NULL, SHT_PROGBITS, SHT_STRTAB};
use goblin::elf64::header::{SIZEOF_EHDR, SIZEOF_IDENT};
use goblin::elf64::program_header::SIZEOF_PHDR;
use goblin::elf64::section_header::SIZEOF_SHDR;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Where Xen's part of the address space begins in 64-bit guests (HYPERVISOR_VIRT_START).
const XEN_START: u64 = 0xffff_8000_0000_0000;
/// XEN_DUMPCORE_FORMAT_VERSION.
const FORMAT_VERSION: u64 = 1;
/// The section that says what was cut.
const OWN_NOTE: &str = ".note.XDUMPCUT";
/// EI_ABIVERSION, of which nobody says what it means.
const ABI_VERSION: u8 = 1;
/// Entries of the list that are written at once.
const LIST_PART: usize = 1 << 16;
/// An entry of a page that went away.
const GONE: u64 = u64::MAX;

/// What stands before the pages.
#[derive(Clone, Debug)]
pub struct Content {
    translated: bool,
    /// Of [`CONTEXT_SIZE`] bytes each.
    contexts: Vec<u8>,
    shared_info: Option<Vec<u8>>,
    /// Descriptor of the version note.
    version: Vec<u8>,
    about: String,
}

impl Content {
    /// Collects it. `source` is the dump, if it is of a domain alone; `root` the kernel's root table; `about` the text of the
    /// XDUMPCUT note.
    pub fn of(
        host: &Host<'_>,
        source: Option<&DumpCore>,
        (domain, p2m): (&Domain, &P2m),
        (vcpus, root): (&[Vcpu], Option<Mfn>),
        about: &str,
    ) -> Self {
        let page = || host.memory().page(domain.shared_info.as_ref()?.mfn).ok().map(|page| page.into_owned());
        let (contexts, shared_info) = match source {
            Some(core) => (core.contexts.clone(), core.shared_info.as_ref().map(|s| s.page.clone())),
            None => (guest_context::all(host, p2m, vcpus, root), page()),
        };
        Self { translated: p2m.translated, contexts, shared_info, version: version(host), about: about.into() }
    }

    /// What a reader will not bear.
    pub fn doubt(&self, plan: &Plan<'_>) -> Option<String> {
        let holes = plan.end().0 - plan.pages().min(plan.end().0);
        (!self.translated && holes > 0).then(|| {
            format!("{holes} PFNs below the last have no page; crash takes the place of an entry in .xen_p2m for its PFN and cannot open such a file of a PV domain, of xl's making either; write kdump or ELF for it")
        })
    }

    fn notes(&self, pages: u64) -> NoteBlob {
        let magic = if self.translated { MAGIC_TRANSLATED } else { MAGIC_PV };
        let mut notes = NoteBlob::default();
        notes.push(b"Xen", NOTE_NONE, &[]);
        notes.push(
            b"Xen",
            NOTE_HEADER,
            &words(&[magic, (self.contexts.len() / CONTEXT_SIZE) as u64, pages, PAGE_BYTES]),
        );
        notes.push(b"Xen", NOTE_XEN_VERSION, &self.version);
        notes.push(b"Xen", NOTE_FORMAT, &words(&[FORMAT_VERSION]));
        notes
    }

    fn own_note(&self) -> NoteBlob {
        let mut notes = NoteBlob::default();
        notes.push(b"XDUMPCUT", XDUMPCUT_TYPE, self.about.as_bytes());
        notes
    }

    /// Name of the list of pages, and size of its entries.
    fn list(&self) -> (&'static str, u64) {
        if self.translated { (".xen_pfn", 8) } else { (".xen_p2m", 16) }
    }
}

/// `struct xen_dumpcore_elfnote_xen_version_desc`.
fn version(host: &Host<'_>) -> Vec<u8> {
    let [extra, changeset, compiler, date, _] = &host.strings;
    let crash = &host.notes.crash;
    let mut desc = words(&[crash.major, crash.minor]);
    // Compiled by and at, and capabilities, stand in no place that a dump tells.
    let texts = [(extra.as_str(), 16), (compiler, 64), ("", 16), ("", 32), (date, 32), ("", 1024), (changeset, 64)];
    for (text, len) in texts {
        let end = desc.len() + len;
        // The last byte stays NUL.
        desc.extend(text.bytes().take(len - 1));
        desc.resize(end, 0);
    }
    desc.extend(words(&[XEN_START, PAGE_BYTES]));
    desc
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A section: name, type, size, alignment, size of an entry.
type Section = (&'static str, u32, u64, u64, u64);

/// Where everything stands.
struct Layout {
    sections: Vec<Section>,
    /// Positions of the sections.
    places: Vec<u64>,
    names: Vec<u8>,
    end: u64,
}

impl Layout {
    fn new(content: &Content, (notes, own): (&NoteBlob, &NoteBlob), pages: u64) -> Self {
        let (list, entry) = content.list();
        let mut sections = vec![
            ("", SHT_NULL, 0, 0, 0),
            (".shstrtab", SHT_STRTAB, 0, 0, 0),
            (".note.Xen", SHT_NOTE, notes.bytes.len() as u64, 0, 0),
            (".xen_prstatus", SHT_PROGBITS, content.contexts.len() as u64, 8, CONTEXT_SIZE as u64),
        ];
        if content.shared_info.is_some() {
            sections.push((".xen_shared_info", SHT_PROGBITS, PAGE_BYTES, 8, PAGE_BYTES));
        }
        sections.push((".xen_pages", SHT_PROGBITS, pages * PAGE_BYTES, PAGE_BYTES, PAGE_BYTES));
        sections.push((list, SHT_PROGBITS, pages * entry, 8, entry));
        sections.push((OWN_NOTE, SHT_NOTE, own.bytes.len() as u64, 4, 0));
        let names: Vec<u8> = sections.iter().flat_map(|s| [s.0.as_bytes(), b"\0"].concat()).collect();
        let mut at = (SIZEOF_EHDR + sections.len() * SIZEOF_SHDR) as u64;
        let mut places = Vec::with_capacity(sections.len());
        for (_, kind, size, align, _) in &sections {
            at = at.next_multiple_of((*align).max(1));
            places.push(if *kind == SHT_NULL { 0 } else { at });
            at += size;
        }
        // The names come last.
        let sizes = sections.iter_mut().zip(&mut places).filter(|(s, _)| s.1 == SHT_STRTAB);
        sizes.for_each(|(section, place)| (section.2, *place) = (names.len() as u64, at));
        let end = at + names.len() as u64;
        Self { sections, places, names, end }
    }

    fn place(&self, name: &str) -> u64 {
        let mut all = self.sections.iter().zip(&self.places);
        all.find(|(s, _)| s.0 == name).map_or(0, |(_, place)| *place)
    }

    /// The ELF header and the section headers.
    fn headers(&self) -> Vec<u8> {
        let mut b = Vec::new();
        b.extend(ELFMAG);
        b.extend([ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE, ABI_VERSION]);
        b.resize(SIZEOF_IDENT, 0);
        b.extend(ET_CORE.to_le_bytes());
        b.extend(EM_X86_64.to_le_bytes());
        b.extend(u32::from(EV_CURRENT).to_le_bytes());
        b.extend(words(&[0, 0, SIZEOF_EHDR as u64])); // e_entry, e_phoff, e_shoff
        b.extend(0_u32.to_le_bytes()); // e_flags
        let strings = self.sections.iter().position(|s| s.1 == SHT_STRTAB).unwrap_or_default();
        for half in [SIZEOF_EHDR, SIZEOF_PHDR, 0, SIZEOF_SHDR, self.sections.len(), strings] {
            b.extend((half as u16).to_le_bytes());
        }
        let mut name_at = 0;
        for ((name, kind, size, align, entry), place) in self.sections.iter().zip(&self.places) {
            b.extend((name_at as u32).to_le_bytes());
            b.extend(kind.to_le_bytes());
            b.extend(words(&[0, 0, *place, *size, 0, *align, *entry]));
            name_at += name.len() + 1;
        }
        b
    }
}

/// Writes the dump. The plan is one of unaltered pages.
///
/// # Errors
/// [`crate::Error::Write`].
pub fn write(
    walker: &Walker<'_>,
    content: &Content,
    out: &Output,
    crew: &Crew,
    progress: &dyn Progress,
) -> Result<Written> {
    let plan = walker.plan();
    let (notes, own) = (content.notes(plan.pages()), content.own_note());
    let layout = Layout::new(content, (&notes, &own), plan.pages());
    out.set_len(layout.end)?;
    out.write_at(&layout.headers(), 0)?;
    out.write_at(&notes.bytes, layout.place(".note.Xen"))?;
    out.write_at(&content.contexts, layout.place(".xen_prstatus"))?;
    if let Some(page) = &content.shared_info {
        out.write_at(page, layout.place(".xen_shared_info"))?;
    }
    progress.stage("writing pages", Some(plan.pages()));
    let all: Vec<Chunk> = chunks(plan).collect();
    let pages = Pages { walker, out, start: layout.place(".xen_pages"), lost: Mutex::default() };
    let zero = crew.install(|| {
        let write = |chunk: &Chunk| {
            walker.expect(*chunk, None);
            let zero = pages.write(*chunk)?;
            advance(progress, chunk.pages)?;
            Ok(zero)
        };
        all.par_iter().map(write).try_reduce(|| 0, |a, b| Ok(a + b))
    })?;
    let lost = pages.lost.into_inner().map_err(|_| stopped())?;
    write_list(plan, content, &lost, out, layout.place(content.list().0))?;
    out.write_at(&own.bytes, layout.place(OWN_NOTE))?;
    out.write_at(&layout.names, layout.place(".shstrtab"))?;
    let count: u64 = lost.reasons.values().sum();
    let stored = plan.pages() - zero - count;
    Ok(Written { stored, zero, lost: lost.reasons, bytes: layout.end, ..Written::default() })
}

fn stopped() -> Error {
    Error::Usage("a worker stopped".into())
}

/// Pages that could not be had while writing, by position in the plan, and why.
#[derive(Debug, Default)]
struct Lost {
    /// Made with the first of them.
    pages: Option<Bitmap>,
    reasons: BTreeMap<Absence, u64>,
}

struct Pages<'w, 'a> {
    walker: &'w Walker<'a>,
    out: &'w Output,
    start: u64,
    lost: Mutex<Lost>,
}

impl Pages<'_, '_> {
    /// Writes a chunk; returns how many of its pages are zero.
    fn write(&self, chunk: Chunk) -> Result<u64> {
        let (mut index, mut zero) = (chunk.first, 0);
        self.walker.visit(chunk, |_, piece| {
            let at = self.start + index * PAGE_BYTES;
            match piece {
                Piece::Plain(bytes) => {
                    zero += self.write_plain(bytes, at)?;
                    index += (bytes.len() / PAGE_SIZE) as u64;
                }
                Piece::Altered(page) => {
                    zero += self.write_plain(page, at)?;
                    index += 1;
                }
                Piece::Zeros(n) => {
                    (0..n).try_for_each(|i| self.write_zero(at + i * PAGE_BYTES))?;
                    (index, zero) = (index + n, zero + n);
                }
                Piece::Lost(why) => {
                    self.write_zero(at)?;
                    let mut lost = self.lost.lock().map_err(|_| stopped())?;
                    lost.pages.get_or_insert_with(|| Bitmap::new(self.walker.plan().pages())).set(index);
                    *lost.reasons.entry(why).or_default() += 1;
                    index += 1;
                }
            }
            Ok(())
        })?;
        Ok(zero)
    }

    /// Whole pages: what lies together and is not zero in one write. Returns how many are zero.
    fn write_plain(&self, bytes: &[u8], at: u64) -> Result<u64> {
        let (mut zero, mut start) = (0, 0);
        for (n, page) in bytes.chunks_exact(PAGE_SIZE).enumerate() {
            if is_zero(page) {
                let here = n * PAGE_SIZE;
                self.write_part(bytes, start..here, at)?;
                self.write_zero(at + here as u64)?;
                (zero, start) = (zero + 1, here + PAGE_SIZE);
            }
        }
        self.write_part(bytes, start..bytes.len(), at)?;
        Ok(zero)
    }

    fn write_part(&self, bytes: &[u8], part: std::ops::Range<usize>, at: u64) -> Result<()> {
        let place = at + part.start as u64;
        bytes.get(part).filter(|b| !b.is_empty()).map_or(Ok(()), |b| self.out.write_at(b, place))
    }

    /// What stood on a device before must not show through.
    fn write_zero(&self, at: u64) -> Result<()> {
        if self.out.is_new() { Ok(()) } else { self.out.write_at(&[0; PAGE_SIZE], at) }
    }
}

/// PFN and MFN of each page, or the PFN alone.
fn write_list(plan: &Plan<'_>, content: &Content, lost: &Lost, out: &Output, start: u64) -> Result<()> {
    let mut pages = plan.pieces().flat_map(|run| (0..run.len).map(move |i| (run.pfn.0 + i, run.mfn.0 + i)));
    let is_lost = |index| lost.pages.as_ref().is_some_and(|l| l.get(index));
    let (mut index, mut at) = (0, start);
    let mut part = Vec::new();
    loop {
        part.clear();
        for (pfn, mfn) in pages.by_ref().take(LIST_PART) {
            let (pfn, mfn) = if is_lost(index) { (GONE, GONE) } else { (pfn, mfn) };
            part.extend(pfn.to_le_bytes());
            if !content.translated {
                part.extend(mfn.to_le_bytes());
            }
            index += 1;
        }
        if part.is_empty() {
            return Ok(());
        }
        out.write_at(&part, at)?;
        at += part.len() as u64;
    }
}
