//! Whose pages the machine's are: a count over the frame table, for reports.
//!
//! A whole frame table is 8 GiB per TiB of machine, and a cut must cost what the domain costs. So at most 64 MiB of it
//! are read, evenly spread; figures of a machine of more than 8 GiB are estimates and say so.

use super::host::Host;
use super::page_info::PageState;
use crate::units::Mfn;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;

/// Frames per block: a page of the frame table.
const BLOCK: u64 = 128;
/// Blocks that are read at most: 64 MiB of frame table, all of an 8 GiB machine.
const MOST_BLOCKS: u64 = 1 << 14;
/// Blocks that one task counts.
const TASK: u64 = 256;

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
        let ranges: Vec<(u64, u64)> = host.memory().map().frames().collect();
        let total: u64 = ranges.iter().map(|(a, b)| b - a).sum();
        let step = total.div_ceil(BLOCK).div_ceil(MOST_BLOCKS).max(1);
        // Every step-th block of each range, as tasks of some blocks.
        let tasks = ranges.into_iter().flat_map(|(start, end)| {
            let stride = step.saturating_mul(BLOCK);
            let span = stride.saturating_mul(TASK);
            (0..(end - start).div_ceil(span))
                .map(move |i| (start + i * span, (start + (i + 1) * span).min(end), stride))
        });
        let tasks: Vec<_> = tasks.collect();
        let codes: BTreeMap<u64, u16> = host.domains.iter().map(|d| (d.owner_code, d.id)).collect();
        let counted = tasks.into_par_iter().map(|(start, end, stride)| {
            let mut part = Self::default();
            let mut cursor = host.frames.cursor();
            let mut first = start;
            while first < end {
                let upto = first.saturating_add(BLOCK).min(end);
                (first..upto).for_each(|mfn| part.count(host, &codes, cursor.look(Mfn(mfn)).info()));
                first = first.saturating_add(stride);
            }
            part
        });
        let mut all = counted.reduce(Self::default, Self::add);
        let seen = all.frames;
        all.exact = step == 1;
        if !all.exact && seen > 0 {
            all.scale(total, seen);
        }
        all.frames = total;
        all
    }

    fn count(&mut self, host: &Host<'_>, codes: &BTreeMap<u64, u16>, info: Option<super::page_info::PageInfo>) {
        self.frames += 1;
        let Some(info) = info else {
            self.no_entry += 1;
            return;
        };
        match info.state(host.state_bits) {
            PageState::Free => self.free += 1,
            PageState::Offlined => self.offline += 1,
            _ if !info.has_owner(host.state_bits) => self.xen += 1,
            _ if Some(info.owner) == host.dom_io => self.io += 1,
            _ if Some(info.owner) == host.dom_xen => self.xen += 1,
            _ => match codes.get(&info.owner) {
                Some(id) if info.is_xen_heap() => *self.xen_heap.entry(*id).or_default() += 1,
                Some(id) => *self.domains.entry(*id).or_default() += 1,
                None => self.unknown_owner += 1,
            },
        }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut u64> {
        let fixed = [
            &mut self.free,
            &mut self.offline,
            &mut self.xen,
            &mut self.io,
            &mut self.unknown_owner,
            &mut self.no_entry,
        ];
        fixed.into_iter().chain(self.domains.values_mut()).chain(self.xen_heap.values_mut())
    }

    fn scale(&mut self, total: u64, seen: u64) {
        for n in self.each() {
            *n = (u128::from(*n) * u128::from(total) / u128::from(seen)) as u64;
        }
    }

    fn add(mut self, other: Self) -> Self {
        self.frames += other.frames;
        self.free += other.free;
        self.offline += other.offline;
        self.xen += other.xen;
        self.io += other.io;
        self.unknown_owner += other.unknown_owner;
        self.no_entry += other.no_entry;
        for (id, n) in other.domains {
            *self.domains.entry(id).or_default() += n;
        }
        for (id, n) in other.xen_heap {
            *self.xen_heap.entry(id).or_default() += n;
        }
        self
    }

    /// Pages of every domain but `id`, Xen-heap ones included.
    pub fn other_domains(&self, id: u16) -> u64 {
        let of = |m: &BTreeMap<u16, u64>| m.iter().filter(|(d, _)| **d != id).map(|(_, n)| n).sum::<u64>();
        of(&self.domains) + of(&self.xen_heap) + self.unknown_owner
    }
}
