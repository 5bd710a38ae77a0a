//! Where a PV domain's P2M can be read: each place is a [`Source`].

use std::ops::Range;

/// A hole; tested first, since it has both flags.
pub const INVALID: u64 = u64::MAX;
/// Flag of a frame of another domain.
pub const FOREIGN: u64 = 1 << 63;
/// Flag of MMIO and firmware, where PFN and MFN are the same.
pub const IDENTITY: u64 = 1 << 62;
/// Entries in a page.
pub const FAN: u64 = 512;
/// Places at which the same page is looked at.
const MOST_VISITS: u8 = 8;

/// What a source has for a stretch of PFNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'p> {
    /// Raw entries from this PFN on.
    Entries(u64, &'p [u64]),
    /// So many entries from this PFN on that cannot be read.
    Unreadable(u64, u64),
    /// So many entries from this PFN on where the source has nothing at all, although every kernel writes something there,
    /// holes too.
    Blank(u64, u64),
    /// So many entries from this PFN on, on a page that stands in too many places to be looked at once more.
    Repeated(u64, u64),
    /// So many identity entries of a page that has no others.
    Identity(u64),
    /// MFNs that it leads to: the pages that it is made of, those of holes beyond its end too, and whatever damage left.
    Own(&'p [u64]),
}

/// A P2M that a domain publishes, or that can be made up for it. Nothing that it says is believed unseen.
pub trait Source: std::fmt::Debug {
    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// One more than the highest PFN that it can have.
    fn end(&self) -> u64;

    /// Hands over the entries of a range of PFNs, in order; holes may be left out.
    fn walk(&self, range: Range<u64>, each: &mut dyn FnMut(Part<'_>));

    /// The raw entry of one PFN, if it can be read.
    fn lookup(&self, pfn: u64) -> Option<u64>;
}

/// Counts how often a page is looked at. In a sound source each stands once; in a damaged one the M2P tells which place is
/// right, so all are looked at, but not so many that the walk gets long.
#[derive(Debug, Default)]
pub(super) struct Visits(std::collections::HashMap<u64, u8>);

impl Visits {
    pub(super) fn again(&mut self, mfn: u64) -> bool {
        let visits = self.0.entry(mfn).or_default();
        *visits = visits.saturating_add(1);
        *visits <= MOST_VISITS
    }
}

/// The identity entries of a page without any entry of memory; `None` if it has one. The kernel's "missing" and
/// "identity" pages stand in many places and are looked at only once.
pub(super) fn is_empty(entries: &[u64]) -> Option<u64> {
    let empty = entries.iter().all(|e| *e == INVALID || e & (FOREIGN | IDENTITY) == IDENTITY);
    empty.then(|| entries.iter().filter(|e| **e != INVALID).count() as u64)
}
