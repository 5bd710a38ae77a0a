//! The hypervisor as its dump shows it: notes, address space, frame table.

use super::find;
use super::frame_table::FrameTable;
use super::notes::{Origin, Parts, XenNotes};
use super::page_info::StateBits;
use super::paging::AddressSpace;
use super::pdx::{PdxMap, direct_map_base};
use super::syms::XenSyms;
use crate::bytes::u16_at;
use crate::error::{Error, Result};
use crate::source::{MachineMemory, Vmcore};
use crate::units::{MachineAddr, Mfn, PAGE_SHIFT, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;

/// Xen's image lies in one GiB that starts at a multiple of it (XEN_VIRT_START, Xen 3.2 and later).
const IMAGE_SIZE: u64 = 1 << 30;
/// Blocks of frames that are looked at to find the page-state bits, evenly spread.
const STATE_SAMPLE: u64 = 4096;
/// Frames of such a block: those of about a page of the frame table.
const STATE_BLOCK: u64 = 128;
/// Free pages that settle where the page-state bits are.
const ENOUGH_VOTES: u64 = 512;

/// DOMID_IO, which owns low memory and holes.
pub(super) const DOMID_IO: u16 = 0x7ff1;
/// DOMID_XEN, which owns what Xen shares with all.
pub(super) const DOMID_XEN: u16 = 0x7ff2;

/// Xen's own state.
#[derive(Debug)]
pub struct Hypervisor<'a> {
    /// The notes.
    pub notes: XenNotes,
    /// Extra version, changeset, compiler, compile date and time.
    pub strings: [String; 5],
    /// The hypervisor's address space.
    pub space: AddressSpace<'a>,
    /// Base of Xen's direct map.
    pub direct_map: u64,
    /// What each frame is.
    pub frames: FrameTable<'a>,
    /// Where the page state stands.
    pub state_bits: StateBits,
    /// Free pages that proved [`Self::state_bits`]; 0 if it was taken from Xen's version.
    pub state_votes: u64,
    /// Owner codes of Xen's own pseudo-domains, where their pointers could be read.
    pub dom_io: Option<u64>,
    /// The same of DOMID_XEN.
    pub dom_xen: Option<u64>,
    /// Layouts by the DWARF of a `xen-syms` of this build: believed where the dump does not tell.
    pub layout: Option<Vmcoreinfo>,
    /// What was wrong but could be worked around.
    pub warnings: Vec<String>,
}

impl<'a> Hypervisor<'a> {
    /// Reads everything that does not depend on one domain.
    ///
    /// # Errors
    /// The first structure without which nothing can be cut.
    pub fn open(mem: &'a MachineMemory<'a>, core: &Vmcore) -> Result<Self> {
        Self::open_with(mem, core, None)
    }

    /// The same with the `xen-syms` of the host.
    ///
    /// # Errors
    /// As [`Self::open`], and [`Error::Usage`] for a `xen-syms` of another build.
    pub fn open_with(mem: &'a MachineMemory<'a>, core: &Vmcore, syms: Option<&XenSyms>) -> Result<Self> {
        let mut warnings = Vec::new();
        let (notes, space) = match Parts::collect(core).whole() {
            Ok(notes) => {
                let space = hypervisor_space(mem, &notes, &mut warnings)?;
                if let Some(syms) = syms {
                    syms.check(&space, notes.symbol("pgd_l4"))?;
                }
                (notes, space)
            }
            Err(parts) => find::notes(mem, *parts, syms)?,
        };
        let strings = notes.crash.strings(mem);
        let direct_map = direct_map_base(&space);
        let frames = FrameTable::open(space, &notes, PdxMap::read(&space, direct_map))?;
        let extra = strings.first().map(String::as_str).unwrap_or_default();
        let (state_bits, state_votes) = match find_state_bits(&frames, mem) {
            Some(found) => found,
            None => {
                let bits = StateBits::by_version(notes.crash.major, notes.crash.minor, extra);
                warnings.push(format!(
                    "no free page found to tell where page states stand; taking {bits:?} from Xen's version"
                ));
                (bits, 0)
            }
        };
        let mut xen = Self {
            notes,
            strings,
            space,
            direct_map,
            frames,
            state_bits,
            state_votes,
            dom_io: None,
            dom_xen: None,
            layout: syms.and_then(XenSyms::layout).cloned(),
            warnings,
        };
        if xen.notes.origin != Origin::Notes {
            find::domains(&mut xen)?;
        }
        xen.dom_io = xen.pseudo_domain("dom_io", DOMID_IO);
        xen.dom_xen = xen.pseudo_domain("dom_xen", DOMID_XEN);
        Ok(xen)
    }

    /// The memory behind it.
    pub fn memory(&self) -> &'a MachineMemory<'a> {
        self.space.memory()
    }

    /// Version as Xen writes it, `4.17.7`.
    pub fn version(&self) -> String {
        let extra = self.strings.first().map(String::as_str).unwrap_or_default();
        format!("{}.{}{extra}", self.notes.crash.major, self.notes.crash.minor)
    }

    /// The code that stands for a struct domain (or any direct-map object) in `_domain`: its PDX.
    pub fn owner_code(&self, va: VirtAddr) -> Option<u64> {
        va.0.checked_sub(self.direct_map).map(|o| o >> PAGE_SHIFT)
    }

    fn pseudo_domain(&self, name: &str, id: u16) -> Option<u64> {
        let va = VirtAddr(self.notes.variable(&self.space, name).ok()?);
        let mut head = [0; 2];
        self.space.read(name, va, &mut head).ok()?;
        (u16_at(&head, 0) == Some(id)).then(|| self.owner_code(va)).flatten()
    }
}

/// Finds the root of Xen's page tables: `pgd_l4` by arithmetic, checked by walking it; else a CPU's CR3.
fn hypervisor_space<'a>(
    mem: &'a MachineMemory<'a>,
    notes: &XenNotes,
    warnings: &mut Vec<String>,
) -> Result<AddressSpace<'a>> {
    let missing = |key: &str| Error::missing("a key of VMCOREINFO_XEN", format!("SYMBOL({key}) is not there"));
    let known = notes.info.symbol("domain_list").ok_or_else(|| missing("domain_list"))?;
    let pgd = notes.info.symbol("pgd_l4").ok_or_else(|| missing("pgd_l4"))?;
    let image = known.0 & !(IMAGE_SIZE - 1);
    let in_image = |va: VirtAddr| va.0.checked_sub(image).filter(|o| *o < IMAGE_SIZE);
    if let (Some(start), Some(pgd), Some(offset)) = (notes.crash.phys_start, in_image(pgd), in_image(known))
        && let (Some(root), Some(expected)) = (start.checked_add(pgd), start.checked_add(offset))
    {
        let space = AddressSpace::new(mem, root.mfn());
        if space.translate(known).is_ok_and(|m| m.addr == expected) {
            return Ok(space);
        }
        warnings
            .push(format!("Xen's page tables are not at {root} as xen_phys_start {start} says; trying the CPUs' CR3"));
    }
    let roots =
        notes.cpus.iter().filter_map(|c| c.cr3).map(|cr3| MachineAddr(cr3 & crate::units::PTE_FRAME_MASK).mfn());
    for root in roots.filter(|r| *r != Mfn(0)) {
        let space = AddressSpace::new(mem, root);
        if space.read_u64("domain_list", known).is_ok() {
            return Ok(space);
        }
    }
    let why = "neither xen_phys_start of the crash note nor any CPU's CR3 leads to them; the dump may be cut short";
    Err(Error::missing("the root of Xen's page tables", why))
}

/// Looks at free pages, spread over the memory that there is (not over max_page: holes may be a thousand times as large):
/// the cost does not grow with it.
fn find_state_bits(frames: &FrameTable<'_>, mem: &MachineMemory<'_>) -> Option<(StateBits, u64)> {
    let (mut before, mut since) = (0_u64, 0_u64);
    let mut cursor = frames.cursor();
    let total: u64 = mem.map().frames().map(|(first, end)| end - first).sum();
    let step = total.div_ceil(STATE_SAMPLE).max(STATE_BLOCK);
    let blocks = mem.map().frames().flat_map(|(first, end)| (first..end).step_by(step as usize).map(move |b| (b, end)));
    for (first, end) in blocks {
        for mfn in first..end.min(first + STATE_BLOCK) {
            match cursor.look(Mfn(mfn)).info().and_then(|p| StateBits::proven_by(p.count)) {
                Some(StateBits::Before402) => before += 1,
                Some(StateBits::Since402) => since += 1,
                None => {}
            }
        }
        if before.abs_diff(since) >= ENOUGH_VOTES {
            break;
        }
    }
    match before.cmp(&since) {
        std::cmp::Ordering::Greater => Some((StateBits::Before402, before)),
        std::cmp::Ordering::Less => Some((StateBits::Since402, since)),
        std::cmp::Ordering::Equal => None,
    }
}
