//! The kernel of a cut: its address space by the CR3 of its vCPUs, its VMCOREINFO from the notes.

use super::{Told, WAY_OUT, check_domain, usage};
use crate::error::{Error, Result};
use crate::linux::mm::MemMap;
use crate::linux::names::Names;
use crate::linux::{Kernel, note};
use crate::log::{LogOptions, Whose};
use crate::plan::level::Level;
use crate::plan::order::Order;
use crate::sink::notes::qemu_root;
use crate::source::{MachineMemory, Vmcore};
use crate::units::{Mfn, PAGE_SHIFT, PTE_FRAME_MASK, Pfn};
use crate::vmcoreinfo::Vmcoreinfo;
use crate::xen::P2m;
use crate::xen::p2m::Run;

/// Hands the kernel and its VMCOREINFO to `work`.
///
/// # Errors
/// Those of `work`; [`Error::Missing`] if either cannot be had, [`Error::Usage`] for what only a full dump has.
pub(crate) fn with_kernel<T>(
    told: &Told,
    core: &Vmcore,
    mem: &MachineMemory<'_>,
    options: &LogOptions,
    work: impl FnOnce(&Kernel<'_>, &Vmcoreinfo) -> Result<T>,
) -> Result<T> {
    match &options.whose {
        Whose::Xen => return usage(&format!("it has nothing of Xen's: {WAY_OUT}")),
        Whose::Domain(which) => check_domain(told, which)?,
    }
    if options.xen_syms.is_some() {
        return usage(&format!("--xen-syms does nothing for it: {WAY_OUT}"));
    }
    find(core, mem, work)?
}

/// Which pages come first, as in the cut that this one is made of: nothing is known of them if its kernel cannot be found.
pub(super) fn order(told: &Told, core: &Vmcore, mem: &MachineMemory<'_>, level: Level) -> Order {
    let extra = told.extra();
    let order = |kernel: &Kernel<'_>, info: &Vmcoreinfo| {
        let found = note::believe(kernel, info.clone(), "the cut's note").ok()?;
        let names = Names::find(kernel, Some(&found), None).ok()?;
        let map = MemMap::open(kernel, info, names.get("free_huge_page")).ok()?;
        Some(Order::again(kernel, &map, (told.direct_map, Pfn(told.end)), level, &extra))
    };
    find(core, mem, order).ok().flatten().unwrap_or_default()
}

/// Finds them.
fn find<T>(core: &Vmcore, mem: &MachineMemory<'_>, work: impl FnOnce(&Kernel<'_>, &Vmcoreinfo) -> T) -> Result<T> {
    let info = core.notes().find(|n| n.name == b"VMCOREINFO").map(|n| Vmcoreinfo::parse(n.desc));
    let info = info.ok_or_else(|| Error::missing("the kernel's VMCOREINFO", "the cut has no such note"))?;
    let roots = core.notes().filter(|n| n.name == b"QEMU").filter_map(|n| qemu_root(n.desc));
    let mut roots: Vec<u64> = roots.map(|cr3| (cr3 & PTE_FRAME_MASK) >> PAGE_SHIFT).collect();
    // A process's half of a pair, which may lack the image, is the odd one (Linux: PTI_USER_PGTABLE_BIT).
    roots.extend(roots.clone().iter().map(|root| root & !1));
    roots.sort_unstable();
    roots.dedup();
    let roots: Vec<Pfn> = roots.into_iter().map(Pfn).collect();
    let run = |(first, end): (u64, u64)| Run { pfn: Pfn(first), mfn: Mfn(first), len: end - first };
    let p2m = P2m::identity(mem.map().stored_frames().map(run).collect());
    let kernel = Kernel::by_roots(mem, &roots, &p2m)
        .ok_or_else(|| Error::missing("the domain's kernel", "no page table that its notes name maps one"))?;
    Ok(work(&kernel, &info))
}
