//! What a cut is, for people and for scripts.

use super::{Told, told, vcpu};
use crate::error::Result;
use crate::report::{VcpuReport, size};
use crate::source::ReadAt;
use crate::units::PAGE_BYTES;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A cut, described. Field names are what `info --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// The file's wrappers and format, from the outside to the inside.
    pub form: String,
    /// What is damaged in it, and how much of that.
    pub damage: BTreeMap<String, u64>,
    /// The same for people, a line each, with details.
    pub damage_lines: Vec<String>,
    /// Size of the file within its wrappers, in bytes.
    pub bytes: u64,
    /// Version of this program that wrote it.
    pub cut_by: String,
    /// Identity of the full dump.
    pub source_id: String,
    /// Version of Xen there.
    pub xen: String,
    /// The domain's number, if the full dump told it.
    pub domain: Option<u16>,
    /// Its kernel's release.
    pub release: String,
    /// Its vCPUs that have registers.
    pub vcpus: Vec<VcpuReport>,
    /// The dump level.
    pub level: u8,
    /// Pages that are in it.
    pub pages: u64,
    /// Pages that the level left out, by class.
    pub excluded: BTreeMap<String, u64>,
    /// The digest of all pages, if the note has one.
    pub digest: Option<String>,
    /// The notes: name, type, and size in bytes.
    pub notes: Vec<(String, u32, usize)>,
    /// What the XDUMPCUT note says, line by line.
    pub note: Vec<String>,
}

/// Describes a cut; nothing if the dump is none.
///
/// # Errors
/// As [`crate::source::read`], and [`crate::Error::Missing`] for a note that lacks lines.
pub fn about(source: &dyn ReadAt) -> Result<Option<About>> {
    let (core, mem) = crate::source::read(source)?;
    let Some(told) = told(&core)? else { return Ok(None) };
    let Told { text, version, source_id, xen, domain, level, excluded, uts, digest, .. } = told;
    let [_, _, release, ..] = uts;
    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    Ok(Some(About {
        form: mem.history().form(),
        damage: mem.history().damage.counts(),
        damage_lines: mem.history().damage.lines().collect(),
        bytes: source.len(),
        cut_by: version,
        source_id,
        xen,
        domain,
        release,
        vcpus: core.notes().filter_map(|n| vcpu(&n)).collect(),
        level: level.number(),
        pages: mem.map().stored_frames().map(|(first, end)| end - first).sum(),
        excluded,
        digest,
        notes: core.notes().map(|n| (name(n.name), n.kind, n.desc.len())).collect(),
        note: text.lines().map(String::from).collect(),
    }))
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = self.domain.map_or("a domain of unknown number".into(), |id| format!("domain {id}"));
        writeln!(f, "A cut of {domain}, Linux {}, out of a dump of Xen {}", self.release, self.xen)?;
        writeln!(f, "  in a file of {}, {}", size(self.bytes), self.form)?;
        writeln!(f, "  cut by xdump-cut {} from the dump {}", self.cut_by, self.source_id)?;
        let level = crate::plan::level::Level::new(self.level).unwrap_or(crate::plan::level::Level::NOTHING);
        writeln!(f, "  left out by level {level}; {} pages stay ({})", self.pages, size(self.pages * PAGE_BYTES))?;
        for (class, n) in &self.excluded {
            writeln!(f, "    {class:<18}{n:>12} {:>12}", size(n * PAGE_BYTES))?;
        }
        if let Some(digest) = &self.digest {
            writeln!(f, "  digest of all pages: blake3:{digest}")?;
        }
        writeln!(f, "vCPUs")?;
        for v in &self.vcpus {
            writeln!(f, "  vCPU {}: rip {}", v.id, v.rip.as_deref().unwrap_or("unknown"))?;
        }
        writeln!(f, "notes")?;
        for (name, kind, size) in &self.notes {
            writeln!(f, "  {name:<16} type {kind:#x}, {size} bytes")?;
        }
        writeln!(f, "altered")?;
        let shown = |l: &&String| ["TABLES_", "ENTRIES_", "CLEARED="].iter().any(|key| l.starts_with(key));
        self.note.iter().filter(shown).try_for_each(|l| writeln!(f, "  {l}"))?;
        self.damage_lines.iter().try_for_each(|line| writeln!(f, "damaged input: {line}"))
    }
}
