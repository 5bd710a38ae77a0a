//! What readers of a dump need of a kernel before all else: how its addresses lead to pages, and the pages of those areas that
//! are made of single ones, such as stacks, modules and what CPUs have for themselves. And what can wait: the memory map.

use super::kernel::Kernel;
use super::mm::MemMap;
use crate::bitmap::Bitmap;
use crate::units::{Mfn, PAGE_SHIFT, Pfn, VirtAddr};
use crate::xen::paging::{PSE, frame};

/// The first entry of a root table that is the kernel's: what is between it and the other half is the hypervisor's (Linux:
/// Documentation/arch/x86/x86_64/mm.rst).
const KERNELS: u64 = 272;
/// What an entry of a root table maps, in bits: 512 GiB.
const SLOT_SHIFT: u32 = 39;
/// What is above the bits that are translated, in the kernel's half.
const SIGN: u64 = 0xffff << 48;

/// Sets in `vital` the kernel's own page tables, and the pages that it maps outside the direct map; in `late` those that hold the
/// memory map. The root is left out: that of a process may do as well as the kernel's own, which is in its image.
///
/// `direct_map` is where that begins, and `end` one more than the domain's last PFN: of a cut, what is left of its pages does
/// not tell.
///
/// The cost is that of its tables of levels 4 to 2, and of those of level 1 outside the direct map.
pub fn mark(
    kernel: &Kernel<'_>,
    map: &MemMap<'_>,
    (direct_map, end): (VirtAddr, Pfn),
    vital: &mut Bitmap,
    late: &mut Bitmap,
) {
    let space = &kernel.space;
    let direct = slot(direct_map)..=slot(VirtAddr(direct_map.0.saturating_add(end.0 << PAGE_SHIFT)));
    let areas = map.areas(end);
    let is_map = |va: u64| areas.iter().any(|area| area.contains(&va));
    for (i, l4e) in space.entries(space.root()).into_iter().filter(|e| e.0 >= KERNELS) {
        let Some(l3) = own(kernel, frame(l4e), vital) else { continue };
        for (j, l3e) in space.entries(l3).into_iter().filter(|e| e.1 & PSE == 0) {
            let Some(l2) = own(kernel, frame(l3e), vital) else { continue };
            for (k, l2e) in space.entries(l2) {
                let va = SIGN | i << SLOT_SHIFT | j << 30 | k << 21;
                if l2e & PSE != 0 {
                    if is_map(va) {
                        late.set_range(frame(l2e).0 & !511, 512);
                    }
                    continue;
                }
                let Some(l1) = own(kernel, frame(l2e), vital).filter(|_| !direct.contains(&i)) else { continue };
                for (l, l1e) in space.entries(l1) {
                    own(kernel, frame(l1e), if is_map(va | l << 12) { late } else { vital });
                }
            }
        }
    }
}

/// Sets what an entry leads to, and says where that is, if it is memory of the domain's own.
fn own(kernel: &Kernel<'_>, to: Mfn, set: &mut Bitmap) -> Option<Mfn> {
    let mfn = kernel.space.machine(to)?;
    set.set(kernel.p2m().pfn(mfn)?.0);
    Some(mfn)
}

fn slot(va: VirtAddr) -> u64 {
    va.0 >> SLOT_SHIFT & 511
}
