//! A P2M made up from Xen's own tables: each frame that the domain owns, under the PFN that the M2P says.
//!
//! It needs nothing of the domain's, but knows neither foreign frames nor identities, believes what the domain told Xen of
//! its frames, and costs a look at every frame of the machine. So it is the last resort, and the way for domains that
//! published nothing.

use super::source::{FAN, Part, Source};
use crate::units::{MAX_FRAME, Mfn};
use crate::xen::m2p::M2p;
use crate::xen::{Domain, Host};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// Frames that one task looks at.
const PART: u64 = 1 << 18;

/// Owned frames by PFN.
#[derive(Clone, Debug, Default)]
pub struct Inverted {
    /// PFN and MFN, by PFN; the lower MFN of two.
    frames: Vec<(u64, u64)>,
}

impl Inverted {
    /// Its name.
    pub const NAME: &str = "M2P";

    /// Looks at all frames of the machine for those of the domain.
    pub fn read(host: &Host<'_>, domain: &Domain) -> Self {
        Self::read_all(host, &[domain]).pop().unwrap_or_default()
    }

    /// Nobody's.
    pub const NOTHING: &Self = &Self { frames: Vec::new() };

    /// The same for all domains in one pass over the frame table, by id.
    pub fn of_all(host: &Host<'_>) -> BTreeMap<u16, Self> {
        let all: Vec<&Domain> = host.domains.iter().collect();
        let ids = all.iter().map(|d| d.id);
        ids.zip(Self::read_all(host, &all)).collect()
    }

    /// The same for several domains at once, in their order.
    pub fn read_all(host: &Host<'_>, domains: &[&Domain]) -> Vec<Self> {
        let max = host.frames.max_page().min(MAX_FRAME + 1);
        let blocks = host.frames.pdx().blocks();
        let parts: Vec<u64> = blocks.into_iter().flat_map(|(a, b)| (a..b.min(max)).step_by(PART as usize)).collect();
        let scan = |first: &u64| {
            let mut found = Vec::new();
            let (mut frames, mut m2p) = (host.frames.cursor(), M2p::new(host.space));
            for mfn in (*first..(first + PART).min(max)).map(Mfn) {
                let Some(info) = frames.look(mfn).info() else { continue };
                let Some(owner) = domains.iter().position(|d| d.owns(host, &info)) else { continue };
                if let Some(pfn) = m2p.get(mfn) {
                    found.push((owner, pfn.0, mfn.0));
                }
            }
            found
        };
        let mut all = vec![Self::default(); domains.len()];
        for (owner, pfn, mfn) in parts.par_iter().flat_map_iter(scan).collect::<Vec<_>>() {
            if let Some(list) = all.get_mut(owner) {
                list.frames.push((pfn, mfn));
            }
        }
        for list in &mut all {
            list.frames.sort_unstable();
            list.frames.dedup_by_key(|f| f.0);
        }
        all
    }

    /// Whether the domain owns any frame that the M2P knows.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl Source for Inverted {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn end(&self) -> u64 {
        self.frames.last().map_or(0, |f| f.0 + 1)
    }

    fn walk(&self, range: Range<u64>, each: &mut dyn FnMut(Part<'_>)) {
        let from = self.frames.partition_point(|f| f.0 < range.start);
        let to = self.frames.partition_point(|f| f.0 < range.end);
        let mut run: Vec<u64> = Vec::new();
        let mut first = 0;
        for &(pfn, mfn) in self.frames.get(from..to).unwrap_or_default() {
            if first + run.len() as u64 != pfn || run.len() as u64 == FAN {
                each(Part::Entries(first, &run));
                run.clear();
                first = pfn;
            }
            run.push(mfn);
        }
        each(Part::Entries(first, &run));
    }

    fn lookup(&self, pfn: u64) -> Option<u64> {
        let at = self.frames.binary_search_by_key(&pfn, |f| f.0).ok()?;
        self.frames.get(at).map(|f| f.1)
    }
}
