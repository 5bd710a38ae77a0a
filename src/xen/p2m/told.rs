//! The P2M of a domain whose dump tells it, as `xl dump-core` does.
//!
//! Nothing tells types there, so a PV domain's page tables are those that its root tables lead to: those of its vCPUs, and
//! the one that its kernel told Xen. The tables of processes that were on no CPU are found later, by what Linux knows
//! ([`crate::linux::pgds`]).

use super::build::{by_mfn, push};
use super::{P2m, Run};
use crate::error::{Error, Result};
use crate::units::{Mfn, Pfn};
use crate::xen::alone::Told;
use crate::xen::paging::{AddressSpace, PSE, frame};
use crate::xen::{Domain, Host};
use std::collections::BTreeMap;

/// L4 slots that belong to Xen.
const XEN_SLOTS: std::ops::RangeInclusive<u64> = 256..=271;

/// Makes it.
///
/// # Errors
/// [`Error::Missing`] without any page.
pub(super) fn read(host: &Host<'_>, domain: &Domain, told: &Told) -> Result<P2m> {
    let mut p2m = P2m { translated: told.translated, by_walk: !told.translated, ..P2m::default() };
    told.runs.iter().for_each(|run: &Run| push(&mut p2m.runs, *run));
    p2m.by_mfn = by_mfn(&p2m.runs);
    p2m.check.believed = p2m.pages();
    p2m.check.unreadable = told.odd;
    p2m.check.source = if told.translated { "list of PFNs in the file" } else { "list of pages in the file" };
    p2m.told_end = Pfn(domain.shared_info.as_ref().map_or(0, |s| s.max_pfn.min(p2m.end().0.saturating_mul(2))));
    if p2m.runs.is_empty() {
        return Err(Error::missing("the P2M", "the file's list of pages is empty"));
    }
    if !told.translated {
        let roots = told.vcpus.iter().flat_map(|v| v.roots());
        let kernels = domain.shared_info.as_ref().map(|s| s.p2m_cr3.mfn()).filter(|mfn| mfn.0 != 0);
        let mut tables = BTreeMap::new();
        for root in roots.chain(kernels) {
            walk(host, &p2m, root, 4, &mut tables);
        }
        p2m.tables = tables.into_iter().collect();
    }
    Ok(p2m)
}

/// Collects a table of the domain's own and those below; each page once.
fn walk(host: &Host<'_>, p2m: &P2m, table: Mfn, level: u8, found: &mut BTreeMap<Pfn, u8>) {
    let Some(pfn) = p2m.pfn(table).filter(|pfn| !found.contains_key(pfn)) else { return };
    found.insert(pfn, level);
    if level == 1 {
        return;
    }
    for (index, entry) in AddressSpace::new(host.memory(), table).entries(table) {
        if !(level == 4 && XEN_SLOTS.contains(&index)) && entry & PSE == 0 {
            walk(host, p2m, frame(entry), level - 1, found);
        }
    }
}
