//! The kernel's own VMCOREINFO, found in its memory and validated.
//!
//! kdump under Xen saves the hypervisor's VMCOREINFO only (kexec-tools commit 455d79f), but Linux fills its note at
//! boot all the same. A host's memory is full of such notes: guests have the same kernel, page caches hold old dumps.
//! So only the domain's own pages are searched, and a note is believed when what it says leads to a kernel that agrees.

use super::kernel::{Kernel, START_KERNEL_MAP, is_note};
use crate::bytes::{text, u32_at};
use crate::source::MachineMemory;
use crate::units::{PAGE_SHIFT, PAGE_SIZE, Pfn, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;
use crate::xen::P2m;
use rayon::prelude::*;

/// Name and type fields before the text.
const HEADER: usize = 24;
/// Notes that are asked for a root table.
const MOST_NOTES: usize = 256;
/// `struct new_utsname`: six strings of 65 bytes.
const UTS_FIELD: usize = 65;

/// A VMCOREINFO that validated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The text.
    pub info: Vmcoreinfo,
    /// sysname, nodename, release, version, machine, domainname.
    pub uts: [String; 6],
    /// How it was found.
    pub how: &'static str,
    /// The pages of the domain that hold it.
    pub pages: Vec<Pfn>,
}

/// Searches, cheapest place first: a note in the file (some sites' scripts add one), what the image points to, every
/// page of the domain.
///
/// # Errors
/// Why none was believed, one reason for each that was looked at.
pub fn find(kernel: &Kernel<'_>, in_file: Option<&Vmcoreinfo>, by_image: &[VirtAddr]) -> Result<Found, Vec<String>> {
    let mut reasons = Vec::new();
    let mut look = |info: Vmcoreinfo, how: &'static str, place: &str, pages: Vec<Pfn>| {
        let found = believe(kernel, info, how);
        found.map(|f| Found { pages, ..f }).map_err(|why| reasons.push(format!("the one {place}: {why}"))).ok()
    };
    if let Some(info) = in_file
        && let Some(found) = look(info.clone(), "note in the file", "in the file's notes", Vec::new())
    {
        return Ok(found);
    }
    for &va in by_image {
        let mut head = [0; HEADER];
        if kernel.read("a note", va, &mut head).is_err() {
            continue;
        }
        let mut desc = vec![0; u32_at(&head, 4).unwrap_or(0) as usize];
        let text = VirtAddr(va.0 + HEADER as u64);
        let pages = [va, VirtAddr(text.0 + desc.len() as u64)].into_iter().filter_map(|va| kernel.pfn(va)).collect();
        if kernel.read("VMCOREINFO", text, &mut desc).is_ok()
            && let Some(found) =
                look(Vmcoreinfo::parse(&desc), "pointer in the kernel image", &format!("at {va}"), pages)
        {
            return Ok(found);
        }
    }
    let mem = kernel.space.memory();
    for pfn in search(mem, kernel.p2m()) {
        let pages = vec![pfn, Pfn(pfn.0 + 1)];
        if let Some(desc) = read_at(mem, kernel.p2m(), pfn)
            && let Some(found) =
                look(Vmcoreinfo::parse(&desc), "search of the domain's pages", &format!("at PFN {pfn}"), pages)
        {
            return Ok(found);
        }
    }
    Err(reasons)
}

/// Takes a VMCOREINFO for the kernel's, if it validates.
///
/// # Errors
/// Why it does not.
pub fn believe(kernel: &Kernel<'_>, info: Vmcoreinfo, how: &'static str) -> Result<Found, String> {
    validate(kernel, &info).map(|uts| Found { info, uts, how, pages: Vec::new() })
}

/// Root tables that the notes in a translated domain's memory name, as PFNs: `swapper_pg_dir` lies in the image, which
/// begins `phys_base` behind the place that its addresses say.
pub(super) fn roots_by_note(mem: &MachineMemory<'_>, p2m: &P2m) -> Vec<Pfn> {
    let root = |pfn| {
        let info = Vmcoreinfo::parse(&read_at(mem, p2m, pfn)?);
        let into = info.symbol("swapper_pg_dir")?.0.checked_sub(START_KERNEL_MAP)?;
        let five = info.number("pgtable_l5_enabled") == Some(1);
        let root = into.checked_add_signed(info.number("phys_base")?)?;
        (!five && root.is_multiple_of(PAGE_SIZE as u64)).then_some(Pfn(root >> PAGE_SHIFT))
    };
    let mut roots: Vec<Pfn> = search(mem, p2m).into_iter().take(MOST_NOTES).filter_map(root).collect();
    roots.dedup();
    roots
}

/// PFNs that begin with a note, in order. Every page of the domain is looked at, so this comes last.
fn search(mem: &MachineMemory<'_>, p2m: &P2m) -> Vec<Pfn> {
    let hits = p2m.runs().par_iter().flat_map_iter(|run| {
        (0..run.len).filter_map(move |i| {
            let mut head = [0; HEADER];
            mem.read(run.mfn.checked_add(i)?.addr()?, &mut head).ok()?;
            is_note(&head).then_some(Pfn(run.pfn.0 + i))
        })
    });
    let mut found: Vec<Pfn> = hits.collect();
    found.sort_unstable();
    found
}

/// The text of a note at the start of a page; it may go on in the next PFN, whose frame can be anywhere.
fn read_at(mem: &MachineMemory<'_>, p2m: &P2m, pfn: Pfn) -> Option<Vec<u8>> {
    let page = |pfn| mem.page(p2m.mfn(pfn)?).ok();
    let first = page(pfn)?;
    let len = u32_at(&first, 4)? as usize;
    let mut desc = first.get(HEADER..)?.to_vec();
    if len > PAGE_SIZE - HEADER
        && let Some(second) = page(Pfn(pfn.0 + 1))
    {
        desc.extend_from_slice(&second);
    }
    desc.truncate(len);
    Some(desc)
}

/// Believes a VMCOREINFO whose own addresses lead to what it describes: the kernel's text is the domain's memory, and
/// the kernel's name is the release that the note states.
fn validate(kernel: &Kernel<'_>, info: &Vmcoreinfo) -> Result<[String; 6], String> {
    let release = info.get("OSRELEASE").ok_or("has no OSRELEASE")?;
    let stext = info.symbol("_stext").ok_or("has no SYMBOL(_stext)")?;
    if kernel.pfn(stext).is_none() {
        return Err(format!("_stext {stext} is not mapped to memory of the domain"));
    }
    let uts_ns = info.symbol("init_uts_ns").ok_or("has no SYMBOL(init_uts_ns)")?;
    // The name followed a reference count of 4 bytes until the offset was exported.
    let at = info.offset("uts_namespace.name").unwrap_or(4);
    let va = uts_ns.checked_add(at).ok_or("init_uts_ns wraps around")?;
    let mut name = [0; 6 * UTS_FIELD];
    kernel.read("init_uts_ns", va, &mut name).map_err(|e| e.to_string())?;
    let mut uts: [String; 6] = Default::default();
    for (field, bytes) in uts.iter_mut().zip(name.chunks_exact(UTS_FIELD)) {
        *field = text(bytes);
    }
    match &uts {
        [sysname, _, found, ..] if sysname == "Linux" && found == release => Ok(uts),
        [sysname, _, found, ..] => Err(format!("says {release}, but its kernel calls itself {sysname:?} {found:?}")),
    }
}
