//! Where the dump has no RAM, and why.

use super::class::{Class, Classifier};
use super::host::Host;
use crate::units::Mfn;
use serde::Serialize;
use std::cmp::Reverse;

/// Frames of a hole that are looked up at most.
const LOOKS: u64 = 64;
/// Holes that are looked at; a machine has some tens.
const MOST_HOLES: usize = 1 << 12;

/// What a hole is, by most of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HoleKind {
    /// DOMID_IO's: devices' memory, and what the firmware keeps.
    Mmio,
    /// Xen has an entry for it and no owner: withheld from the dump, as the memory of kdump's own kernel.
    Withheld,
    /// Xen knows of nothing there.
    Nothing,
}

/// A run of frames without RAM in the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Its first frame.
    pub first: Mfn,
    /// The frame behind it.
    pub end: Mfn,
    /// What it is.
    pub kind: HoleKind,
}

/// The holes from frame 0 to the end of RAM, by address.
pub fn holes(host: &Host<'_>) -> Vec<Hole> {
    let classifier = Classifier::new(host);
    let mut cursor = host.frames.cursor();
    let (mut at, mut found) = (0, Vec::new());
    for (start, end) in host.memory().map().frames() {
        if at < start {
            let looks = if found.len() < MOST_HOLES { LOOKS } else { 0 };
            let step = (start - at).div_ceil(looks.max(1)).max(1);
            let mut votes = [(0_u64, HoleKind::Mmio), (0, HoleKind::Withheld), (0, HoleKind::Nothing)];
            for mfn in (at..start).step_by(step as usize).take(looks as usize) {
                let kind = match classifier.class(cursor.look(Mfn(mfn))) {
                    Class::Io => HoleKind::Mmio,
                    Class::NoEntry => HoleKind::Nothing,
                    _ => HoleKind::Withheld,
                };
                votes.iter_mut().filter(|v| v.1 == kind).for_each(|v| v.0 += 1);
            }
            votes.sort_by_key(|(n, kind)| (Reverse(*n), *kind));
            let kind = votes.first().filter(|v| v.0 > 0).map_or(HoleKind::Nothing, |v| v.1);
            found.push(Hole { first: Mfn(at), end: Mfn(start), kind });
        }
        at = end;
    }
    found
}
