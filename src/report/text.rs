//! A report as people read it.

use super::Report;
use crate::units::PAGE_BYTES;
use crate::xen::alone::number;
use std::fmt;

impl Report {
    fn tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.tables;
        writeln!(
            f,
            "  page tables: {} rewritten ({} that only Linux knows), {} entries; {} to Xen-heap pages, {} to foreign pages, {} MMIO kept",
            t.tables,
            t.tables_unpinned,
            t.own + t.xen_heap + t.foreign,
            t.xen_heap,
            t.foreign,
            t.mmio
        )?;
        if t.lost + t.mmio_lost > 0 {
            writeln!(
                f,
                "  not carried: {} mappings of other domains or Xen, {} of MMIO whose number is RAM of the domain",
                t.lost, t.mmio_lost
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &self.domain;
        let release = d.release.as_deref().unwrap_or("of unknown release");
        writeln!(f, "Xen {}, domain {}, Linux {release}, {} vCPUs", self.source.xen, number(d.id), d.vcpus.len())?;
        let s = &self.source;
        writeln!(f, "  read: {}, {}, of that {} in holes, which are zeros", s.form, size(s.bytes), size(s.hole_bytes))?;
        if let Some(n) = &s.fetched {
            let (bytes, of, requests) = (size(n.bytes), size(n.of_bytes), n.requests);
            let object = if n.objects == 1 { "the object's".into() } else { format!("{} objects'", n.objects) };
            writeln!(f, "  fetched: {bytes} ({} bytes) of {object} {of}, in {requests} requests", n.bytes)?;
        }
        for cpu in self.cpus.iter().filter(|c| c.crashed) {
            writeln!(f, "  physical {cpu}")?;
        }
        let mut row = |name: &str, pages: u64, note: &str| {
            if pages == 0 {
                return Ok(());
            }
            let line = format!("  {name:<28}{pages:>12} pages {:>12}  {note}", size(pages * PAGE_BYTES));
            writeln!(f, "{}", line.trim_end())
        };
        let (m, o) = (&self.machine, &self.output);
        let sampled = if m.exact { "" } else { "estimated from a sample" };
        let about = if self.estimate.is_some() { "estimated from a sample" } else { "" };
        row("kept", o.kept, about)?;
        row("zero, read as zeros", o.zero, about)?;
        for (why, n) in &o.absent {
            row("missing", *n, why)?;
        }
        for (class, n) in &o.excluded {
            row(&format!("dropped: {class}"), *n, "")?;
        }
        row("dropped: Xen-free", m.free, sampled)?;
        row("dropped: other domains", m.other_domains(d.id), sampled)?;
        if o.xen == 0 {
            row("dropped: Xen and I/O", m.xen + m.io + m.offline + m.no_entry, sampled)?;
        } else {
            row("of what is kept or zero: Xen", o.xen, "")?;
        }
        let t = &self.tables;
        if t.tables > 0 {
            self.tables(f)?;
        }
        for c in &self.cleared {
            writeln!(f, "  cleared: {} at {} (held {}; found by {})", c.name, c.address, c.old, c.found_by)?;
        }
        for w in &self.warnings {
            writeln!(f, "  warning: {w}")?;
        }
        let layout = if o.layout.starts_with("machine") { format!(", {} layout", o.layout) } else { String::new() };
        if let Some(e) = &self.estimate {
            writeln!(f, "  sizes, estimated from {} of {} pages; at most {}:", e.sampled, e.pages, size(e.at_most))?;
            for (name, bytes) in &e.bytes {
                writeln!(f, "    {name:<26}{:>12}", size(*bytes))?;
            }
            return write!(f, "  output: {}{layout}, about {}; nothing was written", o.format, size(o.bytes));
        }
        if let Some(digest) = &o.digest {
            writeln!(f, "  digest of all pages: blake3:{digest}")?;
        }
        if let Some(pages) = o.verified {
            writeln!(f, "  verified: {pages} pages, read again, are those of the source")?;
        }
        write!(f, "  output: {}{layout}, {} ({} bytes)", o.format, size(o.bytes), o.bytes)?;
        match &o.files[..] {
            files if o.incomplete.is_some() => write!(f, ", incomplete: {}", files.join(", ")),
            [_] | [] => Ok(()),
            files => write!(f, " in {} files", files.len()),
        }
    }
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    match units.get(power as usize) {
        Some(unit) if power > 0 => format!("{:.1} {unit}", bytes as f64 / (1_u64 << (10 * power)) as f64),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for (n, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")] {
            assert_eq!(super::size(n), text);
        }
    }
}
