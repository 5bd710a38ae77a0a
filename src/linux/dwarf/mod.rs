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

mod image;
mod text;
mod types;
mod units;

use crate::error::{Error, Result};
use crate::source;
use crate::vmcoreinfo::Vmcoreinfo;
use image::Image;
use std::path::Path;
use types::Types;
use units::{Sections, Units};

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
    let types = Types::read(&units).map_err(|why| {
        let split = (0..units.len().min(8)).any(|unit| units.is_elsewhere(unit));
        if split { "its DWARF is split off into .dwo files".into() } else { why }
    })?;
    Ok(Vmcoreinfo::parse(text::compose(&image, &types)?.as_bytes()))
}
