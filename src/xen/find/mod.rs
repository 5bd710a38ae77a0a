//! Xen without its notes: in dumps that QEMU or libvirt made of a virtual host, and where the notes are lost.
//!
//! Everything that the notes would tell is proven in memory ([`XenNotes`] is made, and the rest of the program knows no
//! difference):
//! 1. *The root table* ([`image`]). A CPU's CR3, or else a search below 4 GiB, gives a table that maps itself in slot 258
//!    and Xen's image where one of the known layouts has it. In the image stands `idle_pg_table`, the root of all.
//! 2. *The version* ([`version`]) from the code of Xen's own functions that return it.
//! 3. *The frame table* by layout; how far it goes by its entries.
//! 4. *The domains* ([`mod@domains`]): what the frame table's entries name as owners, and the one offset at which these lead
//!    to each other by ascending id.
//!
//! A `xen-syms` of the same build ([`super::syms`]) gives the addresses of variables, and so leaves less to search.

mod domains;
mod image;
mod version;

use super::frame_table::FrameTable;
use super::notes::{CrashInfo, Origin, Parts, XenNotes};
use super::paging::AddressSpace;
use super::pdx::{DIRECT_MAP_BIGMEM, PdxMap, direct_map_base};
use super::syms::XenSyms;
use crate::error::{Error, Result};
use crate::source::MachineMemory;
use crate::units::{Mfn, PAGE_BYTES, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;
pub(super) use domains::{find as domains, lost};
use std::fmt::Write;

/// Makes up what `parts` lack, but for the domain list ([`mod@domains`]).
///
/// # Errors
/// [`Error::NotXen`] if the memory shows no Xen, [`Error::Usage`] for a `xen-syms` of another build.
pub(super) fn notes<'a>(
    mem: &'a MachineMemory<'a>,
    parts: Parts,
    syms: Option<&XenSyms>,
) -> Result<(XenNotes, AddressSpace<'a>)> {
    let image = image::find(mem, &parts.cpus, syms).ok_or_else(|| {
        let why = "and no page table in its memory maps a Xen that this program knows (4.0 and later, x86_64)";
        Error::NotXen(format!("it lacks notes of Xen's ({}), {why}", parts.names()))
    })?;
    if let Some(syms) = syms {
        syms.check(&image.space, Some(image.root))?;
    }
    let version = version::find(&image.space, image.base, syms).unwrap_or_default();
    let crash = CrashInfo {
        major: version.major,
        minor: version.minor,
        strings: version.strings,
        tainted: syms
            .and_then(|s| s.get("tainted"))
            .and_then(|va| image.space.read_u64("tainted", va).ok())
            .map(|t| t & U32),
        phys_start: Some(image.phys_start),
        ..CrashInfo::default()
    };
    let mut text = String::new();
    // Writing to a string does not fail.
    let mut line = |l: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{l}");
    };
    let bigmem = direct_map_base(&image.space) == DIRECT_MAP_BIGMEM;
    let (size, count, owner) = if bigmem { (48, 16, 32) } else { (32, 8, 24) };
    line(format_args!("SYMBOL(pgd_l4)={:x}", image.root.0));
    line(format_args!("SIZE(page_info)={size}"));
    line(format_args!("OFFSET(page_info.count_info)={count}"));
    line(format_args!("OFFSET(page_info._domain)={owner}"));
    line(format_args!("SIZE(domain)={PAGE_BYTES}"));
    line(format_args!("OFFSET(domain.domain_id)=0"));
    for name in ["domain_list", "max_page", "dom_xen", "dom_io"] {
        if let Some(va) = syms.and_then(|s| s.get(name)) {
            line(format_args!("SYMBOL({name})={:x}", va.0));
        }
    }
    match syms.and_then(|s| s.get("_frame_table")) {
        Some(va) => line(format_args!("SYMBOL(frame_table)={:x}", va.0)),
        None => line(format_args!("NUMBER(frame_table)={:#x}", if bigmem { BIGMEM_FRAMES } else { image.frame_table })),
    }
    let told = |name| parts.info.as_ref().is_some_and(|i| i.symbol(name).is_some());
    if syms.and_then(|s| s.get("max_page")).is_none() && !told("max_page") {
        let probe = format!("{text}NUMBER(max_page)={:#x}\n", frames_end(mem));
        let end = max_page(mem, &image.space, Vmcoreinfo::parse(probe.as_bytes()), &parts)?;
        let _ = writeln!(text, "NUMBER(max_page)={end:#x}");
    }
    let Parts { cpus, linux, list, identity, .. } = parts;
    let made = Vmcoreinfo::parse(text.as_bytes());
    // What Xen itself says of it comes first, where only another note is lost.
    let info = match parts.info {
        Some(own) => own.or(Some(&made)),
        None => made,
    };
    let origin = if syms.is_some() { Origin::XenSyms } else { Origin::Memory };
    Ok((XenNotes { crash: parts.crash.unwrap_or(crash), cpus, info, linux, list, identity, origin }, image.space))
}

/// `tainted` is an `unsigned int`.
const U32: u64 = 0xffff_ffff;
/// The first frame at 4 GiB.
const FOUR_GIB: u64 = 1 << 20;
/// FRAMETABLE_VIRT_START of a BIGMEM build.
const BIGMEM_FRAMES: u64 = 0xffff_8300_0000_0000;

/// One more than the last frame that the dump's headers describe: max_page is never larger.
fn frames_end(mem: &MachineMemory<'_>) -> u64 {
    mem.map().ranges().map(|(_, end)| end.0 / PAGE_BYTES).max().unwrap_or(0)
}

/// max_page, by the frame table's own entries: firmware and devices that QEMU saves with the memory have none.
fn max_page(mem: &MachineMemory<'_>, space: &AddressSpace<'_>, info: Vmcoreinfo, parts: &Parts) -> Result<u64> {
    let notes = XenNotes {
        crash: CrashInfo::default(),
        cpus: Vec::new(),
        info,
        linux: None,
        list: Vec::new(),
        identity: parts.identity,
        origin: Origin::Memory,
    };
    let frames = FrameTable::open(*space, &notes, PdxMap::read(space, direct_map_base(space)))?;
    let mut cursor = frames.cursor();
    let mut has = |mfn: u64| cursor.look(Mfn(mfn)).info().is_some();
    // QEMU's firmware ends at 4 GiB, where RAM may go on.
    let parts = mem.map().ranges().flat_map(|(start, end)| {
        let (start, end) = (start.0.div_ceil(PAGE_BYTES), end.0 / PAGE_BYTES);
        [(start, end.min(FOUR_GIB)), (start.max(FOUR_GIB), end)]
    });
    let mut parts: Vec<(u64, u64)> = parts.filter(|(start, end)| start < end).collect();
    parts.reverse();
    for (mut low, mut high) in parts {
        if !has(low) && !has(high - 1) {
            continue;
        }
        // Where RAM goes on behind the last entry (Xen's option mem=), find the edge.
        while high - low > 1 {
            let middle = if has(high - 1) { high - 1 } else { low + (high - low) / 2 };
            if has(middle) { low = middle } else { high = middle }
        }
        return Ok(low + 1);
    }
    let at = notes.info.number("frame_table").map_or(VirtAddr(0), |n| VirtAddr(n as u64));
    let why = format!("no frame of the dump has an entry at {at}; give the host's xen-syms with --xen-syms");
    Err(Error::missing("Xen's frame table", why))
}
