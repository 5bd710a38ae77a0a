//! Whose pages the machine's are: a count over the frame table, for reports.

use super::census::Census;
use super::class::Class;
use super::host::Host;
use serde::Serialize;
use std::collections::BTreeMap;

/// Frames of the host by owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Frames that the dump's headers describe.
    pub frames: u64,
    /// Whether every frame was looked at; otherwise the counts are scaled up from a sample.
    pub exact: bool,
    /// Free.
    pub free: u64,
    /// Offline or broken.
    pub offline: u64,
    /// Xen's: its image, heap, tables, and what it shares with no domain.
    pub xen: u64,
    /// Owned by DOMID_IO: low memory and holes.
    pub io: u64,
    /// Ordinary pages by domain id.
    pub domains: BTreeMap<u16, u64>,
    /// Xen-heap pages (shared info, grant tables) by domain id.
    pub xen_heap: BTreeMap<u16, u64>,
    /// Owned by a domain that is not in the list: dying, or damage.
    pub unknown_owner: u64,
    /// Without an entry in the frame table, or with one that the dump does not have.
    pub no_entry: u64,
}

impl Survey {
    /// Counts.
    pub fn take(host: &Host<'_>) -> Self {
        Self::of(&Census::take(host, None, &|_| ()))
    }

    /// Sums up a count.
    pub fn of(census: &Census) -> Self {
        let mut all = Self { exact: census.exact, ..Self::default() };
        for (class, count) in census.totals() {
            let n = count.frames;
            all.frames += n;
            match class {
                Class::Free => all.free += n,
                Class::Offline => all.offline += n,
                Class::Xen => all.xen += n,
                Class::Io => all.io += n,
                Class::Domain(id) => *all.domains.entry(id).or_default() += n,
                Class::XenHeap(id) => *all.xen_heap.entry(id).or_default() += n,
                Class::UnknownOwner => all.unknown_owner += n,
                Class::NoEntry => all.no_entry += n,
            }
        }
        all
    }

    /// Pages of every domain but `id`, Xen-heap ones included.
    pub fn other_domains(&self, id: u16) -> u64 {
        let of = |m: &BTreeMap<u16, u64>| m.iter().filter(|(d, _)| **d != id).map(|(_, n)| n).sum::<u64>();
        of(&self.domains) + of(&self.xen_heap) + self.unknown_owner
    }
}
