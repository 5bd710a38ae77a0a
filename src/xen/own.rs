//! Xen's own memory: what is neither free nor another domain's.
//!
//! | frame | |
//! |---|---|
//! | free, offline, or without an entry in the frame table | stays out |
//! | without an owner: Xen's image, frame table, M2P, page tables, heap | Xen's |
//! | from the Xen heap, whoever it is shared with (shared infos, grant tables, trace buffers) | Xen's |
//! | of DOMID_XEN or DOMID_IO | Xen's |
//! | ordinary memory of the domain that is cut out, that its P2M does not have | goes with it |
//! | ordinary memory of any other domain, also one that is no longer in the list | stays out |
//!
//! It costs a look at every frame of the machine.

use super::frame_table::Entry;
use super::page_info::{PageInfo, PageState};
use super::{Domain, Host, P2m};
use crate::units::{Mfn, PAGE_BYTES};
use rayon::prelude::*;

/// Frames that one task looks at.
const PART: u64 = 1 << 18;
/// Frames that a machine can have: 64 TiB of them, four times what Xen supports.
const MOST_FRAMES: u64 = 1 << 34;

/// Frames of Xen's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// First frame and number of each run, by MFN.
    pub runs: Vec<(Mfn, u64)>,
    /// Frames of the dump that stay out since it lacks their entry in the frame table.
    pub unknown: u64,
}

impl Own {
    /// Whether a frame is in it.
    pub fn contains(&self, mfn: Mfn) -> bool {
        let next = self.runs.partition_point(|r| r.0 <= mfn);
        let run = next.checked_sub(1).and_then(|i| self.runs.get(i));
        run.is_some_and(|(first, len)| mfn.0 - first.0 < *len)
    }

    /// Number of frames.
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|r| r.1).sum()
    }

    fn push(&mut self, first: Mfn, count: u64) {
        match self.runs.last_mut() {
            Some(last) if last.0.0 + last.1 == first.0 => last.1 += count,
            _ => self.runs.push((first, count)),
        }
    }
}

/// Looks at all frames that the dump has for Xen's. Frames in the P2M of `domain` are not among them.
pub fn read(host: &Host<'_>, domain: &Domain, p2m: &P2m) -> Own {
    let bound = host.frames.max_page().min(MOST_FRAMES);
    let ranges = host.memory().map().ranges();
    let ranges = ranges.map(|(a, b)| (a.0.div_ceil(PAGE_BYTES), (b.0 / PAGE_BYTES).min(bound)));
    let parts = ranges.flat_map(|(start, end)| {
        (start..end).step_by(PART as usize).map(move |first| (first, first.saturating_add(PART).min(end)))
    });
    let parts: Vec<(u64, u64)> = parts.collect();
    let scan = |(start, end): (u64, u64)| {
        let mut part = Own::default();
        let mut frames = host.frames.cursor();
        for mfn in (start..end).map(Mfn) {
            match frames.look(mfn) {
                Entry::Info(info) if belongs(host, domain, &info) && p2m.pfn(mfn).is_none() => part.push(mfn, 1),
                Entry::Unreadable if p2m.pfn(mfn).is_none() => part.unknown += 1,
                Entry::Info(_) | Entry::None | Entry::Unreadable => {}
            }
        }
        part
    };
    let parts: Vec<Own> = parts.into_par_iter().map(scan).collect();
    let mut all = Own::default();
    for part in parts {
        all.unknown += part.unknown;
        part.runs.into_iter().for_each(|(first, count)| all.push(first, count));
    }
    all
}

fn belongs(host: &Host<'_>, domain: &Domain, info: &PageInfo) -> bool {
    if matches!(info.state(host.state_bits), PageState::Free | PageState::Offlined) {
        return false;
    }
    let owner = Some(info.owner);
    !info.has_owner(host.state_bits)
        || info.is_xen_heap()
        || owner == host.dom_xen
        || owner == host.dom_io
        || info.owner == domain.owner_code
}
