//! What a frame of the machine is: the one place that decides.

use super::frame_table::Entry;
use super::host::Host;
use super::page_info::{PageState, StateBits};
use std::collections::BTreeMap;

/// What a frame is. Every frame of RAM is exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// An ordinary page of the domain of this id.
    Domain(u16),
    /// A Xen-heap page that this domain shares: shared info, grant table.
    XenHeap(u16),
    /// Xen's: its image, heap, tables, and what it shares with no domain.
    Xen,
    /// Owned by DOMID_IO: low memory and devices'.
    Io,
    /// Free.
    Free,
    /// Offline or broken.
    Offline,
    /// Owned by a domain that is not in the list: dying, or damage.
    UnknownOwner,
    /// Without an entry in the frame table, or with one that the dump does not have.
    NoEntry,
}

/// Tells the class of frames of one host.
#[derive(Debug)]
pub struct Classifier {
    state_bits: StateBits,
    dom_io: Option<u64>,
    dom_xen: Option<u64>,
    /// Domain ids by the codes that stand for their owners.
    codes: BTreeMap<u64, u16>,
    /// The domain, if the dump is of it alone.
    alone: Option<u16>,
}

impl Classifier {
    /// For this host.
    pub fn new(host: &Host<'_>) -> Self {
        let codes = host.domains.iter().map(|d| (d.owner_code, d.id)).collect();
        let alone = host.alone().map(|d| d.id);
        Self { state_bits: host.state_bits, dom_io: host.dom_io, dom_xen: host.dom_xen, codes, alone }
    }

    /// The class of the frame with this entry.
    pub fn class(&self, entry: Entry) -> Class {
        if let Some(id) = self.alone {
            return Class::Domain(id);
        }
        let Some(info) = entry.info() else { return Class::NoEntry };
        match info.state(self.state_bits) {
            PageState::Free => Class::Free,
            PageState::Offlined => Class::Offline,
            _ if !info.has_owner(self.state_bits) => Class::Xen,
            // Up to Xen 4.14 these look like Xen-heap pages, so they come first.
            _ if Some(info.owner) == self.dom_io => Class::Io,
            _ if Some(info.owner) == self.dom_xen => Class::Xen,
            _ => match self.codes.get(&info.owner) {
                Some(id) if info.is_xen_heap() => Class::XenHeap(*id),
                Some(id) => Class::Domain(*id),
                None => Class::UnknownOwner,
            },
        }
    }
}
