//! What writes a file: the notes of a native dump, and the formats.

pub mod elf;
pub mod kdump;
pub mod notes;
mod output;
pub mod xc_core;
pub mod zst;

pub use output::{Mode, Output};

use crate::error::{Absence, Error, Result};
use crate::options::Format;
use crate::pipeline::crew::Crew;
use crate::pipeline::find::Found;
use crate::pipeline::walk::Walker;
use crate::pipeline::{Progress, advance};
use crate::plan::Plan;
use elf::Window;
use notes::NoteBlob;
use std::collections::BTreeMap;

/// What the headers of a dump say, whatever its format.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// All notes.
    pub notes: NoteBlob,
    /// The address ranges of the kernel in which pages stand: the direct map first, which has all of them, then its image.
    pub windows: Vec<Window>,
    /// sysname, nodename, release, version, machine, domainname.
    pub uts: [String; 6],
    /// VMCOREINFO's phys_base; 0 in a PV kernel.
    pub phys_base: i64,
    /// Number of CPUs that the notes have registers of.
    pub cpus: u32,
    /// What the format of xl dump-core has before its pages, if that is to be written.
    pub core: Option<xc_core::Content>,
}

/// What a format wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pages stored.
    pub stored: u64,
    /// Zero pages, which readers see but the file does not hold.
    pub zero: u64,
    /// Pages that could not be had while writing, by reason; readers see them as missing.
    pub lost: BTreeMap<Absence, u64>,
    /// Size of the file in bytes, of all files of a split dump.
    pub bytes: u64,
    /// The digest of all pages, if the notes have room for it.
    pub digest: Option<String>,
    /// Why the file ends before all is in it, if it does.
    pub incomplete: Option<String>,
}

impl Written {
    /// What an ELF file has that has all of what was found.
    fn all(plan: &Plan<'_>, found: &Found) -> Self {
        let stored = found.data.count();
        Self {
            stored,
            zero: plan.pages() - stored - found.lost.count(),
            lost: found.reasons.clone(),
            digest: found.digest.clone(),
            ..Self::default()
        }
    }

    /// All pages that could not be had.
    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }
}

/// Writes the pages of `walker` in a format, split over `outs` if there are several. Where the disk is full, the outputs end
/// early and are marked incomplete.
///
/// # Errors
/// [`Error::Write`]; [`Error::Usage`] if the format cannot be split, or not hold the domain.
pub fn write(
    format: Format,
    walker: &Walker<'_>,
    facts: &Facts,
    outs: &[Output],
    crew: &Crew,
    progress: &dyn Progress,
) -> Result<Written> {
    // Nothing is better than a file without a page.
    advance(progress, 0)?;
    match (format, outs) {
        (Format::Kdump(codec), _) => kdump::write(walker, facts, codec, outs, crew, progress),
        (Format::Elf, [out]) => elf::write(walker, facts, out, crew, progress),
        (Format::ElfZst(level), [out]) => zst::write(walker, facts, level, out, crew, progress),
        (Format::XcCore, [out]) => match &facts.core {
            Some(content) => xc_core::write(walker, content, out, crew, progress),
            None => Err(Error::Usage("the xc-core format needs what Xen knows of the domain: the full dump".into())),
        },
        (Format::Elf | Format::ElfZst(_) | Format::XcCore, _) => {
            Err(Error::Usage("only the kdump format can be split over several files".into()))
        }
    }
}
