//! VMCOREINFO made from a vmlinux, for a dump in which the kernel's own is damaged or overwritten.
//!
//! Linux fills its note at boot with what the compiler knows (layouts, enumerators), what the linker knows (symbols)
//! and a few values of the running kernel. The first two are in the file: DWARF and .symtab. The rest is fixed in a PV
//! domain, whose kernel Xen loads unrelocated, with four levels of page tables and without memory encryption.
//!
//! Which keys there are depends on the kernel's generation. It is told by what its structures have, as the note's
//! readers do, since distributions carry newer code in kernels of old versions.
//!
//! One line differs from the kernel's own: `SYMBOL(mem_section)` is the variable's address, where Linux since 4.15
//! writes the pointer in it. And there are lines that the kernel left out, for its age or its configuration.

mod text;

use crate::dwarf::{Image, Sections, Types, Units, Wanted};
use crate::error::{Error, Result};
use crate::source;
use crate::vmcoreinfo::Vmcoreinfo;
use std::path::Path;

/// Structures that any kernel has, and whose absence means that the search must go on.
const NEEDED: &[&str] = &[
    "atomic_long_t",
    "free_area",
    "list_head",
    "nodemask_t",
    "page",
    "pageflags",
    "pglist_data",
    "uts_namespace",
    "zone",
    "zone_stat_item",
];
/// Those of some kernels only.
const OPTIONAL: &[&str] = &[
    "compound_dtor_id",
    "dev_printk_info",
    "folio",
    "latched_seq",
    "log",
    "mem_section",
    "pagetype",
    "prb_data_blk_lpos",
    "prb_data_ring",
    "prb_desc",
    "prb_desc_ring",
    "printk_info",
    "printk_log",
    "printk_ringbuffer",
    "vmap_area",
];
/// All that the note needs is in three units: that of the function that writes the note at boot (since 6.9, since 4.13,
/// since 4.3, before), printk and vmalloc (for a structure of which the first only uses offsets, which leaves no trace).
const UNITS: [&[&str]; 3] = [
    &["kernel/vmcore_info.c", "kernel/crash_core.c", "kernel/kexec_core.c", "kernel/kexec.c"],
    &["kernel/printk/printk.c", "kernel/printk.c"],
    &["mm/vmalloc.c"],
];
const WAY_OUT: &str = "give the vmlinux of the kernel's debug package (CONFIG_DEBUG_INFO, uncompressed)";

/// Makes the text from an uncompressed vmlinux with debugging information. The file is mapped, under the contract of
/// [`crate::source::open`].
///
/// # Errors
/// [`Error::Read`], or [`Error::Usage`] for a file that is no vmlinux or whose DWARF is absent, split off or too
/// damaged to tell the layouts.
pub fn vmcoreinfo(path: &Path) -> Result<Vmcoreinfo> {
    let fail = |why: String| Error::Usage(format!("{}: {why}; {WAY_OUT}", path.display()));
    from_bytes(source::whole(path)?.bytes()).map_err(fail)
}

fn from_bytes(file: &[u8]) -> Result<Vmcoreinfo, String> {
    let image = Image::parse(file, text::wants)?;
    let sections = Sections::of(&image)?;
    if sections.is_empty() {
        return Err("has no DWARF (.debug_info)".into());
    }
    let units = Units::new(&sections);
    let types = Types::read(&units, Wanted { needed: NEEDED, optional: OPTIONAL, units: &UNITS }).map_err(|why| {
        let split = (0..units.len().min(8)).any(|unit| units.is_elsewhere(unit));
        if split { "its DWARF is split off into .dwo files".into() } else { why }
    })?;
    Ok(Vmcoreinfo::parse(text::compose(&image, &types)?.as_bytes()))
}
