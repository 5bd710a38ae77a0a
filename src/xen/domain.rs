//! Domains: the list, and struct domain by shape.
//!
//! The list is sorted by id, ascending, with ids below 0x7ff0 (Xen: common/domain.c), so a walk that demands it ends
//! whatever the links say. Of struct domain VMCOREINFO_XEN tells only the id and the link; the rest is found by what
//! fits: the shared info is the one Xen-heap page that the domain owns among the first pointers, at 8, 16 or 24
//! depending on the version.

use super::alone::Told;
use super::find::lost;
use super::hypervisor::Hypervisor;
use super::p2m::hap;
use super::shared_info::SharedInfo;
use crate::bytes::{u16_at, u64_at};
use crate::error::{Error, Result};
use crate::units::{PAGE_BYTES, VirtAddr};

/// DOMID_FIRST_RESERVED.
pub(super) const FIRST_RESERVED: u16 = 0x7ff0;
/// The pointer to the shared info stands in this many bytes of struct domain, in every version.
const HEAD: usize = 64;
/// struct domain was never larger (a page since Xen 4.2, and less before).
const MOST_STRUCT: usize = 4096;

/// A domain of the host.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Its id.
    pub id: u16,
    /// Its struct domain.
    pub va: VirtAddr,
    /// What stands in `_domain` of its pages.
    pub owner_code: u64,
    /// Its struct domain, as far as it could be read.
    pub(super) bytes: Vec<u8>,
    /// Its shared info, if it has one that can be read.
    pub shared_info: Option<SharedInfo>,
    /// Where its hardware's tables begin, if it is a translated domain (HVM, PVH) and they can be found.
    pub hap: Option<hap::Root>,
    /// What the dump tells of it, if it is the only domain there.
    pub told: Option<Told>,
}

/// Walks the list. Damage ends the walk and is told; what was found so far is sound, and domains that it does not reach are
/// found by what they own.
pub(super) fn list(xen: &Hypervisor<'_>) -> Result<(Vec<Domain>, Vec<String>)> {
    let layout = Layout::read(xen)?;
    let mut domains: Vec<Domain> = Vec::new();
    let mut va = VirtAddr(xen.notes.variable(&xen.space, "domain_list")?);
    let mut warnings = Vec::new();
    while va.0 != 0 {
        let (domain, next) = match layout.domain(xen, va) {
            Ok(read) => read,
            Err(why) => {
                warnings.push(format!("the domain list breaks off: {why}"));
                break;
            }
        };
        let last = domains.last().map(|d: &Domain| d.id);
        if domain.id >= FIRST_RESERVED || last.is_some_and(|last| domain.id <= last) {
            let after = last.map_or("its head".to_owned(), |l| format!("domain {l}"));
            let id = domain.id;
            warnings.push(format!("the domain list is damaged or loops: after {after} stands id {id:#x} at {va}"));
            break;
        }
        domains.push(domain);
        va = next;
    }
    for va in lost(xen, &domains) {
        if let Ok((domain, _)) = layout.domain(xen, va) {
            warnings
                .push(format!("domain {} owns memory, but is not in the list: lost to damage, or dying", domain.id));
            domains.push(domain);
        }
    }
    domains.sort_by_key(|d| d.id);
    if domains.is_empty() {
        let why = warnings.pop().unwrap_or_else(|| "the domain list is empty".into());
        return Err(Error::missing("every domain", why));
    }
    Ok((domains, warnings))
}

/// What VMCOREINFO_XEN tells of struct domain.
struct Layout {
    id_at: usize,
    next_at: usize,
    /// Bytes that must be there, and bytes that are wanted.
    least: usize,
    whole: usize,
}

impl Layout {
    fn read(xen: &Hypervisor<'_>) -> Result<Self> {
        let info = &xen.notes.info;
        let offset = |name: &str| {
            let at = info
                .offset(name)
                .ok_or_else(|| Error::missing("a key of VMCOREINFO_XEN", format!("OFFSET({name}) is not there")))?;
            let sound = usize::try_from(at).ok().filter(|at| *at <= 1 << 16);
            sound.ok_or_else(|| Error::damaged("VMCOREINFO_XEN", format!("{name} at {at}")))
        };
        let (id_at, next_at) = (offset("domain.domain_id")?, offset("domain.next_in_list")?);
        let least = (id_at.max(next_at) + 8).max(HEAD);
        let told = info.size("domain").and_then(|n| usize::try_from(n).ok()).unwrap_or(HEAD);
        Ok(Self { id_at, next_at, least, whole: told.clamp(least, MOST_STRUCT.max(least)) })
    }

    /// The domain at `va`, and the next in the list; or why it cannot be one.
    fn domain(&self, xen: &Hypervisor<'_>, va: VirtAddr) -> Result<(Domain, VirtAddr), String> {
        let mut bytes = vec![0; self.whole];
        if xen.space.read("struct domain", va, &mut bytes).is_err() {
            bytes.truncate(self.least);
            xen.space.read("struct domain", va, &mut bytes).map_err(|e| e.to_string())?;
        }
        let id = u16_at(&bytes, self.id_at).unwrap_or(FIRST_RESERVED);
        let owner_code = xen.owner_code(va).ok_or_else(|| format!("it leaves Xen's direct map at {va}"))?;
        let next = VirtAddr(u64_at(&bytes, self.next_at).unwrap_or_default());
        let shared_info = find_shared_info(xen, &bytes, owner_code);
        let hap = hap::root::find(xen, va, &bytes);
        Ok((Domain { id, va, owner_code, bytes, shared_info, hap, told: None }, next))
    }
}

pub(super) fn find_shared_info(xen: &Hypervisor<'_>, head: &[u8], owner_code: u64) -> Option<SharedInfo> {
    let pointers = (8..HEAD).step_by(8).filter_map(|at| u64_at(head, at));
    pointers.filter(|p| *p >= xen.direct_map && p % PAGE_BYTES == 0).find_map(|p| {
        let addr = xen.space.translate(VirtAddr(p)).ok()?.addr;
        let info = xen.frames.get(addr.mfn())?;
        if !(info.is_xen_heap() && info.has_owner(xen.state_bits) && info.owner == owner_code) {
            return None;
        }
        SharedInfo::parse(addr.mfn(), &xen.memory().page(addr.mfn()).ok()?)
    })
}

impl Domain {
    /// Whether these bytes stand in its struct, at a multiple of 4, as its UUID (`handle`) does.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        memchr::memmem::find_iter(&self.bytes, bytes).any(|at| at.is_multiple_of(4))
    }

    /// Whether it owns the frame as ordinary memory. A translated domain has Xen-heap pages (shared info, grant tables) in
    /// its P2M like all others.
    pub fn owns(&self, xen: &Hypervisor<'_>, info: &super::page_info::PageInfo) -> bool {
        // Its tables, which Xen before 4.10 accounts to it, are none of it.
        let other = if self.hap.is_some() { !info.is_allocated() } else { info.is_xen_heap() };
        info.has_owner(xen.state_bits) && info.owner == self.owner_code && !other
    }

    /// Whether nothing says that it is a PV domain, as far as struct domain and shared info tell.
    pub fn may_be_translated(&self) -> bool {
        self.hap.is_some()
            || self.told.as_ref().is_some_and(|t| t.translated)
            || self.shared_info.as_ref().is_none_or(|s| !s.has_p2m())
    }
}
